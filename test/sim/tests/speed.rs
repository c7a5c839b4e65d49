//! How many calls a second the cloud answers in process. Prints the figure; nothing depends on it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::time::{Duration, Instant};

use ec2_sim::{
    World, WorldConfig,
    action::{
        AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface, CreateSubnet, CreateVpc,
        DescribeNetworkInterfaces, RunInstances,
    },
    world::Filter,
};
use ipam_core::Moment;

const NODES: u16 = 1000;

#[test]
fn a_thousand_nodes_are_answered_in_process() {
    let mut now = Moment::from_millis(0);
    let mut world = World::new(WorldConfig { budget_percent: None, ..WorldConfig::default() }, now);
    let vpc = world.call(&CreateVpc { cidr: "10.0.0.0/16".into(), ..Default::default() }, now).unwrap().id.to_string();
    let subnet = CreateSubnet { vpc, cidr: "10.0.0.0/16".into(), ..Default::default() };
    let subnet = world.call(&subnet, now).unwrap().id.to_string();
    let run = RunInstances { count: NODES, subnet: Some(subnet.clone()), ..Default::default() };
    let nodes = world.call(&run, now).unwrap();
    let (before, began) = (world.log().total(), Instant::now());
    for node in &nodes {
        now = now.after(Duration::from_millis(100));
        let instance = node.instance.id.to_string();
        let tags = [("node.k8s.amazonaws.com/instance_id".to_owned(), instance.clone())].into();
        let create =
            CreateNetworkInterface { subnet: subnet.clone(), prefix_count: Some(1), tags, ..Default::default() };
        let interface = world.call(&create, now).unwrap().id.to_string();
        let attach = AttachNetworkInterface {
            interface: interface.clone(),
            instance: instance.clone(),
            card: 0,
            device_index: 1,
        };
        world.call(&attach, now).unwrap();
        world.call(&AssignPrivateIpAddresses { interface, count: Some(5), ..Default::default() }, now).unwrap();
        for name in ["attachment.instance-id", "tag:node.k8s.amazonaws.com/instance_id"] {
            let filters = vec![Filter::new(name, &instance)];
            world.call(&DescribeNetworkInterfaces { filters, ..Default::default() }, now).unwrap();
        }
    }
    let (calls, took) = (world.log().total() - before, began.elapsed());
    eprintln!("{calls} calls for {NODES} nodes in {took:?}: {:.0} a second", calls as f64 / took.as_secs_f64());
    world.assert_invariants_of_all();
    assert_eq!(world.enis().count(), 2 * usize::from(NODES));
}
