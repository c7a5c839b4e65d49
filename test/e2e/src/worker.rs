//! A node with the real daemon and the real plugin on it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use eni_proto::wire::{StatusReply, StatusRequest, ipam_client::IpamClient};
use lab::{Daemon, EC2_ADDRESS, Ec2Gate, Node, ec2::Endpoint, wait};
use nix::sys::signal::Signal;

use crate::{Binaries, Trouble, cloud::REGION};

/// What a worker is made of.
#[derive(Debug)]
pub(crate) struct WorkerPlan {
    pub(crate) node: Arc<Node>,
    pub(crate) binaries: Binaries,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) endpoint: Endpoint,
}

/// A node with the real daemon and the real plugin on it.
// Fields are dropped in this order: the daemon may be one of the node's own processes, which end with the node.
#[derive(Debug)]
pub struct Worker {
    daemon: Mutex<Option<Daemon>>,
    gate: Mutex<Option<Ec2Gate>>,
    binaries: Binaries,
    settings: Mutex<Vec<(String, String)>>,
    endpoint: Endpoint,
    node: Arc<Node>,
}

impl Worker {
    pub(crate) fn new(plan: WorkerPlan) -> Result<Self, Trouble> {
        let WorkerPlan { node, binaries, settings, endpoint } = plan;
        let settings = Mutex::new(settings);
        let worker = Self { node, binaries, settings, endpoint, gate: Mutex::new(None), daemon: Mutex::new(None) };
        worker.connect_ec2()?;
        Ok(worker)
    }

    /// The node in the lab.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The programs under test.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Where the daemon listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.node.directory().join("ipamd.sock")
    }

    /// The daemon's database.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.node.directory().join("ipamd.db")
    }

    /// Where the plugin leaves word of DELs that the daemon did not hear of.
    #[must_use]
    pub fn released_directory(&self) -> PathBuf {
        self.node.directory().join("released")
    }

    /// Lets the node reach the EC2 API. Repeatable.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn connect_ec2(&self) -> Result<(), Trouble> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        if gate.is_none() {
            *gate = Some(self.node.forward_ec2(self.endpoint.address)?);
        }
        Ok(())
    }

    /// Cuts the node off the EC2 API; connections break. Its counted calls are forgotten.
    pub fn cut_ec2(&self) {
        *self.gate.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How often the node asked for each action of EC2.
    #[must_use]
    pub fn ec2_calls(&self) -> BTreeMap<String, u64> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Ec2Gate::calls).unwrap_or_default()
    }

    /// Command line of the daemon as this worker starts it.
    #[must_use]
    pub fn daemon_command(&self) -> Vec<String> {
        let path = |path: PathBuf| path.display().to_string();
        vec![
            path(self.binaries.ipamd.clone()),
            "serve".to_owned(),
            "--socket".to_owned(),
            path(self.socket()),
            "--database".to_owned(),
            path(self.database()),
            "--released-dir".to_owned(),
            path(self.released_directory()),
        ]
    }

    /// Environment of the daemon as this worker starts it.
    #[must_use]
    pub fn daemon_environment(&self) -> Vec<(String, String)> {
        let fixed = [
            ("AWS_ENDPOINT_URL_EC2", format!("http://{EC2_ADDRESS}")),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.endpoint.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", "not-a-secret".to_owned()),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
        fixed.chain(self.settings.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned()).collect()
    }

    /// Changes a setting for the daemons that are started from now on.
    pub fn set(&self, name: &str, value: &str) {
        let mut settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.retain(|(other, _)| other != name);
        settings.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the daemon and returns at once. The one before, if any, is killed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_daemon(&self) -> Result<(), Trouble> {
        let mut daemon = self.daemon();
        *daemon = None;
        *daemon = Some(self.node.daemon("ipamd", &self.daemon_command(), &self.daemon_environment())?);
        Ok(())
    }

    /// Kills the daemon as `kill -9` does, and waits for its end.
    ///
    /// # Errors
    /// When there is none.
    pub fn kill_daemon(&self) -> Result<(), Trouble> {
        match self.daemon().take() {
            Some(mut daemon) => daemon.kill().map(drop).map_err(Trouble::os("kill ipamd")),
            None => Err(Trouble::Broken("there is no daemon to kill".to_owned())),
        }
    }

    /// Sends the daemon a signal, as SIGSTOP, after which it does nothing until SIGCONT. Does not wait.
    ///
    /// # Errors
    /// When there is no daemon.
    pub fn signal_daemon(&self, signal: Signal) -> Result<(), Trouble> {
        match &*self.daemon() {
            Some(daemon) => daemon.signal(signal).map_err(Trouble::os("signal ipamd")),
            None => Err(Trouble::Broken("there is no daemon to signal".to_owned())),
        }
    }

    /// Asks the daemon to stop by SIGTERM and waits for its end. Returns whether it ended well.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop_daemon(&self, deadline: Duration) -> Result<bool, Trouble> {
        self.signal_daemon(Signal::SIGTERM)?;
        let status = wait::until(deadline, "ipamd to stop", || async {
            match self.daemon().as_mut().map(Daemon::ended) {
                None => Err("there is no daemon".to_owned()),
                Some(Ok(Some(status))) => Ok(status),
                Some(Ok(None)) => Err("it still runs".to_owned()),
                Some(Err(error)) => Err(error.to_string()),
            }
        })
        .await?;
        *self.daemon() = None;
        Ok(status.success())
    }

    /// Process id of the daemon. Absent: there is none.
    #[must_use]
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon().as_ref().map(Daemon::pid)
    }

    /// Resident memory of the daemon in KiB. Absent: there is none. Source: VmRSS in /proc/PID/status.
    #[must_use]
    pub fn daemon_resident_kib(&self) -> Option<u64> {
        let pid = self.daemon_pid()?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
    }

    /// Everything that the node's daemons wrote.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.node.directory().join("ipamd.log")).unwrap_or_default()
    }

    /// Asks the daemon how it stands.
    ///
    /// # Errors
    /// In people's words, when nobody answers.
    pub async fn status(&self) -> Result<StatusReply, String> {
        let uri = format!("unix:{}", self.socket().display());
        let endpoint = tonic::transport::Endpoint::try_from(uri).map_err(|error| error.to_string())?;
        let channel = endpoint.connect().await.map_err(|error| format!("{error:?}"))?;
        let reply = IpamClient::new(channel).status(StatusRequest {}).await;
        reply.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    }

    /// Waits until the daemon is ready and holds at least `free` free addresses.
    ///
    /// # Errors
    /// [`Trouble::TimedOut`] with the last state seen and the end of the daemon's log.
    pub async fn until_ready(&self, free: u32, deadline: Duration) -> Result<StatusReply, Trouble> {
        let what = format!("ipamd on {} with {free} free addresses", self.node.name());
        let ready = wait::until(deadline, &what, || async {
            // Nobody gets ready who is not there any more.
            if let Some(Ok(Some(status))) = self.daemon().as_mut().map(Daemon::ended) {
                return Ok(Err(format!("ipamd ended with {status}")));
            }
            match self.status().await {
                Ok(status) if status.ready && status.free >= free => Ok(Ok(status)),
                Ok(status) => Err(format!("{status:?}")),
                Err(reason) => Err(reason),
            }
        });
        match ready.await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(death)) => Err(Trouble::Broken(format!("{death} on {}\n{}", self.node.name(), self.end_of_log()))),
            Err(mut timed_out) => {
                timed_out.last = format!("{}\n{}", timed_out.last, self.end_of_log());
                Err(timed_out.into())
            }
        }
    }

    fn end_of_log(&self) -> String {
        let log = self.daemon_log();
        let lines: Vec<&str> = log.lines().collect();
        format!("end of its log:\n{}", lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n"))
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
