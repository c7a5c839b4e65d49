//! Says no: when it is certain, at once; otherwise at the deadline. Always with numbers and advice.

use std::collections::BTreeMap;

use eni_proto::{Refusal, RefusalCode};

use super::{Engine, Waiter};
use crate::{
    Access, Command, Moment,
    plan::{self, Blocked},
    pool::Phase,
    ports::{Ec2Error, RefusalClass},
    retry::{class, is_permanent},
};

impl Engine {
    /// Refuses every waiting pod whose deadline has come, or for which no address can come before it.
    pub(super) fn refuse(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let hopeful = self.may_grow(now);
        let mut cooled: BTreeMap<u8, Vec<Moment>> = BTreeMap::new();
        let mut kept: Vec<Waiter> = Vec::new();
        let waiting = self.queue.len();
        for waiter in std::mem::take(&mut self.queue) {
            let shares = kept.iter().any(|other| other.key == waiter.key);
            let cooled = cooled.entry(waiter.card).or_insert_with(|| {
                let mut ends = self.pool.cooling_on_ready(waiter.card);
                ends.reverse();
                ends
            });
            let in_time = cooled.last().is_some_and(|until| *until <= waiter.deadline);
            if waiter.deadline > now && (hopeful || shares || in_time) {
                // Each resting address serves one of them.
                if !shares {
                    cooled.pop();
                }
                kept.push(waiter);
            } else {
                let refusal = self.refusal(now, &waiter, waiting);
                if waiter.card == 0 {
                    self.returning.refused(&waiter.key, &waiter.pod, now);
                }
                commands.push(Command::Refuse { ticket: waiter.ticket, refusal });
            }
        }
        self.queue = kept;
    }

    /// Whether an address may be on its way, or will be asked for again soon.
    fn may_grow(&self, now: Moment) -> bool {
        let moving = |phase| matches!(phase, Phase::Attaching | Phase::Preparing | Phase::Leaving);
        let under_way = !self.observed || !self.intents.is_empty() || self.pool.managed().any(|eni| moving(eni.phase));
        let asking = self.gather_until.is_some() || self.looks.pending() || self.subnets_asked;
        let refused = self.pauses.against_growth(now).any(is_permanent);
        let paused = self.pauses.against_growth(now).next().is_some();
        under_way || self.policy.access != Access::Full || (!refused && (paused || asking))
    }

    /// The words for one of `waiting` pods.
    fn refusal(&self, now: Moment, waiter: &Waiter, waiting: usize) -> Refusal {
        let status = self.status(now);
        let all = status.leased + status.free + status.cooling;
        let resting = status.cooling;
        let facts = format!(
            "{} of {all} addresses are held by pods, {resting} {}{}, {} {} on the way, {waiting} {}",
            status.leased,
            if resting == 1 { "rests" } else { "rest" },
            self.first_cool_down_ends(waiter.card, now),
            status.in_flight,
            if status.in_flight == 1 { "is" } else { "are" },
            if waiting == 1 { "pod waits" } else { "pods wait" },
        );
        let (code, what, advice) = self.reason(now, waiter);
        let on_card = if waiter.card == 0 { String::new() } else { format!(" on network card {}", waiter.card) };
        let last = self
            .last_error
            .as_ref()
            .map_or(String::new(), |(error, at)| format!("; {} s ago {error}", now.since(*at).as_secs()));
        Refusal {
            code,
            message: format!("no address for {}{on_card}: {what}: {facts}{last}", name(waiter)),
            advice,
            try_again: true,
        }
    }

    fn first_cool_down_ends(&self, card: u8, now: Moment) -> String {
        let first = self.pool.cooling_on_ready(card).into_iter().next();
        first.map_or(String::new(), |until| format!(" (the first is free in {} s)", until.since(now).as_secs().max(1)))
    }

    fn reason(&self, now: Moment, waiter: &Waiter) -> (RefusalCode, String, String) {
        let again = "Kubernetes will try again.";
        let blocked = match waiter.card {
            0 => self.last_plan.blocked.as_ref(),
            card => self.further.get(&card).and_then(|(plan, _)| plan.blocked.as_ref()),
        };
        if let Some(Blocked::SubnetsFull(subnets)) = blocked {
            let names: Vec<_> = subnets.iter().map(ToString::to_string).collect();
            let names = if names.is_empty() { "no subnet may be used and none".to_owned() } else { names.join(", ") };
            let what = format!("{names} has no free address");
            let advice = "Free addresses in the subnet, tag another one with kubernetes.io/role/cni=1, lower the warm targets, or give new nodes a larger subnet.";
            return (RefusalCode::SubnetFull, what, format!("{again} {advice}"));
        }
        match self.pauses.against_growth(now).filter(|error| is_permanent(error)).find_map(class) {
            Some(RefusalClass::NotAllowed | RefusalClass::LimitReached | RefusalClass::BadRequest) => (
                RefusalCode::CloudRefuses,
                "EC2 refuses".to_owned(),
                format!("{again} Mend what EC2 names; ipamd asks again by itself."),
            ),
            // While addresses are on their way, this pod may have been too early for one, not too late.
            _ if blocked == Some(&Blocked::NodeFull) && self.status(now).in_flight == 0 => {
                self.full(waiter.card, again)
            }
            _ if !self.observed => (
                RefusalCode::NotReady,
                "EC2 has not described this node yet".to_owned(),
                format!(
                    "{again} If this lasts, look at ipamd's log: the EC2 endpoint or the role is the likeliest cause."
                ),
            ),
            _ if waiter.patience.is_zero() => (
                RefusalCode::Late,
                "none is free, and the caller does not wait".to_owned(),
                format!("{again} Raise addWaitSeconds, so that an ADD waits for an address that is on its way."),
            ),
            _ => (
                RefusalCode::Late,
                format!("none came within {} s", waiter.patience.as_secs()),
                format!("{again} If this happens at each burst of pods, raise WARM_IP_TARGET or WARM_ENI_TARGET."),
            ),
        }
    }

    /// Says which limit is reached: the operator's or the instance type's.
    fn full(&self, card: u8, again: &str) -> (RefusalCode, String, String) {
        let count = self.pool.enis().filter(|eni| eni.card() == card || !self.policy.further_cards).count();
        let (kind, carries) = (&self.node.instance_type, self.limits.enis_on(card));
        let wanted = self.policy.max_enis.filter(|wanted| *wanted < carries);
        let all = if count == 1 { "the only interface is".to_owned() } else { format!("all {count} interfaces are") };
        if card == 0 && plan::keeps_trunk_place(&self.node, &self.policy, self.limits, &self.pool) {
            let what =
                format!("{all} full, and ENABLE_POD_ENI keeps one more place for the trunk, which is not there yet");
            let advice = "To fit more pods use a larger instance type; where no pod has security groups of its own, set ENABLE_POD_ENI to false.";
            return (RefusalCode::NodeFull, what, format!("{again} {advice}"));
        }
        let what = match wanted {
            Some(wanted) => format!("{all} full and MAX_ENI={wanted} allows no more, though {kind} carries {carries}"),
            None => format!("{all} full and {kind} allows no more"),
        };
        let advice = match wanted {
            Some(_) => "To fit more pods raise MAX_ENI, or use a larger instance type.",
            None => "To fit more pods use a larger instance type, or lower the node's max pods to what it can carry.",
        };
        (RefusalCode::NodeFull, what, format!("{again} {advice}"))
    }
}

/// The pod as people know it; its key when the runtime did not say.
fn name(waiter: &Waiter) -> String {
    if waiter.pod.name.is_empty() { waiter.key.to_string() } else { format!("pod {}", waiter.pod) }
}

/// The refusal of an ADD whose DEL came while it waited.
pub(super) fn deleted(waiter: &Waiter) -> Refusal {
    Refusal {
        code: RefusalCode::Late,
        message: format!("no address for {}: its DEL came while it waited", name(waiter)),
        advice: "Nothing was given and nothing needs to be done.".to_owned(),
        try_again: false,
    }
}

/// EC2's last answer in one line, for the status.
pub(super) fn describe(error: &Ec2Error) -> String {
    error.to_string()
}
