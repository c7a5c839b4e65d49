//! How much recent demand asks for: addresses that are free at once, and places for more on ENIs that are attached.
//!
//! On an attached ENI EC2 brings addresses within a second, so a few free ones are enough for a burst to begin with; when
//! it has begun, as many are asked for as a burst usually takes. What comes by the clock, as cron jobs do, is there
//! before. An ENI takes some ten seconds, so places for the largest recent burst are kept attached. Where pods had to wait
//! all the same, more is kept free from then on, and given up by age.

use std::{collections::VecDeque, time::Duration};

use crate::Moment;

/// What is kept free at least: pods that come within the second that EC2 takes.
const LEAST: usize = 2;
/// Pods that came so lately say how strong the present burst is.
const PRESENT: Duration = Duration::from_secs(4);
/// An ENI is attached within this time, so what comes within it needs places that are there.
const BURST: Duration = Duration::from_secs(20);
/// For so many minutes bursts are remembered: what comes every hour is.
const MEMORY: u64 = 65;
/// What was kept in addition because pods had to wait is halved when this has passed.
const HALVED_AFTER: Duration = Duration::from_secs(3600);
/// A node that starts empty was most often started because pods wait for it.
const YOUTH: Duration = Duration::from_secs(90);
/// Cron jobs begin with a minute; pods follow within this time.
const CLOCKWORK: Duration = Duration::from_secs(10);
/// So long before it what they will need is asked for.
const LEAD: Duration = Duration::from_secs(10);
/// After how many minutes they may come again, other than every hour: then they came at least twice before.
const PERIODS: [u64; 6] = [1, 2, 5, 10, 15, 30];

/// What recent demand asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Free addresses to keep.
    pub free: usize,
    /// Places to keep on attached ENIs, those of the free addresses included.
    pub places: usize,
    /// Whether the node has just started with no pod: then it will be filled.
    pub is_young: bool,
}

/// The pods that came in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Minute {
    number: u64,
    /// The most within [`BURST`].
    burst: usize,
    /// Those within [`CLOCKWORK`].
    at_its_beginning: usize,
}

/// What recent demand was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// When the node started, if it had no pod then.
    born: Option<Moment>,
    /// When pods came, as far back as a burst lasts.
    recent: VecDeque<Moment>,
    /// Minutes in which pods came, ascending.
    minutes: VecDeque<Minute>,
    /// How many pods had to wait, and when the last did.
    missed: usize,
    missed_at: Moment,
}

impl Forecast {
    /// Nothing is known yet of a node that starts at `now`, with pods or without.
    #[must_use]
    pub fn new(now: Moment, has_pods: bool) -> Self {
        Self { born: Some(now).filter(|_| !has_pods), ..Self::default() }
    }

    /// Learns that a pod came.
    pub fn arrived(&mut self, now: Moment) {
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|first| now.since(*first) >= BURST) {
            self.recent.pop_front();
        }
        let number = minute(now);
        if self.minutes.back().is_none_or(|last| last.number < number) {
            self.minutes.push_back(Minute { number, burst: 0, at_its_beginning: 0 });
        }
        if let Some(last) = self.minutes.back_mut() {
            last.burst = last.burst.max(self.recent.len());
            last.at_its_beginning += usize::from(now.since(start(number)) < CLOCKWORK);
        }
        while self.minutes.front().is_some_and(|first| first.number + MEMORY < number) {
            self.minutes.pop_front();
        }
    }

    /// Learns that a pod that came had to wait, because nothing was free.
    pub fn missed(&mut self, now: Moment) {
        self.missed = (self.kept_for_missed(now) + 1).min(self.largest_burst(now));
        self.missed_at = now;
    }

    fn kept_for_missed(&self, now: Moment) -> usize {
        let age = now.since(self.missed_at).as_secs() / HALVED_AFTER.as_secs();
        self.missed.checked_shr(u32::try_from(age).unwrap_or(u32::MAX)).unwrap_or(0)
    }

    fn remembered(&self, now: Moment) -> impl Iterator<Item = &Minute> {
        let present = minute(now);
        self.minutes.iter().filter(move |minute| minute.number + MEMORY >= present)
    }

    fn largest_burst(&self, now: Moment) -> usize {
        self.remembered(now).map(|minute| minute.burst).max().unwrap_or(0)
    }

    /// The burst of which half are not larger.
    fn usual_burst(&self, now: Moment) -> usize {
        let mut bursts: Vec<_> = self.remembered(now).map(|minute| minute.burst).collect();
        bursts.sort_unstable();
        bursts.get(bursts.len() / 2).copied().unwrap_or(0)
    }

    /// How many pods are expected to come with the beginning of a minute, because they did an hour or some period before.
    fn expected(&self, number: u64) -> usize {
        let came = |number| {
            let found = self.minutes.binary_search_by_key(&number, |minute: &Minute| minute.number).ok();
            found.and_then(|at| self.minutes.get(at)).map_or(0, |minute| minute.at_its_beginning)
        };
        let before = |period: u64| number.checked_sub(period).map_or(0, came);
        PERIODS.iter().map(|period| before(*period).min(before(2 * period))).fold(before(60), usize::max)
    }

    /// How many are expected by the clock soon or now.
    fn expected_now(&self, now: Moment) -> usize {
        let present = minute(now);
        let soon = if now.after(LEAD) >= start(present + 1) { self.expected(present + 1) } else { 0 };
        let begun = now.since(start(present)) < CLOCKWORK;
        soon.max(if begun { self.expected(present).saturating_sub(self.at_the_beginning_of(present)) } else { 0 })
    }

    /// Whether no more came with this minute than was expected.
    fn is_foreseen(&self, now: Moment) -> bool {
        let present = minute(now);
        now.since(start(present)) < CLOCKWORK + PRESENT && self.at_the_beginning_of(present) <= self.expected(present)
    }

    fn at_the_beginning_of(&self, number: u64) -> usize {
        self.minutes.back().filter(|last| last.number == number).map_or(0, |last| last.at_its_beginning)
    }

    /// What demand until `now` asks for.
    #[must_use]
    pub fn outlook(&self, now: Moment) -> Outlook {
        let present = self.recent.iter().filter(|at| now.since(**at) < PRESENT).count();
        let burst = if present > 0 && !self.is_foreseen(now) { self.usual_burst(now).max(present) } else { 0 };
        let free = burst.max(self.expected_now(now)).max(LEAST + self.kept_for_missed(now));
        let is_young = self.born.is_some_and(|born| now.since(born) < YOUTH);
        Outlook { free, places: self.largest_burst(now).max(free), is_young }
    }

    /// When [`Forecast::outlook`] changes by itself. Absent: never.
    #[must_use]
    pub fn changes_at(&self, now: Moment) -> Option<Moment> {
        let present = self.recent.iter().map(|at| at.after(PRESENT));
        let young = self.born.map(|born| born.after(YOUTH));
        let halvings = u32::try_from(now.since(self.missed_at).as_secs() / HALVED_AFTER.as_secs()).unwrap_or(u32::MAX);
        let halved = self.missed_at.after(HALVED_AFTER.saturating_mul(halvings.saturating_add(1)));
        let halved = Some(halved).filter(|_| self.kept_for_missed(now) > 0);
        let forgotten = self.minutes.iter().map(|minute| start(minute.number + MEMORY + 1));
        let ends = present.chain(young).chain(halved).chain(forgotten).chain(self.clockwork_after(now));
        ends.filter(|end| *end > now).min()
    }

    /// When pods are expected by the clock next, and when no longer.
    fn clockwork_after(&self, now: Moment) -> impl Iterator<Item = Moment> {
        let present = minute(now);
        let ends = [CLOCKWORK, CLOCKWORK + PRESENT].map(|after| start(present).after(after));
        let ends = ends.into_iter().filter(move |_| self.expected(present) > 0);
        let later = (present + 1..=present + MEMORY).filter(|number| self.expected(*number) > 0);
        let next = later.map(|number| Moment::from_millis(start(number).as_millis() - millis(LEAD)));
        next.filter(move |next| *next > now).take(1).chain(ends)
    }
}

const fn minute(now: Moment) -> u64 {
    now.as_millis() / 60_000
}

const fn start(minute: u64) -> Moment {
    Moment::from_millis(minute * 60_000)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
