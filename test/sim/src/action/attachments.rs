//! Attach and detach.

use ipam_core::{AttachmentId, EniId};

use crate::{
    Action, ApiError,
    world::{
        Due, State, View, catalogue, lookup,
        model::{Attachment, AttachmentState, Eni, EniKind, Instance, InstanceState},
    },
};

/// Hangs an ENI on an instance. The answer comes at once, the link later.
///
/// An ENI may still be `pending`, as it is when the AWS CNI attaches what it has just made: then the attachment waits for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachNetworkInterface {
    /// Which ENI.
    pub interface: String,
    /// On which instance.
    pub instance: String,
    /// Network card.
    pub card: u8,
    /// Slot on the card.
    pub device_index: u8,
}

impl Action for AttachNetworkInterface {
    const NAME: &'static str = "AttachNetworkInterface";
    type Answer = AttachmentId;

    fn apply(&self, state: &mut State) -> Result<AttachmentId, ApiError> {
        let eni = state.known(&self.interface)?;
        let instance = lookup::find(&state.instances, &self.instance)?;
        if eni.attachment.is_some() {
            let message = format!("Interface: [{}] in use.", eni.id);
            return Err(ApiError::new("InvalidNetworkInterface.InUse", message));
        }
        self.check_instance(eni, instance)?;
        let (instance, eni, ready_at) = (instance.id.clone(), eni.id.clone(), eni.ready_at);
        let delay = state.draw(state.config.delays.attach);
        let id = plug(state, &eni, Slot { instance, card: self.card, device_index: self.device_index }, false);
        state.schedule(state.now.max(ready_at).after(delay), Due::Attached(id.clone()));
        Ok(id)
    }
}

impl AttachNetworkInterface {
    fn check_instance(&self, eni: &Eni, instance: &Instance) -> Result<(), ApiError> {
        match eni.kind {
            EniKind::Interface | EniKind::Trunk => {}
            EniKind::Efa | EniKind::EfaOnly => {
                let message = format!("Instance '{}' is not 'stopped', as it must be for an EFA.", instance.id);
                return Err(ApiError::new("IncorrectInstanceState", message));
            }
            EniKind::Branch => {
                return Err(ApiError::invalid_value(format!("'{}' is a branch and cannot be attached", eni.id)));
            }
        }
        if instance.state != InstanceState::Running {
            let message = format!("Instance '{}' is not 'running' or 'stopped'.", instance.id);
            return Err(ApiError::new("IncorrectInstanceState", message));
        }
        if eni.availability_zone != instance.availability_zone {
            return Err(ApiError::invalid_combination(
                "You may not attach a network interface to an instance if they are not in the same availability zone",
            ));
        }
        let limits = catalogue::all().get(instance.instance_type.as_str());
        let Some((limits, most)) = limits.and_then(|limits| Some((limits, *limits.cards.get(&self.card)?))) else {
            let message = format!("'{}' has no network card {}", instance.instance_type, self.card);
            return Err(ApiError::invalid_value(message));
        };
        if instance.interfaces.contains_key(&(self.card, self.device_index)) {
            let message = format!(
                "Instance '{}' already has an interface attached at device index '{}'.",
                instance.id, self.device_index
            );
            return Err(ApiError::invalid_value(message));
        }
        if instance.interfaces.keys().filter(|(card, _)| *card == self.card).count() >= usize::from(most) {
            let message = format!("Interface count {} exceeds the limit for {}", most + 1, instance.instance_type);
            return Err(ApiError::new("AttachmentLimitExceeded", message));
        }
        if eni.slots() > usize::from(limits.addresses_per_eni) {
            return Err(super::addresses::limit_exceeded());
        }
        if !eni.prefixes.is_empty() && !limits.has_prefixes() {
            return Err(super::addresses::no_prefixes_on(limits.name));
        }
        Ok(())
    }
}

/// A place for an ENI.
pub(super) struct Slot {
    pub(super) instance: ipam_core::InstanceId,
    pub(super) card: u8,
    pub(super) device_index: u8,
}

/// Ties an ENI to its place, as `attaching`. The place must be free and the ENI attached to nothing.
pub(super) fn plug(state: &mut State, eni_id: &EniId, slot: Slot, delete_on_termination: bool) -> AttachmentId {
    let id: AttachmentId = state.new_id();
    if let Some(instance) = state.instances.get_mut(&slot.instance) {
        instance.interfaces.insert((slot.card, slot.device_index), eni_id.clone());
    }
    if let Some(eni) = state.enis.get_mut(eni_id) {
        eni.attachment = Some(Attachment {
            id: id.clone(),
            instance: slot.instance,
            card: slot.card,
            device_index: slot.device_index,
            state: AttachmentState::Attaching,
            attach_time: state.now,
            delete_on_termination,
        });
    }
    state.attachments.insert(id.clone(), eni_id.clone());
    state.touch(eni_id);
    id
}

/// Takes an ENI off its instance. The answer comes at once, the link goes later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetachNetworkInterface {
    /// Which attachment.
    pub attachment: String,
}

impl Action for DetachNetworkInterface {
    const NAME: &'static str = "DetachNetworkInterface";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let eni_id = lookup::find(&state.attachments, &self.attachment)?.clone();
        // Known once the API tells of it: until then, it does not exist.
        let told = state.seen(View::Api, &eni_id).and_then(|eni| eni.attachment.as_ref());
        if told.is_none_or(|told| told.id.as_str() != self.attachment) {
            return Err(lookup::not_found::<AttachmentId>(&self.attachment));
        }
        let attachment = state.enis.get_mut(&eni_id).and_then(|eni| eni.attachment.as_mut());
        let attachment = attachment.ok_or_else(|| lookup::not_found::<AttachmentId>(&self.attachment))?;
        if attachment.device_index == 0 && attachment.card == 0 {
            return Err(ApiError::new(
                "OperationNotPermitted",
                "The network interface at device index 0 and networkCard index 0 cannot be detached.",
            ));
        }
        if attachment.state == AttachmentState::Detaching {
            let message = format!("Attachment '{}' is already being detached.", attachment.id);
            return Err(ApiError::new("IncorrectState", message));
        }
        attachment.state = AttachmentState::Detaching;
        let id = attachment.id.clone();
        let delay = state.draw(state.config.delays.detach);
        state.schedule(state.now.after(delay), Due::Detached(id));
        state.touch(&eni_id);
        Ok(())
    }
}
