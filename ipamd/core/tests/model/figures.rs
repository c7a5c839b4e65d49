//! Figures that are promised: how many EC2 calls, how much is given back, how much of a broken subnet can be used.

use std::{collections::BTreeMap, time::Duration};

use ipam_core::{Limits, Mode, Placement, Policy};

use crate::world::World;

const PODS: usize = 110;

fn m5_4xlarge() -> Limits {
    Limits::of("m5.4xlarge").unwrap()
}

fn prefixes() -> Policy {
    Policy { mode: Mode::Prefixes, max_pods: Some(110), placement: Placement::NodeSubnet, ..Policy::default() }
}

fn addresses() -> Policy {
    Policy { mode: Mode::Addresses, ..prefixes() }
}

/// A node that has been idle for a minute, whose pods then all come, `apart` from each other.
fn filled(policy: Policy, apart: Duration) -> World {
    let mut world = World::quiet(1, policy, m5_4xlarge());
    world.begin();
    world.pass(Duration::from_secs(60));
    for pod in 0..u32::try_from(PODS).unwrap() {
        let deadline = world.now.after(Duration::from_secs(60));
        world.add_pod(pod, deadline);
        world.pass(apart);
    }
    world.pass(Duration::from_secs(60));
    assert_eq!(world.held(), PODS);
    world
}

fn total(calls: &BTreeMap<&'static str, usize>) -> usize {
    calls.values().sum()
}

fn enis(world: &World) -> usize {
    world.cloud.enis.len()
}

#[test]
fn a_node_with_prefixes_fills_up_with_three_calls() {
    let world = filled(prefixes(), Duration::ZERO);
    println!("prefixes, burst: {:?}", world.calls);
    assert!(total(&world.calls) <= 3, "{:?}", world.calls);
    // Where subnets are discovered none has to be as long as the node's own interface has room.
    let discover = filled(Policy { placement: Placement::Discover, ..prefixes() }, Duration::ZERO);
    assert!(total(&discover.calls) <= 3, "{:?}", discover.calls);
    let slow = filled(prefixes(), Duration::from_secs(1));
    println!("prefixes, one pod a second: {:?}", slow.calls);
    assert!(total(&slow.calls) <= 1 + PODS.div_ceil(16), "one for each prefix at most: {:?}", slow.calls);
}

#[test]
fn a_node_with_addresses_fills_up_with_two_calls_and_three_for_each_interface() {
    for apart in [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)] {
        let world = filled(addresses(), apart);
        println!("addresses, {apart:?} apart: {} ENIs, {:?}", enis(&world), world.calls);
        assert!(total(&world.calls) <= 2 + 3 * (enis(&world) - 1), "{:?}", world.calls);
    }
    let discover = Policy { placement: Placement::Discover, ..addresses() };
    let world = filled(discover, Duration::from_millis(200));
    println!("addresses, subnets discovered: {} ENIs, {:?}", enis(&world), world.calls);
    assert!(total(&world.calls) <= 3 + 3 * (enis(&world) - 1), "{:?}", world.calls);
}

#[test]
fn an_idle_day_costs_no_call() {
    for policy in [addresses(), prefixes(), Policy { warm_auto: true, ..prefixes() }, Policy::default()] {
        let mut world = filled(policy.clone(), Duration::from_millis(100));
        let before = world.calls.clone();
        world.pass(Duration::from_secs(24 * 3600));
        println!("{:?}, {}: {} calls in a day", policy.mode, policy.warm_auto, total(&world.calls) - total(&before));
        assert_eq!(world.calls, before);
    }
}

/// The policies that people run.
fn policies() -> [Policy; 5] {
    [
        addresses(),
        prefixes(),
        Policy { warm_enis: 3, ..addresses() },
        Policy { warm_addresses: 10, minimum_addresses: 20, ..addresses() },
        Policy { warm_auto: true, ..prefixes() },
    ]
}

#[test]
fn a_node_never_holds_more_than_its_max_pods_can_use() {
    for policy in policies() {
        for max_pods in [4, 17, 58] {
            let policy = Policy { max_pods: Some(max_pods), ..policy.clone() };
            // A prefix brings 16 addresses, also where one is missing.
            let rounding = if policy.mode == Mode::Prefixes { 15 } else { 0 };
            let mut world = World::quiet(3, policy, Limits::of("m5.xlarge").unwrap());
            world.begin();
            for pod in 0..u32::from(max_pods) {
                world.pass(Duration::from_secs(10));
                let all: usize = world.cloud.enis.values().map(|eni| eni.addresses().count()).sum();
                assert!(all <= usize::from(max_pods) + rounding, "{all} for {max_pods}: {:?}", world.policy);
                let deadline = world.now.after(Duration::from_secs(60));
                world.add_pod(pod, deadline);
            }
            world.pass(Duration::from_secs(60));
            // Without prefixes it carries 56.
            assert!(world.held() >= usize::from(max_pods.min(56)), "{:?}", world.policy);
        }
    }
}

#[test]
fn pods_that_come_and_go_do_not_make_a_node_flap() {
    for policy in policies() {
        let mut world = World::quiet(5, policy, m5_4xlarge());
        world.begin();
        let add = |world: &mut World, pod| {
            let deadline = world.now.after(Duration::from_secs(60));
            world.add_pod(pod, deadline);
        };
        (0..29).for_each(|pod| add(&mut world, pod));
        world.pass(Duration::from_secs(600));
        let before = total(&world.calls);
        for _ in 0..120 {
            add(&mut world, 29);
            world.pass(Duration::from_secs(5));
            world.delete_pod(29);
            world.pass(Duration::from_secs(25));
        }
        let calls = total(&world.calls) - before;
        println!("{calls} calls in an hour in which a pod came and went 120 times: {:?}", world.policy.mode);
        assert!(calls <= 12, "{calls} calls: {:?}: {:?}", world.policy, world.calls);
    }
}
