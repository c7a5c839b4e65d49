//! Takes a pod's interface back. Whose a link is, its alias says; its name is only where to look first.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use eni_proto::{
    LinkAlias, Pod, PodKey, VethPrefix, host_link_name,
    numbers::{ENDED_LINK_GROUP, TABLE_PODS},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::{WireError, inside, look, open_inside, plan, plan::Owner, refused, refused_op};
use crate::{
    Cidr, Family, Netns, NftError,
    apply::{Already, apply_on},
    nft::Nft,
    observe::{self, PodLink},
    ops::{Object, Op},
    route::{self, Link},
    socket::NetlinkSocket,
};

/// Takes a pod's interface back: map element, route and link. Returns what the link said of itself.
///
/// `netns` is where the pod's end was, if anybody knows; it may be gone, or lead to something else. Repeatable. A link of another
/// container has the same name when it is a newer sandbox of the same pod: it is left alone. A link that somebody renamed is found
/// by its alias. Returns nothing when there was nothing of this key.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn del_pod(
    prefix: &VethPrefix,
    key: &PodKey,
    pod: &Pod,
    netns: Option<&Path>,
) -> Result<Option<LinkAlias>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let Some(link) = own_link(&mut host, &host_link_name(prefix, key, pod), key)? else { return Ok(None) };
    let alias = plan::alias_of(&link);
    if let (Some(alias), Some(netns)) = (&alias, netns) {
        forget_inside(netns, &link, alias);
    }
    remove_link(&mut host, &link)?;
    Ok(alias)
}

/// A host link whose pod has ended: it leads nowhere, and nothing leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "somebody has to delete it"]
pub struct EndedLink(Link);

/// Cuts a pod off and leaves the slow work to another: the map element to [`forget_address`], the link to
/// [`delete_ended`], or both to [`remove_ended`]. Returns the link that is left, if any.
///
/// For a pod whose namespace is about to go. Quick: the kernel takes 10 ms and more for forgetting an element and for deleting a link,
/// because it waits until nobody can be using them. Otherwise as [`del_pod`], which also finishes what this began.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn end_pod(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<Option<EndedLink>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let Some(link) = own_link(&mut host, &host_link_name(prefix, key, pod), key)? else { return Ok(None) };
    match plan::owner(&link, key) {
        Owner::Ended(_) => Ok(Some(EndedLink(link))),
        Owner::Key(alias) if cut_off(&mut host, &link, &alias)? => Ok(Some(EndedLink(link))),
        Owner::Key(_) | Owner::Unfinished | Owner::Other => remove_link(&mut host, &link).map(|()| None),
    }
}

/// In one send, so that nobody is killed in between. Without its route all that comes over the link is dropped (`rp_filter`).
fn cut_off(host: &mut NetlinkSocket, link: &Link, alias: &LinkAlias) -> Result<bool, WireError> {
    let routes = alias.addresses.all().map(|address| Object::Route(route::pod_route(address, link.index)));
    let mut messages: Vec<_> = routes.map(|route| route::op_message(Op::Remove(route))).collect();
    messages.push(route::end_link(link.index, &plan::ended_label(alias), ENDED_LINK_GROUP));
    let replies = host.exchange(&messages)?;
    Ok(replies.last().is_some_and(|reply| reply.result.is_ok()))
}

/// Removes what [`end_pod`] left of one pod. Repeatable.
///
/// # Errors
/// [`WireError`].
pub fn remove_ended(ended: &EndedLink) -> Result<(), WireError> {
    remove_link(&mut NetlinkSocket::open(NETLINK_ROUTE)?, &ended.0)
}

/// Deletes all links that [`end_pod`] left on this node, all at once, in hardly more time than one takes.
///
/// # Errors
/// [`WireError`].
pub fn delete_ended() -> Result<(), WireError> {
    match NetlinkSocket::open(NETLINK_ROUTE)?.ask(route::delete_group(ENDED_LINK_GROUP))?.result {
        Err(source) if source.errno != Errno::ENODEV => Err(refused("delete the links of ended pods", source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Takes an address out of the pods' map and table, whoever it led to. Returns whether it was in one of them.
///
/// For the daemon, when it releases an address: the pod's own DEL may have found no link any more. Repeatable.
///
/// # Errors
/// [`WireError`].
pub fn forget_address(address: impl Into<IpAddr>) -> Result<bool, WireError> {
    forget_addresses(&BTreeSet::from([address.into()])).map(|known| known > 0)
}

/// As [`forget_address`] for many, in little more time than one takes. Returns how many were in the map or the table.
///
/// # Errors
/// [`WireError`].
pub fn forget_addresses(addresses: &BTreeSet<IpAddr>) -> Result<usize, WireError> {
    let mut known = Nft::with_kept(|nft| nft.remove_pods(addresses))?;
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let families: BTreeSet<Family> = addresses.iter().map(|address| Family::of(*address)).collect();
    let mut stale = Vec::new();
    for family in families {
        for route in observe::routes(&mut socket, family, Some(TABLE_PODS))? {
            let address = route.destination.network();
            if route.destination.is_host() && addresses.contains(&address) {
                known.insert(address);
                stale.push(Op::Remove(Object::Route(route)));
            }
        }
    }
    apply_on(&mut socket, &stale, Already::Fine).map_err(refused_op)?;
    Ok(known.len())
}

/// Returns the keys of the interfaces that came with that of `key` and are still there, in the order in which they were made.
///
/// Looks for their names in turn; lists all links of the host only for a pod whose name is not known.
///
/// # Errors
/// [`WireError`].
pub fn further_pods(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<Vec<PodKey>, WireError> {
    if !key.is_first() {
        return Ok(Vec::new());
    }
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    if pod.namespace.is_empty() || pod.name.is_empty() {
        let aliases = observe::links(&mut host)?.into_iter().filter_map(|link| plan::alias_of(&link));
        return Ok(aliases.map(|alias| alias.key).filter(|other| other.came_with(key)).collect());
    }
    let mut found = Vec::new();
    for further in (1..=u8::MAX).map(|number| key.further(number)) {
        let link = look(&mut host, &host_link_name(prefix, &further, pod))?;
        if link.is_none_or(|link| plan::owner(&link, &further) == Owner::Other) {
            break;
        }
        found.push(further);
    }
    Ok(found)
}

/// Returns the host link that says that it is this key's, whatever its name; nothing when there is none.
///
/// Lists all links of the host.
///
/// # Errors
/// [`WireError`].
pub fn find_pod(key: &PodKey) -> Result<Option<PodLink>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    Ok(search(&mut host, key)?.map(PodLink::from))
}

/// Whether the name of the pod's host link is by now that of another sandbox's, or of somebody else's link.
///
/// # Errors
/// [`WireError`].
pub fn is_replaced(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<bool, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let link = look(&mut host, &host_link_name(prefix, key, pod))?;
    Ok(link.is_some_and(|link| plan::owner(&link, key) == Owner::Other))
}

fn own_link(host: &mut NetlinkSocket, name: &str, key: &PodKey) -> Result<Option<Link>, WireError> {
    match look(host, name)?.filter(|link| plan::owner(link, key) != Owner::Other) {
        Some(link) => Ok(Some(link)),
        None => of_key(host, key, |owner| *owner != Owner::Other),
    }
}

/// The key's own link among all links of the host, unless its pod has ended.
pub(super) fn search(host: &mut NetlinkSocket, key: &PodKey) -> Result<Option<Link>, WireError> {
    of_key(host, key, |owner| !matches!(owner, Owner::Ended(_) | Owner::Other))
}

fn of_key(host: &mut NetlinkSocket, key: &PodKey, wanted: impl Fn(&Owner) -> bool) -> Result<Option<Link>, WireError> {
    let mut veths = observe::links(host)?.into_iter().filter(|link| link.kind == "veth");
    Ok(veths.find(|link| wanted(&plan::owner(link, key))))
}

/// The host's end of `inner`, when it is all that is left of a pod that has ended.
pub(super) fn ended_peer(host: &mut NetlinkSocket, inner: Option<&Link>) -> Result<Option<Link>, WireError> {
    let Some(inner) = inner else { return Ok(None) };
    Ok(observe::links(host)?.into_iter().find(|link| plan::is_ended_peer(link, inner)))
}

/// Best effort: what is left inside goes with the namespace, and without the link it has no effect.
fn forget_inside(netns: &Path, link: &Link, alias: &LinkAlias) {
    let (Ok(netns), Some(index)) = (Netns::open_other(netns), link.peer) else { return };
    if let Ok(mut pod) = open_inside(&netns) {
        let _ = inside::forget(&mut pod, index, alias.addresses);
    }
}

/// Removes a pod's link with all that belongs to it.
///
/// The address may belong to a newer pod by now; then its route leads to another link, and the map element is that pod's too. The
/// element goes first, and the route, which goes with the link, last: whoever is killed in between has left the label for the next.
pub(super) fn remove_link(host: &mut NetlinkSocket, link: &Link) -> Result<(), WireError> {
    if let Some(alias) = plan::alias_of(link).filter(|alias| !alias.eni_mark.is_primary()) {
        for address in alias.addresses.all() {
            let destination = Cidr::host(address);
            let routes = observe::routes(host, Family::of(address), Some(TABLE_PODS))?;
            if !routes.iter().any(|route| route.destination == destination && route.link != link.index) {
                match Nft::with_kept(|nft| nft.remove_pod(address)) {
                    // Where there is no nf_tables there is no element either.
                    Ok(_) | Err(NftError::Unsupported) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    match host.ask(route::delete_link(link.index))?.result {
        Err(source) if source.errno != Errno::ENODEV => Err(refused(&format!("delete link {}", link.name), source)),
        Ok(()) | Err(_) => Ok(()),
    }
}
