//! Faults on demand: which calls go wrong, how, and how often.

use std::{collections::VecDeque, time::Duration};

use crate::ApiError;

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// EC2 answers with this error and does nothing.
    Refuse(ApiError),
    /// The request is lost: no effect, no reply.
    DropBefore,
    /// The reply is lost: the call has its effect.
    DropAfter,
    /// Nothing goes wrong but the delay.
    Slow,
}

/// A fault for the next calls of one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRule {
    /// API action, or `*` for each.
    pub action: String,
    /// How many calls are hit before the rule is gone.
    pub times: u32,
    /// What goes wrong.
    pub effect: Effect,
    /// How much later the reply comes.
    pub delay: Duration,
}

impl FaultRule {
    /// The next `times` calls of `action` are refused with `code` and an HTTP `status`.
    #[must_use]
    pub fn refuse(action: &str, times: u32, code: &str, status: u16) -> Self {
        let error = ApiError { code: code.to_owned().into(), message: format!("{code} on demand"), status };
        Self { action: action.to_owned(), times, effect: Effect::Refuse(error), delay: Duration::ZERO }
    }

    /// The next `times` calls of `action` never arrive.
    #[must_use]
    pub fn drop_before(action: &str, times: u32) -> Self {
        Self { action: action.to_owned(), times, effect: Effect::DropBefore, delay: Duration::ZERO }
    }

    /// The next `times` calls of `action` have their effect, but their replies are lost.
    #[must_use]
    pub fn drop_after(action: &str, times: u32) -> Self {
        Self { action: action.to_owned(), times, effect: Effect::DropAfter, delay: Duration::ZERO }
    }

    /// The next `times` calls of `action` are answered `delay` later.
    #[must_use]
    pub fn slow(action: &str, times: u32, delay: Duration) -> Self {
        Self { action: action.to_owned(), times, effect: Effect::Slow, delay }
    }

    /// The same fault, with replies that come `delay` later.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// The rules that still apply, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Faults(VecDeque<FaultRule>);

impl Faults {
    pub(crate) fn add(&mut self, rule: FaultRule) {
        if rule.times > 0 {
            self.0.push_back(rule);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Uses up one hit of the oldest rule for `action`.
    pub(crate) fn strike(&mut self, action: &str) -> Option<(Effect, Duration)> {
        let at = self.0.iter().position(|rule| rule.action == action || rule.action == "*")?;
        let rule = self.0.get_mut(at)?;
        rule.times -= 1;
        let hit = (rule.effect.clone(), rule.delay);
        if rule.times == 0 {
            self.0.remove(at);
        }
        Some(hit)
    }
}
