//! The engine's view of what EC2 describes: when to ask, and how much of the answer to believe. A description may be old;
//! what it leaves out is still there until it has been left out for long (I12).

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use super::Engine;
use crate::{
    Access, Action, Command, EniId, Moment, plan,
    pool::{Eni, Phase, UNLISTED_GRACE},
    ports::{Attachment, Ec2Error, Interface, Scope},
};

/// How long EC2's descriptions may lag behind its changes.
const SETTLING: Duration = Duration::from_secs(5);
/// How long granted addresses may take to show up before we stop waiting for them.
const ASSIGN_PATIENCE: Duration = Duration::from_secs(30);
/// How long EC2 may show an ENI as attached after it was asked to detach it.
const DETACH_PATIENCE: Duration = Duration::from_secs(30);
/// How long a deleted ENI may still show up in descriptions.
const GONE_GRACE: Duration = Duration::from_secs(300);
/// How long the kernel may not be ready for an attached ENI before EC2 is asked whether it is attached at all.
const HOST_PATIENCE: Duration = Duration::from_secs(15);
/// How often EC2 is asked for an ENI with pods that it does not list.
const MISSING_PERIOD: Duration = Duration::from_secs(300);
/// How often a node is looked at whose ENIs somebody else changes; the metadata service costs nothing.
const READ_ONLY_PERIOD: Duration = Duration::from_secs(300);
const METADATA_PERIOD: Duration = Duration::from_secs(30);
/// The same while pods wait.
const READ_ONLY_HURRY: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn look(&mut self, now: Moment, commands: &mut Vec<Command>) {
        if self.scan_at.is_some_and(|at| at <= now) {
            self.scan_at = None;
            self.looks.at(Scope::Attached, now);
            self.looks.at(Scope::Tagged, now);
        }
        if self.policy.access != Access::Full && self.observed && !self.looks.is_asking() {
            let period = match self.policy.access {
                _ if !self.queue.is_empty() => READ_ONLY_HURRY,
                Access::MetadataOnly => METADATA_PERIOD,
                Access::Full | Access::ReadOnly => READ_ONLY_PERIOD,
            };
            self.looks.at(Scope::Attached, now.after(period));
        }
        if let Some(scope) = self.looks.ask(now) {
            commands.push(Command::Observe { scope });
        }
    }

    pub(super) fn not_observed(&mut self, now: Moment, error: Ec2Error) {
        self.last_error = Some((error, now));
        self.looks.failed(now);
    }

    pub(super) fn observed(
        &mut self,
        now: Moment,
        asked_at: Moment,
        scope: Scope,
        interfaces: Vec<Interface>,
        commands: &mut Vec<Command>,
    ) {
        self.looks.answered(scope, asked_at);
        // No instance is without its primary ENI.
        let primary = |interface: &Interface| interface.attachment.as_ref().is_some_and(|at| at.device_index == 0);
        if scope == Scope::Attached && !interfaces.iter().any(primary) {
            let primary = self.node.primary_eni.clone();
            self.odd.insert(primary, "EC2 does not list it, the primary interface; its answer is not used".to_owned());
            self.looks.again(scope, now);
            return;
        }
        self.observed |= scope == Scope::Attached;
        self.gone.retain(|_, since| now.since(*since) < GONE_GRACE);
        self.unassigned.retain(|_, at| now.since(*at) < GONE_GRACE);
        let listed: BTreeSet<EniId> = interfaces.iter().map(|interface| interface.id.clone()).collect();
        if scope == Scope::Tagged {
            self.resolve_create(asked_at, &interfaces);
            self.resolve_unknown(asked_at, &listed);
        }
        let mut again = false;
        for interface in interfaces {
            again |= self.believe(now, asked_at, interface, commands);
        }
        again |= self.miss(now, asked_at, scope, &listed);
        if again {
            self.looks.again(scope, now);
        } else {
            self.looks.calm();
        }
        if let Some(since) = self.create_in_doubt.filter(|_| scope == Scope::Tagged) {
            self.looks.at(Scope::Tagged, since.after(SETTLING));
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

    /// Ends the doubt about ENIs that an earlier run changed and that are no more.
    fn resolve_unknown(&mut self, asked_at: Moment, listed: &BTreeSet<EniId>) {
        let (pool, looks) = (&self.pool, &mut self.looks);
        self.awaited.retain(|id, awaited| {
            let resolved_at = awaited.since.after(SETTLING);
            let unknown = pool.eni(id).is_none() && !listed.contains(id);
            if unknown && asked_at < resolved_at {
                looks.at(Scope::Tagged, resolved_at);
            }
            !unknown || asked_at < resolved_at
        });
    }

    /// Ends the waiting for what our last change brings, if the description shows it; returns whether EC2 must be asked
    /// again soon because it does not.
    fn still_awaited(&mut self, id: &EniId, asked_at: Moment, listed: usize) -> bool {
        let Some(awaited) = self.awaited.get(id) else { return false };
        // What was granted surely comes; what is only in doubt is there by now, or will not be.
        let certain = awaited.each > 0;
        let until = awaited.since.after(if certain { ASSIGN_PATIENCE } else { SETTLING });
        if awaited.slots.is_some_and(|slots| listed >= slots) || asked_at >= until {
            self.awaited.remove(id);
        } else if !certain {
            self.looks.at(Scope::Attached, until);
            // By then it may hang on no instance.
            self.looks.at(Scope::Tagged, until);
            return false;
        }
        self.awaited.contains_key(id)
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
        interface.secondary.sort_unstable();
        interface.prefixes.sort_unstable();
        interface.prefixes6.sort_unstable();
        let (before, own) = (self.pool.eni(&id).map(|eni| eni.phase), self.own6(&id));
        let waited = self.pool.eni(&id).map_or(Duration::ZERO, |eni| asked_at.since(eni.changed_at));
        let (phase, again) = next_phase(before, interface.attachment.as_ref(), waited);
        let hidden = self.leave_out_given_back(&mut interface, asked_at);
        let again = self.settle(&mut interface, waited) || again;
        let slots = interface.secondary.len() + interface.prefixes.len();
        let unexpected = self.leave_out_unexpected(&mut interface, asked_at);
        let again = (unexpected == 0 && self.still_awaited(&id, asked_at, slots)) || again;
        // Only now: an address that counts for another ENI has been granted all the same.
        let disputed = hidden + unexpected + self.drop_doubles(now, &mut interface);
        let disputed = disputed.max(self.disputed_lately(&id, waited));
        if !self.awaited.contains_key(&id) {
            self.pool.keep(&interface.addresses().collect());
        }
        if self.pool.eni(&id).is_none() {
            self.add(now, interface.clone(), phase, disputed);
        }
        if let Some(eni) = self.pool.eni_mut(&id) {
            if interface.attachment.is_none() && phase != Phase::Unattached {
                // Not shown yet; its place is taken all the same.
                interface.attachment = eni.interface.attachment.take();
            }
            if interface.attachment.is_none() {
                eni.meant_for = eni.card();
            }
            eni.interface = interface;
            eni.phase = phase;
            eni.described_at = Some(asked_at);
            eni.disputed = disputed;
            eni.unlisted_since = None;
        }
        if phase == Phase::Preparing && before != Some(Phase::Preparing) {
            self.prepare(&id, commands);
        }
        self.prepare_again(&id, own, commands);
        again
    }

    /// Places that an earlier description said are taken, so soon after our last change that it may be the newer one.
    fn disputed_lately(&mut self, id: &EniId, waited: Duration) -> usize {
        let Some(known) = self.pool.eni(id).filter(|eni| waited < SETTLING && eni.disputed > 0) else { return 0 };
        self.looks.at(Scope::Attached, known.changed_at.after(SETTLING));
        known.disputed
    }

    /// Leaves out what an earlier run did not know, in a description so soon after our start that it may be what that run
    /// has given back: nobody gets it before EC2 has had time to agree with itself. Returns how many places that takes.
    fn leave_out_unexpected(&mut self, interface: &mut Interface, asked_at: Moment) -> usize {
        let settled_at = self.started_at.after(SETTLING);
        let remembered = |eni: &&Eni| asked_at < settled_at && eni.since == Moment::default();
        let Some(known) = self.pool.eni(&interface.id).filter(remembered) else { return 0 };
        let expected = |address: Ipv4Addr| known.interface.has(address) || self.pool.is_held(address);
        let before = interface.secondary.len() + interface.prefixes.len();
        interface.secondary.retain(|address| expected(*address));
        interface.prefixes.retain(|prefix| prefix.addresses().any(expected));
        let unexpected = before - interface.secondary.len() - interface.prefixes.len();
        if unexpected > 0 {
            self.looks.at(Scope::Attached, settled_at);
        }
        unexpected
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

    /// Leaves out what we gave back a moment ago. Returns how many places that may take all the same: EC2 may have granted
    /// it again, which a later look shows.
    fn leave_out_given_back(&mut self, interface: &mut Interface, asked_at: Moment) -> usize {
        let given_back =
            |address: Ipv4Addr| self.unassigned.get(&address).is_some_and(|at| asked_at < at.after(SETTLING));
        let before = interface.secondary.len() + interface.prefixes.len();
        interface.secondary.retain(|address| !given_back(*address));
        interface.prefixes.retain(|prefix| !given_back(prefix.network));
        let hidden = before - interface.secondary.len() - interface.prefixes.len();
        if hidden > 0 {
            self.looks.at(Scope::Attached, asked_at.after(SETTLING));
        }
        hidden
    }

    /// Completes a description that may lag: what it leaves out may still be there. Returns whether it left something out.
    fn settle(&self, interface: &mut Interface, waited: Duration) -> bool {
        let Some(known) = self.pool.eni(&interface.id).filter(|_| waited < SETTLING) else { return false };
        let slots = interface.secondary.len() + interface.prefixes.len();
        for address in &known.interface.secondary {
            if let Err(place) = interface.secondary.binary_search(address) {
                interface.secondary.insert(place, *address);
            }
        }
        for prefix in &known.interface.prefixes {
            if let Err(place) = interface.prefixes.binary_search(prefix) {
                interface.prefixes.insert(place, *prefix);
            }
        }
        let listed6 = interface.prefixes6.len();
        for prefix in &known.interface.prefixes6 {
            if let Err(place) = interface.prefixes6.binary_search(prefix) {
                interface.prefixes6.insert(place, *prefix);
            }
        }
        interface.secondary.len() + interface.prefixes.len() > slots || interface.prefixes6.len() > listed6
    }

    /// Notes what EC2 does not list, and forgets it only after a long time without a pod on it (I12).
    fn miss(&mut self, now: Moment, asked_at: Moment, scope: Scope, listed: &BTreeSet<EniId>) -> bool {
        let concerned = |phase| (phase == Phase::Unattached) == (scope == Scope::Tagged);
        let missing = self.pool.enis().filter(|eni| concerned(eni.phase) && !listed.contains(&eni.interface.id));
        let missing: Vec<EniId> = missing.map(|eni| eni.interface.id.clone()).collect();
        let mut again = false;
        for id in missing {
            if self.is_stale(&id, asked_at) {
                again = true;
                continue;
            }
            let Some(eni) = self.pool.eni_mut(&id) else { continue };
            eni.described_at = Some(asked_at);
            if eni.phase == Phase::Leaving {
                again |= self.still_awaited(&id, asked_at, 0);
                self.detached(&id);
            } else {
                let since = *eni.unlisted_since.get_or_insert(now);
                self.missing(now, scope, &id, since);
            }
        }
        again
    }

    /// An ENI that was leaving hangs on this instance no more, as we wanted, unless that is still in doubt.
    fn detached(&mut self, id: &EniId) {
        if let Some(eni) = self.pool.eni_mut(id).filter(|_| !self.awaited.contains_key(id)) {
            eni.phase = Phase::Unattached;
            eni.meant_for = eni.card();
            eni.interface.attachment = None;
        }
    }

    /// Looks again for an ENI that EC2 does not list; after a long time it is forgotten, if no pod is on it.
    fn missing(&mut self, now: Moment, scope: Scope, id: &EniId, since: Moment) {
        let taken = self.pool.eni(id).is_some_and(|eni| self.pool.taken_on(eni) > 0);
        if now.since(since) < UNLISTED_GRACE {
            self.looks.at(scope, since.after(UNLISTED_GRACE));
        } else if taken {
            self.looks.at(scope, now.after(MISSING_PERIOD));
        } else {
            self.forget(id);
            self.arm_scan(now);
            // It may still be there, on no instance.
            if scope == Scope::Attached {
                self.looks.at(Scope::Tagged, now);
            }
        }
    }

    pub(super) fn host_ready(&mut self, id: &EniId) {
        self.host_trouble.remove(id);
        if let Some(eni) = self.pool.eni_mut(id)
            && eni.phase == Phase::Preparing
        {
            eni.phase = Phase::Ready;
        }
    }

    /// The link of an ENI that EC2 says it attached does not come: if that lasts, EC2 is asked.
    pub(super) fn host_failed(&mut self, now: Moment, id: EniId, reason: String) {
        let lasts = self.pool.eni(&id).is_some_and(|eni| {
            let last_heard = eni.described_at.map_or(eni.changed_at, |at| at.max(eni.changed_at));
            eni.phase == Phase::Preparing && now.since(last_heard) >= HOST_PATIENCE
        });
        if lasts {
            self.looks.at(Scope::Attached, now);
        }
        self.host_trouble.insert(id, reason);
    }

    /// Whether pods may have addresses of this ENI.
    pub(super) fn carries(&self, now: Moment, eni: &crate::pool::Eni) -> bool {
        !eni.is_missing(now) && plan::carries_pods(eni, &self.policy, &self.subnets)
    }
}

/// The phase that a description asked for `waited` after our last change puts an ENI in, and whether EC2 must be asked
/// again soon.
pub(super) fn next_phase(before: Option<Phase>, attachment: Option<&Attachment>, waited: Duration) -> (Phase, bool) {
    match (attachment.map(|attachment| attachment.attached), before) {
        // An attachment may take a moment to show.
        (None, Some(phase @ (Phase::Attaching | Phase::Preparing | Phase::Ready))) if waited < SETTLING => {
            (phase, true)
        }
        (None, _) => (Phase::Unattached, false),
        // A detachment that EC2 does not show after so long has not happened.
        (Some(true), Some(Phase::Leaving)) if waited >= DETACH_PATIENCE => (Phase::Preparing, false),
        (Some(_), Some(Phase::Leaving)) => (Phase::Leaving, true),
        // The kernel has proved the attachment already.
        (Some(_), Some(Phase::Ready)) => (Phase::Ready, false),
        (Some(false), Some(Phase::Preparing)) => (Phase::Preparing, true),
        (Some(false), _) => (Phase::Attaching, true),
        (Some(true), _) => (Phase::Preparing, false),
    }
}
