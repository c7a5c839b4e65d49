//! Runs managers on a demand and puts them beside each other.

use std::{panic::resume_unwind, time::Duration};

use ipam_core::{Limits, ports::PREFIX_SIZE};

use crate::{
    bound::{Bounds, bounds},
    cluster::{Cluster, Outcome, Setup},
    managers,
    report::{Comparison, Run},
    trace::Trace,
};

/// What all runs of a comparison have in common.
#[derive(Debug, Clone)]
pub struct Common {
    /// Decides all chance.
    pub seed: u64,
    /// Instance type of all nodes.
    pub instance_type: String,
    /// Its limits.
    pub limits: Limits,
    /// The kubelets' max pods.
    pub max_pods: u16,
}

impl Common {
    /// Returns nothing when the instance type is not known.
    #[must_use]
    pub fn new(seed: u64, instance_type: &str) -> Option<Self> {
        let limits = Limits::of(instance_type)?;
        // The AWS CNI's formula, but no more than EKS recommends for up to 30 vCPUs.
        let most = usize::from(limits.max_enis) * limits.capacity() + 2;
        let max_pods = u16::try_from(most).unwrap_or(u16::MAX).min(110);
        Some(Self { seed, instance_type: instance_type.to_owned(), limits, max_pods })
    }

    /// How many pods the scheduler puts on a node: a few less than it has addresses for, and no more than max pods.
    #[must_use]
    pub fn room(&self) -> usize {
        let carries = self.limits.capacity() * usize::from(self.limits.max_enis);
        carries.saturating_sub(6).min(self.max_pods.into())
    }

    fn cluster(&self, manager: &str, trace: &Trace, step: Duration) -> Option<Cluster> {
        let setup = Setup {
            seed: self.seed,
            instance_type: self.instance_type.clone(),
            limits: self.limits,
            manager: managers::manager(manager, self.max_pods)?,
        };
        Some(Cluster::new(setup, trace, step))
    }

    /// All nodes start at once, each with `pods` pods; runs until all of them have their addresses, at most 6 h. An
    /// unknown manager comes to nothing.
    #[must_use]
    pub fn start(&self, manager: &str, nodes: usize, pods: usize) -> Option<Outcome> {
        let mut cluster = self.cluster(manager, &Trace::start(nodes, pods), Duration::from_secs(1))?;
        cluster.run_until_served(nodes * pods, Duration::from_secs(6 * 3600));
        Some(cluster.outcome())
    }

    /// Runs a trace to its end.
    #[must_use]
    pub fn trace(&self, manager: &str, trace: &Trace) -> Option<Outcome> {
        let mut cluster = self.cluster(manager, trace, Duration::from_secs(10))?;
        cluster.run_until(trace.length);
        Some(cluster.outcome())
    }

    /// The bounds of such a start, in the manager's units of addresses.
    #[must_use]
    pub fn bounds(&self, manager: &str, nodes: usize, pods: usize) -> Bounds {
        let unit = if manager.ends_with("prefix") { PREFIX_SIZE } else { 1 };
        let enis = pods.div_ceil(self.limits.capacity().max(1) * unit).max(1);
        bounds(nodes as u64, enis as u64)
    }

    /// Starts with several managers.
    pub fn compare_starts(&self, names: &[String], nodes: usize, pods: usize) -> Comparison {
        let run = |name: &String| {
            let (outcome, bounds) = (self.start(name, nodes, pods)?, Some(self.bounds(name, nodes, pods)));
            Some(Run { manager: name.clone(), bounds, outcome })
        };
        Comparison {
            title: format!(
                "{nodes} nodes ({}) start at once, {pods} pods on each; seed {}",
                self.instance_type, self.seed
            ),
            runs: beside_each_other(names, run),
        }
    }

    /// A trace with several managers.
    pub fn compare_on(&self, names: &[String], trace: &Trace) -> Comparison {
        let run = |name: &String| Some(Run { manager: name.clone(), bounds: None, outcome: self.trace(name, trace)? });
        let title = format!("{} ({}); seed {}", trace.name, self.instance_type, self.seed);
        Comparison { title, runs: beside_each_other(names, run) }
    }
}

/// Runs each manager in a thread of its own; the runs do not depend on each other, so their order does not matter.
fn beside_each_other(names: &[String], run: impl Fn(&String) -> Option<Run> + Sync) -> Vec<Run> {
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = names.iter().map(|name| scope.spawn(move || run(name))).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}
