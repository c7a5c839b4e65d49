//! When the planner is asked, and which of its plans begins.

use super::Engine;
use crate::{
    Action, Command, Moment,
    plan::{self, InFlight, Plan, Question},
    retry::Call,
};

impl Engine {
    pub(super) fn in_flight(&self) -> InFlight {
        let mut in_flight = InFlight { create_in_doubt: self.create_in_doubt.is_some(), ..InFlight::default() };
        for action in self.intents.values() {
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
        for (id, awaited) in &self.awaited {
            let listed = self.pool.eni(id).map_or(0, crate::pool::Eni::slots);
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
        let in_flight = self.in_flight();
        let demand = self.queue.len() + self.returning.count();
        let plan = plan::plan(&Question {
            node: &self.node,
            policy: &self.policy,
            limits: self.limits,
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
}
