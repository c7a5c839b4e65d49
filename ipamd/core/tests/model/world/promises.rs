//! What must hold after every step, and once nothing goes wrong any more.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipam_core::{
    Action, Limits, Placement,
    pool::{Eni, Phase},
    ports::{Amount, Interface, InterfaceKind, PREFIX_SIZE},
};

use super::{Said, World};

/// For so long the engine may rely on what the kernel said; and so long a call takes at most.
const KERNEL_FRESH: Duration = Duration::from_millis(5_000 + 600);

impl World {
    /// I12, and that engine and store agree.
    pub(super) fn check(&self) {
        assert!(self.engine.leases().eq(self.leases()), "engine and store have different leases");
        for (ticket, (_, deadline)) in &self.waiting {
            assert!(*deadline > self.now, "{ticket:?} waits past its deadline {deadline}");
        }
        let wake = self.engine.next_wake();
        assert!(wake.is_none_or(|wake| wake > self.now), "wants to be woken at {wake:?}, at once");
    }

    /// I7, as far as the engine can know.
    pub(super) fn check_limits(&self, action: &Action) {
        let addresses_per_eni = self.cloud.limits.addresses_per_eni;
        match action {
            Action::Create { amount, .. } => {
                let creating = self.in_flight.values().filter(|other| other.eni().is_none()).count();
                let there = self.engine.pool().enis().count();
                assert!(there + creating < self.most_enis(), "one ENI too many");
                assert!(amount.slots() < usize::from(addresses_per_eni), "{action:?} is more than an ENI carries");
            }
            Action::Assign { eni, amount } => {
                let has = self.cloud.enis.get(eni).map_or(0, |eni| eni.secondary.len() + eni.prefixes.len());
                assert!(amount.slots() > 0 || *amount == Amount::Prefix6);
                let wanted = 1 + has + amount.slots();
                assert!(wanted <= usize::from(addresses_per_eni), "{action:?}: it has {has} already");
            }
            Action::Attach { device_index, .. } => {
                let mut known = self.engine.pool().enis().filter_map(|eni| eni.interface.attachment.as_ref());
                let taken = known.any(|attachment| attachment.device_index == *device_index);
                assert!(!taken, "{action:?}: the slot is taken");
            }
            _ => {}
        }
    }

    /// I6. Called when the action begins, and again when EC2 carries it out.
    pub(super) fn check_safe(&self, action: &Action) {
        let in_use = |address: &IpAddr| {
            let stray = self.strays.get(address).is_some_and(|(since, _)| self.now.since(*since) > KERNEL_FRESH);
            self.holds(*address) || stray || self.disk.resting.get(address).is_some_and(|until| *until > self.now)
        };
        match action {
            Action::Unassign { holdings, .. } => {
                assert!(holdings.addresses.is_empty() != holdings.prefixes.is_empty(), "{action:?}");
                assert!(!holdings.all().any(|address| in_use(&address.into())), "{action:?}: in use or resting");
            }
            Action::Detach { eni, .. } | Action::Delete { eni } => {
                let mut on_it = self.cloud.enis.get(eni).into_iter().flat_map(Interface::addresses);
                assert!(!on_it.any(|address| in_use(&address.into())), "{action:?}: in use or resting");
                let of = |eni: &Interface, address: &IpAddr| address.is_ipv6() && eni.owns(*address);
                let resting =
                    self.disk.resting.iter().filter(|(_, until)| **until > self.now).map(|(address, _)| *address);
                let mut used = self.leases().flat_map(|lease| lease.addresses.all()).chain(resting);
                let gone = self.cloud.enis.get(eni);
                assert!(
                    !used.any(|address| gone.is_some_and(|eni| of(eni, &address))),
                    "{action:?}: IPv6 in use or resting"
                );
                assert_ne!(eni.as_str(), "eni-1", "the primary ENI");
            }
            _ => {}
        }
    }

    /// I9: the engine knows every ENI and every address that EC2 has for this node, and nothing else; nothing hangs on
    /// nothing, and nothing stays when the instance goes.
    pub(crate) fn nothing_leaks(&self) {
        let known = |id| self.engine.pool().eni(id);
        for eni in self.cloud.enis.values().filter(|eni| !self.operators.contains(&eni.id)) {
            let Some(seen) = known(&eni.id) else { panic!("leaked: {eni:?}") };
            let (there, seen): (BTreeSet<_>, BTreeSet<_>) =
                (eni.addresses().collect(), seen.interface.addresses().collect());
            assert_eq!(there, seen, "{}: what EC2 has and what is known", eni.id);
            let Some(attachment) = &eni.attachment else { panic!("hangs on nothing: {eni:?}") };
            let stays = attachment.device_index > 0 && !attachment.delete_on_termination;
            assert!(!stays, "stays when the instance goes: {eni:?}");
        }
        for eni in self.engine.pool().enis() {
            assert!(self.cloud.enis.contains_key(&eni.interface.id), "EC2 has no {eni:?}");
        }
    }

    /// I11: since so many things were said, nothing was asked of anybody.
    pub(crate) fn rested_since(&self, quiet: usize) {
        let commands: Vec<_> = self.said[quiet..].iter().filter(|said| matches!(said, Said::Answered(_))).collect();
        assert!(commands.is_empty(), "not at rest: {commands:?}");
    }

    /// I8: the pool has what the policy asks for, or all that the node carries; and what is idle and not needed is gone.
    pub(crate) fn is_as_wanted(&self) {
        let (pool, policy) = (self.engine.pool(), &self.policy);
        let status = self.engine.status(self.now);
        let free = usize::try_from(status.free).unwrap();
        assert!(pool.enis().all(|eni| !pool.is_managed(eni) || eni.phase == Phase::Ready), "{status:?}");
        let by_prefix = ipam_core::plan::wants_prefixes(policy, self.cloud.limits);
        let by_address = policy.warm_auto || policy.warm_addresses > 0 || policy.minimum_addresses > 0;
        let capacity = self.cloud.limits.capacity();
        let warm = match (by_address, by_prefix) {
            // Long after the last burst.
            _ if policy.warm_auto => 2,
            (true, _) => policy.warm_addresses.into(),
            (false, true) => usize::from(policy.warm_prefixes) * PREFIX_SIZE,
            (false, false) => usize::from(policy.warm_enis) * capacity,
        };
        let pods = policy.max_pods.map_or(usize::MAX, usize::from).saturating_sub(self.held());
        let wanted = warm.min(pods);
        let full = self.is_full(capacity);
        assert!(free >= wanted || full, "{free} free, {wanted} wanted: {status:?}");
        if policy.warm_auto {
            self.no_idle_places(by_prefix);
        } else {
            self.nothing_idle(wanted, by_prefix);
        }
    }

    /// No ENI without a pod stays beside places for pods as on one ENI, and half as many that are never too many.
    fn no_idle_places(&self, by_prefix: bool) {
        let (pool, capacity) = (self.engine.pool(), self.cloud.limits.capacity());
        let unit = if by_prefix { PREFIX_SIZE } else { 1 };
        let custom = matches!(self.policy.placement, Placement::Custom(_));
        let carries = |eni: &&Eni| !(custom && eni.is_primary());
        // Without prefixes, what is free in those of an earlier mode is on its way out.
        let free = |eni: &Eni| if by_prefix { pool.free(eni).count() } else { pool.free_singles(eni).count() };
        let places = |eni: &Eni| free(eni) + capacity.saturating_sub(eni.slots()) * unit;
        let all_free: usize = pool.managed().filter(carries).map(free).sum();
        let all_places: usize = pool.managed().filter(carries).map(places).sum();
        let wanted = usize::from(self.policy.minimum_addresses).saturating_sub(self.held()).max(2);
        for eni in pool.managed().filter(|eni| !eni.is_primary() && pool.taken_on(eni) == 0) {
            let for_places = all_places - places(eni) < (capacity + capacity.div_ceil(2)) * unit;
            let for_addresses = all_free - free(eni) < wanted + if by_prefix { 2 * PREFIX_SIZE } else { 0 };
            assert!(for_places || for_addresses, "{} is idle; {all_places} places, {all_free} free", eni.interface.id);
        }
    }

    /// How many ENIs the node may have, of which one place is kept for a trunk that is not there.
    fn most_enis(&self) -> usize {
        let Limits { max_enis, prefixes, .. } = self.cloud.limits;
        let kept =
            self.policy.trunk && prefixes && !self.cloud.enis.values().any(|eni| eni.kind == InterfaceKind::Trunk);
        usize::from(self.policy.max_enis.unwrap_or(u8::MAX).min(max_enis)) - usize::from(kept)
    }

    fn is_full(&self, capacity: usize) -> bool {
        let enis: Vec<_> = self.engine.pool().enis().collect();
        let custom = matches!(self.policy.placement, Placement::Custom(_));
        let full =
            |eni: &&Eni| !self.engine.pool().is_managed(eni) || (custom && eni.is_primary()) || eni.slots() >= capacity;
        enis.len() >= self.most_enis() && enis.iter().all(full)
    }

    /// No ENI without a pod stays beside enough free addresses on the others.
    fn nothing_idle(&self, wanted: usize, by_prefix: bool) {
        let pool = self.engine.pool();
        let custom = matches!(self.policy.placement, Placement::Custom(_));
        let carries = |eni: &&Eni| !(custom && eni.is_primary());
        let held: usize = pool.managed().filter(carries).map(|eni| pool.held_on(eni)).sum();
        let minimum = usize::from(self.policy.minimum_addresses).saturating_sub(held);
        let wanted = wanted.max(minimum).max(1);
        // Without prefixes, what is free in those of an earlier mode is on its way out.
        let counts = |eni| if by_prefix { pool.free(eni).count() } else { pool.free_singles(eni).count() };
        let free: usize = pool.managed().filter(carries).map(counts).sum();
        // A prefix that is partly used does not count for the target, and what rounding brings may stay.
        let spare = if by_prefix { (pool.managed().count() + self.held() + 2) * PREFIX_SIZE } else { 0 };
        let idle = pool.managed().filter(|eni| !eni.is_primary() && pool.taken_on(eni) == 0);
        let least = idle.map(counts).min();
        let needed = least.is_none_or(|least| free - least < wanted + spare);
        assert!(needed, "an idle interface with {least:?} of {free} free, {wanted} wanted");
    }
}
