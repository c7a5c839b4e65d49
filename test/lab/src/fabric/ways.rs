//! Which ENI carried which packets; counted only on request, because counting costs.

use std::net::IpAddr;

use ipam_core::EniId;

use super::{Fabric, counters};
use crate::LabError;

const RULES: &str = "table ip ways
delete table ip ways
table ip ways {
  set from_node { type ifname . ipv4_addr . ipv4_addr; size 65535; flags dynamic; counter; }
  set to_node { type ifname . ipv4_addr . ipv4_addr; size 65535; flags dynamic; counter; }
  chain from_node {
    type filter hook prerouting priority -290; policy accept;
    update @from_node { iifname . ip saddr . ip daddr }
  }
  chain to_node {
    type filter hook postrouting priority 300; policy accept;
    update @to_node { oifname . ip saddr . ip daddr }
  }
}
table ip6 ways
delete table ip6 ways
table ip6 ways {
  set from_node { type ifname . ipv6_addr . ipv6_addr; size 65535; flags dynamic; counter; }
  set to_node { type ifname . ipv6_addr . ipv6_addr; size 65535; flags dynamic; counter; }
  chain neighbours {
    ip6 saddr { ::, fe80::/10 } accept
    ip6 daddr { fe80::/10, ff00::/8 } accept
  }
  chain from_node {
    type filter hook prerouting priority -290; policy accept;
    jump neighbours
    update @from_node { iifname . ip6 saddr . ip6 daddr }
  }
  chain to_node {
    type filter hook postrouting priority 300; policy accept;
    jump neighbours
    update @to_node { oifname . ip6 saddr . ip6 daddr }
  }
}
";

/// Which way packets went through an ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// They left the node.
    FromNode,
    /// They came to the node.
    ToNode,
}

/// Packets of one pair of addresses that one ENI carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The ENI.
    pub eni: EniId,
    /// Whether they left the node or came to it.
    pub direction: Direction,
    /// Their source, as it was on the ENI's link.
    pub source: IpAddr,
    /// Their destination, as it was on the ENI's link.
    pub destination: IpAddr,
    /// How many, at least one.
    pub packets: u64,
}

impl Fabric {
    pub(crate) fn count_ways(&self) -> Result<(), LabError> {
        self.namespace.nft(RULES).map(drop)
    }

    pub(crate) fn ways(&self) -> Result<Vec<Carried>, LabError> {
        let mut ways = Vec::new();
        for family in counters::FAMILIES {
            let sets = counters::read_all(&self.namespace, family, "ways")?;
            let counted =
                sets.into_iter().flat_map(|(set, counted)| counted.into_iter().map(move |one| (set.clone(), one)));
            for (set, (key, packets)) in counted {
                let direction = if set == "from_node" { Direction::FromNode } else { Direction::ToNode };
                // Links that are no ENI's lead out of the VPC.
                let Some(eni) = key.first().and_then(|port| self.history.get(port)).cloned() else { continue };
                let (source, destination) = (counters::address(&key, 1)?, counters::address(&key, 2)?);
                ways.push(Carried { eni, direction, source, destination, packets });
            }
        }
        Ok(ways)
    }
}
