//! What the kubelets do: ask for a pod's address, and ask again after a refusal.

use std::time::Duration;

use ipam_core::Moment;

use crate::random::Random;

/// How long a kubelet waits after a failed sandbox, at least; up to half as much again is added by chance.
/// Source: Kubernetes pkg/kubelet/kubelet.go `backOffPeriod`, pod_workers.go `workerBackOffPeriodJitterFactor`.
const BACK_OFF: Duration = Duration::from_secs(10);

/// Until when an ADD waits. Source: the plugin's default deadline.
pub(crate) const ADD_WAIT: Duration = Duration::from_secs(eni_proto::numbers::DEFAULT_ADD_WAIT_SECONDS as u64);

/// One pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) node: usize,
    /// When its kubelet asked for the first time.
    pub(crate) asked: Moment,
    /// When it got its address.
    pub(crate) granted: Option<Moment>,
    /// When it was deleted.
    pub(crate) gone: Option<Moment>,
    /// How often its kubelet has asked: each time for another sandbox.
    pub(crate) attempts: u16,
}

/// When a kubelet tries again after a failure at `now`.
pub(crate) fn again(now: Moment, random: &mut Random) -> Moment {
    now.after(BACK_OFF + random.up_to(BACK_OFF / 2))
}
