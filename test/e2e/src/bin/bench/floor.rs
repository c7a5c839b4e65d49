//! The floor: the same wiring as an ADD's, in raw netlink messages from a process that runs already.
//!
//! The same objects and settings in the kernel, but no lease, no process start, no checks, and sockets that are open. It shares no code with the plugin but the messages' codec.

use std::{fs::File, io, net::Ipv4Addr, os::fd::AsRawFd, path::Path};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
const PODS_TABLE: u32 = 20_000;
/// Source: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h.
const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_LINK: u16 = 5;
const NESTED: u16 = 0x8000;

/// Two sockets in the node's namespace.
pub(crate) struct Sockets {
    route: Socket,
    netfilter: Socket,
}

/// Opens the sockets in the calling thread's namespace.
pub(crate) fn open() -> io::Result<Sockets> {
    let connected = |protocol| {
        let socket = Socket::new(protocol)?;
        socket.connect(&SocketAddr::new(0, 0)).map(|()| socket)
    };
    Ok(Sockets { route: connected(NETLINK_ROUTE)?, netfilter: connected(NETLINK_NETFILTER)? })
}

/// Wires one pod: veth pair, alias, settings, route, map element, and in the pod link, address, two routes and the neighbour.
///
/// Works in the calling thread's namespace, in which `sockets` were opened.
pub(crate) fn wire(sockets: &Sockets, pod_netns: &Path, name: &str, address: Ipv4Addr) -> io::Result<()> {
    let netns = File::open(pod_netns)?;
    let socket = &sockets.route;
    let echo = talk(socket, &[(veth(name, netns.as_raw_fd()), NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO)])?;
    let (host, peer, mac) = echo.ok_or_else(|| io::Error::other("the kernel did not echo the link"))?;
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/accept_ra"), "0")?;
    let mut claim = LinkMessage::default();
    claim.header.index = host;
    claim.attributes =
        vec![LinkAttribute::IfAlias(format!("floor {address}")), LinkAttribute::AfSpecUnknown(settings())];
    let to_pod = route(PODS_TABLE, Some(address), None, host);
    talk(socket, &[(RouteNetlinkMessage::SetLink(claim), 0), (to_pod, NLM_F_CREATE)])?;
    add_element(&sockets.netfilter, address)?;
    let inside = || -> io::Result<Socket> { Socket::new(NETLINK_ROUTE) };
    let pod = eni_datapath::netns::inside(pod_netns, inside).map_err(io::Error::other)??;
    pod.connect(&SocketAddr::new(0, 0))?;
    talk(&pod, &in_pod(peer, address, &mac))?;
    Ok(())
}

/// Deletes the link, and with it all of the pod but its map element.
pub(crate) fn delete(sockets: &Sockets, name: &str) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    talk(&sockets.route, &[(RouteNetlinkMessage::DelLink(link), 0)]).map(drop)
}

/// Takes back all of [`wire`]: the map element, and the link with the rest.
pub(crate) fn unwire(sockets: &Sockets, name: &str, address: Ipv4Addr) -> io::Result<()> {
    change_element(&sockets.netfilter, (10 << 8) | 14, 0, address, &[])?;
    delete(sockets, name)
}

/// Strict reverse path filter (IPv4), no link-local address (IPv6). Source: linux/if_link.h, linux/ip.h.
fn settings() -> Vec<u8> {
    let ipv4 = attribute(2, &attribute(1, &attribute(8, &1_u32.to_ne_bytes())));
    let ipv6 = attribute(10, &attribute(8, &[1]));
    [ipv4, ipv6].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Adds `address : jump eni_2` to the pods' map. Source: linux/netfilter/nf_tables.h.
fn add_element(socket: &Socket, address: Ipv4Addr) -> io::Result<()> {
    let verdict = [attribute(1, &(-3_i32).to_be_bytes()), attribute(2, b"eni_2\0")].concat();
    let data = attribute(2 | NESTED, &attribute(2 | NESTED, &verdict));
    change_element(socket, (10 << 8) | 12, NLM_F_CREATE, address, &data)
}

/// In a batch of its own.
fn change_element(socket: &Socket, kind: u16, flags: u16, address: Ipv4Addr, data: &[u8]) -> io::Result<()> {
    let key = attribute(1 | NESTED, &attribute(1, &address.octets()));
    let element = attribute(1 | NESTED, &[&key, data].concat());
    let body = [attribute(1, b"eni_cni\0"), attribute(2, b"pod_eni\0"), attribute(3 | NESTED, &element)].concat();
    let message = |kind: u16, flags: u16, family: u8, subsystem: u16, sequence: u32, body: &[u8]| {
        let length = u32::try_from(20 + body.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([kind.to_ne_bytes(), (flags | NLM_F_REQUEST).to_ne_bytes()].concat());
        bytes.extend([sequence.to_ne_bytes(), [0; 4]].concat());
        bytes.extend([family, 0]);
        bytes.extend(subsystem.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    };
    let batch = [
        message(16, 0, 0, 10, 1, &[]),
        message(kind, flags | NLM_F_ACK, 2, 0, 2, &body),
        message(17, 0, 0, 10, 3, &[]),
    ];
    socket.send(&batch.concat(), 0)?;
    acknowledged(socket, 1).map(drop)
}

fn veth(name: &str, pod_netns: i32) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes =
        vec![LinkAttribute::IfName("eth0".to_owned()), LinkAttribute::Mtu(9001), LinkAttribute::NetNsFd(pod_netns)];
    let mut host = LinkMessage::default();
    host.header.flags = LinkFlags::Up;
    host.header.change_mask = LinkFlags::Up;
    host.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Mtu(9001),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    RouteNetlinkMessage::NewLink(host)
}

fn in_pod(link: u32, address: Ipv4Addr, host_mac: &[u8]) -> [(RouteNetlinkMessage, u16); 5] {
    let mut up = LinkMessage::default();
    up.header.index = link;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    let mut own = AddressMessage::default();
    own.header.family = AddressFamily::Inet;
    own.header.prefix_len = 32;
    own.header.index = link;
    own.attributes = vec![AddressAttribute::Local(address.into()), AddressAttribute::Address(address.into())];
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = AddressFamily::Inet;
    neighbour.header.ifindex = link;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::Inet(GATEWAY)),
        NeighbourAttribute::LinkLayerAddress(host_mac.to_vec()),
    ];
    [
        (RouteNetlinkMessage::SetLink(up), 0),
        (RouteNetlinkMessage::NewAddress(own), NLM_F_CREATE),
        (route(254, Some(GATEWAY), None, link), NLM_F_CREATE),
        (route(254, None, Some(GATEWAY), link), NLM_F_CREATE),
        (RouteNetlinkMessage::NewNeighbour(neighbour), NLM_F_CREATE),
    ]
}

fn route(table: u32, to: Option<Ipv4Addr>, via: Option<Ipv4Addr>, link: u32) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = if to.is_some() { 32 } else { 0 };
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = if via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![RouteAttribute::Table(table), RouteAttribute::Oif(link)];
    message.attributes.extend(to.map(|address| RouteAttribute::Destination(RouteAddress::Inet(address))));
    message.attributes.extend(via.map(|address| RouteAttribute::Gateway(RouteAddress::Inet(address))));
    RouteNetlinkMessage::NewRoute(message)
}

/// What the kernel echoes of a new link: its index, its peer's index, its hardware address.
type Echo = (u32, u32, Vec<u8>);

/// Sends the messages at once and checks every acknowledgement.
fn talk(socket: &Socket, messages: &[(RouteNetlinkMessage, u16)]) -> io::Result<Option<Echo>> {
    let mut bytes = Vec::new();
    for (sequence, (payload, flags)) in (1..).zip(messages) {
        let mut message = NetlinkMessage::from(payload.clone());
        message.header.flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        message.header.sequence_number = sequence;
        message.finalize();
        let from = bytes.len();
        bytes.resize((from + message.buffer_len()).next_multiple_of(4), 0);
        message.serialize(&mut bytes[from..]);
    }
    socket.send(&bytes, 0)?;
    acknowledged(socket, messages.len())
}

/// Reads until `count` messages are acknowledged; the first refusal is the error.
fn acknowledged(socket: &Socket, count: usize) -> io::Result<Option<Echo>> {
    let (mut acknowledged, mut echo) = (0, None);
    while acknowledged < count {
        let mut received = Vec::with_capacity(64 * 1024);
        socket.recv(&mut received, 0)?;
        let mut rest = received.as_slice();
        while let Some((length, kind)) = header(rest) {
            let payload = &rest[16..length];
            if kind == NLMSG_ERROR {
                acknowledged += 1;
                match i32::from_ne_bytes([payload[0], payload[1], payload[2], payload[3]]) {
                    0 => {}
                    code => return Err(io::Error::from_raw_os_error(-code)),
                }
            } else if kind == RTM_NEWLINK {
                echo = read_echo(payload);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(echo)
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (16..=bytes.len()).contains(&length).then_some((length, kind))
}

fn read_echo(payload: &[u8]) -> Option<Echo> {
    let index = u32::from_ne_bytes(payload.get(4..8)?.try_into().ok()?);
    let (mut peer, mut mac) = (None, None);
    let mut rest = payload.get(16..)?;
    while let (Some(length), Some(kind)) = (rest.get(..2), rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes(kind.try_into().ok()?) & 0x3fff {
            IFLA_ADDRESS => mac = Some(value.to_vec()),
            IFLA_LINK => peer = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((index, peer?, mac?))
}
