//! The VPC: routes each address to the ENI that owns it, and drops and counts what a VPC would not carry.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipam_core::{EniId, InstanceId, ports::Interface};

use crate::{LabError, Namespace, internet::Internet};

pub(crate) mod counters;
mod outside;
mod ports;
pub(crate) mod script;
mod ways;

pub use outside::NAT_GATEWAY;
use ports::Ports;
pub(crate) use ports::Surroundings;
pub use ways::{Carried, Direction};

/// IPv6 is off on ports whose ENI has none, so that a node's neighbour discovery makes no noise; proxy ARP answers for every address
/// that has an owner.
const SYSCTLS: &[(&str, &str)] = &[
    ("net/ipv4/ip_forward", "1"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv4/conf/default/proxy_arp", "1"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/all/forwarding", "1"),
    // The VPC's router has its address without asking.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
];

const RULES: &str = "table ip fabric {
  set owned { type ifname . ipv4_addr; }
  set outside { type ifname; elements = { \"lo\", \"igw\" } }
  set public { type ipv4_addr; }
  set wrong_source { type ifname . ipv4_addr; size 65535; flags dynamic; counter; }
  set no_public_address { type ipv4_addr; size 65535; flags dynamic; counter; }
  chain source_check {
    type filter hook prerouting priority -300; policy accept;
    iifname @outside accept
    iifname . ip saddr @owned accept
    update @wrong_source { iifname . ip saddr } drop
  }
  chain balanced { }
  chain translated { }
  chain private { jump balanced; jump translated; }
  chain internet_gateway {
    type filter hook forward priority 0; policy accept;
    oifname \"igw\" ip saddr != @public jump private
    iifname \"igw\" ip daddr != @public jump private
    oifname \"igw\" ip saddr != @public update @no_public_address { ip saddr } drop
    iifname \"igw\" ip daddr != @public update @no_public_address { ip daddr } drop
  }
}
table ip6 fabric {
  set outside { type ifname; elements = { \"lo\", \"igw\" } }
  set wrong_source { type ifname . ipv6_addr; size 65535; flags dynamic; counter; }
  chain source_check {
    type filter hook prerouting priority -300; policy accept;
    iifname @outside accept
    ip6 saddr { ::, fe80::/10 } accept
    fib saddr . iif oif != 0 accept
    update @wrong_source { iifname . ip6 saddr } drop
  }
}
";

/// Packets that left an ENI with a source that this ENI did not own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongSource {
    /// The ENI by which the packets came in.
    pub eni: EniId,
    /// The source that they claimed.
    pub source: IpAddr,
    /// How many.
    pub packets: u64,
}

/// What the fabric dropped since the lab began. Empty in a healthy network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drops {
    /// By the source check, sorted by ENI and source. Each entry is a packet that took the wrong ENI.
    pub wrong_source: Vec<WrongSource>,
    /// By the internet gateway: addresses without a public one, with the packets of each. Missing source translation.
    pub no_public_address: BTreeMap<Ipv4Addr, u64>,
}

impl Drops {
    /// All dropped packets.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.wrong_source.iter().map(|entry| entry.packets).sum::<u64>() + self.no_public_address.values().sum::<u64>()
    }

    /// Packets that the source check dropped on one ENI.
    #[must_use]
    pub fn of(&self, eni: &EniId) -> u64 {
        self.wrong_source.iter().filter(|entry| entry.eni == *eni).map(|entry| entry.packets).sum()
    }
}

impl fmt::Display for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total() == 0 {
            return f.write_str("none");
        }
        for WrongSource { eni, source, packets } in &self.wrong_source {
            writeln!(f, "{packets} from {source} by {eni}, which does not own it")?;
        }
        for (address, packets) in &self.no_public_address {
            writeln!(f, "{packets} of {address} at the internet gateway, without a public address")?;
        }
        Ok(())
    }
}

/// The VPC and the internet behind it.
#[derive(Debug)]
pub(crate) struct Fabric {
    namespace: Arc<Namespace>,
    internet: Internet,
    ports: Ports,
    /// Which ENI each port stood for; ports that are gone still have counted drops.
    history: BTreeMap<String, EniId>,
    last_port: u32,
    /// Whether the load balancer's rules are there.
    balances: bool,
}

impl Fabric {
    pub(crate) fn new() -> Result<Self, LabError> {
        let namespace = Arc::new(Namespace::fresh("fabric")?);
        namespace.sysctl(SYSCTLS)?;
        namespace.nft(RULES)?;
        let internet = Internet::behind(&namespace)?;
        Ok(Self { namespace, internet, ports: Ports::new(), history: BTreeMap::new(), last_port: 0, balances: false })
    }

    pub(crate) fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    pub(crate) fn internet(&self) -> &Internet {
        &self.internet
    }

    /// Makes the fabric as the ENIs `described` call for. Returns what is odd about them.
    ///
    /// Repeatable; does nothing when nothing changed.
    pub(crate) fn sync(
        &mut self,
        described: &[Interface],
        surroundings: &Surroundings,
        nodes: &BTreeMap<InstanceId, &Namespace>,
    ) -> Result<Vec<String>, LabError> {
        let (next, odd) = ports::arrange(&self.ports, described, surroundings, &mut self.last_port);
        if next != self.ports {
            let netns = nodes.iter().map(|(id, node)| (id.clone(), node.path().display().to_string())).collect();
            let scripts = script::write(&self.ports, &next, &netns);
            self.namespace.nft(&scripts.nft)?;
            self.namespace.ip(&scripts.ip)?;
            for port in &scripts.ipv6_ports {
                self.namespace.sysctl(&[(&format!("net/ipv6/conf/{port}/disable_ipv6"), "0")])?;
            }
            self.namespace.ip(&scripts.ipv6)?;
            for (instance, boot) in &scripts.nodes {
                nodes[instance].ip(boot)?;
            }
            self.namespace.ip(&scripts.settle)?;
            self.history.extend(next.iter().map(|(eni, port)| (port.name.clone(), eni.clone())));
            self.ports = next;
        }
        Ok(odd)
    }

    /// The ENI that owns an address. Absent: the fabric would not deliver it.
    pub(crate) fn owner(&self, address: Ipv4Addr) -> Option<EniId> {
        self.ports.iter().find(|(_, port)| port.owns.contains(&address)).map(|(eni, _)| eni.clone())
    }

    pub(crate) fn drops(&self) -> Result<Drops, LabError> {
        let mut drops = Drops::default();
        for family in counters::FAMILIES {
            for (key, packets) in counters::read(&self.namespace, family, "fabric", "wrong_source")? {
                let port = key.first().map_or("", String::as_str);
                let eni = self
                    .history
                    .get(port)
                    .cloned()
                    .ok_or_else(|| LabError::Answer { what: "a port of the fabric", answer: port.to_owned() })?;
                drops.wrong_source.push(WrongSource { eni, source: counters::address(&key, 1)?, packets });
            }
        }
        drops.wrong_source.sort_by(|a, b| (&a.eni, a.source).cmp(&(&b.eni, b.source)));
        for (key, packets) in counters::read(&self.namespace, "ip", "fabric", "no_public_address")? {
            drops.no_public_address.insert(counters::address(&key, 0)?, packets);
        }
        Ok(drops)
    }
}
