//! The engine's changes at EC2: starting them, hearing how they ended, believing the answers.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use eni_proto::numbers;

use super::{Awaited, Engine};
use crate::{
    Action, AttachmentId, Command, Done, EniId, IntentId, Moment, SubnetId,
    pool::{Eni, Phase},
    ports::{Amount, Attachment, Cidr6, Ec2Error, Holdings, Interface, PREFIX_SIZE, PREFIX6_BITS, Scope, Subnet},
    retry::Call,
};

/// When all is looked at once more after something went wrong, at the earliest; jitter adds up to a quarter.
const SCAN_AFTER: Duration = Duration::from_secs(3600);

impl Engine {
    /// Names the intent and puts it on its way.
    pub(super) fn start(&mut self, now: Moment, action: Action, commands: &mut Vec<Command>) -> IntentId {
        self.intent_count += 1;
        let intent = IntentId(format!("{}-{}", self.intent_prefix, self.intent_count));
        match &action {
            Action::Attach { eni, .. } => self.set_phase(eni, Phase::Attaching, now),
            Action::Detach { eni, .. } => {
                self.set_phase(eni, Phase::Leaving, now);
                commands.push(Command::ForgetHost { eni: eni.clone() });
            }
            Action::Unassign { holdings, .. } => self.pool.let_go(holdings.all()),
            Action::Create { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Assign { .. }
            | Action::Delete { .. } => {}
        }
        self.intents.insert(intent.clone(), action.clone());
        commands.push(Command::Start { intent: intent.clone(), action });
        intent
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
        let made_for = self.made_for.remove(intent).unwrap_or(0);
        match outcome {
            Ok(done) => {
                self.pauses.succeeded(Call::of(&action));
                if self.pauses.is_empty() {
                    self.last_error = None;
                }
                // However long EC2 took to show what was changed before: this is a new change.
                self.looks.calm();
                let made = if let Done::Created(interface) = &done { Some(interface.id.clone()) } else { None };
                self.done(now, action, done, commands);
                if let Some(eni) = made.and_then(|id| self.pool.eni_mut(&id)) {
                    eni.meant_for = made_for;
                }
            }
            Err(error) => self.failed(now, action, error, commands),
        }
    }

    /// Believes what a successful change must have done.
    pub(super) fn done(&mut self, now: Moment, action: Action, done: Done, commands: &mut Vec<Command>) {
        match (action, done) {
            (Action::Create { subnet, amount, .. }, Done::Created(interface)) => {
                self.created(now, &subnet, amount, interface);
            }
            (Action::Attach { eni, card, device_index }, Done::Attached(id)) => {
                self.attached(now, &eni, (id, card, device_index), commands);
            }
            (Action::Assign { eni, amount }, done) => {
                let own = self.own6(&eni);
                self.assigned(now, &eni, amount, done);
                self.prepare_again(&eni, own, commands);
            }
            (Action::Detach { eni, .. }, _) => self.touch(&eni, now),
            (Action::SecurityGroups { eni, security_groups }, _) => {
                self.touch(&eni, now);
                if let Some(eni) = self.pool.eni_mut(&eni) {
                    eni.interface.security_groups = security_groups;
                }
            }
            (Action::Unassign { eni, holdings }, _) => self.unassigned(now, &eni, &holdings),
            (Action::DeleteOnTermination { eni, .. }, _) => {
                self.touch(&eni, now);
                if let Some(eni) = self.pool.eni_mut(&eni)
                    && let Some(attachment) = &mut eni.interface.attachment
                {
                    attachment.delete_on_termination = true;
                }
            }
            (Action::Delete { eni }, _) => {
                self.forget(&eni);
                self.gone.insert(eni, now);
            }
            // The shell answered another question: only EC2 knows what is true.
            (Action::Create { .. }, _) => self.doubt_create(now),
            (Action::Attach { eni, device_index, .. }, _) => self.doubt_attach(&eni, device_index, now),
        }
    }

    fn created(&mut self, now: Moment, subnet: &SubnetId, amount: Amount, mut interface: Interface) {
        let tag = || self.node.instance.to_string();
        interface.tags.entry(numbers::TAG_INSTANCE.to_owned()).or_insert_with(tag);
        interface.attachment = None;
        interface.secondary.sort_unstable();
        interface.prefixes.sort_unstable();
        interface.prefixes6.sort_unstable();
        let complete = match amount {
            Amount::Addresses(count) => interface.secondary.len() == usize::from(count),
            Amount::Prefixes(count) => interface.prefixes.len() == usize::from(count),
            Amount::Prefix6 => !interface.prefixes6.is_empty(),
        };
        let disputed = self.drop_doubles(now, &mut interface);
        if complete {
            self.subnets.granted(subnet, amount);
        } else {
            self.await_grant(&interface.id, amount.slots(), amount, now);
            self.looks.at(Scope::Tagged, now);
        }
        self.pool.keep(&interface.addresses().collect());
        self.add(now, interface, Phase::Unattached, disputed);
    }

    /// The kernel proves the attachment sooner than a description would.
    fn attached(
        &mut self,
        now: Moment,
        id: &EniId,
        (attachment, card, device_index): (AttachmentId, u8, u8),
        commands: &mut Vec<Command>,
    ) {
        let instance = self.node.instance.clone();
        self.set_phase(id, Phase::Preparing, now);
        if let Some(eni) = self.pool.eni_mut(id) {
            let id = attachment;
            let attachment =
                Attachment { id, instance, device_index, card, attached: true, delete_on_termination: false };
            eni.interface.attachment = Some(attachment);
            eni.unlisted_since = None;
        }
        self.prepare(id, commands);
    }

    /// Believes an answer that lists exactly as many new addresses or prefixes as were asked for; else EC2 describes the
    /// ENI.
    fn assigned(&mut self, now: Moment, id: &EniId, amount: Amount, done: Done) {
        self.touch(id, now);
        let granted = if let Done::Assigned(granted) = done { granted } else { Holdings::default() };
        let new = self.only_new(id, granted);
        let complete = match amount {
            Amount::Addresses(count) => new.addresses.len() == usize::from(count) && new.prefixes.is_empty(),
            Amount::Prefixes(count) => new.prefixes.len() == usize::from(count) && new.addresses.is_empty(),
            Amount::Prefix6 => new.prefixes6.len() == 1,
        };
        let Some(eni) = self.pool.eni_mut(id) else { return };
        if complete {
            for address in new.all() {
                self.unassigned.remove(&address);
            }
            self.pool.keep(&new.all().collect());
            let Some(eni) = self.pool.eni_mut(id) else { return };
            eni.interface.secondary.extend(new.addresses);
            eni.interface.secondary.sort_unstable();
            eni.interface.prefixes.extend(new.prefixes);
            eni.interface.prefixes.sort_unstable();
            eni.interface.prefixes6.extend(new.prefixes6);
            eni.interface.prefixes6.sort_unstable();
            let subnet = eni.interface.subnet.clone();
            self.subnets.granted(&subnet, amount);
        } else if amount == Amount::Prefix6 {
            self.doubt(id, None, now);
        } else {
            let slots = eni.slots() + amount.slots();
            self.await_grant(id, slots, amount, now);
            self.looks.at(Scope::Attached, now);
        }
    }

    /// Notes that EC2 will list so many `slots` on the ENI, of which the last are what was granted.
    fn await_grant(&mut self, id: &EniId, slots: usize, granted: Amount, now: Moment) {
        let each = granted.addresses() / granted.slots().max(1);
        self.awaited.insert(id.clone(), Awaited { slots: Some(slots), each, device_index: None, since: now });
    }

    /// What of a grant neither this ENI nor another one has already, each once.
    fn only_new(&self, id: &EniId, granted: Holdings) -> Holdings {
        let known: BTreeSet<Ipv4Addr> =
            self.pool.enis().flat_map(|eni| eni.interface.addresses().chain([eni.interface.primary])).collect();
        let addresses: BTreeSet<_> = granted.addresses.into_iter().filter(|address| !known.contains(address)).collect();
        let has = |prefix: &crate::ports::Cidr4| {
            self.pool.enis().any(|eni| eni.interface.id == *id && eni.interface.prefixes.contains(prefix))
                || prefix.addresses().any(|address| known.contains(&address))
        };
        let well_formed =
            |prefix: &crate::ports::Cidr4| prefix.addresses().take(PREFIX_SIZE + 1).count() == PREFIX_SIZE;
        let prefixes: BTreeSet<_> =
            granted.prefixes.into_iter().filter(|prefix| well_formed(prefix) && !has(prefix)).collect();
        let is_new = |prefix: &Cidr6| {
            prefix.prefix == PREFIX6_BITS && !self.pool.enis().any(|eni| eni.interface.prefixes6.contains(prefix))
        };
        let prefixes6: BTreeSet<_> = granted.prefixes6.into_iter().filter(is_new).collect();
        Holdings {
            addresses: addresses.into_iter().collect(),
            prefixes: prefixes.into_iter().collect(),
            prefixes6: prefixes6.into_iter().collect(),
        }
    }

    fn unassigned(&mut self, now: Moment, id: &EniId, holdings: &Holdings) {
        self.touch(id, now);
        if let Some(eni) = self.pool.eni_mut(id) {
            eni.interface.secondary.retain(|address| !holdings.addresses.contains(address));
            eni.interface.prefixes.retain(|prefix| !holdings.prefixes.contains(prefix));
        }
        self.pool.keep(&holdings.all().collect());
        self.unassigned.extend(holdings.all().map(|address| (address, now)));
    }

    /// Notes that what was asked of EC2 before now does not show this ENI as it is.
    pub(super) fn touch(&mut self, eni: &EniId, now: Moment) {
        // A description that is under way may have been asked for earlier in this very millisecond.
        let asked = self.looks.is_asking();
        if let Some(eni) = self.pool.eni_mut(eni) {
            eni.changed_at = if asked { now.after(Duration::from_millis(1)) } else { now };
        }
    }

    pub(super) fn add(&mut self, now: Moment, interface: Interface, phase: Phase, disputed: usize) {
        let (described_at, unlisted_since) = (None, None);
        let meant_for = interface.attachment.as_ref().map_or(0, |attachment| attachment.card);
        self.pool.insert(Eni {
            interface,
            phase,
            since: now,
            changed_at: now,
            described_at,
            disputed,
            unlisted_since,
            meant_for,
        });
    }

    pub(super) fn forget(&mut self, eni: &EniId) {
        self.pool.remove(eni);
        self.awaited.remove(eni);
        self.host_trouble.remove(eni);
        self.odd.remove(eni);
        self.disputes.remove(eni);
    }

    /// The ENI is not changed again before EC2 has shown what became of it. If it lists so many `slots`, it has.
    pub(super) fn doubt(&mut self, eni: &EniId, slots: Option<usize>, now: Moment) {
        // As in `touch`.
        let since = now.after(Duration::from_millis(1));
        self.awaited.insert(eni.clone(), Awaited { slots, each: 0, device_index: None, since });
        self.looks.at(Scope::Attached, now);
        self.arm_scan(now);
    }

    pub(super) fn doubt_attach(&mut self, eni: &EniId, device_index: u8, now: Moment) {
        self.doubt(eni, None, now);
        if let Some(awaited) = self.awaited.get_mut(eni) {
            awaited.device_index = Some(device_index);
        }
    }

    pub(super) fn doubt_create(&mut self, now: Moment) {
        self.create_in_doubt = Some(now);
        self.looks.at(Scope::Tagged, now);
        self.arm_scan(now);
    }

    /// Something went wrong that may have left something behind: all is looked at once more, much later.
    pub(super) fn arm_scan(&mut self, now: Moment) {
        if self.scan_at.is_none() {
            let jitter = crate::retry::seed(&format!("{}{now}", self.node.instance)) % 256;
            let jitter = SCAN_AFTER * u32::try_from(jitter).unwrap_or(0) / 1024;
            self.scan_at = Some(now.after(SCAN_AFTER + jitter));
        }
    }

    pub(super) fn subnets_described(&mut self, now: Moment, outcome: Result<Vec<Subnet>, Ec2Error>) {
        self.subnets_asked = false;
        match outcome {
            Ok(subnets) => self.subnets.described(now, Some(subnets)),
            // Then the node's own subnet has to do.
            Err(error) => {
                self.last_error = Some((error, now));
                self.subnets.described(now, None);
            }
        }
    }

    /// The first IPv6 prefix of an ENI, of which the ENI itself has an address.
    pub(super) fn own6(&self, id: &EniId) -> Option<Cidr6> {
        self.pool.eni(id)?.interface.prefixes6.first().copied()
    }

    /// Has the kernel prepared for an ENI once more, if its first IPv6 prefix is not what it was.
    pub(super) fn prepare_again(&mut self, id: &EniId, before: Option<Cidr6>, commands: &mut Vec<Command>) {
        if self.own6(id) == before {
            return;
        }
        if let Some(eni) = self.pool.eni_mut(id).filter(|eni| eni.phase == Phase::Ready) {
            eni.phase = Phase::Preparing;
            self.prepare(id, commands);
        }
    }

    pub(super) fn prepare(&self, id: &EniId, commands: &mut Vec<Command>) {
        let Some(eni) = self.pool.eni(id).filter(|eni| self.pool.is_managed(eni)) else { return };
        commands.push(Command::PrepareHost { interface: eni.interface.clone() });
    }
}
