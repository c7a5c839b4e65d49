//! The way to the daemon's loop: what it can be asked and told, for whoever runs beside it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use eni_proto::{Pod, PodKey, Refusal};
use ipam_core::{
    CoolDown, Event, Lease, MacAddress, Moment, Policy, Ticket, engine::EngineStatus, ports::NodeIdentity,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{kube::KubeNode, tenure::Ended, view::View};

/// What the caller of an ADD hears.
pub(crate) type AddAnswer = Result<Lease, Refusal>;
/// What the caller of a DEL hears: the addresses that rest now. Empty: there was no lease.
pub(crate) type DelAnswer = Result<Vec<CoolDown>, Refusal>;

/// What the loop hears.
pub(crate) enum Message {
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

/// How far the start has come.
#[derive(Clone)]
pub(crate) enum Stage {
    /// Cannot serve yet; says what it waits for.
    Starting(String),
    /// Serving.
    Serving(Handle),
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
    /// The way to a loop, and where it finds what comes that way. `served`: whether pods could be served once.
    pub(crate) fn new(
        kube: Option<KubeNode>,
        served: watch::Receiver<bool>,
    ) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let (messages, inbox) = mpsc::unbounded_channel();
        (Self { kube, messages, tickets: Arc::default(), served }, inbox)
    }

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

    /// Hands an event to the loop; does not wait.
    pub(crate) fn tell(&self, event: Event) {
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
