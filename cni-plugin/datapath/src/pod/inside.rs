//! The pod's end: its address, neighbour and routes.
//!
//! The first interface of a pod has its routes in `main`. When another one has the default route already, an interface gets a table
//! of its own and a rule that sends there what comes from its address: the host drops a packet that comes in by one interface
//! with the address of another.

use eni_proto::{PodAddresses, numbers::TABLE_MAIN};
use nix::errno::Errno;

use super::{WireError, Wired, plan};
use crate::{
    Family,
    apply::{Already, ApplyError, apply_on},
    observe,
    ops::{Object, Op},
    socket::NetlinkSocket,
};

/// Sets up a new pod's end and returns the table that has its routes.
pub(super) fn set_up(pod: &mut NetlinkSocket, wired: &Wired, addresses: PodAddresses) -> Result<u32, WireError> {
    let on_link = plan::on_link(wired.pod_index, addresses, wired.host_mac);
    apply_on(pod, &on_link, Already::Refused).map_err(WireError::InPod)?;
    lead_out(pod, wired.pod_index, addresses)
}

/// Makes complete what an earlier ADD set up, in the table that it chose.
pub(super) fn complete(pod: &mut NetlinkSocket, wired: &Wired, addresses: PodAddresses) -> Result<u32, WireError> {
    let link = wired.pod_index;
    let on_link = plan::on_link(link, addresses, wired.host_mac);
    apply_on(pod, &on_link, Already::Fine).map_err(WireError::InPod)?;
    let mut routes = Vec::new();
    for family in addresses.all().map(Family::of) {
        routes.extend(observe::routes(pod, family, None)?);
    }
    let has_routes = |table: &u32| routes.iter().any(|route| route.link == link && route.table == *table);
    match [plan::own_table(link), TABLE_MAIN].into_iter().find(has_routes) {
        None => lead_out(pod, link, addresses),
        Some(table) => {
            apply_on(pod, &plan::routes(link, addresses, table), Already::Fine).map_err(WireError::InPod)?;
            Ok(table)
        }
    }
}

/// Adds the routes to `main`, or to a table of the interface's own where somebody else has them.
fn lead_out(pod: &mut NetlinkSocket, link: u32, addresses: PodAddresses) -> Result<u32, WireError> {
    match apply_on(pod, &plan::routes(link, addresses, TABLE_MAIN), Already::Refused) {
        Ok(_) => Ok(TABLE_MAIN),
        Err(ApplyError::Refused { op: Op::Add(Object::Route(_)), source }) if source.errno == Errno::EEXIST => {
            let table = plan::own_table(link);
            apply_on(pod, &plan::routes(link, addresses, table), Already::Refused).map_err(WireError::InPod)?;
            Ok(table)
        }
        Err(error) => Err(WireError::InPod(error)),
    }
}

/// Removes what does not go with the link: the rule of a table of its own.
pub(super) fn forget(pod: &mut NetlinkSocket, link: u32, addresses: PodAddresses) -> Result<(), ApplyError> {
    let rule = |address| Op::Remove(Object::Rule(plan::own_rule(address, plan::own_table(link))));
    apply_on(pod, &addresses.all().map(rule).collect::<Vec<_>>(), Already::Fine).map(drop)
}
