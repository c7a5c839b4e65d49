//! Every order of up to six things that can happen to three sandboxes on a node with two addresses, and many longer ones.
//!
//! ADD, DEL, a late DEL of the sandbox before, a namespace that goes without DEL, GC, and a restart at which any number of the
//! writes that were just begun is lost. What the daemon promises is checked after each step, and at the end of each order
//! everything is deleted and must be free again. `SOAK=1` goes one step deeper and draws more.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of a test are test code too"
)]

#[path = "interleavings/world.rs"]
mod interleaved;
mod node;

use std::{collections::BTreeMap, panic::resume_unwind, thread, time::Duration};

use interleaved::{SANDBOXES, Step, World};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// Time between two steps: so short that all waits overlap, and so long that a cool-down (30 s) ends during every second one.
const PACES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(16)];

fn soak() -> bool {
    std::env::var_os("SOAK").is_some()
}

/// The things that can happen next. Sandboxes are alike, so a new one is always the next that was not used yet.
fn next_steps(world: &World) -> Vec<Step> {
    let used = world.used();
    let known = 0..(used + 1).min(SANDBOXES);
    let of_each = known.flat_map(|n| [Step::Add(n), Step::Del(n), Step::LateDel(n), Step::NetnsGone(n)]);
    // A late DEL or a lost namespace needs a sandbox that was there before.
    let possible = of_each.filter(|step| !matches!(step, Step::LateDel(n) | Step::NetnsGone(n) if *n >= used));
    possible.chain([Step::Gc]).chain((0..=world.unwritten()).map(Step::Restart)).collect()
}

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    orders: u64,
    steps: u64,
    /// Steps that were taken; those after a state that two orders share are taken once.
    taken: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.orders += other.orders;
        self.steps += other.steps;
        self.taken += other.taken;
    }
}

/// Looks at every order of up to `depth` more things. `known` has what follows each state from which that was done before.
fn explore(world: World, depth: usize, pace: Duration, known: &mut BTreeMap<(usize, u64), Count>) -> Count {
    let mut count = Count { orders: 1, ..Count::default() };
    world.clone().everything_ends();
    if depth == 0 {
        return count;
    }
    // Comparing states costs more than the last two steps.
    let state = (depth >= 2).then(|| (depth, world.fingerprint()));
    if let Some(same) = state.and_then(|state| known.get(&state)) {
        return Count { taken: 0, ..*same };
    }
    for step in next_steps(&world) {
        let mut next = world.clone();
        next.pass(pace);
        next.take(step);
        count.steps += 1;
        count.taken += 1;
        count.add(explore(next, depth - 1, pace, known));
    }
    known.extend(state.map(|state| (state, count)));
    count
}

#[test]
fn every_order_of_six_things_keeps_every_promise() {
    let depth = if soak() { 7 } else { 6 };
    let counts = thread::scope(|scope| {
        let explorers = PACES.map(|pace| scope.spawn(move || explore(World::new(), depth, pace, &mut BTreeMap::new())));
        explorers.map(|explorer| explorer.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let mut total = Count::default();
    counts.into_iter().for_each(|count| total.add(count));
    let Count { orders, steps, taken } = total;
    println!("{orders} orders of up to {depth} things, {steps} steps, of which {taken} were not alike");
}

#[test]
fn ten_thousand_longer_orders_keep_every_promise() {
    let (orders, length) = if soak() { (200_000, 60) } else { (10_000, 30) };
    for seed in 0..orders {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: usize| usize::try_from(rng.next_u32()).unwrap() % n;
        let mut world = World::new();
        for _ in 0..length {
            world.pass(Duration::from_millis([0, 1, 900, 5_000, 16_000, 31_000][below(6)]));
            let steps = next_steps(&world);
            world.take(steps[below(steps.len())]);
        }
        world.everything_ends();
    }
    println!("{orders} orders of {length} things");
}
