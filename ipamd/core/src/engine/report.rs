//! How the pool stands, as plain values for status pages and people.

use std::net::Ipv4Addr;

use eni_proto::PodKey;

use super::{Engine, refusal::describe};
use crate::{
    EniId, Moment,
    pool::{Eni, Phase},
};

/// How the pool stands at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// The ENIs, by network card and device index; those that hang on no instance last.
    pub enis: Vec<EniStatus>,
    /// What is being waited for, for people. Empty: nothing.
    pub waiting: Vec<String>,
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
    /// Its primary address.
    pub primary: Ipv4Addr,
    /// Its single addresses, sorted, then those of its prefixes, sorted.
    pub addresses: Vec<(Ipv4Addr, AddressState)>,
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
        let asked: Vec<_> = self.cards().map(|card| self.in_flight(card)).collect();
        let asked: usize = asked.iter().map(|asked| asked.assigning + asked.creating.iter().sum::<usize>()).sum();
        EngineStatus {
            free: count(free_in(true)),
            leased: count(self.pool.leases().count()),
            cooling: count(self.pool.cooling_here()),
            in_flight: count(free_in(false) + asked),
            queued: count(self.queue.len()),
            enis,
            waiting: self.waiting(now),
            last_error: self.last_error.as_ref().map(|(error, _)| describe(error)),
        }
    }

    fn eni_status(&self, eni: &Eni, now: Moment) -> EniStatus {
        let state = |address: &Ipv4Addr| {
            if let Some(lease) = self.pool.leases().find(|lease| lease.address == *address) {
                return AddressState::Leased(lease.key.clone());
            }
            match self.pool.cooling().find(|(cooling, until)| cooling == address && *until > now) {
                Some((_, until)) => AddressState::Cooling(until),
                None => AddressState::Free,
            }
        };
        EniStatus {
            id: eni.interface.id.clone(),
            card: eni.card(),
            device_index: eni.device_index(),
            phase: eni.phase,
            managed: self.pool.is_managed(eni),
            primary: eni.interface.primary,
            addresses: eni.interface.addresses().map(|address| (address, state(&address))).collect(),
        }
    }

    fn waiting(&self, now: Moment) -> Vec<String> {
        let mut waiting = self.last_plan.waiting.clone();
        let further =
            self.further.iter().flat_map(|(card, (plan, _))| plan.waiting.iter().map(move |what| (card, what)));
        waiting.extend(further.map(|(card, what)| format!("network card {card}: {what}")));
        waiting.extend(self.intents.iter().map(|(intent, action)| format!("{intent}: {action:?}")));
        waiting.extend(self.odd.iter().map(|(eni, what)| format!("{eni}: {what}")));
        waiting.extend(self.disputes.iter().map(|(eni, dispute)| format!("{eni}: {}", dispute.in_words())));
        let strays = self.pool.strays().map(|address| {
            format!("{address}: the kernel has it for a pod that nobody knows; it is neither given out nor given back")
        });
        waiting.extend(strays);
        waiting.extend(self.kernel.trouble().map(|why| format!("the kernel could not be asked what it holds: {why}")));
        waiting.extend(self.host_trouble.iter().map(|(eni, reason)| format!("{eni}: {reason}")));
        for until in self.pauses.ends().filter(|until| *until > now) {
            waiting.push(format!("EC2 is asked again in {} ms", until.since(now).as_millis()));
        }
        waiting
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
