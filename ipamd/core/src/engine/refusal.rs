//! Says no: when it is certain, at once; otherwise at the deadline. Always with numbers and advice.

use eni_proto::{PodKey, Refusal, RefusalCode};

use super::{Engine, Look, Waiter};
use crate::{
    Command, Moment,
    pool::Phase,
    ports::{Ec2Error, RefusalClass},
    retry::{class, is_permanent},
};

impl Engine {
    /// Refuses every waiting pod whose deadline has come, or for which no address can come before it.
    pub(super) fn refuse(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let hopeful = self.may_grow(now);
        let mut cooled = self.pool.cooling_on_ready();
        cooled.reverse();
        let mut kept: Vec<Waiter> = Vec::new();
        for waiter in std::mem::take(&mut self.queue) {
            let shares = kept.iter().any(|other| other.key == waiter.key);
            let in_time = cooled.last().is_some_and(|until| *until <= waiter.deadline);
            if waiter.deadline > now && (hopeful || shares || in_time) {
                // Each resting address serves one of them.
                if !shares {
                    cooled.pop();
                }
                kept.push(waiter);
            } else {
                let refusal = self.refusal(now, &waiter.key);
                commands.push(Command::Refuse { ticket: waiter.ticket, refusal });
            }
        }
        self.queue = kept;
    }

    /// Whether an address may be on its way, or will be asked for again soon.
    fn may_grow(&self, now: Moment) -> bool {
        let moving = |phase| matches!(phase, Phase::Attaching | Phase::Preparing | Phase::Leaving);
        let under_way = !self.observed || !self.intents.is_empty() || self.pool.managed().any(|eni| moving(eni.phase));
        let refused = self.pauses.against_growth(now).any(is_permanent);
        let paused = self.pauses.against_growth(now).next().is_some();
        under_way || (!refused && (paused || self.look != Look::AtRest))
    }

    fn refusal(&self, now: Moment, key: &PodKey) -> Refusal {
        let status = self.status(now);
        let facts = format!(
            "{} of {} addresses are held by pods, {} rest{}, {} are on their way, {} pod(s) wait",
            status.leased,
            status.leased + status.free + status.cooling,
            status.cooling,
            self.first_cool_down_ends(now),
            status.in_flight,
            self.queue.len().max(1),
        );
        let (code, what, advice) = self.reason(now);
        let last = self
            .last_error
            .as_ref()
            .map_or(String::new(), |(error, at)| format!("; {} s ago {error}", now.since(*at).as_secs()));
        Refusal { code, message: format!("no address for {key}: {what}: {facts}{last}"), advice, try_again: true }
    }

    fn first_cool_down_ends(&self, now: Moment) -> String {
        let first = self.pool.cooling().map(|(_, until)| until).min();
        first.map_or(String::new(), |until| {
            format!(" (the first until {} s from now)", until.since(now).as_secs().max(1))
        })
    }

    fn reason(&self, now: Moment) -> (RefusalCode, String, String) {
        let kind = &self.node.instance_type;
        let again = "Kubernetes will try again.";
        match self.pauses.against_growth(now).filter(|error| is_permanent(error)).find_map(class) {
            Some(RefusalClass::SubnetFull) => (
                RefusalCode::SubnetFull,
                format!("{} has no free address", self.node.subnet),
                format!(
                    "{again} Free addresses in the subnet, lower WARM_ENI_TARGET, or give new nodes a larger subnet."
                ),
            ),
            Some(RefusalClass::NotAllowed | RefusalClass::LimitReached | RefusalClass::BadRequest) => (
                RefusalCode::CloudRefuses,
                "EC2 refuses".to_owned(),
                format!("{again} Mend what EC2 names; ipamd asks again by itself."),
            ),
            _ if self.is_full() => (
                RefusalCode::NodeFull,
                format!("all {} interfaces are full and {kind} allows no more", self.pool.enis().count()),
                format!(
                    "{again} To fit more pods use a larger instance type, or lower the node's max pods to what it can carry."
                ),
            ),
            _ if !self.observed => (
                RefusalCode::NotReady,
                "EC2 has not described this node yet".to_owned(),
                format!(
                    "{again} If this lasts, look at ipamd's log: the EC2 endpoint or the role is the likeliest cause."
                ),
            ),
            _ => (
                RefusalCode::Late,
                "none came before the deadline".to_owned(),
                format!("{again} If this happens at each burst of pods, raise WARM_IP_TARGET or WARM_ENI_TARGET."),
            ),
        }
    }

    fn is_full(&self) -> bool {
        let most = self.policy.max_enis.map_or(self.limits.max_enis, |wanted| wanted.min(self.limits.max_enis));
        self.pool.enis().count() >= usize::from(most)
            && self.pool.managed().all(|eni| eni.interface.secondary.len() >= self.limits.capacity())
    }
}

/// The refusal of an ADD whose DEL came while it waited.
pub(super) fn deleted(key: &PodKey) -> Refusal {
    Refusal {
        code: RefusalCode::Late,
        message: format!("no address for {key}: its DEL came while it waited"),
        advice: "Nothing was given and nothing needs to be done.".to_owned(),
        try_again: false,
    }
}

/// EC2's last answer in one line, for the status.
pub(super) fn describe(error: &Ec2Error) -> String {
    error.to_string()
}
