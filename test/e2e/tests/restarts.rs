//! A daemon that restarts again and again, by SIGTERM and by `kill -9`, and pods that come and go meanwhile: nobody notices.
//!
//! `SOAK=1` takes the long form: 100 restarts in 60 s under 50 ADDs and 50 DELs a second.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use e2e::{PluginRun, Sandbox, Verb, Worker, flight};
use lab::wait;
use tokio::task::JoinSet;

mod stage;

use stage::{PATIENCE, cluster, ready_cluster, ready_cluster_of, until_waiting_for};

/// Plugins at the same time at most: a machine that does not keep up gets fewer pods, and says so, instead of ever more plugins.
const AT_ONCE: usize = 200;
/// How long a pod lives at least.
const LIFE: Duration = Duration::from_secs(1);

struct Load {
    adds_per_second: u32,
    restarts: u32,
    seconds: u32,
    /// Addresses that must be there before: those that rest (5 s) and those that are held.
    addresses: u32,
}

fn load() -> Load {
    match std::env::var_os("SOAK") {
        Some(_) => Load { adds_per_second: 50, restarts: 100, seconds: 60, addresses: 520 },
        None => Load { adds_per_second: 10, restarts: 8, seconds: 8, addresses: 110 },
    }
}

/// What happened so far.
#[derive(Default)]
struct Tally {
    adds: Vec<Duration>,
    dels: Vec<Duration>,
    failures: Vec<String>,
    /// Turns without pods, because the machine did not keep up.
    left_out: u32,
    held: BTreeMap<Ipv4Addr, String>,
}

/// The sandboxes: those that can be used, and those that live, oldest first.
#[derive(Default)]
struct Sandboxes {
    idle: Vec<Sandbox>,
    live: VecDeque<(Instant, Sandbox, Ipv4Addr)>,
    made: usize,
}

struct Traffic {
    worker: Arc<Worker>,
    tally: Mutex<Tally>,
    sandboxes: Mutex<Sandboxes>,
}

impl Traffic {
    /// One pod comes and one goes, `adds_per_second` times a second, until `end` resolves.
    async fn run(self: &Arc<Self>, adds_per_second: u32, end: impl Future<Output = ()>) {
        let mut turns = tokio::time::interval(Duration::from_secs(1) / adds_per_second);
        let mut running = JoinSet::new();
        tokio::pin!(end);
        loop {
            tokio::select! { _ = turns.tick() => {}, () = &mut end => break }
            while running.try_join_next().is_some() {}
            if running.len() > AT_ONCE {
                self.tally.lock().unwrap().left_out += 1;
                continue;
            }
            let (adds, dels) = (Arc::clone(self), Arc::clone(self));
            running.spawn(async move { adds.add().await });
            running.spawn(async move { dels.del(LIFE).await });
        }
        running.join_all().await;
    }

    async fn add(&self) {
        let sandbox = {
            let mut sandboxes = self.sandboxes.lock().unwrap();
            sandboxes.made += 1;
            let number = sandboxes.made;
            let mut sandbox = sandboxes.idle.pop().unwrap_or_else(|| Sandbox::new("pod", number).unwrap());
            sandbox.name = format!("pod-{number}");
            sandbox.container_id = format!("{number:064x}");
            sandbox
        };
        let run = self.worker.plugin(Verb::Add, &sandbox).await.unwrap();
        let mut tally = self.tally.lock().unwrap();
        let Some(address) = run.address() else {
            tally.failures.push(format!("ADD of {}: {run:?}", sandbox.name));
            return;
        };
        tally.adds.push(run.took);
        if let Some(other) = tally.held.insert(address, sandbox.name.clone()) {
            tally.failures.push(format!("{address} was given to {} while {other} had it", sandbox.name));
        }
        drop(tally);
        self.sandboxes.lock().unwrap().live.push_back((Instant::now(), sandbox, address));
    }

    /// Takes the oldest sandbox down, if it has lived so long.
    async fn del(&self, life: Duration) {
        let oldest = {
            let mut sandboxes = self.sandboxes.lock().unwrap();
            let old = sandboxes.live.front().is_some_and(|(since, ..)| since.elapsed() >= life);
            if old { sandboxes.live.pop_front() } else { None }
        };
        let Some((_, sandbox, address)) = oldest else { return };
        self.tally.lock().unwrap().held.remove(&address);
        let run: PluginRun = self.worker.plugin(Verb::Del, &sandbox).await.unwrap();
        let mut tally = self.tally.lock().unwrap();
        match run.failure() {
            Some(failure) => tally.failures.push(format!("DEL of {}: {failure:?}", sandbox.name)),
            None => tally.dels.push(run.took),
        }
        drop(tally);
        self.sandboxes.lock().unwrap().idle.push(sandbox);
    }

    /// Takes the times of what was done since the last call.
    fn lap(&self) -> (Vec<Duration>, Vec<Duration>) {
        let mut tally = self.tally.lock().unwrap();
        (std::mem::take(&mut tally.adds), std::mem::take(&mut tally.dels))
    }
}

fn in_words(what: &str, mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times.get(times.len() * percent / 100).or(times.last()).copied().unwrap_or_default();
    format!("{what}: {} done, p50 {:.1?}, p99 {:.1?}, slowest {:.1?}", times.len(), at(50), at(99), at(100))
}

/// At most one restart in each part of the time, and only of a daemon that has begun to serve: on a slow machine it takes longer.
async fn restart_again_and_again(worker: &Worker, restarts: u32, lasts: Duration) {
    let mut turns = tokio::time::interval(lasts / (restarts + 1));
    turns.tick().await;
    for restart in 0..restarts {
        turns.tick().await;
        worker.until_ready(0, PATIENCE).await.unwrap();
        if restart % 2 == 0 {
            assert!(worker.stop_daemon(PATIENCE).await.unwrap(), "restart {restart}");
        } else {
            worker.kill_daemon().unwrap();
        }
        worker.start_daemon().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn restarts_of_the_daemon_are_invisible_to_pods_that_come_and_go() {
    let load = load();
    let wanted = load.addresses.to_string();
    let settings = [("MINIMUM_IP_TARGET", wanted.as_str()), ("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "5")];
    let cluster = ready_cluster_of("m5.24xlarge", load.addresses, &settings).await;
    let worker = Arc::clone(&cluster.workers[0]);
    let traffic =
        Arc::new(Traffic { worker: Arc::clone(&worker), tally: Mutex::default(), sandboxes: Mutex::default() });
    let lasts = Duration::from_secs(load.seconds.into());

    traffic.run(load.adds_per_second, tokio::time::sleep(lasts / 4)).await;
    let (adds, dels) = traffic.lap();
    println!("at rest:       {}\n               {}", in_words("ADD", adds), in_words("DEL", dels));
    let begun = Instant::now();
    traffic.run(load.adds_per_second, restart_again_and_again(&worker, load.restarts, lasts)).await;
    let (adds, dels) = traffic.lap();
    println!(
        "{} restarts in {:.0?}: {}\n               {}",
        load.restarts,
        begun.elapsed(),
        in_words("ADD", adds),
        in_words("DEL", dels)
    );

    worker.until_ready(1, PATIENCE).await.unwrap();
    while !traffic.sandboxes.lock().unwrap().live.is_empty() {
        traffic.del(Duration::ZERO).await;
    }
    let (failures, left_out) = {
        let mut tally = traffic.tally.lock().unwrap();
        (std::mem::take(&mut tally.failures), tally.left_out)
    };
    println!("{left_out} turns without pods, because the machine did not keep up");
    assert!(failures.is_empty(), "{} failures: {failures:#?}", failures.len());
    flight::check_nothing_left(&cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_waits_for_an_address_is_served_by_the_next_daemon() {
    let cluster = cluster(1, &[]).await;
    let worker = Arc::clone(&cluster.workers[0]);
    worker.cut_ec2();
    worker.start_daemon().unwrap();
    until_waiting_for(&worker, "EC2").await;
    let sandbox = Arc::new(Sandbox::new("patient", 1).unwrap());
    let (waiting, worker_of_add) = (Arc::clone(&sandbox), Arc::clone(&worker));
    let add = tokio::spawn(async move { worker_of_add.plugin(Verb::Add, &waiting).await });
    // The kernel shows the name under which the socket was made.
    let path = format!("{}~", worker.socket().display());
    let connected = || async {
        let sockets = worker.node().namespace().run(&["cat", "/proc/net/unix"]).unwrap();
        // State 3: connected. Source: SS_CONNECTED in linux/net.h.
        let ours = |line: &&str| line.ends_with(&path) && line.split_whitespace().nth(5) == Some("03");
        if sockets.lines().any(|line| ours(&line)) { Ok(()) } else { Err("nobody is connected") }
    };
    wait::until(PATIENCE, "the plugin's call", connected).await.unwrap();

    assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    assert!(!add.is_finished());
    worker.connect_ec2().unwrap();
    worker.start_daemon().unwrap();

    let run = add.await.unwrap().unwrap();
    assert!(run.address().is_some(), "{run:?}\n{}", worker.daemon_log());
    assert!(!worker.daemon_log().contains("some calls did not end"), "{}", worker.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_while_the_former_one_ends_waits_for_it() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    let next = worker.node().daemon("next", &worker.daemon_command(), &worker.daemon_environment()).unwrap();
    assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    worker.until_ready(1, PATIENCE).await.unwrap();
    assert!(next.log().contains("listening"), "{}", next.log());
}
