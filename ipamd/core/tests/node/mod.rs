//! A small node for tests of the engine: what EC2 describes, and an engine that has seen it.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use eni_proto::numbers;
use ipam_core::{
    Command, CoolDown, Event, IntentId, Lease, Limits, Moment, Policy,
    engine::{Engine, Start},
    ports::{Attachment, Cidr4, Interface, InterfaceKind, NodeIdentity, Scope},
};

/// An m5.large whose subnet and VPC have the simplest names.
pub(crate) fn identity() -> NodeIdentity {
    NodeIdentity {
        instance: "i-1".parse().unwrap(),
        instance_type: "m5.large".to_owned(),
        region: "eu-central-1".to_owned(),
        primary_mac: "02:00:00:00:00:01".parse().unwrap(),
        primary_eni: "eni-1".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        vpc: "vpc-1".parse().unwrap(),
        subnet_cidr: Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
        zone: "eu-central-1a".to_owned(),
        vpc_cidrs: vec![],
        security_groups: vec![],
    }
}

/// An attached ENI at `device` with `count` secondary addresses 10.0.DEVICE.10 and following.
pub(crate) fn eni(device: u8, count: u8) -> Interface {
    Interface {
        id: format!("eni-{}", device + 1).parse().unwrap(),
        mac: format!("02:00:00:00:00:{:02x}", device + 1).parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: Ipv4Addr::new(10, 0, device, 4),
        secondary: (0..count).map(|n| Ipv4Addr::new(10, 0, device, 10 + n)).collect(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(Attachment {
            id: format!("eni-attach-{}", device + 1).parse().unwrap(),
            instance: "i-1".parse().unwrap(),
            device_index: device,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: BTreeMap::from([(numbers::TAG_INSTANCE.to_owned(), "i-1".to_owned())]),
    }
}

/// Longer than the engine gathers what is needed before it asks EC2.
const GATHERING: Duration = Duration::from_millis(10);

/// What a restart finds on record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) leases: Vec<Lease>,
    pub(crate) cooling: Vec<CoolDown>,
}

/// An engine, and the changes that it has started and that have not been settled.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) under_way: Vec<IntentId>,
}

impl Node {
    /// A node that has just begun: EC2 has told it nothing yet.
    pub(crate) fn begun(policy: Policy, limits: Limits, record: Record, now: Moment) -> Self {
        let Record { leases, cooling } = record;
        let start = Start {
            node: identity(),
            policy,
            limits,
            leases,
            cooling,
            intent_prefix: format!("i-1-{}", now.as_millis()),
            intents_open: false,
        };
        Self { engine: Engine::new(start, now), under_way: Vec::new() }
    }

    /// Tells the engine, and gives it the few milliseconds in which it gathers what is needed.
    pub(crate) fn tell(&mut self, now: Moment, event: Event) -> Vec<Command> {
        let mut commands = self.engine.handle(now, event);
        while let Some(due) = self.engine.next_wake().filter(|due| *due <= now.after(GATHERING)) {
            commands.extend(self.engine.handle(due, Event::Tick));
        }
        for command in &commands {
            if let Command::Start { intent, .. } = command {
                self.under_way.push(intent.clone());
            }
        }
        commands
    }

    /// Lets EC2 describe these ENIs, and the kernel be ready for them.
    pub(crate) fn see(&mut self, enis: &[Interface], now: Moment) -> Vec<Command> {
        let seen = Event::Observed { asked_at: now, scope: Scope::Attached, interfaces: enis.to_vec() };
        let mut commands = self.tell(now, seen);
        for eni in enis {
            commands.extend(self.tell(now, Event::HostReady { eni: eni.id.clone() }));
        }
        commands
    }
}
