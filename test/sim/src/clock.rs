//! Where a cloud takes its time from: the wall, tokio's (pausable) clock, or a test's hand.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipam_core::Moment;

/// A source of [`Moment`]s; cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Moment + Send + Sync>);

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

impl Clock {
    /// A clock that asks `read`.
    pub fn new(read: impl Fn() -> Moment + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The machine's wall clock.
    #[must_use]
    pub fn wall() -> Self {
        Self::new(wall_now)
    }

    /// Begins at `start` and follows tokio's clock, so that a paused runtime pauses the cloud too.
    #[must_use]
    pub fn tokio(start: Moment) -> Self {
        let origin = tokio::time::Instant::now();
        Self::new(move || start.after(origin.elapsed()))
    }

    /// Stands still until the returned hand moves it.
    #[must_use]
    pub fn by_hand(start: Moment) -> (Self, ClockHand) {
        let hand = ClockHand(Arc::new(AtomicU64::new(start.as_millis())));
        let read = hand.clone();
        (Self::new(move || read.now()), hand)
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Moment {
        (self.0)()
    }
}

/// Moves a clock made by [`Clock::by_hand`].
#[derive(Debug, Clone)]
pub struct ClockHand(Arc<AtomicU64>);

impl ClockHand {
    /// The time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment::from_millis(self.0.load(Ordering::SeqCst))
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, to: Moment) {
        self.0.store(to.as_millis(), Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn advance(&self, wait: Duration) {
        self.0.store(self.now().after(wait).as_millis(), Ordering::SeqCst);
    }
}

/// The wall clock's time.
pub(crate) fn wall_now() -> Moment {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(0).after(elapsed)
}

/// Writes a moment as RFC 3339 in UTC with seconds, as EC2 does: `2026-11-03T14:02:07Z`.
pub(crate) fn rfc3339(moment: Moment) -> String {
    let seconds = moment.as_millis() / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Howard Hinnant's civil_from_days for dates since 1970, with years that begin in March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_utc_dates() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_000, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59Z"),
        ];
        for (millis, text) in table {
            assert_eq!(rfc3339(Moment::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_clock_by_hand_stands_still() {
        let (clock, hand) = Clock::by_hand(Moment::from_millis(5));
        assert_eq!(clock.now(), Moment::from_millis(5));
        hand.advance(Duration::from_millis(7));
        assert_eq!(clock.now(), Moment::from_millis(12));
    }
}
