//! The real engine under random events against a small cloud that refuses, delays and loses replies, in virtual time.
//!
//! Every promise is checked after every step. A failure prints the seed and the last things that were said; the same
//! seed gives the same run.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    clippy::print_stderr,
    reason = "the helpers of a test are test code too"
)]

#[path = "model/cloud.rs"]
mod cloud;
#[path = "model/figures.rs"]
mod figures;
#[path = "model/modes.rs"]
mod modes;
#[path = "model/packing.rs"]
mod packing;
#[path = "model/world.rs"]
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use world::World;

/// Runs `check` with a random world of this seed.
fn with_seed(seed: u64, check: impl FnOnce(&mut World)) {
    with(seed, World::new(seed), check);
}

/// Runs `check` with a world; says which seed it was when that fails.
fn with(seed: u64, mut world: World, check: impl FnOnce(&mut World)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut world)));
    if let Err(panic) = outcome {
        let last = world.said.len().saturating_sub(40);
        eprintln!("seed {seed}: {:?}, {:?}", world.policy, world.cloud.limits);
        world.said[last..].iter().for_each(|line| eprintln!("{line}"));
        resume_unwind(panic);
    }
}

fn seeds() -> std::ops::Range<u64> {
    match std::env::var("MODEL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("MODEL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..150,
    }
}

/// I1, I3, I4, I5, I6, I7, I12.
#[test]
fn every_promise_holds_whatever_happens() {
    for seed in seeds() {
        with_seed(seed, |world| (0..400).for_each(|_| world.step()));
    }
}

/// I8 and I11.
#[test]
fn once_faults_stop_the_pool_reaches_the_policy_and_then_rests() {
    for seed in seeds() {
        with_seed(seed, |world| {
            (0..150).for_each(|_| world.step());
            world.faults = 0;
            // Long enough for the look that follows trouble an hour later.
            world.pass(Duration::from_secs(3 * 3600));
            let quiet = world.said.len();
            world.pass(Duration::from_secs(24 * 3600));
            let after = &world.said[quiet..];
            let commands: Vec<_> = after.iter().filter(|line| line.starts_with("    ")).collect();
            if world.cloud.free() >= 30 {
                assert!(commands.is_empty(), "not at rest: {commands:?}");
                is_as_wanted(world);
            }
        });
    }
}

/// The pool has what the policy asks for, or all that the node carries; and no ENI hangs on nothing.
fn is_as_wanted(world: &World) {
    let per_eni = usize::from(world.cloud.limits.addresses_per_eni) - 1;
    let mine = |id| Some(id) != world.operators.as_ref();
    let enis: Vec<_> = world.cloud.enis.values().filter(|eni| mine(&eni.id)).collect();
    let total: usize = enis.iter().map(|eni| eni.addresses().count()).sum();
    let most = per_eni * (usize::from(world.cloud.limits.max_enis) - usize::from(world.operators.is_some()));
    let (policy, held) = (&world.policy, world.held());
    let by_address = policy.warm_addresses > 0 || policy.minimum_addresses > 0;
    let wanted = if by_address {
        (held + usize::from(policy.warm_addresses)).max(policy.minimum_addresses.into())
    } else {
        held + (usize::from(policy.warm_enis) * per_eni).max(1)
    };
    assert!(total >= wanted.min(most), "{total} addresses, {wanted} wanted, {most} possible");
    if by_address {
        // Without a whole ENI to give back, exactly what is wanted stays.
        assert!(total <= wanted.max(held), "{total} addresses, only {wanted} wanted");
    } else {
        // Pods may be spread so that no ENI is idle; but one that is idle and not needed has been given back.
        let spare = total.saturating_sub(wanted);
        let idle = enis.iter().skip(1).filter(|eni| !world.uses(&eni.id)).map(|eni| eni.addresses().count());
        assert!(idle.min().is_none_or(|idle| idle > spare), "{total} addresses, only {wanted} wanted");
    }
    assert!(enis.iter().all(|eni| eni.attachment.is_some()), "an ENI is left over: {enis:?}");
    assert!(enis.iter().skip(1).all(|eni| eni.attachment.as_ref().is_some_and(|a| a.delete_on_termination)));
}

/// I10.
#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut world = World::new(seed);
        (0..300).for_each(|_| world.step());
        world.said
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed));
    }
}
