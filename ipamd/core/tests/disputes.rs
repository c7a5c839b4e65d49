//! Addresses that cannot be where EC2 says: who has them meanwhile, and how soon that is mended.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of a test are test code too, and are shared"
)]

mod node;
#[path = "replays/truths.rs"]
mod truths;

use std::net::Ipv4Addr;

use ipam_core::{Event, Limits, Placement, Policy, ports::Interface, ports::Scope};
use node::{Node, Record, eni};
use truths::{Truths, add, at, day, del, granted};

fn limits() -> Limits {
    Limits { max_enis: 3, addresses_per_eni: 10, ..Limits::default() }
}

/// Nothing is asked for and nothing is given back by itself.
fn content() -> Policy {
    Policy { warm_enis: 0, minimum_addresses: 8, placement: Placement::NodeSubnet, ..Policy::default() }
}

fn ip(device: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, device, last)
}

/// A node that has seen these ENIs and is at rest.
fn at_rest(enis: &[Interface]) -> (Node, Truths) {
    let mut node = Node::begun(content(), limits(), Record::default(), at(0));
    let mut truths = Truths::new(enis, &[]);
    // The instance's launch made the primary one, without our tag.
    truths.ec2.iter_mut().flatten().take(1).for_each(|eni| eni.tags.clear());
    truths.live(&mut node, at(0), at(100));
    (node, truths)
}

/// EC2 is looked at for some other reason.
fn a_look(node: &mut Node, truths: &mut Truths, from: u64, until: u64) {
    let interfaces = truths.ec2.clone().unwrap();
    let seen = Event::Observed { asked_at: at(from), scope: Scope::Attached, interfaces };
    truths.pass(node, at(from), at(until), vec![seen]);
}

fn addresses(node: &Node, eni: &Interface) -> Vec<Ipv4Addr> {
    node.engine.pool().eni(&eni.id).map(|eni| eni.interface.addresses().collect()).unwrap_or_default()
}

/// The ENI in the middle is no more, and its addresses are on the others.
fn scattered() -> (Vec<Interface>, Vec<Interface>) {
    let before = vec![eni(0, 3), eni(1, 2), eni(2, 3)];
    let (mut first, mut last) = (eni(0, 3), eni(2, 3));
    first.tags.clear();
    first.secondary.push(ip(1, 10));
    last.secondary.insert(0, ip(1, 11));
    (before, vec![first, last])
}

#[test]
fn the_addresses_of_an_interface_that_somebody_deleted_are_used_where_they_are_now() {
    let (before, after) = scattered();
    let (mut node, mut truths) = at_rest(&before);
    truths.ec2 = Some(after.clone());
    a_look(&mut node, &mut truths, 200, 290);
    for eni in &after {
        assert_eq!(addresses(&node, eni), eni.secondary, "{}: 90 s later", eni.id);
    }
}

#[test]
fn the_addresses_of_a_deleted_interface_with_pods_are_used_as_soon_as_no_pod_has_them() {
    let (before, after) = scattered();
    let (mut node, mut truths) = at_rest(&before);
    // Two pods on each.
    let pods = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let given: Vec<_> = pods.iter().flat_map(|pod| granted(&add(&mut node, at(101), pod))).collect();
    let pod_of = |address: Ipv4Addr| pods[given.iter().position(|given| *given == address).unwrap()];
    truths.ec2 = Some(after.clone());
    truths.kernel = Some(given.iter().copied().collect());
    a_look(&mut node, &mut truths, 200, 1000);
    assert_eq!(addresses(&node, &after[0]), eni(0, 3).secondary, "a pod has it still");
    truths.kernel.as_mut().unwrap().remove(&ip(1, 10));
    del(&mut node, at(1000), pod_of(ip(1, 10)));
    truths.pass(&mut node, at(1000), at(1060), vec![Event::Tick]);
    assert_eq!(addresses(&node, &after[0]), after[0].secondary, "a minute later");
    assert_eq!(addresses(&node, &after[1]), eni(2, 3).secondary, "the other pod has it still");
}

/// EC2's view of one ENI can be older than that of another, for longer than we wait before the second look.
#[test]
fn an_address_that_moved_is_used_there_soon_after_ec2_agrees_with_itself() {
    let mut both = vec![eni(0, 3), eni(1, 2)];
    let (mut node, mut truths) = at_rest(&both);
    both[1].secondary.insert(0, ip(0, 12));
    truths.ec2 = Some(both.clone());
    a_look(&mut node, &mut truths, 200, 220);
    assert_eq!(addresses(&node, &both[1]), eni(1, 2).secondary);
    both[0].secondary.pop();
    truths.ec2 = Some(both.clone());
    truths.pass(&mut node, at(220), at(260), vec![Event::Tick]);
    assert_eq!(addresses(&node, &both[0]), both[0].secondary);
    assert_eq!(addresses(&node, &both[1]), both[1].secondary);
}

/// Some stand-ins for EC2 give an address twice and never take it back.
#[test]
fn what_is_disputed_for_ever_is_looked_at_ever_more_rarely() {
    let mut both = vec![eni(0, 3), eni(1, 2)];
    both[1].secondary.insert(0, ip(0, 12));
    let (mut node, mut truths) = at_rest(&both);
    truths.pass(&mut node, at(100), day(1), vec![Event::Tick]);
    assert!(truths.looks < 70, "{} looks in a day", truths.looks);
    let before = truths.looks;
    truths.pass(&mut node, day(1), day(2), vec![Event::Tick]);
    assert!((20..50).contains(&(truths.looks - before)), "{} looks on the second day", truths.looks - before);
}
