//! What this node has: its ENIs, their addresses, and who holds which.
//!
//! The state of an address is derived and never stored twice: held by a lease, resting until a moment, or free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use eni_proto::{EniMark, PodKey, numbers};

use crate::{EniId, Lease, Moment, ports::Interface};

/// Where an ENI stands on its way from EC2 into the kernel and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It hangs on no instance.
    Unattached,
    /// EC2 is attaching it.
    Attaching,
    /// Attached; the kernel is being prepared.
    Preparing,
    /// Its addresses can be given out.
    Ready,
    /// It is leaving: nothing is given out any more.
    Leaving,
}

/// One ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eni {
    /// As EC2 described it last.
    pub interface: Interface,
    /// Where it stands.
    pub phase: Phase,
    /// When this daemon saw it first.
    pub since: Moment,
    /// When we last changed it: a description asked for before that is stale.
    pub changed_at: Moment,
    /// Since when EC2 does not list it any more. Absent: it does.
    pub unlisted_since: Option<Moment>,
}

impl Eni {
    /// Device index; absent while it is unattached.
    #[must_use]
    pub fn device_index(&self) -> Option<u8> {
        self.interface.attachment.as_ref().map(|attachment| attachment.device_index)
    }

    /// Whether it is the node's primary ENI, which never leaves.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.device_index() == Some(0)
    }

    /// Whether we may use and change it: an operator can forbid it by a tag.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.interface.tags.get(numbers::TAG_NO_MANAGE).map(String::as_str) != Some("true")
            && self.interface.attachment.as_ref().is_none_or(|attachment| attachment.card == 0)
    }

    /// The mark that selects its route table.
    #[must_use]
    pub fn mark(&self) -> EniMark {
        self.device_index().map_or(EniMark::PRIMARY, EniMark::of_device)
    }
}

/// All ENIs, leases and cool-downs of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    enis: BTreeMap<EniId, Eni>,
    leases: BTreeMap<PodKey, Lease>,
    held: BTreeMap<Ipv4Addr, PodKey>,
    cooling: BTreeMap<Ipv4Addr, Moment>,
    /// Addresses that EC2 has been asked to take back: listed perhaps, but no longer ours to give.
    leaving: BTreeSet<Ipv4Addr>,
    /// Since when an address is free, for late reuse. Absent: it was never used.
    free_since: BTreeMap<Ipv4Addr, Moment>,
}

impl Pool {
    /// The ENIs, by id.
    pub fn enis(&self) -> impl Iterator<Item = &Eni> {
        self.enis.values()
    }

    /// One ENI.
    #[must_use]
    pub fn eni(&self, id: &EniId) -> Option<&Eni> {
        self.enis.get(id)
    }

    pub(crate) fn eni_mut(&mut self, id: &EniId) -> Option<&mut Eni> {
        self.enis.get_mut(id)
    }

    pub(crate) fn insert(&mut self, eni: Eni) {
        self.enis.insert(eni.interface.id.clone(), eni);
    }

    pub(crate) fn remove(&mut self, id: &EniId) {
        self.enis.remove(id);
    }

    /// The leases, by key.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The lease of a key.
    #[must_use]
    pub fn lease(&self, key: &PodKey) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// Puts a lease on record; it replaces one of the same key.
    pub(crate) fn hold(&mut self, lease: Lease) {
        self.cooling.remove(&lease.address);
        self.free_since.remove(&lease.address);
        self.held.insert(lease.address, lease.key.clone());
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Ends a lease; its address rests until `until`.
    pub(crate) fn end(&mut self, key: &PodKey, until: Moment) -> Option<Lease> {
        let lease = self.leases.remove(key)?;
        self.held.remove(&lease.address);
        self.rest(lease.address, until);
        Some(lease)
    }

    /// Lets an address rest until `until`.
    pub(crate) fn rest(&mut self, address: Ipv4Addr, until: Moment) {
        self.cooling.insert(address, until);
        self.free_since.insert(address, until);
    }

    /// Forgets cool-downs that are over.
    pub(crate) fn warm_up(&mut self, now: Moment) {
        self.cooling.retain(|_, until| *until > now);
    }

    /// Whether a pod holds the address, or it still rests.
    #[must_use]
    pub fn is_taken(&self, address: Ipv4Addr) -> bool {
        self.held.contains_key(&address) || self.cooling.contains_key(&address)
    }

    /// Free addresses of an ENI, sorted.
    pub fn free<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = Ipv4Addr> + 'a {
        let given = |address: &Ipv4Addr| self.is_taken(*address) || self.leaving.contains(address);
        eni.interface.secondary.iter().copied().filter(move |address| !given(address))
    }

    /// Gives none of these addresses out any more: EC2 is asked to take them back.
    pub(crate) fn let_go(&mut self, addresses: &[Ipv4Addr]) {
        self.leaving.extend(addresses);
    }

    /// Takes addresses as ours again: EC2 did not take them back, or does not list them any more.
    pub(crate) fn keep(&mut self, addresses: &[Ipv4Addr]) {
        self.leaving.retain(|address| !addresses.contains(address));
    }

    /// How many addresses of an ENI pods hold.
    #[must_use]
    pub fn held_on(&self, eni: &Eni) -> usize {
        eni.interface.secondary.iter().filter(|address| self.held.contains_key(address)).count()
    }

    /// How many addresses of an ENI are held or rest: none of them may go.
    #[must_use]
    pub fn taken_on(&self, eni: &Eni) -> usize {
        let listed = eni.interface.secondary.iter().filter(|address| self.is_taken(**address)).count();
        // A lease whose address EC2 does not list (any more) keeps its ENI all the same.
        let unlisted = self
            .leases
            .values()
            .filter(|lease| lease.eni == eni.interface.id && !eni.interface.secondary.contains(&lease.address));
        listed + unlisted.count()
    }

    /// Addresses that rest, and until when.
    pub fn cooling(&self) -> impl Iterator<Item = (Ipv4Addr, Moment)> {
        self.cooling.iter().map(|(address, until)| (*address, *until))
    }

    /// When each resting address of a ready ENI may be given out again, earliest first.
    #[must_use]
    pub fn cooling_on_ready(&self) -> Vec<Moment> {
        let ready = self.managed().filter(|eni| eni.phase == Phase::Ready);
        let resting = ready.flat_map(|eni| &eni.interface.secondary).filter_map(|address| self.cooling.get(address));
        let mut ends: Vec<_> = resting.copied().collect();
        ends.sort_unstable();
        ends
    }

    /// Cooling addresses that belong to the node's ENIs.
    #[must_use]
    pub fn cooling_here(&self) -> usize {
        let ours: BTreeSet<_> = self.managed().flat_map(|eni| &eni.interface.secondary).collect();
        self.cooling.keys().filter(|address| ours.contains(address)).count()
    }

    /// ENIs that we may use.
    pub fn managed(&self) -> impl Iterator<Item = &Eni> {
        self.enis.values().filter(|eni| eni.is_managed())
    }

    /// Picks the address for the next pod: on the fullest ready ENI that has a free one, so that others can become
    /// empty; there the one that has been free longest, so that reuse is as late as possible.
    #[must_use]
    pub fn pick(&self) -> Option<(&Eni, Ipv4Addr)> {
        self.managed()
            .filter(|eni| eni.phase == Phase::Ready)
            .filter_map(|eni| {
                Some((eni, self.free(eni).min_by_key(|address| (self.free_since.get(address), *address))?))
            })
            .max_by_key(|(eni, _)| (self.held_on(eni), std::cmp::Reverse(eni.device_index())))
    }
}

#[cfg(test)]
mod tests;
