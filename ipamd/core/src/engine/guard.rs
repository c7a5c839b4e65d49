//! The release guard: nothing is given back unless two of three truths agree that nobody uses it.
//!
//! Our records always have to, and EC2 may not have said that there is no such ENI. The kernel is asked right before; if it
//! cannot be read, a description of the ENI that EC2 gave since then has to agree with our records instead. What the kernel has for a pod that nobody knows is never given
//! back and never given out.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::Engine;
use crate::{Action, Command, EniId, Moment, ports::Scope};

/// For how long the kernel's answer counts.
const FRESH: Duration = Duration::from_secs(5);
/// When the kernel is asked again that could not be read or did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// The same when it has what nobody knows; most often that is gone when the cool-down is over.
const WATCH_STRAYS: Duration = Duration::from_secs(20);

/// What is known of the kernel.
#[derive(Debug, Clone, Default)]
pub(super) struct Kernel {
    /// Since when an answer is awaited. Absent: none is.
    asked: Option<Moment>,
    /// When it was asked last, and whether it could be read.
    last: Option<(Moment, Result<(), String>)>,
}

impl Kernel {
    pub(super) fn trouble(&self) -> Option<&str> {
        self.last.as_ref().and_then(|(_, outcome)| outcome.as_ref().err()).map(String::as_str)
    }
}

impl Engine {
    /// Asks the kernel at the start, and again and again while it has what nobody knows.
    pub(super) fn watch_kernel(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let due = self.next_kernel_watch();
        if self.kernel.last.is_none() || due.is_some_and(|due| due <= now) {
            self.ask_kernel(now, commands);
        }
    }

    pub(super) fn next_kernel_watch(&self) -> Option<Moment> {
        let (asked_at, _) = self.kernel.last.as_ref()?;
        self.pool.strays().next().map(|_| asked_at.after(WATCH_STRAYS))
    }

    fn ask_kernel(&mut self, now: Moment, commands: &mut Vec<Command>) {
        if self.kernel.asked.is_none_or(|since| now.since(since) >= ASK_AGAIN) {
            self.kernel.asked = Some(now);
            commands.push(Command::ObserveKernel);
        }
    }

    pub(super) fn kernel_answered(&mut self, asked_at: Moment, holds: Result<BTreeSet<IpAddr>, String>) {
        self.kernel.asked = None;
        if let Ok(addresses) = &holds {
            self.pool.kernel_holds(addresses);
        }
        self.kernel.last = Some((asked_at, holds.map(drop)));
    }

    /// Whether the action takes nothing away that anybody may use. If that is not known, asks.
    pub(super) fn may_start(&mut self, now: Moment, action: &Action, commands: &mut Vec<Command>) -> bool {
        let (eni, addresses) = match action {
            Action::Unassign { eni, holdings } => (eni, holdings.all().collect::<Vec<_>>()),
            Action::Detach { eni, .. } | Action::Delete { eni } => (eni, self.addresses_of(eni)),
            Action::Create { .. }
            | Action::Attach { .. }
            | Action::DeleteOnTermination { .. }
            | Action::SecurityGroups { .. }
            | Action::Assign { .. } => return true,
        };
        let listed = self.pool.eni(eni).is_some_and(|eni| eni.unlisted_since.is_none());
        if !listed || addresses.iter().any(|address| self.pool.is_taken(*address)) {
            return false;
        }
        let goes = matches!(action, Action::Detach { .. } | Action::Delete { .. });
        if goes && self.pool.eni(eni).is_some_and(|eni| self.pool.taken_of_prefixes6(eni).next().is_some()) {
            return false;
        }
        match &self.kernel.last {
            Some((asked_at, Ok(()))) if now.since(*asked_at) <= FRESH => true,
            Some((asked_at, Err(_))) if now.since(*asked_at) <= ASK_AGAIN => {
                let agrees = self.pool.eni(eni).is_some_and(|eni| eni.described_at.is_some_and(|at| at >= *asked_at));
                if !agrees && !self.looks.pending() {
                    self.looks.at(Scope::Attached, now);
                }
                agrees
            }
            Some(_) | None => {
                self.ask_kernel(now, commands);
                false
            }
        }
    }

    fn addresses_of(&self, eni: &EniId) -> Vec<Ipv4Addr> {
        self.pool.eni(eni).map(|eni| eni.interface.addresses().collect()).unwrap_or_default()
    }
}
