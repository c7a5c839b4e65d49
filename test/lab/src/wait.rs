//! Waiting for a condition with a deadline, never for a time.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(20);

/// A condition that did not come true in time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("waited {seconds:.1} s in vain for {what}; last seen: {last}")]
pub struct TimedOut {
    /// What was waited for.
    pub what: String,
    /// For how long, in seconds.
    pub seconds: f32,
    /// The state at the last look.
    pub last: String,
}

/// Looks until `look` answers `Ok` and returns that answer; the `Err` is the state to show when time runs out.
///
/// # Errors
/// [`TimedOut`] with the last state seen.
pub async fn until<T, S, F>(deadline: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T, TimedOut>
where
    S: fmt::Display,
    F: Future<Output = Result<T, S>>,
{
    let start = Instant::now();
    loop {
        let last = match look().await {
            Ok(answer) => return Ok(answer),
            Err(state) => state,
        };
        if start.elapsed() >= deadline {
            return Err(TimedOut {
                what: what.to_owned(),
                seconds: start.elapsed().as_secs_f32(),
                last: last.to_string(),
            });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
