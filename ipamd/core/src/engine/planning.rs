//! When the planner is asked, and which of its plans begins.

use super::Engine;
use crate::{
    Action, Command, EniId, Moment, Policy,
    forecast::Outlook,
    plan::{self, InFlight, Plan, Question},
    pool::Eni,
    retry::Call,
};

impl Engine {
    /// The network cards that a pod with interfaces on several has one of each on: the default one first, then in order those that
    /// have an ENI which we may use, or none at all.
    pub fn cards(&self) -> impl Iterator<Item = u8> {
        let further = self.limits.further_cards().filter(|_| self.policy.further_cards);
        let ours = |card: &u8| {
            let mut on_card = self.pool.enis().filter(|eni| eni.card() == *card).peekable();
            on_card.peek().is_none() || on_card.any(|eni| self.pool.is_managed(eni))
        };
        std::iter::once(0).chain(further.filter(ours))
    }

    /// What is on its way for a network card.
    pub(super) fn in_flight(&self, card: u8) -> InFlight {
        let card_of = |eni: &EniId| self.pool.eni(eni).map_or(0, Eni::card);
        let mut in_flight = InFlight { create_in_doubt: self.create_in_doubt.is_some(), ..InFlight::default() };
        for (intent, action) in &self.intents {
            let on = match action.eni() {
                Some(eni) => card_of(eni),
                None => self.made_for.get(intent).copied().unwrap_or(0),
            };
            if on != card {
                continue;
            }
            let slots = match action {
                Action::Create { amount, .. } => {
                    in_flight.creating.push(amount.addresses());
                    continue;
                }
                Action::Assign { amount, .. } => {
                    in_flight.assigning += amount.addresses();
                    amount.slots()
                }
                Action::Attach { device_index, .. } => {
                    in_flight.device_indexes.insert(*device_index);
                    0
                }
                Action::DeleteOnTermination { .. }
                | Action::SecurityGroups { .. }
                | Action::Unassign { .. }
                | Action::Detach { .. }
                | Action::Delete { .. } => 0,
            };
            if let Some(eni) = action.eni() {
                in_flight.enis.insert(eni.clone(), slots);
            }
        }
        for (id, awaited) in self.awaited.iter().filter(|(id, _)| card_of(id) == card) {
            let listed = self.pool.eni(id).map_or(0, Eni::slots);
            let missing = awaited.slots.map_or(0, |slots| slots.saturating_sub(listed));
            in_flight.assigning += missing * awaited.each;
            in_flight.device_indexes.extend(awaited.device_index);
            in_flight.enis.entry(id.clone()).or_insert(missing);
        }
        in_flight
    }

    /// Whether what is missing has been gathered for long enough to be asked for.
    fn gathered(&mut self, plan: &Plan, now: Moment) -> bool {
        let asks = plan.actions.iter().any(|action| matches!(Call::of(action), Call::Create | Call::Assign));
        if !asks {
            (self.need_since, self.gather_until) = (None, None);
            return false;
        }
        let until = self.need_since.get_or_insert(now).after(plan.gather_for);
        self.gather_until = Some(until).filter(|until| *until > now);
        self.gather_until.is_none()
    }

    /// Plans and starts changes, unless EC2 has not been seen yet or asked us to wait.
    pub(super) fn plan(&mut self, now: Moment, commands: &mut Vec<Command>) {
        if !self.observed {
            self.last_plan =
                Plan { waiting: vec!["EC2 has not described this node yet".to_owned()], ..Plan::default() };
            return;
        }
        self.plan_further(now, commands);
        let in_flight = self.in_flight(0);
        let demand = self.waiting_on(0) + self.returning.count();
        let plan = plan::plan(&Question {
            node: &self.node,
            policy: &self.policy,
            limits: self.limits,
            card: 0,
            pool: &self.pool,
            subnets: &self.subnets,
            in_flight: &in_flight,
            demand,
            forecast: self.forecast.outlook(now),
            surplus_since: self.surplus_since,
            now,
        });
        self.surplus_since = plan.surplus.then(|| self.surplus_since.unwrap_or(now));
        if plan.needs_subnets && !self.subnets_asked {
            self.subnets_asked = true;
            commands.push(Command::DescribeSubnets);
        }
        let gathered = self.gathered(&plan, now);
        for action in &plan.actions {
            let call = Call::of(action);
            let asks = matches!(call, Call::Create | Call::Assign);
            let urgent = if asks { plan.urgent } else { demand > 0 };
            if (gathered || !asks) && !self.pauses.rests(call, urgent, now) && self.may_start(now, action, commands) {
                self.start(now, action.clone(), commands);
            }
        }
        self.last_plan = plan;
    }

    fn waiting_on(&self, card: u8) -> usize {
        self.queue.iter().filter(|waiter| waiter.card == card).count()
    }

    /// Plans for each network card above 0: one free address on each, and what pods wait for, asked for at once.
    fn plan_further(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let one = Policy { warm_auto: false, warm_addresses: 1, minimum_addresses: 1, ..self.policy.clone() };
        let cards: Vec<u8> = self.cards().filter(|card| *card > 0).collect();
        for card in cards {
            let (in_flight, demand) = (self.in_flight(card), self.waiting_on(card));
            let since = self.further.get(&card).and_then(|(_, since)| *since);
            let plan = plan::plan(&Question {
                node: &self.node,
                policy: &one,
                limits: self.limits,
                card,
                pool: &self.pool,
                subnets: &self.subnets,
                in_flight: &in_flight,
                demand,
                forecast: Outlook::default(),
                surplus_since: since,
                now,
            });
            let since = plan.surplus.then(|| since.unwrap_or(now));
            if plan.needs_subnets && !self.subnets_asked {
                self.subnets_asked = true;
                commands.push(Command::DescribeSubnets);
            }
            for action in &plan.actions {
                let urgent = demand > 0;
                if !self.pauses.rests(Call::of(action), urgent, now) && self.may_start(now, action, commands) {
                    let intent = self.start(now, action.clone(), commands);
                    if action.eni().is_none() {
                        self.made_for.insert(intent, card);
                    }
                }
            }
            self.further.insert(card, (plan, since));
        }
    }
}
