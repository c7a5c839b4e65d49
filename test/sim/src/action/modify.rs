//! ModifyNetworkInterfaceAttribute: exactly one attribute a call.

use ipam_core::AttachmentId;

use crate::{
    Action, ApiError,
    action::groups,
    world::{State, lookup},
};

/// Changes one attribute of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModifyNetworkInterfaceAttribute {
    /// Which ENI.
    pub interface: String,
    /// What changes.
    pub change: Change,
}

/// One attribute and its new value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Whether the ENI goes away with its instance.
    DeleteOnTermination {
        /// Its attachment.
        attachment: String,
        /// The new value.
        value: bool,
    },
    /// The description.
    Description(String),
    /// Whether packets from addresses that it does not own are dropped.
    SourceDestCheck(bool),
    /// All its groups, at least one.
    Groups(Vec<String>),
}

impl Action for ModifyNetworkInterfaceAttribute {
    const NAME: &'static str = "ModifyNetworkInterfaceAttribute";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let eni = state.known(&self.interface)?;
        let (id, vpc) = (eni.id.clone(), eni.vpc.clone());
        let new_groups = match &self.change {
            Change::Groups(ids) => groups::resolve(state, &vpc, ids)?,
            Change::DeleteOnTermination { .. } | Change::Description(_) | Change::SourceDestCheck(_) => Vec::new(),
        };
        let eni = state.known_mut(&self.interface)?;
        match &self.change {
            Change::DeleteOnTermination { attachment, value } => {
                lookup::parse::<AttachmentId>(attachment)?;
                let found = eni.attachment.as_mut().filter(|found| found.id.as_str() == attachment);
                let found = found.ok_or_else(|| lookup::not_found::<AttachmentId>(attachment))?;
                found.delete_on_termination = *value;
            }
            Change::Description(text) => eni.description.clone_from(text),
            Change::SourceDestCheck(on) => eni.source_dest_check = *on,
            Change::Groups(_) => eni.groups = new_groups,
        }
        state.touch(&id);
        Ok(())
    }
}
