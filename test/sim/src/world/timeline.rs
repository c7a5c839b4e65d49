//! What happens by itself once its time has come.

use ipam_core::{AttachmentId, EniId, InstanceId, Moment, SubnetId, ports::Cidr4};

use crate::world::{
    model::{AttachmentState, InstanceState},
    state::State,
    views::View,
};

/// A change that was accepted and takes its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Due {
    /// The ENI becomes `available`.
    Ready(EniId),
    /// The attachment becomes `attached`.
    Attached(AttachmentId),
    /// A view of ENIs catches up with one.
    Seen(View, EniId),
    /// The count of a subnet's addresses is told.
    Counted(SubnetId),
    /// An address or a prefix that was given back may be given again.
    Rested(SubnetId, Cidr4),
    /// The ENI is gone.
    Deleted(EniId),
    /// The attachment goes away.
    Detached(AttachmentId),
    /// The instance becomes `running`.
    Running(InstanceId),
    /// The instance becomes `terminated`.
    Terminated(InstanceId),
}

impl State {
    /// Brings the world to `now`, one change after the other. A clock that goes backwards is ignored.
    pub(crate) fn advance(&mut self, now: Moment) {
        let now = now.max(self.now);
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            self.now = entry.key().0.max(self.now);
            let due = entry.remove();
            self.happen(&due);
        }
        self.now = now;
    }

    /// Lets one change happen. Whatever it was about may be gone or changed by now: then nothing happens.
    fn happen(&mut self, due: &Due) {
        match due {
            Due::Ready(eni) => {
                if let Some(eni) = self.enis.get_mut(eni) {
                    eni.ready = true;
                    let id = eni.id.clone();
                    self.touch(&id);
                }
            }
            Due::Seen(view, eni) => self.see(*view, eni),
            Due::Counted(subnet) => self.count(subnet),
            Due::Rested(subnet, what) => drop(self.in_space(subnet, |space| space.rested(*what))),
            Due::Deleted(eni) => self.remove_eni(eni),
            Due::Attached(attachment) => self.attachment_done(attachment),
            Due::Detached(attachment) => self.drop_attachment(attachment),
            Due::Running(instance) => {
                if let Some(instance) = self.instances.get_mut(instance).filter(|i| i.state == InstanceState::Pending) {
                    instance.state = InstanceState::Running;
                    self.version += 1;
                }
            }
            Due::Terminated(instance) => self.instance_gone(instance),
        }
    }

    fn attachment_done(&mut self, id: &AttachmentId) {
        let Some(eni) = self.attachments.get(id).and_then(|eni| self.enis.get_mut(eni)) else { return };
        let eni_id = eni.id.clone();
        if let Some(attachment) = eni.attachment.as_mut().filter(|a| a.state == AttachmentState::Attaching) {
            attachment.state = AttachmentState::Attached;
            self.touch(&eni_id);
        }
    }

    /// Takes an attachment away; the ENI becomes `available`.
    fn drop_attachment(&mut self, id: &AttachmentId) {
        let Some(eni_id) = self.attachments.remove(id) else { return };
        let Some(eni) = self.enis.get_mut(&eni_id) else { return };
        let mac = eni.mac;
        let Some(attachment) = eni.attachment.take() else { return };
        self.leave_ghost(&attachment.instance, mac);
        if let Some(instance) = self.instances.get_mut(&attachment.instance) {
            instance.interfaces.remove(&(attachment.card, attachment.device_index));
        }
        self.touch(&eni_id);
    }

    /// Ends an instance: its ENIs are deleted or become available.
    fn instance_gone(&mut self, id: &InstanceId) {
        let Some(instance) = self.instances.get_mut(id) else { return };
        instance.state = InstanceState::Terminated;
        self.version += 1;
        for eni_id in std::mem::take(&mut instance.interfaces).into_values() {
            let Some(eni) = self.enis.get_mut(&eni_id) else { continue };
            let deleted = eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination);
            if let Some(attachment) = eni.attachment.take() {
                self.attachments.remove(&attachment.id);
            }
            self.touch(&eni_id);
            if deleted {
                self.remove_eni(&eni_id);
            }
        }
    }

    /// Removes an ENI that is attached to nothing, and frees its addresses.
    pub(crate) fn remove_eni(&mut self, id: &EniId) {
        let Some(eni) = self.enis.remove(id) else { return };
        self.macs.remove(&eni.mac);
        self.in_space(&eni.subnet, |space| {
            eni.addresses().for_each(|address| space.release(address));
            eni.prefixes.iter().for_each(|prefix| space.release_prefix(*prefix));
        });
        if let Some(space) = self.spaces6.get_mut(&eni.subnet) {
            space.release(&eni.ipv6);
        }
        self.forget(&eni);
        self.touch(id);
    }
}
