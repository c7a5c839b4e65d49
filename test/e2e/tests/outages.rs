//! EC2 or the metadata service is away: what the pool covers goes on, and their return is no storm.
//!
//! Hours of it, in virtual time, are in `ipamd/core/tests/outages.rs`.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::{
    Binaries, Cloud, Cluster, ClusterPlan, Sandbox, Verb, Worker, flight, observe,
    storm::{Fault, Storm},
};
use ec2_sim::WorldConfig;
use lab::wait;

mod stage;

use stage::{PATIENCE, ready_cluster};

const SETTINGS: [(&str, &str); 4] = [
    ("WARM_IP_TARGET", "10"),
    ("IP_COOLDOWN_PERIOD", "5"),
    ("IPAMD_METADATA_SECONDS", "1"),
    // A pod waits for EC2's return, and then for the end of a pause.
    ("ADD_WAIT_SECONDS", "180"),
];

/// Bound of a wait for what comes after several failures, between which there are pauses.
const LONG_PATIENCE: Duration = Duration::from_secs(150);

fn total(worker: &Worker) -> u64 {
    worker.ec2_calls().values().sum()
}

/// Waits until the daemon's log tells of so many calls that went wrong.
async fn until_it_has_tried(worker: &Worker, times: usize) {
    let tried = || async {
        let log = worker.daemon_log();
        let failed = log.matches("EC2 change failed").count() + log.matches("EC2 did not describe").count();
        if failed >= times { Ok(()) } else { Err(format!("{failed} times")) }
    };
    wait::until(LONG_PATIENCE, "vain calls of EC2", tried).await.unwrap();
}

/// A node whose pool is full, and the weather between it and EC2.
async fn stormy_cluster() -> (Storm, Cluster) {
    let storm = Storm::new();
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let plan = ClusterPlan { settings, ..ClusterPlan::small(Binaries::from_environment().unwrap()) };
    let cloud = Cloud::simulate_in(storm.clone(), WorldConfig::default()).await.unwrap();
    let cluster = Cluster::start(cloud, &plan).await.unwrap();
    cluster.workers[0].start_daemon().unwrap();
    until_free(&cluster.workers[0], 10).await;
    (storm, cluster)
}

async fn until_free(worker: &Worker, free: u32) {
    worker.until_ready(free, LONG_PATIENCE).await.unwrap();
}

/// Ten pods come while EC2 is away, and the eleventh waits; `back` brings EC2 back. Returns how much was asked then.
async fn live_through(cluster: &Cluster, back: impl FnOnce()) -> u64 {
    let worker = &cluster.workers[0];
    let pods = flight::add(cluster, &flight::sandboxes(10).unwrap()).await.unwrap_or_else(|error| {
        panic!("{}\n{}", error.chain(), worker.daemon_log());
    });
    let (waiting, late) = (Arc::clone(worker), Arc::new(Sandbox::new("late", 99).unwrap()));
    let sandbox = Arc::clone(&late);
    let add = tokio::spawn(async move { waiting.plugin(Verb::Add, &sandbox).await });
    until_it_has_tried(worker, 4).await;

    back();
    let before = total(worker);
    let run = add.await.unwrap().unwrap();
    assert!(run.address().is_some(), "{run:?}\n{}", worker.daemon_log());
    // Where EC2 complained of too many requests, what nobody waits for comes later.
    until_free(worker, 1).await;
    let asked = total(worker) - before;
    flight::delete(cluster, &pods).await.unwrap();
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_way_to_ec2_the_pool_serves_and_the_return_costs_a_handful_of_calls() {
    let cluster = ready_cluster(1, 10, &SETTINGS).await;
    let worker = &cluster.workers[0];
    worker.cut_ec2();
    let asked = live_through(&cluster, || worker.connect_ec2().unwrap()).await;
    assert!(asked <= 12, "{:?}", worker.ec2_calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_ec2_answers_with_errors_only_the_pool_serves_and_little_is_asked() {
    for fault in [Fault::Failed, Fault::Throttled, Fault::LostRequest] {
        let (storm, cluster) = stormy_cluster().await;
        let worker = &cluster.workers[0];

        let (began, before) = (Instant::now(), total(worker));
        storm.outage(fault);
        let mut meanwhile = (0, Duration::ZERO);
        let asked = live_through(&cluster, || {
            meanwhile = (total(worker) - before, began.elapsed());
            storm.calm();
        })
        .await;
        let (vain, lasted) = meanwhile;
        // Twice as long after each failure, for a description and a change each.
        assert!(vain <= 16 + lasted.as_secs(), "{fault:?}: {vain} calls in {lasted:?}: {:?}", worker.ec2_calls());
        assert!(asked <= 12, "{fault:?}: {:?}", worker.ec2_calls());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_metadata_service_a_restarted_daemon_serves_as_before() {
    let cluster = ready_cluster(1, 10, &SETTINGS).await;
    let worker = &cluster.workers[0];
    let first = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    worker.node().namespace().ip("addr del 169.254.169.254/32 dev lo\n").unwrap();
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();
    until_free(worker, 10).await;

    let sandboxes: Vec<_> = (50..58).map(|n| Arc::new(Sandbox::new(&format!("later-{n}"), n).unwrap())).collect();
    let later = flight::add(&cluster, &sandboxes).await.unwrap();
    let all: Vec<_> = first.into_iter().chain(later).collect();
    flight::check_present(&cluster, &all).await.unwrap();
    assert!(worker.daemon_log().contains("IPAM-307"), "{}", worker.daemon_log());

    worker.node().namespace().ip("addr add 169.254.169.254/32 dev lo\n").unwrap();
    flight::delete(&cluster, &all).await.unwrap();
    flight::check_nothing_left(&cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_serves_before_it_asks_ec2() {
    let cluster = ready_cluster(1, 10, &SETTINGS).await;
    let worker = &cluster.workers[0];
    let all_settled = || async {
        let open = observe::open_changes(worker).await.map_err(|trouble| trouble.chain())?;
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    };
    wait::until(PATIENCE, "every change to be settled", all_settled).await.unwrap();
    worker.set("IPAMD_START_JITTER_SECONDS", "300");
    worker.kill_daemon().unwrap();
    let before = total(worker);
    worker.start_daemon().unwrap();

    let pods = flight::add(&cluster, &flight::sandboxes(5).unwrap()).await.unwrap();
    assert_eq!(total(worker), before, "{:?}", worker.ec2_calls());
    flight::delete(&cluster, &pods).await.unwrap();
}

/// Of an interface that a change was left open on, nothing new is given out before EC2 has described it.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_daemon_that_left_a_change_open_asks_ec2_at_once() {
    let (storm, cluster) = stormy_cluster().await;
    let worker = &cluster.workers[0];
    // Without a connection nothing would be open: what was never sent did not happen.
    storm.outage(Fault::LostReply);
    let pods = flight::add(&cluster, &flight::sandboxes(5).unwrap()).await.unwrap();
    let left_open = || async {
        let open = observe::open_changes(worker).await.map_err(|trouble| trouble.chain())?;
        if open.is_empty() { Err("none is open") } else { Ok(()) }.map_err(str::to_owned)
    };
    wait::until(LONG_PATIENCE, "a change whose outcome nobody knows", left_open).await.unwrap();
    worker.set("IPAMD_START_JITTER_SECONDS", "300");
    worker.kill_daemon().unwrap();
    storm.calm();
    worker.start_daemon().unwrap();

    let sandboxes: Vec<_> = (50..60).map(|n| Arc::new(Sandbox::new(&format!("later-{n}"), n).unwrap())).collect();
    let later = flight::add(&cluster, &sandboxes).await.unwrap();
    let all: Vec<_> = pods.into_iter().chain(later).collect();
    flight::delete(&cluster, &all).await.unwrap();
}
