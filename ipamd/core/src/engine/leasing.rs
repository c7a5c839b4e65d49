//! Pods' leases: who gets an address, and what ends a lease.

use std::{collections::BTreeSet, net::IpAddr};

use eni_proto::{PodAddresses, PodKey};

use super::{Engine, refusal};
use crate::{Command, CoolDown, Families, Lease, Moment, Ticket, plan, pool::Eni};

impl Engine {
    /// Takes back a lease that could not be stored, unless a later answer for the key may have been.
    ///
    /// Then the lease stays until the DEL that follows every failed ADD.
    pub(super) fn store_failed(&mut self, now: Moment, key: PodKey, commands: &mut Vec<Command>) {
        if self.answered_again.contains_key(&key) {
            return;
        }
        let until = now.after(self.policy.cool_down);
        if let Some(lease) = self.pool.end(&key, until) {
            let released = rests(&lease, until);
            commands.push(Command::Release { ticket: None, key, released });
        }
    }

    pub(super) fn del(&mut self, now: Moment, ticket: Ticket, key: PodKey, commands: &mut Vec<Command>) {
        // A pod that is deleted while it waits must not get an address afterwards.
        for waiter in self.queue.extract_if(.., |waiter| waiter.key == key || waiter.key.came_with(&key)) {
            commands.push(Command::Refuse { ticket: waiter.ticket, refusal: refusal::deleted(&waiter) });
        }
        let further: Vec<PodKey> = self.pool.came_with(&key).cloned().collect();
        for key in further {
            let released = self.end(now, &key);
            commands.push(Command::Release { ticket: None, key, released });
        }
        let released = self.end(now, &key);
        commands.push(Command::Release { ticket: Some(ticket), key, released });
    }

    pub(super) fn end(&mut self, now: Moment, key: &PodKey) -> Vec<CoolDown> {
        self.answered_again.remove(key);
        let until = now.after(self.policy.cool_down);
        let Some(lease) = self.pool.end(key, until) else { return Vec::new() };
        self.released.insert(key.clone(), now);
        rests(&lease, until)
    }

    /// Whether the key was told its address at `moment` or later: then its sandbox is as young.
    pub(super) fn answered_since(&self, key: &PodKey, moment: Moment) -> bool {
        let first = self.pool.lease(key).map(|lease| lease.since);
        first.max(self.answered_again.get(key).copied()).is_some_and(|last| last >= moment)
    }

    /// The addresses of the next pod on a network card, all by one ENI.
    fn pick(&self, now: Moment, card: u8) -> Option<(&Eni, PodAddresses)> {
        let families = self.policy.families;
        let carries = |eni: &Eni| {
            let complete = !families.v6() || !eni.interface.prefixes6.is_empty();
            complete && eni.card() == card && self.carries(now, eni)
        };
        // A pod leaves by its first interface.
        let leads_out = self.policy.egress && families != Families::Dual && card == 0;
        let out = if leads_out { Some(self.pool.next_for_egress(families)?) } else { None };
        if !families.v4() {
            let (eni, ipv6) = self.pool.pick6(carries)?;
            let out = if let Some(IpAddr::V4(out)) = out { Some(out) } else { None };
            return Some((eni, PodAddresses::new(out, Some(ipv6))?));
        }
        let (eni, ipv4) = self.pool.pick(plan::wants_prefixes(&self.policy, self.limits), carries)?;
        let ipv6 = match out {
            Some(IpAddr::V6(out)) => Some(out),
            Some(IpAddr::V4(_)) | None if families.v6() => Some(self.pool.next6(eni)?),
            Some(IpAddr::V4(_)) | None => None,
        };
        Some((eni, PodAddresses::new(Some(ipv4), ipv6)?))
    }

    /// Gives free addresses to waiting pods, for each network card first come first served.
    pub(super) fn serve(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let mut empty = BTreeSet::new();
        for waiter in std::mem::take(&mut self.queue) {
            // A repeated ADD may have been served by the one before it.
            if let Some(lease) = self.pool.lease(&waiter.key) {
                commands.push(Command::Grant { ticket: waiter.ticket, lease: lease.clone(), fresh: false });
                self.answered_again.insert(waiter.key, now);
                continue;
            }
            let picked = if empty.contains(&waiter.card) { None } else { self.pick(now, waiter.card) };
            let Some((eni, addresses)) = picked else {
                empty.insert(waiter.card);
                self.queue.push(waiter);
                continue;
            };
            let lease = Lease {
                eni: eni.interface.id.clone(),
                eni_mark: eni.mark(),
                key: waiter.key,
                pod: waiter.pod,
                netns: waiter.netns,
                addresses,
                since: now,
            };
            if self.released.contains_key(&lease.key) {
                self.answered_again.insert(lease.key.clone(), now);
            }
            self.pool.hold(lease.clone());
            commands.push(Command::Grant { ticket: waiter.ticket, lease, fresh: true });
        }
    }
}

/// The cool-downs of a lease that ended, IPv4 first.
fn rests(lease: &Lease, until: Moment) -> Vec<CoolDown> {
    lease.addresses.all().map(|address| CoolDown { address, until }).collect()
}
