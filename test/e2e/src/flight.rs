//! The steps of a flight: pods up through the real plugin, checks, pods down, and nothing left.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use lab::wait;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{Cluster, PluginRun, Sandbox, Trouble, Verb, Worker, WorkerState, pings::Place};

/// Plugin processes at the same time, as a busy kubelet has.
pub const AT_ONCE: usize = 10;
/// How long the fabric may take to hear of the last address.
const FABRIC_PATIENCE: Duration = Duration::from_secs(10);

/// A pod with an address.
#[derive(Debug)]
pub struct Placed {
    /// Its sandbox.
    pub sandbox: Arc<Sandbox>,
    /// Where it is.
    pub place: Place,
    /// What its ADD took, from exec to result.
    pub took: Duration,
    /// When its ADD had succeeded.
    pub ready: Instant,
}

/// Makes `count` sandboxes, named `pod-NN`.
///
/// # Errors
/// When a namespace cannot be made.
pub fn sandboxes(count: usize) -> Result<Vec<Arc<Sandbox>>, Trouble> {
    (1..=count).map(|number| Ok(Arc::new(Sandbox::new(&format!("pod-{number:02}"), number)?))).collect()
}

/// Runs one plugin command for each (worker, sandbox), [`AT_ONCE`] at a time. Returns the runs in the order given.
///
/// # Errors
/// When the plugin cannot be started; what it answers is in each [`PluginRun`].
pub async fn run_all(
    verb: Verb,
    pods: impl IntoIterator<Item = (Arc<Worker>, Arc<Sandbox>)>,
    at_once: usize,
) -> Result<Vec<(PluginRun, Instant)>, Trouble> {
    let gate = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    for (index, (worker, sandbox)) in pods.into_iter().enumerate() {
        let gate = Arc::clone(&gate);
        running.spawn(async move {
            let _turn = gate.acquire_owned().await;
            let run = worker.plugin(verb, &sandbox).await?;
            Ok::<_, Trouble>((index, (run, Instant::now())))
        });
    }
    let mut runs = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        let (index, run) = ended.map_err(|failed| Trouble::Broken(format!("a plugin's task failed: {failed}")))??;
        runs.insert(index, run);
    }
    Ok(runs.into_values().collect())
}

/// Adds sandboxes to the workers in turn and checks that each has an address of its own that its node's ENI owns.
///
/// # Errors
/// [`Trouble::Broken`] names every ADD that failed and every address that is not as it should be.
pub async fn add(cluster: &Cluster, sandboxes: &[Arc<Sandbox>]) -> Result<Vec<Arc<Placed>>, Trouble> {
    let turn = |index: usize| index % cluster.workers.len();
    let pods: Vec<(Arc<Worker>, Arc<Sandbox>)> = sandboxes
        .iter()
        .enumerate()
        .filter_map(|(index, sandbox)| Some((Arc::clone(cluster.workers.get(turn(index))?), Arc::clone(sandbox))))
        .collect();
    let runs = run_all(Verb::Add, pods, AT_ONCE).await?;
    let mut failures = Vec::new();
    let mut addresses = BTreeSet::new();
    let mut added = Vec::new();
    for (index, (sandbox, (run, ready))) in sandboxes.iter().zip(runs).enumerate() {
        match run.address() {
            None => failures.push(format!("ADD of {} failed: {:?}", sandbox.name, run.result)),
            Some(address) if !addresses.insert(address) => failures.push(format!("{address} was given twice")),
            Some(address) => added.push((Arc::clone(sandbox), turn(index), address, run.took, ready)),
        }
    }
    if !failures.is_empty() {
        return Err(Trouble::Broken(failures.join("\n")));
    }
    until_owned(cluster, &added.iter().map(|pod| pod.2).collect::<Vec<_>>()).await?;
    let place = |(sandbox, worker, address, took, ready): (Arc<Sandbox>, usize, Ipv4Addr, Duration, Instant)| {
        let eni = cluster.lab.owner(address).ok_or_else(|| unowned(address))?;
        Ok(Arc::new(Placed { sandbox, place: Place { worker, eni, address }, took, ready }))
    };
    added.into_iter().map(place).collect()
}

/// Waits until the fabric knows an owner for each address.
async fn until_owned(cluster: &Cluster, addresses: &[Ipv4Addr]) -> Result<(), Trouble> {
    cluster.settle().await?;
    let missing = || async {
        let missing: Vec<String> = addresses
            .iter()
            .filter(|address| cluster.lab.owner(**address).is_none())
            .map(ToString::to_string)
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no ENI owns {}", missing.join(", "))) }
    };
    Ok(wait::until(FABRIC_PATIENCE, "an owner for each pod's address", missing).await?)
}

fn unowned(address: Ipv4Addr) -> Trouble {
    Trouble::Broken(format!("no ENI owns {address}"))
}

/// Deletes pods. Returns what each DEL took.
///
/// # Errors
/// [`Trouble::Broken`] names every DEL that failed.
pub async fn delete(cluster: &Cluster, pods: &[Arc<Placed>]) -> Result<Vec<Duration>, Trouble> {
    let on_worker = pods
        .iter()
        .filter_map(|pod| Some((Arc::clone(cluster.workers.get(pod.place.worker)?), Arc::clone(&pod.sandbox))));
    let runs = run_all(Verb::Del, on_worker, AT_ONCE).await?;
    let failures: Vec<String> = pods
        .iter()
        .zip(&runs)
        .filter_map(|(pod, (run, _))| Some(format!("DEL of {} failed: {:?}", pod.sandbox.name, run.failure()?)))
        .collect();
    if !failures.is_empty() {
        return Err(Trouble::Broken(failures.join("\n")));
    }
    Ok(runs.into_iter().map(|(run, _)| run.took).collect())
}

/// Checks that every pod given is in its node's kernel and database, and nobody else.
///
/// # Errors
/// [`Trouble::Broken`] names everything that is missing or too much.
pub async fn check_present(cluster: &Cluster, pods: &[Arc<Placed>]) -> Result<(), Trouble> {
    let mut wrong = Vec::new();
    for (index, worker) in cluster.workers.iter().enumerate() {
        let state = WorkerState::read(worker).await?;
        let wanted: BTreeMap<Ipv4Addr, &Placed> =
            pods.iter().filter(|pod| pod.place.worker == index).map(|pod| (pod.place.address, &**pod)).collect();
        let name = worker.node().name();
        for (address, pod) in &wanted {
            if state.leases.get(address) != Some(&pod.sandbox.container_id) {
                wrong.push(format!("{name}: no lease of {address} for {}", pod.sandbox.name));
            }
            if !state.routes.get(address).is_some_and(|link| state.links.contains(link)) {
                wrong.push(format!("{name}: no route of {address} to a link"));
            }
        }
        let counted = [("leases", state.leases.len()), ("routes", state.routes.len()), ("links", state.links.len())];
        for (what, count) in counted.into_iter().filter(|(_, count)| *count != wanted.len()) {
            wrong.push(format!("{name}: {count} {what} for {} pods", wanted.len()));
        }
        for address in state.elements.iter().filter(|address| !wanted.contains_key(address)) {
            wrong.push(format!("{name}: nft element {address} of nobody"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Trouble::Broken(wrong.join("\n"))) }
}

/// Checks that no pod has left anything on any node.
///
/// # Errors
/// [`Trouble::Broken`] names everything that is left.
pub async fn check_nothing_left(cluster: &Cluster) -> Result<(), Trouble> {
    let mut left = Vec::new();
    for worker in &cluster.workers {
        let state = WorkerState::read(worker).await?;
        left.extend(state.leftovers().into_iter().map(|what| format!("{}: {what}", worker.node().name())));
    }
    if left.is_empty() { Ok(()) } else { Err(Trouble::Broken(format!("left behind:\n{}", left.join("\n")))) }
}
