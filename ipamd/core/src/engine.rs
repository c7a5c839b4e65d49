//! The daemon's mind: takes an event, returns commands. Holds the pool, the queue of waiting pods, and what is in flight.
//!
//! Promises, each held by a test of its name in `engine/tests.rs` or `tests/model.rs`:
//! I1 an address has at most one pod · I3 same key, same answer · I4 DEL of the unknown succeeds · I5 no reuse before the
//! cool-down is over · I6 nothing in use or cooling is unassigned or detached · I7 no plan exceeds the limits ·
//! I8 once faults stop, the pool reaches the policy · I10 same input, same commands · I11 a wanted pool needs nothing ·
//! I12 a stale source never causes a removal.

mod cloud;
mod refusal;
mod report;
mod restart;

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use eni_proto::{Pod, PodKey};

use crate::{
    Action, Command, CoolDown, EniId, Event, IntentId, Lease, Limits, Moment, Policy, Ticket,
    plan::{self, InFlight, Plan, Question},
    pool::Pool,
    ports::{Ec2Error, NodeIdentity},
    retry::{self, Backoff, Call, Pauses},
};

pub use report::{AddressState, EngineStatus, EniStatus};

/// A surplus must last this long before something is given back, so that the pool does not flap.
pub const SHRINK_PAUSE: Duration = Duration::from_secs(30);

/// How long after a release a failed write may still be that of the released lease.
const RELEASE_MEMORY: Duration = Duration::from_secs(30);

/// A pod that waits for an address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiter {
    ticket: Ticket,
    key: PodKey,
    pod: Pod,
    netns: String,
    deadline: Moment,
    /// How long it was ready to wait.
    patience: Duration,
}

/// A change that EC2 has not shown yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awaited {
    /// How many secondary addresses EC2 will list. 0: what happened is unknown.
    addresses: usize,
    since: Moment,
}

/// When EC2 is to be looked at next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// Not until something changes.
    AtRest,
    /// At this moment.
    At(Moment),
    /// The answer is on its way.
    Asked,
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
    intents: BTreeMap<IntentId, Action>,
    intent_prefix: String,
    intent_count: u64,
    look: Look,
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
    look_backoff: Backoff,
    last_error: Option<(Ec2Error, Moment)>,
    /// Since when there is more than wanted.
    surplus_since: Option<Moment>,
    /// ENIs that we deleted: a description that still lists them is stale.
    gone: BTreeMap<EniId, Moment>,
    host_trouble: BTreeMap<EniId, String>,
    last_plan: Plan,
    /// When the last event was handled: what was due by then has been done or waits for something else.
    handled_at: Moment,
}

impl Engine {
    /// Returns an engine that knows what the database recorded and will ask EC2 for the rest.
    #[must_use]
    pub fn new(start: Start, now: Moment) -> Self {
        let Start { node, policy, limits, leases, cooling, intent_prefix, intents_open: _ } = start;
        let mut pool = Pool::default();
        let latest = now.after(policy.cool_down);
        for cool_down in cooling {
            // One that seems to last longer was written by a clock that ran ahead; it begins anew.
            pool.rest(cool_down.address, cool_down.until.min(latest));
        }
        for lease in leases {
            pool.hold(lease);
        }
        let seed = retry::seed(node.instance.as_str());
        Self {
            node,
            policy,
            limits,
            pool,
            queue: Vec::new(),
            intents: BTreeMap::new(),
            intent_prefix,
            intent_count: 0,
            look: Look::At(now),
            observed: false,
            pauses: Pauses::new(seed),
            awaited: BTreeMap::new(),
            create_in_doubt: None,
            answered_again: BTreeMap::new(),
            released: BTreeMap::new(),
            unassigned: BTreeMap::new(),
            look_backoff: Backoff::new(seed.rotate_left(17)),
            last_error: None,
            surplus_since: None,
            gone: BTreeMap::new(),
            host_trouble: BTreeMap::new(),
            last_plan: Plan::default(),
            handled_at: now,
        }
    }

    /// Takes one event at `now` and returns what is to be done, in this order.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        self.handled_at = now;
        self.pool.warm_up(now);
        self.released.retain(|_, at| now.since(*at) < RELEASE_MEMORY);
        self.take(now, event, &mut commands);
        self.serve(now, &mut commands);
        self.plan(now, &mut commands);
        self.refuse(now, &mut commands);
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

    /// When a [`Event::Tick`] is due, if nothing happens before. Absent: never.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        let look = match self.look {
            Look::At(moment) => Some(moment),
            Look::AtRest | Look::Asked => None,
        };
        let shrink = self.surplus_since.map(|since| since.after(SHRINK_PAUSE));
        let due = [shrink, self.last_plan.old_enough_at].into_iter().flatten().chain(self.pauses.ends());
        let deadlines = self.queue.iter().map(|waiter| waiter.deadline);
        let cooling = self.pool.cooling().map(|(_, until)| until);
        // What was due already waits for something else, as a pause or an answer.
        let due = due.filter(|moment| *moment > self.handled_at);
        deadlines.chain(cooling).chain(look).chain(due).min()
    }

    fn take(&mut self, now: Moment, event: Event, commands: &mut Vec<Command>) {
        match event {
            Event::Add { ticket, key, pod, netns, deadline } => match self.pool.lease(&key) {
                Some(lease) => {
                    commands.push(Command::Grant { ticket, lease: lease.clone(), fresh: false });
                    self.answered_again.insert(key, now);
                }
                None => {
                    let patience = deadline.since(now);
                    self.queue.push(Waiter { ticket, key, pod, netns, deadline, patience });
                }
            },
            Event::Cancel { ticket } => self.queue.retain(|waiter| waiter.ticket != ticket),
            Event::Del { ticket, key } => self.del(now, ticket, key, commands),
            Event::Reclaim { ticket, key, seen_at } => {
                let released = if self.answered_since(&key, seen_at) { None } else { self.end(now, &key) };
                commands.push(Command::Release { ticket: Some(ticket), key, released });
            }
            Event::StoreFailed { key } => self.store_failed(now, key, commands),
            Event::Remembered { interfaces } => self.remember(now, interfaces, commands),
            Event::LeftOpen { action } => self.left_open(now, action),
            Event::Observed { asked_at, interfaces, .. } => self.observed(now, asked_at, interfaces, commands),
            Event::ObserveFailed { error } => self.not_observed(now, error),
            Event::Settled { intent, outcome } => self.settled(now, &intent, outcome, commands),
            Event::HostReady { eni } => self.host_ready(&eni),
            Event::HostFailed { eni, reason } => drop(self.host_trouble.insert(eni, reason)),
            Event::Kernel { .. } | Event::SecurityGroups { .. } | Event::Subnets { .. } | Event::Tick => {}
        }
    }

    /// Takes back a lease that could not be stored, unless a later answer for the key may have been.
    ///
    /// Then the lease stays until the DEL that follows every failed ADD.
    fn store_failed(&mut self, now: Moment, key: PodKey, commands: &mut Vec<Command>) {
        if self.answered_again.contains_key(&key) {
            return;
        }
        let until = now.after(self.policy.cool_down);
        if let Some(lease) = self.pool.end(&key, until) {
            let released = Some(CoolDown { address: lease.address, until });
            commands.push(Command::Release { ticket: None, key, released });
        }
    }

    fn del(&mut self, now: Moment, ticket: Ticket, key: PodKey, commands: &mut Vec<Command>) {
        // A pod that is deleted while it waits must not get an address afterwards.
        for waiter in self.queue.extract_if(.., |waiter| waiter.key == key) {
            commands.push(Command::Refuse { ticket: waiter.ticket, refusal: refusal::deleted(&waiter) });
        }
        let released = self.end(now, &key);
        commands.push(Command::Release { ticket: Some(ticket), key, released });
    }

    fn end(&mut self, now: Moment, key: &PodKey) -> Option<CoolDown> {
        self.answered_again.remove(key);
        let until = now.after(self.policy.cool_down);
        let lease = self.pool.end(key, until)?;
        self.released.insert(key.clone(), now);
        Some(CoolDown { address: lease.address, until })
    }

    /// Whether the key was told its address at `moment` or later: then its sandbox is as young.
    fn answered_since(&self, key: &PodKey, moment: Moment) -> bool {
        let first = self.pool.lease(key).map(|lease| lease.since);
        first.max(self.answered_again.get(key).copied()).is_some_and(|last| last >= moment)
    }

    /// Gives free addresses to waiting pods, first come first served.
    fn serve(&mut self, now: Moment, commands: &mut Vec<Command>) {
        let mut waiting = std::mem::take(&mut self.queue).into_iter();
        for waiter in waiting.by_ref() {
            // A repeated ADD may have been served by the one before it.
            if let Some(lease) = self.pool.lease(&waiter.key) {
                commands.push(Command::Grant { ticket: waiter.ticket, lease: lease.clone(), fresh: false });
                self.answered_again.insert(waiter.key, now);
                continue;
            }
            let Some((eni, address)) = self.pool.pick() else {
                self.queue.push(waiter);
                break;
            };
            let lease = Lease {
                eni: eni.interface.id.clone(),
                eni_mark: eni.mark(),
                key: waiter.key,
                pod: waiter.pod,
                netns: waiter.netns,
                address,
                since: now,
            };
            if self.released.contains_key(&lease.key) {
                self.answered_again.insert(lease.key.clone(), now);
            }
            self.pool.hold(lease.clone());
            commands.push(Command::Grant { ticket: waiter.ticket, lease, fresh: true });
        }
        self.queue.extend(waiting);
    }

    fn in_flight(&self) -> InFlight {
        let mut in_flight = InFlight::default();
        for action in self.intents.values() {
            match action {
                Action::Create { amount, .. } => in_flight.creating = Some(amount.addresses()),
                Action::Assign { eni, amount } => {
                    in_flight.assigning += amount.addresses();
                    in_flight.enis.insert(eni.clone());
                }
                Action::Attach { eni, .. }
                | Action::DeleteOnTermination { eni, .. }
                | Action::SecurityGroups { eni, .. }
                | Action::Unassign { eni, .. }
                | Action::Detach { eni, .. }
                | Action::Delete { eni } => drop(in_flight.enis.insert(eni.clone())),
            }
        }
        for (id, awaited) in &self.awaited {
            let listed = self.pool.eni(id).map_or(0, |eni| eni.interface.secondary.len());
            in_flight.assigning += awaited.addresses.saturating_sub(listed);
            in_flight.enis.insert(id.clone());
        }
        if self.create_in_doubt.is_some() {
            in_flight.creating = in_flight.creating.or(Some(0));
        }
        in_flight
    }

    /// Plans and starts changes, unless EC2 has not been seen yet or asked us to wait.
    fn plan(&mut self, now: Moment, commands: &mut Vec<Command>) {
        if !self.observed {
            self.last_plan =
                Plan { waiting: vec!["EC2 has not described this node yet".to_owned()], ..Plan::default() };
            return;
        }
        let in_flight = self.in_flight();
        let plan = plan::plan(&Question {
            node: &self.node,
            policy: &self.policy,
            limits: self.limits,
            pool: &self.pool,
            in_flight: &in_flight,
            demand: self.queue.len(),
            may_shrink: self.surplus_since.is_some_and(|since| now.since(since) >= SHRINK_PAUSE),
            now,
        });
        self.surplus_since = plan.surplus.then(|| self.surplus_since.unwrap_or(now));
        for action in
            plan.actions.iter().filter(|action| !self.pauses.rests(Call::of(action), now)).cloned().collect::<Vec<_>>()
        {
            self.start(now, action, commands);
        }
        self.last_plan = plan;
    }
}

#[cfg(test)]
mod tests;
