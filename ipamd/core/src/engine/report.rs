//! How the pool stands, as plain values for metrics, pages and people.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use eni_proto::PodKey;

use super::{Engine, refusal::describe};
use crate::{
    EniId, Moment, SubnetId,
    plan::{self, Blocked, Plan},
    pool::{Eni, Phase},
    ports::Cidr6,
};

/// How the pool stands at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Addresses that could be given out now.
    pub free: u32,
    /// Addresses that pods hold.
    pub leased: u32,
    /// Addresses of this node's ENIs that rest.
    pub cooling: u32,
    /// Addresses that were asked for and have not arrived, or whose ENI is not ready.
    pub in_flight: u32,
    /// Pods that wait.
    pub queued: u32,
    /// Whether pods can be served: some are, or the kernel is ready for an ENI that carries pods and there is, or will be, an
    /// address. A full node does too: telling the runtime otherwise would make Kubernetes move its pods away.
    pub serves: bool,
    /// The ENIs, by network card and device index; those that hang on no instance last.
    pub enis: Vec<EniStatus>,
    /// What is being waited for. Empty: nothing.
    pub waiting: Vec<Waiting>,
    /// What EC2 refused last. Absent: its last answer was good.
    pub last_error: Option<String>,
}

/// One ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniStatus {
    /// The ENI.
    pub id: EniId,
    /// The network card on which it takes, or will take, a place.
    pub card: u8,
    /// Device index; absent while it hangs on no instance.
    pub device_index: Option<u8>,
    /// Where it stands.
    pub phase: Phase,
    /// Whether we may use it.
    pub managed: bool,
    /// Whether pods may have its addresses.
    pub carries_pods: bool,
    /// Its primary address.
    pub primary: Ipv4Addr,
    /// Its IPv6 prefixes, sorted.
    pub prefixes6: Vec<Cidr6>,
    /// Its single addresses, sorted, then those of its prefixes, sorted; of IPv6 only those that are not free.
    pub addresses: Vec<(IpAddr, AddressState)>,
}

/// The state of one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddressState {
    /// It could be given out, once its ENI is ready.
    Free,
    /// A pod holds it.
    Leased(PodKey),
    /// It rests until then.
    Cooling(Moment),
    /// Nobody gets it: EC2 is asked to take it back, or the kernel has it for a pod that nobody knows.
    Reserved,
}

/// Something that is being waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// For what, in one of few words.
    pub kind: WaitingFor,
    /// The same, for people.
    pub text: String,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitingFor {
    /// EC2's first description of the node.
    Description,
    /// Pods to end: every ENI is full, and the instance allows no more.
    Pods,
    /// Addresses in a subnet.
    Subnet,
    /// Somebody else, who has to provide addresses.
    Provider,
    /// EC2, which is at work on a change, or has to show what became of one.
    Ec2,
    /// The end of a pause after a refusal.
    Pause,
    /// EC2 or an operator: what EC2 says cannot be.
    Sense,
    /// An end of a pod that nobody knows.
    Stray,
    /// The kernel's answer, or an ENI's link.
    Kernel,
}

impl WaitingFor {
    /// Every one, for metrics that name those that do not occur too.
    pub const ALL: [Self; 9] = [
        Self::Description,
        Self::Pods,
        Self::Subnet,
        Self::Provider,
        Self::Ec2,
        Self::Pause,
        Self::Sense,
        Self::Stray,
        Self::Kernel,
    ];

    /// The word in metrics and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::Pods => "pods",
            Self::Subnet => "subnet",
            Self::Provider => "provider",
            Self::Ec2 => "ec2",
            Self::Pause => "pause",
            Self::Sense => "sense",
            Self::Stray => "stray",
            Self::Kernel => "kernel",
        }
    }
}

/// What the planner wants and does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanStatus {
    /// Pods that wait, or were refused and will soon ask again.
    pub demand: u32,
    /// What would be done next, for people. It begins as soon as nothing below is in its way.
    pub wanted: Vec<String>,
    /// What is being done at EC2: its id, and what it is, for people.
    pub under_way: Vec<(String, String)>,
    /// What is being waited for.
    pub waiting: Vec<Waiting>,
    /// Until when needs are gathered, so that a burst costs one call. Absent: they are not.
    pub gather_until: Option<Moment>,
    /// Whether there is more than wanted.
    pub surplus: bool,
    /// When the planner has to look again, if nothing happens before. Absent: never.
    pub next_wake: Option<Moment>,
}

/// One subnet that EC2 described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetStatus {
    /// The subnet.
    pub id: SubnetId,
    /// Addresses that EC2 could still give out when it described the subnet last.
    pub available_addresses: u32,
    /// Whether it is set aside because it had no address left.
    pub full: bool,
    /// Whether it had no free /28 when it was asked last.
    pub fragmented: bool,
}

impl Engine {
    /// Returns how the pool stands.
    #[must_use]
    pub fn status(&self, now: Moment) -> EngineStatus {
        let mut enis: Vec<_> = self.pool.enis().map(|eni| self.eni_status(eni, now)).collect();
        enis.sort_by_key(|eni| (eni.device_index.is_none(), eni.card, eni.device_index));
        let free_in = |ready: bool| {
            self.pool
                .managed()
                .filter(|eni| (eni.phase == Phase::Ready) == ready && eni.phase != Phase::Leaving)
                .map(|eni| self.pool.free(eni).count())
                .sum::<usize>()
        };
        let free_in = |ready: bool| if self.policy.families.v4() { free_in(ready) } else { self.free6(ready) };
        let asked: Vec<_> = self.cards().map(|card| self.in_flight(card)).collect();
        let asked: usize = asked.iter().map(|asked| asked.assigning + asked.creating.iter().sum::<usize>()).sum();
        let (free, leased, cooling) = (free_in(true), self.pool.leases().count(), self.pool.cooling_here());
        let in_flight = free_in(false) + asked;
        let has_way = enis.iter().any(|eni| eni.carries_pods && eni.phase == Phase::Ready);
        EngineStatus {
            free: count(free),
            leased: count(leased),
            cooling: count(cooling),
            in_flight: count(in_flight),
            serves: leased > 0 || (has_way && free + cooling + in_flight > 0),
            queued: count(self.queue.len()),
            enis,
            waiting: self.waiting(now),
            last_error: self.last_error.as_ref().map(|(error, _)| describe(error)),
        }
    }

    /// How many more pods could have an IPv6 address: what max pods allows, for a prefix has more than anybody counts.
    fn free6(&self, ready: bool) -> usize {
        let mut managed = self.pool.managed().filter(|eni| eni.phase != Phase::Leaving);
        let found = managed.any(|eni| (eni.phase == Phase::Ready) == ready && !eni.interface.prefixes6.is_empty());
        let most = usize::from(self.policy.max_pods.unwrap_or(u16::MAX));
        if found { most.saturating_sub(self.pool.leases().count()) } else { 0 }
    }

    /// Returns what the planner wants and does.
    #[must_use]
    pub fn plan_status(&self, now: Moment) -> PlanStatus {
        PlanStatus {
            demand: count(self.queue.len() + self.returning.count()),
            wanted: self.plans().flat_map(|plan| &plan.actions).map(ToString::to_string).collect(),
            under_way: self.intents.iter().map(|(intent, action)| (intent.0.clone(), action.to_string())).collect(),
            waiting: self.waiting(now),
            gather_until: self.gather_until,
            surplus: self.plans().any(|plan| plan.surplus),
            next_wake: self.next_wake(),
        }
    }

    /// Returns the subnets that EC2 described, by id.
    #[must_use]
    pub fn subnet_status(&self, now: Moment) -> Vec<SubnetStatus> {
        let mut subnets: Vec<_> = self
            .subnets
            .known()
            .map(|subnet| SubnetStatus {
                id: subnet.id.clone(),
                available_addresses: subnet.available_addresses,
                full: self.subnets.is_full(&subnet.id, now),
                fragmented: self.subnets.was_fragmented(&subnet.id),
            })
            .collect();
        subnets.sort_by(|a, b| a.id.cmp(&b.id));
        subnets
    }

    fn eni_status(&self, eni: &Eni, now: Moment) -> EniStatus {
        let state = |address: IpAddr| {
            if let Some(holder) = self.pool.holder(address) {
                return AddressState::Leased(holder.clone());
            }
            match self.pool.rests_until(address).filter(|until| *until > now) {
                Some(until) => AddressState::Cooling(until),
                None => match address {
                    IpAddr::V4(address) if self.pool.is_free(address) => AddressState::Free,
                    IpAddr::V4(_) | IpAddr::V6(_) => AddressState::Reserved,
                },
            }
        };
        let addresses = eni.interface.addresses().map(IpAddr::V4).chain(self.pool.taken_of_prefixes6(eni));
        EniStatus {
            id: eni.interface.id.clone(),
            card: eni.card(),
            device_index: eni.device_index(),
            phase: eni.phase,
            managed: self.pool.is_managed(eni),
            carries_pods: self.pool.is_managed(eni) && plan::carries_pods(eni, &self.policy, &self.subnets),
            primary: eni.interface.primary,
            prefixes6: eni.interface.prefixes6.clone(),
            addresses: addresses.map(|address| (address, state(address))).collect(),
        }
    }

    /// The last plan of each network card.
    fn plans(&self) -> impl Iterator<Item = &Plan> {
        std::iter::once(&self.last_plan).chain(self.further.values().map(|(plan, _)| plan))
    }

    fn waiting(&self, now: Moment) -> Vec<Waiting> {
        let by = |plan: &Plan| match (&plan.blocked, self.observed) {
            (_, false) => WaitingFor::Description,
            (Some(Blocked::NodeFull), _) => WaitingFor::Pods,
            (Some(Blocked::SubnetsFull(_)), _) => WaitingFor::Subnet,
            (Some(Blocked::NotOurs), _) => WaitingFor::Provider,
            (None, _) => WaitingFor::Ec2,
        };
        let of = |kind| move |text| Waiting { kind, text };
        let mut waiting: Vec<_> = self.last_plan.waiting.iter().cloned().map(of(by(&self.last_plan))).collect();
        for (card, (plan, _)) in &self.further {
            let texts = plan.waiting.iter().map(|what| format!("network card {card}: {what}"));
            waiting.extend(texts.map(of(by(plan))));
        }
        let changes = self.intents.iter().map(|(intent, action)| format!("{intent}: {action}"));
        waiting.extend(changes.map(of(WaitingFor::Ec2)));
        let odd = self.odd.iter().map(|(eni, what)| format!("{eni}: {what}"));
        waiting.extend(odd.map(of(WaitingFor::Sense)));
        let disputes = self.disputes.iter().map(|(eni, dispute)| format!("{eni}: {}", dispute.in_words()));
        waiting.extend(disputes.map(of(WaitingFor::Sense)));
        let strays = self.pool.strays().map(|address| {
            format!("{address}: the kernel has it for a pod that nobody knows; it is neither given out nor given back")
        });
        waiting.extend(strays.map(of(WaitingFor::Stray)));
        let kernel = self.kernel.trouble().map(|why| format!("the kernel could not be asked what it holds: {why}"));
        let links = self.host_trouble.iter().map(|(eni, reason)| format!("{eni}: {reason}"));
        waiting.extend(kernel.into_iter().chain(links).map(of(WaitingFor::Kernel)));
        let pauses = self.pauses.ends().filter(|until| *until > now);
        let pauses = pauses.map(|until| format!("EC2 is asked again in {} ms", until.since(now).as_millis()));
        waiting.extend(pauses.map(of(WaitingFor::Pause)));
        waiting
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
