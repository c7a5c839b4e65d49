//! What the kernel says, as our values. Links are read attribute by attribute, because a full decoder fails as a whole on one
//! attribute of a newer kernel.

use std::net::IpAddr;

use eni_proto::numbers::ROUTE_PROTOCOL;
use netlink_packet_core::{NetlinkDeserializable, NetlinkHeader};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressProtocol},
    link::LinkFlags,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags},
};

use super::link::{AF_INET, IFLA_INET_CONF, Link};
use crate::{
    Cidr, Family, MacAddress, attributes,
    ops::{Address, Neighbour, Route, Rule},
};

const RTM_NEWLINK: u16 = 16;
/// Of IPv6 routes that are made without one, as ours; of IPv4 that is 0, and nothing comes before it. Source: `IP6_RT_PRIO_USER`.
const METRIC_V6: u32 = 1024;
const LINK_HEADER: usize = 16;

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
const fn family(code: AddressFamily) -> Option<Family> {
    match code {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

/// Reads a link from RTM_NEWLINK; nothing when it is another message.
pub(crate) fn read_link(kind: u16, payload: &[u8]) -> Option<Link> {
    if kind != RTM_NEWLINK {
        return None;
    }
    let header = payload.first_chunk::<LINK_HEADER>()?;
    let mut link = Link { index: attributes::as_ne32(&header[4..])?, ..Link::default() };
    link.up = attributes::as_ne32(&header[8..])? & LinkFlags::Up.bits() != 0;
    for (attribute, value) in attributes::read(&payload[LINK_HEADER..]) {
        match attribute {
            1 => link.mac = value.try_into().ok().map(MacAddress),
            3 => link.name = attributes::as_text(value),
            4 => link.mtu = attributes::as_ne32(value)?,
            5 => link.peer = attributes::as_ne32(value),
            18 => link.kind = attributes::find(value, 1).map(attributes::as_text).unwrap_or_default(),
            20 => link.alias = attributes::as_text(value),
            27 => link.group = attributes::as_ne32(value)?,
            26 => {
                let family = attributes::find(value, AF_INET).unwrap_or_default();
                link.ipv4 = attributes::find(family, IFLA_INET_CONF).unwrap_or_default().to_vec();
            }
            _ => {}
        }
    }
    Some(link)
}

pub(crate) fn decode(kind: u16, payload: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, payload).ok()
}

/// An address and whether it is stamped as ours.
#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
pub(crate) fn read_address(kind: u16, payload: &[u8]) -> Option<(Address, bool)> {
    let RouteNetlinkMessage::NewAddress(message) = decode(kind, payload)? else { return None };
    // IPv6 addresses have no other end and so no `local` of their own.
    let named = message.attributes.iter().filter_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some((0, *address)),
        AddressAttribute::Address(address) => Some((1, *address)),
        _ => None,
    });
    let (_, address) = named.min()?;
    let ours = message.attributes.contains(&AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL)));
    let deprecated = message.header.flags.contains(AddressHeaderFlags::Deprecated);
    Some((Address { link: message.header.index, address, deprecated }, ours))
}

/// Whether the answer to [`way_to`](super::way_to) says that the address is the host's own. Source: `RTN_LOCAL` in linux/rtnetlink.h.
pub(crate) fn ends_here(kind: u16, payload: &[u8]) -> bool {
    const RTM_NEWROUTE: u16 = 24;
    const TYPE_AT: usize = 7;
    const LOCAL: u8 = 2;
    kind == RTM_NEWROUTE && payload.get(TYPE_AT) == Some(&LOCAL)
}

/// A unicast route of ours; nothing for any other.
pub(crate) fn read_route(kind: u16, payload: &[u8]) -> Option<Route> {
    read_any_route(kind, payload).filter(|(_, protocol)| *protocol == ROUTE_PROTOCOL).map(|(route, _)| route)
}

/// A unicast route with the number of who made it.
pub(crate) fn read_any_route(kind: u16, payload: &[u8]) -> Option<(Route, u8)> {
    let RouteNetlinkMessage::NewRoute(message) = decode(kind, payload)? else { return None };
    let protocol = u8::from(message.header.protocol);
    (message.header.kind == RouteType::Unicast).then(|| Some((route(message)?, protocol))).flatten()
}

/// A route that somebody else made, of whatever kind, as far as we have words for it; nothing for ours, the kernel's own, and one to
/// everywhere, unless it would come before ours.
pub(crate) fn read_foreign_route(kind: u16, payload: &[u8]) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = decode(kind, payload)? else { return None };
    let known = [RouteProtocol::Other(ROUTE_PROTOCOL), RouteProtocol::Kernel];
    let nearer = |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Priority(at) if *at < METRIC_V6);
    let before_ours = message.header.address_family == AddressFamily::Inet6 && message.attributes.iter().any(nearer);
    let counts = message.header.destination_prefix_length > 0 || before_ours;
    (counts && !known.contains(&message.header.protocol)).then(|| route(message)).flatten()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
fn route(message: RouteMessage) -> Option<Route> {
    let destination = match family(message.header.address_family)? {
        Family::V4 => Cidr::ANY,
        Family::V6 => Cidr::ANY_V6,
    };
    let mut route = Route { table: message.header.table.into(), destination, gateway: None, link: 0 };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Oif(link) => route.link = link,
            RouteAttribute::Gateway(gateway) => route.gateway = Some(ip(&gateway)?),
            RouteAttribute::Destination(network) => {
                route.destination = Cidr::new(ip(&network)?, message.header.destination_prefix_length).ok()?;
            }
            _ => {}
        }
    }
    Some(route)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// A permanent neighbour; nothing for one that the kernel learnt.
#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
pub(crate) fn read_neighbour(kind: u16, payload: &[u8]) -> Option<Neighbour> {
    let RouteNetlinkMessage::NewNeighbour(message) = decode(kind, payload)? else { return None };
    let (mut address, mut mac) = (None, None);
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => address = Some(IpAddr::V4(found)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => address = Some(IpAddr::V6(found)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok().map(MacAddress),
            _ => {}
        }
    }
    let permanent = message.header.state == NeighbourState::Permanent;
    permanent.then_some(Neighbour { link: message.header.ifindex, address: address?, mac: mac? })
}

/// Who made a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// It is stamped as ours.
    Ours,
    /// Somebody else.
    Others,
    /// Somebody else, for every packet, which goes no further where the table knows a way, or at all.
    OthersForAll,
}

/// A rule, as far as we have words for it.
pub(crate) fn read_rule(kind: u16, payload: &[u8]) -> Option<(Rule, Whose)> {
    let AnyRule { rule, protocol, .. } = read_any_rule(kind, payload)?;
    let whose = match protocol {
        ROUTE_PROTOCOL => Whose::Ours,
        _ if is_for_all(&decode(kind, payload)?) => Whose::OthersForAll,
        _ => Whose::Others,
    };
    Some((rule, whose))
}

fn is_for_all(message: &RouteNetlinkMessage) -> bool {
    let RouteNetlinkMessage::NewRule(message) = message else { return false };
    let ends = [RuleAction::ToTable, RuleAction::Blackhole, RuleAction::Unreachable, RuleAction::Prohibit];
    let selects = |attribute: &RuleAttribute| {
        let harmless = [RuleAttribute::SuppressPrefixLen(u32::MAX), RuleAttribute::SuppressIfGroup(u32::MAX)];
        let says_where =
            [RuleAttribute::Priority(0), RuleAttribute::Table(0), RuleAttribute::Protocol(RouteProtocol::Unspec)];
        let is_one = |other: &RuleAttribute| std::mem::discriminant(other) == std::mem::discriminant(attribute);
        !harmless.contains(attribute) && !says_where.iter().any(is_one)
    };
    ends.contains(&message.header.action)
        && !message.header.flags.contains(RuleFlags::Invert)
        && message.header.tos == 0
        && !message.attributes.iter().any(selects)
}

/// A rule of anybody's, with more words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnyRule {
    /// What of it our own rules have too.
    pub(crate) rule: Rule,
    /// Only packets to this network.
    pub(crate) to: Option<Cidr>,
    /// Only packets that came in by this link.
    pub(crate) incoming: Option<String>,
    /// The number of who made it.
    pub(crate) protocol: u8,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "foreign, and grows with the kernel")]
pub(crate) fn read_any_rule(kind: u16, payload: &[u8]) -> Option<AnyRule> {
    let RouteNetlinkMessage::NewRule(message) = decode(kind, payload)? else { return None };
    let family = family(message.header.family)?;
    let rule = Rule { family, priority: 0, from: None, mark: None, table: message.header.table.into() };
    let mut found = AnyRule { rule, to: None, incoming: None, protocol: 0 };
    let (mut value, mut mask) = (None, u32::MAX);
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => found.rule.priority = priority,
            RuleAttribute::Table(table) => found.rule.table = table,
            RuleAttribute::FwMark(mark) => value = Some(mark),
            RuleAttribute::FwMask(bits) => mask = bits,
            RuleAttribute::Source(source) => found.rule.from = Some(source),
            RuleAttribute::Destination(network) => found.to = Cidr::new(network, message.header.dst_len).ok(),
            RuleAttribute::Iifname(name) => found.incoming = Some(name),
            RuleAttribute::Protocol(protocol) => found.protocol = protocol.into(),
            _ => {}
        }
    }
    found.rule.mark = value.map(|value| (value, mask));
    Some(found)
}
