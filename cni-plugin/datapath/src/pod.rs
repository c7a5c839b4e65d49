//! Wires a pod's interface to the host and takes it back; the only part on the way of an ADD, so nothing is listed here.
//!
//! Promises, each held by a test:
//! - a failed ADD leaves nothing behind
//! - the same ADD again gives the same answer
//! - a late DEL never hurts a newer sandbox
//! - a second interface of a pod works beside the first, and neither disturbs the other

mod branch;
mod check;
mod inside;
mod plan;
mod remove;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use eni_proto::{
    Pod, PodKey, PodNetwork,
    numbers::{MIN_MTU_V6, TABLE_MAIN},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use crate::{
    MacAddress, Netns, NetnsError, NftError, ObserveError, Refusal,
    apply::{Already, ApplyError, apply_on},
    nft::Nft,
    ops::{Object, Op},
    pod::{plan::Conflict, remove::remove_link},
    route::{self, Link, VethPair},
    socket::{Message, NetlinkSocket},
    sysctl,
};

pub(crate) use plan::{ended_alias, host_mac, pod_neighbour};

pub use branch::{
    add_branch_pod, check_branch_pod, del_branch_pod, is_branch_pod,
    orphans::{end_branch_pod, settled_branch_pods, sweep_branches},
    prepare_branches,
};
pub use check::{Difference, ExpectedEnd, ExpectedPod, check_pod};
pub use remove::{
    EndedLink, del_pod, delete_ended, end_pod, find_pod, forget_address, forget_addresses, further_pods, is_replaced,
    remove_ended,
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
    /// Table of the pod that has this interface's routes: `main`, or one of its own when another interface has the default route.
    pub pod_table: u32,
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
    /// Another link has a route for the address: that of a pod which had it before, or somebody else's.
    #[error("another link has the route for {address}")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The node has no link of the trunk that is to carry the pod.
    #[error("no link with hardware address {mac}, which the trunk has")]
    NoTrunk {
        /// The trunk's address.
        mac: MacAddress,
    },
    /// The kernel has no VLANs, which branch ENIs need.
    #[error("this kernel has no VLANs (CONFIG_VLAN_8021Q), which security groups for pods need")]
    NoVlan,
    /// The host uses the address itself, so that packets to the pod would end there; nothing of this ADD is left.
    #[error("the host has the address {address} itself")]
    AddressOfHost {
        /// The address.
        address: IpAddr,
    },
    /// The node has no IPv6, or it is switched off for new links.
    #[error("the pod is to have {address}, and new links of this node have no IPv6")]
    NoIpv6 {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: Refusal,
    },
    /// Somebody renamed or deleted the host link while it was set up; nothing of this ADD is left.
    #[error("somebody renamed or deleted link {link} while it was set up")]
    LinkTaken {
        /// Its name as it was made.
        link: String,
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

fn add(wiring: &PodWiring, checkpoint: Checkpoint<'_>) -> Result<Wired, WireError> {
    let netns = Netns::open_other(&wiring.netns)?;
    // A path that is a namespace of another kind is found out here, before anything is made.
    let mut pod = open_inside(&netns)?;
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let pair = plan::veth_pair(wiring);
    for _ in 0..ATTEMPTS {
        if let Some((host_index, pod_index)) = create(&mut host, &pair, &netns)? {
            let mut wired = wired(&pair, host_index, pod_index);
            return match finish(wiring, &mut wired, &mut host, &mut pod, checkpoint) {
                Ok(()) => Ok(wired),
                Err(error) => {
                    undo(wiring, &wired, &mut host, &mut pod);
                    if is_without_ipv6(&error) && netns.inside(allow_ipv6)?? {
                        continue;
                    }
                    Err(error)
                }
            };
        }
        let (outer, inner) = (look(&mut host, &pair.host_name)?, look(&mut pod, &pair.pod_name)?);
        match plan::conflict(wiring, outer, inner.as_ref()) {
            Conflict::Gone => {}
            Conflict::Replace(older) => remove_link(&mut host, &older)?,
            Conflict::Keep { host: host_index, pod: pod_index } => {
                let mut wired = wired(&pair, host_index, pod_index);
                complete(wiring, &mut wired, &mut host, &mut pod)?;
                return Ok(wired);
            }
            Conflict::InterfaceInUse => match remove::ended_peer(&mut host, inner.as_ref())? {
                Some(ended) => remove_link(&mut host, &ended)?,
                // The daemon has deleted it between our looks.
                None if look(&mut pod, &pair.pod_name)?.is_none() => {}
                None => return Err(WireError::InterfaceExists { interface: pair.pod_name }),
            },
            Conflict::ForeignLink => return Err(WireError::ForeignLink { link: pair.host_name }),
        }
    }
    Err(WireError::Refused {
        step: format!("create link {}", pair.host_name),
        source: Refusal { errno: Errno::EEXIST, hint: format!("it came back {ATTEMPTS} times") },
    })
}

/// Whether the pod's end could not have an IPv6 address because IPv6 is switched off for it.
fn is_without_ipv6(error: &WireError) -> bool {
    let WireError::InPod(ApplyError::Refused { op: Op::Add(object), source }) = error else { return false };
    matches!(object, Object::Address(address) if address.address.is_ipv6()) && source.errno == Errno::EACCES
}

/// Runtimes make namespaces in which new links have no IPv6. Returns whether this was one. Asked only after a refusal: the first look at a
/// new namespace's settings costs as much as several messages.
fn allow_ipv6() -> Result<bool, WireError> {
    const SETTING: &str = "ipv6/conf/default/disable_ipv6";
    let off = sysctl::read(SETTING) == Some(1);
    sysctl::ensure(SETTING, 0)?;
    Ok(off)
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
    wired: &mut Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
    checkpoint: Checkpoint<'_>,
) -> Result<(), WireError> {
    checkpoint(Step::PairMade)?;
    // Router advertisements of a pod must never reach the host's routes (CVE-2020-10749).
    let has_ipv6 = sysctl::write_if_present(&format!("ipv6/conf/{}/accept_ra", wired.host_link), 0)?;
    if !has_ipv6 && sysctl::has_ipv6() && wiring.network.mtu >= MIN_MTU_V6 {
        return Err(WireError::LinkTaken { link: wired.host_link.clone() });
    }
    let alias = plan::alias(wiring).to_string();
    let leads_in = lead_in(wiring, wired.host_index);
    // The label comes last: from then on the guard takes what is missing for damage.
    let addresses: Vec<IpAddr> = wiring.network.addresses.all().collect();
    let mut messages: Vec<_> = addresses.iter().map(|address| route::way_to(*address)).collect();
    messages.extend(leads_in.iter().copied().map(route::op_message));
    messages.push(route::claim_link(wired.host_index, &alias, has_ipv6));
    let mut replies = host.exchange(&messages)?.into_iter();
    for (address, way) in addresses.into_iter().zip(replies.by_ref()) {
        // That there is no way yet is as it should be.
        if way.data.iter().any(|(kind, payload)| route::ends_here(*kind, payload)) {
            return Err(WireError::AddressOfHost { address });
        }
    }
    let mut replies = replies.map(|reply| reply.result);
    for (op, outcome) in leads_in.iter().zip(replies.by_ref()) {
        outcome.map_err(|source| match op {
            Op::Add(Object::Route(route)) if source.errno == Errno::EEXIST => {
                WireError::AddressInUse { address: route.destination.network() }
            }
            Op::Add(Object::Route(route)) if is_for_want_of_ipv6(route.destination.network(), source.errno) => {
                WireError::NoIpv6 { address: route.destination.network(), source }
            }
            Op::Add(_) | Op::Remove(_) | Op::Set { .. } => refused(&op.to_string(), source),
        })?;
    }
    replies.next().unwrap_or(Ok(())).map_err(|source| refused("label the host link", source))?;
    checkpoint(Step::HostDone)?;
    mark(wiring)?;
    checkpoint(Step::MapDone)?;
    wired.pod_table = inside::set_up(pod, wired, wiring.network.addresses)?;
    activate(wiring, wired, host, pod)?;
    checkpoint(Step::PodDone)
}

/// Whether the kernel refuses a way to an address because IPv6 is switched off for the link, or because it has none at all.
fn is_for_want_of_ipv6(address: IpAddr, errno: Errno) -> bool {
    address.is_ipv6() && matches!(errno, Errno::EACCES | Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)
}

/// What leads to the pod on the host.
fn lead_in(wiring: &PodWiring, link: u32) -> Vec<Op> {
    let routes = wiring.network.addresses.all().map(|address| Object::Route(route::pod_route(address, link)));
    let neighbour = wiring.network.addresses.v6().map(|address| plan::pod_neighbour(address, link, &wiring.key));
    routes.chain(neighbour.map(Object::Neighbour)).map(Op::Add).collect()
}

/// The pod's packets leave by its ENI from now on.
fn mark(wiring: &PodWiring) -> Result<(), WireError> {
    let mark = wiring.network.eni_mark;
    if mark.is_primary() {
        return Ok(());
    }
    // What serves for the way out leaves by the primary ENI.
    Ok(Nft::open()?.add_pod(wiring.network.addresses.of_vpc(), mark)?)
}

/// Makes complete what an earlier ADD of the same key and network began.
fn complete(
    wiring: &PodWiring,
    wired: &mut Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
) -> Result<(), WireError> {
    apply_on(host, &lead_in(wiring, wired.host_index), Already::Fine).map_err(refused_op)?;
    mark(wiring)?;
    wired.pod_table = inside::complete(pod, wired, wiring.network.addresses)?;
    activate(wiring, wired, host, pod)
}

/// Makes both ends carry packets before the ADD is answered.
///
/// The kernel notices in the background that a new pair is up and drops what is sent until then, which takes the longer the more links
/// change at the time. But it catches up with a link's carrier before it describes the link (`rtnl_getlink`).
fn activate(
    wiring: &PodWiring,
    wired: &Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
) -> Result<(), WireError> {
    look(pod, wiring.key.interface())?;
    look(host, &wired.host_link)?;
    Ok(())
}

/// Takes a failed ADD back. The error that led here is the one to report, so that errors of this are not.
fn undo(wiring: &PodWiring, wired: &Wired, host: &mut NetlinkSocket, pod: &mut NetlinkSocket) {
    let _ = inside::forget(pod, wired.pod_index, wiring.network.addresses);
    let alias = plan::alias(wiring).to_string();
    let link = Link { index: wired.host_index, name: wired.host_link.clone(), alias, ..Link::default() };
    let _ = remove_link(host, &link);
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
    Wired {
        host_link: pair.host_name.clone(),
        host_index,
        host_mac: pair.host_mac,
        pod_index,
        pod_mac: pair.pod_mac,
        pod_table: TABLE_MAIN,
    }
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
