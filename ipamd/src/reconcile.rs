//! The daemon's one loop: hands events to the engine and carries out what it answers.
//!
//! The loop itself never waits for anything but the next event: every command that takes time runs in a task of its own
//! and reports back as an event. So a slow EC2 call never delays an ADD that the pool can serve.

mod answers;
mod cloud;
mod kernel;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use ipam_aws::AwsImds;
use ipam_core::{
    Action, Command, EniId, Event, IntentId, SubnetId, Ticket,
    engine::Engine,
    ports::{Attachment, Cidr4, Ec2, Interface, InterfaceKind, NodeIdentity},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::Instant,
};

use self::answers::Asker;
use crate::{
    clock,
    handle::{DelAnswer, Handle, Message},
    host::HostNet,
    journal::{JOURNAL, Pace, Sample},
    kube::{KubeNode, Newsroom},
    metrics::METRICS,
    settings::Settings,
    store::{KnownCloud, Store},
    tenure::Ended,
    view::View,
};

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
    let (serves, served) = watch::channel(false);
    let (handle, inbox) = Handle::new(outside.kube.clone(), served);
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
}
