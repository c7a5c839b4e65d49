//! containerd as the plugin's client: pods come and go as a kubelet asks, whatever fails, and nothing stays.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use e2e::{
    Cluster, Worker, WorkerState, observe,
    runtime::{Call, Containerd, PodStatus, SETTINGS, Site},
};
use lab::wait;
use nix::sys::signal::Signal;
use tokio::{sync::Semaphore, task::JoinSet};

mod stage;

use stage::{PATIENCE, cluster_of};

/// A kubelet's limit for starting a sandbox is longer; nothing here needs it.
const DEADLINE: Duration = Duration::from_secs(60);
/// A limit for an ADD that is made to hang. Long enough for the runtime to get there on a loaded machine.
const SHORT_DEADLINE: Duration = Duration::from_secs(5);

/// Workers that run ipamd and containerd. Fields are dropped in this order.
struct Stage {
    containerds: Vec<Arc<Containerd>>,
    cluster: Cluster,
}

impl Stage {
    /// No daemon runs yet.
    async fn without_daemons(workers: usize, instance_type: &str) -> Self {
        let cluster = cluster_of(instance_type, workers, &SETTINGS).await;
        let mut containerds = Vec::new();
        for worker in &cluster.workers {
            let site = Site::prepare(worker, &["containerd", "runc", "ctr"]).await;
            let site = Arc::new(site.unwrap_or_else(|trouble| panic!("{}", trouble.chain())));
            let containerd = Containerd::start(&site).await;
            containerds.push(Arc::new(containerd.unwrap_or_else(|trouble| panic!("{}", trouble.chain()))));
        }
        Self { containerds, cluster }
    }

    async fn new(workers: usize, instance_type: &str) -> Self {
        let stage = Self::without_daemons(workers, instance_type).await;
        for worker in &stage.cluster.workers {
            worker.start_daemon().unwrap();
        }
        for containerd in &stage.containerds {
            containerd.until_network_ready(PATIENCE).await.unwrap();
        }
        stage
    }

    /// One worker with room for 42 pods.
    async fn one() -> Self {
        Self::new(1, "m5.xlarge").await
    }

    fn containerd(&self) -> &Arc<Containerd> {
        &self.containerds[0]
    }

    fn worker(&self) -> &Arc<Worker> {
        &self.cluster.workers[0]
    }

    /// Waits until the first worker holds exactly what these pods need: in the kernel, in SQLite, and in containerd.
    async fn until_only(&self, pods: &[&Pod]) {
        let wanted: BTreeMap<Ipv4Addr, String> = pods.iter().map(|pod| (pod.address(), pod.id.clone())).collect();
        let ids: BTreeSet<&str> = pods.iter().map(|pod| pod.id.as_str()).collect();
        let only = || async {
            let state = WorkerState::read(self.worker()).await.map_err(|trouble| trouble.chain())?;
            let known = self.containerd().pods().await.map_err(|status| status.to_string())?;
            let routes: BTreeSet<_> = state.routes.keys().collect();
            let right = state.leases == wanted
                && routes == wanted.keys().collect()
                && state.links == state.routes.values().cloned().collect()
                && state.elements.iter().all(|address| wanted.contains_key(address))
                && known.iter().map(|(id, _)| id.as_str()).collect::<BTreeSet<_>>() == ids;
            if right { Ok(()) } else { Err(format!("wanted {wanted:?}; containerd knows {known:?}; {state:#?}")) }
        };
        wait::until(PATIENCE, "exactly these pods", only).await.unwrap();
        if pods.is_empty() {
            assert_eq!(WorkerState::read(self.worker()).await.unwrap().leftovers(), [""; 0]);
            assert_eq!(self.namespaces(), [""; 0]);
        }
    }

    /// Names of the sandboxes' network namespaces that are left on the first worker.
    fn namespaces(&self) -> Vec<String> {
        let listing = self.containerd().site().run(&["ls", "/run/netns"]).unwrap();
        listing.lines().map(str::to_owned).collect()
    }

    /// Verbs of the calls for a container id, and whether each was given a network namespace.
    fn calls_of(&self, id: &str) -> Vec<(String, bool)> {
        let of_it = |call: &Call| call.container_id == id;
        let calls = self.containerd().site().calls();
        calls.into_iter().filter(of_it).map(|call| (call.verb, !call.netns.is_empty())).collect()
    }

    /// The container id of the last ADD: that of a sandbox which containerd never told of.
    fn last_added(&self) -> String {
        let calls = self.containerd().site().calls();
        calls.into_iter().rev().find(|call| call.verb == "ADD").unwrap().container_id
    }

    /// Starts a pod while the daemon stands still, and returns when its plugin waits for the daemon.
    async fn pod_that_waits(&self, name: &str, deadline: Duration) -> JoinSet<Result<String, tonic::Status>> {
        self.worker().signal_daemon(Signal::SIGSTOP).unwrap();
        let (containerd, name) = (Arc::clone(self.containerd()), name.to_owned());
        let mut starting = JoinSet::new();
        starting.spawn(async move { containerd.run_pod(&name, deadline).await });
        wait::until(PATIENCE, "the plugin to run", || async { self.waiting_plugin() }).await.unwrap();
        starting
    }

    fn waiting_plugin(&self) -> Result<String, String> {
        let processes = self.containerd().site().plugin_processes().map_err(|trouble| trouble.chain())?;
        processes.first().cloned().ok_or_else(|| "no plugin runs".to_owned())
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
struct Pod {
    id: String,
    status: PodStatus,
}

impl Pod {
    fn address(&self) -> Ipv4Addr {
        self.status.address.unwrap()
    }
}

async fn start(containerd: &Containerd, name: &str) -> Pod {
    let id = containerd.run_pod(name, DEADLINE).await.unwrap();
    let status = containerd.pod(&id).await.unwrap();
    assert!(status.ready && status.address.is_some(), "{status:?}");
    Pod { id, status }
}

async fn end(containerd: &Containerd, pod: &Pod) {
    containerd.stop_pod(&pod.id).await.unwrap();
    containerd.remove_pod(&pod.id).await.unwrap();
}

/// Pings a pod from its node, as a kubelet probes it.
fn assert_reachable(stage: &Stage, pod: &Pod) {
    let ping = stage.worker().node().namespace().ping(pod.address(), PATIENCE).unwrap();
    assert!(ping.answered, "{}", ping.transcript);
}

/// Pings `target` from inside a pod.
fn assert_reaches(containerd: &Containerd, pod: &Pod, target: Ipv4Addr) {
    let enter = format!("--net={}", pod.status.netns);
    let answer = containerd.site().run(&["nsenter", &enter, "ping", "-n", "-c", "1", "-W", "5", &target.to_string()]);
    answer.unwrap_or_else(|trouble| panic!("{} to {target}: {}", pod.address(), trouble.chain()));
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_pods_ten_at_a_time_come_talk_and_go_without_a_trace() {
    let stage = Stage::new(2, "m5.xlarge").await;
    let gate = Arc::new(Semaphore::new(10));
    let mut starting = JoinSet::new();
    for number in 0..30 {
        let (containerd, gate) = (Arc::clone(&stage.containerds[number % 2]), Arc::clone(&gate));
        starting.spawn(async move {
            let _turn = gate.acquire_owned().await;
            (number % 2, start(&containerd, &format!("pod-{number}")).await)
        });
    }
    let pods = starting.join_all().await;
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|(_, pod)| pod.address()).collect();
    assert_eq!(addresses.len(), 30, "an address was given twice: {pods:#?}");

    stage.cluster.settle().await.unwrap();
    for (index, (node, pod)) in pods.iter().enumerate() {
        let containerd = &stage.containerds[*node];
        let ping = stage.cluster.workers[*node].node().namespace().ping(pod.address(), PATIENCE).unwrap();
        assert!(ping.answered, "{}", ping.transcript);
        let (_, on_other_node) = pods.iter().cycle().skip(index).find(|(other, _)| other != node).unwrap();
        assert_reaches(containerd, pod, on_other_node.address());
    }
    assert_eq!(stage.cluster.lab.drops().unwrap().to_string(), "none");

    let mut ending = JoinSet::new();
    for (node, pod) in pods {
        let (containerd, gate) = (Arc::clone(&stage.containerds[node]), Arc::clone(&gate));
        ending.spawn(async move {
            let _turn = gate.acquire_owned().await;
            end(&containerd, &pod).await;
        });
    }
    ending.join_all().await;
    stage.until_only(&[]).await;
    for worker in &stage.cluster.workers {
        assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
        let status = worker.status().await.unwrap();
        assert_eq!((status.leased, status.cooling), (0, 15), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_calls_the_node_ready_when_the_daemon_can_serve() {
    let stage = Stage::without_daemons(1, "m5.xlarge").await;
    let not_ready = stage.containerd().network_ready().await.unwrap();
    assert!(not_ready.as_ref().is_err_and(|reason| reason.contains("cni plugin not initialized")), "{not_ready:?}");

    stage.worker().start_daemon().unwrap();
    stage.containerd().until_network_ready(PATIENCE).await.unwrap();
    let pod = start(stage.containerd(), "first").await;
    stage.until_only(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_tells_the_pod_why_and_what_to_do() {
    let stage = Stage::new(1, "t3.nano").await;
    let containerd = stage.containerd();
    let pods = [start(containerd, "pod-1").await, start(containerd, "pod-2").await];

    let refusal = containerd.run_pod("pod-3", DEADLINE).await.unwrap_err();
    for expected in ["eni-cni", "IPAM-201", "t3.nano", "use a larger instance type"] {
        assert!(refusal.message().contains(expected), "{expected} is not in: {refusal}");
    }
    let calls = stage.calls_of(&stage.last_added());
    assert_eq!(calls, [("ADD".to_owned(), true), ("DEL".to_owned(), true)]);
    stage.until_only(&[&pods[0], &pods[1]]).await;
    for pod in &pods {
        end(containerd, pod).await;
    }
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_hangs_ends_at_the_runtimes_deadline_and_leaves_nothing() {
    let stage = Stage::one().await;
    let before = start(stage.containerd(), "before").await;

    let mut hanging = stage.pod_that_waits("hangs", SHORT_DEADLINE).await;
    hanging.join_next().await.unwrap().unwrap().unwrap_err();
    // The runtime goes on after its answer: it kills the plugin and calls DEL.
    let deleted = || async {
        let calls = stage.calls_of(&stage.last_added());
        let running = stage.containerd().site().plugin_processes().map_err(|trouble| trouble.chain())?;
        if calls.len() == 2 && running.is_empty() { Ok(()) } else { Err(format!("{calls:?}, {running:?}")) }
    };
    wait::until(PATIENCE, "the DEL to end", deleted).await.unwrap();
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    stage.until_only(&[&before]).await;

    let after = start(stage.containerd(), "after").await;
    stage.until_only(&[&before, &after]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_killed_during_add_leaves_nothing() {
    let stage = Stage::one().await;

    let mut starting = stage.pod_that_waits("killed", DEADLINE).await;
    let plugin = stage.waiting_plugin().unwrap();
    stage.containerd().site().run(&["kill", "-KILL", &plugin]).unwrap();
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    let failure = starting.join_next().await.unwrap().unwrap().unwrap_err();

    assert!(failure.message().contains("killed"), "{failure}");
    stage.until_only(&[]).await;
    let pod = start(stage.containerd(), "killed").await;
    stage.until_only(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_namespace_is_gone_loses_its_address_and_can_be_removed() {
    let stage = Stage::one().await;
    let (lost, other) = (start(stage.containerd(), "lost").await, start(stage.containerd(), "other").await);
    let name = lost.status.netns.rsplit('/').next().unwrap();
    let site = stage.containerd().site();
    site.run(&["kill", "-KILL", &lost.status.pid.to_string()]).unwrap();
    site.run(&["ip", "netns", "del", name]).unwrap();
    // The daemon finds out by itself.
    let freed = || async {
        let leases = observe::leases(stage.worker()).await.map_err(|trouble| trouble.chain())?;
        if leases.contains_key(&lost.address()) { Err(format!("{leases:?}")) } else { Ok(()) }
    };
    wait::until(PATIENCE, "the lost pod's lease to end", freed).await.unwrap();

    end(stage.containerd(), &lost).await;
    let calls = stage.calls_of(&lost.id);
    assert_eq!(calls[..2], [("ADD".to_owned(), true), ("DEL".to_owned(), false)]);
    stage.until_only(&[&other]).await;
    assert_reaches(stage.containerd(), &other, "169.254.169.254".parse().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_killed_during_add_finds_the_pod_and_removes_it() {
    let stage = Stage::one().await;
    let before = start(stage.containerd(), "before").await;

    let mut starting = stage.pod_that_waits("orphan", DEADLINE).await;
    stage.containerd().kill();
    starting.join_next().await.unwrap().unwrap().unwrap_err();
    // Nobody has told the plugin: it gets its address and wires the pod.
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    let ended = || async { stage.waiting_plugin().map_or(Ok(()), Err) };
    wait::until(PATIENCE, "the plugin to end", ended).await.unwrap();

    stage.containerd().restart().await.unwrap();
    let orphan = stage.last_added();
    let known = stage.containerd().pods().await.unwrap();
    assert!(known.contains(&(orphan.clone(), false)) && known.contains(&(before.id.clone(), true)), "{known:?}");
    stage.containerd().stop_pod(&orphan).await.unwrap();
    stage.containerd().remove_pod(&orphan).await.unwrap();
    stage.until_only(&[&before]).await;
    end(stage.containerd(), &before).await;
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_the_daemon_is_away_is_heard_of_later() {
    let stage = Stage::one().await;
    let pods = [start(stage.containerd(), "pod-1").await, start(stage.containerd(), "pod-2").await];
    stage.worker().kill_daemon().unwrap();

    end(stage.containerd(), &pods[0]).await;
    let state = WorkerState::read(stage.worker()).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.leases.len()), (1, 1, 2), "{state:#?}");

    stage.worker().start_daemon().unwrap();
    stage.until_only(&[&pods[1]]).await;
    end(stage.containerd(), &pods[1]).await;
    stage.until_only(&[]).await;
}

/// A daemon that hangs is worse than none: it takes the call and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_the_daemon_hangs_is_heard_of_later() {
    let stage = Stage::one().await;
    let pod = start(stage.containerd(), "pod").await;
    stage.worker().signal_daemon(Signal::SIGSTOP).unwrap();

    end(stage.containerd(), &pod).await;
    let state = WorkerState::read(stage.worker()).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len()), (0, 0), "{state:#?}");
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    stage.until_only(&[]).await;
}

/// As a StatefulSet makes one when its pod was deleted by force: the old sandbox goes in its own time. Both have the same host
/// interface, whose name policy engines compute from the pod's, so the newer one gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_pod_takes_the_place_of_the_old_one_and_outlives_it() {
    let stage = Stage::one().await;
    let old = start(stage.containerd(), "web-0").await;
    let new = start(stage.containerd(), "web-0").await;
    assert_ne!(old.address(), new.address());
    assert_reachable(&stage, &new);

    end(stage.containerd(), &old).await;
    stage.until_only(&[&new]).await;
    assert_reachable(&stage, &new);
    end(stage.containerd(), &new).await;
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_can_be_stopped_and_removed_again_and_again() {
    let stage = Stage::one().await;
    let (pod, other) = (start(stage.containerd(), "pod").await, start(stage.containerd(), "other").await);

    for _ in 0..3 {
        stage.containerd().stop_pod(&pod.id).await.unwrap();
    }
    for _ in 0..2 {
        stage.containerd().remove_pod(&pod.id).await.unwrap();
    }
    let calls = stage.calls_of(&pod.id);
    assert_eq!(calls[..2], [("ADD".to_owned(), true), ("DEL".to_owned(), true)]);
    assert!(calls[2..].iter().all(|call| *call == ("DEL".to_owned(), false)), "{calls:?}");
    let calls = stage.containerd().site().calls().into_iter().filter(|call| call.container_id == pod.id);
    let with_result: Vec<bool> = calls.map(|call| call.with_result).collect();
    assert!(with_result[1] && !with_result[2..].contains(&true), "only the first DEL has what ADD answered");
    stage.until_only(&[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_both_the_runtime_and_the_daemon() {
    let stage = Stage::one().await;
    let pods = [start(stage.containerd(), "pod-1").await, start(stage.containerd(), "pod-2").await];
    stage.containerd().restart().await.unwrap();
    stage.worker().kill_daemon().unwrap();
    assert_reaches(stage.containerd(), &pods[0], pods[1].address());
    stage.worker().start_daemon().unwrap();
    stage.worker().until_ready(1, PATIENCE).await.unwrap();

    stage.until_only(&[&pods[0], &pods[1]]).await;
    assert_reaches(stage.containerd(), &pods[0], pods[1].address());
    for pod in &pods {
        end(stage.containerd(), pod).await;
    }
    stage.until_only(&[]).await;
}
