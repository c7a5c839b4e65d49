//! Wires a pod's interface to the host and takes it back; the only part on the way of an ADD, so nothing is listed here.
//!
//! Promises, each held by a test:
//! - a failed ADD leaves nothing behind
//! - the same ADD again gives the same answer
//! - a late DEL never hurts a newer sandbox

mod plan;
#[cfg(test)]
mod tests;

use std::{io, net::Ipv4Addr, os::fd::AsFd, os::fd::AsRawFd, path::PathBuf};

use eni_proto::{LinkAlias, Pod, PodKey, PodNetwork, VethPrefix, host_link_name, numbers::TABLE_PODS};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::{
    Cidr, MacAddress, Netns, NetnsError, NftError, ObserveError, Refusal,
    apply::{Already, ApplyError, apply_on},
    nft::Nft,
    observe,
    ops::{Object, Op},
    pod::plan::{Conflict, Owner},
    route::{self, Link, VethPair},
    socket::{Message, NetlinkSocket},
    sysctl,
};

/// How often an ADD clears a taken name away: two ADDs of one pod may meet, but not for ever.
const ATTEMPTS: usize = 4;

/// One interface to wire.
#[derive(Debug, Clone)]
pub struct PodWiring {
    /// Whose it is; its interface name is the one inside the pod.
    pub key: PodKey,
    /// Who the pod is; with the key it names the host interface.
    pub pod: Pod,
    /// What the daemon granted.
    pub network: PodNetwork,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
}

/// A wired interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wired {
    /// Name of the host end.
    pub host_link: String,
    /// Index of the host end.
    pub host_index: u32,
    /// Hardware address of the host end.
    pub host_mac: MacAddress,
    /// Index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// Hardware address of the pod's end.
    pub pod_mac: MacAddress,
}

/// Why an interface was not wired or not taken back. After a failed ADD nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The pod's namespace cannot be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The pod has an interface of this name; nothing was changed.
    #[error("the pod's network namespace has an interface `{interface}` already")]
    InterfaceExists {
        /// The name.
        interface: String,
    },
    /// The host has a link of the wanted name that is no veth; nothing was changed.
    #[error("the host has a link `{link}` already, and it is not a pod's")]
    ForeignLink {
        /// The name.
        link: String,
    },
    /// Another link still has a route for the address.
    #[error("another pod's link still has the route for {address}")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
    },
    /// The kernel refused a step on the host.
    #[error("cannot {step}")]
    Refused {
        /// The step.
        step: String,
        /// Why.
        source: Refusal,
    },
    /// A step inside the pod failed.
    #[error("cannot set up the interface inside the pod")]
    InPod(#[source] ApplyError),
    /// The pods' map could not be changed.
    #[error("cannot change the pods' map")]
    Nft(#[from] NftError),
    /// A setting of the host link could not be written.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
    /// The pods' table could not be listed.
    #[error("cannot look for the address")]
    Observe(#[from] ObserveError),
    /// There is no talking to the kernel.
    #[error("netlink socket failed")]
    Socket(#[from] io::Error),
}

/// A point in [`add_pod`] where a test may let it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    PairMade,
    HostDone,
    MapDone,
    PodDone,
}

type Checkpoint<'a> = &'a mut dyn FnMut(Step) -> Result<(), WireError>;

/// Wires a pod's interface: veth pair, address, routes and neighbour in the pod; alias, route and map element on the host.
///
/// Repeatable: for a key and network that are wired already the answer is the same, and what was missing is completed. An
/// interface of an older sandbox of the same pod is taken away first.
///
/// # Errors
/// [`WireError`]; nothing of this ADD is left then.
pub fn add_pod(wiring: &PodWiring) -> Result<Wired, WireError> {
    add(wiring, &mut |_| Ok(()))
}

/// Takes a pod's interface back: map element, route and link. Returns what the link said of itself.
///
/// Repeatable. A link of another container has the same name when it is a newer sandbox of the same pod: it is left alone. Returns
/// nothing when there was nothing of this key.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn del_pod(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<Option<LinkAlias>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let Some(link) = look(&mut host, &host_link_name(prefix, key, pod))? else { return Ok(None) };
    match plan::owner(&link, key) {
        Owner::Other => Ok(None),
        Owner::Unfinished => {
            remove_link(&mut host, &link)?;
            Ok(None)
        }
        Owner::Key(alias) => {
            remove_link(&mut host, &link)?;
            Ok(Some(alias))
        }
    }
}

/// Takes an address out of the pods' map and table, whoever it led to. Returns whether it was in one of them.
///
/// For the daemon, when it releases an address: the pod's own DEL may have found no link any more. Repeatable.
///
/// # Errors
/// [`WireError`].
pub fn forget_address(address: Ipv4Addr) -> Result<bool, WireError> {
    let known = Nft::open()?.remove_pod(address)?;
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let stale: Vec<Op> = observe::routes(&mut socket, Some(TABLE_PODS))?
        .into_iter()
        .filter(|route| route.destination == Cidr::host(address))
        .map(|route| Op::Remove(Object::Route(route)))
        .collect();
    let removed = apply_on(&mut socket, &stale, Already::Fine).map_err(refused_op)?;
    Ok(known || !removed.is_empty())
}

fn add(wiring: &PodWiring, checkpoint: Checkpoint<'_>) -> Result<Wired, WireError> {
    let netns = Netns::open_other(&wiring.netns)?;
    // A path that is a namespace of another kind is found out here, before anything is made.
    let mut pod = open_inside(&netns)?;
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let pair = plan::veth_pair(wiring);
    for _ in 0..ATTEMPTS {
        if let Some((host_index, pod_index)) = create(&mut host, &pair, &netns)? {
            let wired = wired(&pair, host_index, pod_index);
            return match finish(wiring, &wired, &mut host, &mut pod, checkpoint) {
                Ok(()) => Ok(wired),
                Err(error) => {
                    undo(wiring, host_index, &mut host);
                    Err(error)
                }
            };
        }
        let (outer, inner) = (look(&mut host, &pair.host_name)?, look(&mut pod, &pair.pod_name)?);
        match plan::conflict(wiring, outer, inner.as_ref()) {
            Conflict::Gone => {}
            Conflict::Replace(older) => remove_link(&mut host, &older)?,
            Conflict::Keep { host: host_index, pod: pod_index } => {
                let wired = wired(&pair, host_index, pod_index);
                complete(wiring, &wired, &mut host, &mut pod)?;
                return Ok(wired);
            }
            Conflict::InterfaceInUse => return Err(WireError::InterfaceExists { interface: pair.pod_name }),
            Conflict::ForeignLink => return Err(WireError::ForeignLink { link: pair.host_name }),
        }
    }
    Err(WireError::Refused {
        step: format!("create link {}", pair.host_name),
        source: Refusal { errno: Errno::EEXIST, hint: format!("it came back {ATTEMPTS} times") },
    })
}

/// Creates the pair and returns both indexes; nothing when one of the two names is taken.
fn create(host: &mut NetlinkSocket, pair: &VethPair, netns: &Netns) -> Result<Option<(u32, u32)>, WireError> {
    let reply = host.ask(route::create_veth(pair, netns.as_fd().as_raw_fd()))?;
    let refused = |source| WireError::Refused { step: format!("create link {}", pair.host_name), source };
    match reply.result {
        Err(refusal) if refusal.errno == Errno::EEXIST => Ok(None),
        Err(refusal) => Err(refused(refusal)),
        Ok(()) => {
            let link = reply.data.iter().find_map(|(kind, payload)| route::read_link(*kind, payload));
            let indexes = link.and_then(|link| Some((link.index, link.peer?)));
            let silence = Refusal { errno: Errno::ENODATA, hint: "the kernel did not echo the link".to_owned() };
            indexes.map(Some).ok_or_else(|| refused(silence))
        }
    }
}

/// All that follows the creation. The pod's end comes last, so that a pod with a working interface is wired completely.
fn finish(
    wiring: &PodWiring,
    wired: &Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
    checkpoint: Checkpoint<'_>,
) -> Result<(), WireError> {
    checkpoint(Step::PairMade)?;
    // Router advertisements of a pod must never reach the host's routes (CVE-2020-10749).
    let has_ipv6 = sysctl::write_if_present(&format!("ipv6/conf/{}/accept_ra", wired.host_link), 0)?;
    let alias = plan::alias(wiring).to_string();
    let add_route = Op::Add(Object::Route(route::pod_route(wiring.network.ipv4, wired.host_index)));
    let messages = [route::claim_link(wired.host_index, &alias, has_ipv6), route::op_message(add_route)];
    let mut replies = host.exchange(&messages)?.into_iter();
    let (claimed, routed) = (replies.next(), replies.next());
    claimed.map_or(Ok(()), |reply| reply.result).map_err(|source| refused("label the host link", source))?;
    routed.map_or(Ok(()), |reply| reply.result).map_err(|source| match source.errno == Errno::EEXIST {
        true => WireError::AddressInUse { address: wiring.network.ipv4 },
        false => refused(&add_route.to_string(), source),
    })?;
    checkpoint(Step::HostDone)?;
    if !wiring.network.eni_mark.is_primary() {
        Nft::open()?.add_pod(wiring.network.ipv4, wiring.network.eni_mark)?;
    }
    checkpoint(Step::MapDone)?;
    let steps = plan::in_pod(wired.pod_index, wiring.network.ipv4, wired.host_mac);
    apply_on(pod, &steps, Already::Refused).map_err(WireError::InPod)?;
    checkpoint(Step::PodDone)
}

/// Makes complete what an earlier ADD of the same key and network began.
fn complete(
    wiring: &PodWiring,
    wired: &Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
) -> Result<(), WireError> {
    let add_route = Op::Add(Object::Route(route::pod_route(wiring.network.ipv4, wired.host_index)));
    apply_on(host, &[add_route], Already::Fine).map_err(refused_op)?;
    if !wiring.network.eni_mark.is_primary() {
        Nft::open()?.add_pod(wiring.network.ipv4, wiring.network.eni_mark)?;
    }
    let steps = plan::in_pod(wired.pod_index, wiring.network.ipv4, wired.host_mac);
    apply_on(pod, &steps, Already::Fine).map_err(WireError::InPod)?;
    Ok(())
}

/// Takes a failed ADD back. The error that led here is the one to report, so that errors of this are not.
fn undo(wiring: &PodWiring, host_index: u32, host: &mut NetlinkSocket) {
    let remove_route = Op::Remove(Object::Route(route::pod_route(wiring.network.ipv4, host_index)));
    // Only who has the route has the element.
    let had_route = apply_on(host, &[remove_route], Already::Fine).is_ok_and(|done| !done.is_empty());
    if had_route && !wiring.network.eni_mark.is_primary() {
        let _ = Nft::open().and_then(|mut nft| nft.remove_pod(wiring.network.ipv4));
    }
    let _ = host.ask(route::delete_link(host_index));
}

/// Removes a pod's link with all that belongs to it.
///
/// The address may belong to a newer pod by now. Its route tells: only when it still led to this link is the map element this link's.
fn remove_link(host: &mut NetlinkSocket, link: &Link) -> Result<(), WireError> {
    if let Ok(alias) = link.alias.parse::<LinkAlias>() {
        let remove_route = Op::Remove(Object::Route(route::pod_route(alias.address, link.index)));
        let had_route = !apply_on(host, &[remove_route], Already::Fine).map_err(refused_op)?.is_empty();
        if had_route && !alias.eni_mark.is_primary() {
            Nft::open()?.remove_pod(alias.address)?;
        }
    }
    match host.ask(route::delete_link(link.index))?.result {
        Err(source) if source.errno != Errno::ENODEV => Err(refused(&format!("delete link {}", link.name), source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns the link of this name; nothing when there is none.
fn look(socket: &mut NetlinkSocket, name: &str) -> Result<Option<Link>, WireError> {
    let request: Message = route::get_link(name);
    let reply = socket.ask(request)?;
    match reply.result {
        Ok(()) => Ok(reply.data.iter().find_map(|(kind, payload)| route::read_link(*kind, payload))),
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(None),
        Err(source) => Err(refused(&format!("look at link {name}"), source)),
    }
}

fn wired(pair: &VethPair, host_index: u32, pod_index: u32) -> Wired {
    Wired { host_link: pair.host_name.clone(), host_index, host_mac: pair.host_mac, pod_index, pod_mac: pair.pod_mac }
}

/// The socket keeps the pod's namespace alive, so it must not outlive the ADD.
fn open_inside(netns: &Netns) -> Result<NetlinkSocket, WireError> {
    Ok(netns.inside(|| NetlinkSocket::open(NETLINK_ROUTE))??)
}

fn refused(step: &str, source: Refusal) -> WireError {
    WireError::Refused { step: step.to_owned(), source }
}

fn refused_op(error: ApplyError) -> WireError {
    match error {
        ApplyError::Refused { op, source } => refused(&op.to_string(), source),
        ApplyError::Socket(source) => WireError::Socket(source),
    }
}
