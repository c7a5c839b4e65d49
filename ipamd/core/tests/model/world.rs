//! The engine in a world of virtual time: what happens when, and what is said.

mod calls;
mod disk;
mod kernel;
mod pods;
mod promises;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use eni_proto::PodKey;
use ipam_core::{
    Action, Command, EniId, Event, Families, IntentId, Lease, Limits, Moment, Policy, Ticket,
    engine::Engine,
    ports::{Interface, InterfaceKind, Scope},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use self::{calls::Fate, disk::Disk};
use crate::{
    chance::{self, Chance},
    cloud::Cloud,
};

/// Something that the world does later.
#[derive(Debug, Clone)]
enum Later {
    /// EC2 carries the action out and answers so much later.
    Carry(IntentId, Action, Fate),
    /// EC2 looks at its records and answers later.
    Describe(Moment, Scope),
    /// The kernel looks and answers later.
    LookAtKernel(Moment),
    /// The engine hears this.
    Tell(Event),
    /// The kernel is prepared, if the ENI is attached.
    Prepared(EniId),
}

/// What was said, for people and for comparing runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Told(Moment, Event),
    Answered(Command),
    Crashed(Moment, usize),
}

/// The engine and all around it.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) policy: Policy,
    pub(crate) cloud: Cloud,
    pub(crate) engine: Engine,
    /// What goes wrong, and how often.
    pub(crate) chance: Chance,
    /// ENIs that an operator made for something else.
    pub(crate) operators: BTreeSet<EniId>,
    /// All that was ever said to the engine and by it.
    pub(crate) said: Vec<Said>,
    /// EC2 calls, by name.
    pub(crate) calls: BTreeMap<&'static str, usize>,
    rng: ChaCha8Rng,
    later: BTreeMap<(Moment, u64), Later>,
    sequence: u64,
    starts: u32,
    /// What survives a crash.
    disk: Disk,
    /// Leases whose write failed, of which the engine has not heard yet.
    unstored: BTreeSet<PodKey>,
    waiting: BTreeMap<Ticket, (PodKey, Moment)>,
    /// ENIs that the kernel carries, and those that it is being prepared for.
    prepared: BTreeSet<EniId>,
    preparing: BTreeSet<EniId>,
    /// Addresses that the kernel has for a pod which nobody knows: since when, and whether the engine was told.
    strays: BTreeMap<IpAddr, (Moment, bool)>,
    in_flight: BTreeMap<IntentId, Action>,
    intents: BTreeSet<IntentId>,
    observing: u32,
    /// When each ENI was changed last.
    changed: BTreeMap<EniId, Moment>,
    /// What EC2 would have said when.
    history: Vec<(Moment, Vec<Interface>)>,
}

impl World {
    /// A world whose size, policy and luck follow from the seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self::of(seed, Families::V4, false)
    }

    /// The same life with pods of these families, which have an address of the other one for their way out with `egress`.
    pub(crate) fn of(seed: u64, families: Families, egress: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: u32| rng.next_u32() % n;
        let limits = chance::limits(&mut below);
        // Not drawn: the lives of seeds that showed a bug stay as they were.
        let (trunk, has_trunk) = (seed % 8 == 5, seed % 16 == 5);
        let policy = Policy { trunk, ..chance::policy_of(families, egress, &mut below) };
        let mut world = Self::quiet(seed, policy, limits);
        for (number, role) in [(2, "1"), (3, "0")] {
            world.cloud.add_subnet(number, Some(role));
        }
        if below(4) == 0 {
            let few = below(12);
            for subnet in ["subnet-1", "subnet-2"] {
                let near = |address: Ipv4Addr| address.to_bits() % 4096 < 20 + few;
                world.cloud.crowd(&subnet.parse().unwrap(), near);
            }
        } else if below(4) == 0 {
            world.cloud.crowd(&"subnet-1".parse().unwrap(), |address| address.to_bits() % 16 < 9);
        }
        if below(3) == 0 {
            let kind = if has_trunk { InterfaceKind::Trunk } else { InterfaceKind::Plain };
            world.operators.insert(world.cloud.add_operators_eni(1, kind));
        }
        world.chance = Chance::draw(&mut below);
        world.begin();
        world
    }

    /// A world without faults, before its first moment.
    pub(crate) fn quiet(seed: u64, policy: Policy, limits: Limits) -> Self {
        let now = Moment::from_millis(1_000_000);
        Self {
            now,
            engine: Engine::new(disk::start(&policy, limits), now),
            policy,
            cloud: Cloud::new(limits),
            chance: Chance::default(),
            operators: BTreeSet::new(),
            said: Vec::new(),
            calls: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
            later: BTreeMap::new(),
            sequence: 0,
            starts: 0,
            disk: Disk::default(),
            unstored: BTreeSet::new(),
            waiting: BTreeMap::new(),
            prepared: BTreeSet::new(),
            preparing: BTreeSet::new(),
            strays: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            intents: BTreeSet::new(),
            observing: 0,
            changed: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// The daemon begins.
    pub(crate) fn begin(&mut self) {
        self.tell(Event::Tick);
    }

    /// A random number below `n`.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        self.rng.next_u32() % n
    }

    /// Whether what happens in `percent` of all cases happens now.
    fn happens(&mut self, percent: u32) -> bool {
        percent > 0 && self.below(100) < percent
    }

    fn soon(&mut self, most_milliseconds: u32) -> Moment {
        let wait = self.below(most_milliseconds + 1);
        self.now.after(Duration::from_millis(wait.into()))
    }

    fn schedule(&mut self, at: Moment, later: Later) {
        self.sequence += 1;
        self.later.insert((at, self.sequence), later);
    }

    /// One random thing happens: a pod comes, goes, gives up; time passes; rarely the daemon is killed, or somebody else
    /// changes something.
    pub(crate) fn step(&mut self) {
        match self.below(100) {
            0..25 => self.pod_comes(),
            25..40 => self.pod_goes(),
            40..43 => self.caller_gives_up(),
            43 => self.kill_and_maybe_change(),
            44..46 => {
                let wait = Duration::from_secs(self.below(120).into());
                self.pass(wait);
            }
            46 => self.somebody_interferes(),
            47..60 => {
                let wait = Duration::from_millis(self.below(500).into());
                self.pass(wait);
            }
            _ => self.next(),
        }
    }

    /// From now on nothing goes wrong, and the subnets have room.
    pub(crate) fn calm_down(&mut self) {
        self.chance.calm();
        for subnet in ["subnet-1", "subnet-2"] {
            self.cloud.relieve(&subnet.parse().unwrap());
        }
    }

    /// Lets so much time pass, with all that happens meanwhile.
    pub(crate) fn pass(&mut self, wait: Duration) {
        let end = self.now.after(wait);
        while self.next_due().is_some_and(|due| due <= end) {
            self.next();
        }
        self.now = end;
        self.cloud.advance(end);
        self.remember();
    }

    /// When something happens next. Absent: all is at rest.
    fn next_due(&self) -> Option<Moment> {
        let later = self.later.keys().next().map(|(at, _)| *at);
        [later, self.engine.next_wake()].into_iter().flatten().min()
    }

    /// Goes on to what happens next.
    fn next(&mut self) {
        let Some(due) = self.next_due() else { return };
        self.now = due.max(self.now);
        self.cloud.advance(self.now);
        self.remember();
        match self.later.first_key_value() {
            Some((&(at, sequence), _)) if at <= self.now => {
                if let Some(later) = self.later.remove(&(at, sequence)) {
                    self.happen(later);
                }
            }
            Some(_) | None => drop(self.tell(Event::Tick)),
        }
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::Carry(intent, action, fate) => self.carry_out(intent, action, fate),
            Later::Describe(asked_at, scope) => self.describe(asked_at, scope),
            Later::LookAtKernel(asked_at) => self.look_at_kernel(asked_at),
            Later::Tell(event) => self.deliver(event),
            Later::Prepared(eni) => self.finish_preparing(eni),
        }
    }

    fn deliver(&mut self, event: Event) {
        match &event {
            Event::Observed { .. } | Event::ObserveFailed { .. } => self.observing -= 1,
            Event::Settled { intent, .. } => {
                self.in_flight.remove(intent);
                self.disk.answered(intent);
            }
            Event::Kernel { holds: Ok(holds), .. } => self.told_of_strays(holds),
            Event::StoreFailed { key } if !self.unstored.remove(key) => {
                let (before, key) = (self.disk.held.get(key).cloned(), key.clone());
                if self.tell(event).is_some() {
                    assert_eq!(self.disk.held.get(&key).cloned(), before, "taken from a pod that has its answer");
                }
                return;
            }
            _ => {}
        }
        let of_the_cloud = matches!(event, Event::Observed { .. } | Event::Settled { .. });
        if self.tell(event).is_some() && of_the_cloud {
            self.write_down();
        }
    }

    /// Tells the engine, carries out what it says, and checks every promise. Nothing is returned when the daemon is killed
    /// meanwhile.
    fn tell(&mut self, event: Event) -> Option<Vec<Command>> {
        self.said.push(Said::Told(self.now, event.clone()));
        let commands = self.engine.handle(self.now, event);
        self.said.extend(commands.iter().cloned().map(Said::Answered));
        let crash = !commands.is_empty() && self.chance.crashes > 0 && self.below(1_000) < self.chance.crashes;
        let until = if crash { usize::try_from(self.below(64)).unwrap() % commands.len() } else { commands.len() };
        for command in &commands[..until] {
            self.obey(command);
        }
        if crash {
            self.said.push(Said::Crashed(self.now, until));
            self.obey_durably(&commands[until]);
            self.restart();
            return None;
        }
        self.check();
        Some(commands)
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Grant { ticket, lease, fresh } => self.granted(*ticket, lease, *fresh),
            Command::Refuse { ticket, refusal } => {
                assert!(self.waiting.remove(ticket).is_some(), "{ticket:?} was refused and did not wait");
                assert!(!refusal.message.is_empty() && !refusal.advice.is_empty());
            }
            Command::Release { key, released, .. } => self.released(key, released),
            Command::Observe { scope } => self.observe(*scope),
            Command::DescribeSubnets => self.describe_subnets(),
            Command::ObserveKernel => {
                let at = self.soon(self.chance.kernel_delay);
                self.schedule(at, Later::LookAtKernel(self.now));
            }
            Command::Start { intent, action } => self.started(intent, action),
            Command::PrepareHost { interface } => self.prepare(interface),
            Command::ForgetHost { eni } => self.forget_host(eni),
        }
    }

    /// All that pods hold.
    pub(crate) fn held(&self) -> usize {
        self.disk.held.len()
    }

    fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.disk.held.values()
    }

    /// Whether a pod holds an address of the ENI.
    pub(crate) fn uses(&self, eni: &EniId) -> bool {
        self.leases().any(|lease| lease.eni == *eni)
    }

    /// Whether a pod holds the address.
    pub(crate) fn holds(&self, address: impl Into<IpAddr> + Copy) -> bool {
        self.leases().any(|lease| lease.addresses.has(address))
    }

    fn ticket(&mut self) -> Ticket {
        self.sequence += 1;
        Ticket(self.sequence)
    }
}
