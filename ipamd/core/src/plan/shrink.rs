//! What is too much: gives back whole ENIs, else whole prefixes, else single addresses. Never while pods wait, and only
//! after it has been too much for a while, so that the pool does not flap.

use std::{cmp::Reverse, collections::BTreeSet, net::Ipv4Addr, time::Duration};

use super::{Plan, Planner, carries_pods};
use crate::{
    Action, EniId, Moment,
    pool::{Eni, Phase},
    ports::{Cidr4, Holdings, PREFIX_SIZE},
};

/// Youngest age at which an ENI may leave again: EC2 needs time to agree with itself.
pub const LEAST_ENI_AGE: Duration = Duration::from_secs(60);
/// A surplus must last this long before ENIs or prefixes are given back. With a cool-down of 30 s they are gone within a
/// minute of the last release.
pub const SHRINK_PAUSE: Duration = Duration::from_secs(10);
/// The same for single addresses, of which each pod that comes or goes makes one too few or too many.
pub const SINGLES_PAUSE: Duration = Duration::from_secs(60);

/// Where recent demand decides, one free address more for each so many that pods hold is not too much: they come and go.
const HELD_FOR_ONE_SPARE: usize = 24;

impl Planner<'_> {
    pub(super) fn shrink(&self, short: usize, plan: &mut Plan) {
        let growing = !self.q.in_flight.creating.is_empty() || self.q.in_flight.assigning > 0;
        if self.q.demand > 0 || growing || self.q.in_flight.create_in_doubt {
            return;
        }
        let since = self.q.surplus_since.unwrap_or(self.q.now);
        if short > 0 {
            self.make_room(short, since, plan);
            return;
        }
        let (mut over, mut leaving) = (self.over(), BTreeSet::new());
        self.detach_empty(&mut over, since, plan, &mut leaving);
        if self.by_prefix() {
            self.give_back_prefixes(over, since, plan, &leaving);
        } else if self.by_address() {
            self.give_back_singles(over, since, plan, &leaving);
        }
        self.give_back_other_kind(usize::MAX, since, plan, &leaving);
    }

    /// How many free addresses are more than wanted.
    fn over(&self) -> usize {
        let available = self.available();
        if self.by_address() {
            let spare = if self.q.policy.warm_auto { self.held() / HELD_FOR_ONE_SPARE } else { 0 };
            let over = available.saturating_sub(self.warm() + spare);
            return over.min(self.total().saturating_sub(self.minimum()));
        }
        let over = available.saturating_sub(self.warm().max(1));
        if !self.by_prefix() {
            return over;
        }
        // The target counts prefixes that are wholly free.
        let whole: usize = self.usable().map(|eni| self.q.pool.free_prefixes(eni).count()).sum();
        let singles: usize = self
            .usable()
            .filter(|eni| self.singles_are_right(eni))
            .map(|eni| self.q.pool.free_singles(eni).count())
            .sum();
        let wanted = self.warm().div_ceil(PREFIX_SIZE).min(self.q.policy.warm_prefixes.into());
        over.min(whole.saturating_sub(wanted) * PREFIX_SIZE + singles)
    }

    /// ENIs that could give something back now, the emptiest first.
    fn givers(&self, plan: &Plan, leaving: &BTreeSet<EniId>) -> Vec<&Eni> {
        let here = self.usable().filter(|eni| eni.phase == Phase::Ready && !self.is_busy(eni));
        let stays = |eni: &&Eni| !Self::has_action(plan, eni) && !leaving.contains(&eni.interface.id);
        let mut givers: Vec<_> = here.filter(stays).collect();
        givers.sort_by_key(|eni| (self.q.pool.held_on(eni), Reverse(eni.device_index())));
        givers
    }

    /// Lets whole ENIs go that nobody uses; those that are still too young keep what they have until then.
    fn detach_empty(&self, over: &mut usize, since: Moment, plan: &mut Plan, leaving: &mut BTreeSet<EniId>) {
        let closed = self.managed().filter(|eni| !carries_pods(eni, self.q.policy, self.q.subnets));
        let closed = closed.filter(|eni| eni.phase == Phase::Ready && !self.is_busy(eni)).map(|eni| (eni, 0));
        let open = self.givers(plan, leaving).into_iter().map(|eni| (eni, self.counted_on(eni)));
        let mut places = self.places();
        for (eni, size) in open.collect::<Vec<_>>().into_iter().chain(closed) {
            let empty = self.is_ours(eni) && self.q.pool.taken_on(eni) == 0;
            let carries = carries_pods(eni, self.q.policy, self.q.subnets);
            let needed = carries && (size > *over || self.needs_places_of(eni, places));
            let Some(attachment) = eni.interface.attachment.as_ref().filter(|_| empty && !needed) else { continue };
            *over -= size;
            places = places.saturating_sub(if carries { self.places_on(eni) } else { 0 });
            plan.surplus = true;
            leaving.insert(eni.interface.id.clone());
            let old = self.waited(eni.since, LEAST_ENI_AGE, plan);
            if self.waited(since, SHRINK_PAUSE, plan) && old {
                let (eni, attachment) = (eni.interface.id.clone(), attachment.id.clone());
                plan.actions.push(Action::Detach { eni, attachment });
            }
        }
    }

    /// Whether the ENI has to stay although its addresses could go. Half an ENI more than is wanted has to remain, so that
    /// ENIs do not come and go with each pod.
    fn needs_places_of(&self, eni: &Eni, places: usize) -> bool {
        if !self.q.policy.warm_auto {
            return false;
        }
        let spare = self.capacity() * self.unit() / 2;
        places.saturating_sub(self.places_on(eni)) < self.wanted_places() + spare
    }

    fn give_back_prefixes(&self, over: usize, since: Moment, plan: &mut Plan, leaving: &BTreeSet<EniId>) {
        let mut left = over / PREFIX_SIZE;
        for eni in self.givers(plan, leaving) {
            let prefixes: Vec<_> = self.q.pool.free_prefixes(eni).collect();
            let prefixes: Vec<_> = prefixes.into_iter().rev().take(left).collect();
            left -= prefixes.len();
            self.unassign(eni, vec![], prefixes, (since, SHRINK_PAUSE), plan);
        }
    }

    fn give_back_singles(&self, over: usize, since: Moment, plan: &mut Plan, leaving: &BTreeSet<EniId>) {
        let mut left = over;
        for eni in self.givers(plan, leaving) {
            let addresses: Vec<_> = self.q.pool.free_singles(eni).take(left).collect();
            left -= addresses.len();
            self.unassign(eni, addresses, vec![], (since, SINGLES_PAUSE), plan);
        }
    }

    /// Gives back up to `most` places of the kind that the mode does not want.
    fn give_back_other_kind(&self, most: usize, since: Moment, plan: &mut Plan, leaving: &BTreeSet<EniId>) {
        let mut left = most;
        for eni in self.givers(plan, leaving) {
            let wait = (since, SHRINK_PAUSE);
            if !self.by_prefix() {
                let prefixes: Vec<_> = self.q.pool.free_prefixes(eni).take(left).collect();
                left -= prefixes.len();
                self.unassign(eni, vec![], prefixes, wait, plan);
            } else if !self.singles_are_right(eni) {
                let addresses: Vec<_> = self.q.pool.free_singles(eni).take(left).collect();
                left -= addresses.len();
                self.unassign(eni, addresses, vec![], wait, plan);
            }
        }
    }

    /// Makes places for what is missing where the kind that the mode does not want takes them.
    fn make_room(&self, short: usize, since: Moment, plan: &mut Plan) {
        if plan.actions.is_empty() && plan.blocked.is_some() {
            let places = if self.by_prefix() { short.div_ceil(PREFIX_SIZE) } else { short };
            self.give_back_other_kind(places, since, plan, &BTreeSet::new());
        }
    }

    fn unassign(
        &self,
        eni: &Eni,
        mut addresses: Vec<Ipv4Addr>,
        mut prefixes: Vec<Cidr4>,
        (since, pause): (Moment, Duration),
        plan: &mut Plan,
    ) {
        if addresses.is_empty() && prefixes.is_empty() {
            return;
        }
        plan.surplus = true;
        if self.waited(since, pause, plan) {
            addresses.sort_unstable();
            prefixes.sort_unstable();
            let holdings = Holdings { addresses, prefixes, ..Holdings::default() };
            plan.actions.push(Action::Unassign { eni: eni.interface.id.clone(), holdings });
        }
    }
}
