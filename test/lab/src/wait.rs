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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_state_is_told_when_time_runs_out() {
        let mut looks = 0;
        let outcome: Result<(), TimedOut> = until(Duration::from_millis(50), "the moon", || {
            looks += 1;
            let seen = looks;
            async move { Err(format!("look {seen}")) }
        })
        .await;

        let error = outcome.unwrap_err();
        assert!(looks > 1);
        assert_eq!(error.last, format!("look {looks}"));
        assert!(error.to_string().starts_with("waited 0."), "{error}");
    }

    #[tokio::test]
    async fn what_is_true_at_once_is_not_waited_for() {
        let outcome: Result<u8, TimedOut> = until(Duration::ZERO, "now", || async { Ok::<_, String>(7) }).await;
        assert_eq!(outcome, Ok(7));
    }
}
