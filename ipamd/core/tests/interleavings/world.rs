//! A node with two addresses, its database, and three pods whose sandboxes come and go.

mod promises;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use eni_proto::{Pod, PodKey};
use ipam_core::{Command, CoolDown, Event, Lease, Limits, Moment, Policy, Ticket};

use crate::node::{Node, Record, eni};

/// How many pods there are: one more than addresses.
pub(crate) const SANDBOXES: usize = 3;
const ADDRESSES: u8 = 2;
const COOL_DOWN: Duration = Duration::from_secs(30);
/// How long an ADD waits.
const PATIENCE: Duration = Duration::from_secs(20);

static TOLD: AtomicBool = AtomicBool::new(false);

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The runtime adds the pod's sandbox; a new one when the last was deleted.
    Add(usize),
    /// The runtime deletes the pod's sandbox, whether it was added or not.
    Del(usize),
    /// A DEL of the pod's sandbox before the present one.
    LateDel(usize),
    /// The sandbox's namespace goes without a DEL, and the daemon sees it.
    NetnsGone(usize),
    /// The runtime lists the sandboxes that it knows.
    Gc,
    /// The daemon is killed when so many of the writes that it has just begun are committed, and started again.
    Restart(usize),
}

/// A write that was begun and is not committed yet, and who waits for it.
#[derive(Debug, Clone)]
enum Write {
    Put(Lease, Ticket),
    Release(PodKey, CoolDown),
}

impl Write {
    fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Put(_, ticket) => Some(*ticket),
            Self::Release(..) => None,
        }
    }
}

/// One pod as the runtime knows it.
#[derive(Debug, Clone, Default)]
struct Sandboxes {
    /// How many sandboxes the pod has had. The last is the present one.
    count: usize,
    /// Whether the present one was added and not deleted since.
    wanted: bool,
    /// Whether its namespace is there.
    alive: bool,
    /// What an ADD of it was answered.
    heard: Option<Ipv4Addr>,
}

#[derive(Debug, Clone)]
pub(crate) struct World {
    now: Moment,
    node: Node,
    stored: BTreeMap<PodKey, Lease>,
    resting: BTreeMap<IpAddr, Moment>,
    writes: Vec<Write>,
    pods: [Sandboxes; SANDBOXES],
    /// ADDs that have no answer yet.
    waiting: BTreeMap<Ticket, usize>,
    tickets: u64,
    /// When the engine last answered an ADD of a key.
    answered: BTreeMap<PodKey, Moment>,
    /// What happened, for people.
    said: Vec<(Moment, Step)>,
}

fn policy() -> Policy {
    Policy { warm_enis: 0, minimum_addresses: ADDRESSES.into(), cool_down: COOL_DOWN, ..Policy::default() }
}

fn limits() -> Limits {
    Limits { max_enis: 1, addresses_per_eni: u16::from(ADDRESSES) + 1, ..Limits::default() }
}

fn begun(record: Record, now: Moment) -> Node {
    let mut node = Node::begun(policy(), limits(), record, now);
    node.tell(now, Event::Tick);
    node
}

/// Says which order it was when something does not hold.
impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() && !TOLD.swap(true, Ordering::Relaxed) {
            eprintln!("after {:?}", self.said);
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let now = Moment::from_millis(1_000_000);
        let mut node = begun(Record::default(), now);
        node.see(&[eni(0, ADDRESSES)], now);
        Self {
            now,
            node,
            stored: BTreeMap::new(),
            resting: BTreeMap::new(),
            writes: Vec::new(),
            pods: Default::default(),
            waiting: BTreeMap::new(),
            tickets: 0,
            answered: BTreeMap::new(),
            said: Vec::new(),
        }
    }

    /// How many pods have had a sandbox or a DEL.
    pub(crate) fn used(&self) -> usize {
        self.pods.iter().take_while(|pod| pod.count > 0).count()
    }

    /// How many writes a kill could lose.
    pub(crate) fn unwritten(&self) -> usize {
        self.writes.len()
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Tells states apart in which what follows can differ.
    pub(crate) fn fingerprint(&self) -> u64 {
        let Self { now, node, stored, resting, writes, pods, waiting, tickets: _, answered, said: _ } = self;
        let mut hasher = DefaultHasher::new();
        format!("{:?}", (now, node, stored, resting, writes, pods, waiting, answered)).hash(&mut hasher);
        hasher.finish()
    }

    /// Does the step and checks every promise.
    pub(crate) fn take(&mut self, step: Step) {
        self.said.push((self.now, step));
        // Numbered by the step, so that a ticket does not tell what happened before.
        self.tickets = 1000 * u64::try_from(self.said.len()).unwrap();
        if !matches!(step, Step::Restart(_)) {
            self.commit(self.writes.len());
            self.tell(Event::Tick);
        }
        match step {
            Step::Add(pod) => self.add(pod),
            Step::Del(pod) => self.del(pod),
            Step::LateDel(pod) => {
                if let Some(former) = self.pods[pod].count.checked_sub(2) {
                    self.end(key(pod, former));
                }
            }
            Step::NetnsGone(pod) => self.netns_gone(pod),
            Step::Gc => self.gc(),
            Step::Restart(written) => self.restart(written),
        }
        self.check();
    }

    fn add(&mut self, pod: usize) {
        let sandboxes = &mut self.pods[pod];
        if !sandboxes.wanted || !sandboxes.alive {
            // The runtime never starts a sandbox again that it deleted, or whose namespace it lost.
            let former = sandboxes.wanted.then(|| sandboxes.count - 1);
            *sandboxes = Sandboxes { count: sandboxes.count + 1, wanted: true, alive: true, heard: None };
            if let Some(former) = former {
                self.end(key(pod, former));
            }
        }
        self.ask(pod);
    }

    fn ask(&mut self, pod: usize) {
        let ticket = self.ticket();
        self.waiting.insert(ticket, pod);
        let key = self.key(pod);
        let deadline = self.now.after(PATIENCE);
        self.tell(Event::Add { ticket, key, pod: Pod::default(), netns: "/n".to_owned(), card: 0, deadline });
    }

    fn del(&mut self, pod: usize) {
        let sandboxes = &mut self.pods[pod];
        sandboxes.count = sandboxes.count.max(1);
        sandboxes.wanted = false;
        sandboxes.heard = None;
        let key = self.key(pod);
        self.end(key.clone());
        assert!(self.node.engine.lease(&key).is_none(), "{key} has a lease after its DEL");
        // An answer may be on its way all the same; then its address is released again in the next write.
        let answered: Vec<Ticket> = self.writes.iter().filter_map(Write::ticket).collect();
        let still = self.waiting.iter().any(|(ticket, waiter)| *waiter == pod && !answered.contains(ticket));
        assert!(!still, "an ADD of {key} still waits after its DEL");
    }

    /// A DEL of this key is answered, whether it is known or not (I4).
    fn end(&mut self, key: PodKey) {
        let ticket = self.ticket();
        let answers = self.tell(Event::Del { ticket, key: key.clone() });
        assert_eq!(answers, [ticket], "DEL of {key}");
    }

    fn netns_gone(&mut self, pod: usize) {
        self.pods[pod].alive = false;
        let key = self.key(pod);
        let ticket = self.ticket();
        let answers = self.tell(Event::Reclaim { ticket, key: key.clone(), seen_at: self.now });
        assert_eq!(answers, [ticket]);
        // One that was asked for at this very moment may belong to a newer sandbox.
        let just_now = self.answered.get(&key) == Some(&self.now);
        assert!(just_now || self.node.engine.lease(&key).is_none(), "{key} is an orphan");
    }

    fn gc(&mut self) {
        let valid: BTreeSet<PodKey> =
            (0..SANDBOXES).filter(|pod| self.pods[*pod].wanted).map(|pod| self.key(pod)).collect();
        let leases: Vec<PodKey> = self.node.engine.leases().map(|lease| lease.key.clone()).collect();
        for key in leases.into_iter().filter(|key| !valid.contains(key)) {
            let ticket = self.ticket();
            assert_eq!(self.tell(Event::Reclaim { ticket, key, seen_at: self.now }), [ticket]);
        }
    }

    /// What was committed is there again; plugins whose call was broken off ask the new daemon.
    fn restart(&mut self, written: usize) {
        self.commit(written);
        let unreleased: Vec<PodKey> = std::mem::take(&mut self.writes)
            .into_iter()
            .filter_map(|write| match write {
                Write::Release(key, _) => Some(key),
                Write::Put(..) => None,
            })
            .collect();
        self.resting.retain(|_, until| *until > self.now);
        let cooling = self.resting.iter().map(|(address, until)| CoolDown { address: *address, until: *until });
        let record = Record { leases: self.stored.values().cloned().collect(), cooling: cooling.collect() };
        self.node = begun(record, self.now);
        let commands = self.node.see(&[eni(0, ADDRESSES)], self.now);
        self.obey(commands);
        // A DEL without an answer leaves a note, which the start reads first.
        for key in unreleased {
            self.end(key);
        }
        for pod in std::mem::take(&mut self.waiting).into_values().collect::<BTreeSet<_>>() {
            // The runtime ends the plugin of an ADD before it sends the DEL.
            if self.pods[pod].wanted {
                self.ask(pod);
            }
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Ticket> {
        let commands = self.node.tell(self.now, event);
        self.obey(commands)
    }

    /// Carries out what the engine says; returns whose DELs were answered.
    fn obey(&mut self, commands: Vec<Command>) -> Vec<Ticket> {
        let mut answered = Vec::new();
        for command in commands {
            match command {
                Command::Grant { ticket, lease, .. } => self.granted(ticket, lease),
                Command::Refuse { ticket, .. } => drop(self.waiting.remove(&ticket).expect("it waits")),
                Command::Release { ticket, key, released } => {
                    answered.extend(ticket);
                    self.writes.extend(released.first().cloned().map(|cooling| Write::Release(key, cooling)));
                }
                Command::Start { action, .. } => self.starts(&action),
                Command::Observe { .. } | Command::PrepareHost { .. } => {}
                Command::ForgetHost { eni } => panic!("{eni} is in use"),
                _ => {}
            }
        }
        answered
    }

    fn granted(&mut self, ticket: Ticket, lease: Lease) {
        assert!(self.waiting.contains_key(&ticket), "{} was not asked for", lease.key);
        // I5, on what is on record and what is about to be.
        let coming = self.writes.iter().filter_map(|write| match write {
            Write::Release(_, cooling) if lease.addresses.has(cooling.address) => Some(cooling.until),
            _ => None,
        });
        let known = self.node.engine.leases().any(|other| other.key == lease.key && other.since < self.now);
        let rests =
            self.resting.get(&IpAddr::from(lease.addresses.v4().unwrap())).copied().into_iter().chain(coming).max();
        assert!(
            known || rests.is_none_or(|until| until <= self.now),
            "{} rests until {rests:?}",
            lease.addresses.v4().unwrap()
        );
        self.answered.insert(lease.key.clone(), self.now);
        self.writes.push(Write::Put(lease, ticket));
    }

    /// Commits the first writes; who waits for one hears of it.
    fn commit(&mut self, count: usize) {
        for write in self.writes.drain(..count).collect::<Vec<_>>() {
            match write {
                Write::Put(lease, ticket) => {
                    self.resting.remove(&IpAddr::from(lease.addresses.v4().unwrap()));
                    let twice = self.stored.values().find(|other| {
                        other.addresses.v4().unwrap() == lease.addresses.v4().unwrap() && other.key != lease.key
                    });
                    assert!(
                        twice.is_none(),
                        "{} of {} is {:?}'s",
                        lease.addresses.v4().unwrap(),
                        lease.key,
                        twice.map(|l| &l.key)
                    );
                    if let Some(pod) = self.waiting.remove(&ticket)
                        && self.key(pod) == lease.key
                        && self.pods[pod].wanted
                    {
                        let heard = self.pods[pod].heard.replace(lease.addresses.v4().unwrap());
                        assert!(
                            heard.is_none_or(|heard| heard == lease.addresses.v4().unwrap()),
                            "I3: {heard:?}, then {}",
                            lease.addresses.v4().unwrap()
                        );
                    }
                    self.stored.insert(lease.key.clone(), lease);
                }
                Write::Release(key, cooling) => {
                    self.stored.remove(&key);
                    self.resting.insert(cooling.address, cooling.until);
                }
            }
        }
    }

    fn key(&self, pod: usize) -> PodKey {
        key(pod, self.pods[pod].count.saturating_sub(1))
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }
}

/// Key of a pod's sandbox, by its number.
fn key(pod: usize, sandbox: usize) -> PodKey {
    PodKey::new("pods", &format!("pod{pod}-{sandbox}"), "eth0").unwrap()
}
