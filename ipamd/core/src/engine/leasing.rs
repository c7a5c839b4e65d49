//! Pods' leases: who gets an address, and what ends a lease.

use std::collections::BTreeSet;

use eni_proto::PodKey;

use super::{Engine, refusal};
use crate::{Command, CoolDown, Lease, Moment, Ticket, plan, pool::Eni};

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
            let released = Some(CoolDown { address: lease.address, until });
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

    pub(super) fn end(&mut self, now: Moment, key: &PodKey) -> Option<CoolDown> {
        self.answered_again.remove(key);
        let until = now.after(self.policy.cool_down);
        let lease = self.pool.end(key, until)?;
        self.released.insert(key.clone(), now);
        Some(CoolDown { address: lease.address, until })
    }

    /// Whether the key was told its address at `moment` or later: then its sandbox is as young.
    pub(super) fn answered_since(&self, key: &PodKey, moment: Moment) -> bool {
        let first = self.pool.lease(key).map(|lease| lease.since);
        first.max(self.answered_again.get(key).copied()).is_some_and(|last| last >= moment)
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
            let prefixes_first = plan::wants_prefixes(&self.policy, self.limits);
            let carries = |eni: &Eni| eni.card() == waiter.card && self.carries(now, eni);
            let picked = if empty.contains(&waiter.card) { None } else { self.pool.pick(prefixes_first, carries) };
            let Some((eni, address)) = picked else {
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
                address,
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
