//! Changes that EC2 refused, or whose outcome nobody knows: what may have happened all the same, and what is taken back.

use std::time::Duration;

use super::Engine;
use crate::{
    Action, Command, Done, EniId, Moment,
    pool::Phase,
    ports::{Amount, Ec2Error, RefusalClass, Scope},
    retry::{Call, class},
};

/// How long an ENI may be refused to be deleted before EC2 is asked whether it was detached at all.
const DELETE_PATIENCE: Duration = Duration::from_secs(30);
/// How old an ENI is when EC2 can no longer have forgotten to show it.
const YOUNG: Duration = Duration::from_secs(60);

impl Engine {
    /// After a failure: wait; and if EC2 may know what we do not, look before this ENI is changed again.
    pub(super) fn failed(&mut self, now: Moment, action: Action, error: Ec2Error, commands: &mut Vec<Command>) {
        let call = Call::of(&action);
        self.last_error = Some((error.clone(), now));
        // What is needed has been gathered already.
        self.need_since = Some(Moment::default());
        if call == Call::Delete && class(&error) == Some(RefusalClass::NotFound) {
            // It is gone; if EC2 only does not know it yet, the look much later finds it.
            self.arm_scan(now);
            self.pauses.succeeded(call);
            return self.done(now, action, Done::Plain, commands);
        }
        if self.no_room(now, &action, &error) {
            return;
        }
        let class_of = class(&error);
        let nothing_changed =
            matches!(class_of, Some(RefusalClass::SlowDown | RefusalClass::TryLater | RefusalClass::NotAllowed));
        match &action {
            Action::Create { .. } if class_of.is_none() => self.doubt_create(now),
            Action::Create { .. } => {}
            Action::Delete { eni } if class_of == Some(RefusalClass::WrongState) => self.not_yet_deleted(now, eni),
            // An ENI that was just made may not be known everywhere yet.
            Action::Attach { eni, .. } if class_of == Some(RefusalClass::NotFound) => {
                if self.pool.eni(eni).is_some_and(|eni| now.since(eni.since) >= YOUNG) {
                    self.looks.at(Scope::Tagged, now);
                }
            }
            _ if nothing_changed => {}
            Action::Assign { eni, amount } => {
                let slots = self.pool.eni(eni).map(|eni| eni.slots() + amount.slots());
                self.doubt(eni, slots.filter(|_| class_of.is_none()), now);
            }
            Action::Attach { eni, device_index, .. } => self.doubt_attach(eni, *device_index, now),
            Action::Delete { eni }
            | Action::DeleteOnTermination { eni, .. }
            | Action::SecurityGroups { eni, .. }
            | Action::Unassign { eni, .. }
            | Action::Detach { eni, .. } => self.doubt(eni, None, now),
        }
        self.undo(now, action, &error, commands);
        self.pauses.failed(call, error, now);
    }

    /// Whether EC2 refused because the subnet has no room: then that subnet alone is asked for less, or rests.
    fn no_room(&mut self, now: Moment, action: &Action, error: &Ec2Error) -> bool {
        let Some(class @ (RefusalClass::SubnetFull | RefusalClass::NoPrefix)) = class(error) else { return false };
        let (subnet, amount) = match action {
            Action::Create { subnet, amount, .. } => (Some(subnet.clone()), *amount),
            // A subnet has more of them than ENIs can ask for.
            Action::Assign { amount: Amount::Prefix6, .. } => return false,
            Action::Assign { eni, amount } => (self.pool.eni(eni).map(|eni| eni.interface.subnet.clone()), *amount),
            Action::Attach { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Unassign { .. }
            | Action::Detach { .. }
            | Action::Delete { .. } => return false,
        };
        if let Some(subnet) = subnet {
            self.subnets.refused(now, &subnet, amount, class);
        }
        true
    }

    /// Most often it is only still being detached; if that lasts, it may never have been.
    fn not_yet_deleted(&mut self, now: Moment, id: &EniId) {
        let Some(eni) = self.pool.eni(id) else { return };
        if eni.phase != Phase::Leaving || now.since(eni.changed_at) >= DELETE_PATIENCE {
            self.looks.at(Scope::Attached, now);
            self.looks.at(Scope::Tagged, now);
        }
    }

    /// Takes back what starting the action marked; what may have happened all the same stays marked.
    fn undo(&mut self, now: Moment, action: Action, error: &Ec2Error, commands: &mut Vec<Command>) {
        match action {
            // It may be attached all the same; the look that follows will tell.
            Action::Attach { eni, .. } => self.set_phase(&eni, Phase::Unattached, now),
            // It may be on its way out all the same: nothing is given out on it until EC2 has been looked at.
            Action::Detach { eni, .. } if class(error).is_none() => self.set_phase(&eni, Phase::Leaving, now),
            Action::Detach { eni, .. } => {
                self.set_phase(&eni, Phase::Preparing, now);
                self.prepare(&eni, commands);
            }
            Action::Unassign { holdings, .. } if class(error).is_some() => self.pool.keep(&holdings.all().collect()),
            Action::Create { .. } | Action::Delete { .. } => {}
            Action::Assign { eni, .. }
            | Action::Unassign { eni, .. }
            | Action::DeleteOnTermination { eni, .. }
            | Action::SecurityGroups { eni, .. } => self.touch(&eni, now),
        }
    }
}
