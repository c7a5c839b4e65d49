//! The whole daemon in a storm: requests and replies get lost, late, refused and garbled, EC2 and its metadata service tell
//! late what is, somebody else changes ENIs, pods come and go, and the daemon is restarted again and again, also with
//! other settings. Then the weather gets calm, the pods go, and nothing may be lost.
//!
//! `SOAK_MINUTES=20` takes the long form, with EC2's real delays.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

#[path = "soak/pods.rs"]
mod pods;
mod stage;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{Binaries, Cloud, Cluster, ClusterPlan, Worker, flight, storm::Storm};
use ec2_sim::{DelayRange, Delays, Lags, Meddler, WorldConfig, world::model::Eni};
use eni_proto::numbers::TAG_INSTANCE;
use lab::wait;
use pods::Pods;
use stage::PATIENCE;
use tokio::task::JoinSet;

/// How long after the storm everything may take to be in order, real delays of EC2 included.
const CALM: Duration = Duration::from_secs(300);

#[derive(Clone)]
struct Soak {
    lasts: Duration,
    world: WorldConfig,
    /// Between two restarts of a daemon, on average.
    restart: Duration,
    /// Between two deeds of somebody else.
    meddle: Duration,
    /// How late EC2 tells what is at most.
    told_late: Duration,
}

fn soak() -> Soak {
    let minutes = std::env::var("SOAK_MINUTES").ok().and_then(|text| text.parse::<u64>().ok());
    match minutes {
        Some(minutes) => Soak {
            lasts: Duration::from_secs(minutes * 60),
            world: WorldConfig { delays: Delays::REAL, lags: Lags::REAL, ..WorldConfig::default() },
            restart: Duration::from_secs(20),
            meddle: Duration::from_secs(10),
            told_late: Duration::from_secs(18),
        },
        None => Soak {
            lasts: Duration::from_secs(20),
            world: WorldConfig {
                lags: Lags { describe: DelayRange::millis(0, 500), filters: DelayRange::millis(0, 500), ..Lags::NONE },
                ..WorldConfig::default()
            },
            restart: Duration::from_secs(5),
            meddle: Duration::from_secs(4),
            told_late: Duration::from_secs(1),
        },
    }
}

/// Numbers by a seed, for whoever stirs.
struct Dice(u64);

impl Dice {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % below
    }

    /// Between half and one and a half of it.
    fn about(&mut self, time: Duration) -> Duration {
        time / 2 + time * u32::try_from(self.below(1000)).unwrap() / 1000
    }
}

/// How far the storm is.
#[derive(Default)]
struct Course {
    /// Somebody else makes no new plans.
    nobody_meddles: AtomicBool,
    /// What they did last is what EC2 tells.
    all_is_told: AtomicBool,
    over: AtomicBool,
}

/// Ends and starts the daemon until the storm is over, half of the time by `kill -9`, now and then with other settings. At rest a
/// daemon asks EC2 nothing, so only one that begins after somebody else's last deed is told can be expected to know of it: the
/// last one does.
async fn restart_again_and_again(worker: Arc<Worker>, pause: Duration, course: Arc<Course>, seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let (mut restarts, mut knows_all) = (0, false);
    loop {
        tokio::time::sleep(dice.about(pause)).await;
        if knows_all && course.over.load(Ordering::Relaxed) {
            return restarts;
        }
        let all_is_told = course.all_is_told.load(Ordering::Relaxed);
        match dice.below(2) {
            0 => worker.kill_daemon().unwrap(),
            _ => drop(worker.stop_daemon(PATIENCE).await.unwrap()),
        }
        worker.set("ENABLE_PREFIX_DELEGATION", ["false", "false", "true"][usize::try_from(dice.below(3)).unwrap()]);
        worker.set("WARM_IP_TARGET", &(1 + dice.below(12)).to_string());
        worker.start_daemon().unwrap();
        restarts += 1;
        knows_all = all_is_told;
    }
}

/// Somebody else at work on the same account.
async fn meddle(cluster: Arc<Cluster>, soak: &Soak, course: Arc<Course>, seed: u64) -> u64 {
    let (mut dice, mut meddler, mut deeds) = (Dice(seed), Meddler::new(seed), 0);
    loop {
        tokio::time::sleep(dice.about(soak.meddle)).await;
        if course.nobody_meddles.load(Ordering::Relaxed) {
            tokio::time::sleep(soak.told_late).await;
            course.all_is_told.store(true, Ordering::Relaxed);
            return deeds;
        }
        let deed = cluster.cloud.sim().unwrap().with(|world, now| meddler.act(world, now));
        deeds += u64::from(deed.is_some());
    }
}

/// What is not in order: ENIs that nobody looks after, and addresses that EC2 has given but the daemon does not count.
async fn disorder(cluster: &Cluster, worker: &Worker) -> Result<(), String> {
    let status = worker.status().await?;
    let instance = worker.node().instance();
    let here = |eni: &Eni| eni.attachment.as_ref().is_some_and(|at| at.instance == *instance);
    let ours = |eni: &Eni| eni.tags.get(TAG_INSTANCE).is_some_and(|id| id == instance.as_str());
    let (given, loose) = cluster.cloud.sim().unwrap().with(|world, _| {
        let given: usize =
            world.enis().filter(|eni| here(eni)).map(|eni| eni.secondary.len() + 16 * eni.prefixes.len()).sum();
        let loose: Vec<_> = world.enis().filter(|eni| ours(eni) && !here(eni)).map(|eni| eni.id.to_string()).collect();
        (given, loose)
    });
    let counted = usize::try_from(status.free + status.leased + status.cooling).unwrap();
    if loose.is_empty() && counted == given && status.ready && status.leased == 0 {
        return Ok(());
    }
    Err(format!(
        "{}: loose {loose:?}; EC2 has given {given} addresses, the daemon says {status:?}",
        worker.node().name()
    ))
}

/// What the storm was like.
#[derive(Default)]
struct Stirred {
    restarts: AtomicU64,
    deeds: AtomicU64,
}

/// Two nodes whose daemons run.
async fn stage(storm: &Storm, world: WorldConfig) -> Arc<Cluster> {
    let settings = [
        ("WARM_IP_TARGET", "5"),
        ("IP_COOLDOWN_PERIOD", "5"),
        ("ADD_WAIT_SECONDS", "10"),
        ("IPAMD_METADATA_SECONDS", "5"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let plan = ClusterPlan { workers: 2, settings, ..ClusterPlan::small(Binaries::from_environment().unwrap()) };
    let cloud = Cloud::simulate_in(storm.clone(), world).await.unwrap();
    let cluster = Cluster::start(cloud, &plan).await.unwrap();
    for worker in &cluster.workers {
        worker.start_daemon().unwrap();
    }
    Arc::new(cluster)
}

/// Lets the storm rage for its time. Returns when all that stirred has ended.
async fn rage(cluster: &Arc<Cluster>, storm: &Storm, crowds: &[Arc<Pods>], soak: &Soak) -> Arc<Stirred> {
    let (stirred, course) = (Arc::new(Stirred::default()), Arc::new(Course::default()));
    let restart = soak.restart;
    let mut stirring = JoinSet::new();
    storm.rage(1);
    for ((worker, pods), seed) in cluster.workers.iter().zip(crowds).zip(1..) {
        let (worker, pods) = (Arc::clone(worker), Arc::clone(pods));
        let (ended, course, stirred) = (Arc::clone(&course), Arc::clone(&course), Arc::clone(&stirred));
        stirring.spawn(async move { pods.come_and_go(&ended.over).await });
        stirring.spawn(async move {
            let restarts = restart_again_and_again(worker, restart, course, seed).await;
            stirred.restarts.fetch_add(restarts, Ordering::Relaxed);
        });
    }
    let (everywhere, plan, ended, counted) =
        (Arc::clone(cluster), soak.clone(), Arc::clone(&course), Arc::clone(&stirred));
    stirring.spawn(async move {
        counted.deeds.fetch_add(meddle(everywhere, &plan, ended, 9).await, Ordering::Relaxed);
    });
    // The last restarts are to fall into the storm as well, if the machine is quick.
    let without_meddling = restart * 2;
    tokio::time::sleep(soak.lasts.saturating_sub(without_meddling)).await;
    course.nobody_meddles.store(true, Ordering::Relaxed);
    tokio::time::sleep(without_meddling).await;
    course.over.store(true, Ordering::Relaxed);
    storm.calm();
    stirring.join_all().await;
    stirred
}

/// What happened, one line for each kind of thing.
fn report(cluster: &Cluster, storm: &Storm, crowds: &[Arc<Pods>], stirred: &Stirred) -> String {
    let ((faults, metadata_faults), calls) = (storm.faults(), storm.calls());
    let (restarts, deeds) = (stirred.restarts.load(Ordering::Relaxed), stirred.deeds.load(Ordering::Relaxed));
    let mut lines = vec![
        format!("EC2 calls: {} {calls:?}", calls.values().sum::<u64>()),
        format!("faults at EC2: {} {faults:?}", faults.values().sum::<u64>()),
        format!(
            "faults at the metadata service: {metadata_faults}; deeds of somebody else: {deeds}; restarts: {restarts}"
        ),
    ];
    for (worker, pods) in cluster.workers.iter().zip(crowds) {
        let resident = worker.daemon_resident_kib().unwrap_or(0);
        lines.push(format!("{}: {}; {resident} KiB resident", worker.node().name(), pods.in_words()));
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_storm_loses_no_interface_and_no_address_and_takes_nothing_from_a_pod() {
    let soak = soak();
    let storm = Storm::new();
    let cluster = stage(&storm, soak.world.clone()).await;
    let crowd = |(worker, seed)| Arc::new(Pods::new(Arc::clone(worker), storm.clone(), seed));
    let crowds: Vec<_> = cluster.workers.iter().zip(1..).map(crowd).collect();
    let stirred = rage(&cluster, &storm, &crowds, &soak).await;

    let calm_since = Instant::now();
    for pods in &crowds {
        pods.all_go().await;
    }
    let mut leaks = Vec::new();
    for worker in &cluster.workers {
        let calm = wait::until(CALM, "everything in order again", || disorder(&cluster, worker)).await;
        leaks.extend(calm.err().map(|late| late.to_string()));
    }
    println!("storm of {:.0?}, in order again after {:.1?}", soak.lasts, calm_since.elapsed());
    println!("{}", report(&cluster, &storm, &crowds, &stirred));
    let logs: Vec<String> = cluster.workers.iter().map(|worker| worker.daemon_log()).collect();
    let panics: usize = logs.iter().map(|log| log.matches("panicked at").count()).sum();
    let failures: Vec<String> = crowds.iter().flat_map(|pods| pods.failures()).chain(storm.broken()).collect();
    println!("leaks: {}, panics: {panics}, broken promises: {}", leaks.len(), failures.len());

    if !leaks.is_empty() || panics > 0 || !failures.is_empty() {
        let kept = std::env::temp_dir().join(format!("eni-soak-{}.log", std::process::id()));
        std::fs::write(&kept, logs.join("\n\n")).unwrap();
        panic!("leaks {leaks:#?}, {panics} panics, {failures:#?}; the daemons' words are in {}", kept.display());
    }
    flight::check_nothing_left(&cluster).await.unwrap();
}
