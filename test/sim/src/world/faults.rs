//! Faults on demand: which calls go wrong, how, and how often.

use std::{collections::VecDeque, time::Duration};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::{ApiError, world::spoil::Spoil};

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// EC2 answers with this error and does nothing.
    Refuse(ApiError),
    /// EC2 does what was asked, and then answers with this error.
    FailAfter(ApiError),
    /// The request is lost: no effect, no reply.
    DropBefore,
    /// The reply is lost: the call has its effect.
    DropAfter,
    /// The call has its effect, but its answer cannot be right.
    Spoil(Spoil),
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

    /// The next `times` calls of `action` have their effect, but are answered with `code` and an HTTP `status`.
    #[must_use]
    pub fn fail_after(action: &str, times: u32, code: &str, status: u16) -> Self {
        let error = ApiError { code: code.to_owned().into(), message: format!("{code} on demand"), status };
        Self { action: action.to_owned(), times, effect: Effect::FailAfter(error), delay: Duration::ZERO }
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

    /// The next `times` calls of `action` have their effect, but their answers cannot be right.
    #[must_use]
    pub fn spoil(action: &str, times: u32, spoil: Spoil) -> Self {
        Self { action: action.to_owned(), times, effect: Effect::Spoil(spoil), delay: Duration::ZERO }
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

/// How often calls go wrong by themselves: how many of a thousand. What comes first in this list is decided first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Refused with RequestLimitExceeded, whatever the budget says.
    pub throttled: u32,
    /// Answered with InternalError, half of them after the change was made.
    pub failed: u32,
    /// The request is lost.
    pub lost_requests: u32,
    /// The reply is lost.
    pub lost_replies: u32,
    /// The answer cannot be right: cut off, something else, a field that is missing or odd.
    pub spoilt: u32,
    /// The reply is slow.
    pub slow: u32,
    /// How slow at most.
    pub slowest: Duration,
}

impl Weather {
    /// One call in seven goes wrong, but all answers are right.
    pub const ROUGH: Self = Self {
        throttled: 50,
        failed: 30,
        lost_requests: 20,
        lost_replies: 20,
        spoilt: 0,
        slow: 30,
        slowest: Duration::from_secs(3),
    };
}

/// The rules that still apply, oldest first, and the weather, which is drawn from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Faults {
    rules: VecDeque<FaultRule>,
    pub(crate) weather: Weather,
    rng: ChaCha8Rng,
}

impl Faults {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        // Not the world's own sequence, so that a fault changes no id.
        Self { rules: VecDeque::new(), weather, rng: ChaCha8Rng::seed_from_u64(!seed) }
    }

    pub(crate) fn add(&mut self, rule: FaultRule) {
        if rule.times > 0 {
            self.rules.push_back(rule);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
        self.weather = Weather::default();
    }

    /// Uses up one hit of the oldest rule for `action`, or else asks the weather.
    pub(crate) fn strike(&mut self, action: &str) -> Option<(Effect, Duration)> {
        match self.rules.iter().position(|rule| rule.action == action || rule.action == "*") {
            Some(at) => self.use_up(at),
            None => self.draw(),
        }
    }

    fn draw(&mut self) -> Option<(Effect, Duration)> {
        let weather = self.weather;
        if weather == Weather::default() {
            return None;
        }
        let mut roll = self.rng.next_u32() % 1000;
        let mut hits = |share: u32| match roll.checked_sub(share) {
            Some(rest) => {
                roll = rest;
                false
            }
            None => true,
        };
        let error = |code: &'static str| ApiError { status: 503, ..ApiError::new(code, "bad weather") };
        let effect = if hits(weather.throttled) {
            Effect::Refuse(error("RequestLimitExceeded"))
        } else if hits(weather.failed / 2) {
            Effect::FailAfter(error("InternalError"))
        } else if hits(weather.failed.div_ceil(2)) {
            Effect::Refuse(error("InternalError"))
        } else if hits(weather.lost_requests) {
            Effect::DropBefore
        } else if hits(weather.lost_replies) {
            Effect::DropAfter
        } else if hits(weather.spoilt) {
            Effect::Spoil(Spoil::Any(self.rng.next_u64()))
        } else if hits(weather.slow) {
            let most = u32::try_from(weather.slowest.as_millis()).unwrap_or(u32::MAX - 1);
            return Some((Effect::Slow, Duration::from_millis((self.rng.next_u32() % (most + 1)).into())));
        } else {
            return None;
        };
        Some((effect, Duration::ZERO))
    }

    fn use_up(&mut self, at: usize) -> Option<(Effect, Duration)> {
        let rule = self.rules.get_mut(at)?;
        rule.times -= 1;
        let hit = (rule.effect.clone(), rule.delay);
        if rule.times == 0 {
            self.rules.remove(at);
        }
        Some(hit)
    }
}
