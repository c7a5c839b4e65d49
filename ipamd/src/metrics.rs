//! What the daemon counts. One set of figures for the process, because they are the process's; nothing is decided by them.
//!
//! Every label has few values, all of them ours: no name of a pod, and nothing that EC2 or a pod says, becomes a label.
//! Own text format instead of a crate: the names of the AWS CNI have to stay as they are, and crates for OpenMetrics add
//! `_total` to each counter.

pub(crate) mod ec2;
mod process;
mod render;
mod text;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use eni_datapath::Drift;
use ipam_aws::throttle::Use;

pub(crate) use process::age;
pub(crate) use render::{render, word};

/// The figures of this process.
pub(crate) static METRICS: Metrics = Metrics::new();

/// Upper bounds of time histograms, in seconds: from a warm ADD's half millisecond to the longest wait.
pub(crate) const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0];

/// How much of the recent past the rate of EC2 calls is taken from.
const RECENT: Duration = Duration::from_secs(60);

/// All figures that events add to. What can be looked up when somebody asks is not among them.
pub(crate) struct Metrics {
    /// ADDs that came.
    pub(crate) adds: Counter,
    /// How they ended: given, repeated, refused, unstored, abandoned.
    pub(crate) add_results: Counts,
    /// Refusals by code.
    pub(crate) refusals: Counts,
    /// Time of an ADD by phase: queue (until an address was chosen), lease (until it was stored), wiring,
    /// policy (the call to the network-policy agent) and plugin (all of it), as the plugin reports them.
    pub(crate) add_seconds: Histograms,
    /// Leases that ended, by why.
    pub(crate) ends: Counts,
    /// Time of a DEL by phase: lease (until its end was stored), wiring, policy, plugin.
    pub(crate) del_seconds: Histograms,
    /// Calls of the plugin that failed, by verb, as it reported them.
    pub(crate) plugin_failures: Counts,
    /// Calls to the network-policy agent for pods that came, by how they ended, as the plugin reported them.
    policy_adds: Counts,
    /// The same for pods that went.
    policy_dels: Counts,
    /// The same for pods that went without a DEL, as the daemon told the agent.
    policy_gcs: Counts,
    /// Calls to EC2, by action.
    pub(crate) ec2: Mutex<BTreeMap<&'static str, Calls>>,
    /// Settings files that could not be taken over while running.
    pub(crate) bad_reloads: Counter,
    /// What the limiter of EC2 calls knows.
    pub(crate) limiter: OnceLock<Source<Vec<Use>>>,
    /// What the guard of the node's network has mended.
    pub(crate) drift: OnceLock<Source<Drift>>,
    /// How long after its start the daemon could serve.
    pub(crate) served_after: OnceLock<Duration>,
}

/// Where figures are that somebody else keeps.
type Source<T> = Box<dyn Fn() -> T + Send + Sync>;

/// Calls of one EC2 action.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    /// How they ended: done, unknown, or the class of the refusal.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// What they took, waiting for the limiter included.
    pub(crate) times: Times,
    recent: VecDeque<Instant>,
}

impl Calls {
    fn count(&mut self, outcome: &'static str, took: Duration, now: Instant) {
        *self.outcomes.entry(outcome).or_default() += 1;
        self.times.add(took);
        self.recent.push_back(now);
        self.forget(now);
    }

    fn forget(&mut self, now: Instant) {
        self.recent.retain(|at| now.duration_since(*at) < RECENT);
    }

    /// How many there were in the last minute.
    pub(crate) fn in_last_minute(&self, now: Instant) -> usize {
        self.recent.iter().filter(|at| now.duration_since(**at) < RECENT).count()
    }
}

impl Metrics {
    const fn new() -> Self {
        Self {
            adds: Counter(AtomicU64::new(0)),
            add_results: Counts::new(),
            refusals: Counts::new(),
            add_seconds: Histograms::new(),
            ends: Counts::new(),
            del_seconds: Histograms::new(),
            plugin_failures: Counts::new(),
            policy_adds: Counts::new(),
            policy_dels: Counts::new(),
            policy_gcs: Counts::new(),
            ec2: Mutex::new(BTreeMap::new()),
            bad_reloads: Counter(AtomicU64::new(0)),
            limiter: OnceLock::new(),
            drift: OnceLock::new(),
            served_after: OnceLock::new(),
        }
    }
}

impl Metrics {
    /// Calls to the network-policy agent in an ADD or a DEL, or (GC) for a pod that ended without, by how they ended.
    pub(crate) fn policy_calls(&self, verb: &str) -> &Counts {
        match verb {
            "ADD" => &self.policy_adds,
            "GC" => &self.policy_gcs,
            _ => &self.policy_dels,
        }
    }
}

/// A number that only grows.
#[derive(Debug)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Numbers that only grow, by one label.
#[derive(Debug)]
pub(crate) struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// One more of this.
    pub(crate) fn add(&self, label: &'static str) {
        *open(&self.0).entry(label).or_default() += 1;
    }

    /// How many so far; those of `labels` also where there were none.
    pub(crate) fn get(&self, labels: &[&'static str]) -> BTreeMap<&'static str, u64> {
        let mut counts = open(&self.0).clone();
        for label in labels {
            counts.entry(label).or_default();
        }
        counts
    }
}

/// Times, counted by how long they were.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// How many took at most as long as each of [`SECONDS`], and longer than the one before.
    pub(crate) within: [u64; SECONDS.len()],
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Times {
    fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some((count, _)) = self.within.iter_mut().zip(SECONDS).find(|(_, bound)| seconds <= *bound) {
            *count += 1;
        }
        self.count += 1;
        self.sum += took;
    }
}

/// Times by one label.
#[derive(Debug)]
pub(crate) struct Histograms(Mutex<BTreeMap<&'static str, Times>>);

impl Histograms {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// One more.
    pub(crate) fn add(&self, label: &'static str, took: Duration) {
        open(&self.0).entry(label).or_default().add(took);
    }

    /// All so far.
    pub(crate) fn get(&self) -> BTreeMap<&'static str, Times> {
        open(&self.0).clone()
    }
}

/// Figures are right or a little behind, never half written: a panic elsewhere changes nothing in that.
pub(crate) fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
