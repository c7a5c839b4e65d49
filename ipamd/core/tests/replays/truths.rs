//! What EC2 and the kernel say in a replay, and the time that passes with them.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use eni_proto::{EniMark, Pod, PodKey, numbers};
use ipam_core::{
    Action, Command, Event, IntentId, Lease, Moment, Ticket,
    pool::Phase,
    ports::{Ec2Error, Interface, RefusalClass, Scope},
};

use crate::node::Node;

/// The two truths beside our own record. Absent: it cannot be asked.
pub(crate) struct Truths {
    pub(crate) ec2: Option<Vec<Interface>>,
    pub(crate) kernel: Option<BTreeSet<Ipv4Addr>>,
    /// How often EC2 was asked for a description.
    pub(crate) looks: usize,
}

impl Truths {
    pub(crate) fn new(ec2: &[Interface], kernel: &[Ipv4Addr]) -> Self {
        Self { ec2: Some(ec2.to_vec()), kernel: Some(kernel.iter().copied().collect()), looks: 0 }
    }

    /// Lets time pass, in which every question is answered, also those that are open. EC2 does nothing of what it is asked
    /// to do. Returns what that was.
    pub(crate) fn live(&mut self, node: &mut Node, from: Moment, until: Moment) -> Vec<Action> {
        let open = [Command::Observe { scope: Scope::Attached }, Command::ObserveKernel];
        let mut events: Vec<_> = open.into_iter().filter_map(|command| self.answer(from, command)).collect();
        let preparing = node.engine.pool().enis().filter(|eni| eni.phase == Phase::Preparing);
        events.extend(preparing.map(|eni| Event::HostReady { eni: eni.interface.id.clone() }));
        self.pass(node, from, until, events)
    }

    /// Lets time pass after these events, in which every question is answered that the node asks. Returns what EC2 was
    /// asked to do.
    pub(crate) fn pass(&mut self, node: &mut Node, from: Moment, until: Moment, mut events: Vec<Event>) -> Vec<Action> {
        let (mut now, mut actions) = (from, Vec::new());
        loop {
            while let Some(event) = events.pop() {
                let commands = node.tell(now, event);
                actions.extend(started(&commands));
                events.extend(commands.into_iter().filter_map(|command| self.answer(now, command)));
            }
            match node.engine.next_wake() {
                Some(due) if due <= until => now = due.max(now),
                Some(_) | None => return actions,
            }
            events.push(Event::Tick);
        }
    }

    fn answer(&mut self, now: Moment, command: Command) -> Option<Event> {
        match command {
            Command::Observe { scope } => {
                self.looks += 1;
                Some(match &self.ec2 {
                    Some(enis) => Event::Observed { asked_at: now, scope, interfaces: select(enis, scope) },
                    None => Event::ObserveFailed { error: slow_down() },
                })
            }
            Command::ObserveKernel => {
                let holds = self
                    .kernel
                    .clone()
                    .map(|all| all.into_iter().map(Into::into).collect())
                    .ok_or_else(|| "it cannot be read".to_owned());
                Some(Event::Kernel { asked_at: now, holds })
            }
            Command::DescribeSubnets => Some(Event::Subnets { outcome: Err(slow_down()) }),
            Command::Start { intent, .. } => Some(Event::Settled { intent, outcome: Err(slow_down()) }),
            Command::PrepareHost { interface } => Some(Event::HostReady { eni: interface.id }),
            _ => None,
        }
    }
}

fn select(enis: &[Interface], scope: Scope) -> Vec<Interface> {
    let listed = |eni: &&Interface| match scope {
        Scope::Attached => eni.attachment.is_some(),
        Scope::Tagged => eni.tags.contains_key(numbers::TAG_INSTANCE),
    };
    enis.iter().filter(listed).cloned().collect()
}

fn slow_down() -> Ec2Error {
    Ec2Error::Refused {
        action: "Any",
        class: RefusalClass::SlowDown,
        code: "RequestLimitExceeded".to_owned(),
        message: "Request limit exceeded.".to_owned(),
    }
}

pub(crate) fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

pub(crate) fn day(day: u64) -> Moment {
    at(day * 24 * 3600)
}

pub(crate) fn key(pod: &str) -> PodKey {
    PodKey::new("pods", &format!("sandbox-{pod}"), "eth0").unwrap()
}

pub(crate) fn lease(pod: &str, address: Ipv4Addr, device: u8) -> Lease {
    Lease {
        key: key(pod),
        pod: Pod::default(),
        netns: "/n".to_owned(),
        addresses: address.into(),
        eni: format!("eni-{}", device + 1).parse().unwrap(),
        eni_mark: EniMark::of_device(device),
        since: at(0),
    }
}

/// An ADD that waits for two minutes.
pub(crate) fn add(node: &mut Node, now: Moment, pod: &str) -> Vec<Command> {
    let (ticket, deadline) = (Ticket(now.as_millis()), now.after(Duration::from_secs(120)));
    let event = Event::Add { ticket, key: key(pod), pod: Pod::default(), netns: "/n".to_owned(), card: 0, deadline };
    node.tell(now, event)
}

pub(crate) fn del(node: &mut Node, now: Moment, pod: &str) -> Vec<Command> {
    node.tell(now, Event::Del { ticket: Ticket(now.as_millis()), key: key(pod) })
}

pub(crate) fn granted(commands: &[Command]) -> Vec<Ipv4Addr> {
    let grants = commands.iter().filter_map(|command| match command {
        Command::Grant { lease, .. } => Some(lease.addresses.v4().unwrap()),
        _ => None,
    });
    grants.collect()
}

pub(crate) fn started(commands: &[Command]) -> Vec<Action> {
    intents(commands).into_iter().map(|(_, action)| action).collect()
}

fn intents(commands: &[Command]) -> Vec<(IntentId, Action)> {
    let starts = commands.iter().filter_map(|command| match command {
        Command::Start { intent, action } => Some((intent.clone(), action.clone())),
        _ => None,
    });
    starts.collect()
}

/// What of this takes something away.
pub(crate) fn removals(actions: &[Action]) -> Vec<Action> {
    let takes =
        |action: &&Action| matches!(action, Action::Unassign { .. } | Action::Detach { .. } | Action::Delete { .. });
    actions.iter().filter(takes).cloned().collect()
}

/// The addresses that an action gives back.
pub(crate) fn addresses(action: &Action) -> Vec<Ipv4Addr> {
    match action {
        Action::Unassign { holdings, .. } => holdings.all().collect(),
        _ => vec![],
    }
}
