//! What must hold after every step, and at the end.

use std::{collections::BTreeSet, time::Duration};

use ipam_core::{Action, Event};

use super::{ADDRESSES, COOL_DOWN, SANDBOXES, Step, World, key};

impl World {
    /// I6: the only ENI is needed.
    pub(super) fn starts(&self, action: &Action) {
        assert!(
            !matches!(action, Action::Unassign { .. } | Action::Detach { .. } | Action::Delete { .. }),
            "{action:?} while {:?}",
            self.stored
        );
    }

    pub(super) fn check(&self) {
        let addresses: Vec<_> = self.node.engine.leases().map(|lease| lease.addresses.v4().unwrap()).collect();
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "I1: {addresses:?}");
        for (number, pod) in self.pods.iter().enumerate() {
            let held = self.node.engine.lease(&self.key(number)).map(|lease| lease.addresses.v4().unwrap());
            if let Some(heard) = pod.heard
                && (pod.wanted && pod.alive)
            {
                assert_eq!(held, Some(heard), "pod {number} lives and lost its address");
            }
            // Only the present sandbox can have a lease: all before it were deleted.
            for former in 0..pod.count.saturating_sub(1) {
                assert!(self.node.engine.lease(&key(number, former)).is_none(), "a former sandbox holds a lease");
            }
        }
    }

    /// Every pod is deleted: no lease is left, on record neither, and after the cool-down both addresses are free again.
    pub(crate) fn everything_ends(mut self) {
        for pod in 0..SANDBOXES {
            self.pass(Duration::from_millis(1));
            self.take(Step::Del(pod));
        }
        self.pass(COOL_DOWN);
        self.commit(self.writes.len());
        self.tell(Event::Tick);
        assert_eq!(self.node.engine.leases().count(), 0);
        assert!(self.stored.is_empty() && self.waiting.is_empty(), "{:?} {:?}", self.stored, self.waiting);
        assert_eq!(self.node.engine.status(self.now).free, u32::from(ADDRESSES));
    }
}
