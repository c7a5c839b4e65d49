//! What of the incumbent's pods can be taken over, and why not the others. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use eni_datapath::incumbent::{Adoption, FoundPod};
use eni_proto::{EniMark, LinkAlias, Pod, PodKey};
use ipam_core::{CoolDown, Lease, Moment, ports::Interface};

use super::checkpoint::{Allocation, Checkpoint};

/// All that a decision depends on.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// By what it was noticed that the incumbent runs.
    pub(super) running: Option<String>,
    /// What its file says, or why that cannot be known. Absent: there is none.
    pub(super) checkpoint: Option<Result<Checkpoint, String>>,
    /// When the file was written last.
    pub(super) written: Option<Moment>,
    /// Its pods in the kernel.
    pub(super) pods: Vec<FoundPod>,
    /// Pods that are ours already.
    pub(super) ours: BTreeMap<u32, LinkAlias>,
    /// What there is of branch ENIs.
    pub(super) branches: Vec<String>,
    /// The ENIs, with the addresses that each owns.
    pub(super) enis: Vec<Interface>,
    /// Where each pod lives, by the index of its link.
    pub(super) namespaces: BTreeMap<u32, PathBuf>,
    /// Leases that we have given.
    pub(super) leases: Vec<Lease>,
    /// Why the chains of iptables-legacy are not known.
    pub(super) unseen_chains: Option<String>,
}

/// One reason against a take-over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    pub(super) code: &'static str,
    pub(super) what: String,
}

/// What would be done.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Pods to take over: how the kernel is told, and the lease on record.
    pub(super) adoptions: Vec<(Adoption, Lease)>,
    /// Addresses that rest, because their pods went lately, or may have.
    pub(super) cooling: Vec<CoolDown>,
    /// Any of these: nothing is done.
    pub(super) obstacles: Vec<Obstacle>,
    /// What does not hinder, but should be known.
    pub(super) notes: Vec<String>,
    /// How many pods are ours already.
    pub(super) done: usize,
}

/// Decides. `network`: of our leases. `cool_down`: for how long a freed address rests.
pub(super) fn judge(facts: &Facts, network: &str, now: Moment, cool_down: Duration) -> Verdict {
    let mut verdict = Verdict { obstacles: node(facts), done: facts.ours.len(), ..Verdict::default() };
    let empty = Checkpoint::default();
    let checkpoint = match &facts.checkpoint {
        Some(Ok(checkpoint)) => checkpoint,
        Some(Err(_)) | None => &empty,
    };
    let mut gone = BTreeSet::new();
    for allocation in &checkpoint.allocations {
        match one(facts, allocation, network) {
            Ok(Fate::Take(adoption, lease)) => verdict.adoptions.push((adoption, *lease)),
            Ok(Fate::Gone(address)) => drop(gone.insert(address)),
            Ok(Fate::Done) => {}
            Err(obstacle) => verdict.obstacles.push(obstacle),
        }
    }
    verdict.obstacles.extend(unknown(facts, checkpoint));
    let until = now.after(cool_down);
    verdict.cooling = gone.into_iter().map(|address| CoolDown { address: address.into(), until }).collect();
    verdict.cooling.extend(lately_freed(facts, checkpoint, &verdict, now, cool_down));
    let homeless = verdict.adoptions.iter().filter(|(_, lease)| lease.netns.is_empty()).count();
    if homeless > 0 {
        verdict.notes.push(format!(
            "the network namespaces of {homeless} pod(s) were not found: their leases end with DEL, but not when a sandbox is lost"
        ));
    }
    verdict
}

/// What becomes of one allocation.
enum Fate {
    Take(Adoption, Box<Lease>),
    Gone(Ipv4Addr),
    /// It is ours, or its address is somebody else's by now.
    Done,
}

fn node(facts: &Facts) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let mut add = |code, what| obstacles.push(Obstacle { code, what });
    if let Some(sign) = &facts.running {
        add("IPAM-351", format!("amazon-vpc-cni-k8s still runs here ({sign}); take its DaemonSet off this node first"));
    }
    if let Some(Err(reason)) = &facts.checkpoint {
        add("IPAM-352", format!("its leases cannot be read: {reason}"));
    }
    if let [first, ..] = &facts.branches[..] {
        let count = facts.branches.len();
        add(
            "IPAM-353",
            format!("pods with an ENI of their own (security groups for pods) are here: {first} ({count} in all)"),
        );
    }
    if let Some(reason) = &facts.unseen_chains {
        add("IPAM-357", format!("the chains of iptables-legacy cannot be read: {reason}"));
    }
    obstacles
}

fn one(facts: &Facts, allocation: &Allocation, network: &str) -> Result<Fate, Obstacle> {
    let who = allocation.who();
    let obstacle = |code, what: String| Obstacle { code, what };
    if allocation.metadata.interfaces_count > 1 {
        return Err(obstacle("IPAM-354", format!("{who} has several interfaces, one on each network card")));
    }
    let Some(address) = allocation.address() else {
        return Err(obstacle("IPAM-355", format!("{who} has the IPv6 address `{}`", allocation.ipv6)));
    };
    let is_its = |lease: &&Lease| lease.key.container_id() == allocation.container_id;
    let ours = facts.ours.values().any(|alias| alias.addresses.v4() == Some(address));
    if ours || facts.leases.iter().any(|lease| lease.addresses.has(address) && !is_its(&lease)) {
        return Ok(Fate::Done);
    }
    let Some(pod) = facts.pods.iter().find(|pod| pod.address == address) else { return Ok(Fate::Gone(address)) };
    let unusable = |why: &str| obstacle("IPAM-356", format!("{who} with {address}: {why}"));
    let Some(eni) = facts.enis.iter().find(|eni| eni.has(address)) else {
        return Err(unusable("no ENI of this node has the address"));
    };
    let attachment = eni.attachment.as_ref().filter(|attachment| attachment.card == 0);
    let Some(attachment) = attachment else { return Err(unusable("its ENI is not on the first network card")) };
    let key = PodKey::new(network, &allocation.container_id, &allocation.if_name);
    let key = key.map_err(|error| unusable(&error.to_string()))?;
    let eni_mark = EniMark::of_device(attachment.device_index);
    let name = pod.name.clone();
    let adoption = Adoption { key: key.clone(), link: pod.index, name, mac: pod.mac, address, eni_mark };
    let metadata = &allocation.metadata;
    let lease = Lease {
        key,
        pod: Pod {
            namespace: metadata.k8s_pod_namespace.clone(),
            name: metadata.k8s_pod_name.clone(),
            uid: String::new(),
        },
        netns: facts.namespaces.get(&pod.index).map(|path| path.display().to_string()).unwrap_or_default(),
        addresses: address.into(),
        eni: eni.id.clone(),
        eni_mark,
        since: allocation.since(),
    };
    Ok(Fate::Take(adoption, Box::new(lease)))
}

/// Pods in the kernel that its file does not name: whose they are nobody can tell.
fn unknown(facts: &Facts, checkpoint: &Checkpoint) -> Vec<Obstacle> {
    if matches!(facts.checkpoint, Some(Err(_))) {
        return Vec::new();
    }
    let named: BTreeSet<Ipv4Addr> = checkpoint.allocations.iter().filter_map(Allocation::address).collect();
    let unknown = facts.pods.iter().filter(|pod| !named.contains(&pod.address));
    let why = "is in the kernel, but not among its leases";
    unknown
        .map(|pod| Obstacle { code: "IPAM-356", what: format!("link {} with {} {why}", pod.link, pod.address) })
        .collect()
}

/// It keeps no cool-downs, but writes its file with each address that it frees: what is free may have been freed then.
fn lately_freed(
    facts: &Facts,
    checkpoint: &Checkpoint,
    verdict: &Verdict,
    now: Moment,
    cool_down: Duration,
) -> Vec<CoolDown> {
    let Some(until) = facts.written.map(|written| written.after(cool_down)).filter(|until| *until > now) else {
        return Vec::new();
    };
    let used: BTreeSet<Ipv4Addr> = checkpoint.allocations.iter().filter_map(Allocation::address).collect();
    let ours = facts.leases.iter().flat_map(|lease| lease.addresses.all());
    let resting = verdict.cooling.iter().map(|cooling| cooling.address);
    let known: BTreeSet<IpAddr> = used.into_iter().map(IpAddr::V4).chain(ours).chain(resting).collect();
    let free =
        facts.enis.iter().flat_map(Interface::addresses).filter(|address| !known.contains(&IpAddr::V4(*address)));
    free.map(|address| CoolDown { address: address.into(), until }).collect()
}

#[cfg(test)]
mod tests;
