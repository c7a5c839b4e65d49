//! Our values as rtnetlink messages, and back ([`read`]).

mod link;
mod read;

use std::net::IpAddr;

use eni_proto::numbers::ROUTE_PROTOCOL;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo},
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use crate::{
    Cidr, Family,
    ops::{Address, BranchRule, Neighbour, Object, Op, Route, Rule, Selector},
    socket::Message,
};

pub(crate) use link::{
    Link, VethPair, adopt_link, all_links, claim_link, create_veth, create_vlan, delete_group, delete_link, end_link,
    get_link, label_link, relabel_link, rename_link,
};
pub(crate) use read::{
    AnyRule, Whose, decode, ends_here, read_address, read_any_route, read_any_rule, read_foreign_route, read_link,
    read_neighbour, read_route, read_rule,
};

// Source: linux/rtnetlink.h.
const RT_TABLE_COMPAT: u8 = 252;
/// The table of a network's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;

pub(crate) fn encode(message: &RouteNetlinkMessage, flags: u16) -> Message {
    let mut payload = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut payload);
    Message { kind: NetlinkSerializable::message_type(message), flags: flags | NLM_F_ACK, payload }
}

/// The message that makes a thing be there; a route or neighbour takes the place of another one to the same destination.
pub(crate) fn mend_message(op: Op) -> Message {
    match op {
        Op::Add(object @ (Object::Route(_) | Object::Neighbour(_))) => {
            encode(&object_message(object, true), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Op::Add(_) | Op::Remove(_) | Op::Set { .. } => op_message(op),
    }
}

/// The message that carries out `op`.
pub(crate) fn op_message(op: Op) -> Message {
    match op {
        // A node that an older version prepared has the address as one like any other.
        Op::Add(object @ Object::Address(Address { deprecated: true, .. })) => {
            encode(&object_message(object, true), NLM_F_CREATE | NLM_F_REPLACE)
        }
        Op::Add(object) => encode(&object_message(object, true), NLM_F_CREATE | NLM_F_EXCL),
        Op::Remove(object) => encode(&object_message(object, false), 0),
        Op::Set { link, to, from: _ } => encode(&RouteNetlinkMessage::SetLink(link::setting(link, to)), 0),
    }
}

fn object_message(object: Object, add: bool) -> RouteNetlinkMessage {
    match (object, add) {
        (Object::Address(it), true) => RouteNetlinkMessage::NewAddress(address_message(it)),
        (Object::Address(it), false) => RouteNetlinkMessage::DelAddress(address_message(it)),
        (Object::Route(it), true) => RouteNetlinkMessage::NewRoute(route_message(it)),
        (Object::Route(it), false) => RouteNetlinkMessage::DelRoute(route_message(it)),
        (Object::Neighbour(it), true) => RouteNetlinkMessage::NewNeighbour(neighbour_message(it)),
        (Object::Neighbour(it), false) => RouteNetlinkMessage::DelNeighbour(neighbour_message(it)),
        (Object::Rule(it), true) => RouteNetlinkMessage::NewRule(rule_message(it)),
        (Object::Rule(it), false) => RouteNetlinkMessage::DelRule(rule_message(it)),
    }
}

/// Asks by which route a packet to this address would go.
pub(crate) fn way_to(address: IpAddr) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = code(Family::of(address));
    message.header.destination_prefix_length = Cidr::host(address).prefix();
    message.attributes.push(RouteAttribute::Destination(address.into()));
    encode(&RouteNetlinkMessage::GetRoute(message), 0)
}

pub(crate) fn add_branch_rule(rule: &BranchRule) -> Message {
    encode(&RouteNetlinkMessage::NewRule(branch_rule(rule)), NLM_F_CREATE | NLM_F_EXCL)
}

pub(crate) fn remove_branch_rule(rule: &BranchRule) -> Message {
    encode(&RouteNetlinkMessage::DelRule(branch_rule(rule)), 0)
}

fn branch_rule(rule: &BranchRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = code(rule.family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.attributes = vec![RuleAttribute::Priority(rule.priority), RuleAttribute::Table(rule.table)];
    if rule.ours {
        message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)));
    }
    match &rule.selector {
        Selector::All => {}
        Selector::Incoming(link) => message.attributes.push(RuleAttribute::Iifname(link.clone())),
        Selector::To(address) => {
            message.header.dst_len = Family::of(*address).bits();
            message.attributes.push(RuleAttribute::Destination(*address));
        }
    }
    message
}

/// Makes somebody's route be there, or takes the place of ours to the same destination; or removes it.
pub(crate) fn others_route(route: Route, protocol: u8, add: bool) -> Message {
    let mut message = route_message(route);
    message.header.protocol = protocol.into();
    match add {
        true => encode(&RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE),
        false => encode(&RouteNetlinkMessage::DelRoute(message), 0),
    }
}

/// Adds or removes somebody's rule, beside or instead of ours of the same make.
pub(crate) fn others_rule(rule: &AnyRule, add: bool) -> Message {
    let mut message = rule_message(rule.rule);
    message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
    message.attributes.push(RuleAttribute::Protocol(rule.protocol.into()));
    if let Some(to) = rule.to {
        message.header.dst_len = to.prefix();
        message.attributes.push(RuleAttribute::Destination(to.network()));
    }
    match add {
        true => encode(&RouteNetlinkMessage::NewRule(message), NLM_F_CREATE | NLM_F_EXCL),
        false => encode(&RouteNetlinkMessage::DelRule(message), 0),
    }
}

pub(crate) const fn code(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Kind and payload of a request for the dump of all addresses, routes or rules.
pub(crate) fn dump_request(message: &RouteNetlinkMessage) -> (u16, Vec<u8>) {
    let Message { kind, payload, flags: _ } = encode(message, 0);
    (kind, payload)
}

pub(crate) fn all_addresses(family: Family) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = code(family);
    RouteNetlinkMessage::GetAddress(message)
}

/// Our routes: of one table, or of all.
pub(crate) fn our_routes(family: Family, table: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = code(family);
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.attributes.extend(table.map(RouteAttribute::Table));
    RouteNetlinkMessage::GetRoute(message)
}

/// Whoever made them; of one table, or of all.
pub(crate) fn all_routes(family: Family, table: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = code(family);
    message.attributes.extend(table.map(RouteAttribute::Table));
    RouteNetlinkMessage::GetRoute(message)
}

pub(crate) fn all_rules(family: Family) -> RouteNetlinkMessage {
    let mut message = RuleMessage::default();
    message.header.family = code(family);
    RouteNetlinkMessage::GetRule(message)
}

pub(crate) fn all_neighbours(family: Family) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = code(family);
    RouteNetlinkMessage::GetNeighbour(message)
}

fn address_message(Address { link, address, deprecated }: Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = code(Family::of(address));
    message.header.prefix_len = Family::of(address).bits();
    message.header.scope = AddressScope::Universe;
    message.header.index = link;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
        // Known since Linux 5.18, ignored before.
        AddressAttribute::Protocol(AddressProtocol::Other(ROUTE_PROTOCOL)),
    ];
    if address.is_ipv6() {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if deprecated {
        // Nobody prefers it, for ever.
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_valid = u32::MAX;
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    }
    message
}

fn route_message(route: Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = code(route.destination.family());
    message.header.destination_prefix_length = route.destination.prefix();
    // Tables above 255 do not fit into the header; the attribute counts.
    message.header.table = u8::try_from(route.table).unwrap_or(RT_TABLE_COMPAT);
    message.header.protocol = RouteProtocol::Other(ROUTE_PROTOCOL);
    message.header.scope = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = if route.table == TABLE_LOCAL { RouteType::Local } else { RouteType::Unicast };
    message.attributes = vec![RouteAttribute::Table(route.table), RouteAttribute::Oif(route.link)];
    if route.destination.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(route.destination.network().into()));
    }
    message.attributes.extend(route.gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
    message
}

fn neighbour_message(Neighbour { link, address, mac }: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = code(Family::of(address));
    message.header.ifindex = link;
    message.header.state = NeighbourState::Permanent;
    message.attributes =
        vec![NeighbourAttribute::Destination(address.into()), NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

fn rule_message(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = code(rule.family);
    message.header.action = RuleAction::ToTable;
    message.header.table = u8::try_from(rule.table).unwrap_or(0);
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Other(ROUTE_PROTOCOL)),
    ];
    if let Some(source) = rule.from {
        message.header.src_len = Family::of(source).bits();
        message.attributes.push(RuleAttribute::Source(source));
    }
    if let Some((value, mask)) = rule.mark {
        message.attributes.extend([RuleAttribute::FwMark(value), RuleAttribute::FwMask(mask)]);
    }
    message
}

/// The pod's /32 or /128 in the pods' table.
pub(crate) fn pod_route(address: impl Into<IpAddr>, link: u32) -> Route {
    Route { table: eni_proto::numbers::TABLE_PODS, destination: Cidr::host(address), gateway: None, link }
}
