//! What the kernel remembers of a pod's connections (conntrack): taken away with its address, so that nobody who gets the
//! address later is met by the replies, translations or marks of somebody else's connections.
//!
//! The kernel picks the entries; filters of a dump are there since Linux 5.8.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::{errno::Errno, libc};

use crate::{
    Family,
    attributes::{self, Attributes},
    socket::{Message, NetlinkSocket, Refusal},
};

/// Kinds of messages. Source: `NFNL_SUBSYS_CTNETLINK` and `cntl_msg_types` in linux/netfilter/nfnetlink*.h.
const GET: u16 = (1 << 8) | 1;
const DELETE: u16 = (1 << 8) | 2;
/// Attributes. Source: `ctattr_type`, `ctattr_tuple`, `ctattr_ip` and `ctattr_filter` in linux/netfilter/nfnetlink_conntrack.h.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
/// Only the source address counts. Source: `CTA_FILTER_F_CTA_IP_SRC` in net/netfilter/nf_conntrack_netlink.c.
const BY_SOURCE: u32 = 1;

/// Bit of a connection's status: there was a packet in both directions. Source: `IPS_SEEN_REPLY` in
/// linux/netfilter/nf_conntrack_common.h.
const ANSWERED: u32 = 2;

const HEADER: usize = 4;
/// Up to so many addresses are looked for one by one.
const FEW: usize = 8;

/// Why connections could not be forgotten; some of them may be.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// The kernel did not list or remove them.
    #[error("the kernel's connections of an address could not be {0}")]
    Refused(&'static str, #[source] Refusal),
    /// There is no talking to the kernel.
    #[error("conntrack socket failed")]
    Socket(#[from] io::Error),
}

/// Forgets all connections from and to these addresses, also those that reach them as a service's; returns how many. Repeatable.
///
/// Costs one walk of the kernel over all its connections for each address, or one list of a family's when there are many addresses.
///
/// # Errors
/// [`ConnectionsError`]; call it again.
pub fn forget_connections(addresses: &BTreeSet<IpAddr>) -> Result<usize, ConnectionsError> {
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER)?;
    let mut forgotten = 0;
    let mut families: BTreeMap<bool, BTreeSet<IpAddr>> = BTreeMap::new();
    for address in addresses {
        families.entry(address.is_ipv6()).or_default().insert(*address);
    }
    for addresses in families.into_values() {
        forgotten += forget_of_family(&mut socket, &addresses)?;
    }
    Ok(forgotten)
}

/// Forgets the connections that these addresses began, that nobody answered, and whose source is not translated; returns how many.
///
/// Whether the source is translated is decided with a connection's first packet, and holds as long as packets come. What was answered
/// is no mistake. Costs one walk of the kernel over all its connections; it picks the unanswered ones since Linux 5.15.
///
/// # Errors
/// [`ConnectionsError`]; call it again.
pub(crate) fn forget_untranslated(family: Family, addresses: &BTreeSet<IpAddr>) -> Result<usize, ConnectionsError> {
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER)?;
    let unanswered = Attributes::new().be32(STATUS, 0).be32(STATUS_MASK, ANSWERED).into_bytes();
    let mut listed = list(&mut socket, &[&header(family), &unanswered[..]].concat())?;
    listed.retain(|entry| {
        let source = end(entry, TUPLE_ORIGINAL, [IPV4_SOURCE, IPV6_SOURCE]);
        let is_untranslated = source == end(entry, TUPLE_REPLY, [IPV4_DESTINATION, IPV6_DESTINATION]);
        is_untranslated && is_unanswered(entry) && source.is_some_and(|source| addresses.contains(&source))
    });
    forget(&mut socket, &listed)
}

/// Returns the connections from these addresses that somebody has given another source though they go to none of a service's:
/// who sent, and whom to. Costs one walk of the kernel over all its connections.
///
/// # Errors
/// [`ConnectionsError`]; then nothing may be concluded.
pub fn translated(addresses: &BTreeSet<IpAddr>) -> Result<BTreeSet<(IpAddr, IpAddr)>, ConnectionsError> {
    let mut socket = NetlinkSocket::open(NETLINK_NETFILTER)?;
    let of = |entry: &[u8]| {
        let source = end(entry, TUPLE_ORIGINAL, [IPV4_SOURCE, IPV6_SOURCE])?;
        let to = end(entry, TUPLE_ORIGINAL, [IPV4_DESTINATION, IPV6_DESTINATION])?;
        let answers = end(entry, TUPLE_REPLY, [IPV4_SOURCE, IPV6_SOURCE])?;
        let answered_to = end(entry, TUPLE_REPLY, [IPV4_DESTINATION, IPV6_DESTINATION])?;
        (addresses.contains(&source) && answers == to && answered_to != source).then_some((source, to))
    };
    let mut found = BTreeSet::new();
    for family in Family::ALL {
        found.extend(list(&mut socket, &header(family))?.iter().filter_map(|entry| of(entry)));
    }
    Ok(found)
}

fn is_unanswered(entry: &[u8]) -> bool {
    let status =
        entry.get(HEADER..).and_then(|entry| attributes::find(entry, STATUS)).and_then(<[u8]>::first_chunk::<4>);
    status.is_some_and(|status| u32::from_be_bytes(*status) & ANSWERED == 0)
}

fn forget_of_family(socket: &mut NetlinkSocket, addresses: &BTreeSet<IpAddr>) -> Result<usize, ConnectionsError> {
    if let Some(first) = addresses.first().filter(|_| addresses.len() > FEW) {
        let listed = list(socket, &header(Family::of(*first)))?;
        let theirs: Vec<_> =
            listed.into_iter().filter(|entry| sources(entry).any(|ip| addresses.contains(&ip))).collect();
        return forget(socket, &theirs);
    }
    let mut forgotten = 0;
    for address in addresses {
        // Who begins a connection is its original source, who is asked the source of its replies, whatever is translated between.
        for (tuple, filter) in [(TUPLE_ORIGINAL, FILTER_ORIGINAL), (TUPLE_REPLY, FILTER_REPLY)] {
            let theirs = list(socket, &by_source(*address, tuple, filter))?;
            forgotten += forget(socket, &theirs)?;
        }
    }
    Ok(forgotten)
}

fn list(socket: &mut NetlinkSocket, which: &[u8]) -> Result<Vec<Vec<u8>>, ConnectionsError> {
    let reply = socket.dump(GET, which)?;
    reply.result.map_err(|refusal| ConnectionsError::Refused("listed", refusal))?;
    Ok(reply.data.into_iter().map(|(_, entry)| entry).collect())
}

fn forget(socket: &mut NetlinkSocket, entries: &[Vec<u8>]) -> Result<usize, ConnectionsError> {
    let found = entries.iter().filter_map(|entry| named(entry));
    let deletions: Vec<Message> = found.map(|payload| Message { kind: DELETE, flags: NLM_F_ACK, payload }).collect();
    let mut forgotten = 0;
    // One answer each has to fit into the socket.
    for some in deletions.chunks(64) {
        for reply in socket.exchange(some)? {
            match reply.result {
                Ok(()) => forgotten += 1,
                // It has ended by itself.
                Err(refusal) if refusal.errno == Errno::ENOENT => {}
                Err(refusal) => return Err(ConnectionsError::Refused("removed", refusal)),
            }
        }
    }
    Ok(forgotten)
}

/// Source addresses of a listed entry's two directions.
fn sources(entry: &[u8]) -> impl Iterator<Item = IpAddr> {
    [TUPLE_ORIGINAL, TUPLE_REPLY].into_iter().filter_map(|tuple| end(entry, tuple, [IPV4_SOURCE, IPV6_SOURCE]))
}

/// One address of a listed entry: of this direction, the one of its family.
fn end(entry: &[u8], tuple: u16, [v4, v6]: [u16; 2]) -> Option<IpAddr> {
    let ip = attributes::find(attributes::find(entry.get(HEADER..)?, tuple)?, TUPLE_IP)?;
    match attributes::find(ip, v4) {
        Some(address) => Some(Ipv4Addr::from(*address.first_chunk::<4>()?).into()),
        None => Some(Ipv6Addr::from(*attributes::find(ip, v6)?.first_chunk::<16>()?).into()),
    }
}

/// Family, version 0, no resource. Source: `nfgenmsg` in linux/netfilter/nfnetlink.h.
fn header(family: Family) -> [u8; HEADER] {
    let family = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    [u8::try_from(family).unwrap_or_default(), 0, 0, 0]
}

fn by_source(address: IpAddr, tuple: u16, filter: u16) -> Vec<u8> {
    let source = match address {
        IpAddr::V4(address) => Attributes::new().bytes(IPV4_SOURCE, &address.octets()),
        IpAddr::V6(address) => Attributes::new().bytes(IPV6_SOURCE, &address.octets()),
    };
    let attributes = Attributes::new()
        .nested(tuple, Attributes::new().nested(TUPLE_IP, source))
        .nested(FILTER, Attributes::new().ne32(filter, BY_SOURCE));
    [&header(Family::of(address)), &attributes.into_bytes()[..]].concat()
}

/// What a deletion needs of a listed entry: its tuple and zone to find it, and its id, so that no later one is taken for it.
fn named(entry: &[u8]) -> Option<Vec<u8>> {
    let (header, listed) = entry.split_at_checked(HEADER)?;
    let tuple = attributes::find(listed, TUPLE_ORIGINAL)?;
    let mut name = Attributes::new().bytes(TUPLE_ORIGINAL | attributes::NESTED, tuple);
    for kind in [ZONE, ID] {
        if let Some(value) = attributes::find(listed, kind) {
            name = name.bytes(kind, value);
        }
    }
    // Of the header only the family counts, which a deletion has to name too.
    let family = [*header.first()?, 0, 0, 0];
    Some([&family, &name.into_bytes()[..]].concat())
}
