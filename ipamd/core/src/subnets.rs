//! What is known of the subnets: which may carry pods, and which EC2 refused something in.
//!
//! A subnet that is full or has no free /28 is set aside for itself, with a back-off; the others go on.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use crate::{
    Moment, Placement, Policy, SubnetId,
    ports::{Amount, NodeIdentity, RefusalClass, Subnet},
    retry::Backoff,
};

/// Tag by which an operator says whether pods may live in a subnet: `0` means no, anything else yes.
pub const TAG_ROLE: &str = "kubernetes.io/role/cni";
/// Beginning of the tags that reserve a subnet for clusters; the cluster's name follows.
pub const TAG_CLUSTER_PREFIX: &str = "cni.networking.k8s.aws/cluster/";

/// How long a description of the subnets is used.
const FRESH: Duration = Duration::from_secs(3600);
/// The same, while a subnet is full, or after EC2 did not describe them.
const FRESH_IN_TROUBLE: Duration = Duration::from_secs(300);
/// From this many on, what EC2 is asked for need not be held down any more.
const PLENTY: u16 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    backoff: Backoff,
    until: Moment,
}

impl Rest {
    fn longer(before: Option<Self>, fresh: Backoff, now: Moment) -> Self {
        let mut backoff = before.map_or(fresh, |rest| rest.backoff);
        let until = now.after(backoff.next_wait());
        Self { backoff, until }
    }
}

/// What EC2 refused in one subnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Trouble {
    /// Not even one address was there.
    full: Option<Rest>,
    /// Not even one /28 was free.
    fragmented: Option<Rest>,
    /// Ask for no more addresses, or prefixes, at once. Absent: as many as wanted.
    most_addresses: Option<u16>,
    most_prefixes: Option<u16>,
}

/// What is known of the subnets.
#[derive(Debug, Clone)]
pub struct Subnets {
    seed: u64,
    known: Vec<Subnet>,
    fresh_until: Option<Moment>,
    troubles: BTreeMap<SubnetId, Trouble>,
}

impl Subnets {
    /// Nothing is known.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { seed, known: Vec::new(), fresh_until: None, troubles: BTreeMap::new() }
    }

    /// Takes over a description; nothing in it means that EC2 gave none.
    pub fn described(&mut self, now: Moment, subnets: Option<Vec<Subnet>>) {
        let wait = if subnets.is_some() { FRESH } else { FRESH_IN_TROUBLE };
        self.fresh_until = Some(now.after(wait));
        if let Some(subnets) = subnets {
            self.known = subnets;
        }
    }

    /// The subnets as EC2 described them last.
    pub fn known(&self) -> impl Iterator<Item = &Subnet> {
        self.known.iter()
    }

    /// Whether EC2 should be asked before an ENI is made.
    #[must_use]
    pub fn is_stale(&self, now: Moment) -> bool {
        self.fresh_until.is_none_or(|until| until <= now)
    }

    /// The subnets in which a new ENI may be made, best first. Full ones are not left out.
    #[must_use]
    pub fn candidates(&self, node: &NodeIdentity, policy: &Policy) -> Vec<SubnetId> {
        match &policy.placement {
            Placement::Custom(network) => vec![network.subnet.clone()],
            Placement::NodeSubnet => vec![node.subnet.clone()],
            Placement::Discover => {
                let allowed = |subnet: &&Subnet| allowed(subnet, &node.subnet, &policy.cluster);
                let mut best: Vec<_> = self.known.iter().filter(allowed).collect();
                best.sort_by_key(|subnet| (Reverse(subnet.available_addresses), subnet.id != node.subnet, &subnet.id));
                let own_is_known = self.known.iter().any(|subnet| subnet.id == node.subnet);
                let own = (!own_is_known).then(|| node.subnet.clone());
                best.into_iter().map(|subnet| subnet.id.clone()).chain(own).collect()
            }
        }
    }

    /// Whether new pods may live in a subnet that already has an ENI: unless its tags forbid it.
    #[must_use]
    pub fn serves(&self, id: &SubnetId, policy: &Policy) -> bool {
        policy.placement != Placement::Discover
            || self.known.iter().find(|subnet| subnet.id == *id).is_none_or(|subnet| role(subnet) != Some("0"))
    }

    /// Whether the subnet is set aside because it had no address left.
    #[must_use]
    pub fn is_full(&self, id: &SubnetId, now: Moment) -> bool {
        self.trouble(id).full.is_some_and(|rest| rest.until > now)
    }

    /// Whether single addresses are to be asked for in the subnet for now, because it had no free /28.
    #[must_use]
    pub fn is_fragmented(&self, id: &SubnetId, now: Moment) -> bool {
        self.trouble(id).fragmented.is_some_and(|rest| rest.until > now)
    }

    /// Whether the subnet gave no /28 when it was asked last.
    #[must_use]
    pub fn was_fragmented(&self, id: &SubnetId) -> bool {
        self.trouble(id).fragmented.is_some()
    }

    /// Holds an amount down to what the subnet may still have.
    #[must_use]
    pub fn at_most(&self, id: &SubnetId, amount: Amount) -> Amount {
        let trouble = self.trouble(id);
        match amount {
            Amount::Addresses(count) => Amount::Addresses(trouble.most_addresses.map_or(count, |most| most.min(count))),
            Amount::Prefixes(count) => Amount::Prefixes(trouble.most_prefixes.map_or(count, |most| most.min(count))),
            Amount::Prefix6 => amount,
        }
    }

    /// Learns that EC2 had no room in the subnet for this much: next time for half of it; not for one, then it rests.
    pub fn refused(&mut self, now: Moment, id: &SubnetId, amount: Amount, class: RefusalClass) {
        let seed = self.seed ^ crate::retry::seed(id.as_str());
        let trouble = self.troubles.entry(id.clone()).or_default();
        match (amount, class) {
            // It says nothing of room for IPv4.
            (Amount::Prefix6, _) => {}
            (Amount::Prefixes(count), _) if count > 1 => trouble.most_prefixes = Some(count / 2),
            (Amount::Prefixes(_), _) => {
                trouble.most_prefixes = Some(1);
                trouble.fragmented = Some(Rest::longer(trouble.fragmented, Backoff::very_slow(seed), now));
            }
            (Amount::Addresses(count), RefusalClass::SubnetFull) if count > 1 => {
                trouble.most_addresses = Some(count / 2)
            }
            (Amount::Addresses(_), _) => {
                trouble.most_addresses = Some(1);
                trouble.full = Some(Rest::longer(trouble.full, Backoff::slow(seed), now));
                let soon = now.after(FRESH_IN_TROUBLE);
                self.fresh_until = self.fresh_until.map(|until| until.min(soon));
            }
        }
    }

    /// Learns that the subnet had room for this much.
    pub fn granted(&mut self, id: &SubnetId, amount: Amount) {
        let Some(trouble) = self.troubles.get_mut(id) else { return };
        let more = |most: Option<u16>| most.map(|most| most.saturating_mul(2)).filter(|most| *most < PLENTY);
        if amount != Amount::Prefix6 {
            trouble.full = None;
        }
        match amount {
            Amount::Prefix6 => {}
            Amount::Addresses(_) => trouble.most_addresses = more(trouble.most_addresses),
            Amount::Prefixes(_) => {
                trouble.fragmented = None;
                trouble.most_prefixes = more(trouble.most_prefixes);
            }
        }
        if *trouble == Trouble::default() {
            self.troubles.remove(id);
        }
    }

    /// When each rest ends, in no particular order; those that are over included.
    pub fn ends(&self) -> impl Iterator<Item = Moment> {
        self.troubles.values().flat_map(|trouble| [trouble.full, trouble.fragmented]).flatten().map(|rest| rest.until)
    }

    fn trouble(&self, id: &SubnetId) -> Trouble {
        self.troubles.get(id).copied().unwrap_or_default()
    }
}

fn role(subnet: &Subnet) -> Option<&str> {
    subnet.tags.get(TAG_ROLE).map(String::as_str)
}

/// The AWS CNI's rules: the node's subnet unless it is tagged `0`; others if they are tagged, not `0`, and not for other
/// clusters only.
fn allowed(subnet: &Subnet, own: &SubnetId, cluster: &str) -> bool {
    match role(subnet) {
        Some("0") => false,
        None => subnet.id == *own,
        Some(_) => {
            let clusters = || subnet.tags.keys().filter_map(|key| key.strip_prefix(TAG_CLUSTER_PREFIX));
            cluster.is_empty() || clusters().next().is_none() || clusters().any(|name| name == cluster)
        }
    }
}

#[cfg(test)]
mod tests;
