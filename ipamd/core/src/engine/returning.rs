//! Pods that were refused and will ask again: what they need is asked for meanwhile, together with what others need.

use std::{collections::BTreeMap, time::Duration};

use eni_proto::{Pod, PodKey};

use crate::Moment;

/// Until when a refused pod is expected back. Source: Kubernetes pkg/kubelet/kubelet.go `backOffPeriod` (10 s) and
/// pod_workers.go `workerBackOffPeriodJitterFactor` (half of it), and some time for a busy node.
const BACK_WITHIN: Duration = Duration::from_secs(20);

/// Refused pods, by name, and until when each is expected.
#[derive(Debug, Clone, Default)]
pub(super) struct Returning {
    until: BTreeMap<String, Moment>,
}

impl Returning {
    pub(super) fn refused(&mut self, key: &PodKey, pod: &Pod, now: Moment) {
        self.until.insert(name(key, pod), now.after(BACK_WITHIN));
    }

    /// It asks again. Returns whether it was expected.
    pub(super) fn is_back(&mut self, key: &PodKey, pod: &Pod) -> bool {
        self.until.remove(&name(key, pod)).is_some()
    }

    pub(super) fn forget_old(&mut self, now: Moment) {
        self.until.retain(|_, until| *until > now);
    }

    pub(super) fn count(&self) -> usize {
        self.until.len()
    }

    /// When the next one is no longer expected.
    pub(super) fn next_end(&self) -> Option<Moment> {
        self.until.values().copied().min()
    }
}

/// Each try of a pod has a sandbox, and so a key, of its own. A pod that nobody named cannot be known again.
fn name(key: &PodKey, pod: &Pod) -> String {
    if pod.name.is_empty() { key.to_string() } else { pod.to_string() }
}
