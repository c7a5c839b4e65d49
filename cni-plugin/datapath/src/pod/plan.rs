//! What a wired pod looks like, and whose a link is. Pure.

use std::net::{IpAddr, Ipv6Addr};

use eni_proto::{
    LinkAlias, LinkName, PodAddresses, PodKey, host_link_name,
    numbers::{POD_GATEWAY, POD_GATEWAY_V6, RULE_IN_POD, TABLE_IN_POD, TABLE_MAIN},
};
use sha1::{Digest, Sha1};

use super::PodWiring;
use crate::{
    Cidr, Family, MacAddress,
    ops::{Address, Neighbour, Object, Op, Route, Rule, Setting},
    route::{Link, TABLE_LOCAL, VethPair},
};

/// Returns the pair to create.
pub(super) fn veth_pair(wiring: &PodWiring) -> VethPair {
    VethPair {
        host_name: host_link_name(&wiring.network.veth_prefix, &wiring.key, &wiring.pod),
        host_mac: host_mac(&wiring.key),
        host_group: wiring.network.eni_mark.value(),
        pod_name: wiring.key.interface().to_owned(),
        pod_mac: mac(&wiring.key, "pod"),
        mtu: wiring.network.mtu,
    }
}

/// Returns what the host link says of itself.
pub(super) fn alias(wiring: &PodWiring) -> LinkAlias {
    let prefix = &wiring.network.veth_prefix;
    LinkAlias {
        name: LinkName::of(prefix, &host_link_name(prefix, &wiring.key, &wiring.pod)),
        key: wiring.key.clone(),
        addresses: wiring.network.addresses,
        eni_mark: wiring.network.eni_mark,
        adopted_mac: None,
    }
}

/// Returns the hardware address of one end of a key's pair: locally administered, unicast, the same for the same key.
///
/// It is set when the link is created, and so says whose the link is before the alias does. A set address is also left alone by
/// udev, which replaces random ones (`MACAddressPolicy=persistent`) and thereby cuts the pod off.
pub(super) fn mac(key: &PodKey, end: &str) -> MacAddress {
    let digest: [u8; 20] = Sha1::digest(format!("{end} {key}")).into();
    let [first, b, c, d, e, f, ..] = digest;
    MacAddress([first & 0xfc | 0x02, b, c, d, e, f])
}

/// Returns the hardware address of the host's end.
pub(crate) fn host_mac(key: &PodKey) -> MacAddress {
    mac(key, "host")
}

/// Returns where the pod's IPv6 address is, seen from the host: nobody asks for it, and the pod's own answers go no further.
pub(crate) fn pod_neighbour(address: Ipv6Addr, link: u32, key: &PodKey) -> Neighbour {
    Neighbour { link, address: address.into(), mac: mac(key, "pod") }
}

/// Returns the steps on the pod's end itself, in order.
pub(super) fn on_link(link: u32, addresses: PodAddresses, host_mac: MacAddress) -> Vec<Op> {
    let mut steps = vec![Op::Set { link, from: Setting::Up(false), to: Setting::Up(true) }];
    for address in addresses.all() {
        let gateway = match Family::of(address) {
            Family::V4 => POD_GATEWAY.into(),
            Family::V6 => POD_GATEWAY_V6.into(),
        };
        steps.push(Op::Add(Object::Address(Address { link, address, deprecated: false })));
        steps.push(Op::Add(Object::Neighbour(Neighbour { link, address: gateway, mac: host_mac })));
        if address.is_ipv6() {
            // The kernel makes an IPv6 address its own some time later, in the background, and drops what comes for it until then.
            let (table, destination) = (TABLE_LOCAL, Cidr::host(address));
            steps.push(Op::Add(Object::Route(Route { table, destination, gateway: None, link })));
        }
    }
    steps
}

/// Returns the way out of the pod in `table`, in order: the gateway must be on the link before a route may lead over it, which a
/// link-local one always is.
pub(super) fn routes(link: u32, addresses: PodAddresses, table: u32) -> Vec<Op> {
    let gateway = Route { table, destination: Cidr::host(POD_GATEWAY), gateway: None, link };
    let mut routes = Vec::new();
    if addresses.v4().is_some() {
        routes.extend([gateway, Route { destination: Cidr::ANY, gateway: Some(POD_GATEWAY.into()), ..gateway }]);
    }
    if addresses.v6().is_some() {
        routes.push(Route { destination: Cidr::ANY_V6, gateway: Some(POD_GATEWAY_V6.into()), ..gateway });
    }
    let mut steps: Vec<Op> = routes.into_iter().map(|route| Op::Add(Object::Route(route))).collect();
    if table != TABLE_MAIN {
        steps.extend(addresses.all().map(|address| Op::Add(Object::Rule(own_rule(address, table)))));
    }
    steps
}

/// Returns the table inside the pod that an interface has for itself.
pub(super) const fn own_table(link: u32) -> u32 {
    TABLE_IN_POD.saturating_add(link)
}

/// Returns the rule inside the pod that sends what comes from the interface's address to its own table.
pub(super) const fn own_rule(address: IpAddr, table: u32) -> Rule {
    Rule { family: Family::of(address), priority: RULE_IN_POD, from: Some(address), mark: None, table }
}

/// What the label of an ended pod's link begins with; no version of the daemon takes such a link for a pod's.
const ENDED: &str = "ended ";

/// Returns what a link says of itself when its pod has ended.
pub(super) fn ended_label(alias: &LinkAlias) -> String {
    format!("{ENDED}{alias}")
}

/// Returns whose the link is, or was until its pod ended.
pub(super) fn alias_of(link: &Link) -> Option<LinkAlias> {
    link.alias.strip_prefix(ENDED).unwrap_or(&link.alias).parse().ok()
}

/// Returns whose the link was until its pod ended; nothing when none has.
pub(crate) fn ended_alias(link: &Link) -> Option<LinkAlias> {
    link.alias.strip_prefix(ENDED)?.parse().ok()
}

/// Whether the link is the host's end of a pair whose pod's end is `inner`, and that pod has ended, whoever it was.
pub(super) fn is_ended_peer(link: &Link, inner: &Link) -> bool {
    ended_alias(link).is_some() && inner.peer == Some(link.index) && link.peer == Some(inner.index)
}

/// Whose a host link is, seen from a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The key's own, labelled.
    Key(LinkAlias),
    /// The key's own, but its ADD died before it was labelled.
    Unfinished,
    /// It was the key's own until the pod ended.
    Ended(LinkAlias),
    /// Another container's, or nobody's that we know.
    Other,
}

pub(super) fn owner(link: &Link, key: &PodKey) -> Owner {
    match alias_of(link) {
        Some(alias) if alias.key != *key => Owner::Other,
        Some(alias) if link.alias.starts_with(ENDED) => Owner::Ended(alias),
        Some(alias) => Owner::Key(alias),
        None if link.alias.is_empty() && link.mac == Some(mac(key, "host")) => Owner::Unfinished,
        None => Owner::Other,
    }
}

/// What to do when a name of the pair is taken already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The pod has another interface of this name.
    InterfaceInUse,
    /// The host has a link of this name that never was a pod's.
    ForeignLink,
    /// The same ADD again: both ends are there.
    Keep { host: u32, pod: u32 },
    /// An older sandbox of the same pod, or an ADD that did not finish.
    Replace(Link),
    /// It is gone meanwhile.
    Gone,
}

pub(super) fn conflict(wiring: &PodWiring, host: Option<Link>, pod: Option<&Link>) -> Conflict {
    let is_ours = |pod: &&Link| {
        let host = host.as_ref().map(|host| (host.index, host.peer));
        pod.mac == Some(mac(&wiring.key, "pod")) && host == pod.peer.map(|peer| (peer, Some(pod.index)))
    };
    let inner = pod.filter(is_ours);
    match (host, inner) {
        _ if pod.is_some() && inner.is_none() => Conflict::InterfaceInUse,
        (None, _) => Conflict::Gone,
        (Some(host), _) if host.kind != "veth" => Conflict::ForeignLink,
        (Some(host), Some(inner)) if owner(&host, &wiring.key) == Owner::Key(alias(wiring)) => {
            Conflict::Keep { host: host.index, pod: inner.index }
        }
        (Some(host), _) => Conflict::Replace(host),
    }
}
