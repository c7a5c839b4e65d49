//! Our values as rtnetlink messages, and back ([`read`]).

mod read;

use std::{net::IpAddr, os::fd::RawFd};

use eni_proto::numbers::ROUTE_PROTOCOL;
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REPLACE, NetlinkSerializable};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope},
    link::{InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
    rule::{RuleAction, RuleAttribute, RuleMessage},
};

use crate::{
    Cidr, Family, MacAddress,
    attributes::{self, Attributes},
    ops::{Address, Ipv4Setting, Neighbour, Object, Op, Route, Rule, Setting},
    pod::{BranchRule, Selector},
    socket::Message,
};

pub(crate) use read::{
    AnyRule, ends_here, read_address, read_any_route, read_any_rule, read_foreign_route, read_link, read_neighbour,
    read_route, read_rule,
};

// Source: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const RT_TABLE_COMPAT: u8 = 252;
/// The table of a network's own addresses.
pub(crate) const TABLE_LOCAL: u32 = 255;

/// A veth pair before it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VethPair {
    pub(crate) host_name: String,
    pub(crate) host_mac: MacAddress,
    /// Says by which ENI the pod's packets leave, for as long as the link lives.
    pub(crate) host_group: u32,
    pub(crate) pod_name: String,
    pub(crate) pod_mac: MacAddress,
    pub(crate) mtu: u16,
}

/// A link as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: u32,
    pub(crate) group: u32,
    /// Index of the other end of a pair, in the other end's namespace.
    pub(crate) peer: Option<u32>,
    /// Empty: none.
    pub(crate) alias: String,
    /// As `veth`. Empty: hardware.
    pub(crate) kind: String,
    /// Settings by number, as one array.
    pub(crate) ipv4: Vec<u8>,
}

impl Link {
    /// Value of one of the link's IPv4 settings; 0 when the kernel did not say.
    pub(crate) fn ipv4(&self, setting: Ipv4Setting) -> u32 {
        let at = (usize::from(setting as u16) - 1) * 4;
        self.ipv4.get(at..).and_then(attributes::as_ne32).unwrap_or(0)
    }
}

pub(crate) fn encode(message: &RouteNetlinkMessage, flags: u16) -> Message {
    let mut payload = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut payload);
    Message { kind: NetlinkSerializable::message_type(message), flags: flags | NLM_F_ACK, payload }
}

/// The message that makes a thing be there; a route takes the place of somebody else's to the same destination.
pub(crate) fn mend_message(op: Op) -> Message {
    match op {
        Op::Add(object @ Object::Route(_)) => encode(&object_message(object, true), NLM_F_CREATE | NLM_F_REPLACE),
        Op::Add(_) | Op::Remove(_) | Op::Set { .. } => op_message(op),
    }
}

/// The message that carries out `op`.
pub(crate) fn op_message(op: Op) -> Message {
    match op {
        Op::Add(object) => encode(&object_message(object, true), NLM_F_CREATE | NLM_F_EXCL),
        Op::Remove(object) => encode(&object_message(object, false), 0),
        Op::Set { link, to, from: _ } => encode(&RouteNetlinkMessage::SetLink(setting_message(link, to)), 0),
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

/// Gives a link another name; works while the link is up since Linux 6.2.
pub(crate) fn rename_link(index: u32, name: &str) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    encode(&RouteNetlinkMessage::SetLink(message), 0)
}

/// Asks by which route a packet to this address would go.
pub(crate) fn way_to(address: IpAddr) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = code(Family::of(address));
    message.header.destination_prefix_length = Cidr::host(address).prefix();
    message.attributes.push(RouteAttribute::Destination(address.into()));
    encode(&RouteNetlinkMessage::GetRoute(message), 0)
}

/// Creates both ends where they belong: the host end here and up, the pod end in the namespace of `pod_netns`.
///
/// The echo of the created link tells both indexes. The pod end can't be up at once: the kernel opens it before the pair is
/// joined (ENOTCONN).
pub(crate) fn create_veth(pair: &VethPair, pod_netns: RawFd) -> Message {
    let end = |name: &str, mac: MacAddress| {
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Mtu(pair.mtu.into()),
            LinkAttribute::Address(mac.0.to_vec()),
        ];
        message
    };
    let mut peer = end(&pair.pod_name, pair.pod_mac);
    peer.attributes.push(LinkAttribute::NetNsFd(pod_netns));
    let mut host = end(&pair.host_name, pair.host_mac);
    host.header.flags = LinkFlags::Up;
    host.header.change_mask = LinkFlags::Up;
    host.attributes.push(LinkAttribute::Group(pair.host_group));
    host.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    encode(&RouteNetlinkMessage::NewLink(host), NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO)
}

/// Creates a branch ENI's link on that of its trunk, with the branch's hardware address, which EC2 checks.
pub(crate) fn create_vlan(name: &str, vlan: u16, mac: MacAddress, trunk: u32) -> Message {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.0.to_vec()),
        LinkAttribute::Link(trunk),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vlan)])),
        ]),
    ];
    encode(&RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Writes the alias of the link of this name, which may not be there before the message that creates it.
pub(crate) fn label_link(name: &str, alias: &str) -> Message {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::IfAlias(alias.to_owned())];
    encode(&RouteNetlinkMessage::SetLink(message), 0)
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

/// Writes a pod link's alias and drops packets from it whose source is not the pod's (`rp_filter`).
///
/// Without link-local address (`no_ipv6`, only where the kernel has IPv6) the host neither announces itself to the pod nor joins groups for it.
pub(crate) fn claim_link(link: u32, alias: &str, no_ipv6: bool) -> Message {
    let mut families = ipv4_conf(Ipv4Setting::ReversePath, 1);
    if no_ipv6 {
        let none = Attributes::new().bytes(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
        families = families.nested(AF_INET6, none);
    }
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.attributes =
        vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::AfSpecUnknown(families.into_bytes())];
    encode(&RouteNetlinkMessage::SetLink(message), 0)
}

pub(crate) fn delete_link(link: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = link;
    encode(&RouteNetlinkMessage::DelLink(message), 0)
}

/// Writes a link's alias and puts it into a group.
pub(crate) fn end_link(link: u32, alias: &str, group: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::Group(group)];
    encode(&RouteNetlinkMessage::SetLink(message), 0)
}

/// Says whose a pod's link is and by which ENI its packets leave, and checks their source; of a link that somebody else made.
pub(crate) fn adopt_link(link: u32, alias: &str, group: u32, reverse_path: u32) -> Message {
    let families = ipv4_conf(Ipv4Setting::ReversePath, reverse_path);
    let mut message = LinkMessage::default();
    message.header.index = link;
    message.attributes = vec![
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::Group(group),
        LinkAttribute::AfSpecUnknown(families.into_bytes()),
    ];
    encode(&RouteNetlinkMessage::SetLink(message), 0)
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

/// Deletes all links of a group at once: the kernel waits once for all of them and not once for each.
pub(crate) fn delete_group(group: u32) -> Message {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Group(group)];
    encode(&RouteNetlinkMessage::DelLink(message), 0)
}

pub(crate) fn get_link(name: &str) -> Message {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    encode(&RouteNetlinkMessage::GetLink(message), 0)
}

const fn code(family: Family) -> AddressFamily {
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

/// Counters are left out: they are half of the work.
pub(crate) fn all_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
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

fn setting_message(link: u32, setting: Setting) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = link;
    match setting {
        Setting::Up(up) => {
            message.header.change_mask = LinkFlags::Up;
            message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        }
        Setting::Mtu(bytes) => message.attributes.push(LinkAttribute::Mtu(bytes)),
        Setting::Mac(mac) => message.attributes.push(LinkAttribute::Address(mac.0.to_vec())),
        Setting::Group(number) => message.attributes.push(LinkAttribute::Group(number)),
        Setting::Ipv4(setting, value) => {
            let families = ipv4_conf(setting, value);
            message.attributes.push(LinkAttribute::AfSpecUnknown(families.into_bytes()));
        }
    }
    message
}

fn ipv4_conf(setting: Ipv4Setting, value: u32) -> Attributes {
    let settings = Attributes::new().ne32(setting as u16, value);
    Attributes::new().nested(AF_INET, Attributes::new().nested(IFLA_INET_CONF, settings))
}

fn address_message(Address { link, address }: Address) -> AddressMessage {
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
