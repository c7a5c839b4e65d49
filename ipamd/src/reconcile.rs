//! The daemon's one loop: hands events to the engine and carries out what it answers.
//!
//! The loop itself never waits for anything but the next event: every command that takes time runs in a task of its own
//! and reports back as an event. So a slow EC2 call never delays an ADD that the pool can serve.

mod cloud;
mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use eni_proto::{Pod, PodKey, Refusal, RefusalCode};
use ipam_aws::AwsImds;
use ipam_core::{
    Action, Command, CoolDown, EniId, Event, IntentId, Lease, MacAddress, Moment, Policy, SubnetId, Ticket,
    engine::{Engine, EngineStatus},
    ports::{Attachment, Cidr4, Ec2, Interface, InterfaceKind, NodeIdentity},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::Instant,
};

use crate::{
    clock,
    history::Ended,
    host::HostNet,
    journal::{Flight, JOURNAL, Pace, Sample},
    kube::{KubeNode, News, Newsroom},
    metrics::METRICS,
    settings::Settings,
    store::{KnownCloud, Store},
    view::View,
};

/// What the caller of an ADD hears.
pub(crate) type AddAnswer = Result<Lease, Refusal>;
/// What the caller of a DEL hears: the addresses that rest now. Empty: there was no lease.
pub(crate) type DelAnswer = Result<Vec<CoolDown>, Refusal>;

enum Message {
    Event(Event),
    Metadata(Box<NodeIdentity>),
    Add { event: Event, ticket: Ticket, reply: oneshot::Sender<AddAnswer> },
    End { event: Event, ticket: Ticket, why: Ended, reply: oneshot::Sender<DelAnswer> },
    Leases { reply: oneshot::Sender<Vec<Lease>> },
    Lease { key: PodKey, reply: oneshot::Sender<Option<Lease>> },
    Status { reply: oneshot::Sender<EngineStatus> },
    Cards { reply: oneshot::Sender<Vec<u8>> },
    Trunk { reply: oneshot::Sender<Option<MacAddress>> },
    View { reply: oneshot::Sender<Box<View>> },
}

/// Somebody who waits for the answer to an ADD.
struct Asker {
    key: PodKey,
    pod: Pod,
    since: Instant,
    reply: oneshot::Sender<AddAnswer>,
}

/// The way to the loop. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    /// The API server. Absent: Kubernetes is not used.
    pub(crate) kube: Option<KubeNode>,
    // Unbounded, because cancelling from a destructor must not wait; each caller of the socket has at most one message in it.
    messages: mpsc::UnboundedSender<Message>,
    tickets: Arc<AtomicU64>,
    /// Whether pods could be served once since the start.
    served: watch::Receiver<bool>,
}

/// The loop has ended: the daemon is stopping.
#[derive(Debug, thiserror::Error)]
#[error("ipamd is stopping")]
pub(crate) struct Stopped;

impl Handle {
    /// Asks for an address of a network card and waits for it until `deadline`. When the future is dropped, the wait is cancelled.
    pub(crate) async fn add(
        &self,
        key: PodKey,
        pod: Pod,
        netns: String,
        card: u8,
        deadline: Moment,
    ) -> Result<AddAnswer, Stopped> {
        let ticket = self.ticket();
        let (reply, answer) = oneshot::channel();
        let event = Event::Add { ticket, key, pod, netns, card, deadline };
        self.messages.send(Message::Add { event, ticket, reply }).map_err(|_| Stopped)?;
        let guard = CancelOnDrop { handle: self, ticket };
        let answer = answer.await.map_err(|_| Stopped);
        std::mem::forget(guard);
        answer
    }

    /// Gives an address back, with those of the interfaces that came with it, and waits until that is stored.
    pub(crate) async fn del(&self, key: PodKey) -> Result<DelAnswer, Stopped> {
        let ticket = self.ticket();
        self.ask(|reply| Message::End { event: Event::Del { ticket, key }, ticket, why: Ended::Del, reply }).await
    }

    /// Ends a lease that had no sandbox at `seen_at`, unless it was asked for then or later; waits until that is stored.
    pub(crate) async fn reclaim(&self, key: PodKey, seen_at: Moment, why: Ended) -> Result<DelAnswer, Stopped> {
        let ticket = self.ticket();
        let event = Event::Reclaim { ticket, key, seen_at };
        self.ask(|reply| Message::End { event, ticket, why, reply }).await
    }

    /// Returns all leases, by key.
    pub(crate) async fn leases(&self) -> Result<Vec<Lease>, Stopped> {
        self.ask(|reply| Message::Leases { reply }).await
    }

    /// Returns the lease of a key.
    pub(crate) async fn lease(&self, key: PodKey) -> Result<Option<Lease>, Stopped> {
        self.ask(|reply| Message::Lease { key, reply }).await
    }

    /// Returns everything that is shown of the daemon.
    pub(crate) async fn view(&self) -> Result<Box<View>, Stopped> {
        self.ask(|reply| Message::View { reply }).await
    }

    /// Returns how the pool stands.
    pub(crate) async fn status(&self) -> Result<EngineStatus, Stopped> {
        self.ask(|reply| Message::Status { reply }).await
    }

    /// Returns the network cards of which a pod with several interfaces has an address each, the default one first.
    pub(crate) async fn cards(&self) -> Result<Vec<u8>, Stopped> {
        self.ask(|reply| Message::Cards { reply }).await
    }

    /// Returns the hardware address of the node's trunk ENI, if it has one.
    pub(crate) async fn trunk(&self) -> Result<Option<MacAddress>, Stopped> {
        self.ask(|reply| Message::Trunk { reply }).await
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.messages.send(message(reply)).map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }

    /// Says what the metadata service shows now.
    pub(crate) fn metadata(&self, node: NodeIdentity) {
        // As for `tell`.
        let _ = self.messages.send(Message::Metadata(Box::new(node)));
    }

    /// Lets the pool be otherwise from now on.
    pub(crate) fn policy(&self, policy: Policy) {
        self.tell(Event::Policy { policy: Box::new(policy) });
    }

    /// Waits until pods can be served for the first time.
    pub(crate) async fn until_serving(&self) -> Result<(), Stopped> {
        self.served.clone().wait_for(|served| *served).await.map(drop).map_err(|_| Stopped)
    }

    fn tell(&self, event: Event) {
        // Nobody listens only when the daemon stops, and then nobody needs to.
        let _ = self.messages.send(Message::Event(event));
    }

    fn ticket(&self) -> Ticket {
        Ticket(self.tickets.fetch_add(1, Ordering::Relaxed))
    }
}

/// Cancels the wait of a caller that has gone away.
struct CancelOnDrop<'a> {
    handle: &'a Handle,
    ticket: Ticket,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        self.handle.tell(Event::Cancel { ticket: self.ticket });
    }
}

/// What the loop needs of the outside.
pub(crate) struct Outside<E> {
    pub(crate) ec2: Arc<E>,
    pub(crate) imds: Arc<AwsImds>,
    pub(crate) store: Store,
    pub(crate) host: HostNet,
    pub(crate) node: NodeIdentity,
    pub(crate) settings: Settings,
    /// Networks of subnets beside the node's own, as far as they were asked for.
    pub(crate) networks: Mutex<BTreeMap<SubnetId, Cidr4>>,
    /// Hears of the network namespace of each new lease.
    pub(crate) granted: mpsc::UnboundedSender<String>,
    /// Hears of each address that is released.
    pub(crate) released: mpsc::UnboundedSender<IpAddr>,
    /// Passes on what happens to pods.
    pub(crate) newsroom: Newsroom,
    /// The API server. Absent: Kubernetes is not used.
    pub(crate) kube: Option<KubeNode>,
}

/// A change at EC2 that is not settled in the database.
struct Open {
    action: Action,
    /// What EC2 said, for people. Absent: it has not answered.
    outcome: Option<String>,
}

/// Starts the loop with what an earlier run knew and returns the way to it. It ends when the runtime does.
pub(crate) fn start<E: Ec2>(engine: Engine, outside: Outside<E>, known: KnownCloud) -> Handle {
    let (messages, inbox) = mpsc::unbounded_channel();
    let (serves, served) = watch::channel(false);
    let handle = Handle { kube: outside.kube.clone(), messages, tickets: Arc::default(), served };
    // Who knows of no interface, or of one only that a change was left open on, has nothing to serve from.
    let asks_first = known.interfaces.is_empty() || !known.open.is_empty();
    let jitter = if asks_first { Duration::ZERO } else { outside.settings.start_jitter };
    let quiet_until = Instant::now() + cloud::part_of(jitter, &outside.node.instance);
    let reconciler = Reconciler {
        engine,
        node: outside.node.clone(),
        outside: Arc::new(outside),
        handle: handle.clone(),
        adds: BTreeMap::new(),
        ends: BTreeMap::new(),
        prepared: BTreeMap::new(),
        open: BTreeMap::new(),
        kept: Vec::new(),
        lost: BTreeSet::new(),
        quiet_until,
        samples: Pace::new(),
        serves,
    };
    tokio::spawn(reconciler.run(inbox, known));
    handle
}

struct Reconciler<E> {
    engine: Engine,
    /// The node as the metadata service showed it last.
    node: NodeIdentity,
    outside: Arc<Outside<E>>,
    handle: Handle,
    adds: BTreeMap<Ticket, Asker>,
    ends: BTreeMap<Ticket, (Ended, oneshot::Sender<DelAnswer>)>,
    /// ENIs that the kernel was or is being prepared for: how they hang on the node, and how to stop the preparation.
    prepared: BTreeMap<EniId, (Option<Attachment>, AbortHandle)>,
    open: BTreeMap<IntentId, Open>,
    /// The ENIs as the database has them.
    kept: Vec<Interface>,
    /// Addresses of pods that EC2 does not list.
    lost: BTreeSet<IpAddr>,
    /// EC2 is not asked before.
    quiet_until: Instant,
    samples: Pace,
    /// Told when pods can be served for the first time.
    serves: watch::Sender<bool>,
}

impl<E: Ec2> Reconciler<E> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Message>, known: KnownCloud) {
        self.take_up(known);
        self.feed(Event::Tick);
        loop {
            let wake = self.engine.next_wake();
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => self.receive(message),
                    None => return,
                },
                () = clock::sleep_until(wake) => self.feed(Event::Tick),
            }
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Event(event) => {
                if let Event::Cancel { ticket } = event
                    && self.adds.remove(&ticket).is_some()
                {
                    METRICS.add_results.add("abandoned");
                }
                self.feed(event);
            }
            Message::Metadata(node) => self.refresh(*node),
            Message::Add { event, ticket, reply } => {
                if let Event::Add { key, pod, .. } = &event {
                    let asker = Asker { key: key.clone(), pod: pod.clone(), since: Instant::now(), reply };
                    self.adds.insert(ticket, asker);
                    METRICS.adds.add();
                }
                self.feed(event);
            }
            Message::End { event, ticket, why, reply } => {
                self.ends.insert(ticket, (why, reply));
                self.feed(event);
            }
            Message::Leases { reply } => drop(reply.send(self.engine.leases().cloned().collect())),
            // A caller that no longer listens needs no answer.
            Message::Lease { key, reply } => drop(reply.send(self.engine.lease(&key).cloned())),
            Message::Trunk { reply } => {
                let mut enis = self.engine.pool().enis().map(|eni| &eni.interface);
                let trunk = enis.find(|eni| eni.kind == InterfaceKind::Trunk && eni.attachment.is_some());
                let _ = reply.send(trunk.map(|trunk| trunk.mac));
            }
            Message::Cards { reply } => drop(reply.send(self.engine.cards().collect())),
            Message::Status { reply } => drop(reply.send(self.engine.status(clock::now()))),
            Message::View { reply } => {
                let view = View::of(&self.engine, &self.node, clock::now());
                JOURNAL.sampled(Sample::of(&view.status, view.at));
                drop(reply.send(Box::new(view)));
            }
        }
    }

    fn feed(&mut self, event: Event) {
        if let Event::Settled { intent, outcome } = &event {
            self.answered(intent, outcome);
        }
        let observed = matches!(event, Event::Observed { .. });
        let of_the_cloud = observed || matches!(event, Event::Settled { .. });
        for command in self.engine.handle(clock::now(), event) {
            self.carry_out(command);
        }
        if of_the_cloud {
            self.write_down();
        }
        if observed {
            self.tell_of_lost_addresses();
        }
        if !*self.serves.borrow() && self.engine.status(clock::now()).serves {
            self.serves.send_replace(true);
        }
        if self.samples.is_due() {
            let now = clock::now();
            JOURNAL.sampled(Sample::of(&self.engine.status(now), now));
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Grant { ticket, lease, fresh } => self.grant(ticket, lease, fresh),
            Command::Refuse { ticket, refusal } => self.refuse(ticket, refusal),
            Command::Release { ticket, key, released } => self.release(ticket, key, released),
            Command::Observe { scope } => self.observe(scope),
            Command::DescribeSubnets => self.describe_subnets(),
            Command::ObserveKernel => self.observe_kernel(),
            Command::Start { intent, action } => self.start(intent, action),
            Command::PrepareHost { interface } => self.prepare(interface),
            Command::ForgetHost { eni } => self.forget(eni),
        }
    }

    /// Stores the lease, then answers (I2). Also for a lease that is not fresh: its first write may still be on its way.
    fn grant(&mut self, ticket: Ticket, lease: Lease, fresh: bool) {
        let asker = self.adds.remove(&ticket);
        if fresh {
            // Nobody listens only when lost namespaces cannot be watched.
            let _ = self.outside.granted.send(lease.netns.clone());
            let Lease { key, pod, addresses, .. } = &lease;
            let given = || News::Given { key: key.clone(), pod: pod.clone(), address: addresses.to_string() };
            self.outside.newsroom.tell(given);
        }
        let stored = self.outside.store.put(lease.clone());
        let handle = self.handle.clone();
        let chosen = Instant::now();
        tokio::spawn(async move {
            let answer = match stored.await {
                Ok(()) => {
                    tracing::info!(key = %lease.key, pod = %lease.pod, address = %lease.addresses, eni = %lease.eni, fresh, "address given to pod");
                    Ok(lease)
                }
                Err(error) => {
                    tracing::error!(key = %lease.key, address = %lease.addresses, error = %chain(&error), "lease could not be stored");
                    if fresh {
                        handle.tell(Event::StoreFailed { key: lease.key });
                    }
                    Err(store_refusal(&error))
                }
            };
            // The caller may have gone; then the runtime's DEL, which follows every failed ADD, releases the lease.
            if let Some(asker) = asker {
                let times = (chosen.duration_since(asker.since), chosen.elapsed());
                asker.answer(answer, fresh, times);
            }
        });
    }

    fn refuse(&mut self, ticket: Ticket, refusal: Refusal) {
        tracing::warn!(code = refusal.code.as_str(), reason = refusal.message, "address refused");
        if let Some(asker) = self.adds.remove(&ticket) {
            let (queue, pod) = (asker.since.elapsed(), asker.pod.clone());
            self.outside.newsroom.tell(|| News::Refused { pod, message: refusal.to_string() });
            asker.answer(Err(refusal), false, (queue, Duration::ZERO));
        }
    }

    /// Stores the release, then answers. What the kernel may still have of the address is cleared beside that: it takes the kernel 10 ms
    /// and more, the address rests anyway, and a start clears what we did not get to.
    fn release(&mut self, ticket: Option<Ticket>, key: PodKey, released: Vec<CoolDown>) {
        let (why, reply) = ticket.and_then(|ticket| self.ends.remove(&ticket)).unzip();
        let why = why.unwrap_or(Ended::Del);
        if released.is_empty() {
            if let Some(reply) = reply {
                let _ = reply.send(Ok(released));
            }
            return;
        }
        self.outside.newsroom.tell(|| News::Ended { key: key.clone() });
        let stored = self.outside.store.release(key.clone(), released.clone(), clock::now(), why);
        let (host, freed) = (self.outside.host.clone(), self.outside.released.clone());
        let addresses: Vec<IpAddr> = released.iter().map(|cooling| cooling.address).collect();
        let begun = Instant::now();
        tokio::spawn(async move {
            for address in addresses {
                if let Err(error) = host.forget_address(address).await {
                    tracing::warn!(%address, error = %chain(&error), "released address could not be cleared from the kernel");
                }
                // Nobody listens only when the daemon stops; the next one does it for all that rest.
                let _ = freed.send(address);
            }
        });
        tokio::spawn(async move {
            let outcome = stored.await;
            let address = released.iter().map(|cooling| cooling.address.to_string()).collect::<Vec<_>>().join(", ");
            match &outcome {
                Ok(()) => {
                    METRICS.ends.add(why.as_str());
                    METRICS.del_seconds.add("lease", begun.elapsed());
                    tracing::info!(key = %key, address, why = why.as_str(), "address released");
                }
                Err(error) => {
                    tracing::error!(key = %key, address, error = %chain(error), "release could not be stored");
                }
            }
            if let Some(reply) = reply {
                let _ = reply.send(outcome.map(|()| released).map_err(|error| store_refusal(&error)));
            }
        });
    }
}

impl Asker {
    /// Answers, after counting how it ended and what it took: until an address was chosen, and until that was stored.
    fn answer(self, answer: AddAnswer, fresh: bool, (queue, lease): (Duration, Duration)) {
        let (given, outcome) = match &answer {
            Ok(lease) => {
                let outcome = if fresh { "given" } else { "repeated" };
                METRICS.add_results.add(outcome);
                (Some((lease.addresses.to_string(), lease.eni.to_string())), outcome)
            }
            Err(refusal) => {
                let stored = refusal.code != RefusalCode::StoreFailed;
                METRICS.add_results.add(if stored { "refused" } else { "unstored" });
                METRICS.refusals.add(refusal.code.as_str());
                (None, refusal.code.as_str())
            }
        };
        METRICS.add_seconds.add("queue", queue);
        METRICS.add_seconds.add("lease", lease);
        let pod = self.pod.to_string();
        JOURNAL.answered(Flight { at: clock::now(), key: self.key, pod, given, outcome, queue, lease, plugin: None });
        let _ = self.reply.send(answer);
    }
}

fn store_refusal(error: &dyn std::error::Error) -> Refusal {
    Refusal {
        code: RefusalCode::StoreFailed,
        message: format!("the lease could not be stored: {}", chain(error)),
        advice:
            "Nothing was given. Look at the space and health of the disk under the database; Kubernetes will try again."
                .to_owned(),
        try_again: true,
    }
}

/// An error and all its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
