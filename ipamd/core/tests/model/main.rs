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

mod chance;
mod cloud;
mod figures;
mod modes;
mod packing;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use ipam_core::Families;
use world::World;

/// Runs `check` with a world; says which seed it was when that fails.
fn with(seed: u64, mut world: World, check: impl FnOnce(&mut World)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut world)));
    if let Err(panic) = outcome {
        let all = std::env::var_os("MODEL_SEED").is_some();
        let last = if all { 0 } else { world.said.len().saturating_sub(20) };
        eprintln!("seed {seed}: {:?}, {:?}, {:?}", world.policy, world.cloud.limits, world.chance);
        world.said[last..].iter().for_each(|said| eprintln!("{said:?}"));
        resume_unwind(panic);
    }
}

/// MODEL_SEED: this one only. SOAK_SEEDS: so many. Else as many as a test has time for.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of seeds"));
    match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SOAK_SEEDS").unwrap_or(few),
    }
}

/// All that can happen to one node; then nothing goes wrong any more.
fn live(seed: u64) {
    live_in(seed, World::new(seed));
}

fn live_in(seed: u64, world: World) {
    with(seed, world, |world| {
        (0..300).for_each(|_| world.step());
        world.calm_down();
        // Long enough for the look that follows trouble an hour later.
        world.pass(Duration::from_secs(3 * 3600));
        if world.policy.warm_auto {
            // What was kept because pods had to wait is given up by and by.
            world.pass(Duration::from_secs(8 * 3600));
        }
        world.nothing_leaks();
        let quiet = world.said.len();
        world.pass(Duration::from_secs(24 * 3600));
        world.rested_since(quiet);
        world.is_as_wanted();
        world.nothing_leaks();
    });
}

/// I1 to I12: whatever happens in 300 steps, each promise holds after each of them; and once faults stop, the pool reaches
/// the policy, nothing is leaked, and then it rests.
#[test]
fn every_promise_holds_whatever_happens() {
    let seeds = seeds(2_000);
    let next = AtomicU64::new(seeds.start);
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failed.len() > 5 {
                return failed;
            }
            if catch_unwind(|| live(seed)).is_err() {
                failed.push(seed);
            }
        }
    };
    let failed: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("it catches what fails")).collect()
    });
    assert!(failed.is_empty(), "run these again with MODEL_SEED: {failed:?}");
}

/// The same with a /80 prefix for each ENI, and pods with an address of each family by the same one.
#[test]
fn every_promise_holds_with_both_families() {
    live_with(300, Families::Dual, false);
}

/// The same with IPv6 only, and an IPv4 address for the way out that is the node's own affair.
#[test]
fn every_promise_holds_with_ipv6_only() {
    live_with(200, Families::V6, true);
}

/// The same with IPv4 and an IPv6 address for the way out.
#[test]
fn every_promise_holds_with_a_way_out_to_ipv6() {
    live_with(100, Families::V4, true);
}

fn live_with(few: u64, families: Families, egress: bool) {
    let live = |seed| catch_unwind(|| live_in(seed, World::of(seed, families, egress))).is_err();
    let failed: Vec<u64> = seeds(few).filter(|seed| live(*seed)).take(3).collect();
    assert!(failed.is_empty(), "run these again with MODEL_SEED: {failed:?}");
}

/// Seeds beyond the first that showed a bug, and which.
const FOUND: [(u64, &str); 16] = [
    (3_128, "a place that a description disputed was forgotten by an older one"),
    (3_646, "an interface that EC2 said it could not find was not deleted and never looked for"),
    (3_940, "a change was settled although a start still hid what it had brought"),
    (3_971, "as 3646"),
    (4_710, "the check itself counted pods on an interface that carries none"),
    (4_786, "two descriptions after a start contradicted each other"),
    (6_812, "as 3646"),
    (7_103, "as 3940"),
    (8_800, "as 3646"),
    (9_316, "as 3940"),
    (10_888, "an interface without addresses stayed for ever"),
    (12_273, "as 3646"),
    (12_696, "an address whose return had no answer was given to a pod"),
    (15_019, "an interface that EC2 left out twice was forgotten"),
    (41_867, "an address that was given back and granted again at once took no place"),
    (27_440, "a vague grant after a start let through what an earlier run had given back"),
];

#[test]
fn seeds_that_showed_a_bug_pass() {
    for (seed, bug) in FOUND {
        assert!(catch_unwind(|| live(seed)).is_ok(), "{seed}: {bug}");
    }
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
