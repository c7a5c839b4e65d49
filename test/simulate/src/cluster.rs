//! The run of one cluster: nodes, pods, account and time.

use std::time::Duration;

use ipam_core::{Event, Limits, Moment, Policy};

use crate::{
    account::{Api, Calls},
    agenda::Agenda,
    cloud::Cloud,
    incumbent::{Incumbent, Warm},
    kubelet::{self, Pod},
    measure::{Gauge, Summary},
    ours::Ours,
    random::Random,
    trace::{Demand, Trace},
};

/// Who manages the addresses of every node.
#[derive(Debug, Clone)]
pub enum Manager {
    /// The engine, with this policy.
    Ours(Policy),
    /// The AWS CNI, with these settings.
    Incumbent(Warm),
}

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Decides all chance.
    pub seed: u64,
    /// Instance type of all nodes, as `m5.xlarge`.
    pub instance_type: String,
    /// Its limits.
    pub limits: Limits,
    /// Who manages the addresses.
    pub manager: Manager,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The next line of the trace.
    Demand(Demand),
    /// A kubelet asks for a pod's address.
    Ask(usize),
    /// An engine is due to look at the time.
    Tick(usize),
    /// An engine hears of something.
    Tell(usize, Box<Event>),
    /// The AWS CNI's next step on a node.
    Step(usize, crate::incumbent::Step),
}

/// All but the nodes.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) agenda: Agenda<Happening>,
    pub(crate) cloud: Cloud,
    pub(crate) random: Random,
    pods: Vec<Pod>,
    /// Pods that have an address.
    used: Gauge,
    waiting: usize,
    refusals: u64,
    last_granted: Moment,
}

impl Outside {
    pub(crate) fn granted(&mut self, pod: usize, now: Moment) {
        let Some(pod) = self.pods.get_mut(pod) else { return };
        if pod.granted.is_none() && pod.gone.is_none() {
            pod.granted = Some(now);
            self.waiting -= 1;
            self.used.add(now, 1);
            self.last_granted = now;
        }
    }

    pub(crate) fn refused(&mut self, pod: usize, now: Moment) {
        if self.pods.get(pod).is_some_and(|pod| pod.gone.is_none() && pod.granted.is_none()) {
            self.refusals += 1;
            let at = kubelet::again(now, &mut self.random);
            self.agenda.put(at, Happening::Ask(pod));
        }
    }

    pub(crate) fn kernel_delay(&mut self) -> Duration {
        self.cloud.delays.kernel.draw(&mut self.random)
    }
}

#[derive(Debug)]
enum Agent {
    Ours(Box<Ours>),
    Incumbent(Incumbent),
}

/// A cluster under simulation.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    /// By node; none where the node has gone.
    nodes: Vec<Option<Agent>>,
    outside: Outside,
    now: Moment,
    begin: Moment,
    curve: Curve,
}

/// How the cluster stood at even steps of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// Time between two points.
    pub step: Duration,
    /// From the beginning on.
    pub points: Vec<Point>,
}

/// How the cluster stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Addresses held for pods.
    pub held: i64,
    /// Pods with an address.
    pub used: i64,
    /// Pods without one.
    pub waiting: usize,
}

impl Cluster {
    /// A cluster before its first node is up; `trace` says what will be asked of it.
    #[must_use]
    pub fn new(setup: Setup, trace: &Trace, curve_step: Duration) -> Self {
        // A full hour, as cron jobs see it; not zero, so that "never" can be told from "at the beginning".
        let begin = Moment::from_millis(3_600_000);
        let mut agenda = Agenda::new();
        for (at, demand) in &trace.demands {
            agenda.put(begin.after(*at), Happening::Demand(*demand));
        }
        let cloud = Cloud::new(setup.seed, setup.limits, begin);
        let outside = Outside {
            agenda,
            cloud,
            random: Random::new(setup.seed ^ 0x5eed),
            pods: Vec::new(),
            used: Gauge::new(begin),
            waiting: 0,
            refusals: 0,
            last_granted: begin,
        };
        let curve = Curve { step: curve_step.max(Duration::from_millis(1)), points: Vec::new() };
        Self { setup, nodes: Vec::new(), outside, now: begin, begin, curve }
    }

    /// Runs until every one of `pods` pods has asked and has its address, or until `latest` after the beginning.
    pub fn run_until_served(&mut self, pods: usize, latest: Duration) {
        self.run(latest, |outside| outside.pods.len() == pods && outside.waiting == 0);
    }

    /// Runs until `end` after the beginning.
    pub fn run_until(&mut self, end: Duration) {
        self.run(end, |_| false);
        self.now = self.now.max(self.begin.after(end));
    }

    fn run(&mut self, latest: Duration, enough: impl Fn(&Outside) -> bool) {
        let latest = self.begin.after(latest);
        while let Some((at, what)) = self.outside.agenda.take() {
            if at > latest {
                self.outside.agenda.put(at, what);
                break;
            }
            self.draw_until(at);
            self.now = at;
            self.happen(what);
            if enough(&self.outside) {
                break;
            }
        }
    }

    fn draw_until(&mut self, at: Moment) {
        let taken = u32::try_from(self.curve.points.len()).unwrap_or(u32::MAX);
        let mut due = self.begin.after(self.curve.step.saturating_mul(taken));
        while due <= at {
            let Outside { cloud, used, waiting, .. } = &self.outside;
            self.curve.points.push(Point { held: cloud.held.value(), used: used.value(), waiting: *waiting });
            due = due.after(self.curve.step);
        }
    }

    fn happen(&mut self, what: Happening) {
        let (now, outside) = (self.now, &mut self.outside);
        match what {
            Happening::Demand(demand) => self.demand(demand),
            Happening::Ask(pod) => self.ask(pod),
            Happening::Tick(node) => {
                if let Some(Some(Agent::Ours(ours))) = self.nodes.get_mut(node) {
                    ours.tick(now, outside);
                }
            }
            Happening::Tell(node, event) => {
                if let Some(Some(Agent::Ours(ours))) = self.nodes.get_mut(node) {
                    ours.tell(*event, now, outside);
                }
            }
            Happening::Step(node, step) => {
                if let Some(Some(Agent::Incumbent(incumbent))) = self.nodes.get_mut(node) {
                    incumbent.step(step, now, outside);
                }
            }
        }
    }

    fn demand(&mut self, demand: Demand) {
        match demand {
            Demand::NodeUp => self.node_up(),
            Demand::NodeDown(node) => {
                if let Some(agent) = self.nodes.get_mut(node) {
                    *agent = None;
                }
                self.outside.cloud.terminate(node, self.now);
            }
            Demand::PodUp { node } => {
                let pod = Pod { node, asked: self.now, granted: None, gone: None, attempts: 0 };
                self.outside.pods.push(pod);
                self.outside.waiting += 1;
                self.ask(self.outside.pods.len() - 1);
            }
            Demand::PodDown(pod) => self.pod_down(pod),
        }
    }

    fn node_up(&mut self) {
        let (node, identity) = self.outside.cloud.launch(&self.setup.instance_type);
        let limits = self.setup.limits;
        let agent = match &self.setup.manager {
            Manager::Ours(policy) => {
                let mut ours = Ours::new(node, identity, policy.clone(), limits, self.now);
                ours.tick(self.now, &mut self.outside);
                Agent::Ours(Box::new(ours))
            }
            Manager::Incumbent(warm) => {
                let incumbent = Incumbent::new(node, identity.primary_eni, *warm, limits, self.now);
                self.outside.agenda.put(self.now, Happening::Step(node, crate::incumbent::Step::Next));
                Agent::Incumbent(incumbent)
            }
        };
        self.nodes.push(Some(agent));
    }

    fn ask(&mut self, number: usize) {
        let Some(pod) = self.outside.pods.get_mut(number).filter(|pod| pod.gone.is_none() && pod.granted.is_none())
        else {
            return;
        };
        pod.attempts = pod.attempts.saturating_add(1);
        let Pod { node, attempts, .. } = *pod;
        match self.nodes.get_mut(node) {
            Some(Some(Agent::Ours(ours))) => ours.add(number, attempts, self.now, &mut self.outside),
            Some(Some(Agent::Incumbent(incumbent))) => incumbent.add(number, self.now, &mut self.outside),
            Some(None) | None => {}
        }
    }

    fn pod_down(&mut self, number: usize) {
        let Some(pod) = self.outside.pods.get_mut(number).filter(|pod| pod.gone.is_none()) else { return };
        pod.gone = Some(self.now);
        let Pod { node, attempts, granted, .. } = *pod;
        if granted.is_some() {
            self.outside.used.add(self.now, -1);
        } else {
            self.outside.waiting -= 1;
        }
        match self.nodes.get_mut(node) {
            Some(Some(Agent::Ours(ours))) => ours.del(number, attempts, self.now, &mut self.outside),
            Some(Some(Agent::Incumbent(incumbent))) => incumbent.del(number, self.now),
            Some(None) | None => {}
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let waits = |pod: &Pod| pod.granted.or(pod.gone).unwrap_or(self.now).since(pod.asked);
        let mut nodes = vec![Duration::ZERO; self.nodes.len()];
        for pod in &self.outside.pods {
            if let Some(node) = nodes.get_mut(pod.node) {
                *node = (*node).max(waits(pod));
            }
        }
        Outcome {
            lasted: self.now.since(self.begin),
            all_running: self.outside.last_granted.since(self.begin),
            pods: Summary::of(self.outside.pods.iter().map(waits).collect()),
            nodes: Summary::of(nodes),
            unserved: self.outside.waiting,
            refusals: self.outside.refusals,
            calls: Api::ALL.map(|api| (api, self.outside.cloud.account.calls(api))).to_vec(),
            held_area: self.outside.cloud.held.area_until(self.now),
            used_area: self.outside.used.area_until(self.now),
            curve: self.curve.clone(),
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Virtual time that passed.
    pub lasted: Duration,
    /// From the beginning until the last address was given.
    pub all_running: Duration,
    /// How long pods waited for their addresses; one that still waits counts as it stands.
    pub pods: Summary,
    /// The same for each node's last pod.
    pub nodes: Summary,
    /// Pods that still wait.
    pub unserved: usize,
    /// Failed sandboxes.
    pub refusals: u64,
    /// Calls by action.
    pub calls: Vec<(Api, Calls)>,
    /// Addresses held, times milliseconds.
    pub held_area: i128,
    /// Addresses used, times milliseconds.
    pub used_area: i128,
    /// How it went.
    pub curve: Curve,
}

impl Outcome {
    /// Calls of all actions.
    #[must_use]
    pub fn all_calls(&self) -> Calls {
        self.calls.iter().fold(Calls::default(), |sum, (_, calls)| Calls {
            passed: sum.passed + calls.passed,
            throttled: sum.throttled + calls.throttled,
        })
    }

    /// Part of the held addresses that no pod used, averaged over time, in thousandths.
    #[must_use]
    pub fn idle_per_mille(&self) -> i64 {
        let idle = (self.held_area - self.used_area).max(0) * 1000;
        i64::try_from(idle / self.held_area.max(1)).unwrap_or(1000)
    }
}
