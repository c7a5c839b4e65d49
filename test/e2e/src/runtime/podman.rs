//! podman with its CNI backend on a worker. It has no daemon: each command reads and writes its own state.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::Value;

use super::{
    Site, busybox,
    site::{NETWORKS, PLUGINS},
};
use crate::Trouble;

/// Where podman keeps everything; the node's own `/run`.
const STATE: &str = "/run/podman";

/// podman on a worker. Its containers end with the worker.
#[derive(Debug)]
pub struct Podman {
    site: Arc<Site>,
}

impl Podman {
    /// Makes podman ready with the site's plugins, networks and image.
    ///
    /// # Errors
    /// When it does not take the image, with its own words.
    pub fn start(site: &Arc<Site>) -> Result<Self, Trouble> {
        let podman = Self { site: Arc::clone(site) };
        write(&podman.configuration(), &configuration())?;
        write(
            &podman.storage(),
            &format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{STATE}/graph\"\nrunroot = \"{STATE}/run\"\n"),
        )?;
        podman.run(&["load", "--quiet", "--input", &site.image().display().to_string()])?;
        Ok(podman)
    }

    /// Where it runs.
    #[must_use]
    pub fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// Starts a container with `options` of `podman run`. It runs an applet of busybox with its arguments; none: it sleeps. Returns
    /// its id.
    ///
    /// # Errors
    /// podman's own words.
    pub fn start_container(&self, name: &str, options: &[&str], applet: &[&str]) -> Result<String, Trouble> {
        let cgroup = format!("--cgroup-parent={}", self.site.machine()?.cgroup());
        let arguments = [&["run", "--detach", "--name", name, &cgroup], options, &[busybox::NAME], applet].concat();
        Ok(self.run(&arguments)?.trim().to_owned())
    }

    /// What podman says of a container.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn inspect(&self, container: &str) -> Result<Value, Trouble> {
        let answer = self.run(&["container", "inspect", container])?;
        let listed: Value = serde_json::from_str(&answer).unwrap_or_default();
        listed.get(0).cloned().ok_or(Trouble::Answer { what: "podman's description of a container", answer })
    }

    /// Runs a podman command and returns its standard output.
    ///
    /// # Errors
    /// [`Trouble::Broken`] with podman's own words.
    pub fn run(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let mut command = Command::new("podman");
        command.args(["--tmpdir", &format!("{STATE}/tmp")]).args(arguments).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("CONTAINERS_CONF", self.configuration()).env("CONTAINERS_STORAGE_CONF", self.storage());
        command.env("HOME", STATE);
        let output = self.site.namespace()?.output(&mut command, &[])?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Trouble::Broken(format!("`podman {}` failed: {words}", arguments.join(" "))))
    }

    fn configuration(&self) -> PathBuf {
        self.site.file("containers.conf")
    }

    fn storage(&self) -> PathBuf {
        self.site.file("storage.conf")
    }
}

fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    fs::write(path, text).map_err(Trouble::os(format!("write {}", path.display())))
}

fn configuration() -> String {
    format!(
        r#"[containers]
log_driver = "k8s-file"
# Without CAP_SYS_RESOURCE, as on many CI runners, nobody may ask for more than there is.
default_ulimits = ["nofile=1024:20000", "nproc=4096:32768"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{PLUGINS}"]
network_config_dir = "{NETWORKS}"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"#,
    )
}
