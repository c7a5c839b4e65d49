//! EC2 calls: what becomes of them, and what EC2's descriptions say.

use std::time::Duration;

use ipam_core::{
    Action, Done, EniId, Event, IntentId, Moment,
    ports::{Ec2Error, Holdings, Interface, RefusalClass, Scope},
};

use super::{Later, World};
use crate::cloud::{Cloud, refused};

/// By then EC2 agrees with itself.
const CONSISTENT: Duration = Duration::from_secs(600);

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Done,
    /// Done, but the answer does not list what was granted.
    Vague,
    Refused(RefusalClass),
    LostBefore,
    LostAfter,
}

impl World {
    pub(super) fn observe(&mut self, scope: Scope) {
        self.count("DescribeNetworkInterfaces");
        self.observing += 1;
        assert_eq!(self.observing, 1, "EC2 is asked twice at a time");
        let at = self.soon(300);
        self.schedule(at, Later::Describe(self.now, scope));
    }

    pub(super) fn describe_subnets(&mut self) {
        self.count("DescribeSubnets");
        let at = self.soon(300);
        let outcome = match self.happens(self.chance.faults) {
            true => Err(refused(RefusalClass::SlowDown)),
            false => Ok(self.cloud.subnets()),
        };
        self.schedule(at, Later::Tell(Event::Subnets { outcome }));
    }

    pub(super) fn describe(&mut self, asked_at: Moment, scope: Scope) {
        let event = match self.happens(self.chance.faults) {
            true => Event::ObserveFailed { error: refused(RefusalClass::SlowDown) },
            false => Event::Observed { asked_at, scope, interfaces: self.description(scope) },
        };
        let at = self.soon(300);
        self.schedule(at, Later::Tell(event));
    }

    /// What EC2 says now: of each ENI what was true a moment ago; sometimes one is left out.
    fn description(&mut self, scope: Scope) -> Vec<Interface> {
        let mut said = self.cloud.describe();
        if self.chance.lag > 0 {
            let ids: std::collections::BTreeSet<EniId> =
                self.history.iter().flat_map(|(_, enis)| enis).map(|eni| eni.id.clone()).collect();
            said = ids.into_iter().filter_map(|id| self.as_it_was(&id)).collect();
        }
        let mut said = Cloud::select(said, scope);
        if !said.is_empty() && self.happens(self.chance.omissions) {
            let place = usize::try_from(self.below(64)).unwrap() % said.len();
            if self.may_be_left_out(&said[place]) {
                said.remove(place);
            }
        }
        said
    }

    /// What hangs on nothing and has not been changed for long is there for every reader.
    fn may_be_left_out(&self, eni: &Interface) -> bool {
        let changed_at = self.changed.get(&eni.id).copied().unwrap_or_default();
        eni.attachment.is_some() || self.now.since(changed_at) < CONSISTENT
    }

    /// EC2 carries the action out.
    pub(super) fn apply(&mut self, action: &Action, done_at: Moment) -> Result<Done, Ec2Error> {
        self.check_safe(action);
        let outcome = self.cloud.apply(action, done_at);
        let made = match &outcome {
            Ok(Done::Created(interface)) => Some(&interface.id),
            _ => action.eni(),
        };
        self.changed.extend(made.map(|eni| (eni.clone(), self.now)));
        outcome
    }

    fn as_it_was(&mut self, id: &EniId) -> Option<Interface> {
        let lag = self.below(self.chance.lag + 1);
        let as_of = self.now.as_millis().saturating_sub(lag.into());
        let (_, said) = self.history.iter().rev().find(|(at, _)| at.as_millis() <= as_of).or(self.history.first())?;
        said.iter().find(|eni| eni.id == *id).cloned()
    }

    /// Keeps what is true now, as long as a description may still say it.
    pub(super) fn remember(&mut self) {
        if self.chance.lag == 0 {
            return;
        }
        if self.history.last().is_none_or(|(_, last)| !last.iter().eq(self.cloud.enis.values())) {
            self.history.push((self.now, self.cloud.describe()));
        }
        let oldest = self.now.as_millis().saturating_sub(self.chance.lag.into());
        let needed = self.history.iter().rposition(|(at, _)| at.as_millis() <= oldest).unwrap_or(0);
        self.history.drain(..needed);
    }

    pub(super) fn started(&mut self, intent: &IntentId, action: &Action) {
        assert!(self.intents.insert(intent.clone()), "{intent} was used before");
        assert!(intent.0.len() <= 64);
        let eni = action.eni();
        let busy = eni.is_some() && self.in_flight.values().any(|other| other.eni() == eni);
        assert!(!busy, "{action:?} while another change is under way on the ENI");
        let touched = eni.is_some_and(|eni| self.operators.contains(eni));
        assert!(!touched, "{action:?}: the operator's ENI was touched");
        self.check_limits(action);
        self.check_safe(action);
        self.count(match action {
            Action::Create { .. } => "CreateNetworkInterface",
            Action::Attach { .. } => "AttachNetworkInterface",
            Action::DeleteOnTermination { .. } | Action::SecurityGroups { .. } => "ModifyNetworkInterfaceAttribute",
            Action::Assign { .. } => "AssignPrivateIpAddresses",
            Action::Unassign { .. } => "UnassignPrivateIpAddresses",
            Action::Detach { .. } => "DetachNetworkInterface",
            Action::Delete { .. } => "DeleteNetworkInterface",
        });
        self.disk.begin(intent, action);
        self.in_flight.insert(intent.clone(), action.clone());
        let fate = self.fate(action);
        let at = self.soon(300);
        self.schedule(at, Later::Carry(intent.clone(), action.clone(), fate));
    }

    fn fate(&mut self, action: &Action) -> Fate {
        let asks = matches!(action, Action::Create { .. } | Action::Assign { .. });
        if !self.happens(self.chance.faults) {
            return if asks && self.happens(self.chance.vague) { Fate::Vague } else { Fate::Done };
        }
        match self.below(8) {
            0 => Fate::LostBefore,
            1 | 2 => Fate::LostAfter,
            3 => Fate::Refused(RefusalClass::NotAllowed),
            4 if asks => Fate::Refused(RefusalClass::SubnetFull),
            5 if !asks => Fate::Refused(RefusalClass::NotFound),
            6 => Fate::Refused(RefusalClass::TryLater),
            _ => Fate::Refused(RefusalClass::SlowDown),
        }
    }

    pub(super) fn carry_out(&mut self, intent: IntentId, action: Action, fate: Fate) {
        let done_at = self.soon(5_000);
        let lost = Ec2Error::Unknown { action: "Model", reason: "the reply was lost".to_owned() };
        let outcome = match fate {
            Fate::Done | Fate::Vague | Fate::LostAfter => self.apply(&action, done_at),
            Fate::Refused(class) => Err(refused(class)),
            Fate::LostBefore => Err(lost.clone()),
        };
        let outcome = match fate {
            Fate::LostAfter => outcome.and(Err(lost)),
            Fate::Vague => outcome.map(vague),
            Fate::Done | Fate::Refused(_) | Fate::LostBefore => outcome,
        };
        self.remember();
        let at = self.soon(300);
        self.schedule(at, Later::Tell(Event::Settled { intent, outcome }));
    }

    /// Somebody else uses the subnets, or changes what hangs on the instance.
    pub(super) fn somebody_interferes(&mut self) {
        if self.chance.faults == 0 {
            return;
        }
        let subnet = ["subnet-1", "subnet-2"][usize::try_from(self.below(2)).unwrap()].parse().unwrap();
        match self.below(4) {
            0 => {
                let few = 8 + self.below(8);
                self.cloud.crowd(&subnet, |address| address.to_bits() % 16 < few);
            }
            1 => self.cloud.relieve(&subnet),
            2 => {
                let group = format!("sg-{}", self.below(3)).parse().unwrap();
                self.tell(Event::SecurityGroups { security_groups: vec![group] });
            }
            _ => self.delete_a_spare(),
        }
        self.remember();
    }

    /// A script deletes what hangs on nothing.
    fn delete_a_spare(&mut self) {
        let spare = self.cloud.enis.values().find(|eni| eni.attachment.is_none()).map(|eni| eni.id.clone());
        if let Some(eni) = spare {
            let _ = self.cloud.apply(&Action::Delete { eni }, self.now.after(Duration::ZERO));
        }
    }

    fn count(&mut self, call: &'static str) {
        *self.calls.entry(call).or_default() += 1;
    }
}

/// An answer that does not say what was granted.
fn vague(done: Done) -> Done {
    match done {
        Done::Created(mut interface) => {
            interface.secondary.clear();
            interface.prefixes.clear();
            Done::Created(interface)
        }
        Done::Assigned(_) => Done::Assigned(Holdings::default()),
        other => other,
    }
}
