//! Which way the kernel would send a packet, by all rules and routes that there are, ours and everybody else's.

use std::{collections::BTreeMap, io, net::IpAddr};

use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    Cidr, Family, MacAddress, ObserveError, observe,
    route::{code, decode, encode},
    socket::NetlinkSocket,
};

/// A packet that is on its way through this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Its sender.
    pub from: IpAddr,
    /// Its receiver.
    pub to: IpAddr,
    /// Index of the link by which it comes in.
    pub enters_by: u32,
    /// Mark that it has when it is routed; nf_tables is not asked.
    pub mark: u32,
}

/// Returns for each packet the name of the link by which it would leave, or in the kernel's words why it would not.
///
/// # Errors
/// [`ObserveError`]; then nothing may be concluded.
pub fn ways(packets: &[Packet]) -> Result<Vec<Result<String, String>>, ObserveError> {
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let links = observe::links(&mut socket)?;
    let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    packets.iter().map(|packet| Ok(way(&mut socket, *packet)?.map(|index| name(index).unwrap_or_default()))).collect()
}

/// Returns index and name of the link with each hardware address, as of an ENI.
///
/// # Errors
/// [`ObserveError`].
pub fn links_by_mac() -> Result<BTreeMap<MacAddress, (u32, String)>, ObserveError> {
    let mut links = observe::links(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?;
    // The oldest, when children share it with their parent.
    links.sort_by_key(|link| std::cmp::Reverse(link.index));
    Ok(links.into_iter().filter_map(|link| Some((link.mac?, (link.index, link.name)))).collect())
}

fn way(socket: &mut NetlinkSocket, packet: Packet) -> io::Result<Result<u32, String>> {
    let mut message = RouteMessage::default();
    message.header.address_family = code(Family::of(packet.to));
    message.header.destination_prefix_length = Cidr::host(packet.to).prefix();
    message.header.source_prefix_length = Cidr::host(packet.from).prefix();
    message.attributes = vec![
        RouteAttribute::Destination(packet.to.into()),
        RouteAttribute::Source(packet.from.into()),
        RouteAttribute::Iif(packet.enters_by),
        RouteAttribute::Mark(packet.mark),
    ];
    let reply = socket.ask(encode(&RouteNetlinkMessage::GetRoute(message), 0))?;
    let leaves_by = |attribute: &RouteAttribute| {
        let RouteAttribute::Oif(link) = attribute else { return None };
        Some(*link)
    };
    let found = reply.data.iter().find_map(|(kind, payload)| {
        let RouteNetlinkMessage::NewRoute(route) = decode(*kind, payload)? else { return None };
        route.attributes.iter().find_map(leaves_by)
    });
    Ok(match reply.result {
        Err(refusal) => Err(refusal.to_string()),
        Ok(()) => found.ok_or_else(|| "the kernel names no link".to_owned()),
    })
}
