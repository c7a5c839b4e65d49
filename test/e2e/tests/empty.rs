//! An empty pool is a wait, not an error: pods get the addresses that EC2 is slow to give, first come first served. A pool that is
//! exhausted for good is told at once.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says by a panic what is not as it should be, and prints what it measured"
)]

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use e2e::{Sandbox, Verb, Worker, flight, plugin::CniFailure};
use ec2_sim::world::FaultRule;
use eni_proto::wire::{AddRequest, Pod, add_reply::Outcome};
use lab::wait;
use serde_json::{Value, json};
use tokio::task::JoinSet;

mod stage;

use stage::{PATIENCE, client, cluster_of, key};

/// What EC2 takes for each change.
const LATENCIES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];
/// Pods at once: more than two ENIs of an m5.24xlarge carry.
const PODS: usize = 100;
/// Nothing is kept ready.
const EMPTY: [(&str, &str); 3] =
    [("WARM_IP_TARGET", "0"), ("MINIMUM_IP_TARGET", "1"), ("AWS_VPC_K8S_CNI_LOGLEVEL", "debug")];

fn waiting(worker: &Worker, seconds: u32) -> Value {
    let mut configuration = worker.configuration();
    configuration["addWaitSeconds"] = json!(seconds);
    configuration
}

/// A hundred pods on a node without any address, whose changes at EC2 take `latency` each.
async fn a_hundred_pods(latency: Duration) -> Delays {
    let cluster = cluster_of("m5.24xlarge", 1, &EMPTY).await;
    let worker = Arc::clone(&cluster.workers[0]);
    cluster.cloud.sim().unwrap().with(|world, _| {
        for action in ["AssignPrivateIpAddresses", "CreateNetworkInterface", "AttachNetworkInterface"] {
            world.inject(FaultRule::slow(action, 1000, latency));
        }
    });
    worker.start_daemon().unwrap();
    worker.until_ready(0, PATIENCE).await.unwrap();
    // A node that is to have nothing ready has one all the same, so that it can say that it is.
    assert!(worker.status().await.unwrap().free <= 1);

    let configuration = waiting(&worker, 180);
    let mut adds = JoinSet::new();
    for sandbox in flight::sandboxes(PODS).unwrap() {
        let (worker, configuration) = (Arc::clone(&worker), configuration.clone());
        adds.spawn(async move {
            let run = worker.plugin_given(Verb::Add, &sandbox, &configuration).await.unwrap();
            // The sandbox lives until all are there.
            (run, sandbox)
        });
    }
    let runs = adds.join_all().await;
    let failures: Vec<_> = runs.iter().filter_map(|(run, _)| run.failure()).collect();
    assert!(failures.is_empty(), "{} failures: {failures:#?}\n{}", failures.len(), worker.daemon_log());
    let addresses: BTreeSet<_> = runs.iter().filter_map(|(run, _)| run.address()).collect();
    assert_eq!(addresses.len(), PODS);
    Delays::read(latency, &worker.daemon_log())
}

/// From the moment when the daemon knew of an address until it had given it to a pod; by the times in its log.
struct Delays {
    latency: Duration,
    sorted: Vec<Duration>,
}

impl Delays {
    fn read(latency: Duration, log: &str) -> Self {
        let (mut arrival, mut sorted) = (Duration::ZERO, Vec::new());
        for line in log.lines() {
            let assigned = line.contains("EC2 change done") && line.contains("Assign");
            // An answer that does not come in time is found out by looking.
            if assigned || line.contains("interface is ready for pods") || line.contains("EC2 described this node") {
                arrival = time_of_day(line);
            } else if line.contains("address given to pod") {
                sorted.push(time_of_day(line).saturating_sub(arrival));
            }
        }
        sorted.sort();
        Self { latency, sorted }
    }
}

impl fmt::Display for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |percent: usize| self.sorted[(self.sorted.len() - 1) * percent / 100];
        let (latency, count) = (self.latency, self.sorted.len());
        write!(
            f,
            "EC2 takes {latency:?}: {count} of {PODS} ADDs; from an address's arrival to the answer p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            at(50),
            at(99),
            at(100)
        )
    }
}

/// As `2026-11-21T09:30:00.123456Z  INFO ...`, for which the day does not matter.
fn time_of_day(line: &str) -> Duration {
    let time = line.split_once('T').unwrap().1.split('Z').next().unwrap();
    let mut parts = time.splitn(3, ':').map(|part| part.parse::<f64>().unwrap());
    let mut next = || parts.next().unwrap();
    Duration::from_secs_f64(next() * 3600.0 + next() * 60.0 + next())
}

/// All at the same time, because each spends most of its time waiting for EC2.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_pods_wait_for_their_addresses_however_slow_ec2_is() {
    let mut cases = JoinSet::new();
    LATENCIES.into_iter().for_each(|latency| drop(cases.spawn(a_hundred_pods(latency))));
    let mut delays = cases.join_all().await;
    delays.sort_by_key(|delays| delays.latency);
    delays.iter().for_each(|delays| println!("{delays}"));
}

/// Returns when `wanted` ADDs are in the queue: one that does not wait is refused with their number, itself included.
async fn until_queued(worker: &Worker, wanted: usize) {
    let (client, nobody) = (client(worker).await, Sandbox::new("nobody", 900).unwrap());
    let words = format!("{} pods wait", wanted + 1);
    let queued = || {
        let (mut client, request, words) = (client.clone(), request(&nobody, 0), &words);
        async move {
            let outcome = client.add(request).await.unwrap().into_inner().outcome.unwrap();
            let refused = matches!(&outcome, Outcome::Refusal(refusal) if refusal.message.contains(words));
            if refused { Ok(()) } else { Err(format!("{outcome:?}")) }
        }
    };
    wait::until(PATIENCE, &words, queued).await.unwrap();
}

fn request(sandbox: &Sandbox, wait_milliseconds: u32) -> AddRequest {
    let pod = Pod { namespace: "demo".to_owned(), name: sandbox.name.clone(), uid: String::new() };
    AddRequest {
        key: Some(key(sandbox)),
        netns: sandbox.netns.clone(),
        pod: Some(pod),
        wait_milliseconds,
        multi_nic: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_first_is_served_first_and_the_rest_hear_that_the_node_is_full() {
    // Carries two pods.
    let cluster = cluster_of("t3.nano", 1, &EMPTY).await;
    let worker = Arc::clone(&cluster.workers[0]);
    cluster.cloud.sim().unwrap().with(|world, _| {
        for action in ["AssignPrivateIpAddresses", "CreateNetworkInterface"] {
            world.inject(FaultRule::refuse(action, 1000, "RequestLimitExceeded", 503));
        }
    });
    worker.start_daemon().unwrap();
    worker.until_ready(0, PATIENCE).await.unwrap();
    let sandboxes = flight::sandboxes(5).unwrap();
    let mut adds = Vec::new();
    for sandbox in &sandboxes {
        let (mut client, request) = (client(&worker).await, request(sandbox, 120_000));
        adds.push(tokio::spawn(async move { client.add(request).await.unwrap().into_inner().outcome.unwrap() }));
        until_queued(&worker, adds.len()).await;
    }
    cluster.cloud.sim().unwrap().with(|world, _| world.clear_faults());

    let mut served = Vec::new();
    for add in adds {
        match add.await.unwrap() {
            Outcome::Network(_) => served.push(true),
            Outcome::Refusal(refusal) => {
                assert_eq!(refusal.code, "IPAM-201", "{refusal:?}");
                served.push(false);
            }
        }
    }
    assert_eq!(served, [true, true, false, false, false], "{}", worker.daemon_log());
}

/// Must hold within 100 ms; the figure is printed, the machine decides what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_exhausted_for_good_is_told_at_once_with_numbers_and_advice() {
    let cluster = cluster_of("t3.nano", 1, &EMPTY).await;
    let worker = &cluster.workers[0];
    worker.start_daemon().unwrap();
    worker.until_ready(0, PATIENCE).await.unwrap();
    let sandboxes = flight::sandboxes(3).unwrap();
    flight::add(&cluster, &sandboxes[..2]).await.unwrap();

    let mut took = Vec::new();
    for _ in 0..5 {
        let run = worker.plugin(Verb::Add, &sandboxes[2]).await.unwrap();
        let refused = CniFailure {
            code: 11,
            message: "IPAM-201 no address for pod demo/pod-03: all 2 interfaces are full and t3.nano allows no more: 2 of 2 addresses are held by pods, 0 rest, 0 are on the way, 1 pod waits".to_owned(),
            details: "Kubernetes will try again. To fit more pods use a larger instance type, or lower the node's max pods to what it can carry.".to_owned(),
        };
        assert_eq!(run.failure(), Some(&refused));
        took.push(run.took);
    }
    println!("refused after {took:.1?}");
}
