//! How much is given back after a node has been scaled down.

use std::time::Duration;

use ipam_core::{Limits, Mode, Placement, Policy};

use crate::{with, world::World};

const PODS: u32 = 48;

/// What could be given back and what still is there a minute later.
#[derive(Debug, Default)]
struct Tally {
    could: usize,
    stays: usize,
}

impl Tally {
    fn freed(&self) -> f64 {
        1.0 - to_f64(self.stays) / to_f64(self.could)
    }
}

fn to_f64(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}

/// The pods in the order in which they go: at random, the oldest or the newest first, or whole deployments of eight.
fn order(world: &mut World, seed: u64) -> Vec<u32> {
    let mut left: Vec<u32> = (0..PODS).collect();
    let group = [1, PODS, PODS, 8][usize::try_from(seed % 4).unwrap()];
    let mut order = Vec::new();
    while !left.is_empty() {
        let groups = u32::try_from(left.len()).unwrap().div_ceil(group);
        let first = usize::try_from(world.below(groups) * group).unwrap();
        let after = left.len().min(first + usize::try_from(group).unwrap());
        order.extend(left.drain(first..after));
    }
    if seed % 4 == 2 {
        order.reverse();
    }
    order
}

/// A node that 48 pods have come to; three of four go again within a minute.
fn scale_down(world: &mut World, seed: u64, tally: &mut Tally) {
    world.begin();
    world.pass(Duration::from_secs(30));
    for pod in 0..PODS {
        let (deadline, apart) = (world.now.after(Duration::from_secs(60)), world.below(1_000));
        world.add_pod(pod, deadline);
        world.pass(Duration::from_millis(apart.into()));
    }
    world.pass(Duration::from_secs(120));
    let going = order(world, seed);
    for pod in &going[..going.len() * 3 / 4] {
        world.delete_pod(*pod);
        let apart = world.below(1_500);
        world.pass(Duration::from_millis(apart.into()));
    }
    let before = idle(world);
    world.pass(Duration::from_secs(60));
    let after = idle(world);
    let kept = wanted(world);
    tally.could += before.saturating_sub(kept);
    tally.stays += after.saturating_sub(kept);
}

/// Prefixes, or ENIs but the primary, without a pod.
fn idle(world: &World) -> usize {
    let enis = world.cloud.enis.values();
    if world.policy.mode == Mode::Prefixes {
        let prefixes = enis.flat_map(|eni| &eni.prefixes);
        return prefixes.filter(|prefix| !prefix.addresses().any(|address| world.holds(address))).count();
    }
    enis.skip(1).filter(|eni| !world.uses(&eni.id)).count()
}

/// How many of them the policy wants to keep.
fn wanted(world: &World) -> usize {
    if world.policy.mode == Mode::Prefixes {
        return world.policy.warm_prefixes.into();
    }
    // The warm target is met by free addresses wherever they are: an idle ENI only stays when the others have too few.
    let carried = world
        .cloud
        .enis
        .values()
        .filter(|eni| world.uses(&eni.id) || eni.attachment.as_ref().is_some_and(|at| at.device_index == 0));
    let free = carried.flat_map(|eni| eni.addresses()).filter(|address| !world.holds(*address)).count();
    let capacity = world.cloud.limits.capacity();
    (usize::from(world.policy.warm_enis) * capacity).saturating_sub(free).div_ceil(capacity)
}

fn policy(mode: Mode) -> Policy {
    Policy { mode, max_pods: Some(58), placement: Placement::NodeSubnet, ..Policy::default() }
}

#[test]
fn nine_of_ten_idle_interfaces_and_prefixes_are_gone_a_minute_after_scaling_down() {
    let limits = Limits::of("m5.xlarge").unwrap();
    for mode in [Mode::Addresses, Mode::Prefixes] {
        let mut tally = Tally::default();
        for seed in 0..1_000 {
            with(seed, World::quiet(seed, policy(mode), limits), |world| scale_down(world, seed, &mut tally));
        }
        println!("{mode:?}: {tally:?}, {:.1} % freed", tally.freed() * 100.0);
        assert!(tally.could > 500, "{mode:?}: {tally:?}: there was nothing to give back");
        assert!(tally.freed() >= 0.9, "{mode:?}: {tally:?}");
    }
}
