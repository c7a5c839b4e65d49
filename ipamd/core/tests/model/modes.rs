//! Prefixes in a subnet that has none, and nodes whose operator changes their mind.

use std::{net::Ipv4Addr, time::Duration};

use ipam_core::{Limits, Mode, Placement, Policy, SubnetId};

use crate::world::World;

fn policy(mode: Mode) -> Policy {
    Policy { mode, max_pods: Some(234), placement: Placement::NodeSubnet, ..Policy::default() }
}

fn world(mode: Mode) -> World {
    World::quiet(7, policy(mode), Limits::of("m5.4xlarge").unwrap())
}

fn subnet() -> SubnetId {
    "subnet-1".parse().unwrap()
}

fn add(world: &mut World, pods: std::ops::Range<u32>) {
    for pod in pods {
        let deadline = world.now.after(Duration::from_secs(60));
        world.add_pod(pod, deadline);
        world.pass(Duration::from_millis(100));
    }
}

/// Each pod goes, and another one comes.
fn replace(world: &mut World, old: std::ops::Range<u32>, new: std::ops::Range<u32>) {
    for (old, new) in old.zip(new) {
        world.delete_pod(old);
        add(world, new..new + 1);
        world.pass(Duration::from_secs(5));
    }
}

fn singles(world: &World) -> usize {
    world.cloud.enis.values().map(|eni| eni.secondary.len()).sum()
}

fn prefixes(world: &World) -> usize {
    world.cloud.enis.values().map(|eni| eni.prefixes.len()).sum()
}

/// Of each 16 addresses of a /24 six are taken: 155 are free, and no /28 is.
fn broken(address: Ipv4Addr) -> bool {
    address.to_bits() % 4096 < 256 && address.to_bits() % 16 < 10
}

#[test]
fn a_subnet_without_a_free_prefix_is_used_up_address_by_address_and_prefixes_return() {
    let mut world = world(Mode::Prefixes);
    world.cloud.crowd(&subnet(), broken);
    let free = world.cloud.free();
    world.begin();
    world.pass(Duration::from_secs(10));
    add(&mut world, 0..170);
    world.pass(Duration::from_secs(300));
    let held = world.held();
    println!("{held} pods on {free} free addresses, {} ENIs, {:?}", world.cloud.enis.len(), world.calls);
    assert!(held * 100 >= free * 95, "{held} pods on {free} free addresses");
    assert_eq!(prefixes(&world), 0);

    world.cloud.relieve(&subnet());
    world.pass(Duration::from_secs(1800));
    replace(&mut world, 0..170, 1000..1170);
    // The first that came found single addresses still.
    replace(&mut world, 1000..1170, 2000..2170);
    world.pass(Duration::from_secs(600));
    println!(
        "whole again: {} pods, {} singles, {} prefixes, {:?}",
        world.held(),
        singles(&world),
        prefixes(&world),
        world.calls
    );
    assert_eq!((world.held(), singles(&world)), (170, 0), "only prefixes are left");
}

#[test]
fn a_node_changes_its_mode_while_its_pods_run() {
    for (from, to, pods) in [
        (Mode::Addresses, Mode::Prefixes, 100),
        (Mode::Prefixes, Mode::Addresses, 100),
        // All places of all ENIs are taken by what the new mode does not want.
        (Mode::Addresses, Mode::Prefixes, 225),
    ] {
        let mut world = world(from);
        world.begin();
        world.pass(Duration::from_secs(10));
        add(&mut world, 0..pods);
        world.pass(Duration::from_secs(120));
        assert_eq!(world.held(), usize::try_from(pods).unwrap());
        world.restart_with(policy(to));
        world.pass(Duration::from_secs(120));
        assert_eq!(world.held(), usize::try_from(pods).unwrap(), "running pods are left alone");
        replace(&mut world, 0..pods, 1000..1000 + pods);
        world.pass(Duration::from_secs(600));
        println!("{from:?} to {to:?}: {} singles, {} prefixes, {:?}", singles(&world), prefixes(&world), world.calls);
        assert_eq!(world.held(), usize::try_from(pods).unwrap());
        let left = if to == Mode::Prefixes { singles(&world) } else { prefixes(&world) };
        assert_eq!(left, 0, "{from:?} to {to:?}: all of the former kind is gone");
    }
}
