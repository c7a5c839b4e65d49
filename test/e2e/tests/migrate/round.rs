//! There and back under traffic.

use std::{collections::BTreeMap, net::Ipv4Addr};

use e2e::{Sandbox, Verb, WorkerState};
use serde_json::Value;

use crate::{
    layout::{World, exists, link},
    stage::PATIENCE,
    traffic::Traffic,
};

/// Pods on the node.
const PODS: usize = 50;

/// Addresses of all pods as their own kernel says.
fn addresses(world: &World) -> BTreeMap<String, Ipv4Addr> {
    let of = |place: &crate::layout::Placed| {
        let text = place.sandbox.pod.namespace().run(&["ip", "-4", "-o", "addr", "show", "dev", "eth0"]).unwrap();
        let word = text.split_whitespace().find(|word| word.ends_with("/32")).unwrap();
        (place.sandbox.name.clone(), word.trim_end_matches("/32").parse().unwrap())
    };
    // A pod that is gone has none.
    let links = |place: &&crate::layout::Placed| place.sandbox.pod.namespace().run(&["ip", "-o", "link"]).unwrap();
    world.pods.iter().filter(|place| links(place).contains("eth0")).map(of).collect()
}

/// The last pod, which has no traffic, goes by our plugin as if we had made it, and another one comes.
async fn one_goes_and_one_comes(world: &World) -> (Sandbox, Ipv4Addr) {
    let last = world.pods.last().unwrap();
    let run = world.worker.plugin(Verb::Del, &last.sandbox).await.unwrap();
    assert_eq!(run.failure(), None);
    let state = WorkerState::read(&world.worker).await.unwrap();
    assert!(!state.leases.contains_key(&last.address) && state.leases.len() == PODS - 1, "{state:?}");
    let newer = Sandbox::new("newer", 900).unwrap();
    let run = world.worker.plugin(Verb::Add, &newer).await.unwrap();
    (newer, run.address().unwrap_or_else(|| panic!("{run:?}")))
}

async fn there_and_back(flavour: &'static str) {
    let world = World::new(PODS, flavour).await;
    let traffic = Traffic::start(&world);
    let flows = traffic.count();
    traffic.until(3).await;
    let (before, given) = (world.shown(), addresses(&world));
    let drops = world.cluster.lab.drops().unwrap();

    let (possible, told, _) = world.migrate("check");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert!(possible && told["pods"].as_array().unwrap().len() == PODS, "{told:#}");
    assert_eq!(world.shown(), before, "a check changes nothing");

    let (done, told, complaint) = world.migrate("import");
    assert!(done, "{told} {complaint}");
    traffic.until(3).await;
    world.worker.start_daemon().unwrap();
    world.worker.until_ready(0, PATIENCE).await.unwrap();
    traffic.until(3).await;
    assert!(!exists(&world, "net.d/10-aws.conflist"));
    assert_eq!(addresses(&world), given);
    let ours = world.shown();
    assert!(ours.iter().all(|line| !line.contains("AWS")), "{ours:#?}");
    assert_eq!(
        ours.iter().filter(|line| line.starts_with("512:") || line.starts_with("1536:")).count(),
        4,
        "{ours:#?}"
    );
    let said = world.doctor();
    assert!(said.contains("50 leases checked: 0 errors, 0 warnings"), "{said}\n{}", world.worker.daemon_log());
    let log = world.worker.daemon_log();
    assert!(!log.contains("drift mended") && !log.contains("ERROR"), "{log}");

    let (last, new) = (world.pods.last().unwrap(), one_goes_and_one_comes(&world).await);
    assert!(world.worker.stop_daemon(PATIENCE).await.unwrap());
    let (done, told, complaint) = world.migrate("back");
    assert!(done, "{told} {complaint}");
    traffic.until(3).await;
    assert_eq!(world.cluster.lab.drops().unwrap(), drops, "the fabric dropped packets");
    let (answered, lost) = traffic.end();
    println!("{flavour}: {flows} flows, {answered} packets answered, {} lost", lost.len());
    assert_eq!(lost, [""; 0]);
    let mut given = given;
    given.remove(&last.sandbox.name);
    assert_eq!(addresses(&world), given);

    let file: Value = serde_json::from_slice(&std::fs::read(world.checkpoint()).unwrap()).unwrap();
    let kept: Vec<&str> = file["allocations"].as_array().unwrap().iter().filter_map(|it| it["ipv4"].as_str()).collect();
    assert_eq!((file["version"].as_str(), kept.len()), (Some("vpc-cni-ipam/1"), PODS), "{file:#}");
    assert_eq!(world.node().inside(eni_datapath::leftovers).unwrap().unwrap(), [""; 0]);
    let gone = last.address.to_string();
    let new = new.1.to_string();
    let kept = |lines: Vec<String>| -> Vec<String> {
        let of_both =
            |line: &String| line.contains(&gone) || line.contains(&new) || line.contains(&link(&last.sandbox));
        lines.into_iter().filter(|line| !of_both(line)).collect()
    };
    assert_eq!(kept(world.shown()), kept(before), "all is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_go_over_and_back_without_a_lost_packet_beside_iptables_nft() {
    there_and_back("iptables-nft").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_pods_go_over_and_back_without_a_lost_packet_beside_iptables_legacy() {
    there_and_back("iptables-legacy").await;
}
