//! The engine in a world of virtual time, and the promises that are checked after each of its steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use eni_proto::{EniMark, Pod, PodKey};
use ipam_core::{
    Action, Command, CoolDown, EniId, Event, IntentId, Lease, Limits, Moment, Policy, Ticket,
    engine::{Engine, Start},
    ports::{Cidr4, Ec2Error, Interface, NodeIdentity, RefusalClass, Scope},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::cloud::{Cloud, INSTANCE, refused};

/// Something that the world does later.
#[derive(Debug, Clone)]
enum Later {
    /// EC2 carries the action out and answers so much later.
    Carry(IntentId, Action, Fate),
    /// EC2 looks at its records and answers later.
    Describe(Moment, Scope),
    /// The engine hears this.
    Tell(Event),
    /// The kernel is prepared.
    Prepared(EniId),
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Refused(RefusalClass),
    LostBefore,
    LostAfter,
}

/// The engine and all around it.
pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) policy: Policy,
    pub(crate) cloud: Cloud,
    pub(crate) engine: Engine,
    /// Percentage of calls that go wrong.
    pub(crate) faults: u32,
    pub(crate) operators: Option<EniId>,
    /// All that the engine ever said, for comparing runs.
    pub(crate) said: Vec<String>,
    /// EC2 calls, by name.
    pub(crate) calls: BTreeMap<&'static str, usize>,
    rng: ChaCha8Rng,
    later: BTreeMap<(Moment, u64), Later>,
    sequence: u64,
    starts: u32,
    /// The store: what the pods hold, and what rests.
    held: BTreeMap<PodKey, Lease>,
    resting: BTreeMap<Ipv4Addr, Moment>,
    waiting: BTreeMap<Ticket, (PodKey, Moment)>,
    prepared: BTreeSet<EniId>,
    preparing: BTreeSet<EniId>,
    in_flight: BTreeMap<IntentId, Action>,
    /// Changes of which the engine has heard how they ended.
    settled: Vec<Action>,
    intents: BTreeSet<IntentId>,
    observing: u32,
    /// How far EC2's descriptions lag behind its changes at most, in milliseconds, and what it would have said when.
    lag: u32,
    history: Vec<(Moment, Vec<Interface>)>,
    /// Leases whose write failed, of which the engine has not heard yet.
    unstored: BTreeSet<PodKey>,
}

fn node() -> NodeIdentity {
    NodeIdentity {
        instance: INSTANCE.parse().unwrap(),
        instance_type: "m0.model".to_owned(),
        region: "nowhere-1".to_owned(),
        primary_mac: "02:00:00:00:00:01".parse().unwrap(),
        primary_eni: "eni-1".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        subnet_cidr: Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
        zone: "nowhere-1a".to_owned(),
        vpc: "vpc-1".parse().unwrap(),
        vpc_cidrs: vec![],
        security_groups: vec![],
    }
}

fn start(policy: &Policy, limits: Limits) -> Start {
    Start {
        node: node(),
        policy: policy.clone(),
        limits,
        leases: vec![],
        cooling: vec![],
        intent_prefix: "i-1-0".to_owned(),
        intents_open: false,
    }
}

impl World {
    /// A world whose size, policy and luck follow from the seed.
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut below = |n: u32| rng.next_u32() % n;
        let limits = Limits {
            max_enis: u8::try_from(2 + below(3)).unwrap(),
            addresses_per_eni: u16::try_from(3 + below(6)).unwrap(),
            ..Limits::default()
        };
        let by_address = below(2) == 0;
        let policy = Policy {
            warm_enis: u8::try_from(below(2)).unwrap(),
            warm_addresses: if by_address { u16::try_from(below(5)).unwrap() } else { 0 },
            minimum_addresses: if by_address { u16::try_from(below(8)).unwrap() } else { 0 },
            ..Policy::default()
        };
        let mut world = Self::quiet(seed, policy, limits);
        if below(4) == 0 {
            let few = below(12);
            world.cloud.crowd(&"subnet-1".parse().unwrap(), |address| address.to_bits() % 4096 < 20 + few);
        }
        world.operators = (below(3) == 0).then(|| world.cloud.add_operators_eni(1));
        world.faults = [0, 5, 30][usize::try_from(below(3)).unwrap()];
        world.lag = if seed.is_multiple_of(2) { 0 } else { 1_500 };
        world.begin();
        world
    }

    /// A world without faults, before its first moment.
    pub(crate) fn quiet(seed: u64, policy: Policy, limits: Limits) -> Self {
        let now = Moment::from_millis(1_000_000);
        Self {
            now,
            engine: Engine::new(start(&policy, limits), now),
            policy,
            cloud: Cloud::new(limits),
            faults: 0,
            operators: None,
            said: Vec::new(),
            calls: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed),
            later: BTreeMap::new(),
            sequence: 0,
            starts: 0,
            held: BTreeMap::new(),
            resting: BTreeMap::new(),
            waiting: BTreeMap::new(),
            prepared: BTreeSet::new(),
            preparing: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            settled: Vec::new(),
            intents: BTreeSet::new(),
            observing: 0,
            lag: 0,
            history: Vec::new(),
            unstored: BTreeSet::new(),
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

    fn soon(&mut self, most_milliseconds: u32) -> Moment {
        let wait = self.below(most_milliseconds + 1);
        self.now.after(Duration::from_millis(wait.into()))
    }

    fn schedule(&mut self, at: Moment, later: Later) {
        self.sequence += 1;
        self.later.insert((at, self.sequence), later);
    }

    /// One random thing happens: a pod comes, goes, gives up; time passes; rarely the daemon is killed.
    pub(crate) fn step(&mut self) {
        match self.below(100) {
            0..25 => self.pod_comes(),
            25..40 => self.pod_goes(),
            40..43 => self.caller_gives_up(),
            43..44 => self.kill_and_restart(),
            44..46 => {
                let wait = Duration::from_secs(self.below(120).into());
                self.pass(wait);
            }
            46..60 => {
                let wait = Duration::from_millis(self.below(500).into());
                self.pass(wait);
            }
            _ => self.next(),
        }
    }

    fn pod_comes(&mut self) {
        let (pod, deadline) = (self.below(24), self.soon(20_000));
        self.add_pod(pod, deadline);
    }

    /// This pod asks for an address.
    pub(crate) fn add_pod(&mut self, pod: u32, deadline: Moment) {
        let ticket = self.ticket();
        let key = PodKey::new("pods", &format!("c{pod}"), "eth0").unwrap();
        self.waiting.insert(ticket, (key.clone(), deadline));
        self.tell(Event::Add { ticket, key, pod: Pod::default(), netns: "/n".to_owned(), deadline });
    }

    fn pod_goes(&mut self) {
        let pod = self.below(24);
        self.delete_pod(pod);
    }

    /// This pod gives its address back.
    pub(crate) fn delete_pod(&mut self, pod: u32) {
        let key = PodKey::new("pods", &format!("c{pod}"), "eth0").unwrap();
        let (ticket, before) = (self.ticket(), self.held.get(&key).cloned());
        let commands = self.tell(Event::Del { ticket, key: key.clone() });
        let released: Vec<_> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Release { ticket: to, released, .. } if *to == Some(ticket) => Some(released),
                _ => None,
            })
            .collect();
        // I4: the unknown succeeds too; one answer in each case.
        assert_eq!(released.len(), 1, "DEL of {key}: {commands:?}");
        assert_eq!(released[0].as_ref().map(|rest| rest.address), before.map(|lease| lease.address));
        assert!(!self.waiting.values().any(|(waiter, _)| *waiter == key), "{key} still waits after its DEL");
    }

    fn caller_gives_up(&mut self) {
        let Some(&ticket) = self.waiting.keys().next() else { return };
        self.waiting.remove(&ticket);
        self.tell(Event::Cancel { ticket });
    }

    /// The operator changes the settings, for which the daemon is killed and started again.
    pub(crate) fn restart_with(&mut self, policy: Policy) {
        self.policy = policy;
        self.kill_and_restart();
    }

    /// What was on its way to EC2 lands or is lost; what was stored is there again.
    fn kill_and_restart(&mut self) {
        for (_, later) in std::mem::take(&mut self.later) {
            if let Later::Carry(_, action, fate) = later
                && matches!(fate, Fate::Done | Fate::LostAfter)
            {
                let _ = self.cloud.apply(&action, self.now.after(Duration::from_secs(1)));
            }
        }
        self.history.clear();
        for key in std::mem::take(&mut self.unstored) {
            self.held.remove(&key);
        }
        self.starts += 1;
        self.waiting.clear();
        self.prepared.clear();
        self.preparing.clear();
        self.observing = 0;
        let leases = self.held.values().cloned().collect();
        let cooling = self.resting.iter().map(|(&address, &until)| CoolDown { address, until }).collect();
        let intent_prefix = format!("i-1-{}", self.starts);
        let open = std::mem::take(&mut self.in_flight).into_values().map(|action| (action, true));
        let doubted = std::mem::take(&mut self.settled).into_iter().map(|action| (action, false));
        let open: Vec<_> = open
            .chain(doubted)
            .filter(|(action, open)| *open || self.engine.doubts(action))
            .map(|(action, _)| action)
            .collect();
        let start = start(&self.policy, self.cloud.limits);
        let start = Start { leases, cooling, intent_prefix, intents_open: !open.is_empty(), ..start };
        let interfaces = self.engine.pool().enis().map(|eni| eni.interface.clone()).collect();
        self.engine = Engine::new(start, self.now);
        self.tell(Event::Remembered { interfaces });
        for action in open {
            self.tell(Event::LeftOpen { action });
        }
        self.tell(Event::Tick);
    }

    fn ticket(&mut self) -> Ticket {
        self.sequence += 1;
        Ticket(self.sequence)
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
    pub(crate) fn next_due(&self) -> Option<Moment> {
        let later = self.later.keys().next().map(|(at, _)| *at);
        [later, self.engine.next_wake()].into_iter().flatten().min()
    }

    /// Goes on to what happens next.
    pub(crate) fn next(&mut self) {
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
            Later::Describe(asked_at, scope) => {
                let failed = self.below(100) < self.faults;
                let event = match failed {
                    true => Event::ObserveFailed { error: refused(RefusalClass::SlowDown) },
                    false => Event::Observed { asked_at, scope, interfaces: self.description(scope) },
                };
                let at = self.soon(300);
                self.schedule(at, Later::Tell(event));
            }
            Later::Tell(event) => {
                match &event {
                    Event::Observed { .. } | Event::ObserveFailed { .. } => self.observing -= 1,
                    Event::Settled { intent, .. } => self.settled.extend(self.in_flight.remove(intent)),
                    Event::StoreFailed { key } if !self.unstored.remove(key) => {
                        let before = self.held.get(key).cloned();
                        let key = key.clone();
                        self.tell(event);
                        assert_eq!(self.held.get(&key).cloned(), before, "taken from a pod that has its answer");
                        return;
                    }
                    _ => {}
                }
                self.tell(event);
            }
            Later::Prepared(eni) => {
                if self.preparing.remove(&eni) {
                    self.prepared.insert(eni.clone());
                    self.tell(Event::HostReady { eni });
                }
            }
        }
    }

    /// What EC2 says now: what was true a moment ago.
    fn description(&mut self, scope: Scope) -> Vec<Interface> {
        let lag = self.below(self.lag + 1);
        let as_of = self.now.as_millis().saturating_sub(lag.into());
        let earlier = self.history.iter().rev().find(|(at, _)| at.as_millis() <= as_of);
        let said = earlier.map_or_else(|| self.cloud.describe(), |(_, said)| said.clone());
        Cloud::select(said, scope)
    }

    fn remember(&mut self) {
        let said = self.cloud.describe();
        if self.history.last().is_none_or(|(_, last)| *last != said) {
            self.history.push((self.now, said));
        }
    }

    fn carry_out(&mut self, intent: IntentId, action: Action, fate: Fate) {
        let done_at = self.soon(5_000);
        let lost = Ec2Error::Unknown { action: "Model", reason: "the reply was lost".to_owned() };
        let outcome = match fate {
            Fate::Done => {
                self.check_safe(&action);
                self.cloud.apply(&action, done_at)
            }
            Fate::Refused(class) => Err(refused(class)),
            Fate::LostBefore => Err(lost),
            Fate::LostAfter => {
                self.check_safe(&action);
                self.cloud.apply(&action, done_at).and(Err(lost))
            }
        };
        self.remember();
        let at = self.soon(300);
        self.schedule(at, Later::Tell(Event::Settled { intent, outcome }));
    }

    fn fate(&mut self, action: &Action) -> Fate {
        if self.below(100) >= self.faults {
            return Fate::Done;
        }
        match self.below(6) {
            0 => Fate::LostBefore,
            1 => Fate::LostAfter,
            2 => Fate::Refused(RefusalClass::NotAllowed),
            3 if matches!(action, Action::Create { .. } | Action::Assign { .. }) => {
                Fate::Refused(RefusalClass::SubnetFull)
            }
            4 => Fate::Refused(RefusalClass::TryLater),
            _ => Fate::Refused(RefusalClass::SlowDown),
        }
    }

    /// Tells the engine, carries out what it says, and checks every promise.
    fn tell(&mut self, event: Event) -> Vec<Command> {
        let told = format!("{} {event:?}", self.now);
        let commands = self.engine.handle(self.now, event);
        self.said.push(told);
        self.said.extend(commands.iter().map(|command| format!("    {command:?}")));
        for command in &commands {
            self.obey(command);
        }
        self.check();
        commands
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Grant { ticket, lease, fresh } => self.granted(*ticket, lease, *fresh),
            Command::Refuse { ticket, refusal } => {
                assert!(self.waiting.remove(ticket).is_some(), "{ticket:?} was refused and did not wait");
                assert!(!refusal.message.is_empty() && !refusal.advice.is_empty());
            }
            Command::Release { key, released, .. } => {
                let lease = self.held.remove(key);
                self.unstored.remove(key);
                assert_eq!(lease.map(|lease| lease.address), released.as_ref().map(|rest| rest.address));
                if let Some(rest) = released {
                    assert_eq!(rest.until, self.now.after(self.policy.cool_down));
                    self.resting.insert(rest.address, rest.until);
                }
            }
            Command::Observe { scope } => {
                self.count("DescribeNetworkInterfaces");
                self.observing += 1;
                assert_eq!(self.observing, 1, "EC2 is asked twice at a time");
                let at = self.soon(300);
                self.schedule(at, Later::Describe(self.now, *scope));
            }
            Command::DescribeSubnets => {
                self.count("DescribeSubnets");
                let at = self.soon(300);
                self.schedule(at, Later::Tell(Event::Subnets { outcome: Ok(self.cloud.subnets()) }));
            }
            Command::ObserveKernel => {
                let holds = Ok(self.held.values().map(|lease| lease.address).collect());
                let (asked_at, at) = (self.now, self.soon(50));
                self.schedule(at, Later::Tell(Event::Kernel { asked_at, holds }));
            }
            Command::Start { intent, action } => self.started(intent, action),
            Command::PrepareHost { interface } => {
                assert_ne!(Some(&interface.id), self.operators.as_ref(), "the operator's ENI was touched");
                self.prepared.remove(&interface.id);
                self.preparing.insert(interface.id.clone());
                let at = self.soon(2_000);
                self.schedule(at, Later::Prepared(interface.id.clone()));
            }
            Command::ForgetHost { eni } => {
                self.preparing.remove(eni);
                self.prepared.remove(eni);
                assert!(!self.held.values().any(|lease| lease.eni == *eni), "{eni} is forgotten while pods use it");
            }
        }
    }

    fn granted(&mut self, ticket: Ticket, lease: &Lease, fresh: bool) {
        let waited = self.waiting.remove(&ticket);
        assert_eq!(waited.map(|(key, _)| key).as_ref(), Some(&lease.key), "{ticket:?} did not wait for this");
        if !fresh {
            // I3.
            assert_eq!(self.held.get(&lease.key), Some(lease), "same key, another answer");
            // This answer was written, whatever became of the first.
            self.unstored.remove(&lease.key);
            return;
        }
        // I1.
        assert!(!self.held.values().any(|other| other.address == lease.address), "{lease:?} is held twice");
        assert!(!self.held.contains_key(&lease.key), "{lease:?}: same key, another answer");
        // I5.
        let rest = self.resting.remove(&lease.address);
        assert!(rest.is_none_or(|until| until <= self.now), "{lease:?} rests until {rest:?}");
        let owner = self.cloud.owner(lease.address).unwrap_or_else(|| panic!("{lease:?} is on no ENI"));
        assert_eq!(owner.id, lease.eni);
        assert_ne!(Some(&owner.id), self.operators.as_ref(), "the operator's ENI was used");
        let attachment = owner.attachment.as_ref().unwrap_or_else(|| panic!("{lease:?} is on no instance"));
        assert_eq!(lease.eni_mark, EniMark::of_device(attachment.device_index));
        assert!(self.prepared.contains(&lease.eni), "{lease:?}: the kernel is not prepared");
        self.held.insert(lease.key.clone(), lease.clone());
        if self.below(300) < self.faults {
            self.unstored.insert(lease.key.clone());
            let at = self.soon(100);
            self.schedule(at, Later::Tell(Event::StoreFailed { key: lease.key.clone() }));
        }
    }

    fn started(&mut self, intent: &IntentId, action: &Action) {
        assert!(self.intents.insert(intent.clone()), "{intent} was used before");
        assert!(intent.0.len() <= 64);
        let eni = action.eni();
        let busy = eni.is_some() && self.in_flight.values().any(|other| other.eni() == eni);
        assert!(!busy, "{action:?} while another change is under way on the ENI");
        assert!(eni.is_none() || eni != self.operators.as_ref(), "{action:?}: the operator's ENI was touched");
        self.check_limits(action);
        self.check_safe(action);
        self.count(match action {
            Action::Create { .. } => "CreateNetworkInterface",
            Action::Attach { .. } => "AttachNetworkInterface",
            Action::DeleteOnTermination { .. } | Action::SecurityGroups { .. } => "ModifyNetworkInterfaceAttribute",
            Action::Assign { .. } => "AssignPrivateIpAddresses",
            Action::Unassign { .. } => "UnassignPrivateIpAddresses",
            Action::Detach { .. } => "DetachNetworkInterface",
            Action::Delete { .. } => "DeleteNetworkInterface",
        });
        self.in_flight.insert(intent.clone(), action.clone());
        let fate = self.fate(action);
        let at = self.soon(300);
        self.schedule(at, Later::Carry(intent.clone(), action.clone(), fate));
    }

    /// I7.
    fn check_limits(&self, action: &Action) {
        let Limits { max_enis, addresses_per_eni, .. } = self.cloud.limits;
        match action {
            Action::Create { amount, .. } => {
                let still = |later: &&Later| matches!(later, Later::Carry(_, Action::Create { .. }, _));
                let creating = self.later.values().filter(still).count();
                let known = |eni: &&Interface| eni.attachment.is_some() || self.engine.pool().eni(&eni.id).is_some();
                let there = self.cloud.enis.values().filter(known).count();
                assert!(there + creating < usize::from(max_enis), "one ENI too many");
                assert!(amount.slots() < usize::from(addresses_per_eni), "{action:?} is more than an ENI carries");
            }
            Action::Assign { eni, amount } => {
                let has = self.cloud.enis.get(eni).map_or(0, |eni| eni.secondary.len() + eni.prefixes.len());
                assert!(amount.slots() > 0);
                let wanted = 1 + has + amount.slots();
                assert!(wanted <= usize::from(addresses_per_eni), "{action:?}: it has {has} already");
            }
            Action::Attach { device_index, .. } => {
                let taken = |index: u8| {
                    let attachments = self.cloud.enis.values().filter_map(|eni| eni.attachment.as_ref());
                    attachments.into_iter().any(|attachment| attachment.device_index == index)
                };
                assert!(!taken(*device_index), "{action:?}: the slot is taken");
            }
            _ => {}
        }
    }

    /// I6. Called when the action begins, and again when EC2 carries it out.
    fn check_safe(&self, action: &Action) {
        let in_use = |address: &Ipv4Addr| {
            self.held.values().any(|lease| lease.address == *address)
                || self.resting.get(address).is_some_and(|until| *until > self.now)
        };
        match action {
            Action::Unassign { holdings, .. } => {
                assert!(holdings.addresses.is_empty() != holdings.prefixes.is_empty(), "{action:?}");
                assert!(!holdings.all().any(|address| in_use(&address)), "{action:?}: in use or resting");
            }
            Action::Detach { eni, .. } | Action::Delete { eni } => {
                let mut on_it = self.cloud.enis.get(eni).into_iter().flat_map(Interface::addresses);
                assert!(!on_it.any(|address| in_use(&address)), "{action:?}: in use or resting");
                assert_ne!(eni.as_str(), "eni-1", "the primary ENI");
            }
            _ => {}
        }
    }

    /// What must hold after every step.
    fn check(&self) {
        // I12, and that engine and store agree.
        let leases: BTreeMap<_, _> = self.engine.leases().map(|lease| (lease.key.clone(), lease.clone())).collect();
        assert_eq!(leases, self.held);
        for (ticket, (_, deadline)) in &self.waiting {
            assert!(*deadline > self.now, "{ticket:?} waits past its deadline {deadline}");
        }
        let wake = self.engine.next_wake();
        assert!(wake.is_none_or(|wake| wake > self.now), "wants to be woken at {wake:?}, at once");
    }

    /// Whether a pod holds an address of the ENI.
    pub(crate) fn uses(&self, eni: &EniId) -> bool {
        self.held.values().any(|lease| lease.eni == *eni)
    }

    /// Whether a pod holds the address.
    pub(crate) fn holds(&self, address: Ipv4Addr) -> bool {
        self.held.values().any(|lease| lease.address == address)
    }

    fn count(&mut self, call: &'static str) {
        *self.calls.entry(call).or_default() += 1;
    }

    /// All that pods hold.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }
}
