//! What the incumbent, or an older version of us, has left on the node: found once the daemon serves, told, and removed.

use eni_datapath::incumbent::{self, Incumbent};

use super::legacy::Legacy;
use crate::{errors::chain, handle::Handle, incumbent::running, settings::Settings};

/// Waits until the node serves, so that ours is in place, and sweeps once.
pub(crate) async fn once(settings: Settings, handle: Handle) {
    if handle.until_serving().await.is_err() {
        return;
    }
    let swept = tokio::task::spawn_blocking(move || sweep(&settings)).await;
    if let Ok(Err(reason)) = swept {
        tracing::error!(reason, "leftovers of another CNI could not be looked for or removed");
    }
}

fn sweep(settings: &Settings) -> Result<(), String> {
    let seen = Incumbent::observe(&settings.veth_prefix).map_err(|error| chain(&error))?;
    if let Some(sign) = running(&settings.incumbent) {
        tracing::error!(
            sign,
            "IPAM-351 amazon-vpc-cni-k8s runs on this node too: both give the same addresses to pods; stop one of them"
        );
        return Ok(());
    }
    if let [first, ..] = &seen.pods()[..] {
        tracing::error!(
            pods = seen.pods().len(), link = first.link, address = %first.address,
            "IPAM-360 pods of amazon-vpc-cni-k8s live here and nobody has taken them over; its rules stay. Run `ipamd migrate check`"
        );
        return Ok(());
    }
    for what in incumbent::remove(&seen).map_err(|error| chain(&error))? {
        tracing::warn!(what, "a leftover of another CNI or of an older version was removed");
    }
    let legacy = Legacy::observe().map_err(|error| error.to_string())?;
    legacy.remove().map_err(|error| error.to_string())?;
    for what in legacy.lines() {
        tracing::warn!(what, "a leftover of another CNI was removed");
    }
    Ok(())
}

/// What a sweep would find, for people; pods that nobody has taken over among it.
pub(crate) fn leftovers(settings: &Settings) -> Result<Vec<String>, String> {
    let seen = Incumbent::observe(&settings.veth_prefix).map_err(|error| chain(&error))?;
    let pods =
        seen.pods().into_iter().map(|pod| format!("pod link {} with {} of amazon-vpc-cni-k8s", pod.link, pod.address));
    let legacy = Legacy::observe().map_err(|error| error.to_string())?.lines();
    Ok(pods.chain(seen.leftovers()).chain(legacy).collect())
}
