//! How often one thing is mended before we let somebody else have his way for a while.

use std::time::{Duration, Instant};

/// Repairs at once of a thing that breaks again and again.
const BURST: f64 = 32.0;
/// A thing that stayed right for this long may be mended once more.
const RECOVERY: Duration = Duration::from_secs(1);
/// The first pause of a fight; each following one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Patience with one thing: a bucket that only the time fills in which the thing stayed right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    left: f64,
    /// When it was mended last.
    mended: Option<Instant>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl Patience {
    pub(super) const fn new() -> Self {
        Self { left: BURST, mended: None, pause: FIRST_PAUSE, not_before: None }
    }

    /// The thing is wrong now. Returns when it may be mended, which is `now` unless this is a fight.
    pub(super) fn may_mend(&mut self, now: Instant) -> Instant {
        if let Some(mended) = self.mended.take() {
            let right = now.saturating_duration_since(mended);
            self.left = (self.left + right.as_secs_f64() / RECOVERY.as_secs_f64()).min(BURST);
            if right >= LONGEST_PAUSE {
                self.pause = FIRST_PAUSE;
            }
        }
        if self.left >= 1.0 {
            return now;
        }
        *self.not_before.get_or_insert_with(|| {
            let until = now + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            until
        })
    }

    /// Whether it is left alone at the moment.
    pub(super) const fn is_waiting(&self) -> bool {
        self.not_before.is_some()
    }

    /// It was mended, or tried to.
    pub(super) fn mended(&mut self, now: Instant) {
        self.left = (self.left - 1.0).max(0.0);
        self.mended = Some(now);
        self.not_before = None;
    }

    /// Whether it stayed right for so long that it is like new.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        let full = RECOVERY.mul_f64(BURST).max(LONGEST_PAUSE);
        self.mended.is_some_and(|mended| now.saturating_duration_since(mended) >= full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a thing is mended in `seconds` when it breaks `apart` after each repair.
    fn repairs(apart: Duration, seconds: u64) -> usize {
        let (mut patience, start) = (Patience::new(), Instant::now());
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(seconds) {
            now = now.max(patience.may_mend(now));
            patience.mended(now);
            count += 1;
            now += apart;
        }
        count
    }

    #[test]
    fn what_breaks_now_and_then_is_mended_at_once() {
        assert_eq!(repairs(Duration::from_secs(1), 600), 600);
    }

    #[test]
    fn a_fight_dies_down() {
        let first_minute = repairs(Duration::from_millis(50), 60);
        assert!((33..=45).contains(&first_minute), "{first_minute}");
        let hour = repairs(Duration::from_millis(50), 3600);
        assert!(hour < first_minute + 70, "{hour}");
    }

    #[test]
    fn after_a_fight_comes_peace() {
        let (mut patience, start) = (Patience::new(), Instant::now());
        for _ in 0..32 {
            assert_eq!(patience.may_mend(start), start);
            patience.mended(start);
        }
        assert!(patience.may_mend(start) > start);
        patience.mended(start);
        let later = start + Duration::from_secs(64);
        assert!(patience.is_fresh(later) && patience.may_mend(later) == later);
    }
}
