//! What the end-to-end tests share.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{process::Command, time::Duration};

use e2e::{Binaries, Cloud, CloudKind, Cluster, ClusterPlan, Sandbox, Worker, plugin::NETWORK};
use eni_proto::wire::{self, ipam_client::IpamClient};
use lab::wait;
use tonic::transport::{Channel, Endpoint};

/// Bound of every wait: far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster on the simulator; no daemon runs yet.
pub(crate) async fn cluster(workers: usize, settings: &[(&str, &str)]) -> Cluster {
    cluster_of("m5.xlarge", workers, settings).await
}

/// The same with workers of another type.
pub(crate) async fn cluster_of(instance_type: &str, workers: usize, settings: &[(&str, &str)]) -> Cluster {
    let binaries = Binaries::from_environment().unwrap_or_else(|trouble| panic!("{}", trouble.chain()));
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let instance_type = instance_type.to_owned();
    let plan = ClusterPlan { workers, instance_type, settings, ..ClusterPlan::small(binaries) };
    Cluster::start(Cloud::start(CloudKind::Sim).await.unwrap(), &plan).await.unwrap()
}

/// A cluster whose daemons run and have at least `free` addresses each.
pub(crate) async fn ready_cluster(workers: usize, free: u32, settings: &[(&str, &str)]) -> Cluster {
    let cluster = cluster(workers, settings).await;
    for worker in &cluster.workers {
        worker.start_daemon().unwrap();
    }
    for worker in &cluster.workers {
        worker.until_ready(free, PATIENCE).await.unwrap();
    }
    cluster
}

/// A client of the worker's daemon.
pub(crate) async fn client(worker: &Worker) -> IpamClient<Channel> {
    let endpoint = Endpoint::try_from(format!("unix:{}", worker.socket().display())).unwrap();
    IpamClient::new(endpoint.connect().await.unwrap())
}

/// The key of a sandbox's lease.
pub(crate) fn key(sandbox: &Sandbox) -> wire::PodKey {
    wire::PodKey {
        network: NETWORK.to_owned(),
        container_id: sandbox.container_id.clone(),
        interface: sandbox.interface.clone(),
    }
}

/// One instance of a type of one's own whose daemon runs and has at least `free` addresses.
pub(crate) async fn ready_cluster_of(instance_type: &str, free: u32, settings: &[(&str, &str)]) -> Cluster {
    let cluster = cluster_of(instance_type, 1, settings).await;
    cluster.workers[0].start_daemon().unwrap();
    cluster.workers[0].until_ready(free, PATIENCE).await.unwrap();
    cluster
}

/// Waits until the daemon says that it waits for this.
pub(crate) async fn until_waiting_for(worker: &Worker, what: &str) {
    let waiting = || async {
        match worker.status().await {
            Ok(status) if !status.ready && status.waiting_for.contains(what) => Ok(()),
            Ok(status) => Err(format!("{status:?}")),
            Err(reason) => Err(reason),
        }
    };
    wait::until(PATIENCE, what, waiting).await.unwrap();
}

/// Runs a command of `ipamd` on the node, as a person there would; returns its exit code and what it printed.
pub(crate) fn ipamd(worker: &Worker, arguments: &[&str]) -> (Option<i32>, String) {
    ipamd_with(worker, worker.daemon_environment(), arguments)
}

/// The same with another environment.
pub(crate) fn ipamd_with(
    worker: &Worker,
    environment: Vec<(String, String)>,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut command = Command::new(&worker.binaries().ipamd);
    command.args(arguments).arg("--database").arg(worker.database()).arg("--socket").arg(worker.socket());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).envs(environment);
    let output = worker.node().namespace().output(&mut command, &[]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
