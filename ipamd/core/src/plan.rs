//! Decides how the pool should change; changes nothing itself.
//!
//! [`plan`] compares what the operator wants ([`Policy`]) and what pods wait for (`demand`) with what is there
//! ([`Pool`]) and on its way ([`InFlight`]), and returns the next [`Action`]s and what it waits for. It is called on
//! every event, so it is cheap, and it returns an empty plan once the pool is as wanted.

mod grow;
mod shrink;
mod tidy;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    Access, Action, EniId, Limits, Mode, Moment, Placement, Policy, SubnetId,
    forecast::Outlook,
    pool::{Eni, Phase, Pool},
    ports::{InterfaceKind, NodeIdentity, PREFIX_SIZE},
    subnets::Subnets,
};

pub use shrink::{LEAST_ENI_AGE, SHRINK_PAUSE, SINGLES_PAUSE};
pub use tidy::DETACH_TIME;

/// For so long needs are gathered while pods wait: less than EC2 takes by far.
const GATHER: Duration = Duration::from_millis(5);
/// The same while nobody waits.
const GATHER_AT_LEISURE: Duration = Duration::from_millis(200);
/// The same while more than half of what recent demand asks for is free.
const GATHER_FOR_LATER: Duration = Duration::from_secs(10);

/// What a node that has just started keeps free, in ENIs.
const YOUNG_ENIS: usize = 2;

/// Changes that were started and have not been settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InFlight {
    /// ENIs that a change is under way for, and how many of their places it will take.
    pub enis: BTreeMap<EniId, usize>,
    /// Addresses asked for on existing ENIs.
    pub assigning: usize,
    /// Addresses of the ENIs that are being created, one entry for each.
    pub creating: Vec<usize>,
    /// Whether a create call ended without an answer, so that there may be one more ENI than known.
    pub create_in_doubt: bool,
    /// Device indexes that ENIs are being attached at.
    pub device_indexes: BTreeSet<u8>,
}

impl InFlight {
    fn coming(&self) -> usize {
        self.assigning + self.creating.iter().sum::<usize>()
    }
}

/// What to do next, and what is being waited for.
#[must_use = "a plan does nothing until it is executed"]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes to start now, at most one for each ENI.
    pub actions: Vec<Action>,
    /// Why more is not done, for people.
    pub waiting: Vec<String>,
    /// Why what is missing cannot be asked for at all now. Absent: nothing is missing, or it was asked for.
    pub blocked: Option<Blocked>,
    /// Whether pods wait for what is not on its way yet, or would if one more came.
    pub urgent: bool,
    /// For so long needs are gathered, so that a burst of them costs one call.
    pub gather_for: Duration,
    /// Whether the subnets must be described before an ENI can be made.
    pub needs_subnets: bool,
    /// Whether there is more than wanted, so that something could be given back.
    pub surplus: bool,
    /// When the next thing that could be given back has been too much for long enough, or is old enough. Absent: nothing
    /// has to wait.
    pub next_step_at: Option<Moment>,
}

/// Why no more can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// All ENIs are full and the instance allows no more.
    NodeFull,
    /// Every subnet that could be used is full, or there is none.
    SubnetsFull(Vec<SubnetId>),
    /// We may not ask: see [`Access`].
    NotOurs,
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
    /// The network card that is planned for.
    pub card: u8,
    /// What is there.
    pub pool: &'a Pool,
    /// What is known of the subnets.
    pub subnets: &'a Subnets,
    /// What is on its way.
    pub in_flight: &'a InFlight,
    /// How many pods wait, or were refused and will soon ask again.
    pub demand: usize,
    /// What recent demand asks for; counts only with [`Policy::warm_auto`].
    pub forecast: Outlook,
    /// Since when there has been more than wanted. Absent: there was not.
    pub surplus_since: Option<Moment>,
    /// The present.
    pub now: Moment,
}

/// Returns the changes that bring the pool closer to the policy.
pub fn plan(question: &Question<'_>) -> Plan {
    let planner = Planner { q: question };
    let short = planner.short();
    let coming = planner.available() + planner.spares().map(|eni| planner.counted_on(eni)).sum::<usize>();
    let mut plan = Plan { urgent: coming <= question.demand, ..Plan::default() };
    plan.gather_for = planner.gather_for(plan.urgent);
    if question.policy.access != Access::Full {
        if short > 0 {
            plan.waiting.push(format!("{short} more addresses, which somebody else has to provide"));
            plan.blocked = Some(Blocked::NotOurs);
        }
        return plan;
    }
    if question.policy.families.v6() {
        planner.give_prefixes6(&mut plan);
    }
    if question.policy.families.v4() {
        if short > 0 || planner.lacks_places() {
            planner.grow(short, &mut plan);
        }
        planner.shrink(short, &mut plan);
    }
    planner.clean_up(short, &mut plan);
    planner.tie_to_instance(&mut plan);
    planner.follow_groups(&mut plan);
    plan
}

/// Whether pods may have addresses of this ENI: not of the primary one with custom networking, and not in a subnet that
/// an operator has closed for pods.
#[must_use]
pub fn carries_pods(eni: &Eni, policy: &Policy, subnets: &Subnets) -> bool {
    let custom = matches!(policy.placement, Placement::Custom(_));
    !(custom && eni.is_primary()) && subnets.serves(&eni.interface.subnet, policy)
}

/// Whether one place of the default network card stays free for the VPC resource controller's trunk, which is not there yet.
#[must_use]
pub fn keeps_trunk_place(node: &NodeIdentity, policy: &Policy, limits: Limits, pool: &Pool) -> bool {
    let is_trunk = |eni: &Eni| eni.interface.kind == InterfaceKind::Trunk && eni.interface.attachment.is_some();
    policy.trunk && limits.may_have_trunk(&node.instance_type) && !pool.enis().any(is_trunk)
}

struct Planner<'a> {
    q: &'a Question<'a>,
}

impl Planner<'_> {
    /// Places of one ENI.
    fn capacity(&self) -> usize {
        self.q.limits.capacity()
    }

    /// The ENIs of the card that we may use.
    fn managed(&self) -> impl Iterator<Item = &Eni> {
        self.q.pool.managed().filter(|eni| eni.card() == self.q.card)
    }

    /// How many ENIs the card may have for now; the trunk counts once it is there.
    fn max_enis(&self) -> usize {
        let allowed = self.q.limits.enis_on(self.q.card);
        let most = usize::from(self.q.policy.max_enis.map_or(allowed, |wanted| wanted.min(allowed)));
        most.saturating_sub(usize::from(self.keeps_trunk_place()))
    }

    fn keeps_trunk_place(&self) -> bool {
        let Question { node, policy, limits, pool, .. } = self.q;
        self.q.card == 0 && keeps_trunk_place(node, policy, *limits, pool)
    }

    fn by_prefix(&self) -> bool {
        wants_prefixes(self.q.policy, self.q.limits)
    }

    /// Whether addresses are counted one by one; otherwise in whole ENIs or prefixes, as the AWS CNI does.
    fn by_address(&self) -> bool {
        let policy = self.q.policy;
        policy.warm_auto || policy.warm_addresses > 0 || policy.minimum_addresses > 0
    }

    /// Addresses that one place brings.
    fn unit(&self) -> usize {
        if self.by_prefix() { PREFIX_SIZE } else { 1 }
    }

    /// ENIs whose addresses pods have or will have.
    fn usable(&self) -> impl Iterator<Item = &Eni> {
        let here = |eni: &&Eni| !matches!(eni.phase, Phase::Leaving | Phase::Unattached) && !eni.is_missing(self.q.now);
        self.managed().filter(here).filter(|eni| carries_pods(eni, self.q.policy, self.q.subnets))
    }

    /// Whether the mode wants prefixes and this ENI's subnet can give them, as far as known.
    fn prefixes_in(&self, subnet: &SubnetId) -> bool {
        self.by_prefix() && !self.q.subnets.is_fragmented(subnet, self.q.now)
    }

    /// Whether single addresses on this ENI are what the mode wants: until its subnet gives a prefix again they are.
    fn singles_are_right(&self, eni: &Eni) -> bool {
        !self.by_prefix() || self.q.subnets.was_fragmented(&eni.interface.subnet)
    }

    /// Free addresses of an ENI that count: those of the kind that the mode does not want are on their way out.
    fn counted_on(&self, eni: &Eni) -> usize {
        let single = |address| eni.interface.secondary.binary_search(&address).is_ok();
        let counts = |address: &_| if single(*address) { self.singles_are_right(eni) } else { self.by_prefix() };
        self.q.pool.free(eni).filter(counts).count()
    }

    /// Free addresses that are there or surely coming.
    fn available(&self) -> usize {
        self.usable().map(|eni| self.counted_on(eni)).sum::<usize>() + self.q.in_flight.coming()
    }

    fn held(&self) -> usize {
        self.q.pool.held_on_card(self.q.card)
    }

    fn total(&self) -> usize {
        let listed: usize = self.usable().map(|eni| eni.interface.addresses().count()).sum();
        listed + self.q.in_flight.coming()
    }

    /// How many more addresses than those in use max pods can use.
    fn usable_by_pods(&self) -> usize {
        let most = self.q.policy.max_pods.map_or(usize::MAX, usize::from);
        most.saturating_sub(self.held() + self.q.demand)
    }

    /// How many free addresses are wanted beyond those that pods wait for.
    fn warm(&self) -> usize {
        let policy = self.q.policy;
        let warm = if policy.warm_auto {
            let young = if self.q.forecast.is_young { YOUNG_ENIS * self.capacity() * self.unit() } else { 0 };
            self.q.forecast.free.max(young)
        } else if self.by_address() {
            policy.warm_addresses.into()
        } else if self.by_prefix() {
            usize::from(policy.warm_prefixes) * PREFIX_SIZE
        } else {
            usize::from(policy.warm_enis) * self.capacity()
        };
        warm.min(self.usable_by_pods())
    }

    fn gather_for(&self, urgent: bool) -> Duration {
        let forecast = self.q.forecast;
        let enough = self.available() > self.q.demand + forecast.free / 2;
        match self.q.policy.warm_auto {
            _ if urgent => GATHER,
            true if forecast.is_young => GATHER,
            true if enough => GATHER_FOR_LATER,
            true | false => GATHER_AT_LEISURE,
        }
    }

    /// Free addresses of an ENI, and those that it has places for.
    fn places_on(&self, eni: &Eni) -> usize {
        self.counted_on(eni) + self.capacity().saturating_sub(eni.slots()) * self.unit()
    }

    /// Places for pods that are there or surely coming.
    fn places(&self) -> usize {
        let coming = self.q.in_flight.creating.len() * self.capacity() * self.unit();
        self.usable().map(|eni| self.places_on(eni)).sum::<usize>() + coming
    }

    /// Places to keep, at least those of one ENI; 0 where they are not looked after.
    fn wanted_places(&self) -> usize {
        if !self.q.policy.warm_auto {
            return 0;
        }
        let wanted = self.q.forecast.places.max(self.capacity() * self.unit());
        self.q.demand + wanted.min(self.usable_by_pods())
    }

    /// Whether another ENI is to be attached before its addresses are needed.
    fn lacks_places(&self) -> bool {
        let attachable = self.enis_counted() < self.max_enis() || self.spares().next().is_some();
        attachable && self.places() < self.wanted_places()
    }

    /// How many addresses are to be held in any case, free or not: no more than max pods can use.
    fn minimum(&self) -> usize {
        let most = self.q.policy.max_pods.map_or(usize::MAX, usize::from);
        most.min(self.q.policy.minimum_addresses.into())
    }

    /// How many addresses are missing.
    fn short(&self) -> usize {
        let available = self.available();
        let wanted = self.q.demand + self.warm();
        if self.by_address() {
            return wanted.saturating_sub(available).max(self.minimum().saturating_sub(self.total()));
        }
        // With a target of 0 the AWS CNI still keeps one address ready.
        wanted.max(1.min(self.usable_by_pods())).saturating_sub(available)
    }

    fn is_busy(&self, eni: &Eni) -> bool {
        self.q.in_flight.enis.contains_key(&eni.interface.id)
    }

    /// Whether we made the ENI: what others made is used, but not taken away.
    fn is_ours(&self, eni: &Eni) -> bool {
        let tag = eni.interface.tags.get(eni_proto::numbers::TAG_INSTANCE).map(String::as_str);
        tag == Some(self.q.node.instance.as_str()) && !eni.is_primary()
    }

    fn has_action(plan: &Plan, eni: &Eni) -> bool {
        plan.actions.iter().any(|action| action.eni() == Some(&eni.interface.id))
    }

    /// Whether so much time has passed since `moment`; if not, the plan is to be made anew then.
    fn waited(&self, moment: Moment, wait: Duration, plan: &mut Plan) -> bool {
        let due = moment.after(wait);
        if due <= self.q.now {
            return true;
        }
        plan.next_step_at = Some(plan.next_step_at.map_or(due, |earlier| earlier.min(due)));
        false
    }
}

/// Whether addresses are held in prefixes: the operator wants it and the instance type can.
#[must_use]
pub fn wants_prefixes(policy: &Policy, limits: Limits) -> bool {
    policy.mode == Mode::Prefixes && limits.prefixes
}

#[cfg(test)]
pub(crate) mod tests;
