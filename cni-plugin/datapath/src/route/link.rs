//! Links: made, changed, taken away, asked for.

use std::os::fd::RawFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoKind, InfoVeth, InfoVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage},
};

use super::encode;
use crate::{
    MacAddress,
    attributes::{self, Attributes},
    ops::{Ipv4Setting, Setting},
    socket::Message,
};

// Source: linux/socket.h, linux/if_link.h.
pub(super) const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
pub(super) const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

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

/// Writes a link's alias.
pub(crate) fn relabel_link(index: u32, alias: &str) -> Message {
    change(index, vec![LinkAttribute::IfAlias(alias.to_owned())])
}

/// Gives a link another name; works while the link is up since Linux 6.2.
pub(crate) fn rename_link(index: u32, name: &str) -> Message {
    change(index, vec![LinkAttribute::IfName(name.to_owned())])
}

/// Writes a pod link's alias, passes on what comes by it, and drops packets from it whose source is not the pod's (`rp_filter`).
///
/// Without link-local address (`no_ipv6`, only where the kernel has IPv6) the host neither announces itself to the pod nor joins groups for it.
pub(crate) fn claim_link(link: u32, alias: &str, no_ipv6: bool) -> Message {
    let mut families = ipv4_conf(&[(Ipv4Setting::Forwarding, 1), (Ipv4Setting::ReversePath, 1)]);
    if no_ipv6 {
        let none = Attributes::new().bytes(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]);
        families = families.nested(AF_INET6, none);
    }
    change(link, vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::AfSpecUnknown(families.into_bytes())])
}

pub(crate) fn delete_link(link: u32) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = link;
    encode(&RouteNetlinkMessage::DelLink(message), 0)
}

/// Writes a link's alias and puts it into a group.
pub(crate) fn end_link(link: u32, alias: &str, group: u32) -> Message {
    change(link, vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::Group(group)])
}

/// Says whose a pod's link is and by which ENI its packets leave, and checks their source; of a link that somebody else made.
pub(crate) fn adopt_link(link: u32, alias: &str, group: u32, reverse_path: u32) -> Message {
    let families = ipv4_conf(&[(Ipv4Setting::ReversePath, reverse_path)]);
    let families = LinkAttribute::AfSpecUnknown(families.into_bytes());
    change(link, vec![LinkAttribute::IfAlias(alias.to_owned()), LinkAttribute::Group(group), families])
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

/// Counters are left out: they are half of the work.
pub(crate) fn all_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

/// Gives a link one setting.
pub(super) fn setting(link: u32, setting: Setting) -> LinkMessage {
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
            let families = ipv4_conf(&[(setting, value)]);
            message.attributes.push(LinkAttribute::AfSpecUnknown(families.into_bytes()));
        }
    }
    message
}

fn ipv4_conf(settings: &[(Ipv4Setting, u32)]) -> Attributes {
    let one = |all: Attributes, (setting, value): &(Ipv4Setting, u32)| all.ne32(*setting as u16, *value);
    let settings = settings.iter().fold(Attributes::new(), one);
    Attributes::new().nested(AF_INET, Attributes::new().nested(IFLA_INET_CONF, settings))
}

fn change(index: u32, attributes: Vec<LinkAttribute>) -> Message {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    encode(&RouteNetlinkMessage::SetLink(message), 0)
}
