//! Addresses that cannot be where EC2 says: on two ENIs, twice, or in no /28. EC2 keeps to one place for each, if not always
//! at the same time; some of its stand-ins do not at all.
//!
//! Such an address stays where it was known first. EC2 is looked at again until it agrees with itself, each time later; and at
//! once when the one that had it has it no more.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use super::Engine;
use crate::{
    EniId, Moment,
    pool::{Eni, Phase},
    ports::{Cidr6, Interface, PREFIX_SIZE, PREFIX6_BITS, Scope},
};

/// When EC2 is looked at first after a dispute began; then after twice the time each.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// How long to wait for a further look at most.
const LONGEST: Duration = Duration::from_secs(1800);

/// What EC2 lists on an ENI and cannot be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dispute {
    /// All of it; of a prefix every address.
    addresses: BTreeSet<Ipv4Addr>,
    /// What of it another ENI has by our record.
    elsewhere: BTreeSet<Ipv4Addr>,
    since: Moment,
}

/// By ENI, for people too.
pub(super) type Disputes = BTreeMap<EniId, Dispute>;

impl Dispute {
    /// What people are told.
    pub(super) fn in_words(&self) -> String {
        let few: Vec<_> = self.addresses.iter().take(3).map(Ipv4Addr::to_string).collect();
        let more = if self.addresses.len() > few.len() { ", …" } else { "" };
        format!(
            "EC2 lists addresses on it that are on another interface, or twice, or in no /28 ({}{more}); they are not used",
            few.join(", ")
        )
    }
}

impl Engine {
    /// Leaves out of a description what cannot be there. Returns how many places are disputed.
    pub(super) fn drop_doubles(&mut self, now: Moment, interface: &mut Interface) -> usize {
        self.yield_missing(now, interface);
        let others = self.claimed_beside(now, &interface.id);
        let listed = interface.clone();
        let primary = interface.primary;
        interface.secondary.retain(|address| *address != primary && !others.contains(address));
        let singles = interface.secondary.clone();
        let clear = |address: Ipv4Addr| {
            address != primary && !others.contains(&address) && singles.binary_search(&address).is_err()
        };
        interface.secondary.dedup();
        interface.prefixes.dedup();
        interface.prefixes.retain(|prefix| prefix.prefix == 28 && prefix.addresses().all(clear));
        let elsewhere = |prefix: &Cidr6| {
            let mut others = self.pool.enis().filter(|eni| eni.interface.id != listed.id);
            others.any(|eni| eni.interface.prefixes6.contains(prefix))
        };
        interface.prefixes6.dedup();
        interface.prefixes6.retain(|prefix| prefix.prefix == PREFIX6_BITS && !elsewhere(prefix));
        let places = |interface: &Interface| interface.secondary.len() + interface.prefixes.len();
        let disputed = places(&listed) - places(interface);
        self.odd.remove(&interface.id);
        if disputed == 0 {
            self.disputes.remove(&interface.id);
        } else {
            self.dispute(now, &listed, interface, &others);
        }
        disputed
    }

    /// Takes what EC2 lists here from ENIs that it has not listed for long.
    fn yield_missing(&mut self, now: Moment, interface: &Interface) {
        let missing = self.pool.enis().filter(|eni| eni.is_missing(now) && eni.interface.id != interface.id);
        let missing: Vec<_> = missing.map(|eni| (eni.interface.clone(), self.claims(now, eni))).collect();
        for (mut missing, claims) in missing {
            let stays = |address| claims.contains(&address) || !interface.has(address);
            missing.secondary.retain(|address| stays(*address));
            missing.prefixes.retain(|prefix| prefix.addresses().all(stays));
            if let Some(eni) = self.pool.eni_mut(&missing.id) {
                eni.interface = missing;
            }
        }
    }

    /// The addresses that are on other ENIs than this by our record.
    fn claimed_beside(&self, now: Moment, id: &EniId) -> BTreeSet<Ipv4Addr> {
        let others = self.pool.enis().filter(|eni| eni.interface.id != *id);
        others.flat_map(|eni| self.claims(now, eni)).collect()
    }

    /// The addresses that an ENI has by our record. One that EC2 has not listed for long has only what is not free.
    fn claims(&self, now: Moment, eni: &Eni) -> BTreeSet<Ipv4Addr> {
        if !eni.is_missing(now) {
            return eni.interface.addresses().chain([eni.interface.primary]).collect();
        }
        let taken = |address: &Ipv4Addr| self.pool.is_taken(*address);
        let singles = eni.interface.secondary.iter().copied().filter(taken);
        let prefixes = eni.interface.prefixes.iter().filter(|prefix| prefix.addresses().any(|address| taken(&address)));
        singles.chain(prefixes.flat_map(|prefix| prefix.addresses())).collect()
    }

    fn dispute(&mut self, now: Moment, listed: &Interface, kept: &Interface, others: &BTreeSet<Ipv4Addr>) {
        let singles = listed.secondary.iter().copied().filter(|address| !kept.has(*address));
        let prefixes = listed.prefixes.iter().filter(|prefix| !kept.prefixes.contains(prefix));
        // One that is no /28 may be as large as the internet.
        let in_prefixes = prefixes.flat_map(|prefix| prefix.addresses().take(PREFIX_SIZE));
        let addresses: BTreeSet<_> = singles.chain(in_prefixes).collect();
        let elsewhere: BTreeSet<_> = addresses.intersection(others).copied().collect();
        let known = self.disputes.get(&listed.id).filter(|known| known.addresses == addresses);
        let known_since = known.map(|known| known.since);
        if known_since.is_none() {
            self.arm_scan(now);
        }
        let since = known_since.unwrap_or(now);
        let look_at = now.after(now.since(since).clamp(FIRST_LOOK, LONGEST));
        let unattached = |eni: &&Eni| eni.phase == Phase::Unattached;
        let spares = self.pool.enis().filter(unattached);
        let in_spares = spares.flat_map(|eni| eni.interface.addresses()).any(|address| elsewhere.contains(&address));
        self.looks.at(Scope::Attached, look_at);
        if in_spares || listed.attachment.is_none() {
            self.looks.at(Scope::Tagged, look_at);
        }
        self.disputes.insert(listed.id.clone(), Dispute { addresses, elsewhere, since });
    }

    /// Looks at EC2 when an ENI does not have any more what made a dispute.
    pub(super) fn review_disputes(&mut self, now: Moment) {
        let ids: Vec<EniId> = self.disputes.keys().cloned().collect();
        for id in ids {
            let others = self.claimed_beside(now, &id);
            let unattached = self.pool.eni(&id).is_some_and(|eni| eni.phase == Phase::Unattached);
            let Some(dispute) = self.disputes.get_mut(&id) else { continue };
            let before = dispute.elsewhere.len();
            dispute.elsewhere.retain(|address| others.contains(address));
            if dispute.elsewhere.len() < before {
                self.looks.at(if unattached { Scope::Tagged } else { Scope::Attached }, now);
            }
        }
    }
}
