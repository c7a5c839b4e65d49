//! Numbers that change over time, and what is told of many numbers.

use std::time::Duration;

use ipam_core::Moment;

/// A count whose average over time is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Gauge {
    value: i64,
    /// Value times milliseconds so far.
    area: i128,
    at: Moment,
}

impl Gauge {
    /// Zero as of `now`.
    #[must_use]
    pub const fn new(now: Moment) -> Self {
        Self { value: 0, area: 0, at: now }
    }

    /// Changes the count by `change` at `now`.
    pub fn add(&mut self, now: Moment, change: i64) {
        self.area = self.area_until(now);
        self.at = self.at.max(now);
        self.value += change;
    }

    /// The count.
    #[must_use]
    pub const fn value(&self) -> i64 {
        self.value
    }

    /// Sum of the count over time until `now`, in count times milliseconds.
    #[must_use]
    pub fn area_until(&self, now: Moment) -> i128 {
        self.area + i128::from(self.value) * i128::try_from(now.since(self.at).as_millis()).unwrap_or(0)
    }
}

/// What is told of many waiting times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there are.
    pub count: usize,
    /// Half are not longer.
    pub median: Duration,
    /// One in a hundred is longer.
    pub p99: Duration,
    /// The longest.
    pub worst: Duration,
}

impl Summary {
    /// Of no numbers, all zero.
    #[must_use]
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: usize| {
            // The smallest number that at least `part` percent are not above.
            let rank = (times.len() * part).div_ceil(100).max(1) - 1;
            times.get(rank).copied().unwrap_or_default()
        };
        Self { count: times.len(), median: at(50), p99: at(99), worst: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_knows_its_average_over_time() {
        let mut gauge = Gauge::new(Moment::from_millis(1000));
        gauge.add(Moment::from_millis(1000), 4);
        gauge.add(Moment::from_millis(2000), -3);
        assert_eq!(gauge.value(), 1);
        assert_eq!(gauge.area_until(Moment::from_millis(4000)), 4 * 1000 + 2000);
    }

    #[test]
    fn percentiles_are_members_of_the_list() {
        let summary = Summary::of((1..=200).map(Duration::from_secs).collect());
        assert_eq!((summary.median.as_secs(), summary.p99.as_secs(), summary.worst.as_secs()), (100, 198, 200));
        assert_eq!(Summary::of(vec![]), Summary::default());
    }
}
