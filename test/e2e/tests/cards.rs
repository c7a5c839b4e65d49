//! Pods with an interface on each network card of their node, through the real plugin and the real daemon on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod stage;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use e2e::{Cluster, PluginRun, Sandbox, Verb, Worker, WorkerState, flight, observe};
use ec2_sim::SimCloud;
use lab::{Direction, wait};
use serde_json::{Value, json};

use stage::{cluster_of, ipamd, ready_cluster_of};

/// A type with four cards.
const FOUR_CARDS: &str = "p4d.24xlarge";

/// The configuration as a runtime passes it for a pod that is annotated.
fn asking(worker: &Worker) -> Value {
    let annotations = json!({ "k8s.amazonaws.com/nicConfig": "multi-nic-attachment" });
    let mut config = worker.configuration();
    config["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": annotations });
    config
}

async fn add(worker: &Worker, sandbox: &Sandbox) -> PluginRun {
    worker.plugin_given(Verb::Add, sandbox, &asking(worker)).await.unwrap()
}

/// The addresses of an ADD's result, in its order.
fn addresses(cluster: &Cluster, run: &PluginRun) -> Vec<Ipv4Addr> {
    let result = run.result.as_ref().unwrap_or_else(|why| panic!("{why:?}\n{}", cluster.workers[0].daemon_log()));
    let ips = result["ips"].as_array().unwrap().iter();
    ips.map(|ip| ip["address"].as_str().unwrap().strip_suffix("/32").unwrap().parse().unwrap()).collect()
}

fn sim(cluster: &Cluster) -> &SimCloud {
    cluster.cloud.sim().unwrap()
}

/// Node and network card of the ENI that has the address, as EC2 knows it.
fn card_of(cluster: &Cluster, address: Ipv4Addr) -> (String, u8) {
    let eni = cluster.lab.owner(address).unwrap();
    let at = sim(cluster).with(|world, _| {
        let eni = world.enis().find(|other| other.id == eni)?;
        eni.attachment.as_ref().map(|at| (at.instance.to_string(), at.card))
    });
    at.unwrap()
}

fn node_of(worker: &Worker) -> String {
    worker.node().instance().to_string()
}

/// From inside the pod, with this source address.
fn ping(sandbox: &Sandbox, source: Ipv4Addr, target: Ipv4Addr) -> String {
    let (source, target) = (source.to_string(), target.to_string());
    sandbox.pod.namespace().run(&["ping", "-n", "-c", "1", "-W", "2", "-I", &source, &target]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_talks_by_every_card_and_each_packet_leaves_by_its_own() {
    let cluster = cluster_of(FOUR_CARDS, 2, &[("ENABLE_MULTI_NIC", "true")]).await;
    for worker in &cluster.workers {
        worker.start_daemon().unwrap();
    }
    cluster.lab.count_ways().unwrap();
    let mut pods = Vec::new();
    // Two on each node.
    for (number, worker) in cluster.workers.iter().chain(&cluster.workers).enumerate() {
        let sandbox = Sandbox::new(&format!("many-{number}"), number).unwrap();
        let run = add(worker, &sandbox).await;
        pods.push((Arc::clone(worker), sandbox, addresses(&cluster, &run)));
    }
    cluster.settle().await.unwrap();

    for (worker, sandbox, own) in &pods {
        let cards: Vec<_> = own.iter().map(|address| card_of(&cluster, *address)).collect();
        assert_eq!(cards, [0, 1, 2, 3].map(|card| (node_of(worker), card)));
        for (_, _, theirs) in pods.iter().filter(|(_, other, _)| other.name != sandbox.name) {
            for (source, target) in own.iter().zip(theirs).chain(own.iter().zip(theirs.iter().rev())) {
                ping(sandbox, *source, *target);
            }
        }
        // To the world outside all go as the node.
        for source in own {
            ping(sandbox, *source, lab::INTERNET_HOST);
        }
    }
    assert_eq!(cluster.lab.drops().unwrap().to_string(), "none", "each packet left by the ENI that owns its source");
    let ways = cluster.lab.ways().unwrap();
    for address in pods.iter().flat_map(|(_, _, own)| own) {
        let eni = cluster.lab.owner(*address).unwrap();
        let left = |way: &&lab::Carried| way.direction == Direction::FromNode && way.source == IpAddr::V4(*address);
        let by: BTreeSet<_> = ways.iter().filter(left).map(|way| way.eni.clone()).collect();
        assert_eq!(by, BTreeSet::from([eni]), "{address}: {ways:?}");
    }

    for (worker, sandbox, own) in &pods {
        let well = (Some(0), "8 leases checked: 0 errors, 0 warnings, 0 not checked\n".to_owned());
        assert_eq!(ipamd(worker, &["doctor"]), well);
        let (code, said) = ipamd(worker, &["explain", &format!("demo/{}", sandbox.name)]);
        assert!(code == Some(0) && own.iter().all(|address| said.contains(&format!(" {address}/32 "))), "{said}");
        for expected in ["[ mNicIf1 ", "a table of its own for what is sent from its address", "card 3, device 1"] {
            assert!(said.contains(expected), "{expected} is not in:\n{said}");
        }
    }
    for (worker, sandbox, _) in &pods {
        assert_eq!(worker.plugin(Verb::Del, sandbox).await.unwrap().result, Ok(Value::Null));
    }
    flight::check_nothing_left(&cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_add_has_the_same_answer_also_from_the_next_daemon() {
    let cluster = ready_cluster_of(FOUR_CARDS, 1, &[("ENABLE_MULTI_NIC", "true")]).await;
    let worker = &cluster.workers[0];
    let sandbox = Sandbox::new("many", 1).unwrap();
    let first = addresses(&cluster, &add(worker, &sandbox).await);
    assert_eq!(addresses(&cluster, &add(worker, &sandbox).await), first);
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();
    assert_eq!(addresses(&cluster, &add(worker, &sandbox).await), first);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 4);
    // A DEL that finds no daemon leaves a note, of which the next one takes all addresses back.
    worker.kill_daemon().unwrap();
    assert_eq!(worker.plugin(Verb::Del, &sandbox).await.unwrap().result, Ok(Value::Null));
    worker.start_daemon().unwrap();
    let nothing_left =
        || async { flight::check_nothing_left(&cluster).await.map_err(|trouble| trouble.chain().to_string()) };
    wait::until(stage::PATIENCE, "the end of the leases", nothing_left).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_address_on_each_card_the_pod_gets_none() {
    // Nobody attaches anything to the other cards.
    let settings = [("ENABLE_MULTI_NIC", "true"), ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")];
    let cluster = cluster_of(FOUR_CARDS, 1, &settings).await;
    let worker = &cluster.workers[0];
    let primary = sim(&cluster).with(|world, _| world.enis().next().map(|eni| eni.id.to_string()).unwrap());
    let assign = [("NetworkInterfaceId", primary.as_str()), ("SecondaryPrivateIpAddressCount", "3")];
    cluster.cloud.call("AssignPrivateIpAddresses", &assign).await.unwrap();
    worker.start_daemon().unwrap();
    worker.until_ready(3, stage::PATIENCE).await.unwrap();
    let sandbox = Sandbox::new("many", 1).unwrap();
    let mut config = asking(worker);
    config["addWaitSeconds"] = 1.into();
    let run = worker.plugin_given(Verb::Add, &sandbox, &config).await.unwrap();
    let failure = run.failure().unwrap();
    assert_eq!(failure.code, 11, "{failure:?}");
    assert!(failure.message.contains("on network card 1"), "{failure:?}");
    assert!(observe::leases(worker).await.unwrap().is_empty(), "the one that it could have went back");
    assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_uses_one_card_refuses_and_says_which_setting_it_takes() {
    let cluster = ready_cluster_of(FOUR_CARDS, 1, &[]).await;
    let worker = &cluster.workers[0];
    let sandbox = Sandbox::new("many", 1).unwrap();
    let failure = add(worker, &sandbox).await.failure().cloned().unwrap();
    assert!(failure.message.starts_with("IPAM-207") && failure.message.contains("ENABLE_MULTI_NIC"), "{failure:?}");
    assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
}
