//! containerd on a worker, driven through the CRI as a kubelet drives it.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use eni_proto::cri::{self, runtime_service_client::RuntimeServiceClient};
use lab::{Daemon, wait};
use serde_json::Value;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

use super::{
    Site, busybox,
    site::{NETWORKS, PLUGINS},
};
use crate::Trouble;

/// How long containerd may take to answer after its start. It takes a fifth of a second on an idle machine.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A kubelet's limit for a call.
const CALL_PATIENCE: Duration = Duration::from_secs(120);

/// containerd on a worker. Dropping it kills it; its pods end with the worker.
#[derive(Debug)]
pub struct Containerd {
    daemon: Mutex<Option<Daemon>>,
    client: RuntimeServiceClient<Channel>,
    site: Arc<Site>,
}

/// How a pod's sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodStatus {
    /// Whether it runs and has a network.
    pub ready: bool,
    /// Its address. Absent: it has none, or none any more.
    pub address: Option<Ipv4Addr>,
    /// Path of its network namespace, where the runtime runs.
    pub netns: String,
    /// Its first process, in the worker's process table.
    pub pid: u64,
}

impl Containerd {
    /// Starts containerd with the site's plugins, networks and image. Returns when it answers.
    ///
    /// # Errors
    /// [`Trouble::Broken`] with the end of its log.
    pub async fn start(site: &Arc<Site>) -> Result<Self, Trouble> {
        let config = site.file("containerd.toml");
        fs::write(&config, configuration(site)).map_err(Trouble::os(format!("write {}", config.display())))?;
        let socket = format!("unix:{}", socket(site).display());
        let endpoint = Endpoint::try_from(socket).map_err(|error| Trouble::Broken(error.to_string()))?;
        let client = RuntimeServiceClient::new(endpoint.connect_lazy());
        let containerd = Self { daemon: Mutex::new(None), client, site: Arc::clone(site) };
        containerd.restart().await?;
        containerd.import(&site.image())?;
        Ok(containerd)
    }

    /// Takes an image from an archive.
    ///
    /// # Errors
    /// [`Trouble::Lab`] with what `ctr` wrote.
    pub fn import(&self, archive: &Path) -> Result<(), Trouble> {
        self.ctr(&["images", "import", &archive.display().to_string()]).map(drop)
    }

    /// Runs containerd's own command line tool in the kubelet's namespace and returns what it printed.
    ///
    /// # Errors
    /// [`Trouble::Lab`] with what it wrote to standard error.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let socket = socket(&self.site).display().to_string();
        self.site.run(&[&["ctr", "-a", &socket, "-n", "k8s.io"], arguments].concat())
    }

    /// Starts containerd again, after killing the one that runs, if any. Returns when it answers.
    ///
    /// # Errors
    /// [`Trouble::Broken`] with the end of its log.
    pub async fn restart(&self) -> Result<(), Trouble> {
        self.kill();
        let config = self.site.file("containerd.toml").display().to_string();
        let line = ["containerd", "--config", &config].map(str::to_owned);
        let daemon = self.site.worker().node().daemon("containerd", &line, &[])?;
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = Some(daemon);
        let answers = || async { self.network_ready().await.map(drop) };
        wait::until(START_PATIENCE, "containerd to answer", answers).await.map_err(|mut late| {
            late.last = format!("{}\n{}", late.last, self.end_of_log());
            late.into()
        })
    }

    /// Whether the runtime says that pods can be started: what makes a kubelet call the node ready. The second is why not.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn network_ready(&self) -> Result<Result<(), String>, Status> {
        let reply = self.client.clone().status(within(CALL_PATIENCE, cri::StatusRequest {})).await?;
        let conditions = reply.into_inner().status.unwrap_or_default().conditions;
        Ok(match conditions.iter().find(|condition| !condition.status) {
            None => Ok(()),
            Some(condition) => Err(format!("{} {} {}", condition.r#type, condition.reason, condition.message)),
        })
    }

    /// Waits until pods can be started.
    ///
    /// # Errors
    /// [`Trouble::TimedOut`] with the reason that the runtime gives.
    pub async fn until_network_ready(&self, deadline: Duration) -> Result<(), Trouble> {
        let ready = || async { self.network_ready().await.map_err(|status| status.to_string())? };
        Ok(wait::until(deadline, "containerd's network to be ready", ready).await?)
    }

    /// Kills containerd as `kill -9` does, if it runs; its pods live on.
    pub fn kill(&self) {
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where it runs.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Starts a pod's sandbox in the Kubernetes namespace `demo` and returns its id. The runtime is given `deadline`.
    ///
    /// Each call makes another pod, even one of the same name.
    ///
    /// # Errors
    /// What `kubectl describe pod` would show.
    pub async fn run_pod(&self, name: &str, deadline: Duration) -> Result<String, Status> {
        static PODS: AtomicU32 = AtomicU32::new(0);
        let machine = self.site.machine().map_err(|trouble| Status::internal(trouble.chain()))?;
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{}", PODS.fetch_add(1, Ordering::Relaxed)),
                namespace: "demo".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: String::new(),
            linux: Some(cri::LinuxPodSandboxConfig { cgroup_parent: machine.cgroup() }),
        };
        let request = within(deadline, cri::RunPodSandboxRequest { config: Some(config) });
        Ok(self.client.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    /// Stops a pod's sandbox: its processes and its network. Repeatable.
    ///
    /// # Errors
    /// When the network could not be removed.
    pub async fn stop_pod(&self, id: &str) -> Result<(), Status> {
        let request = within(CALL_PATIENCE, cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() });
        self.client.clone().stop_pod_sandbox(request).await.map(drop)
    }

    /// Removes a pod's sandbox. Repeatable.
    ///
    /// # Errors
    /// As [`Containerd::stop_pod`].
    pub async fn remove_pod(&self, id: &str) -> Result<(), Status> {
        let request = within(CALL_PATIENCE, cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() });
        self.client.clone().remove_pod_sandbox(request).await.map(drop)
    }

    /// How a pod's sandbox stands.
    ///
    /// # Errors
    /// When there is no such sandbox.
    pub async fn pod(&self, id: &str) -> Result<PodStatus, Status> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let reply = self.client.clone().pod_sandbox_status(within(CALL_PATIENCE, request)).await?.into_inner();
        let info: Value = reply.info.get("info").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let status = reply.status.unwrap_or_default();
        let address = status.network.as_ref().and_then(|network| network.ip.parse().ok());
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
        Ok(PodStatus {
            ready: status.state() == cri::PodSandboxState::SandboxReady,
            address,
            netns: network.and_then(|network| network["path"].as_str()).unwrap_or_default().to_owned(),
            pid: info["pid"].as_u64().unwrap_or_default(),
        })
    }

    /// Ids of all sandboxes that containerd knows, each with whether it is ready.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn pods(&self) -> Result<Vec<(String, bool)>, Status> {
        let reply = self.client.clone().list_pod_sandbox(within(CALL_PATIENCE, cri::ListPodSandboxRequest {})).await?;
        let ready = |pod: &cri::PodSandbox| pod.state() == cri::PodSandboxState::SandboxReady;
        Ok(reply.into_inner().items.into_iter().map(|pod| (pod.id.clone(), ready(&pod))).collect())
    }

    fn end_of_log(&self) -> String {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let log = daemon.as_ref().map(Daemon::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("end of its log:\n{}", lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n"))
    }
}

fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

fn socket(site: &Site) -> PathBuf {
    site.file("containerd.sock")
}

/// Everything that can be moved is in the node's directory or in its own `/run`.
fn configuration(site: &Site) -> String {
    format!(
        r#"version = 2
root = "/run/containerd/root"
state = "/run/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "/run/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  disable_apparmor = true
  # A container without CAP_SYS_RESOURCE, as a CI runner often is, may not give a sandbox a lower score than its own.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{PLUGINS}"
    conf_dir = "{NETWORKS}"
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
        Root = "/run/containerd/runc"
"#,
        socket = socket(site).display(),
        image = busybox::NAME,
    )
}
