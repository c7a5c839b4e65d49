//! Chance by seed: the same seed gives the same run.

use std::time::Duration;

/// A small generator (SplitMix64): quick, and good enough for waiting times.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next number of all.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    /// A number from 0 (included) to 1 (excluded).
    pub fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / 4_294_967_296.0
    }

    /// A time from zero to `longest`, each equally likely.
    pub fn up_to(&mut self, longest: Duration) -> Duration {
        longest.mul_f64(self.unit())
    }

    /// A waiting time whose mean is `mean`, as between independent arrivals.
    pub fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.unit()).ln())
    }

    /// A number around 0 with spread 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let (a, b) = (1.0 - self.unit(), self.unit());
        (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    }
}

/// How long something takes: log-normal, so never below zero, and with a long tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spread {
    /// Half of all are quicker, in milliseconds.
    pub median: u32,
    /// One in a hundred is slower, in milliseconds.
    pub p99: u32,
}

impl Spread {
    /// A spread by its median and its 99th percentile, both in milliseconds.
    #[must_use]
    pub const fn new(median: u32, p99: u32) -> Self {
        Self { median, p99 }
    }

    /// Draws one.
    pub fn draw(self, random: &mut Random) -> Duration {
        let sigma = (f64::from(self.p99) / f64::from(self.median)).ln() / 2.326;
        // The tail is cut where one in ten thousand lies, so that one draw does not decide a run.
        let factor = (sigma * random.normal().min(3.72)).exp();
        Duration::from_millis(u64::from(self.median)).mul_f64(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_median_and_the_tail_that_it_names() {
        let mut random = Random::new(1);
        let mut drawn: Vec<_> = (0..20_000).map(|_| Spread::new(2_000, 15_000).draw(&mut random)).collect();
        drawn.sort_unstable();
        let at = |percent: usize| drawn[drawn.len() * percent / 100].as_secs_f64();
        assert!((1.9..2.1).contains(&at(50)), "{}", at(50));
        assert!((13.0..17.0).contains(&at(99)), "{}", at(99));
    }

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            (0..8).map(|_| random.next()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }
}
