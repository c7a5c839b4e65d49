//! Pods with IPv6, alone and beside IPv4, through the real plugin and the real daemon on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
};

use e2e::{Cluster, Sandbox, Verb, Worker};
use ipam_core::EniId;
use lab::{INTERNET_HOST, INTERNET_HOST_V6, wait};

use stage::{PATIENCE, cluster};

const IPV6_ONLY: [(&str, &str); 2] = [("ENABLE_IPv4", "false"), ("ENABLE_IPv6", "true")];
const OUT_TO_IPV6: [(&str, &str); 1] = [("ENABLE_V6_EGRESS", "true")];
const DUAL: [(&str, &str); 2] = [("ENABLE_IPv4", "true"), ("ENABLE_IPv6", "true")];

/// The /80 prefixes that EC2 has for each attached ENI.
fn prefixes(cluster: &Cluster) -> BTreeMap<EniId, Vec<(Ipv6Addr, u8)>> {
    cluster.cloud.sim().unwrap().with(|world, _| {
        let attached = world.enis().filter(|eni| eni.attachment.is_some());
        attached
            .map(|eni| (eni.id.clone(), eni.ipv6.prefixes.iter().map(|it| (it.network, it.prefix)).collect()))
            .collect()
    })
}

/// The address that an ENI has for the node itself, as the operating system knows it from the start.
fn own_address(number: usize) -> (Ipv6Addr, u8) {
    (Ipv6Addr::new(0x2600, 0x1f00, 0xffff, 0, 0, 0, 0, 0x10 + u16::try_from(number).unwrap()), 128)
}

/// Lets the fabric deliver what EC2 has given.
async fn deliver(cluster: &Cluster) {
    for (number, (eni, mut networks)) in prefixes(cluster).into_iter().enumerate() {
        networks.push(own_address(number));
        cluster.lab.give_ipv6(eni, networks);
    }
    cluster.settle().await.unwrap();
    cluster.lab.sync(&cluster.lab.described()).unwrap();
}

async fn add(worker: &Worker, sandbox: &Sandbox) -> Vec<IpAddr> {
    let run = worker.plugin(Verb::Add, sandbox).await.unwrap();
    let result = run.result.as_ref().unwrap_or_else(|why| panic!("{why:?}\n{}", worker.daemon_log()));
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap()).collect()
}

struct Pod {
    worker: usize,
    sandbox: Sandbox,
    addresses: Vec<IpAddr>,
}

async fn start(settings: &[(&str, &str)]) -> Cluster {
    let cluster = cluster(2, settings).await;
    deliver(&cluster).await;
    for worker in &cluster.workers {
        worker.start_daemon().unwrap();
    }
    for worker in &cluster.workers {
        worker.until_ready(1, PATIENCE).await.unwrap();
    }
    cluster
}

async fn add_pods(cluster: &Cluster, numbers: std::ops::Range<usize>) -> Vec<Pod> {
    let mut pods = Vec::new();
    for number in numbers {
        let worker = number % 2;
        let sandbox = Sandbox::new(&format!("six-{number}"), number).unwrap();
        let addresses = add(&cluster.workers[worker], &sandbox).await;
        pods.push(Pod { worker, sandbox, addresses });
    }
    pods
}

fn ping_each_other(pods: &[Pod]) -> usize {
    let mut pings = 0;
    for (nth, pod) in pods.iter().enumerate() {
        let others = pods.iter().enumerate().filter(|(other, _)| *other != nth);
        for target in others.flat_map(|(_, other)| &other.addresses) {
            let target = target.to_string();
            pod.sandbox.pod.namespace().run(&["ping", "-n", "-c", "1", "-W", "2", &target]).unwrap();
            pings += 1;
        }
    }
    pings
}

fn all_different(pods: &[Pod]) {
    let all: Vec<_> = pods.iter().flat_map(|pod| &pod.addresses).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
}

/// A kill and a start between: every pod keeps its addresses, later ones get others; in the end nothing is left.
async fn live_through_a_kill(cluster: &Cluster, mut pods: Vec<Pod>) {
    for worker in &cluster.workers {
        worker.kill_daemon().unwrap();
        worker.start_daemon().unwrap();
    }
    for pod in &pods {
        assert_eq!(add(&cluster.workers[pod.worker], &pod.sandbox).await, pod.addresses, "same key, same answer");
    }
    pods.extend(add_pods(cluster, 100..102).await);
    all_different(&pods);
    deliver(cluster).await;
    ping_each_other(&pods);
    for pod in &pods {
        cluster.workers[pod.worker].plugin(Verb::Del, &pod.sandbox).await.unwrap();
    }
    for worker in &cluster.workers {
        let status = worker.status().await.unwrap();
        assert_eq!((status.leased, worker.ec2_calls().get("AssignIpv6Addresses").copied().unwrap_or(0)), (0, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_an_ipv6_cluster_reach_each_other_and_survive_a_kill() {
    let cluster = start(&IPV6_ONLY).await;
    let pods = add_pods(&cluster, 0..6).await;
    all_different(&pods);
    assert!(pods.iter().all(|pod| pod.addresses.len() == 1 && pod.addresses[0].is_ipv6()));
    let given = prefixes(&cluster);
    assert!(given.values().all(|prefixes| prefixes.len() == 1), "one prefix for each interface: {given:?}");
    deliver(&cluster).await;
    assert_eq!(ping_each_other(&pods), 6 * 5);
    live_through_a_kill(&cluster, pods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dual_stack_pods_reach_each_other_in_both_families_by_every_interface() {
    let cluster = start(&DUAL).await;
    // More than the primary interface of an m5.xlarge has IPv4 addresses for.
    let pods = add_pods(&cluster, 0..36).await;
    all_different(&pods);
    assert!(pods.iter().all(|pod| pod.addresses.len() == 2), "IPv4 and IPv6");
    deliver(&cluster).await;
    let some: Vec<_> = pods.into_iter().step_by(5).collect();
    assert_eq!(ping_each_other(&some), 8 * 7 * 2);
    let drops = cluster.lab.drops().unwrap();
    assert!(drops.wrong_source.is_empty(), "{drops}");
    every_interface_has_an_address_of_its_prefix(&cluster).await;
}

/// The first of the prefix, which no pod has; the primary interface has the operating system's.
async fn every_interface_has_an_address_of_its_prefix(cluster: &Cluster) {
    let shown = |worker: &Worker| worker.node().namespace().run(&["ip", "-6", "-o", "addr"]).unwrap();
    let found = || async {
        let shown: String = cluster.workers.iter().map(|worker| shown(worker)).collect();
        let own = prefixes(cluster).into_values().flatten();
        let own = own.filter(|(own, _)| shown.contains(&format!("{own}/128"))).count();
        let further = prefixes(cluster).len() - cluster.workers.len();
        if own > 0 && own == further { Ok(()) } else { Err(format!("{own} of {further} in {shown}")) }
    };
    wait::until(PATIENCE, "an address of its prefix on each further interface", found).await.unwrap();
}

/// Each pod reaches a host on the internet that knows nothing of its addresses, and nothing that this host could not answer is on the way.
fn reach(cluster: &Cluster, pods: &[Pod], host: IpAddr) {
    for pod in pods {
        pod.sandbox.pod.namespace().run(&["ping", "-n", "-c", "1", "-W", "2", &host.to_string()]).unwrap();
    }
    let drops = cluster.lab.drops().unwrap();
    assert!(drops.wrong_source.is_empty() && drops.no_public_address.is_empty(), "{drops}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_pods_reach_the_ipv4_internet_as_their_node() {
    let cluster = start(&IPV6_ONLY).await;
    let pods = add_pods(&cluster, 0..4).await;
    assert!(
        pods.iter().all(|pod| pod.addresses.len() == 1 && pod.addresses[0].is_ipv6()),
        "Kubernetes hears of no other"
    );
    reach(&cluster, &pods, INTERNET_HOST.into());
    live_through_a_kill(&cluster, pods).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv4_pods_reach_the_ipv6_internet_as_their_node() {
    let cluster = start(&OUT_TO_IPV6).await;
    // More than the primary interface of an m5.xlarge has addresses for.
    let pods = add_pods(&cluster, 0..36).await;
    assert!(
        pods.iter().all(|pod| pod.addresses.len() == 1 && pod.addresses[0].is_ipv4()),
        "Kubernetes hears of no other"
    );
    cluster.settle().await.unwrap();
    reach(&cluster, &pods, INTERNET_HOST_V6.into());
    reach(&cluster, &pods, INTERNET_HOST.into());
}
