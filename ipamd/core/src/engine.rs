//! The daemon's mind: takes an event, returns commands. Holds the pool, the queue of waiting pods, and what is in flight.
//!
//! Promises, each held by a test of its name in `engine/tests.rs` or `tests/model.rs`:
//! I1 an address has at most one pod · I3 same key, same answer · I4 DEL of the unknown succeeds · I5 no reuse before the
//! cool-down is over · I6 nothing in use or cooling is unassigned or detached · I7 no plan exceeds the limits ·
//! I8 once faults stop, the pool reaches the policy · I10 same input, same commands · I11 a wanted pool needs nothing ·
//! I12 a stale source never causes a removal.

mod cloud;
mod descriptions;
mod disputes;
mod failures;
mod guard;
mod leasing;
mod looks;
mod planning;
mod refusal;
mod report;
mod restart;
mod returning;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use disputes::Disputes;
use eni_proto::{Pod, PodKey};
use guard::Kernel;
use looks::Looks;
use returning::Returning;

use crate::{
    Action, Command, CoolDown, EniId, Event, IntentId, Lease, Limits, Moment, Policy, Ticket,
    forecast::Forecast,
    plan::Plan,
    pool::Pool,
    ports::{Ec2Error, NodeIdentity},
    retry::{self, Pauses},
    subnets::Subnets,
};

pub use report::{AddressState, EngineStatus, EniStatus, PlanStatus, SubnetStatus, Waiting, WaitingFor};

/// How long after a release a failed write may still be that of the released lease.
const RELEASE_MEMORY: Duration = Duration::from_secs(30);

/// A pod that waits for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiter {
    ticket: Ticket,
    key: PodKey,
    pod: Pod,
    netns: String,
    card: u8,
    deadline: Moment,
    /// How long it was ready to wait.
    patience: Duration,
}

/// A change that EC2 has not shown yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    /// How many addresses and prefixes EC2 will list. Absent: what happened is unknown.
    slots: Option<usize>,
    /// How many addresses each of those that are missing has.
    each: usize,
    /// The device index that it may have been attached at.
    device_index: Option<u8>,
    since: Moment,
}

/// All that an engine begins with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The node.
    pub node: NodeIdentity,
    /// What the operator wants.
    pub policy: Policy,
    /// What the instance allows.
    pub limits: Limits,
    /// The leases on record, and those that only the kernel knew.
    pub leases: Vec<Lease>,
    /// The cool-downs on record.
    pub cooling: Vec<CoolDown>,
    /// Unique for each start on each node, at most 50 characters: intents are named after it.
    pub intent_prefix: String,
    /// Whether an earlier run ended while a change was under way: then what it may have left at EC2 is looked for.
    pub intents_open: bool,
}

/// The pure state machine. Create it once per start; feed it with [`Engine::handle`].
#[derive(Debug, Clone)]
pub struct Engine {
    node: NodeIdentity,
    policy: Policy,
    limits: Limits,
    pool: Pool,
    queue: Vec<Waiter>,
    returning: Returning,
    intents: BTreeMap<IntentId, Action>,
    intent_prefix: String,
    intent_count: u64,
    looks: Looks,
    /// When all is looked at once more, because something went wrong that may have left something behind. Absent: nothing
    /// has since the last time.
    scan_at: Option<Moment>,
    kernel: Kernel,
    subnets: Subnets,
    /// Whether the answer to a question for the subnets is on its way.
    subnets_asked: bool,
    forecast: Forecast,
    /// Whether EC2 has described this node since the start: before that, nothing is planned.
    observed: bool,
    pauses: Pauses,
    /// ENIs whose last change EC2 has to show before they are changed again.
    awaited: BTreeMap<EniId, Awaited>,
    /// When a create call ended without an answer. Absent: none did, or EC2 has shown since what became of it.
    create_in_doubt: Option<Moment>,
    /// Keys that were answered more than once, and when last: a failed write of the first answer proves nothing.
    answered_again: BTreeMap<PodKey, Moment>,
    /// When each key that rests was released: a write that fails now may belong to its former lease.
    released: BTreeMap<PodKey, Moment>,
    /// When each address was given back: a description that lags may list it still.
    unassigned: BTreeMap<Ipv4Addr, Moment>,
    /// What EC2 said that cannot be, by ENI, for people.
    odd: BTreeMap<EniId, String>,
    /// What EC2 lists where it cannot be.
    disputes: Disputes,
    last_error: Option<(Ec2Error, Moment)>,
    /// Since when there is more than wanted.
    surplus_since: Option<Moment>,
    /// Since when addresses are missing that have not been asked for.
    need_since: Option<Moment>,
    /// Until when needs are gathered. Absent: nothing is needed, or it has been asked for.
    gather_until: Option<Moment>,
    /// ENIs that we deleted: a description that still lists them is stale.
    gone: BTreeMap<EniId, Moment>,
    host_trouble: BTreeMap<EniId, String>,
    last_plan: Plan,
    /// The last plan of each network card above 0, and since when there is more on it than wanted.
    further: BTreeMap<u8, (Plan, Option<Moment>)>,
    /// For which network card above 0 each ENI is made that EC2 is asked for.
    made_for: BTreeMap<IntentId, u8>,
    started_at: Moment,
    /// When the last event was handled: what was due by then has been done or waits for something else.
    handled_at: Moment,
}

impl Engine {
    /// Returns an engine that knows what the database recorded and will ask EC2 for the rest.
    #[must_use]
    pub fn new(start: Start, now: Moment) -> Self {
        let Start { node, policy, limits, leases, cooling, intent_prefix, intents_open } = start;
        let forecast = Forecast::new(now, !leases.is_empty());
        let mut pool = Pool::new(policy.further_cards);
        let latest = now.after(policy.cool_down);
        for cool_down in cooling {
            // One that seems to last longer was written by a clock that ran ahead; it begins anew.
            pool.rest(cool_down.address, cool_down.until.min(latest));
        }
        for lease in leases {
            pool.hold(lease);
        }
        let seed = retry::seed(node.instance.as_str());
        let mut engine = Self {
            node,
            policy,
            limits,
            pool,
            queue: Vec::new(),
            returning: Returning::default(),
            intents: BTreeMap::new(),
            intent_prefix,
            intent_count: 0,
            looks: Looks::new(seed.rotate_left(17), now),
            scan_at: None,
            kernel: Kernel::default(),
            subnets: Subnets::new(seed.rotate_left(31)),
            subnets_asked: false,
            forecast,
            observed: false,
            pauses: Pauses::new(seed),
            awaited: BTreeMap::new(),
            create_in_doubt: None,
            answered_again: BTreeMap::new(),
            released: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            odd: BTreeMap::new(),
            disputes: Disputes::new(),
            last_error: None,
            surplus_since: None,
            need_since: None,
            gather_until: None,
            gone: BTreeMap::new(),
            host_trouble: BTreeMap::new(),
            last_plan: Plan::default(),
            further: BTreeMap::new(),
            made_for: BTreeMap::new(),
            started_at: now,
            handled_at: now,
        };
        if intents_open {
            engine.doubt_create(now);
        }
        engine
    }

    /// Takes one event at `now` and returns what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        self.handled_at = now;
        self.pool.warm_up(now);
        self.released.retain(|_, at| now.since(*at) < RELEASE_MEMORY);
        self.returning.forget_old(now);
        let came = matches!(event, Event::Add { card: 0, .. });
        self.take(now, event, &mut commands);
        self.serve(now, &mut commands);
        if came && self.observed && self.queue.iter().any(|waiter| waiter.card == 0) {
            self.forecast.missed(now);
        }
        self.plan(now, &mut commands);
        self.refuse(now, &mut commands);
        self.watch_kernel(now, &mut commands);
        self.review_disputes(now);
        self.look(now, &mut commands);
        commands
    }

    /// The lease of a key.
    #[must_use]
    pub fn lease(&self, key: &PodKey) -> Option<&Lease> {
        self.pool.lease(key)
    }

    /// All leases, by key.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.pool.leases()
    }

    /// What the node has.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What is wanted of the pool now.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// What the instance allows.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// When a [`Event::Tick`] is due, if nothing happens before. Absent: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        let looks = self.looks.next().into_iter().chain(self.scan_at).chain(self.gather_until);
        let further = self.further.values().filter_map(|(plan, _)| plan.next_step_at);
        let plan =
            self.last_plan.next_step_at.into_iter().chain(further).chain(self.subnets.ends()).chain(self.pauses.ends());
        let fades = if self.policy.warm_auto { self.forecast.changes_at(self.handled_at) } else { None };
        let due = plan.chain(fades).chain(self.next_kernel_watch()).chain(self.returning.next_end());
        let deadlines = self.queue.iter().map(|waiter| waiter.deadline);
        let cooling = self.pool.cooling().map(|(_, until)| until);
        // What was due already waits for something else, as a pause or an answer.
        let due = due.filter(|moment| *moment > self.handled_at);
        deadlines.chain(cooling).chain(looks).chain(due).min()
    }

    fn take(&mut self, now: Moment, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::Add { ticket, key, pod, netns, card, deadline } => match self.pool.lease(&key) {
                Some(lease) => {
                    commands.push(Command::Grant { ticket, lease: lease.clone(), fresh: false });
                    self.answered_again.insert(key, now);
                }
                None => {
                    let is_back = card > 0 || self.returning.is_back(&key, &pod);
                    if !is_back && !self.queue.iter().any(|waiter| waiter.key == key) {
                        self.forecast.arrived(now);
                    }
                    let patience = deadline.since(now);
                    self.queue.push(Waiter { ticket, key, pod, netns, card, deadline, patience });
                }
            },
            Event::Cancel { ticket } => self.queue.retain(|waiter| waiter.ticket != ticket),
            Event::Del { ticket, key } => self.del(now, ticket, key, commands),
            Event::Reclaim { ticket, key, seen_at } => {
                let released = if self.answered_since(&key, seen_at) { Vec::new() } else { self.end(now, &key) };
                commands.push(Command::Release { ticket: Some(ticket), key, released });
            }
            Event::StoreFailed { key } => self.store_failed(now, key, commands),
            Event::Remembered { interfaces } => self.remember(now, interfaces, commands),
            Event::LeftOpen { action } => self.left_open(now, action),
            Event::Observed { asked_at, scope, interfaces } => {
                self.observed(now, asked_at, scope, interfaces, commands);
            }
            Event::ObserveFailed { error } => self.not_observed(now, error),
            Event::Subnets { outcome } => self.subnets_described(now, outcome),
            Event::SecurityGroups { mut security_groups } => {
                security_groups.sort();
                self.node.security_groups = security_groups;
            }
            Event::Kernel { asked_at, holds } => self.kernel_answered(asked_at, holds),
            Event::Settled { intent, outcome } => self.settled(now, &intent, outcome, commands),
            Event::HostReady { eni } => self.host_ready(&eni),
            Event::HostFailed { eni, reason } => self.host_failed(now, eni, reason),
            Event::Policy { policy } => self.policy = *policy,
            Event::Tick => {}
        }
    }
}

#[cfg(test)]
mod tests;
