//! What survives a crash, as the daemon writes it, and the start that follows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use eni_proto::PodKey;
use ipam_core::{
    Action, Command, CoolDown, Event, IntentId, Lease, Limits, Moment, Policy,
    engine::{Engine, Start},
    pool::Phase,
    ports::{Cidr4, Interface, NodeIdentity},
};

use super::{Later, World, calls::Fate};
use crate::{chance, cloud::INSTANCE};

/// The database.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) held: BTreeMap<PodKey, Lease>,
    pub(super) resting: BTreeMap<IpAddr, Moment>,
    cloud: CloudRecord,
    /// The same before the last write, which a crash may undo.
    before: CloudRecord,
}

/// What is known of EC2: the ENIs, and the intents that are not settled, and whether EC2 has answered.
#[derive(Debug, Clone, Default)]
struct CloudRecord {
    interfaces: Vec<Interface>,
    open: BTreeMap<IntentId, (Action, bool)>,
}

impl Disk {
    /// An intent is on disk before its call.
    pub(super) fn begin(&mut self, intent: &IntentId, action: &Action) {
        for record in [&mut self.cloud, &mut self.before] {
            record.open.insert(intent.clone(), (action.clone(), false));
        }
    }

    pub(super) fn answered(&mut self, intent: &IntentId) {
        if let Some((_, answered)) = self.cloud.open.get_mut(intent) {
            *answered = true;
        }
    }
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

pub(super) fn start(policy: &Policy, limits: Limits) -> Start {
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
    /// The operator changes the settings, for which the daemon is killed and started again.
    pub(crate) fn restart_with(&mut self, policy: Policy) {
        self.policy = policy;
        self.restart();
    }

    pub(super) fn kill_and_maybe_change(&mut self) {
        if self.below(3) == 0 {
            let Self { rng, policy, .. } = self;
            let (families, egress) = (policy.families, policy.egress);
            let mut below = |n| rand_chacha::rand_core::RngCore::next_u32(rng) % n;
            *policy = chance::policy_of(families, egress, &mut below);
        }
        self.restart();
    }

    /// Keeps what a later start needs: the ENIs, and the intents about which EC2 has something to say still.
    pub(super) fn write_down(&mut self) {
        let enis = self.engine.pool().enis().map(|eni| {
            let mut interface = eni.interface.clone();
            if let Some(attachment) = &mut interface.attachment {
                attachment.attached &= eni.phase != Phase::Leaving;
            }
            interface
        });
        let interfaces = enis.collect();
        let engine = &self.engine;
        self.disk.before = self.disk.cloud.clone();
        self.disk.cloud.interfaces = interfaces;
        self.disk.cloud.open.retain(|_, (action, answered)| !*answered || engine.doubts(action));
    }

    /// Of the command during which the daemon is killed only the first half is done.
    pub(super) fn obey_durably(&mut self, command: &Command) {
        match command {
            Command::Grant { lease, fresh: true, .. } => {
                for address in lease.addresses.all() {
                    self.disk.resting.remove(&address);
                    self.strays.remove(&address);
                }
                self.disk.held.insert(lease.key.clone(), lease.clone());
            }
            Command::Release { key, released, .. } => self.released(key, released),
            Command::Start { intent, action } => self.disk.begin(intent, action),
            _ => {}
        }
    }

    /// The daemon is killed and starts again. What was on its way to EC2 lands or is lost; what was stored is there again.
    pub(super) fn restart(&mut self) {
        for (_, later) in std::mem::take(&mut self.later) {
            if let Later::Carry(_, action, fate) = later
                && matches!(fate, Fate::Done | Fate::LostAfter | Fate::Vague)
            {
                let _ = self.apply(&action, self.now.after(Duration::from_secs(1)));
            }
        }
        self.remember();
        for key in std::mem::take(&mut self.unstored) {
            self.disk.held.remove(&key);
        }
        if self.chance.faults > 0 && self.below(3) == 0 {
            self.disk.cloud = self.disk.before.clone();
        }
        self.disk.before = self.disk.cloud.clone();
        self.starts += 1;
        self.waiting.clear();
        self.prepared.clear();
        self.preparing.clear();
        self.in_flight.clear();
        self.strays.values_mut().for_each(|(_, told)| *told = false);
        self.observing = 0;
        let latest = self.now.after(self.policy.cool_down);
        self.disk.resting.values_mut().for_each(|until| *until = latest.min(*until));
        let crashes = std::mem::take(&mut self.chance.crashes);
        let CloudRecord { interfaces, open } = self.disk.cloud.clone();
        let start = Start {
            leases: self.leases().cloned().collect(),
            cooling: self.disk.resting.iter().map(|(&address, &until)| CoolDown { address, until }).collect(),
            intent_prefix: format!("i-1-{}", self.starts),
            intents_open: !open.is_empty(),
            ..start(&self.policy, self.cloud.limits)
        };
        self.engine = Engine::new(start, self.now);
        self.tell(Event::Remembered { interfaces });
        for (intent, (action, _)) in open {
            self.disk.cloud.open.insert(intent, (action.clone(), true));
            self.tell(Event::LeftOpen { action });
        }
        self.tell(Event::Tick);
        self.chance.crashes = crashes;
    }
}
