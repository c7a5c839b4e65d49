//! Runs the CNI plugin as a container runtime does.

use std::{
    net::Ipv4Addr,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{Trouble, Worker};

/// Name of the network in every configuration here.
pub const NETWORK: &str = "eni-cni";
/// A runtime gives up after some minutes; so do we, and that fails the run.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(240);

/// A CNI command that the harness uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Compare with what ADD reported, which the configuration has as `prevResult`.
    Check,
    /// End all attachments but those that the configuration lists; the sandbox counts for nothing.
    Gc,
    /// Tell whether an ADD could be served; the sandbox counts for nothing.
    Status,
}

/// A pod's sandbox and who the pod is.
#[derive(Debug)]
pub struct Sandbox {
    /// Pod name; its namespace is `demo`.
    pub name: String,
    /// Id of the sandbox.
    pub container_id: String,
    /// Interface inside, as `eth0`.
    pub interface: String,
    /// What `CNI_NETNS` says.
    pub netns: String,
    /// The sandbox's network. It lives as long as this value.
    pub pod: lab::Pod,
}

impl Sandbox {
    /// Makes an empty sandbox; `number` makes its ids unique in the cluster.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn new(name: &str, number: usize) -> Result<Self, Trouble> {
        let pod = lab::Pod::new(name)?;
        Ok(Self {
            name: name.to_owned(),
            container_id: format!("{:064x}", 0x000c_0de0_0000 + number),
            interface: "eth0".to_owned(),
            netns: pod.netns().display().to_string(),
            pod,
        })
    }
}

/// What the plugin answered instead of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniFailure {
    /// CNI error code; 0 when it printed no CNI error.
    pub code: u64,
    /// `msg` of the CNI error, or all that it printed.
    pub message: String,
    /// `details` of the CNI error.
    pub details: String,
}

/// One run of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRun {
    /// From exec to exit.
    pub took: Duration,
    /// Its result: JSON for ADD, null for a verb that prints nothing.
    pub result: Result<Value, CniFailure>,
}

impl PluginRun {
    /// The address in an ADD's result.
    #[must_use]
    pub fn address(&self) -> Option<Ipv4Addr> {
        let text = self.result.as_ref().ok()?["ips"][0]["address"].as_str()?;
        text.split('/').next()?.parse().ok()
    }

    /// Code, message and details of the failure. Absent: it succeeded.
    #[must_use]
    pub fn failure(&self) -> Option<&CniFailure> {
        self.result.as_ref().err()
    }
}

impl Worker {
    /// The network configuration that a runtime would pass on stdin.
    #[must_use]
    pub fn configuration(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": NETWORK,
            "type": "eni-cni",
            "socket": self.socket(),
            "releasedDir": self.released_directory(),
        })
    }

    /// Runs the plugin for a sandbox as a runtime does.
    ///
    /// # Errors
    /// When it cannot be started or does not end; what it answers is in [`PluginRun`].
    pub async fn plugin(&self, verb: Verb, sandbox: &Sandbox) -> Result<PluginRun, Trouble> {
        self.plugin_given(verb, sandbox, &self.configuration()).await
    }

    /// The same with a network configuration of one's own.
    ///
    /// # Errors
    /// As [`Worker::plugin`].
    pub async fn plugin_given(
        &self,
        verb: Verb,
        sandbox: &Sandbox,
        configuration: &Value,
    ) -> Result<PluginRun, Trouble> {
        let mut command = Command::new(&self.binaries().plugin);
        let verb = match verb {
            Verb::Add => "ADD",
            Verb::Del => "DEL",
            Verb::Check => "CHECK",
            Verb::Gc => "GC",
            Verb::Status => "STATUS",
        };
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=demo;K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID=uid-{}",
            sandbox.name, sandbox.container_id, sandbox.name
        );
        command.env_clear().envs([
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &sandbox.container_id),
            ("CNI_NETNS", &sandbox.netns),
            ("CNI_IFNAME", &sandbox.interface),
            ("CNI_PATH", "/opt/cni/bin"),
            ("CNI_ARGS", &arguments),
        ]);
        let (took, output) = self.run(command, configuration.to_string().as_bytes()).await?;
        Ok(PluginRun { took, result: verdict(&output) })
    }

    async fn run(&self, mut command: Command, stdin: &[u8]) -> Result<(Duration, Output), Trouble> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = self.node().namespace().spawn(&mut command)?;
        if let Some(mut pipe) = child.stdin.take() {
            // A plugin that refuses before it reads closes the pipe; its answer says why.
            let _ = pipe.write_all(stdin).await;
        }
        let ended = tokio::time::timeout(RUNTIME_PATIENCE, child.wait_with_output()).await;
        let output = ended
            .map_err(|_| Trouble::Broken(format!("the plugin did not end within {RUNTIME_PATIENCE:?}")))?
            .map_err(Trouble::os("wait for the plugin"))?;
        Ok((started.elapsed(), output))
    }
}

fn verdict(output: &Output) -> Result<Value, CniFailure> {
    let printed = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(&printed).unwrap_or_default();
    if output.status.success() {
        return Ok(json);
    }
    let text = |field: &str| json[field].as_str().unwrap_or_default().to_owned();
    let message = match text("msg") {
        message if !message.is_empty() => message,
        _ => format!("{}: {printed}{}", output.status, String::from_utf8_lossy(&output.stderr)),
    };
    Err(CniFailure { code: json["code"].as_u64().unwrap_or(0), message, details: text("details") })
}
