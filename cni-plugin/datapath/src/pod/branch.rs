//! Pods on a branch ENI, which carries them over a VLAN of the node's trunk and applies security groups of their own.
//!
//! The pod's namespace is as any other. On the host the VLAN's link has a table of its own with the way to the subnet's router.
//! In *strict* mode two rules before all others send what comes from the VLAN or from the pod by that table, which also has the way to
//! the pod; the table `local` is asked after them ([`prepare_branches`]). In *standard* mode the way to the pod is in `main`, and
//! a rule sends what comes from its address by the VLAN's table. A DEL needs no daemon: the label of the host link says all.

pub(crate) mod orphans;
pub(crate) mod plan;
#[cfg(test)]
mod tests;

use eni_proto::{
    BranchEni, Enforcing, Pod, PodKey, VethPrefix,
    numbers::{RULE_LOCAL_BEHIND, TABLE_LOCAL},
};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use plan::BranchLabel;

use super::{
    Difference, PodWiring, WireError, Wired, activate, create, inside, look, open_inside, plan as pod_plan, refused,
    refused_op, remove::remove_link, wired,
};
use crate::{
    Family, MacAddress, Netns,
    apply::{Already, apply_on},
    observe,
    ops::{BranchRule, Object, Op},
    route::{self, Link},
    socket::NetlinkSocket,
    sysctl,
};

/// Wires a pod's interface to its branch ENI. An interface of an older sandbox of the same pod, and one of the same key, are taken away
/// first.
///
/// # Errors
/// [`WireError`]; nothing of this ADD is left then. [`WireError::NoVlan`] on a kernel without VLANs.
pub fn add_branch_pod(wiring: &PodWiring, branch: &BranchEni) -> Result<Wired, WireError> {
    del_branch_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod)?;
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let trunk = MacAddress(branch.trunk());
    // A VLAN's link has its trunk's hardware address as well, unless it is given another.
    let is_trunk = |link: &Link| link.mac == Some(trunk) && link.kind != "vlan";
    let parent = observe::links(&mut host)?.into_iter().find(is_trunk).ok_or(WireError::NoTrunk { mac: trunk })?;
    let name = plan::vlan_name(branch.vlan());
    match look(&mut host, &name)? {
        Some(link) if link.kind != "vlan" => return Err(WireError::ForeignLink { link: name }),
        Some(link) => match label_of(&link) {
            Some(older) => orphans::remove(&mut host, &older)?,
            None => delete(&mut host, link.index)?,
        },
        None => {}
    }
    let label = label(wiring, branch);
    make_vlan(&mut host, branch, parent.index, &label)?;
    let vlan = look(&mut host, &name)?.map_or(0, |link| link.index);
    let outcome = wire_over(wiring, branch, vlan, &label);
    if outcome.is_err() {
        let _ = delete(&mut host, vlan);
    }
    outcome
}

fn label(wiring: &PodWiring, branch: &BranchEni) -> BranchLabel {
    let (key, addresses) = (wiring.key.clone(), wiring.network.addresses);
    BranchLabel { key, vlan: branch.vlan(), since: orphans::uptime_seconds(), addresses }
}

/// In one send with its label, so that nobody who is killed leaves one that nobody knows.
fn make_vlan(host: &mut NetlinkSocket, branch: &BranchEni, trunk: u32, label: &BranchLabel) -> Result<(), WireError> {
    let name = plan::vlan_name(branch.vlan());
    let create = route::create_vlan(&name, branch.vlan(), MacAddress(branch.mac()), trunk);
    let mut replies = host.exchange(&[create, route::label_link(&name, &label.to_string())])?.into_iter();
    replies.next().map_or(Ok(()), |made| made.result).map_err(|source| {
        let no_vlan = source.errno == Errno::EOPNOTSUPP;
        if no_vlan { WireError::NoVlan } else { refused(&format!("create link {name}"), source) }
    })?;
    if let Err(source) = replies.next().map_or(Ok(()), |labelled| labelled.result) {
        let made = look(host, &name)?;
        made.map_or(Ok(()), |made| delete(host, made.index))?;
        return Err(refused(&format!("label link {name}"), source));
    }
    sysctl::write_if_present(&format!("ipv6/conf/{name}/accept_ra"), 0)?;
    Ok(())
}

/// All but the VLAN's link, which is there.
fn wire_over(wiring: &PodWiring, branch: &BranchEni, vlan: u32, label: &BranchLabel) -> Result<Wired, WireError> {
    let netns = Netns::open_other(&wiring.netns)?;
    let (mut pod, mut host) = (open_inside(&netns)?, NetlinkSocket::open(NETLINK_ROUTE)?);
    if wiring.network.addresses.v6().is_some() {
        netns.inside(|| sysctl::ensure("ipv6/conf/default/disable_ipv6", 0))??;
    }
    let mut pair = pod_plan::veth_pair(wiring);
    pair.host_name = plan::host_name(branch.enforcing(), &wiring.network.veth_prefix, &wiring.key, &wiring.pod);
    pair.host_group = 0;
    let made = match create(&mut host, &pair, &netns)? {
        Some(made) => Some(made),
        // An older sandbox of the same pod.
        None => match look(&mut host, &pair.host_name)? {
            Some(older) if older.kind == "veth" => {
                take_away(&mut host, &older)?;
                create(&mut host, &pair, &netns)?
            }
            Some(_) => return Err(WireError::ForeignLink { link: pair.host_name }),
            None => None,
        },
    };
    let Some((host_index, pod_index)) = made else {
        return Err(WireError::InterfaceExists { interface: pair.pod_name });
    };
    let mut wired = wired(&pair, host_index, pod_index);
    // First of all: whatever happens from now on, a DEL finds it.
    let outcome = claim(&mut host, &wired, label);
    let outcome = outcome.and_then(|()| lead(wiring, branch, vlan, &mut wired, &mut host, &mut pod));
    if outcome.is_err() {
        let _ = inside::forget(&mut pod, pod_index, wiring.network.addresses);
        let _ = orphans::remove_rules(&mut host, label);
        let _ = delete(&mut host, host_index);
    }
    outcome.map(|()| wired)
}

fn claim(host: &mut NetlinkSocket, wired: &Wired, label: &BranchLabel) -> Result<(), WireError> {
    let has_ipv6 = sysctl::write_if_present(&format!("ipv6/conf/{}/accept_ra", wired.host_link), 0)?;
    let claimed = host.ask(route::claim_link(wired.host_index, &label.to_string(), has_ipv6))?.result;
    claimed.map_err(|source| refused("label the host link", source))?;
    // What an earlier pod with this VLAN left leads nowhere.
    orphans::remove_rules(host, label)
}

fn lead(
    wiring: &PodWiring,
    branch: &BranchEni,
    vlan: u32,
    wired: &mut Wired,
    host: &mut NetlinkSocket,
    pod: &mut NetlinkSocket,
) -> Result<(), WireError> {
    let (ops, rules) = plan::host_side(wiring, branch, vlan, wired.host_index);
    apply_on(host, &ops, Already::Refused).map_err(refused_op)?;
    for rule in rules {
        add_rule(host, &rule)?;
    }
    wired.pod_table = inside::set_up(pod, wired, wiring.network.addresses)?;
    activate(wiring, wired, host, pod)
}

/// Takes the interface of a pod on a branch ENI away, and all that leads to it. Returns whether there was one.
///
/// Repeatable; needs neither the daemon nor the pod's namespace.
///
/// # Errors
/// [`WireError`]; some of it may be gone, so call it again.
pub fn del_branch_pod(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<bool, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    for enforcing in [Enforcing::Strict, Enforcing::Standard] {
        let link = look(&mut host, &plan::host_name(enforcing, prefix, key, pod))?;
        if let Some(link) = link.filter(|link| label_of(link).is_some_and(|label| label.key == *key)) {
            take_away(&mut host, &link)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the interface of this key is that of a pod on a branch ENI.
///
/// # Errors
/// [`WireError`].
pub fn is_branch_pod(prefix: &VethPrefix, key: &PodKey, pod: &Pod) -> Result<bool, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    for enforcing in [Enforcing::Strict, Enforcing::Standard] {
        let link = look(&mut host, &plan::host_name(enforcing, prefix, key, pod))?;
        if link.as_ref().and_then(label_of).is_some_and(|label| label.key == *key) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares a pod on a branch ENI with what it ought to be; nothing when all is well.
///
/// # Errors
/// [`WireError`]; then nothing may be concluded.
pub fn check_branch_pod(wiring: &PodWiring, branch: &BranchEni) -> Result<Vec<Difference>, WireError> {
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let (prefix, key, pod) = (&wiring.network.veth_prefix, &wiring.key, &wiring.pod);
    let mut ends = Vec::new();
    let mut found = Vec::new();
    for name in [plan::vlan_name(branch.vlan()), plan::host_name(branch.enforcing(), prefix, key, pod)] {
        match look(&mut host, &name)? {
            Some(link) if link.up => ends.push(link.index),
            Some(_) => found.push(Difference::new(format!("link {name}"), "up", "down")),
            None => found.push(Difference::new(format!("link {name}"), "a link", "none")),
        }
    }
    let [vlan, outer] = *ends.as_slice() else { return Ok(found) };
    let (ops, rules) = plan::host_side(wiring, branch, vlan, outer);
    let families: Vec<Family> = wiring.network.addresses.all().map(Family::of).collect();
    let (mut routes, mut tables) = (Vec::new(), Vec::new());
    for family in families {
        routes.extend(observe::routes(&mut host, family, None)?);
        tables.extend(observe::rules(&mut host, family)?);
    }
    for op in ops {
        let missing = match op {
            Op::Add(Object::Route(route)) => !routes.contains(&route),
            Op::Add(Object::Rule(rule)) => !tables.contains(&rule),
            Op::Add(_) | Op::Remove(_) | Op::Set { .. } => false,
        };
        if missing {
            found.push(Difference::new("on the host", op, "none"));
        }
    }
    for wanted in rules {
        let same = |rule: &&crate::ops::Rule| {
            (rule.family, rule.priority, rule.table) == (wanted.family, wanted.priority, wanted.table)
        };
        // Two rules may differ in their links only.
        match tables.iter().position(|rule| same(&rule)) {
            Some(at) => drop(tables.swap_remove(at)),
            None => found.push(Difference::new("on the host", wanted, "none")),
        }
    }
    Ok(found)
}

/// Makes the node ready for pods in this mode, or, without one, as it was before. Repeatable.
///
/// In strict mode the table `local` is asked after the pods' rules, so that the node's own packets to such a pod go over the VPC too,
/// and TCP does not look for a local socket before the rules have been asked.
///
/// # Errors
/// [`WireError`].
pub fn prepare_branches(enforcing: Option<Enforcing>) -> Result<(), WireError> {
    let strict = enforcing == Some(Enforcing::Strict);
    let mut host = NetlinkSocket::open(NETLINK_ROUTE)?;
    let moved = |rule: &crate::ops::Rule| (rule.priority, rule.table) == (RULE_LOCAL_BEHIND, TABLE_LOCAL);
    if !strict && !observe::observe_host(&mut host)?.foreign_rules.iter().any(moved) {
        return Ok(());
    }
    let families: &[Family] = if sysctl::has_ipv6() { &Family::ALL } else { &[Family::V4] };
    let [add4, add6, remove4, remove6] = plan::local_rules(strict);
    let of_kernel = |rule: &BranchRule| families.contains(&rule.family);
    for rule in [add4, add6].iter().filter(|rule| of_kernel(rule)) {
        add_rule(&mut host, rule)?;
    }
    for rule in [remove4, remove6].iter().filter(|rule| of_kernel(rule)) {
        while remove_rule(&mut host, rule)? {}
    }
    if strict {
        sysctl::write_if_present("ipv4/tcp_early_demux", 0)?;
    }
    Ok(())
}

fn label_of(link: &Link) -> Option<BranchLabel> {
    link.alias.parse().ok()
}

/// Removes a link of an older sandbox, of whichever kind, with all that belongs to it.
fn take_away(host: &mut NetlinkSocket, link: &Link) -> Result<(), WireError> {
    let Some(label) = label_of(link) else { return remove_link(host, link) };
    orphans::remove(host, &label)?;
    delete(host, link.index)
}

fn add_rule(host: &mut NetlinkSocket, rule: &BranchRule) -> Result<(), WireError> {
    match host.ask(route::add_branch_rule(rule))?.result {
        Err(source) if source.errno != Errno::EEXIST => Err(refused(&format!("add {rule}"), source)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Returns whether it was there.
fn remove_rule(host: &mut NetlinkSocket, rule: &BranchRule) -> Result<bool, WireError> {
    match host.ask(route::remove_branch_rule(rule))?.result {
        Ok(()) => Ok(true),
        Err(source) if source.errno == Errno::ENOENT => Ok(false),
        Err(source) => Err(refused(&format!("remove {rule}"), source)),
    }
}

fn delete(host: &mut NetlinkSocket, link: u32) -> Result<(), WireError> {
    match host.ask(route::delete_link(link))?.result {
        Err(source) if source.errno != Errno::ENODEV => Err(refused(&format!("delete link {link}"), source)),
        Ok(()) | Err(_) => Ok(()),
    }
}
