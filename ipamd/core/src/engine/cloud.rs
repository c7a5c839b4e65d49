//! The engine's dealings with EC2: starting changes, hearing how they ended, and believing descriptions.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use super::{Awaited, Engine, Look};
use crate::{
    Action, Command, Done, EniId, IntentId, Moment,
    pool::{Eni, Phase},
    ports::{Attachment, Ec2Error, Holdings, Interface, RefusalClass, Scope},
    retry::{Call, class},
};

/// How long EC2 may fail to list an ENI before we believe that it is gone. Its descriptions can lag by minutes after a change.
const UNLISTED_GRACE: Duration = Duration::from_secs(60);
/// How long EC2's descriptions may lag behind its changes.
const SETTLING: Duration = Duration::from_secs(2);
/// How long granted addresses may take to show up before we stop waiting for them.
const ASSIGN_PATIENCE: Duration = Duration::from_secs(30);
/// How long EC2 may show an ENI as attached after it was asked to detach it.
const DETACH_PATIENCE: Duration = Duration::from_secs(30);
/// How long a deleted ENI may still show up in descriptions.
const GONE_GRACE: Duration = Duration::from_secs(300);

impl Engine {
    /// Names the intent and puts it on its way.
    pub(super) fn start(&mut self, now: Moment, action: Action, commands: &mut Vec<Command>) {
        self.intent_count += 1;
        let intent = IntentId(format!("{}-{}", self.intent_prefix, self.intent_count));
        match &action {
            Action::Attach { eni, .. } => self.set_phase(eni, Phase::Attaching, now),
            Action::Detach { eni, .. } => {
                self.set_phase(eni, Phase::Leaving, now);
                commands.push(Command::ForgetHost { eni: eni.clone() });
            }
            Action::Unassign { holdings, .. } => self.pool.let_go(&holdings.addresses),
            Action::Create { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Assign { .. }
            | Action::Delete { .. } => {}
        }
        self.intents.insert(intent.clone(), action.clone());
        commands.push(Command::Start { intent, action });
    }

    pub(super) fn set_phase(&mut self, eni: &EniId, phase: Phase, now: Moment) {
        if let Some(eni) = self.pool.eni_mut(eni) {
            eni.phase = phase;
        }
        self.touch(eni, now);
    }

    pub(super) fn settled(
        &mut self,
        now: Moment,
        intent: &IntentId,
        outcome: Result<Done, Ec2Error>,
        commands: &mut Vec<Command>,
    ) {
        let Some(action) = self.intents.remove(intent) else { return };
        match outcome {
            Ok(done) => {
                self.pauses.succeeded(Call::of(&action));
                if self.pauses.is_empty() {
                    self.last_error = None;
                }
                // However long EC2 took to show what was changed before: this is a new change.
                self.look_backoff.succeed();
                self.done(now, action, done);
            }
            Err(error) => self.failed(now, action, error, commands),
        }
    }

    fn done(&mut self, now: Moment, action: Action, done: Done) {
        match (action, done) {
            (Action::Create { .. }, Done::Created(interface)) => self.add(now, interface, Phase::Unattached),
            (Action::Attach { eni, card, device_index }, Done::Attached(id)) => {
                let instance = self.node.instance.clone();
                self.set_phase(&eni, Phase::Attaching, now);
                if let Some(eni) = self.pool.eni_mut(&eni) {
                    let rest =
                        Attachment { id, instance, device_index, card, attached: false, delete_on_termination: false };
                    eni.interface.attachment = Some(rest);
                }
                self.look_at(now);
            }
            (Action::Assign { eni, amount }, _) => {
                let listed = self.pool.eni(&eni).map_or(0, |eni| eni.interface.secondary.len());
                self.awaited.insert(eni.clone(), Awaited { addresses: listed + amount.addresses(), since: now });
                self.touch(&eni, now);
                self.look_at(now);
            }
            (Action::Detach { eni, .. }, _) => {
                self.touch(&eni, now);
                self.look_at(now);
            }
            (Action::SecurityGroups { eni, security_groups }, _) => {
                self.touch(&eni, now);
                if let Some(eni) = self.pool.eni_mut(&eni) {
                    eni.interface.security_groups = security_groups;
                }
            }
            (Action::Unassign { eni, holdings: Holdings { addresses, .. } }, _) => {
                self.touch(&eni, now);
                if let Some(eni) = self.pool.eni_mut(&eni) {
                    eni.interface.secondary.retain(|address| !addresses.contains(address));
                }
                self.pool.keep(&addresses);
                self.unassigned.extend(addresses.into_iter().map(|address| (address, now)));
            }
            (Action::DeleteOnTermination { eni, .. }, _) => {
                self.touch(&eni, now);
                if let Some(eni) = self.pool.eni_mut(&eni)
                    && let Some(attachment) = &mut eni.interface.attachment
                {
                    attachment.delete_on_termination = true;
                }
            }
            (Action::Delete { eni }, _) => {
                self.pool.remove(&eni);
                self.awaited.remove(&eni);
                self.gone.insert(eni, now);
            }
            // The shell answered another question: only EC2 knows what is true.
            (Action::Create { .. } | Action::Attach { .. }, _) => self.look_at(now),
        }
    }

    /// Notes that what was asked of EC2 before now does not show this ENI as it is.
    fn touch(&mut self, eni: &EniId, now: Moment) {
        // A description that is under way may have been asked for earlier in this very millisecond.
        let asked = self.look == Look::Asked;
        if let Some(eni) = self.pool.eni_mut(eni) {
            eni.changed_at = if asked { now.after(Duration::from_millis(1)) } else { now };
        }
    }

    pub(super) fn add(&mut self, now: Moment, interface: Interface, phase: Phase) {
        self.pool.insert(Eni { interface, phase, since: now, changed_at: now, unlisted_since: None });
    }

    /// After a failure: wait; and if EC2 may know what we do not, look before this ENI is changed again.
    fn failed(&mut self, now: Moment, action: Action, error: Ec2Error, commands: &mut Vec<Command>) {
        let call = Call::of(&action);
        self.last_error = Some((error.clone(), now));
        if call == Call::Delete && class(&error) == Some(RefusalClass::NotFound) {
            self.pauses.succeeded(call);
            return self.done(now, action, Done::Plain);
        }
        let nothing_changed = matches!(
            class(&error),
            Some(RefusalClass::SlowDown | RefusalClass::TryLater | RefusalClass::NotAllowed | RefusalClass::SubnetFull)
        );
        if !nothing_changed {
            match action.eni() {
                Some(eni) => drop(self.awaited.insert(eni.clone(), Awaited { addresses: 0, since: now })),
                None => self.create_in_doubt = Some(now),
            }
            self.look_at(now);
        }
        self.undo(now, action, &error, commands);
        self.pauses.failed(call, error, now);
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
                if let Some(eni) = self.pool.eni(&eni) {
                    commands.push(Command::PrepareHost { interface: eni.interface.clone() });
                }
            }
            Action::Unassign { holdings, .. } if class(error).is_some() => self.pool.keep(&holdings.addresses),
            Action::Create { .. } => {}
            Action::Assign { eni, .. }
            | Action::Unassign { eni, .. }
            | Action::DeleteOnTermination { eni, .. }
            | Action::SecurityGroups { eni, .. }
            | Action::Delete { eni } => self.touch(&eni, now),
        }
    }

    /// Asks for a description at `moment` at the latest.
    pub(super) fn look_at(&mut self, moment: Moment) {
        self.look = match self.look {
            Look::AtRest => Look::At(moment),
            Look::At(earlier) => Look::At(earlier.min(moment)),
            // The answer will be recognised as stale, and asked for again.
            Look::Asked => Look::Asked,
        };
    }

    pub(super) fn look(&mut self, now: Moment, commands: &mut Vec<Command>) {
        if matches!(self.look, Look::At(moment) if moment <= now) {
            self.look = Look::Asked;
            commands.push(Command::Observe { scope: Scope::Attached });
        }
    }

    pub(super) fn not_observed(&mut self, now: Moment, error: Ec2Error) {
        self.last_error = Some((error, now));
        self.look = Look::At(now.after(self.look_backoff.next_wait()));
    }

    pub(super) fn observed(
        &mut self,
        now: Moment,
        asked_at: Moment,
        interfaces: Vec<Interface>,
        commands: &mut Vec<Command>,
    ) {
        self.observed = true;
        self.look = Look::AtRest;
        self.gone.retain(|_, since| now.since(*since) < GONE_GRACE);
        self.unassigned.retain(|_, at| now.since(*at) < GONE_GRACE);
        let listed: BTreeSet<EniId> = interfaces.iter().map(|interface| interface.id.clone()).collect();
        self.resolve_create(asked_at, &interfaces);
        let mut again = self.create_in_doubt.is_some();
        for interface in interfaces {
            again |= self.believe(now, asked_at, interface, commands);
        }
        again |= self.miss(now, asked_at, &listed);
        if again {
            self.look = Look::At(now.after(self.look_backoff.next_wait()));
        } else {
            self.look_backoff.succeed();
        }
    }

    /// Ends the doubt about a create call: its ENI has shown up, or would have by now.
    fn resolve_create(&mut self, asked_at: Moment, interfaces: &[Interface]) {
        let Some(since) = self.create_in_doubt else { return };
        let known = |id: &EniId| self.pool.eni(id).is_some() || self.gone.contains_key(id);
        let found = interfaces.iter().any(|interface| interface.attachment.is_none() && !known(&interface.id));
        if found || asked_at >= since.after(SETTLING) {
            self.create_in_doubt = None;
        }
    }

    /// Ends the waiting for what our last change brings, if the description shows it; returns whether it does not.
    fn still_awaited(&mut self, id: &EniId, asked_at: Moment, listed: usize) -> bool {
        let Some(awaited) = self.awaited.get(id) else { return false };
        let shown = if awaited.addresses > 0 {
            listed >= awaited.addresses || asked_at >= awaited.since.after(ASSIGN_PATIENCE)
        } else {
            asked_at >= awaited.since.after(SETTLING)
        };
        if shown {
            self.awaited.remove(id);
        }
        !shown
    }

    /// Takes over one description; returns whether EC2 must be asked again.
    fn believe(
        &mut self,
        now: Moment,
        asked_at: Moment,
        mut interface: Interface,
        commands: &mut Vec<Command>,
    ) -> bool {
        let elsewhere =
            interface.attachment.as_ref().is_some_and(|attachment| attachment.instance != self.node.instance);
        if elsewhere || self.gone.contains_key(&interface.id) {
            return false;
        }
        let id = interface.id.clone();
        if self.is_stale(&id, asked_at) || self.may_be_our_newest(&interface) {
            return true;
        }
        let before = self.pool.eni(&id).map(|eni| eni.phase);
        let waited = self.pool.eni(&id).map_or(Duration::ZERO, |eni| asked_at.since(eni.changed_at));
        let (phase, again) = next_phase(before, interface.attachment.as_ref(), waited);
        let again = self.settle(&mut interface, asked_at, waited) || again;
        let again = self.still_awaited(&id, asked_at, interface.secondary.len()) || again;
        // Only now: an address that counts for another ENI has been granted all the same.
        self.drop_doubles(&mut interface);
        if !self.awaited.contains_key(&id) {
            self.pool.keep(&interface.secondary);
        }
        match self.pool.eni_mut(&id) {
            Some(eni) => {
                if phase == Phase::Attaching && interface.attachment.is_none() {
                    // Not shown yet; its slot is taken all the same.
                    interface.attachment = eni.interface.attachment.take();
                }
                eni.interface = interface;
                eni.phase = phase;
                eni.unlisted_since = None;
            }
            None => self.add(now, interface, phase),
        }
        if phase == Phase::Preparing && before != Some(Phase::Preparing) {
            self.prepare(&id, commands);
        }
        again
    }

    /// Whether we changed the ENI after the description was asked for, or are changing it now.
    fn is_stale(&self, id: &EniId, asked_at: Moment) -> bool {
        self.pool.eni(id).is_some_and(|eni| eni.changed_at > asked_at)
            || self.intents.values().any(|action| action.eni() == Some(id))
    }

    /// Whether the ENI may be the one that is just being created: a description can overtake the answer to that call.
    fn may_be_our_newest(&self, interface: &Interface) -> bool {
        interface.attachment.is_none()
            && self.pool.eni(&interface.id).is_none()
            && self.intents.values().any(|action| matches!(action, Action::Create { .. }))
    }

    /// An address belongs to one ENI only. EC2 keeps to that; some of its stand-ins do not.
    fn drop_doubles(&self, interface: &mut Interface) {
        let others: BTreeSet<Ipv4Addr> = self
            .pool
            .enis()
            .filter(|eni| eni.interface.id != interface.id)
            .flat_map(|eni| eni.interface.secondary.iter().copied().chain([eni.interface.primary]))
            .collect();
        let primary = interface.primary;
        interface.secondary.retain(|address| *address != primary && !others.contains(address));
    }

    /// Corrects a description that may lag: what we gave back is not there, and what it leaves out may still be. Returns
    /// whether it left something out.
    fn settle(&self, interface: &mut Interface, asked_at: Moment, waited: Duration) -> bool {
        let given_back =
            |address: &Ipv4Addr| self.unassigned.get(address).is_some_and(|at| asked_at < at.after(SETTLING));
        interface.secondary.retain(|address| !given_back(address));
        let known = self.pool.eni(&interface.id).map(|eni| eni.interface.secondary.clone()).unwrap_or_default();
        let left_out: Vec<_> = known.into_iter().filter(|address| !interface.secondary.contains(address)).collect();
        if left_out.is_empty() || waited >= SETTLING {
            return false;
        }
        interface.secondary.extend(left_out);
        interface.secondary.sort_unstable();
        true
    }

    pub(super) fn prepare(&self, id: &EniId, commands: &mut Vec<Command>) {
        let Some(eni) = self.pool.eni(id).filter(|eni| eni.is_managed()) else { return };
        commands.push(Command::PrepareHost { interface: eni.interface.clone() });
    }

    /// Notes what EC2 does not list, and forgets it only after a long time without a pod on it (I12).
    fn miss(&mut self, now: Moment, asked_at: Moment, listed: &BTreeSet<EniId>) -> bool {
        let missing: Vec<EniId> =
            self.pool.enis().map(|eni| eni.interface.id.clone()).filter(|id| !listed.contains(id)).collect();
        let mut again = false;
        for id in missing {
            if self.is_stale(&id, asked_at) {
                again = true;
                continue;
            }
            let Some(eni) = self.pool.eni_mut(&id) else { continue };
            let since = *eni.unlisted_since.get_or_insert(now);
            let believed = now.since(since) >= UNLISTED_GRACE;
            let taken = self.pool.eni(&id).is_some_and(|eni| self.pool.taken_on(eni) > 0);
            if believed && !taken {
                self.pool.remove(&id);
                self.awaited.remove(&id);
            }
            again |= !believed;
        }
        again
    }

    pub(super) fn host_ready(&mut self, id: &EniId) {
        self.host_trouble.remove(id);
        if let Some(eni) = self.pool.eni_mut(id)
            && eni.phase == Phase::Preparing
        {
            eni.phase = Phase::Ready;
        }
    }
}

/// The phase that a description asked for `waited` after our last change puts an ENI in, and whether EC2 must be asked
/// again soon.
pub(super) fn next_phase(before: Option<Phase>, attachment: Option<&Attachment>, waited: Duration) -> (Phase, bool) {
    match (attachment.map(|attachment| attachment.attached), before) {
        // An attachment may take a moment to show.
        (None, Some(Phase::Attaching)) if waited < SETTLING => (Phase::Attaching, true),
        (None, _) => (Phase::Unattached, false),
        // A detachment that EC2 does not show after so long has not happened.
        (Some(true), Some(Phase::Leaving)) if waited >= DETACH_PATIENCE => (Phase::Preparing, false),
        (Some(_), Some(Phase::Leaving)) => (Phase::Leaving, true),
        (Some(false), _) => (Phase::Attaching, true),
        (Some(true), Some(Phase::Ready)) => (Phase::Ready, false),
        (Some(true), _) => (Phase::Preparing, false),
    }
}
