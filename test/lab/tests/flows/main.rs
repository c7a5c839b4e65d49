//! Every kind of packet that a pod sends or receives, both ways, beside each form of kube-proxy's rules: does it arrive, as whom
//! does the other side see it, and which ENI carried it. The result is `FLOWS.md`, which this test keeps true.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod changes;
mod chaos;
mod flow;
mod probe;
mod proxy;
mod services;
mod table;
mod world;

use std::thread;

use proxy::Proxy;
use world::World;

/// With this variable set the table is written instead of compared.
const WRITE: &str = "ENI_CNI_WRITE_FLOWS";

#[test]
fn every_flow_takes_the_right_way_beside_every_kube_proxy() {
    let flows = &*flow::all();
    // Each in a lab of its own, at the same time.
    let columns = thread::scope(|scope| {
        let running = Proxy::ALL.map(|proxy| scope.spawn(move || (proxy, run(proxy, flows))));
        running.map(|column| column.join().unwrap())
    });

    let written = table::markdown(flows, &columns);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/FLOWS.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(file, &written).unwrap();
    }
    let failures: Vec<String> = columns.iter().flat_map(|(proxy, column)| table::failures(*proxy, column)).collect();
    assert!(failures.is_empty(), "{} flows went wrong:\n{}", failures.len(), failures.join("\n"));
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == written, "{file} is not what this test found; write it anew with {WRITE}=1. Found:\n{written}");
}

/// Returns what became of each flow, in order: nothing when all was right, else what was wrong.
fn run(proxy: Proxy, flows: &[flow::Flow]) -> Vec<table::Outcome> {
    let mut world = World::new();
    world.with_proxy(proxy);
    let mut outcomes: Vec<table::Outcome> =
        flows.iter().map(|flow| (flow.name, world.within(flow.setting, |world| flow.follow(world)))).collect();
    let drops = world.lab.drops().unwrap();
    let lost = (drops.total() > 0).then(|| format!("the fabric dropped packets: {drops}"));
    outcomes.push(("no packet dropped by the VPC", lost));
    outcomes
}
