//! Deletes the host interfaces of pods that have ended. The kernel takes 10 ms and more for one, and hardly longer for all that are
//! there, so a DEL leaves them to us when their namespace goes anyway.
//!
//! They lead nowhere any more, and each says so itself: whatever a daemon left undone, the next one finds at its start.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use crate::{errors::chain, host::HostNet};

/// Pods often end together; then so do their interfaces. Most namespaces are gone by then, and their interfaces with them.
const GATHERING: Duration = Duration::from_millis(50);
/// When a deletion that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Deletes what is there, and then again whenever `left` tells that there is more, for ever.
pub(crate) async fn follow(host: HostNet, left: Arc<Notify>) {
    loop {
        match host.delete_ended().await {
            Ok(()) => left.notified().await,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "interfaces of ended pods could not be deleted; tried again in 5 s");
                tokio::time::sleep(RETRY).await;
            }
        }
        tokio::time::sleep(GATHERING).await;
    }
}
