//! Decides how the pool should change; changes nothing itself.
//!
//! [`plan`] compares what the operator wants ([`Policy`]) and what pods wait for (`demand`) with what is there
//! ([`Pool`]) and on its way ([`InFlight`]), and returns the next [`Action`]s and what it waits for. It is called on
//! every event, so it is cheap, and it returns an empty plan once the pool is as wanted.

use std::{collections::BTreeSet, time::Duration};

use eni_proto::numbers;

use crate::{
    Action, EniId, Limits, Moment, Policy,
    pool::{Eni, Phase, Pool},
    ports::{Amount, Holdings, NodeIdentity},
};

/// Youngest age at which an ENI may leave again: EC2 needs time to agree with itself.
pub const LEAST_ENI_AGE: Duration = Duration::from_secs(60);

/// Changes that were started and have not been settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlight {
    /// ENIs that a change is under way for.
    pub enis: BTreeSet<EniId>,
    /// Addresses asked for on existing ENIs.
    pub assigning: usize,
    /// Secondary addresses of an ENI that is being created. Absent: none is.
    pub creating: Option<usize>,
}

/// What to do next, and what is being waited for.
#[must_use = "a plan does nothing until it is executed"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes to start now, at most one for each ENI.
    pub actions: Vec<Action>,
    /// Why more is not done, for people.
    pub waiting: Vec<String>,
    /// Whether there is more than wanted, so that something could be given back.
    pub surplus: bool,
    /// When the ENI that could be given back will be old enough. Absent: there is none, or it is.
    pub old_enough_at: Option<Moment>,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The node: an ENI tagged with its instance is ours.
    pub node: &'a NodeIdentity,
    /// What the operator wants.
    pub policy: &'a Policy,
    /// What the instance allows.
    pub limits: Limits,
    /// What is there.
    pub pool: &'a Pool,
    /// What is on its way.
    pub in_flight: &'a InFlight,
    /// How many pods wait.
    pub demand: usize,
    /// Whether addresses and ENIs may be given back now.
    pub may_shrink: bool,
    /// The present.
    pub now: Moment,
}

/// Returns the changes that bring the pool closer to the policy.
pub fn plan(question: &Question<'_>) -> Plan {
    let planner = Planner { q: question };
    let mut plan = Plan::default();
    let short = planner.short();
    if short > 0 {
        planner.grow(short, &mut plan);
    } else {
        planner.shrink(&mut plan);
    }
    planner.clean_up(short, &mut plan);
    planner.tie_to_instance(&mut plan);
    plan
}

fn addresses(count: usize) -> Amount {
    Amount::Addresses(u16::try_from(count).unwrap_or(u16::MAX))
}

struct Planner<'a> {
    q: &'a Question<'a>,
}

impl Planner<'_> {
    fn capacity(&self) -> usize {
        self.q.limits.capacity()
    }

    fn max_enis(&self) -> usize {
        let allowed = self.q.limits.max_enis;
        usize::from(self.q.policy.max_enis.map_or(allowed, |wanted| wanted.min(allowed)))
    }

    /// Whether addresses are counted one by one; otherwise in whole ENIs, as the AWS CNI does.
    fn by_address(&self) -> bool {
        self.q.policy.warm_addresses > 0 || self.q.policy.minimum_addresses > 0
    }

    fn usable(&self) -> impl Iterator<Item = &Eni> {
        self.q.pool.managed().filter(|eni| eni.phase != Phase::Leaving && eni.phase != Phase::Unattached)
    }

    /// Free addresses that are there or surely coming.
    fn available(&self) -> usize {
        let free: usize = self.usable().map(|eni| self.q.pool.free(eni).count()).sum();
        free + self.q.in_flight.assigning + self.q.in_flight.creating.unwrap_or(0)
    }

    fn total(&self) -> usize {
        let listed: usize = self.usable().map(|eni| eni.interface.secondary.len()).sum();
        listed + self.q.in_flight.assigning + self.q.in_flight.creating.unwrap_or(0)
    }

    /// How many addresses are missing.
    fn short(&self) -> usize {
        let (policy, available) = (self.q.policy, self.available());
        if self.by_address() {
            let warm = (self.q.demand + usize::from(policy.warm_addresses)).saturating_sub(available);
            let minimum = usize::from(policy.minimum_addresses).saturating_sub(self.total());
            return warm.max(minimum);
        }
        let warm = usize::from(policy.warm_enis) * self.capacity();
        // With a target of 0 the AWS CNI still keeps one address ready.
        (self.q.demand + warm).max(1).saturating_sub(available)
    }

    fn is_busy(&self, eni: &Eni) -> bool {
        self.q.in_flight.enis.contains(&eni.interface.id)
    }

    /// Fills ENIs that have room, then attaches or creates one more.
    fn grow(&self, short: usize, plan: &mut Plan) {
        let mut missing = short;
        let mut enis: Vec<_> = self.usable().collect();
        enis.sort_by_key(|eni| eni.device_index());
        for eni in enis {
            let room = self.capacity().saturating_sub(eni.interface.secondary.len());
            if missing == 0 || room == 0 {
                continue;
            }
            if self.is_busy(eni) || eni.phase == Phase::Attaching {
                plan.waiting.push(format!("{} is being changed", eni.interface.id));
                // What it can still take will be asked for when it is settled.
                missing = missing.saturating_sub(room);
                continue;
            }
            let count = if self.by_address() { missing.min(room) } else { room };
            plan.actions.push(Action::Assign { eni: eni.interface.id.clone(), amount: addresses(count) });
            missing = missing.saturating_sub(count);
        }
        if missing > 0 {
            self.add_eni(missing, plan);
        }
    }

    fn add_eni(&self, missing: usize, plan: &mut Plan) {
        // One call at a time; what EC2 is still attaching does not hold up the next one.
        let attaching = |eni: &Eni| eni.phase == Phase::Attaching && self.is_busy(eni);
        if self.q.in_flight.creating.is_some() || self.q.pool.managed().any(attaching) {
            plan.waiting.push("another interface is on its way".to_owned());
        } else if let Some(eni) = self.spare() {
            if !self.is_busy(eni)
                && let Some(device_index) = self.free_device_index()
            {
                plan.actions.push(Action::Attach { eni: eni.interface.id.clone(), card: 0, device_index });
            }
        } else if self.q.pool.enis().count() < self.max_enis() {
            let count = if self.by_address() { missing.min(self.capacity()) } else { self.capacity() };
            plan.actions.push(Action::Create {
                subnet: self.q.node.subnet.clone(),
                security_groups: self.q.node.security_groups.clone(),
                amount: addresses(count),
            });
        } else {
            plan.waiting.push(format!("all {} interfaces are full", self.max_enis()));
        }
    }

    /// An ENI of ours that hangs on no instance.
    fn spare(&self) -> Option<&Eni> {
        self.q.pool.managed().find(|eni| eni.phase == Phase::Unattached)
    }

    fn free_device_index(&self) -> Option<u8> {
        let attached = self.q.pool.enis().filter(|eni| eni.phase != Phase::Unattached).count();
        let used: BTreeSet<_> = self.q.pool.enis().filter_map(Eni::device_index).collect();
        (attached < self.max_enis()).then(|| (1..100).find(|index| !used.contains(index)))?
    }

    /// How many free addresses are more than wanted.
    fn over(&self) -> usize {
        let (policy, available) = (self.q.policy, self.available());
        if self.by_address() {
            let warm = available.saturating_sub(self.q.demand + usize::from(policy.warm_addresses));
            return warm.min(self.total().saturating_sub(usize::from(policy.minimum_addresses)));
        }
        available.saturating_sub(self.q.demand + (usize::from(policy.warm_enis) * self.capacity()).max(1))
    }

    /// Gives back one whole ENI, or else single addresses; only when nothing else is under way.
    fn shrink(&self, plan: &mut Plan) {
        let over = self.over();
        let quiet = self.q.in_flight == &InFlight::default() && self.q.demand == 0;
        if over == 0 || !quiet {
            return;
        }
        let empty = self.empty(over);
        let old_enough_at = empty.map_or(self.q.now, |eni| eni.since.after(LEAST_ENI_AGE));
        let step = match empty {
            Some(eni) => Self::detach(eni),
            None if self.by_address() => self.unassign(over),
            None => None,
        };
        let Some(action) = step else { return };
        plan.surplus = true;
        plan.old_enough_at = Some(old_enough_at).filter(|moment| *moment > self.q.now);
        if self.q.may_shrink && plan.old_enough_at.is_none() {
            plan.actions.push(action);
        }
    }

    /// An ENI that nobody uses and that is not needed to stay at the targets.
    fn empty(&self, over: usize) -> Option<&Eni> {
        self.usable()
            .filter(|eni| eni.phase == Phase::Ready && !eni.is_primary() && self.q.pool.taken_on(eni) == 0)
            .filter(|eni| eni.interface.secondary.len() <= over)
            .max_by_key(|eni| eni.device_index())
    }

    fn detach(eni: &Eni) -> Option<Action> {
        let attachment = eni.interface.attachment.as_ref()?;
        Some(Action::Detach { eni: eni.interface.id.clone(), attachment: attachment.id.clone() })
    }

    fn unassign(&self, over: usize) -> Option<Action> {
        let eni = self
            .usable()
            .filter(|eni| eni.phase == Phase::Ready && self.q.pool.free(eni).next().is_some())
            .min_by_key(|eni| (self.q.pool.held_on(eni), std::cmp::Reverse(eni.device_index())))?;
        let addresses = self.q.pool.free(eni).take(over).collect();
        let holdings = Holdings { addresses, ..Holdings::default() };
        Some(Action::Unassign { eni: eni.interface.id.clone(), holdings })
    }

    /// Makes attached ENIs of ours go away together with the instance.
    fn tie_to_instance(&self, plan: &mut Plan) {
        for eni in self.q.pool.managed() {
            let up = matches!(eni.phase, Phase::Preparing | Phase::Ready);
            let tag = eni.interface.tags.get(numbers::TAG_INSTANCE).map(String::as_str);
            let ours = tag == Some(self.q.node.instance.as_str()) && !eni.is_primary();
            let touched = plan.actions.iter().any(|action| action.eni() == Some(&eni.interface.id));
            if let Some(attachment) = &eni.interface.attachment
                && (up && ours && !attachment.delete_on_termination && !touched && !self.is_busy(eni))
            {
                let (eni, attachment) = (eni.interface.id.clone(), attachment.id.clone());
                plan.actions.push(Action::DeleteOnTermination { eni, attachment });
            }
        }
    }

    /// Finishes what was begun: a spare ENI that nobody needs is deleted.
    fn clean_up(&self, short: usize, plan: &mut Plan) {
        let Some(eni) = self.spare() else { return };
        let attaching = plan.actions.iter().any(|action| matches!(action, Action::Attach { .. }));
        let needed = short > 0 && self.free_device_index().is_some();
        if !self.is_busy(eni) && !attaching && !needed && self.q.pool.taken_on(eni) == 0 {
            plan.actions.push(Action::Delete { eni: eni.interface.id.clone() });
        }
    }
}

#[cfg(test)]
mod tests;
