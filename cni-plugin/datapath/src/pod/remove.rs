//! Takes a pod's interface back. Whose a link is, its alias says; its name is only where to look first.

use std::path::Path;

use eni_proto::{LinkAlias, Pod, PodKey, VethPrefix, host_link_name, numbers::TABLE_PODS};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;

use super::{WireError, inside, look, open_inside, plan, plan::Owner, refused};
use crate::{
    Cidr, Netns,
    nft::Nft,
    observe::{self, PodLink},
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
    let alias = link.alias.parse().ok();
    if let (Some(alias), Some(netns)) = (&alias, netns) {
        forget_inside(netns, &link, alias);
    }
    remove_link(&mut host, &link, alias.as_ref())?;
    Ok(alias)
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

fn own_link(host: &mut NetlinkSocket, name: &str, key: &PodKey) -> Result<Option<Link>, WireError> {
    match look(host, name)?.filter(|link| plan::owner(link, key) != Owner::Other) {
        Some(link) => Ok(Some(link)),
        None => search(host, key),
    }
}

/// The key's own link among all links of the host.
pub(super) fn search(host: &mut NetlinkSocket, key: &PodKey) -> Result<Option<Link>, WireError> {
    let links = observe::links(host)?;
    Ok(links.into_iter().find(|link| link.kind == "veth" && plan::owner(link, key) != Owner::Other))
}

/// Best effort: what is left inside goes with the namespace, and without the link it has no effect.
fn forget_inside(netns: &Path, link: &Link, alias: &LinkAlias) {
    let (Ok(netns), Some(index)) = (Netns::open_other(netns), link.peer) else { return };
    if let Ok(mut pod) = open_inside(&netns) {
        let _ = inside::forget(&mut pod, index, alias.address);
    }
}

/// Removes a pod's link with all that belongs to it.
///
/// The address may belong to a newer pod by now; then its route leads to another link, and the map element is that pod's too. The
/// element goes first, and the route, which goes with the link, last: whoever is killed in between has left the label for the next.
pub(super) fn remove_link(host: &mut NetlinkSocket, link: &Link, alias: Option<&LinkAlias>) -> Result<(), WireError> {
    if let Some(alias) = alias.filter(|alias| !alias.eni_mark.is_primary()) {
        let destination = Cidr::host(alias.address);
        let routes = observe::routes(host, Some(TABLE_PODS))?;
        if !routes.iter().any(|route| route.destination == destination && route.link != link.index) {
            Nft::open()?.remove_pod(alias.address)?;
        }
    }
    match host.ask(route::delete_link(link.index))?.result {
        Err(source) if source.errno != Errno::ENODEV => Err(refused(&format!("delete link {}", link.name), source)),
        Ok(()) | Err(_) => Ok(()),
    }
}
