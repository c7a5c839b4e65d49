//! Pings between pods, and from pods to the internet: which, and what came of them.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc, time::Duration};

use ipam_core::EniId;
use lab::INTERNET_HOST;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{Cluster, Trouble, cloud::blocking, flight::Placed};

/// `ping` processes at the same time.
const AT_ONCE: usize = 16;
/// How long an answer may take. On one machine it takes microseconds; the rest is for a busy one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Which way a ping goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To a pod whose address is on the same ENI.
    SameEni,
    /// To a pod on the same node whose address is on another ENI.
    AcrossEnis,
    /// To a pod on another node.
    AcrossNodes,
    /// From the node to its own pod, as a kubelet probes it.
    FromNode,
    /// From a pod to the internet host.
    Internet,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SameEni => "pod to pod, same ENI",
            Self::AcrossEnis => "pod to pod, across ENIs",
            Self::AcrossNodes => "pod to pod, across nodes",
            Self::FromNode => "node to its pod",
            Self::Internet => "pod to internet (SNAT)",
        })
    }
}

/// One ping to be sent: which way, from the pod at this index (or from its node), to this address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Which way it goes.
    pub way: Way,
    /// Index of the pod that it is about.
    pub pod: usize,
    /// Where it goes.
    pub target: Ipv4Addr,
}

/// Where a pod is, as far as pings care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Number of the node.
    pub worker: usize,
    /// The ENI that owns the pod's address.
    pub eni: EniId,
    /// The pod's address.
    pub address: Ipv4Addr,
}

/// Returns the pings that cover every pod: each one sends, and is sent to, on every way that exists for it.
#[must_use]
pub fn plan(pods: &[Place]) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (index, pod) in pods.iter().enumerate() {
        let mut to = |way, target: Option<Ipv4Addr>| {
            tasks.extend(target.map(|target| Task { way, pod: index, target }));
        };
        to(Way::SameEni, next(pods, index, |other| other.eni == pod.eni));
        to(Way::AcrossEnis, next(pods, index, |other| other.worker == pod.worker && other.eni != pod.eni));
        to(Way::AcrossNodes, next(pods, index, |other| other.worker != pod.worker));
        to(Way::FromNode, Some(pod.address));
        to(Way::Internet, Some(INTERNET_HOST));
    }
    tasks
}

/// The next pod after `index`, round the circle, that fits; so that in a group of pods each is the next of one.
fn next(pods: &[Place], index: usize, fits: impl Fn(&Place) -> bool) -> Option<Ipv4Addr> {
    let (before, after) = pods.split_at_checked(index)?;
    after.iter().skip(1).chain(before).find(|other| fits(other)).map(|other| other.address)
}

/// What came of the pings on one way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were sent.
    pub sent: usize,
    /// How many were answered.
    pub answered: usize,
    /// Those that were not, in people's words.
    pub lost: Vec<String>,
}

/// Sends all pings of [`plan`] and returns what came of them, by way.
///
/// # Errors
/// When `ping` cannot be started; a ping without an answer is in the tally.
pub async fn send_all(cluster: &Cluster, pods: &[Arc<Placed>]) -> Result<BTreeMap<Way, Tally>, Trouble> {
    let places: Vec<Place> = pods.iter().map(|pod| pod.place.clone()).collect();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for task in plan(&places) {
        let Some(pod) = pods.get(task.pod).map(Arc::clone) else { continue };
        let Some(worker) = cluster.workers.get(pod.place.worker).map(Arc::clone) else { continue };
        let gate = Arc::clone(&gate);
        running.spawn(async move {
            let _turn = gate.acquire_owned().await;
            let Task { way, target, .. } = task;
            let sender = if way == Way::FromNode { worker.node().name() } else { pod.sandbox.name.as_str() };
            let line = format!("{sender} ({}) to {target}", pod.place.address);
            let ping = blocking(move || match way {
                Way::FromNode => worker.node().namespace().ping(target, PATIENCE),
                Way::SameEni | Way::AcrossEnis | Way::AcrossNodes | Way::Internet => {
                    pod.sandbox.pod.ping(target, PATIENCE)
                }
            });
            Ok::<_, Trouble>((way, line, ping.await??.answered))
        });
    }
    let mut tallies: BTreeMap<Way, Tally> = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        let ended = ended.map_err(|failed| Trouble::Broken(format!("a ping's task failed: {failed}")))?;
        let (way, line, answered) = ended?;
        let tally = tallies.entry(way).or_default();
        tally.sent += 1;
        if answered {
            tally.answered += 1;
        } else {
            tally.lost.push(line);
        }
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pod_sends_and_is_sent_to_on_every_way() {
        let mut pods = Vec::new();
        for worker in 0..2 {
            for eni in 0..2_u8 {
                for number in 0..3_u8 {
                    let octet = u8::try_from(worker).unwrap() * 100 + eni * 10 + number;
                    let eni = format!("eni-{worker}{eni}").parse().unwrap();
                    pods.push(Place { worker, eni, address: Ipv4Addr::new(10, 0, 0, octet) });
                }
            }
        }
        let tasks = plan(&pods);
        for way in [Way::SameEni, Way::AcrossEnis, Way::AcrossNodes, Way::FromNode, Way::Internet] {
            assert_eq!(tasks.iter().filter(|task| task.way == way).count(), pods.len(), "{way}");
        }
        let all: BTreeSet<Ipv4Addr> = pods.iter().map(|pod| pod.address).collect();
        let hit = |way| tasks.iter().filter(|t| t.way == way).map(|t| t.target).collect::<BTreeSet<_>>();
        assert_eq!(hit(Way::SameEni), all);
        assert_eq!(hit(Way::FromNode), all);
    }

    #[test]
    fn a_lone_pod_pings_the_internet_only() {
        let pod = Place { worker: 0, eni: "eni-1".parse().unwrap(), address: Ipv4Addr::new(10, 0, 0, 9) };
        let ways: Vec<Way> = plan(&[pod]).into_iter().map(|task| task.way).collect();
        assert_eq!(ways, [Way::FromNode, Way::Internet]);
    }
}
