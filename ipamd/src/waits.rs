//! Says in the log what is waited for, where that takes longer than it should: a daemon that stands still must not be silent.

use std::{fmt::Display, time::Duration};

use tokio::{task::AbortHandle, time::Instant};

/// Until it is said for the first time; then each time after twice as long, at most.
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(64);

/// Something that is waited for until this is dropped.
#[must_use = "it is waited for until this is dropped"]
#[derive(Debug)]
pub(crate) struct Waits(AbortHandle);

impl Waits {
    /// Begins to wait. `what` completes "waiting for". From a task of its own, so that also who blocks is told of.
    pub(crate) fn begin(what: impl Display + Send + 'static) -> Self {
        Self(tokio::spawn(say(what)).abort_handle())
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does `work`, and says what is waited for where that takes long.
pub(crate) async fn during<T>(what: impl Display + Send + 'static, work: impl Future<Output = T>) -> T {
    let _waits = Waits::begin(what);
    work.await
}

async fn say(what: impl Display) {
    let (begun, mut pause) = (Instant::now(), FIRST);
    loop {
        tokio::time::sleep(pause).await;
        tracing::warn!(waiting_for = %what, seconds = begun.elapsed().as_secs(), "still waiting");
        pause = (pause * 2).min(LAST);
    }
}
