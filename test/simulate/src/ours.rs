//! A node of ours: the real engine, and the shell around it.

use std::time::Duration;

use eni_proto::{Pod, PodKey};
use ipam_core::{
    Command, Event, Limits, Moment, Policy, Ticket,
    engine::{Engine, Start},
    ports::NodeIdentity,
};

use crate::{
    cluster::{Happening, Outside},
    kubelet::ADD_WAIT,
};

/// How long the kernel takes to list a node's links and routes.
const KERNEL_DUMP: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(crate) struct Ours {
    node: usize,
    engine: Engine,
    /// For when a tick has been put down.
    wake: Option<Moment>,
}

impl Ours {
    pub(crate) fn new(node: usize, identity: NodeIdentity, policy: Policy, limits: Limits, now: Moment) -> Self {
        let start = Start {
            node: identity,
            policy,
            limits,
            leases: vec![],
            cooling: vec![],
            intent_prefix: format!("n{node}"),
            intents_open: false,
        };
        let engine = Engine::new(start, now);
        Self { node, engine, wake: None }
    }

    pub(crate) fn add(&mut self, pod: usize, attempt: u16, now: Moment, outside: &mut Outside) {
        let event = Event::Add {
            ticket: ticket(pod, attempt),
            key: key(pod, attempt),
            pod: Pod { name: format!("p{pod}"), ..Pod::default() },
            netns: String::new(),
            card: 0,
            deadline: now.after(ADD_WAIT),
        };
        self.tell(event, now, outside);
    }

    pub(crate) fn del(&mut self, pod: usize, attempt: u16, now: Moment, outside: &mut Outside) {
        self.tell(Event::Del { ticket: ticket(pod, attempt), key: key(pod, attempt) }, now, outside);
    }

    pub(crate) fn tick(&mut self, now: Moment, outside: &mut Outside) {
        if self.wake.is_some_and(|wake| wake <= now) {
            self.wake = None;
        }
        if self.engine.next_wake().is_some_and(|wake| wake <= now) {
            self.tell(Event::Tick, now, outside);
        } else {
            self.set_alarm(outside);
        }
    }

    pub(crate) fn tell(&mut self, event: Event, now: Moment, outside: &mut Outside) {
        for command in self.engine.handle(now, event) {
            self.obey(command, now, outside);
        }
        self.set_alarm(outside);
    }

    fn set_alarm(&mut self, outside: &mut Outside) {
        if let Some(wake) = self.engine.next_wake()
            && self.wake.is_none_or(|earlier| wake < earlier)
        {
            self.wake = Some(wake);
            outside.agenda.put(wake, Happening::Tick(self.node));
        }
    }

    fn obey(&mut self, command: Command, now: Moment, outside: &mut Outside) {
        match command {
            Command::Grant { ticket, .. } => outside.granted(pod(ticket), now),
            Command::Refuse { ticket, .. } => outside.refused(pod(ticket), now),
            Command::Release { .. } | Command::ForgetHost { .. } => {}
            Command::Observe { scope } => {
                let answer = outside.cloud.describe(self.node, scope, now);
                let event = match answer.outcome {
                    Ok(interfaces) => Event::Observed { asked_at: now, scope, interfaces },
                    Err(error) => Event::ObserveFailed { error },
                };
                self.later(answer.at, event, outside);
            }
            Command::DescribeSubnets => {
                let answer = outside.cloud.subnets(now);
                self.later(answer.at, Event::Subnets { outcome: answer.outcome }, outside);
            }
            Command::ObserveKernel => {
                // Its pods are those that have a lease: wiring and leases are one step here.
                let holds = Ok(self.engine.leases().flat_map(|lease| lease.addresses.all()).collect());
                self.later(now.after(KERNEL_DUMP), Event::Kernel { asked_at: now, holds }, outside);
            }
            Command::Start { intent, action } => {
                let answer = outside.cloud.carry_out(self.node, &action, now);
                self.later(answer.at, Event::Settled { intent, outcome: answer.outcome }, outside);
            }
            Command::PrepareHost { interface } => {
                // The link appears with the attachment.
                let Some(attached) = outside.cloud.attached_at(self.node, &interface.id) else { return };
                let ready = now.max(attached).after(outside.kernel_delay());
                self.later(ready, Event::HostReady { eni: interface.id }, outside);
            }
        }
    }

    fn later(&self, at: Moment, event: Event, outside: &mut Outside) {
        outside.agenda.put(at, Happening::Tell(self.node, Box::new(event)));
    }
}

/// A sandbox of a pod: each attempt has its own.
fn key(pod: usize, attempt: u16) -> PodKey {
    let Ok(key) = PodKey::new("pods", &format!("p{pod}-{attempt}"), "eth0") else {
        unreachable!("the parts are well-formed")
    };
    key
}

fn ticket(pod: usize, attempt: u16) -> Ticket {
    Ticket((pod as u64) << 16 | u64::from(attempt))
}

fn pod(ticket: Ticket) -> usize {
    usize::try_from(ticket.0 >> 16).unwrap_or(usize::MAX)
}
