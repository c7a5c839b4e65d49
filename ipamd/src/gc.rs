//! GC: the runtime lists the attachments that it knows, and every other lease of the network ends.

use std::collections::BTreeSet;

use eni_proto::{PodKey, Refusal};
use ipam_core::Moment;

use crate::{
    handle::{Handle, Stopped},
    policy_agent,
    tenure::Ended,
};

/// Releases the leases of `network` that are not `valid` and were neither given nor asked for again since `begun`.
///
/// Returns how many were released, once that is stored. Repeatable.
pub(crate) async fn collect(
    handle: &Handle,
    network: &str,
    valid: &BTreeSet<PodKey>,
    begun: Moment,
) -> Result<Result<u32, Refusal>, Stopped> {
    let leases = handle.leases().await?;
    // The runtime knows of a pod's first interface only.
    let is_valid = |key: &PodKey| valid.contains(key) || valid.contains(&key.first()) && key.came_with(&key.first());
    let unwanted = leases.into_iter().filter(|lease| lease.key.network() == network && !is_valid(&lease.key));
    // All at once, so that they share a commit.
    let ends: Vec<_> = unwanted
        .map(|lease| {
            let handle = handle.clone();
            tokio::spawn(async move {
                let ended = handle.reclaim(lease.key.clone(), begun, Ended::Gc).await?;
                if ended.as_ref().is_ok_and(|addresses| !addresses.is_empty()) {
                    policy_agent::gone(&lease);
                }
                Ok::<_, Stopped>(ended)
            })
        })
        .collect();
    let mut released = 0;
    let mut failure = None;
    for end in ends {
        match end.await.map_err(|_| Stopped)?? {
            Ok(addresses) if !addresses.is_empty() => released += 1,
            Ok(_) => {}
            Err(refusal) => failure = Some(refusal),
        }
    }
    tracing::info!(network, valid = valid.len(), released, "leases that the runtime does not know have ended");
    Ok(failure.map_or(Ok(released), Err))
}
