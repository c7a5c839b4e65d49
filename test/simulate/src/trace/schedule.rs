//! Puts pods on nodes: each on the emptiest, as the Kubernetes scheduler does by default, and adds and drains nodes.

use std::{collections::BTreeSet, time::Duration};

use ipam_core::Moment;

use super::Demand;
use crate::agenda::Agenda;

/// How long a new node takes until its pods start.
const LAUNCH: Duration = Duration::from_secs(50);
/// The autoscaler looks this often.
const AUTOSCALE: Duration = Duration::from_secs(10);
/// A node that is emptier than half for so long is drained.
const IDLE_FOR: Duration = Duration::from_secs(600);

/// A pod before it has a node. One that ends before it finds room has never been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// When it begins.
    pub begin: Duration,
    /// When it ends.
    pub end: Duration,
}

/// What there is to put pods on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nodes {
    /// How many nodes there are; under an autoscaler, at most.
    pub count: usize,
    /// How many pods one takes.
    pub room: usize,
    /// Whether there is an autoscaler.
    pub scales: bool,
}

#[derive(Debug)]
enum What {
    Begin(Job),
    End(usize),
    NodeReady(usize),
    Autoscale,
}

#[derive(Debug)]
struct Node {
    ready: bool,
    /// Numbers of its pods.
    pods: BTreeSet<usize>,
    half_empty_since: Option<Duration>,
}

#[derive(Debug)]
struct Scheduler {
    shape: Nodes,
    agenda: Agenda<What>,
    /// By number; none where the node has gone.
    nodes: Vec<Option<Node>>,
    /// Each pod's node and end.
    pods: Vec<(usize, Duration)>,
    pending: Vec<Job>,
    demands: Vec<(Duration, Demand)>,
}

/// Returns what happens on nodes when these jobs run.
#[must_use]
pub fn schedule(jobs: Vec<Job>, shape: Nodes, length: Duration) -> Vec<(Duration, Demand)> {
    let mut agenda = Agenda::new();
    for job in jobs {
        agenda.put(moment(job.begin), What::Begin(job));
    }
    let (nodes, pods, pending, demands) = (vec![], vec![], vec![], vec![]);
    let mut scheduler = Scheduler { shape, agenda, nodes, pods, pending, demands };
    let first = if shape.scales { 1 } else { shape.count };
    (0..first).for_each(|_| scheduler.launch(Duration::ZERO, Duration::ZERO));
    if shape.scales {
        scheduler.agenda.put(moment(AUTOSCALE), What::Autoscale);
    }
    while let Some((at, what)) = scheduler.agenda.take() {
        let at = at.since(Moment::default());
        if at >= length {
            break;
        }
        scheduler.happen(at, what);
    }
    let mut demands = scheduler.demands;
    demands.retain(|(at, _)| *at < length);
    // A launch is written down before it happens.
    demands.sort_by_key(|(at, _)| *at);
    demands
}

fn moment(at: Duration) -> Moment {
    Moment::default().after(at)
}

impl Scheduler {
    fn happen(&mut self, at: Duration, what: What) {
        match what {
            What::Begin(job) => self.place(at, job),
            What::End(pod) => self.end(at, pod),
            What::NodeReady(node) => {
                if let Some(Some(node)) = self.nodes.get_mut(node) {
                    node.ready = true;
                }
                self.place_pending(at);
            }
            What::Autoscale => {
                self.autoscale(at);
                self.agenda.put(moment(at + AUTOSCALE), What::Autoscale);
            }
        }
    }

    fn launch(&mut self, at: Duration, takes: Duration) {
        let number = self.nodes.len();
        self.nodes.push(Some(Node { ready: false, pods: BTreeSet::new(), half_empty_since: None }));
        self.agenda.put(moment(at + takes), What::NodeReady(number));
        // Its daemon starts a little before its first pods can.
        let up = (at + takes).saturating_sub(Duration::from_secs(2)).max(at);
        self.demands.push((up, Demand::NodeUp));
    }

    fn place(&mut self, at: Duration, job: Job) {
        let room = self.shape.room;
        let nodes = self.nodes.iter_mut().enumerate().filter_map(|(number, node)| Some((number, node.as_mut()?)));
        let open = nodes.filter(|(_, node)| node.ready && node.pods.len() < room);
        let Some((number, node)) = open.min_by_key(|(number, node)| (node.pods.len(), *number)) else {
            return self.pending.push(job);
        };
        let pod = self.pods.len();
        node.pods.insert(pod);
        self.pods.push((number, job.end));
        self.demands.push((at, Demand::PodUp { node: number }));
        self.agenda.put(moment(job.end.max(at)), What::End(pod));
    }

    fn place_pending(&mut self, at: Duration) {
        for job in std::mem::take(&mut self.pending).into_iter().filter(|job| job.end > at) {
            self.place(at, job);
        }
    }

    fn end(&mut self, at: Duration, pod: usize) {
        let Some((number, _)) = self.pods.get(pod) else { return };
        if let Some(Some(node)) = self.nodes.get_mut(*number)
            && node.pods.remove(&pod)
        {
            self.demands.push((at, Demand::PodDown(pod)));
            self.place_pending(at);
        }
    }

    /// Adds nodes for the pods that found no room; drains one that has been half empty for long.
    fn autoscale(&mut self, at: Duration) {
        let up = self.nodes.iter().flatten().count();
        let coming = self.nodes.iter().flatten().filter(|node| !node.ready).count();
        let wanted = self.pending.len().div_ceil(self.shape.room.max(1)).saturating_sub(coming);
        for _ in 0..wanted.min(self.shape.count.saturating_sub(up)) {
            self.launch(at, LAUNCH);
        }
        let half = self.shape.room / 2;
        for node in self.nodes.iter_mut().flatten().filter(|node| node.ready) {
            let since = node.half_empty_since.unwrap_or(at);
            node.half_empty_since = (node.pods.len() < half).then_some(since);
        }
        let idle = |node: &Node| node.half_empty_since.is_some_and(|since| at - since >= IDLE_FOR);
        let emptiest = self.nodes.iter().enumerate().filter_map(|(number, node)| Some((number, node.as_ref()?)));
        let emptiest = emptiest.filter(|(_, node)| idle(node)).min_by_key(|(_, node)| node.pods.len());
        let fits = |drained: usize, pods: usize| {
            let others = self.nodes.iter().enumerate().filter(|(number, _)| *number != drained);
            let free = others.filter_map(|(_, node)| node.as_ref()).filter(|node| node.ready);
            free.map(|node| self.shape.room - node.pods.len()).sum::<usize>() >= pods
        };
        if let Some((number, node)) = emptiest
            && up > 1
            && fits(number, node.pods.len())
        {
            self.drain(at, number);
        }
    }

    /// Ends the node's pods, begins them anew elsewhere, and ends the node.
    fn drain(&mut self, at: Duration, number: usize) {
        let Some(node) = self.nodes.get_mut(number).and_then(Option::take) else { return };
        for pod in node.pods {
            self.demands.push((at, Demand::PodDown(pod)));
            if let Some((_, end)) = self.pods.get(pod).copied() {
                self.place(at, Job { begin: at, end });
            }
        }
        self.demands.push((at, Demand::NodeDown(number)));
    }
}
