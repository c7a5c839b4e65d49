//! What is neither growth nor shrink: finishes what was begun, and keeps attributes as they should be.

use std::time::Duration;

use super::{Plan, Planner};
use crate::{Action, Placement, pool::Phase};

/// How long EC2 may take to detach an ENI before the first try to delete it: most often that is enough, and asking when
/// costs as much as trying.
pub const DETACH_TIME: Duration = Duration::from_secs(5);

impl Planner<'_> {
    /// Deletes ENIs of ours that nobody needs: spare ones, and those that have been detached.
    pub(super) fn clean_up(&self, short: usize, plan: &mut Plan) {
        let needed = (short > 0 || self.lacks_places()) && self.free_device_indexes().next().is_some();
        let mut leftovers: Vec<_> = if needed { vec![] } else { self.spares().collect() };
        let left = self.managed().filter(|eni| eni.phase == Phase::Leaving && self.is_ours(eni));
        leftovers
            .extend(left.filter(|eni| !self.is_busy(eni)).filter(|eni| self.waited(eni.changed_at, DETACH_TIME, plan)));
        for eni in leftovers {
            if !self.is_busy(eni) && !Self::has_action(plan, eni) && self.q.pool.taken_on(eni) == 0 {
                plan.actions.push(Action::Delete { eni: eni.interface.id.clone() });
            }
        }
    }

    /// Makes attached ENIs of ours go away together with the instance.
    pub(super) fn tie_to_instance(&self, plan: &mut Plan) {
        for eni in self.managed() {
            let up = matches!(eni.phase, Phase::Preparing | Phase::Ready);
            if let Some(attachment) = &eni.interface.attachment
                && up
                && self.is_ours(eni)
                && !attachment.delete_on_termination
                && !Self::has_action(plan, eni)
                && !self.is_busy(eni)
            {
                let (eni, attachment) = (eni.interface.id.clone(), attachment.id.clone());
                plan.actions.push(Action::DeleteOnTermination { eni, attachment });
            }
        }
    }

    /// Gives the ENIs that we made the security groups of the primary one. Custom networking has its own.
    pub(super) fn follow_groups(&self, plan: &mut Plan) {
        let wanted = &self.q.node.security_groups;
        if matches!(self.q.policy.placement, Placement::Custom(_)) || wanted.is_empty() {
            return;
        }
        for eni in self.managed() {
            let up = matches!(eni.phase, Phase::Preparing | Phase::Ready);
            let differs = eni.interface.security_groups != *wanted;
            if up && differs && self.is_ours(eni) && !Self::has_action(plan, eni) && !self.is_busy(eni) {
                let (eni, security_groups) = (eni.interface.id.clone(), wanted.clone());
                plan.actions.push(Action::SecurityGroups { eni, security_groups });
            }
        }
    }
}
