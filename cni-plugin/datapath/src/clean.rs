//! Removes everything of ours from a node, and tells what of ours is there.

use eni_proto::{
    LinkAlias,
    numbers::{ENI_LINK_GROUP, NFT_TABLE, TABLE_PODS},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use crate::{
    Family, HostError, ObserveError,
    apply::{Already, apply_on},
    nft::{Nft, stay},
    observe::{HostState, observe_host},
    ops::{Object, Op, Setting},
    socket::NetlinkSocket,
};

/// Removes our nf_tables tables, rules, routes and addresses, and takes ENIs out of our group. Links of pods stay: they belong to sandboxes.
///
/// Repeatable. Kernel settings stay as they are, since nobody knows who else relies on them.
///
/// # Errors
/// [`HostError`].
pub fn clean_host() -> Result<(), HostError> {
    for family in Family::ALL {
        Nft::remove_table(family)?;
        stay::remove(&mut Nft::open()?, family)?;
    }
    let mut socket = NetlinkSocket::open(NETLINK_ROUTE)?;
    let state = observe_host(&mut socket)?;
    let mut routes = state.routes;
    // Routes over a router go before the route to it.
    routes.sort_by_key(|route| route.destination.prefix());
    let rules = state.rules.into_iter().map(Object::Rule);
    let addresses = state.addresses.into_iter().filter(|(_, ours)| *ours).map(|(address, _)| Object::Address(address));
    let removals = rules.chain(routes.into_iter().map(Object::Route)).chain(addresses).map(Op::Remove);
    let (from, to) = (Setting::Group(ENI_LINK_GROUP), Setting::Group(0));
    let enis = state.links.iter().filter(|link| link.group == ENI_LINK_GROUP);
    let steps: Vec<Op> = removals.chain(enis.map(|link| Op::Set { link: link.index, from, to })).collect();
    apply_on(&mut socket, &steps, Already::Fine)?;
    Ok(())
}

/// Lists everything of ours in the kernel, one line each. Empty: nothing of us is left.
///
/// # Errors
/// [`ObserveError`].
pub fn leftovers() -> Result<Vec<String>, ObserveError> {
    let state = observe_host(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?;
    let mut found = pods_of(&state)?;
    found.extend(state.rules.iter().map(ToString::to_string));
    found.extend(state.routes.iter().filter(|route| route.table != TABLE_PODS).map(ToString::to_string));
    let addresses = state.addresses.iter().filter(|(_, ours)| *ours);
    found.extend(addresses.map(|(address, _)| Object::Address(*address).to_string()));
    for (family, name) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
        for table in [NFT_TABLE, stay::TABLE] {
            if Nft::open()?.table(family, table)?.is_some() {
                found.push(format!("nf_tables table {name} {table}"));
            }
        }
    }
    Ok(found)
}

/// Lists everything in the kernel that belongs to pods, one line each: links, routes and map elements.
///
/// Empty on a prepared node without pods.
///
/// # Errors
/// [`ObserveError`].
pub fn pod_leftovers() -> Result<Vec<String>, ObserveError> {
    pods_of(&observe_host(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?)
}

fn pods_of(state: &HostState) -> Result<Vec<String>, ObserveError> {
    let mut found: Vec<String> = state
        .links
        .iter()
        .filter_map(|link| {
            let alias: LinkAlias = link.alias.parse().ok()?;
            Some(format!("link {} of {} with {}", link.name, alias.key, alias.addresses))
        })
        .collect();
    found.extend(state.routes.iter().filter(|route| route.table == TABLE_PODS).map(ToString::to_string));
    let elements = Nft::open()?.pods()?.unwrap_or_default();
    found.extend(elements.iter().map(|(address, mark)| format!("map element {address} -> eni_{}", mark.value())));
    Ok(found)
}
