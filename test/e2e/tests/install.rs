//! A node's life with us: plugin installed, configuration written when the node can serve, everything gone again.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{
    Worker,
    flight::{self},
};
use lab::wait;
use serde_json::Value;

mod stage;

use stage::{PATIENCE, cluster};

/// The host's folders, as a pod of the DaemonSet sees them.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "net.d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> Vec<(String, String)> {
        let setting = |name: &str, folder: &str| (name.to_owned(), self.path(folder).display().to_string());
        vec![setting("HOST_CNI_BIN_PATH", "bin"), setting("HOST_CNI_CONFDIR_PATH", "net.d")]
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let names = fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Runs a command of `ipamd` on the node; returns whether it succeeded, and all that it said.
fn ipamd(worker: &Worker, host: &Host, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(&worker.binaries().ipamd);
    command.args(arguments).env_clear().envs(host.settings());
    let output = worker.node().namespace().output(&mut command, &[]).unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_installed_serves_and_is_left_without_a_trace() {
    let host = Host::new();
    let settings = host.settings();
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let cluster = cluster(1, &settings).await;
    let worker = &cluster.workers[0];
    let plugin = worker.binaries().plugin.display().to_string();

    let (done, said) = ipamd(worker, &host, &["install", "--plugin", &plugin]);
    assert!(done && said.contains("1.1.0"), "{said}");
    assert_eq!(host.files("bin"), ["eni-cni"]);
    assert_eq!(fs::read(host.path("bin/eni-cni")).unwrap(), fs::read(&plugin).unwrap());

    // Before EC2 has been seen there is no address to give, so the node must not look ready.
    worker.cut_ec2();
    worker.start_daemon().unwrap();
    wait::until(PATIENCE, "the daemon to answer", || async { worker.status().await.map(drop) }).await.unwrap();
    assert_eq!(host.files("net.d"), Vec::<String>::new());
    worker.connect_ec2().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    let written = || async {
        let file = host.path("net.d/10-eni-cni.conflist");
        fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))
    };
    let list: Value = serde_json::from_slice(&wait::until(PATIENCE, "the conflist", written).await.unwrap()).unwrap();
    let wanted = worker.configuration();
    for key in ["type", "socket", "releasedDir"] {
        assert_eq!(list["plugins"][0][key], wanted[key], "{list}");
    }
    assert_eq!(list["name"], wanted["name"]);

    let pods = flight::add(&cluster, &flight::sandboxes(2).unwrap()).await.unwrap();
    let (done, said) = ipamd(worker, &host, &["uninstall"]);
    assert!(!done && said.contains("IPAM-326 2 pod"), "{said}");
    assert_eq!((host.files("bin").len(), host.files("net.d").len()), (1, 1), "nothing was touched");

    flight::delete(&cluster, &pods).await.unwrap();
    assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    assert_eq!(host.files("net.d").len(), 1, "a daemon that stops for a while leaves the node ready");
    let (done, said) = ipamd(worker, &host, &["uninstall"]);
    assert!(done && said.contains("10-eni-cni.conflist") && said.contains("nf_tables table"), "{said}");
    assert_eq!((host.files("bin").len(), host.files("net.d").len()), (0, 0));
    assert_eq!(left_in_kernel(worker), "");
    let (done, said) = ipamd(worker, &host, &["uninstall"]);
    assert!(done && said.is_empty(), "the second time there is nothing to do: {said}");
    assert!(Path::new(&plugin).exists());
}

/// Rules and nf_tables tables of ours, as the system's own tools list them.
fn left_in_kernel(worker: &Worker) -> String {
    let namespace = worker.node().namespace();
    let rules = namespace.run(&["ip", "rule"]).unwrap();
    let tables = namespace.run(&["nft", "list", "tables"]).unwrap();
    let ours = |line: &&str| line.contains("20000") || line.contains("fwmark") || line.contains("eni_cni");
    rules.lines().chain(tables.lines()).filter(ours).collect()
}
