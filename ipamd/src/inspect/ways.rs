//! What the kernel would do with pods' packets, by everybody's rules and routes, and what was done with those that came.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use eni_datapath::{Packet, PodState};
use eni_proto::PodKey;
use ipam_core::Lease;

use super::{Plans, Word};
use crate::errors::chain;

/// A packet that takes another way than its pod's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Astray {
    /// Whose it is.
    pub(crate) pod: PodKey,
    /// Its address.
    pub(crate) address: IpAddr,
    /// Whether it is sent by the pod; else it is for the pod.
    pub(crate) outbound: bool,
    /// Link that it comes in by.
    pub(crate) enters_by: String,
    /// Link that it should leave by.
    pub(crate) wanted: String,
    /// Link that it would leave by, or why it would not leave.
    pub(crate) found: Result<String, String>,
}

impl Astray {
    /// What the kernel would do with the packet, behind who sends it or gets it.
    pub(crate) fn fate(&self) -> String {
        let Self { enters_by, wanted, .. } = self;
        match &self.found {
            Ok(link) => format!("that comes in by {enters_by} would leave by {link} instead of {wanted}"),
            Err(why) => format!("that comes in by {enters_by} would not leave by {wanted}: {why}"),
        }
    }
}

impl fmt::Display for Astray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.outbound { "from" } else { "for" };
        write!(f, "a packet {direction} {} {}", self.address, self.fate())
    }
}

/// Asks the kernel for two packets of each pod: one from its subnet's router, and one to it. IPv4: what is wrong with IPv6 alone shows in
/// rules and routes.
pub(super) fn astray(leases: &[Lease], pods: &PodState, plans: &Plans) -> Word<Vec<Astray>> {
    let links = eni_datapath::links_by_mac().map_err(|error| chain(&error))?;
    let own: BTreeMap<&PodKey, (u32, &str)> = pods
        .links
        .iter()
        .filter_map(|link| Some((&link.alias.as_ref()?.key, (link.index, link.name.as_str()))))
        .collect();
    let asked: Vec<(Packet, Astray)> = leases
        .iter()
        .filter_map(|lease| {
            let plan = plans.enis.get(&lease.eni)?;
            let (eni, eni_name) = links.get(&plan.mac)?;
            let (link, name) = own.get(&lease.key)?;
            let (address, router) = (IpAddr::V4(lease.addresses.of_vpc().find_map(v4)?), plan.subnet.router());
            let way = |outbound, enters_by: &str, wanted: &str| Astray {
                pod: lease.key.clone(),
                address,
                outbound,
                enters_by: enters_by.to_owned(),
                wanted: wanted.to_owned(),
                found: Ok(String::new()),
            };
            Some([
                (Packet { from: router, to: address, enters_by: *eni, mark: 0 }, way(false, eni_name, name)),
                (
                    Packet { from: address, to: router, enters_by: *link, mark: lease.eni_mark.value() },
                    way(true, name, eni_name),
                ),
            ])
        })
        .flatten()
        .collect();
    let packets: Vec<Packet> = asked.iter().map(|(packet, _)| *packet).collect();
    let found = eni_datapath::ways(&packets).map_err(|error| chain(&error))?;
    let ways = asked.into_iter().zip(found).map(|((_, way), found)| Astray { found, ..way });
    Ok(ways.filter(|way| way.found.as_ref() != Ok(&way.wanted)).collect())
}

/// Pods' connections to the VPC whose source somebody changes: we never do.
pub(super) fn translated<'a>(leases: impl Iterator<Item = &'a Lease>, plans: &Plans) -> Word<Vec<(IpAddr, IpAddr)>> {
    let addresses: BTreeSet<IpAddr> = leases.flat_map(|lease| lease.addresses.of_vpc()).collect();
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let found = eni_datapath::translated(&addresses).map_err(|error| chain(&error))?;
    let in_vpc = |to: IpAddr| v4(to).is_some_and(|to| plans.direct.iter().any(|network| network.contains(to)));
    Ok(found.into_iter().filter(|(_, to)| in_vpc(*to)).collect())
}

const fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}
