//! Decides which ports the fabric has and who owns which address; changes nothing itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

use ipam_core::{
    EniId, InstanceId, MacAddress, SubnetId,
    ports::{Attachment, Cidr4, Interface},
};

/// One attached ENI: a link in the fabric whose other end is in the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Name of the link in the fabric; never used again for another ENI.
    pub(crate) name: String,
    /// Name of the link in the node.
    pub(crate) link: String,
    pub(crate) instance: InstanceId,
    pub(crate) mac: MacAddress,
    pub(crate) subnet: Cidr4,
    pub(crate) primary: Ipv4Addr,
    /// Whether the operating system configured it at boot, and an internet gateway translates its primary address.
    pub(crate) first: bool,
    /// Addresses that the fabric delivers here and takes from here.
    pub(crate) owns: BTreeSet<Ipv4Addr>,
    /// The same in IPv6.
    pub(crate) owns_v6: BTreeSet<Network6>,
}

/// An IPv6 network: its first address, and the length of its prefix.
pub(crate) type Network6 = (Ipv6Addr, u8);

impl Port {
    /// The node's own IPv6 address on this link.
    pub(crate) fn primary_v6(&self) -> Option<Ipv6Addr> {
        self.owns_v6.iter().find(|(_, prefix)| *prefix == 128).map(|(address, _)| *address)
    }

    /// Whether `self` is the same link as `other`, whatever its addresses.
    pub(crate) fn same_link(&self, other: &Self) -> bool {
        (&self.name, &self.link, &self.instance, self.mac) == (&other.name, &other.link, &other.instance, other.mac)
    }
}

/// Ports by ENI.
pub(crate) type Ports = BTreeMap<EniId, Port>;

/// What the fabric needs to know beside the ENIs.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub(crate) nodes: BTreeSet<InstanceId>,
    pub(crate) subnets: BTreeMap<SubnetId, Cidr4>,
    /// What ENIs have of IPv6.
    pub(crate) ipv6: BTreeMap<EniId, BTreeSet<Network6>>,
}

/// The router's address in a subnet: the network's address plus one.
pub(crate) fn router(subnet: Cidr4) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network.to_bits().saturating_add(1))
}

/// Returns the ports that the ENIs `described` call for, and what is odd about them, in people's words.
///
/// An address belongs to its first owner for as long as that one has it, whatever a careless cloud tells later.
/// `number` is the number of the next new port.
pub(crate) fn arrange(
    now: &Ports,
    described: &[Interface],
    surroundings: &Surroundings,
    number: &mut u32,
) -> (Ports, Vec<String>) {
    let mut odd = Vec::new();
    let mut wanted = Ports::new();
    let mut links = BTreeSet::new();
    let mut sorted: Vec<&Interface> = described.iter().collect();
    // Known ENIs first: they keep their place in the node.
    sorted.sort_by_key(|interface| (!now.contains_key(&interface.id), interface.id.clone()));
    for interface in sorted {
        let Some(attachment) = interface.attachment.as_ref().filter(|attachment| attachment.attached) else {
            continue;
        };
        let Some(&subnet) = surroundings.subnets.get(&interface.subnet) else { continue };
        if !surroundings.nodes.contains(&attachment.instance) {
            continue;
        }
        let link = link_name(attachment);
        if !links.insert((attachment.instance.clone(), link.clone())) {
            odd.push(format!("{}: {link} of {} is taken", interface.id, attachment.instance));
            continue;
        }
        let known = now.get(&interface.id).filter(|port| port.instance == attachment.instance && port.link == link);
        let name = known.map_or_else(|| next_name(number), |port| port.name.clone());
        let owns_v6 = surroundings.ipv6.get(&interface.id).cloned().unwrap_or_default();
        wanted.insert(interface.id.clone(), Port { owns_v6, ..port(interface, attachment, subnet, name, link) });
    }
    settle_owners(now, &mut wanted, &mut odd);
    (wanted, odd)
}

fn port(interface: &Interface, attachment: &Attachment, subnet: Cidr4, name: String, link: String) -> Port {
    Port {
        name,
        link,
        instance: attachment.instance.clone(),
        mac: interface.mac,
        subnet,
        primary: interface.primary,
        first: attachment.device_index == 0 && attachment.card == 0,
        owns: interface.addresses().chain([interface.primary]).collect(),
        owns_v6: BTreeSet::new(),
    }
}

fn link_name(attachment: &Attachment) -> String {
    match attachment.card {
        0 => format!("eth{}", attachment.device_index),
        card => format!("eth{card}c{}", attachment.device_index),
    }
}

fn next_name(number: &mut u32) -> String {
    *number += 1;
    format!("p{number}")
}

/// Takes from each port the addresses that somebody else had first.
fn settle_owners(now: &Ports, wanted: &mut Ports, odd: &mut Vec<String>) {
    let routers: BTreeSet<Ipv4Addr> = wanted.values().map(|port| router(port.subnet)).collect();
    let mut owners: BTreeMap<Ipv4Addr, EniId> = BTreeMap::new();
    for (eni, port) in now {
        for &address in &port.owns {
            if wanted.get(eni).is_some_and(|next| next.owns.contains(&address)) {
                owners.insert(address, eni.clone());
            }
        }
    }
    for (eni, port) in wanted {
        port.owns.retain(|address| {
            let owner = owners.entry(*address).or_insert_with(|| eni.clone());
            let reserved = routers.contains(address);
            if reserved {
                odd.push(format!("{eni}: {address} is the router's"));
            } else if owner != eni {
                odd.push(format!("{eni}: {address} already belongs to {owner}"));
            }
            !reserved && owner == eni
        });
    }
}

#[cfg(test)]
mod tests;
