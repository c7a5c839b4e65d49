//! When an address may be given again: not before its cool-down is over, whatever happened to the daemon meanwhile, and the one
//! that has been free longest first.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use e2e::{Cluster, Sandbox, Verb, Worker, flight};

mod stage;

use stage::{PATIENCE, ready_cluster_of};

const COOL_DOWN: Duration = Duration::from_secs(5);

/// A node that carries three pods, all of them there.
async fn full_node() -> (Cluster, Vec<std::sync::Arc<Sandbox>>, Vec<Ipv4Addr>) {
    let settings = [("MAX_ENI", "1"), ("MINIMUM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "5")];
    let cluster = ready_cluster_of("t3.small", 3, &settings).await;
    let sandboxes = flight::sandboxes(3).unwrap();
    let mut addresses = Vec::new();
    for sandbox in &sandboxes {
        addresses.push(add(&cluster.workers[0], sandbox).await);
    }
    (cluster, sandboxes, addresses)
}

async fn add(worker: &Worker, sandbox: &Sandbox) -> Ipv4Addr {
    let run = worker.plugin(Verb::Add, sandbox).await.unwrap();
    run.address().unwrap_or_else(|| panic!("{run:?}\n{}", worker.daemon_log()))
}

async fn del(worker: &Worker, sandbox: &Sandbox) {
    assert_eq!(worker.plugin(Verb::Del, sandbox).await.unwrap().failure(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_rests_for_its_whole_cool_down_also_when_the_daemon_dies_meanwhile() {
    let (cluster, sandboxes, addresses) = full_node().await;
    let worker = &cluster.workers[0];
    let released = Instant::now();
    del(worker, &sandboxes[1]).await;
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();

    let next = Sandbox::new("next", 9).unwrap();
    assert_eq!(add(worker, &next).await, addresses[1], "the only one that is not held");
    assert!(released.elapsed() >= COOL_DOWN, "{:?}", released.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_has_been_free_longest_is_given_first_also_by_the_next_daemon() {
    let (cluster, sandboxes, addresses) = full_node().await;
    let worker = &cluster.workers[0];
    let order = [2, 0, 1];
    for number in order {
        del(worker, &sandboxes[number]).await;
    }
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();
    worker.until_ready(3, PATIENCE).await.unwrap();

    for (number, sandbox) in order.into_iter().zip(&flight::sandboxes(6).unwrap()[3..]) {
        assert_eq!(add(worker, sandbox).await, addresses[number]);
    }
}
