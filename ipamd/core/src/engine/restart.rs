//! What an earlier run left behind: the ENIs that it knew, and the changes whose end it did not hear of.

use std::time::Duration;

use super::{Engine, descriptions::next_phase};
use crate::{
    Action, Command, EniId, Moment,
    pool::Phase,
    ports::{Interface, Scope},
};

impl Engine {
    /// Whether EC2 has yet to show what became of this change. Until then a restart has to hear of it ([`Event::LeftOpen`]).
    ///
    /// [`Event::LeftOpen`]: crate::Event::LeftOpen
    #[must_use]
    pub fn doubts(&self, action: &Action) -> bool {
        let leaving = |eni: &EniId| self.pool.eni(eni).is_some_and(|eni| eni.phase == Phase::Leaving);
        let disputed = |eni: &EniId| self.pool.eni(eni).is_some_and(|eni| eni.disputed > 0);
        match action.eni() {
            None => self.create_in_doubt.is_some(),
            Some(eni) => self.awaited.contains_key(eni) || leaving(eni) || disputed(eni),
        }
    }

    /// Takes over what an earlier run knew, so that pods are served before EC2 answers. Nothing is changed at EC2 on its word.
    pub(super) fn remember(&mut self, now: Moment, interfaces: Vec<Interface>, commands: &mut Vec<Command>) {
        // What an earlier run meant to look for it cannot tell any more.
        self.arm_scan(now);
        for interface in interfaces {
            let attachment = interface.attachment.as_ref();
            if attachment.is_some_and(|attachment| attachment.instance != self.node.instance) {
                continue;
            }
            let (phase, _) = next_phase(None, attachment, Duration::ZERO);
            let id = interface.id.clone();
            self.add(now, interface, phase, 0);
            if let Some(eni) = self.pool.eni_mut(&id) {
                // It is no news: it may leave as soon as it is not needed.
                eni.since = Moment::default();
            }
            match phase {
                Phase::Preparing => self.prepare(&id, commands),
                // What was made right before the end may have more than its answer said.
                Phase::Unattached => self.doubt_spare(&id, now),
                Phase::Attaching | Phase::Ready | Phase::Leaving => {}
            }
        }
    }

    /// Treats a change that an earlier run began as one whose answer was lost: EC2 is looked at before its ENI is changed.
    pub(super) fn left_open(&mut self, now: Moment, action: Action) {
        match &action {
            Action::Create { .. } => self.doubt_create(now),
            Action::Detach { eni, .. } => self.set_phase(eni, Phase::Leaving, now),
            Action::Unassign { holdings, .. } => self.pool.let_go(holdings.all()),
            Action::Attach { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Assign { .. }
            | Action::Delete { .. } => {}
        }
        if let Action::Attach { eni, device_index, .. } = &action {
            self.doubt_attach(eni, *device_index, now);
        } else if let Some(eni) = action.eni() {
            self.doubt(eni, None, now);
        }
        if action.eni().is_some() {
            // It may hang on no instance.
            self.looks.at(Scope::Tagged, now);
        }
    }

    fn doubt_spare(&mut self, id: &EniId, now: Moment) {
        self.doubt(id, None, now);
        self.looks.at(Scope::Tagged, now);
    }
}
