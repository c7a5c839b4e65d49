//! What this node has: its ENIs, their addresses, and who holds which.
//!
//! The state of an address is derived and never stored twice: held by a lease, resting until a moment, or free.

mod of_prefix;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use eni_proto::{EniMark, PodKey, is_for_egress, numbers};

use crate::{
    EniId, Lease, Moment,
    ports::{Cidr4, Interface, InterfaceKind},
};

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

/// How long EC2 may fail to list an ENI before we believe that it is gone. Its descriptions can lag by minutes after a change.
pub const UNLISTED_GRACE: Duration = Duration::from_secs(60);

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
    /// When the description that was believed last was asked for. Absent: EC2 has not described it yet.
    pub described_at: Option<Moment>,
    /// How many of its places hold what we know to be on another ENI, and therefore do not use.
    pub disputed: usize,
    /// Since when EC2 does not list it any more. Absent: it does.
    pub unlisted_since: Option<Moment>,
    /// The network card that it was made for; counts while it hangs on no instance.
    pub meant_for: u8,
}

impl Eni {
    /// Device index; absent while it is unattached.
    #[must_use]
    pub fn device_index(&self) -> Option<u8> {
        self.interface.attachment.as_ref().map(|attachment| attachment.device_index)
    }

    /// The network card on which it takes, or will take, a place.
    #[must_use]
    pub fn card(&self) -> u8 {
        self.interface.attachment.as_ref().map_or(self.meant_for, |attachment| attachment.card)
    }

    /// Whether it is the node's primary ENI, which never leaves.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.card() == 0 && self.device_index() == Some(0)
    }

    /// Whether we could use and change it: an operator can forbid it by a tag, ordinary ENIs only are for us (on further
    /// cards also those with an Elastic Fabric Adapter), and only where there is a mark for its packets.
    fn is_for_us(&self) -> bool {
        let efa = self.interface.kind == InterfaceKind::Efa && self.card() > 0;
        self.interface.tags.get(numbers::TAG_NO_MANAGE).map(String::as_str) != Some("true")
            && (self.is_primary() || self.interface.kind == InterfaceKind::Plain || efa)
            && self.device_index().is_none_or(|index| EniMark::of_slot(self.card(), index).is_some())
    }

    /// Whether EC2 has not listed it for so long that no further pod should rely on it.
    #[must_use]
    pub fn is_missing(&self, now: Moment) -> bool {
        self.unlisted_since.is_some_and(|since| now.since(since) >= UNLISTED_GRACE)
    }

    /// How many places for addresses and prefixes are taken.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.interface.secondary.len() + self.interface.prefixes.len() + self.disputed
    }

    /// The mark that selects its route table.
    #[must_use]
    pub fn mark(&self) -> EniMark {
        self.device_index().and_then(|index| EniMark::of_slot(self.card(), index)).unwrap_or(EniMark::PRIMARY)
    }
}

/// All ENIs, leases and cool-downs of the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pool {
    /// Whether ENIs on network cards above 0 are ours to use.
    further_cards: bool,
    enis: BTreeMap<EniId, Eni>,
    leases: BTreeMap<PodKey, Lease>,
    held: BTreeMap<IpAddr, PodKey>,
    cooling: BTreeMap<IpAddr, Moment>,
    /// Addresses that EC2 has been asked to take back: listed perhaps, but no longer ours to give.
    leaving: BTreeSet<Ipv4Addr>,
    /// Addresses that the kernel has for a pod which nobody knows: never given out, never given back.
    stray: BTreeSet<IpAddr>,
    /// Since when an address is free, for late reuse. Absent: it was never used.
    free_since: BTreeMap<IpAddr, Moment>,
}

impl Pool {
    /// Returns an empty pool.
    #[must_use]
    pub(crate) fn new(further_cards: bool) -> Self {
        Self { further_cards, ..Self::default() }
    }

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

    /// How many addresses of a network card pods hold.
    #[must_use]
    pub fn held_on_card(&self, card: u8) -> usize {
        if !self.further_cards {
            return if card == 0 { self.leases.len() } else { 0 };
        }
        self.leases.values().filter(|lease| self.enis.get(&lease.eni).map_or(0, Eni::card) == card).count()
    }

    /// The lease of a key.
    #[must_use]
    pub fn lease(&self, key: &PodKey) -> Option<&Lease> {
        self.leases.get(key)
    }

    /// Keys of the leases that came with that of `first`, and end with it.
    pub fn came_with<'a>(&'a self, first: &'a PodKey) -> impl Iterator<Item = &'a PodKey> {
        self.leases.range(first.further(0)..).map(|(key, _)| key).take_while(|key| key.came_with(first))
    }

    /// Puts a lease on record; it replaces one of the same key.
    pub(crate) fn hold(&mut self, lease: Lease) {
        for address in lease.addresses.all() {
            self.cooling.remove(&address);
            self.free_since.remove(&address);
            self.held.insert(address, lease.key.clone());
        }
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Ends a lease; its addresses rest until `until`.
    pub(crate) fn end(&mut self, key: &PodKey, until: Moment) -> Option<Lease> {
        let lease = self.leases.remove(key)?;
        for address in lease.addresses.all() {
            self.held.remove(&address);
            self.rest(address, until);
        }
        Some(lease)
    }

    /// Lets an address rest until `until`.
    pub(crate) fn rest(&mut self, address: IpAddr, until: Moment) {
        self.cooling.insert(address, until);
        if address.is_ipv4() && !is_for_egress(address) {
            self.free_since.insert(address, until);
        }
    }

    /// Forgets cool-downs that are over.
    pub(crate) fn warm_up(&mut self, now: Moment) {
        self.cooling.retain(|_, until| *until > now);
    }

    /// Whether a pod holds the address.
    #[must_use]
    pub fn is_held(&self, address: impl Into<IpAddr>) -> bool {
        self.held.contains_key(&address.into())
    }

    /// Whose the address is. Absent: no pod holds it.
    #[must_use]
    pub fn holder(&self, address: impl Into<IpAddr>) -> Option<&PodKey> {
        self.held.get(&address.into())
    }

    /// Until when the address rests. Absent: it does not.
    #[must_use]
    pub fn rests_until(&self, address: impl Into<IpAddr>) -> Option<Moment> {
        self.cooling.get(&address.into()).copied()
    }

    /// Whether a pod holds the address, or it still rests, or the kernel has it for somebody.
    #[must_use]
    pub fn is_taken(&self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.held.contains_key(&address) || self.cooling.contains_key(&address) || self.stray.contains(&address)
    }

    /// Whether the address could be given out, as far as the pods are concerned.
    #[must_use]
    pub fn is_free(&self, address: Ipv4Addr) -> bool {
        !self.is_taken(address) && !self.leaving.contains(&address)
    }

    /// Free addresses of an ENI: single ones, then those of its prefixes, each in order.
    pub fn free<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = Ipv4Addr> + 'a {
        eni.interface.addresses().filter(|address| self.is_free(*address))
    }

    /// Free single addresses of an ENI, sorted.
    pub fn free_singles<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = Ipv4Addr> + 'a {
        eni.interface.secondary.iter().copied().filter(|address| self.is_free(*address))
    }

    /// Prefixes of an ENI of which every address is free, sorted.
    pub fn free_prefixes<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = Cidr4> + 'a {
        let free = |prefix: &Cidr4| prefix.addresses().all(|address| self.is_free(address));
        eni.interface.prefixes.iter().copied().filter(free)
    }

    /// Takes over what the kernel says its pods have. What has no lease is a stray, also while it rests.
    pub(crate) fn kernel_holds(&mut self, addresses: &BTreeSet<IpAddr>) {
        self.stray = addresses.iter().copied().filter(|address| !self.held.contains_key(address)).collect();
    }

    /// Addresses that the kernel has for a pod which nobody knows, sorted.
    pub fn strays(&self) -> impl Iterator<Item = IpAddr> {
        self.stray.iter().copied()
    }

    /// Gives none of these addresses out any more: EC2 is asked to take them back.
    pub(crate) fn let_go(&mut self, addresses: impl Iterator<Item = Ipv4Addr>) {
        self.leaving.extend(addresses);
    }

    /// Takes addresses as ours again: EC2 did not take them back, or does not list them any more.
    pub(crate) fn keep(&mut self, addresses: &BTreeSet<Ipv4Addr>) {
        self.leaving.retain(|address| !addresses.contains(address));
    }

    /// How many IPv4 addresses of an ENI pods hold.
    #[must_use]
    pub fn held_on(&self, eni: &Eni) -> usize {
        eni.interface.addresses().filter(|address| self.is_held(*address)).count()
    }

    /// How many addresses of an ENI are held or rest: none of them may go.
    #[must_use]
    pub fn taken_on(&self, eni: &Eni) -> usize {
        let listed = eni.interface.addresses().filter(|address| self.is_taken(*address)).count();
        // A lease whose address EC2 does not list (any more) keeps its ENI all the same.
        let unlisted = self
            .leases
            .values()
            .filter(|lease| lease.eni == eni.interface.id && !lease.addresses.all().any(|own| eni.interface.owns(own)));
        listed + unlisted.count() + self.taken_of_prefixes6(eni).count()
    }

    /// Addresses that rest, and until when.
    pub fn cooling(&self) -> impl Iterator<Item = (IpAddr, Moment)> {
        self.cooling.iter().map(|(address, until)| (*address, *until))
    }

    /// When each resting address of a card's ready ENI may be given out again, earliest first.
    #[must_use]
    pub fn cooling_on_ready(&self, card: u8) -> Vec<Moment> {
        let ready = self.managed().filter(|eni| eni.phase == Phase::Ready && eni.card() == card);
        let mut ends: Vec<_> = ready
            .flat_map(|eni| self.cooling_on(eni))
            .filter_map(|address| self.cooling.get(&address).copied())
            .collect();
        ends.sort_unstable();
        ends
    }

    /// Of IPv4 only: of IPv6 there are always others.
    fn cooling_on<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = IpAddr> + 'a {
        self.cooling.keys().copied().filter(|address| address.is_ipv4() && eni.interface.owns(*address))
    }

    /// Cooling addresses that belong to the node's ENIs.
    #[must_use]
    pub fn cooling_here(&self) -> usize {
        self.managed().map(|eni| self.cooling_on(eni).count()).sum()
    }

    /// ENIs that we may use.
    pub fn managed(&self) -> impl Iterator<Item = &Eni> {
        self.enis.values().filter(|eni| self.is_managed(eni))
    }

    /// Whether we may use and change an ENI.
    #[must_use]
    pub fn is_managed(&self, eni: &Eni) -> bool {
        (eni.card() == 0 || self.further_cards) && eni.is_for_us()
    }

    /// Picks the address for the next pod, on a ready ENI that `carries` pods: of the kind that is wanted, so that the
    /// other can go; on the fullest ENI and there in the fullest prefix, so that others become empty; there the one that
    /// has been free longest, so that reuse is as late as possible.
    #[must_use]
    pub fn pick(&self, prefixes_first: bool, carries: impl Fn(&Eni) -> bool) -> Option<(&Eni, Ipv4Addr)> {
        let ready = self.managed().filter(|eni| eni.phase == Phase::Ready && carries(eni));
        let blocks = ready.flat_map(|eni| {
            let on_eni = self.held_on(eni);
            let singles = (false, eni.interface.secondary.clone());
            let prefixes = eni.interface.prefixes.iter().map(|prefix| (true, prefix.addresses().collect()));
            prefixes
                .chain([singles])
                .map(move |(is_prefix, block): (bool, Vec<Ipv4Addr>)| (eni, on_eni, is_prefix, block))
        });
        let picks = blocks.filter_map(|(eni, on_eni, is_prefix, block)| {
            let free = block.iter().filter(|address| self.is_free(**address));
            let address = *free.min_by_key(|address| (self.free_since.get(&IpAddr::V4(**address)), **address))?;
            let in_block = block.iter().filter(|address| self.is_held(**address)).count();
            let rank = (is_prefix == prefixes_first, on_eni, Reverse(eni.device_index()), in_block, Reverse(address));
            Some((rank, eni, address))
        });
        picks.max_by_key(|(rank, ..)| *rank).map(|(_, eni, address)| (eni, address))
    }
}
