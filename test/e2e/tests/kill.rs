//! `kill -9` of the daemon at each step of ADD and DEL, with the plugin and without: after its next start and one DEL nothing is
//! left, and no address was given twice.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is not as it should be, and how far it came"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Instant,
};

use e2e::{Cluster, PluginRun, Sandbox, Verb, Worker, WorkerState, flight};
use lab::wait;

mod stage;
mod steps;

use stage::{PATIENCE, ready_cluster};
use steps::{Step, Watch};

/// Pods that live all the time: as many as the primary ENI of an m5.xlarge has addresses, so that all others are on the next.
const LIVING: usize = 14;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victims {
    Daemon,
    DaemonAndPlugin,
}

/// What became of a plugin's run whose daemon was to die.
struct Fate {
    /// Before which step it died. None: it had finished before that many.
    killed: Option<Step>,
    /// What the plugin answered. None: it was killed too.
    run: Option<PluginRun>,
}

/// A node on which pods live, one sandbox to work on, and one that is added after each crash.
struct World {
    worker: Arc<Worker>,
    before: WorkerState,
    sandbox: Sandbox,
    neighbour: Sandbox,
    _living: Vec<Arc<Sandbox>>,
    _cluster: Cluster,
}

impl World {
    async fn new() -> Self {
        let settings = [("MINIMUM_IP_TARGET", "42"), ("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "5")];
        let cluster = ready_cluster(1, 40, &settings).await;
        let worker = Arc::clone(&cluster.workers[0]);
        let living = flight::sandboxes(LIVING).unwrap();
        flight::add(&cluster, &living).await.unwrap();
        let before = WorkerState::read(&worker).await.unwrap();
        let [sandbox, neighbour] = ["victim", "neighbour"].map(|name| Sandbox::new(name, 100 + name.len()).unwrap());
        Self { worker, before, sandbox, neighbour, _living: living, _cluster: cluster }
    }

    /// Runs the plugin while its daemon is killed before step `nth`, and starts the next daemon.
    async fn run_killed(&self, verb: Verb, victims: Victims, nth: usize) -> Fate {
        let mut watch = Watch::begin(self.worker.daemon_pid().unwrap(), nth).await;
        let mut run = Box::pin(self.worker.plugin(verb, &self.sandbox));
        let (killed, run) = tokio::select! {
            killed = &mut watch.killed => {
                let run = match victims {
                    Victims::Daemon => {
                        self.worker.start_daemon().unwrap();
                        Some(run.await.unwrap())
                    }
                    Victims::DaemonAndPlugin => {
                        drop(run);
                        self.worker.start_daemon().unwrap();
                        None
                    }
                };
                return Fate { killed: killed.unwrap(), run };
            }
            run = &mut run => (watch.finish().await, run.unwrap()),
        };
        if killed.is_some() {
            self.worker.start_daemon().unwrap();
        }
        Fate { killed, run: Some(run) }
    }

    /// One more pod comes, with an address that nobody has, and goes. Then one DEL leaves nothing.
    async fn all_is_well(&self, after: &str, held: Option<Ipv4Addr>) {
        let log = || format!("{after}\n{}", self.worker.daemon_log());
        let run = self.worker.plugin(Verb::Add, &self.neighbour).await.unwrap();
        let address = run.address().unwrap_or_else(|| panic!("{run:?} {}", log()));
        assert!(held != Some(address) && !self.before.leases.contains_key(&address), "{address} twice {}", log());
        for sandbox in [&self.neighbour, &self.sandbox] {
            let run = self.worker.plugin(Verb::Del, sandbox).await.unwrap();
            assert_eq!(run.failure(), None, "{}", log());
        }
        let as_before = || async {
            let state = WorkerState::read(&self.worker).await.map_err(|trouble| trouble.chain())?;
            // A DEL that had to wait too long for the new daemon has left one.
            let notes = notes(&self.worker);
            if state == self.before && notes.is_empty() {
                Ok(())
            } else {
                Err(format!("{notes:?}, {state:?} instead of {:?}", self.before))
            }
        };
        wait::until(PATIENCE, "nothing to be left", as_before).await.unwrap_or_else(|late| panic!("{late} {}", log()));
        let status = self.worker.status().await.unwrap();
        assert_eq!(status.leased, u32::try_from(LIVING).unwrap(), "{}", log());
    }
}

fn notes(worker: &Worker) -> BTreeSet<std::ffi::OsString> {
    let entries = std::fs::read_dir(worker.released_directory()).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

fn tell(verb: Verb, victims: Victims, steps: &[Step], begun: Instant) {
    let mut counts = BTreeMap::new();
    steps.iter().for_each(|step| *counts.entry(step).or_insert(0) += 1);
    println!("{verb:?}, {victims:?} killed at {} steps in {:.0?}: {counts:?}", steps.len(), begun.elapsed());
}

async fn adds(victims: Victims) {
    let (world, mut steps, begun) = (World::new().await, Vec::new(), Instant::now());
    loop {
        let nth = steps.len();
        let fate = world.run_killed(Verb::Add, victims, nth).await;
        let after = format!("ADD, {victims:?} killed before step {nth}: {:?}", fate.killed);
        // The next daemon serves whom the former one left alone.
        let address = fate.run.map(|run| run.address().unwrap_or_else(|| panic!("{after}: {run:?}")));
        world.all_is_well(&after, address).await;
        match fate.killed {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    tell(Verb::Add, victims, &steps, begun);
    assert!(steps.len() > 3, "{steps:?}");
}

async fn dels(victims: Victims) {
    let (world, mut steps, begun) = (World::new().await, Vec::new(), Instant::now());
    loop {
        let nth = steps.len();
        let added = world.worker.plugin(Verb::Add, &world.sandbox).await.unwrap();
        assert!(added.address().is_some(), "{added:?}");
        let fate = world.run_killed(Verb::Del, victims, nth).await;
        let after = format!("DEL, {victims:?} killed before step {nth}: {:?}", fate.killed);
        if let Some(run) = fate.run {
            assert_eq!(run.failure(), None, "{after}");
        }
        world.all_is_well(&after, None).await;
        match fate.killed {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    tell(Verb::Del, victims, &steps, begun);
    assert!(steps.len() > 3, "{steps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_an_add_leaves_nothing_after_one_del() {
    adds(Victims::Daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_and_a_plugin_killed_at_any_step_of_an_add_leave_nothing_after_one_del() {
    adds(Victims::DaemonAndPlugin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_at_any_step_of_a_del_leaves_nothing_after_one_more() {
    dels(Victims::Daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_and_a_plugin_killed_at_any_step_of_a_del_leave_nothing_after_one_more() {
    dels(Victims::DaemonAndPlugin).await;
}
