//! The node's kernel: what it carries, and what it has for pods.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipam_core::{EniId, Event, ports::Interface};

use super::{Later, World};

/// How long the kernel has at most what nobody knows.
const LONGEST_STRAY: Duration = Duration::from_secs(600);

impl World {
    pub(super) fn look_at_kernel(&mut self, asked_at: ipam_core::Moment) {
        let now = self.now;
        self.strays.retain(|_, (since, _)| now.since(*since) < LONGEST_STRAY);
        let holds = if self.happens(self.chance.kernel_faults) {
            Err("says the model".to_owned())
        } else {
            Ok(self.leases().flat_map(|lease| lease.addresses.all()).chain(self.strays.keys().copied()).collect())
        };
        let at = self.soon(self.chance.kernel_delay);
        self.schedule(at, Later::Tell(Event::Kernel { asked_at, holds }));
    }

    /// The engine is about to hear of them.
    pub(super) fn told_of_strays(&mut self, holds: &BTreeSet<IpAddr>) {
        self.strays.iter_mut().for_each(|(address, (_, told))| *told = holds.contains(address));
    }

    pub(super) fn prepare(&mut self, interface: &Interface) {
        assert!(!self.operators.contains(&interface.id), "the operator's ENI was touched");
        assert!(interface.attachment.is_some(), "{interface:?} hangs on nothing");
        self.prepared.remove(&interface.id);
        self.preparing.insert(interface.id.clone());
        let at = self.soon(2_000);
        self.schedule(at, Later::Prepared(interface.id.clone()));
    }

    /// The link appears when EC2 has attached the ENI.
    pub(super) fn finish_preparing(&mut self, eni: EniId) {
        if !self.preparing.contains(&eni) {
            return;
        }
        let attachment = self.cloud.enis.get(&eni).and_then(|eni| eni.attachment.as_ref());
        if attachment.is_some_and(|attachment| attachment.attached) {
            self.preparing.remove(&eni);
            self.prepared.insert(eni.clone());
            self.tell(Event::HostReady { eni });
        } else {
            let at = self.now.after(Duration::from_secs(2));
            self.schedule(at, Later::Prepared(eni.clone()));
            self.tell(Event::HostFailed { eni, reason: "there is no such link".to_owned() });
        }
    }

    pub(super) fn forget_host(&mut self, eni: &EniId) {
        self.preparing.remove(eni);
        self.prepared.remove(eni);
        assert!(!self.uses(eni), "{eni} is forgotten while pods use it");
    }
}
