//! When EC2 is to be asked for a description next, and of what. One question at a time.

use crate::{Moment, ports::Scope, retry::Backoff};

#[derive(Debug, Clone)]
pub(super) struct Looks {
    attached: Option<Moment>,
    tagged: Option<Moment>,
    /// The answer to this is on its way.
    asked: Option<Scope>,
    backoff: Backoff,
}

impl Looks {
    /// What is attached is to be described at `first`.
    pub(super) const fn new(seed: u64, first: Moment) -> Self {
        Self { attached: Some(first), tagged: None, asked: None, backoff: Backoff::new(seed) }
    }

    const fn due(&mut self, scope: Scope) -> &mut Option<Moment> {
        match scope {
            Scope::Attached => &mut self.attached,
            Scope::Tagged => &mut self.tagged,
        }
    }

    /// Asks for a description at `moment` at the latest.
    pub(super) fn at(&mut self, scope: Scope, moment: Moment) {
        let due = self.due(scope);
        *due = Some(due.map_or(moment, |earlier| earlier.min(moment)));
    }

    /// Asks again soon, later each time.
    pub(super) fn again(&mut self, scope: Scope, now: Moment) {
        let wait = self.backoff.next_wait();
        self.at(scope, now.after(wait));
    }

    pub(super) fn calm(&mut self) {
        self.backoff.succeed();
    }

    /// What is to be asked now, if anything.
    pub(super) fn ask(&mut self, now: Moment) -> Option<Scope> {
        if self.asked.is_some() {
            return None;
        }
        let due = [(self.attached, Scope::Attached), (self.tagged, Scope::Tagged)];
        let due = due.into_iter().filter_map(|(due, scope)| Some((due.filter(|due| *due <= now)?, scope)));
        let scope = due.min().map(|(_, scope)| scope);
        if let Some(scope) = scope {
            *self.due(scope) = None;
            self.asked = Some(scope);
        }
        scope
    }

    /// A description came that was asked for at `asked_at`: what was to be asked by then has been.
    pub(super) fn answered(&mut self, scope: Scope, asked_at: Moment) {
        if self.asked == Some(scope) {
            self.asked = None;
        }
        let due = self.due(scope);
        *due = due.filter(|due| *due > asked_at);
    }

    /// The question had no answer; it is asked again.
    pub(super) fn failed(&mut self, now: Moment) {
        if let Some(scope) = self.asked.take() {
            self.again(scope, now);
        }
    }

    /// Whether an answer is on its way, or will be asked for.
    pub(super) const fn pending(&self) -> bool {
        self.asked.is_some() || self.attached.is_some() || self.tagged.is_some()
    }

    pub(super) const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// When something is to be asked next. Absent: nothing, or not before an answer comes.
    pub(super) fn next(&self) -> Option<Moment> {
        if self.asked.is_some() {
            return None;
        }
        [self.attached, self.tagged].into_iter().flatten().min()
    }
}
