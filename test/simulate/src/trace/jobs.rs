//! When pods begin and end, before anybody decides where.

use std::time::Duration;

use super::Job;
use crate::random::Random;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

/// Between `least` and `most`, each equally likely.
fn between(least: Duration, most: Duration, random: &mut Random) -> Duration {
    least + random.up_to(most.saturating_sub(least))
}

/// Pods that run from the first minutes to the end.
fn services(count: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    (0..count).map(|_| Job { begin: seconds(30) + random.up_to(minutes(3)), end: length }).collect()
}

/// `count` pods from `begin` on, within `spread` of each other.
fn group(count: usize, begin: Duration, spread: Duration, run: (Duration, Duration), random: &mut Random) -> Vec<Job> {
    let pod = |random: &mut Random| {
        let begin = begin + random.up_to(spread);
        Job { begin, end: begin + between(run.0, run.1, random) }
    };
    (0..count).map(|_| pod(random)).collect()
}

pub(super) fn batch(nodes: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    let mut jobs = services(20 * nodes, length, random);
    let mut at = minutes(15);
    while at < length {
        let size = usize::try_from(5 + random.below(21)).unwrap_or(5);
        jobs.extend(group(size * nodes, at, seconds(20), (minutes(5), minutes(15)), random));
        at += between(minutes(25), minutes(55), random);
    }
    jobs
}

pub(super) fn steady(nodes: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    const SERVICES: usize = 5;
    let pods = 30 * nodes / SERVICES;
    let mut jobs = Vec::new();
    for _ in 0..SERVICES {
        let mut running: Vec<Duration> = (0..pods).map(|_| seconds(30) + random.up_to(minutes(3))).collect();
        let mut at = between(minutes(20), minutes(120), random);
        while at < length {
            // A new pod is ready before an old one goes; the old one takes a while to end.
            for (number, begin) in running.iter_mut().enumerate() {
                let step = u32::try_from(number / pods.div_ceil(4).max(1)).unwrap_or(0);
                let replaced = at + seconds(25) * step + random.up_to(seconds(5));
                let end = replaced + between(seconds(10), seconds(20), random);
                jobs.push(Job { begin: std::mem::replace(begin, replaced), end });
            }
            at += between(minutes(90), minutes(210), random);
        }
        jobs.extend(running.into_iter().map(|begin| Job { begin, end: length }));
    }
    jobs
}

pub(super) fn cron(nodes: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    let mut jobs = services(20 * nodes, length, random);
    let mut at = minutes(5);
    while at < length {
        jobs.extend(group(4 * nodes, at, seconds(3), (seconds(45), seconds(75)), random));
        if at.as_secs().is_multiple_of(3600) {
            jobs.extend(group(15 * nodes, at, seconds(5), (minutes(2), minutes(4)), random));
        }
        at += minutes(5);
    }
    jobs
}

/// Up and down twice in the time, between a fifth and four fifths of what the nodes have room for.
pub(super) fn tide(nodes: usize, room: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    const LIFE: Duration = minutes(20);
    let rate = |at: Duration| {
        let phase = at.as_secs_f64() / length.as_secs_f64() * 2.0 * std::f64::consts::TAU;
        0.5 - 0.3 * phase.cos()
    };
    let most = u32::try_from(nodes * room).unwrap_or(u32::MAX);
    let gap = LIFE / most.max(1);
    let mut jobs = Vec::new();
    let mut at = seconds(30);
    while at < length {
        if random.unit() < rate(at) {
            jobs.push(Job { begin: at, end: at + random.exponential(LIFE) });
        }
        at += random.exponential(gap);
    }
    jobs
}

pub(super) fn zero(nodes: usize, length: Duration, random: &mut Random) -> Vec<Job> {
    const SERVICES: usize = 6;
    let mut jobs = services(3 * nodes, length, random);
    for _ in 0..SERVICES {
        let size = nodes * usize::try_from(2 + random.below(6)).unwrap_or(2);
        let mut at = between(minutes(1), minutes(60), random);
        while at < length {
            let end = at + between(minutes(20), minutes(60), random);
            jobs.extend(group(size, at, seconds(4), (end - at, end - at), random));
            at = end + between(minutes(20), minutes(90), random);
        }
    }
    jobs
}
