//! Has the kernel forget the connections of released addresses, some at a time: each look at its connections costs the kernel a
//! walk over all of them, and the addresses rest for much longer than a moment.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::sync::mpsc;

use crate::errors::chain;

/// Pods often end together.
const GATHERING: Duration = Duration::from_secs(1);

/// Starts the task, with what the former run may not have come to. Returns how it hears of released addresses.
pub(crate) fn start(resting: BTreeSet<IpAddr>) -> mpsc::UnboundedSender<IpAddr> {
    let (sender, released) = mpsc::unbounded_channel();
    tokio::spawn(follow(resting, released));
    sender
}

async fn follow(mut addresses: BTreeSet<IpAddr>, mut released: mpsc::UnboundedReceiver<IpAddr>) {
    loop {
        forget(std::mem::take(&mut addresses)).await;
        let Some(first) = released.recv().await else { return };
        tokio::time::sleep(GATHERING).await;
        addresses.insert(first);
        while let Ok(next) = released.try_recv() {
            addresses.insert(next);
        }
    }
}

async fn forget(addresses: BTreeSet<IpAddr>) {
    let count = addresses.len();
    // On a thread of its own: it may take long, and nobody waits for it.
    match tokio::task::spawn_blocking(move || eni_datapath::forget_connections(&addresses)).await {
        Ok(Ok(forgotten)) => {
            tracing::debug!(addresses = count, forgotten, "connections of released addresses forgotten");
        }
        Ok(Err(error)) => {
            tracing::warn!(addresses = count, error = %chain(&error), "connections of released addresses could not be forgotten; who gets one next may be met by their packets");
        }
        Err(error) => tracing::error!(error = %chain(&error), "the task that forgets connections failed"),
    }
}
