//! Workers that run ipamd and containerd, and what has to be true of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use e2e::{
    Cluster, Worker, WorkerState,
    runtime::{Call, Containerd, PodStatus, SETTINGS, Site},
};
use lab::wait;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::stage::{PATIENCE, cluster_of};

/// A kubelet's limit for starting a sandbox is longer; nothing here needs it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// A limit for an ADD that is made to hang. Long enough for the runtime to get there on a loaded machine.
pub(crate) const SHORT_DEADLINE: Duration = Duration::from_secs(5);

/// Workers that run ipamd and containerd. Fields are dropped in this order.
pub(crate) struct Stage {
    pub(crate) containerds: Vec<Arc<Containerd>>,
    pub(crate) cluster: Cluster,
}

impl Stage {
    /// No daemon runs yet.
    pub(crate) async fn without_daemons(workers: usize, instance_type: &str) -> Self {
        Self::with_settings(workers, instance_type, &[]).await
    }

    /// As [`Self::without_daemons`], with settings of ipamd's.
    pub(crate) async fn with_settings(workers: usize, instance_type: &str, settings: &[(&str, &str)]) -> Self {
        let cluster = cluster_of(instance_type, workers, &[&SETTINGS, settings].concat()).await;
        let mut containerds = Vec::new();
        for worker in &cluster.workers {
            let site = Site::prepare(worker, &["containerd", "runc", "ctr"]).await;
            let site = Arc::new(site.unwrap_or_else(|trouble| panic!("{}", trouble.chain())));
            let containerd = Containerd::start(&site).await;
            containerds.push(Arc::new(containerd.unwrap_or_else(|trouble| panic!("{}", trouble.chain()))));
        }
        Self { containerds, cluster }
    }

    pub(crate) async fn new(workers: usize, instance_type: &str) -> Self {
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
    pub(crate) async fn one() -> Self {
        Self::new(1, "m5.xlarge").await
    }

    pub(crate) fn containerd(&self) -> &Arc<Containerd> {
        &self.containerds[0]
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.cluster.workers[0]
    }

    /// Waits until the first worker holds exactly what these pods need: in the kernel, in SQLite, and in containerd.
    pub(crate) async fn until_only(&self, pods: &[&Pod]) {
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
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let listing = self.containerd().site().run(&["ls", "/run/netns"]).unwrap();
        listing.lines().map(str::to_owned).collect()
    }

    /// Verbs of the calls for a container id, and whether each was given a network namespace.
    pub(crate) fn calls_of(&self, id: &str) -> Vec<(String, bool)> {
        let of_it = |call: &Call| call.container_id == id;
        let calls = self.containerd().site().calls();
        calls.into_iter().filter(of_it).map(|call| (call.verb, !call.netns.is_empty())).collect()
    }

    /// The container id of the last ADD: that of a sandbox which containerd never told of.
    pub(crate) fn last_added(&self) -> String {
        let calls = self.containerd().site().calls();
        calls.into_iter().rev().find(|call| call.verb == "ADD").unwrap().container_id
    }

    /// Starts a pod while the daemon stands still, and returns when its plugin waits for the daemon.
    pub(crate) async fn pod_that_waits(
        &self,
        name: &str,
        deadline: Duration,
    ) -> JoinSet<Result<String, tonic::Status>> {
        self.worker().signal_daemon(Signal::SIGSTOP).unwrap();
        let (containerd, name) = (Arc::clone(self.containerd()), name.to_owned());
        let mut starting = JoinSet::new();
        starting.spawn(async move { containerd.run_pod(&name, deadline).await });
        wait::until(PATIENCE, "the plugin to run", || async { self.waiting_plugin() }).await.unwrap();
        starting
    }

    /// Kills the daemon and starts another, again and again, until all tasks have ended. Returns what they returned.
    pub(crate) async fn joined_while_the_daemon_dies<T: 'static>(&self, mut tasks: JoinSet<T>) -> Vec<T> {
        let (mut ended, mut deaths) = (Vec::new(), 0);
        while !tasks.is_empty() {
            self.worker().kill_daemon().unwrap();
            deaths += 1;
            self.worker().start_daemon().unwrap();
            self.worker().until_ready(0, PATIENCE).await.unwrap();
            // One at least gets through between two deaths, or nobody ever would.
            ended.extend(tasks.join_next().await.map(Result::unwrap));
            while let Some(next) = tasks.try_join_next() {
                ended.push(next.unwrap());
            }
        }
        assert!(deaths > 2, "{deaths} deaths show nothing");
        ended
    }

    pub(crate) fn waiting_plugin(&self) -> Result<String, String> {
        let processes = self.containerd().site().plugin_processes().map_err(|trouble| trouble.chain())?;
        processes.first().cloned().ok_or_else(|| "no plugin runs".to_owned())
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) status: PodStatus,
}

impl Pod {
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.status.address.unwrap()
    }
}

pub(crate) async fn start(containerd: &Containerd, name: &str) -> Pod {
    let id = containerd.run_pod(name, DEADLINE).await.unwrap();
    let status = containerd.pod(&id).await.unwrap();
    assert!(status.ready && status.address.is_some(), "{status:?}");
    Pod { id, status }
}

pub(crate) async fn end(containerd: &Containerd, pod: &Pod) {
    containerd.stop_pod(&pod.id).await.unwrap();
    containerd.remove_pod(&pod.id).await.unwrap();
}

/// Pings a pod from its node, as a kubelet probes it.
pub(crate) fn assert_reachable(stage: &Stage, pod: &Pod) {
    let ping = stage.worker().node().namespace().ping(pod.address(), PATIENCE).unwrap();
    assert!(ping.answered, "{}", ping.transcript);
}

/// Pings `target` from inside a pod.
pub(crate) fn assert_reaches(containerd: &Containerd, pod: &Pod, target: Ipv4Addr) {
    let enter = format!("--net={}", pod.status.netns);
    let answer = containerd.site().run(&["nsenter", &enter, "ping", "-n", "-c", "1", "-W", "5", &target.to_string()]);
    answer.unwrap_or_else(|trouble| panic!("{} to {target}: {}", pod.address(), trouble.chain()));
}
