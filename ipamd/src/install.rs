//! `ipamd install` puts the CNI plugin where the runtime looks for it; `ipamd uninstall` takes everything of ours away again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use eni_proto::numbers;

use crate::{
    conflist,
    incumbent::{AWS_CNI, running},
    settings::Settings,
};

/// Name under which the plugin that was there before is kept, until the next installation.
const PREVIOUS: &str = "eni-cni.previous";

/// Why something was not installed or removed. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// The plugin that is to be installed is not a program that runs here.
    #[error("IPAM-323 {path} does not run as a CNI plugin on this machine; is it built for this processor?")]
    Program {
        /// Where it is.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// The folder refused the file.
    #[error(
        "IPAM-324 the plugin could not be put into {folder}; check that the host's folder is mounted there, can be written and has 4 MB of space"
    )]
    Folder {
        /// The folder.
        folder: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Another CNI serves this node.
    #[error(
        "IPAM-325 {file} is there: amazon-vpc-cni-k8s serves this node; take its DaemonSet off this node, then run `ipamd migrate import`, which takes its pods over and removes that file"
    )]
    OtherCni {
        /// Its configuration.
        file: String,
    },
    /// Another CNI runs on this node.
    #[error(
        "IPAM-351 amazon-vpc-cni-k8s runs on this node: {sign}; take its DaemonSet off this node, wait until its pod is gone, then run `ipamd migrate import`"
    )]
    OtherRuns {
        /// By what that was noticed.
        sign: String,
    },
    /// Pods still use what would be removed.
    #[error(
        "IPAM-326 {count} pod interface(s) of ours are still on this node ({first}, ...); drain the node first, or give --force"
    )]
    Pods {
        /// How many.
        count: usize,
        /// One of them.
        first: String,
    },
    /// Something of ours could not be removed.
    #[error("IPAM-327 {what} could not be removed; nothing that comes after it was touched")]
    Remove {
        /// What.
        what: String,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Puts the plugin at `source` into `folder`: checked first, complete and executable from its first instant. Keeps the former one.
///
/// Returns what the plugin says of itself.
///
/// # Errors
/// [`InstallError`]; then the former plugin is still in place.
pub(crate) fn install(source: &Path, settings: &Settings) -> Result<String, InstallError> {
    let other = settings.conf_dir.as_ref().map(|folder| folder.join(AWS_CNI)).filter(|file| file.exists());
    if let Some(file) = other {
        return Err(InstallError::OtherCni { file: file.display().to_string() });
    }
    if let Some(sign) = running(&settings.incumbent) {
        return Err(InstallError::OtherRuns { sign });
    }
    let program = fs::read(source).map_err(|error| program_error(source, error))?;
    let versions = ask_versions(source).map_err(|error| program_error(source, error))?;
    put(&program, &settings.plugin_dir)
        .map_err(|source| InstallError::Folder { folder: settings.plugin_dir.display().to_string(), source })?;
    Ok(versions)
}

fn program_error(path: &Path, source: io::Error) -> InstallError {
    InstallError::Program { path: path.display().to_string(), source }
}

fn put(program: &[u8], folder: &Path) -> io::Result<()> {
    let plugin = folder.join(numbers::CNI_TYPE);
    let previous = folder.join(PREVIOUS);
    let is_other = plugin.exists() && fs::read(&plugin)? != program;
    // The former one gets its second name when the new one is complete: a folder without space stays as it was.
    conflist::replace_after(&plugin, program, 0o755, || if is_other { keep(&plugin, &previous) } else { Ok(()) })
}

fn keep(plugin: &Path, previous: &Path) -> io::Result<()> {
    match fs::remove_file(previous) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(plugin, previous)
}

/// Runs the plugin's VERSION: what answers that can be started by a runtime.
fn ask_versions(plugin: &Path) -> io::Result<String> {
    let mut command = Command::new(plugin);
    command.env_clear().env("CNI_COMMAND", "VERSION").stdin(Stdio::null());
    let output = command.output()?;
    if output.status.success() && output.stdout.starts_with(b"{") {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("VERSION ended with {}: {said}", output.status)))
}

/// Takes everything of ours away from the node: configuration first, so that nothing new begins, then the plugin, then the
/// kernel's rules, routes and nf_tables table. ENIs stay; they go with the instance. Repeatable.
///
/// Returns what was removed, one thing a line.
///
/// # Errors
/// [`InstallError`]: with pods left and without `force`, nothing is touched.
pub(crate) fn uninstall(settings: &Settings, force: bool) -> Result<Vec<String>, InstallError> {
    let failed = |what: &str, source: Box<dyn std::error::Error + Send + Sync>| InstallError::Remove {
        what: what.to_owned(),
        source,
    };
    let pods = eni_datapath::pod_leftovers().map_err(|error| failed("the list of pods", error.into()))?;
    let links: Vec<_> = pods.iter().filter(|line| line.starts_with("link ")).collect();
    if let (Some(first), false) = (links.first(), force) {
        return Err(InstallError::Pods { count: links.len(), first: (*first).clone() });
    }
    let mut removed = Vec::new();
    for file in files(settings) {
        match fs::remove_file(&file) {
            Ok(()) => removed.push(file.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&file.display().to_string(), error.into())),
        }
    }
    let kernel = eni_datapath::leftovers().map_err(|error| failed("the list of rules and routes", error.into()))?;
    eni_datapath::clean_host().map_err(|error| failed("what is in the kernel", error.into()))?;
    removed.extend(kernel.into_iter().filter(|line| !line.starts_with("link ")));
    Ok(removed)
}

/// What lies on the node of ours: configuration, plugin and its predecessor.
pub(crate) fn files(settings: &Settings) -> Vec<PathBuf> {
    let configuration = settings.conf_dir.iter().map(|folder| folder.join(conflist::FILE));
    let plugins = [numbers::CNI_TYPE, PREVIOUS].map(|name| settings.plugin_dir.join(name));
    configuration.chain(plugins).collect()
}

/// Where the plugin lies that came with this daemon: beside its own program.
pub(crate) fn shipped_plugin() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name(numbers::CNI_TYPE)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A node's folders: the plugin's, the configuration's.
    struct Node {
        folder: tempfile::TempDir,
        settings: Settings,
    }

    fn node() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().map(str::to_owned);
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let settings = Settings::read(|name| match name {
            "HOST_CNI_BIN_PATH" => at("bin"),
            "HOST_CNI_CONFDIR_PATH" => at("net.d"),
            _ => None,
        });
        Node { settings: settings.unwrap(), folder }
    }

    /// A program that answers VERSION as a plugin does.
    fn plugin(node: &Node, name: &str) -> PathBuf {
        let path = node.folder.path().join(name);
        let script =
            format!("#!/bin/sh\n# {name}\n[ \"$CNI_COMMAND\" = VERSION ] && echo '{{\"cniVersion\":\"1.1.0\"}}'\n");
        let text = path.with_extension("text");
        fs::write(&text, script).unwrap();
        // By another process: what this one has open for writing, a neighbouring test's child may have too, and then it
        // cannot be run.
        assert!(Command::new("install").args(["-m", "755"]).args([&text, &path]).status().unwrap().success());
        path
    }

    #[test]
    fn a_plugin_is_installed_and_the_former_one_kept() {
        let node = node();
        let bin = node.settings.plugin_dir.clone();
        for name in ["first", "second", "second"] {
            let versions = install(&plugin(&node, name), &node.settings).unwrap();
            assert_eq!(versions, r#"{"cniVersion":"1.1.0"}"#);
            let mode = fs::metadata(bin.join("eni-cni")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
            assert!(fs::read_to_string(bin.join("eni-cni")).unwrap().contains(name));
        }
        assert!(fs::read_to_string(bin.join(PREVIOUS)).unwrap().contains("first"));
        assert_eq!(fs::read_dir(&bin).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_does_not_run_or_does_not_fit_changes_nothing() {
        let node = node();
        install(&plugin(&node, "good"), &node.settings).unwrap();
        let broken = node.folder.path().join("broken");
        conflist::replace(&broken, b"\x7fELF of another machine", 0o755).unwrap();
        assert!(matches!(install(&broken, &node.settings), Err(InstallError::Program { .. })));
        assert!(matches!(install(Path::new("/is/not/there"), &node.settings), Err(InstallError::Program { .. })));
        let bin = node.settings.plugin_dir.clone();
        assert!(fs::read_to_string(bin.join("eni-cni")).unwrap().contains("good"));
        let nowhere = Settings { plugin_dir: node.folder.path().join("not/mounted"), ..node.settings.clone() };
        let error = install(&plugin(&node, "good"), &nowhere).unwrap_err();
        assert!(matches!(&error, InstallError::Folder { folder, .. } if folder.ends_with("not/mounted")), "{error}");
    }

    #[test]
    fn a_node_that_the_aws_cni_serves_is_left_alone() {
        let node = node();
        fs::write(node.folder.path().join("net.d").join(AWS_CNI), "{}").unwrap();
        let error = install(&plugin(&node, "ours"), &node.settings).unwrap_err();
        assert!(matches!(error, InstallError::OtherCni { .. }), "{error}");
        assert_eq!(fs::read_dir(&node.settings.plugin_dir).unwrap().count(), 0);
    }
}
