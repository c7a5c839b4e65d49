//! The recent past, for people who look: the last ADDs with their timelines, and how demand and pool went. Bounded, in memory only,
//! written when something happens anyway, so that an idle daemon stays asleep.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

use eni_proto::PodKey;
use ipam_core::{Moment, engine::EngineStatus};

use crate::metrics::open;

/// How many ADDs are remembered.
const FLIGHTS: usize = 64;
/// How many samples of the pool are remembered.
const SAMPLES: usize = 600;
/// The pool is not sampled more often, because counting it takes longer than an ADD when it is large.
const SAMPLE_PAUSE: Duration = Duration::from_millis(500);

/// The recent past of this process.
pub(crate) static JOURNAL: Journal =
    Journal { flights: Mutex::new(VecDeque::new()), samples: Mutex::new(VecDeque::new()) };

/// The recent past.
#[derive(Debug)]
pub(crate) struct Journal {
    flights: Mutex<VecDeque<Flight>>,
    samples: Mutex<VecDeque<Sample>>,
}

/// One ADD.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    /// When it was answered.
    pub(crate) at: Moment,
    pub(crate) key: PodKey,
    /// NAMESPACE/NAME.
    pub(crate) pod: String,
    /// The address and its ENI. Absent: it was refused.
    pub(crate) given: Option<(String, String)>,
    /// given, repeated, or the code of the refusal.
    pub(crate) outcome: &'static str,
    /// Until an address was chosen, or it was refused.
    pub(crate) queue: Duration,
    /// Until the lease was stored.
    pub(crate) lease: Duration,
    /// What the plugin said of it later: wiring, and everything from its start to its end.
    pub(crate) plugin: Option<(Duration, Duration)>,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Moment,
    pub(crate) free: u32,
    pub(crate) leased: u32,
    pub(crate) cooling: u32,
    pub(crate) in_flight: u32,
    pub(crate) queued: u32,
}

impl Sample {
    /// The counts of a status.
    pub(crate) fn of(status: &EngineStatus, at: Moment) -> Self {
        let EngineStatus { free, leased, cooling, in_flight, queued, .. } = *status;
        Self { at, free, leased, cooling, in_flight, queued }
    }

    fn counts(self) -> [u32; 5] {
        [self.free, self.leased, self.cooling, self.in_flight, self.queued]
    }
}

impl Journal {
    /// An ADD was answered.
    pub(crate) fn answered(&self, flight: Flight) {
        keep(&mut open(&self.flights), flight, FLIGHTS);
    }

    /// The plugin reported of its last ADD for `key`.
    pub(crate) fn reported(&self, key: &PodKey, wiring: Duration, plugin: Duration) {
        if let Some(flight) = open(&self.flights).iter_mut().rev().find(|flight| flight.key == *key) {
            flight.plugin = Some((wiring, plugin));
        }
    }

    /// The last ADDs, oldest first.
    pub(crate) fn flights(&self) -> Vec<Flight> {
        open(&self.flights).iter().cloned().collect()
    }

    /// The pool was counted; the same counts again only move the last sample on.
    pub(crate) fn sampled(&self, sample: Sample) {
        let mut samples = open(&self.samples);
        let last_two = samples.iter().rev().take(2).map(|old| old.counts());
        if last_two.filter(|old| *old == sample.counts()).count() == 2 {
            samples.pop_back();
        }
        keep(&mut samples, sample, SAMPLES);
    }

    /// How the pool went, oldest first.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        open(&self.samples).iter().copied().collect()
    }
}

fn keep<T>(queue: &mut VecDeque<T>, new: T, most: usize) {
    if queue.len() >= most {
        queue.pop_front();
    }
    queue.push_back(new);
}

/// Says when the pool is to be sampled: not twice within half a second.
#[derive(Debug)]
pub(crate) struct Pace(Option<Instant>);

impl Pace {
    /// The first sample is due.
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Whether a sample is due; then it is taken for taken.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.0.is_none_or(|last| now.duration_since(last) >= SAMPLE_PAUSE);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u64, leased: u32) -> Sample {
        Sample { at: Moment::from_millis(second * 1000), free: 1, leased, cooling: 0, in_flight: 0, queued: 0 }
    }

    #[test]
    fn a_pool_that_stays_as_it_is_takes_two_samples_however_long() {
        let journal = Journal { flights: Mutex::default(), samples: Mutex::default() };
        for second in 0..10 {
            journal.sampled(sample(second, 1));
        }
        journal.sampled(sample(10, 2));
        let seconds: Vec<_> = journal.samples().iter().map(|sample| sample.at.as_millis() / 1000).collect();
        assert_eq!(seconds, [0, 9, 10]);
    }

    #[test]
    fn the_past_is_bounded() {
        let journal = Journal { flights: Mutex::default(), samples: Mutex::default() };
        for second in 0..2 * u64::try_from(SAMPLES).unwrap() {
            journal.sampled(sample(second, u32::try_from(second).unwrap()));
        }
        assert_eq!(journal.samples().len(), SAMPLES);
        assert_eq!(journal.samples().first().unwrap().leased, u32::try_from(SAMPLES).unwrap());
    }
}
