//! How many free addresses recent demand asks for: the most pods that came within a short time, lately.
//!
//! What a burst took is kept ready for the next one, and given back by age when none comes.

use std::{collections::VecDeque, time::Duration};

use crate::Moment;

/// EC2 can bring new addresses within this time, so what came within it had to be there before.
const WINDOW: Duration = Duration::from_secs(10);
/// For so long a burst counts in full; then for half as much each time this passes.
const MEMORY: Duration = Duration::from_secs(900);
/// A burst so many memories ago is forgotten.
const MEMORIES: u32 = 5;

/// What recent demand was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Pods that came in each window of time, by number of the window, ascending; windows without any are left out.
    windows: VecDeque<(u64, usize)>,
}

impl Forecast {
    /// Learns that a pod came.
    pub fn arrived(&mut self, now: Moment) {
        let window = window(now);
        match self.windows.back_mut() {
            Some((last, count)) if *last >= window => *count += 1,
            Some(_) | None => self.windows.push_back((window, 1)),
        }
        let oldest = window.saturating_sub(windows_in(MEMORY * MEMORIES));
        while self.windows.front().is_some_and(|(first, _)| *first < oldest) {
            self.windows.pop_front();
        }
    }

    /// How many free addresses to keep: as many as the largest recent burst took, less the older it is; at least one.
    #[must_use]
    pub fn wanted(&self, now: Moment) -> usize {
        let (present, memory) = (window(now), windows_in(MEMORY));
        let mut before = None;
        let bursts = self.windows.iter().map(|&(at, count)| {
            // A burst may lie on the border of two windows.
            let both =
                count + before.filter(|(earlier, _)| earlier + 1 == at).map_or(0, |(_, count): (u64, usize)| count);
            before = Some((at, count));
            let age = present.saturating_sub(at) / memory;
            both.checked_shr(u32::try_from(age).unwrap_or(u32::MAX)).unwrap_or(0)
        });
        bursts.max().unwrap_or(0).max(1)
    }

    /// When [`Forecast::wanted`] becomes less by itself. Absent: never.
    #[must_use]
    pub fn fades_at(&self, now: Moment) -> Option<Moment> {
        let (present, memory) = (window(now), windows_in(MEMORY));
        let fades = self.windows.iter().filter(|(at, _)| (present.saturating_sub(*at)) / memory < MEMORIES.into());
        let next = fades.map(|(at, _)| at + (present.saturating_sub(*at) / memory + 1) * memory).min()?;
        Some(Moment::from_millis(next.saturating_mul(millis(WINDOW))))
    }
}

fn window(now: Moment) -> u64 {
    now.as_millis() / millis(WINDOW)
}

fn windows_in(time: Duration) -> u64 {
    millis(time) / millis(WINDOW)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Moment {
        Moment::from_millis(second * 1000)
    }

    #[test]
    fn what_a_burst_took_is_kept_and_given_back_by_age() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.wanted(at(0)), 1);
        (0..40).for_each(|pod| forecast.arrived(at(5 + pod / 4)));
        assert_eq!(forecast.wanted(at(20)), 40, "also over the border of two windows");
        assert_eq!(forecast.wanted(at(800)), 40);
        let fades_at = forecast.fades_at(at(800)).unwrap();
        assert_eq!((fades_at, forecast.wanted(fades_at), forecast.wanted(at(910))), (at(900), 40, 20));
        assert_eq!(forecast.wanted(at(2000)), 10);
        assert_eq!(forecast.wanted(at(9000)), 1);
        assert_eq!(forecast.fades_at(at(9000)), None);
    }

    #[test]
    fn a_trickle_asks_for_little() {
        let mut forecast = Forecast::default();
        (0..500).for_each(|pod| forecast.arrived(at(pod * 20)));
        assert_eq!(forecast.wanted(at(10_000)), 1);
        assert!(forecast.windows.len() <= 460, "what is forgotten takes no room: {}", forecast.windows.len());
    }
}
