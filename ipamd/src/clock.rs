//! The one place where the daemon reads the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipam_core::Moment;

/// Longest single sleep: after a jump of the wall clock a deadline is looked at again within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The present moment; the epoch itself when the clock is before it.
pub(crate) fn now() -> Moment {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}

/// Waits until `moment`, or for ever when there is none. May return early; cancel-safe.
pub(crate) async fn sleep_until(moment: Option<Moment>) {
    match moment {
        // One millisecond more, because the timer rounds down and the engine compares whole milliseconds.
        Some(moment) => tokio::time::sleep((moment.since(now()) + Duration::from_millis(1)).min(LONGEST_SLEEP)).await,
        None => std::future::pending().await,
    }
}

/// A moment as RFC 3339 in UTC with whole seconds, as `2026-11-20T14:02:07Z`.
pub(crate) fn rfc3339(moment: Moment) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(moment.as_millis())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_dates() {
        assert_eq!(rfc3339(Moment::from_millis(1_795_270_927_999)), "2026-11-21T14:22:07Z");
    }
}
