//! The CNI configuration that the container runtime reads: what it says, and when it appears.
//!
//! The kubelet calls a node ready as soon as the file is there. So it is written last, once an ADD could be served, and in one
//! step: a runtime that looks at the folder meanwhile, or after a power loss, sees the former file or the new one, never a part. A daemon that ends
//! leaves it where it is, because its successor will serve the ADDs that come meanwhile.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use eni_proto::{numbers, policy};
use serde_json::{Value, json};

use crate::{errors::chain, handle::Handle, settings::Settings};

/// Name of the file. Runtimes take the first in alphabetical order.
pub(crate) const FILE: &str = "10-eni-cni.conflist";
/// Name of the CNI network, part of every lease's key: it must never change on a node that has pods.
pub(crate) const NETWORK: &str = "eni-cni";
/// Waits before the file is written again after the folder refused it.
const RETRY: Duration = Duration::from_secs(5);

/// The configuration as the runtime gets it. `with_portmap`: the reference plugin for host ports is installed.
///
/// `cniVersion` is 1.0.0, because containerd 1.x takes it and fails on 1.1.0; containerd 2.x takes the best of `cniVersions`.
fn contents(settings: &Settings, with_portmap: bool) -> Value {
    let mut plugins = vec![json!({
        "type": numbers::CNI_TYPE,
        "socket": settings.socket,
        "releasedDir": settings.released_dir,
        "addWaitSeconds": settings.add_wait_seconds,
        "vethPrefix": settings.veth_prefix.as_str(),
        "capabilities": { numbers::ANNOTATIONS_CAPABILITY: true },
    })];
    if let (Some(agent), Some(first)) = (&settings.policy_agent, plugins.first_mut()) {
        let socket = agent.folder.join(policy::AGENT_SOCKET);
        first["policyAgent"] = json!({ "socket": socket, "mode": agent.mode.as_str() });
    }
    if with_portmap {
        plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }));
    }
    if settings.pods_without_ipv6 {
        let off = |part: &str| (format!("net.ipv6.conf.{part}.disable_ipv6"), json!("1"));
        let sysctl: serde_json::Map<_, _> = ["all", "default", "lo"].map(off).into_iter().collect();
        plugins.push(json!({ "type": "tuning", "sysctl": sysctl }));
    }
    json!({
        "cniVersion": "1.0.0",
        "cniVersions": ["1.0.0", "1.1.0"],
        "name": NETWORK,
        "plugins": plugins,
    })
}

/// Writes the configuration into `folder` once the pool can serve; goes on trying until it is written.
pub(crate) async fn publish(folder: PathBuf, settings: Settings, handle: Handle) {
    if handle.until_serving().await.is_err() {
        return;
    }
    let with_portmap = settings.plugin_dir.join("portmap").exists();
    if !with_portmap {
        tracing::warn!(folder = %settings.plugin_dir.display(), "the reference plugin portmap is not there: pods' hostPort will not work");
    }
    let text = format!("{:#}\n", contents(&settings, with_portmap));
    for other in earlier_files(&folder) {
        tracing::warn!(file = %folder.join(&other).display(), "IPAM-321 another CNI configuration goes before ours and the runtime will use that one: right for a meta-plugin as Multus, wrong for anything else");
    }
    loop {
        match replace(&folder.join(FILE), text.as_bytes(), 0o644) {
            Ok(()) => break,
            Err(error) => {
                tracing::error!(folder = %folder.display(), error = %chain(&error), "IPAM-322 the CNI configuration could not be written; the node stays not ready");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
    tracing::info!(file = %folder.join(FILE).display(), "the CNI configuration is in place: the node can become ready");
}

/// Names of the configurations that a runtime would take before ours, in their order.
pub(crate) fn earlier_files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_configuration = |name: &String| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let mut names: Vec<_> = names.filter(is_configuration).filter(|name| name.as_str() < FILE).collect();
    names.sort();
    names
}

/// Puts a file in the place of another in one step, complete and durable, with its right mode from the first instant.
///
/// # Errors
/// What the file system says; then the former file is still there, and nothing else is.
pub(crate) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    replace_after(path, contents, mode, || Ok(()))
}

/// The same; `last` runs when the new file is complete on the disk and does not have its name yet.
///
/// # Errors
/// What the file system or `last` says; then the former file is still there.
pub(crate) fn replace_after(
    path: &Path,
    contents: &[u8],
    mode: u32,
    last: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let new = beside(path);
    let written = (|| {
        write_new(&new, contents, mode)?.sync_all()?;
        last()?;
        fs::rename(&new, path)?;
        sync_folder(path)
    })();
    if written.is_err() {
        // Gone already when it was the last step that failed.
        let _ = fs::remove_file(&new);
    }
    written
}

/// Hidden and without an ending of ours, so that no runtime takes it for a configuration or a plugin.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder_of(path).join(format!(".{name}.new"))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or_else(|| Path::new("/"))
}

fn write_new(new: &Path, contents: &[u8], mode: u32) -> io::Result<fs::File> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    // The umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(contents)?;
    Ok(file)
}

fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(folder_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_that_old_and_new_runtimes_take() {
        let settings = Settings::read(|_| None).unwrap();
        let list = contents(&settings, true);
        assert_eq!((&list["cniVersion"], &list["cniVersions"][1]), (&json!("1.0.0"), &json!("1.1.0")));
        assert_eq!(list["plugins"][0]["type"], "eni-cni");
        assert_eq!(list["plugins"][0]["socket"], numbers::DEFAULT_SOCKET);
        assert_eq!(list["plugins"][1]["type"], "portmap");
        assert_eq!(contents(&settings, false)["plugins"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn the_plugin_hears_of_the_policy_agent_only_where_there_is_to_be_one() {
        let agent = |mode: Option<&str>| {
            let settings =
                Settings::read(|name| mode.filter(|_| name.starts_with("NETWORK_POLICY")).map(str::to_owned));
            contents(&settings.unwrap(), false)["plugins"][0]["policyAgent"].clone()
        };
        assert_eq!((agent(None), agent(Some("none"))), (Value::Null, Value::Null));
        assert_eq!(agent(Some("Strict")), json!({"socket": "/var/run/aws-node/npa.sock", "mode": "strict"}));
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        for text in ["one", "two"] {
            replace(&path, text.as_bytes(), 0o644).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        }
        fs::create_dir(folder.path().join(format!(".{FILE}.new"))).unwrap();
        assert!(replace(&path, b"three", 0o644).is_err(), "its first step is not possible");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    }

    #[test]
    fn configurations_that_go_before_ours_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10-aws.conflist", "00-multus.conf", "10-eni-cni.conflist", "99-loopback.conf", "05-notes.txt"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(earlier_files(folder.path()), ["00-multus.conf", "10-aws.conflist"]);
        assert!(earlier_files(Path::new("/is/not/there")).is_empty());
    }
}
