//! Pods on branch ENIs that ended without a DEL. Their end of the pair goes with its namespace; the branch's link and the rules stay, and
//! the link says whose they were.

use std::{collections::BTreeSet, fs};

use eni_proto::{
    PodKey,
    numbers::{RULE_TO_BRANCH_POD, TABLE_MAIN, branch_table},
};
use netlink_sys::protocols::NETLINK_ROUTE;

use super::{
    delete, label_of, look,
    plan::{BranchLabel, vlan_name},
    remove_rule, take_away,
};
use crate::{
    Family, ObserveError, WireError,
    apply::{Already, apply_on},
    observe,
    ops::{BranchRule, Object, Op, Selector},
    pod::refused_op,
    route::Link,
    socket::NetlinkSocket,
};

/// So long an ADD may be at work, and a runtime's list of pods be on its way, in seconds.
const YOUNG_SECONDS: u64 = 60;

/// Returns the attachments on branch ENIs that links of this node say they belong to and that are older than a minute, with or without
/// an interface; sorted, each once.
///
/// Younger ones are not there yet for whoever made a list of pods before. Lists all links of the host.
///
/// # Errors
/// [`ObserveError`]; then nothing may be concluded.
pub fn settled_branch_pods() -> Result<Vec<PodKey>, ObserveError> {
    let links = observe::links(&mut NetlinkSocket::open(NETLINK_ROUTE)?)?;
    let now = uptime_seconds();
    let old = links.iter().filter_map(label_of).filter(|label| is_old(label, now));
    let keys: BTreeSet<PodKey> = old.map(|label| label.key).collect();
    Ok(keys.into_iter().collect())
}

/// Takes away all that is there of a pod on a branch ENI, whatever its links' names. Returns whether there was anything.
///
/// Repeatable. Lists all links of the host.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn end_branch_pod(key: &PodKey) -> Result<bool, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let links = observe::links(&mut host)?;
    let labels = links.iter().filter_map(|link| Some((link, label_of(link).filter(|label| label.key == *key)?)));
    let mut found = false;
    for (link, label) in labels {
        found = true;
        match link.name == vlan_name(label.vlan) {
            true => remove(&mut host, &label)?,
            false => take_away(&mut host, link)?,
        }
    }
    Ok(found)
}

/// Takes away what pods on branch ENIs left whose interface is gone for a minute. Returns whose it was, sorted.
///
/// Repeatable. Lists all links of the host.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn sweep_branches() -> Result<Vec<PodKey>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let links = observe::links(&mut host)?;
    let mut swept = Vec::new();
    for label in lost(&links, uptime_seconds()) {
        remove(&mut host, &label)?;
        swept.push(label.key);
    }
    swept.sort();
    Ok(swept)
}

/// What branches' links say whose pod has no interface.
fn lost(links: &[Link], now: u64) -> Vec<BranchLabel> {
    let labels = || links.iter().filter_map(|link| Some((link, label_of(link)?)));
    let is_branch = |link: &Link, label: &BranchLabel| link.name == vlan_name(label.vlan);
    let living: Vec<PodKey> =
        labels().filter(|(link, label)| !is_branch(link, label)).map(|(_, label)| label.key).collect();
    let branches = labels().filter(|(link, label)| is_branch(link, label) && is_old(label, now));
    branches.map(|(_, label)| label).filter(|label| !living.contains(&label.key)).collect()
}

const fn is_old(label: &BranchLabel, now: u64) -> bool {
    now.saturating_sub(label.since) >= YOUNG_SECONDS
}

/// Zero where the kernel does not say.
pub(super) fn uptime_seconds() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|whole| whole.parse().ok()).unwrap_or(0)
}

/// Removes the branch's link, with its table, and the rules; unless another pod has the VLAN by now.
pub(super) fn remove(host: &mut NetlinkSocket, label: &BranchLabel) -> Result<(), WireError> {
    let link = look(host, &vlan_name(label.vlan))?;
    // Without a label it is an older version's.
    let is_its = |link: &Link| label_of(link).map_or(link.kind == "vlan", |other| other.key == label.key);
    if link.as_ref().is_none_or(is_its) {
        remove_rules(host, label)?;
    }
    link.filter(is_its).map_or(Ok(()), |link| delete(host, link.index))
}

/// Removes all rules that lead to a branch's table or to its pod.
pub(super) fn remove_rules(host: &mut NetlinkSocket, label: &BranchLabel) -> Result<(), WireError> {
    let mut removals = Vec::new();
    for family in Family::ALL {
        let of_branch = observe::rules(host, family)?.into_iter().filter(|rule| rule.table == branch_table(label.vlan));
        removals.extend(of_branch.map(|rule| Op::Remove(Object::Rule(rule))));
    }
    apply_on(host, &removals, Already::Fine).map_err(refused_op)?;
    for address in label.addresses.all() {
        let (family, priority) = (Family::of(address), RULE_TO_BRANCH_POD);
        let rule = BranchRule { family, priority, selector: Selector::To(address), table: TABLE_MAIN, ours: true };
        while remove_rule(host, &rule)? {}
    }
    Ok(())
}
