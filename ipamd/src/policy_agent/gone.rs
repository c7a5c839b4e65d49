//! Tells the agent of pods that ended without a DEL: by GC, or because their sandbox was lost. Nobody waits for it, and what the agent does
//! not hear it finds out by itself.

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use eni_proto::{
    Pod,
    policy::{Outcome, forget},
};
use ipam_core::Lease;
use tokio::{sync::mpsc, time::timeout};

use crate::{handle::Handle, metrics::METRICS};

/// How long the agent may take for one pod. Nobody waits for it, and a node that takes many pods apart is slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most pods that wait to be told: more than a node has.
const MOST_WAITING: usize = 4096;

/// Where pods wait to be told. Unset: there is no agent.
static GONE: OnceLock<mpsc::Sender<Pod>> = OnceLock::new();

/// Has the agent, where there is one, forget the pod of a lease that ended without a DEL. Returns at once.
pub(crate) fn gone(lease: &Lease) {
    let pod = &lease.pod;
    // The agent knows Kubernetes' pods by their first interface.
    if lease.key.interface() != "eth0" || pod.namespace.is_empty() || pod.name.is_empty() {
        return;
    }
    if GONE.get().is_some_and(|gone| gone.try_send(pod.clone()).is_err()) {
        METRICS.policy_calls("GC").add(Outcome::Late.as_str());
    }
}

/// Tells the agent at `socket` of pods that are gone, for as long as the daemon runs.
pub(super) async fn follow(socket: PathBuf, handle: Handle) {
    let socket = socket.display().to_string();
    let (sender, mut waiting) = mpsc::channel(MOST_WAITING);
    // Set once: a process starts once.
    let _ = GONE.set(sender);
    while let Some(pod) = waiting.recv().await {
        let Ok(leases) = handle.leases().await else { return };
        // The agent knows pods by their names only: one that has a newer sandbox by now must not be forgotten.
        if leases.iter().any(|lease| (&lease.pod.namespace, &lease.pod.name) == (&pod.namespace, &pod.name)) {
            continue;
        }
        let told = timeout(PATIENCE, forget(&socket, &pod)).await;
        let late = || (Outcome::Late, format!("no answer within {} s", PATIENCE.as_secs()));
        let outcome = match told.unwrap_or_else(|_| Err(late())) {
            Ok(()) => Outcome::Done,
            Err((outcome, error)) => {
                tracing::warn!(%pod, outcome = outcome.as_str(), error, "the network-policy agent did not hear that a pod is gone");
                outcome
            }
        };
        METRICS.policy_calls("GC").add(outcome.as_str());
    }
}
