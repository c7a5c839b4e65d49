//! A cloud in memory: pure, synchronous, under the caller's time.
//!
//! Every request is an [`Action`] and goes through [`World::call`], which lets due changes happen first, applies faults,
//! writes the log and checks the invariants afterwards. The same configuration and the same calls at the same times give the same answers.
//!
//! Not here: sockets, clocks, threads ([`crate::SimCloud`] adds them).

mod budget;
pub(crate) mod catalogue;
pub(crate) mod cidr;
mod config;
mod faults;
pub(crate) mod filter;
mod invariants;
mod log;
pub(crate) mod lookup;
mod metadata;
pub mod model;
mod page;
pub(crate) mod space;
mod space6;
mod spoil;
mod state;
#[cfg(test)]
mod tests;
mod timeline;
mod views;

use std::{collections::BTreeSet, time::Duration};

use ipam_core::{InstanceId, Moment};

use self::{budget::Budgets, faults::Faults};
pub use self::{
    budget::{Budget, Charge},
    catalogue::InstanceType,
    config::{DelayRange, Delays, Lags, Order, Quotas, WorldConfig},
    faults::{Effect, FaultRule, Weather},
    filter::Filter,
    log::{LogEntry, RequestLog},
    page::{Page, Paging},
    space6::{Cidr6, Held6, Wanted6},
    spoil::Spoil,
    state::State,
};
pub(crate) use self::{space6::Space6, timeline::Due, views::View};
use crate::{Action, ApiError, Failure, imds::InstanceMetadata, world::model::Eni};

/// A cloud in memory. A clone is a snapshot of it: what happens to one does not happen to the other.
#[derive(Debug, Clone)]
pub struct World {
    state: State,
    faults: Faults,
    budgets: Budgets,
    /// Actions that the caller has no permission for.
    denied: BTreeSet<String>,
    log: RequestLog,
}

/// An answer, and how much later it is to arrive.
#[derive(Debug)]
pub struct Reply<T> {
    /// How the call ended.
    pub outcome: Result<T, Failure>,
    /// What is wrong with the text of the answer, for who writes it. Absent: nothing.
    pub spoil: Option<Spoil>,
    /// How much later the caller should hear of it; zero without a fault.
    pub delay: Duration,
}

impl<T> Reply<T> {
    /// What a caller makes of it who sees no text: an answer that cannot be right is none.
    ///
    /// # Errors
    /// As the call, or [`Failure::NoReply`].
    pub fn heard(self) -> Result<T, Failure> {
        if self.spoil.is_some() { Err(Failure::NoReply) } else { self.outcome }
    }
}

impl World {
    /// Returns an empty world as of `now`: no VPC, no instance.
    #[must_use]
    pub fn new(config: WorldConfig, now: Moment) -> Self {
        let log = RequestLog::new(config.log_capacity);
        let budgets = Budgets::new(config.budget_percent);
        Self {
            faults: Faults::new(config.weather, config.seed),
            state: State::new(config, now),
            budgets,
            denied: BTreeSet::new(),
            log,
        }
    }

    /// Does what `action` says, entirely or not at all, as of `now`.
    ///
    /// A time before an earlier call's counts as that earlier time.
    ///
    /// # Errors
    /// EC2's refusal, or a lost reply if a fault says so.
    ///
    /// # Panics
    /// When an invariant is broken afterwards, with the last requests in the message: that is a bug of the simulator.
    pub fn call<A: Action>(&mut self, action: &A, now: Moment) -> Result<A::Answer, Failure> {
        self.reply(action, now).heard()
    }

    /// Like [`World::call`], and says how much later a fault wants the reply to arrive.
    ///
    /// # Panics
    /// As [`World::call`].
    pub fn reply<A: Action>(&mut self, action: &A, now: Moment) -> Reply<A::Answer> {
        self.state.advance(now);
        let (effect, delay) = self.faults.strike(A::NAME).unwrap_or((Effect::Slow, Duration::ZERO));
        let (mut tokens_left, mut spoil) = (None, None);
        let outcome = match effect {
            Effect::Refuse(error) => Err(Failure::Refused(error)),
            Effect::DropBefore => Err(Failure::NoReply),
            Effect::DropAfter => {
                // Whether it went well or not is lost with the reply.
                drop(self.admit(action, &mut tokens_left).and_then(|()| self.apply(action)));
                Err(Failure::NoReply)
            }
            Effect::FailAfter(error) => {
                drop(self.admit(action, &mut tokens_left).and_then(|()| self.apply(action)));
                Err(Failure::Refused(error))
            }
            Effect::Spoil(how) => {
                spoil = Some(how);
                self.admit(action, &mut tokens_left).and_then(|()| self.apply(action)).map_err(Failure::Refused)
            }
            Effect::Slow => {
                self.admit(action, &mut tokens_left).and_then(|()| self.apply(action)).map_err(Failure::Refused)
            }
        };
        let spoilt = spoil.as_ref().map(|how| format!("{how:?}"));
        self.log.push(LogEntry {
            at: now,
            action: A::NAME,
            error: outcome.as_ref().err().map(|failure| failure.code().to_owned()).or(spoilt),
            tokens_left,
            request: format!("{action:?}"),
        });
        self.assert_invariants(false);
        Reply { outcome, spoil, delay }
    }

    /// Does what `action` says for whoever arranges the scene, or acts behind the caller's back: as of `now`, without a budget, a
    /// permission, a fault or a line in the log.
    ///
    /// # Errors
    /// EC2's refusal.
    ///
    /// # Panics
    /// As [`World::call`].
    pub fn arrange<A: Action>(&mut self, action: &A, now: Moment) -> Result<A::Answer, ApiError> {
        self.state.advance(now);
        let answer = self.apply(action);
        self.assert_invariants(false);
        answer
    }

    /// Lets a request in, or not: the account's budget first, then the caller's permission.
    fn admit<A: Action>(&mut self, action: &A, tokens_left: &mut Option<u64>) -> Result<(), ApiError> {
        let requests = if action.is_unbounded() { Charge::Unbounded } else { Charge::Requests };
        let charges = [(requests, 1), (Charge::Resources, action.resources())];
        *tokens_left = self.budgets.spend(A::NAME, &charges, self.state.now)?;
        let needed = [Some(A::NAME), action.makes_with_tags().then_some("CreateTags")];
        match needed.into_iter().flatten().find(|name| self.denied.contains(*name)) {
            Some(denied) => Err(ApiError::unauthorized(denied)),
            None => Ok(()),
        }
    }

    fn apply<A: Action>(&mut self, action: &A) -> Result<A::Answer, ApiError> {
        let answer = action.apply(&mut self.state)?;
        // What takes no time has happened when the caller looks next; the answer is EC2's first word on it.
        self.state.advance(self.state.now);
        Ok(answer)
    }

    /// Lets everything happen that is due at `now`.
    ///
    /// # Panics
    /// As [`World::call`].
    pub fn advance(&mut self, now: Moment) {
        self.state.advance(now);
        self.assert_invariants(false);
    }

    /// When the next change will happen by itself. Absent: nothing is under way.
    #[must_use]
    pub fn next_due(&self) -> Option<Moment> {
        self.state.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Grows whenever an ENI or an instance changes: attachments, addresses, states.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.state.version
    }

    /// The world's time: that of the latest call.
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.state.now
    }

    /// Makes coming calls fail. Rules are used up in the order they were made.
    pub fn inject(&mut self, rule: FaultRule) {
        self.faults.add(rule);
    }

    /// Changes how often calls go wrong by themselves.
    pub fn set_weather(&mut self, weather: Weather) {
        self.faults.weather = weather;
    }

    /// Takes all faults back; the weather is fine from now on.
    pub fn clear_faults(&mut self) {
        self.faults.clear();
    }

    /// Takes the permission for an action away, as `AttachNetworkInterface`, until [`World::allow`].
    pub fn deny(&mut self, action: &str) {
        self.denied.insert(action.to_owned());
    }

    /// Gives the permission for an action back.
    pub fn allow(&mut self, action: &str) {
        self.denied.remove(action);
    }

    /// What was asked so far.
    #[must_use]
    pub const fn log(&self) -> &RequestLog {
        &self.log
    }

    /// Every ENI, sorted by id, also those that are attached to nothing. For a host that carries their packets:
    /// an ENI has a link where [`Eni::is_plugged_in`].
    pub fn enis(&self) -> impl Iterator<Item = &Eni> {
        self.state.enis.values()
    }

    /// Every VPC, sorted by id.
    pub fn vpcs(&self) -> impl Iterator<Item = &model::Vpc> {
        self.state.vpcs.values()
    }

    /// Every subnet, sorted by id.
    pub fn subnets(&self) -> impl Iterator<Item = &model::Subnet> {
        self.state.subnets.values()
    }

    /// Every instance, sorted by id, also the terminated ones.
    pub fn instances(&self) -> impl Iterator<Item = &model::Instance> {
        self.state.instances.values()
    }

    /// What the metadata service of `instance` shows. Absent: there is no such instance, or it is not running.
    #[must_use]
    pub fn metadata(&self, instance: &InstanceId) -> Option<InstanceMetadata> {
        self.state.metadata(instance)
    }

    /// Checks every rule that must always hold, on everything.
    ///
    /// # Panics
    /// When one is broken, with the last requests in the message.
    pub fn assert_invariants_of_all(&mut self) {
        self.assert_invariants(true);
    }

    fn assert_invariants(&mut self, everything: bool) {
        let checked = if everything { self.state.check_all() } else { self.state.check_touched() };
        if let Err(broken) = checked {
            panic!("the simulated cloud is broken: {broken}\nlast requests:\n{}", self.log.tail(20));
        }
    }
}
