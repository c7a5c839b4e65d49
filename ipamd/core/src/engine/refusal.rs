//! Says no: when it is certain, at once; otherwise at the deadline. Always with numbers and advice.

use eni_proto::{PodKey, Refusal, RefusalCode};

use super::{
    Engine, Look,
    cloud::{class, is_permanent},
};
use crate::{
    Command, Moment,
    pool::Phase,
    ports::{Ec2Error, RefusalClass},
};

impl Engine {
    /// Refuses every waiting pod whose deadline has come, or for which no address can come before it.
    pub(super) fn refuse(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let mut kept = Vec::new();
        for waiter in std::mem::take(&mut self.queue) {
            if waiter.deadline > now && self.can_come_before(waiter.deadline) {
                kept.push(waiter);
            } else {
                let refusal = self.refusal(now, &waiter.key);
                commands.push(Command::Refuse { ticket: waiter.ticket, refusal });
            }
        }
        self.queue = kept;
    }

    fn can_come_before(&self, deadline: Moment) -> bool {
        let under_way = !self.observed
            || !self.intents.is_empty()
            || self.pool.managed().any(|eni| matches!(eni.phase, Phase::Attaching | Phase::Preparing));
        let cools = self.pool.cooling().any(|(_, until)| until <= deadline);
        let permanent = self.last_error.as_ref().is_some_and(|(error, _)| is_permanent(error));
        let trying = !permanent && (self.look != Look::AtRest || self.pause_until.is_some());
        under_way || cools || trying
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
        let (code, what, advice) = self.reason();
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

    fn reason(&self) -> (RefusalCode, String, String) {
        let kind = &self.node.instance_type;
        let again = "Kubernetes will try again.";
        match self.last_error.as_ref().and_then(|(error, _)| class(error)) {
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
