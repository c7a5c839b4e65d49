//! A worker made ready for a container runtime: booted, with plugins and an image; the daemon adds the network configuration.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use eni_proto::numbers;
use lab::{Machine, Namespace, wait};
use serde_json::Value;

use super::busybox;
use crate::{Trouble, Worker};

/// Folder of the plugins, as the runtime and the daemon see it.
pub const PLUGINS: &str = "/run/cni/bin";
/// Folder of the network configurations, as the runtime and the daemon see it.
pub const NETWORKS: &str = "/run/cni/net.d";
/// Settings of a daemon that is to make the node ready for the runtime.
pub const SETTINGS: [(&str, &str); 2] = [("HOST_CNI_BIN_PATH", PLUGINS), ("HOST_CNI_CONFDIR_PATH", NETWORKS)];
/// Where Debian's containernetworking-plugins are.
const OTHER_PLUGINS: &str = "/usr/lib/cni";
/// Writes down each call, then becomes the plugin: who kills it kills the plugin.
const RECORDER: &str = r#"#!/bin/sh
input=$(cat)
case $input in *'"prevResult"'*) previous=with ;; *) previous=without ;; esac
printf '%s\t%s\t%s\t%s\t%s\n' "$CNI_COMMAND" "$CNI_CONTAINERID" "$CNI_IFNAME" "$CNI_NETNS" "$previous" >> "CALLS"
exec "PLUGIN" <<END
$input
END
"#;

/// One call of the plugin by the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `CNI_COMMAND`.
    pub verb: String,
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_IFNAME`.
    pub interface: String,
    /// `CNI_NETNS`. Empty: the sandbox has none any more.
    pub netns: String,
    /// Whether the runtime handed back what an earlier call had answered.
    pub with_result: bool,
}

/// A worker made ready for a container runtime.
#[derive(Debug)]
pub struct Site {
    worker: Arc<Worker>,
    directory: PathBuf,
}

impl Site {
    /// Boots the worker and lays out what a runtime needs. To be called before the worker's daemon is started, because the daemon
    /// looks at sandboxes by the runtime's paths.
    ///
    /// # Errors
    /// [`Trouble::Lab`] with what this machine does not allow; [`Trouble::NoProgram`] without one of `programs`.
    pub async fn prepare(worker: &Arc<Worker>, programs: &[&'static str]) -> Result<Self, Trouble> {
        for program in ["busybox"].iter().chain(programs) {
            require(program)?;
        }
        worker.node().boot().await?;
        let directory = worker.node().directory().join("runtime");
        fs::create_dir_all(&directory).map_err(Trouble::os(format!("make {}", directory.display())))?;
        let site = Self { worker: Arc::clone(worker), directory };
        site.namespace()?.inside(|| site.lay_out())?.map_err(Trouble::os("lay out /run/cni"))?;
        busybox::write(&site.image())?;
        Ok(site)
    }

    /// What is in the folders before the daemon adds the network configuration.
    fn lay_out(&self) -> io::Result<()> {
        fs::create_dir_all(NETWORKS)?;
        fs::create_dir_all(PLUGINS)?;
        for other in ["loopback", "portmap", "tuning"] {
            symlink(Path::new(OTHER_PLUGINS).join(other), Path::new(PLUGINS).join(other))?;
        }
        let recorder = RECORDER
            .replace("CALLS", &self.calls_file().display().to_string())
            .replace("PLUGIN", &self.worker.binaries().plugin.display().to_string());
        let plugin = Path::new(PLUGINS).join(numbers::CNI_TYPE);
        fs::write(&plugin, recorder)?;
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// The image, as an archive.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.directory.join("image.tar")
    }

    /// A file of the runtime's own.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The node's own processes and mounts.
    ///
    /// # Errors
    /// Never after [`Site::prepare`].
    pub fn machine(&self) -> Result<&Machine, Trouble> {
        self.worker.node().machine().ok_or_else(|| Trouble::Broken("the node was not booted".to_owned()))
    }

    /// Where the runtime and its pods run.
    ///
    /// # Errors
    /// Never after [`Site::prepare`].
    pub fn namespace(&self) -> Result<&Arc<Namespace>, Trouble> {
        Ok(self.machine()?.namespace())
    }

    /// Runs a command line where the runtime and its pods run, and returns its standard output.
    ///
    /// # Errors
    /// [`Trouble::Lab`] with what it wrote to standard error.
    pub fn run(&self, command_line: &[&str]) -> Result<String, Trouble> {
        Ok(self.namespace()?.run(command_line)?)
    }

    /// Waits for the network configuration that the daemon writes when it can serve, and returns it.
    ///
    /// # Errors
    /// [`Trouble::TimedOut`] when it does not come.
    pub async fn until_network(&self, deadline: Duration) -> Result<Value, Trouble> {
        let namespace = self.namespace()?;
        let path = Path::new(NETWORKS).join("10-eni-cni.conflist");
        let read = || async {
            let text = namespace.inside(|| fs::read(&path)).map_err(|error| error.to_string())?;
            let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        };
        Ok(wait::until(deadline, "the network configuration", read).await?)
    }

    /// Writes a second network, which differs from the one that the daemon wrote by its name.
    ///
    /// # Errors
    /// As [`Site::until_network`].
    pub async fn add_network(&self, name: &str, deadline: Duration) -> Result<(), Trouble> {
        let mut list = self.until_network(deadline).await?;
        list["name"] = name.into();
        let path = Path::new(NETWORKS).join(format!("20-{name}.conflist"));
        let written = self.namespace()?.inside(|| fs::write(&path, list.to_string()))?;
        written.map_err(Trouble::os(format!("write {}", path.display())))
    }

    /// How the runtime has called the plugin so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.calls_file()).unwrap_or_default();
        text.lines().filter_map(call).collect()
    }

    /// Ids of the plugin's processes that run now, in the machine's process table.
    ///
    /// # Errors
    /// When the process table cannot be read.
    pub fn plugin_processes(&self) -> Result<Vec<String>, Trouble> {
        let plugin = self.worker.binaries().plugin.display().to_string();
        let script = r#"for it in /proc/[0-9]*; do
            if [ "$(readlink "$it/exe")" = "$1" ]; then echo "${it#/proc/}"; fi
        done"#;
        Ok(self.run(&["sh", "-c", script, "sh", &plugin])?.lines().map(str::to_owned).collect())
    }

    fn calls_file(&self) -> PathBuf {
        self.directory.join("calls")
    }
}

fn call(line: &str) -> Option<Call> {
    let mut words = line.split('\t').map(str::to_owned);
    let mut next = || words.next();
    let (verb, container_id, interface, netns) = (next()?, next()?, next()?, next()?);
    Some(Call { verb, container_id, interface, netns, with_result: next()? == "with" })
}

fn require(program: &'static str) -> Result<(), Trouble> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin", "/bin"]);
    match folders.map(|folder| Path::new(folder).join(program)).find(|path| path.exists()) {
        Some(_) => Ok(()),
        None => Err(Trouble::NoProgram { program }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_what_to_do() {
        require("sh").unwrap();
        let trouble = require("is-not-installed").unwrap_err().to_string();
        assert!(trouble.contains("is-not-installed") && trouble.contains("make setup"), "{trouble}");
    }
}
