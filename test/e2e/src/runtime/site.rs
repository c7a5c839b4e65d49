//! A worker made ready for a container runtime: booted, with plugins, a network configuration and an image.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::Arc,
};

use lab::{Machine, Namespace};
use serde_json::{Value, json};

use super::image;
use crate::{Trouble, Worker, plugin::NETWORK};

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
        let site = Self { worker: Arc::clone(worker), directory };
        for folder in [site.plugins(), site.networks()] {
            fs::create_dir_all(&folder).map_err(Trouble::os(format!("make {}", folder.display())))?;
        }
        for other in ["loopback", "portmap"] {
            let (there, here) = (Path::new(OTHER_PLUGINS).join(other), site.plugins().join(other));
            symlink(&there, &here).map_err(Trouble::os(format!("link {} to {}", here.display(), there.display())))?;
        }
        site.install_plugin()?;
        site.write_network(NETWORK, &[])?;
        image::write(&site.image())?;
        Ok(site)
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    /// The folder with the plugins.
    #[must_use]
    pub fn plugins(&self) -> PathBuf {
        self.directory.join("bin")
    }

    /// The folder with the network configurations.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.directory.join("net.d")
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

    /// Writes a network configuration as it is shipped, with other `settings` of the plugin.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_network(&self, name: &str, settings: &[(&str, Value)]) -> Result<(), Trouble> {
        let mut plugin = self.worker.configuration();
        if let Some(plugin) = plugin.as_object_mut() {
            plugin.remove("cniVersion");
            plugin.remove("name");
            plugin.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        }
        let list = json!({
            // containerd 1.x takes the first and knows no 1.1.0; containerd 2.x chooses from the second.
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": name,
            "plugins": [plugin, { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }],
        });
        let path = self.networks().join(format!("10-{name}.conflist"));
        fs::write(&path, list.to_string()).map_err(Trouble::os(format!("write {}", path.display())))
    }

    /// How the runtime has called the plugin so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.calls_file()).unwrap_or_default();
        text.lines().filter_map(call).collect()
    }

    /// Forgets the calls so far.
    ///
    /// # Errors
    /// When the file cannot be emptied.
    pub fn forget_calls(&self) -> Result<(), Trouble> {
        fs::write(self.calls_file(), "").map_err(Trouble::os("empty the list of calls"))
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

    fn install_plugin(&self) -> Result<(), Trouble> {
        let script = RECORDER
            .replace("CALLS", &self.calls_file().display().to_string())
            .replace("PLUGIN", &self.worker.binaries().plugin.display().to_string());
        let path = self.plugins().join("eni-cni");
        let written =
            fs::write(&path, script).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
        written.map_err(Trouble::os(format!("write {}", path.display())))
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
