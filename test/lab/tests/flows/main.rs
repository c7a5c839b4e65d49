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
use world::{Stack, World};

/// With this variable set the table is written instead of compared.
const WRITE: &str = "ENI_CNI_WRITE_FLOWS";

/// Pods' addresses and the proxy's rules of one world, and what became of each flow in it.
struct Column {
    stack: Stack,
    proxy: Proxy,
    /// In order; nothing for a flow that means nothing in this world.
    outcomes: Vec<Option<Outcome>>,
    lost: Outcome,
}

/// What was wrong with a flow, if anything.
type Outcome = Result<(), String>;

#[test]
fn every_flow_takes_the_right_way_beside_every_kube_proxy() {
    let flows = &*flow::all();
    // Each in a lab of its own, at the same time.
    let columns = thread::scope(|scope| {
        let worlds = Stack::ALL.into_iter().flat_map(|stack| Proxy::ALL.map(|proxy| (stack, proxy)));
        let running: Vec<_> = worlds.map(|(stack, proxy)| scope.spawn(move || run(stack, proxy, flows))).collect();
        running.into_iter().map(|column| column.join().unwrap()).collect::<Vec<_>>()
    });

    let written = table::markdown(flows, &columns);
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/FLOWS.md");
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(file, &written).unwrap();
    }
    let failures: Vec<String> = columns.iter().flat_map(|column| table::failures(flows, column)).collect();
    assert!(failures.is_empty(), "{} flows went wrong:\n{}", failures.len(), failures.join("\n"));
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    assert!(kept == written, "{file} is not what this test found; write it anew with {WRITE}=1. Found:\n{written}");
}

fn run(stack: Stack, proxy: Proxy, flows: &[flow::Flow]) -> Column {
    let mut world = World::new(stack);
    world.with_proxy(proxy);
    let outcomes = flows.iter().map(|flow| {
        let concerned = stack.concerns(flow.family, flow.setting);
        concerned.then(|| world.within(flow.setting, |world| flow.follow(world)))
    });
    let outcomes = outcomes.collect();
    let drops = world.lab.drops().unwrap();
    let lost = if drops.total() == 0 { Ok(()) } else { Err(format!("the fabric dropped packets: {drops}")) };
    Column { stack, proxy, outcomes, lost }
}
