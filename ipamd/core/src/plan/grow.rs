//! What is missing: fills ENIs that have room, attaches spare ones, makes new ones. As few calls as possible, side by side.

use eni_proto::numbers::ENIS_PER_FURTHER_CARD;

use super::{Blocked, Plan, Planner};
use crate::{
    Action, Placement, SecurityGroupId, SubnetId,
    pool::{Eni, Phase},
    ports::{Amount, PREFIX_SIZE},
};

impl Planner<'_> {
    /// Asks for a /80 prefix for every ENI whose pods need one. The addresses of one are more than a node can use.
    pub(super) fn give_prefixes6(&self, plan: &mut Plan) {
        for eni in self.usable().filter(|eni| eni.interface.prefixes6.is_empty() && eni.phase != Phase::Attaching) {
            if self.is_busy(eni) {
                plan.waiting.push(format!("{} is being changed", eni.interface.id));
            } else {
                plan.actions.push(Action::Assign { eni: eni.interface.id.clone(), amount: Amount::Prefix6 });
            }
        }
    }

    pub(super) fn grow(&self, short: usize, plan: &mut Plan) {
        let mut missing = short;
        let mut enis: Vec<_> = self.usable().collect();
        enis.sort_by_key(|eni| eni.device_index());
        let mut full_subnets = Vec::new();
        for eni in enis {
            let coming = self.q.in_flight.enis.get(&eni.interface.id);
            let room = self.capacity().saturating_sub(eni.slots() + coming.copied().unwrap_or(0));
            let subnet = &eni.interface.subnet;
            if missing == 0 || room == 0 {
                continue;
            }
            if self.q.subnets.is_full(subnet, self.q.now) {
                full_subnets.push(subnet.clone());
                continue;
            }
            let amount = self.ask(missing, room, short, subnet);
            if coming.is_some() || eni.phase == Phase::Attaching || Self::has_action(plan, eni) {
                plan.waiting.push(format!("{} is being changed", eni.interface.id));
                // What it can still take will be asked for when it is settled.
            } else {
                plan.actions.push(Action::Assign { eni: eni.interface.id.clone(), amount });
            }
            missing = missing.saturating_sub(amount.addresses());
        }
        if missing > 0 || self.lacks_places() {
            self.add_enis(missing.max(1), short, full_subnets, plan);
        }
    }

    /// How much to ask for on an ENI with `room` places: what is missing; where whole ENIs are counted, all that fits and
    /// max pods can use.
    fn ask(&self, missing: usize, room: usize, short: usize, subnet: &SubnetId) -> Amount {
        let amount = if self.prefixes_in(subnet) {
            Amount::Prefixes(count(missing.div_ceil(PREFIX_SIZE).min(room)))
        } else if self.by_address() && !self.by_prefix() {
            Amount::Addresses(count(missing.min(room)))
        } else {
            let most = (self.q.demand + self.usable_by_pods()).saturating_sub(self.available() + short - missing);
            // Instead of prefixes as many addresses are asked for as they would bring.
            let step = if self.by_prefix() { missing.next_multiple_of(PREFIX_SIZE) } else { room };
            Amount::Addresses(count(most.min(step).max(missing).min(room)))
        };
        self.q.subnets.at_most(subnet, amount)
    }

    fn add_enis(&self, mut missing: usize, short: usize, mut full: Vec<SubnetId>, plan: &mut Plan) {
        let mut indexes = self.free_device_indexes();
        for eni in self.spares() {
            if missing == 0 {
                return;
            }
            // What is being changed will be attached then.
            if !self.is_busy(eni) {
                let Some(device_index) = indexes.next() else { break };
                plan.actions.push(Action::Attach { eni: eni.interface.id.clone(), card: self.q.card, device_index });
            }
            missing = missing.saturating_sub(self.counted_on(eni).max(1));
        }
        if missing == 0 {
            return;
        }
        if self.q.in_flight.create_in_doubt {
            plan.waiting.push("EC2 did not say whether it made an interface".to_owned());
            return;
        }
        let mut slots = self.max_enis().saturating_sub(self.enis_counted()).min(indexes.count());
        if slots == 0 {
            let kept = if self.keeps_trunk_place() { ", and one more place is kept for the trunk" } else { "" };
            let all = self.max_enis().max(1);
            plan.waiting.push(format!("all {all} interfaces are full{kept}"));
            let some_full = !full.is_empty();
            plan.blocked = Some(if some_full { Blocked::SubnetsFull(full) } else { Blocked::NodeFull });
            return;
        }
        if matches!(self.q.policy.placement, Placement::Discover) && self.q.subnets.is_stale(self.q.now) {
            plan.needs_subnets = true;
            plan.waiting.push("EC2 is asked for the subnets".to_owned());
            return;
        }
        let candidates = self.q.subnets.candidates(self.q.node, self.q.policy);
        let Some(subnet) = candidates.iter().find(|subnet| !self.q.subnets.is_full(subnet, self.q.now)) else {
            full.extend(candidates);
            full.sort();
            full.dedup();
            plan.waiting.push("every subnet is full".to_owned());
            plan.blocked = Some(Blocked::SubnetsFull(full));
            return;
        };
        while missing > 0 && slots > 0 {
            let amount = self.ask(missing, self.capacity(), short, subnet);
            let (subnet, security_groups) = (subnet.clone(), self.security_groups());
            plan.actions.push(Action::Create { subnet, security_groups, amount, prefix6: self.q.policy.families.v6() });
            missing = missing.saturating_sub(amount.addresses());
            slots -= 1;
        }
    }

    /// Security groups of a new ENI.
    fn security_groups(&self) -> Vec<SecurityGroupId> {
        match &self.q.policy.placement {
            Placement::Custom(network) if !network.security_groups.is_empty() => network.security_groups.clone(),
            Placement::Custom(_) | Placement::Discover | Placement::NodeSubnet => self.q.node.security_groups.clone(),
        }
    }

    /// ENIs that take a place on the card, or will.
    pub(super) fn enis_counted(&self) -> usize {
        let here = self.q.pool.enis().filter(|eni| eni.card() == self.q.card).count();
        here + self.q.in_flight.creating.len()
    }

    /// ENIs of ours that hang on no instance.
    pub(super) fn spares(&self) -> impl Iterator<Item = &Eni> {
        self.managed().filter(|eni| eni.phase == Phase::Unattached && self.is_ours(eni))
    }

    /// Device indexes of the card at which ENIs could be attached now, in the order in which to take them.
    pub(super) fn free_device_indexes(&self) -> impl Iterator<Item = u8> {
        let on_card = self.q.pool.enis().filter(|eni| eni.card() == self.q.card);
        let attached = on_card.filter(|eni| eni.interface.attachment.is_some());
        let used: std::collections::BTreeSet<_> =
            attached.filter_map(Eni::device_index).chain(self.q.in_flight.device_indexes.iter().copied()).collect();
        let free = self.max_enis().saturating_sub(used.len());
        // Index 0 of a further card is free for others as long as there is a choice.
        let (from, last) = if self.q.card == 0 { (1..100, None) } else { (1..ENIS_PER_FURTHER_CARD, Some(0)) };
        from.chain(last).filter(move |index| !used.contains(index)).take(free)
    }
}

fn count(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}
