//! Installing on a node whose folders are full, read-only or missing: said clearly, and nothing half-installed.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{fs, os::unix::net::UnixListener, path::PathBuf, process::Command};

use e2e::Binaries;

/// What `ipamd install` did in a mount namespace of its own.
#[derive(Debug)]
struct Outcome {
    installed: bool,
    said: String,
    /// What then lies in the folder of plugins, hidden files too.
    files: Vec<String>,
    /// What then answers VERSION in it, if the plugin does.
    answers: bool,
}

/// A node's folders `bin` and `net.d`.
fn node() -> tempfile::TempDir {
    let node = tempfile::tempdir().unwrap();
    for name in ["bin", "net.d"] {
        fs::create_dir(node.path().join(name)).unwrap();
    }
    node
}

/// A stand-in for the version that was there before.
const FORMER: &str = "#!/bin/sh\necho '{}'\n";

/// Prepares the node by a script that finds its folder in `$NODE`, and installs.
fn install(node: &tempfile::TempDir, prepare: &str) -> Outcome {
    let binaries = Binaries::from_environment().unwrap_or_else(|trouble| panic!("{}", trouble.chain()));
    let script = format!(
        "set -e\n{prepare}\nset +e\n\"$IPAMD\" install --plugin \"$PLUGIN\"; code=$?\n\
         ls -A \"$NODE/bin\" | sed 's/^/file /'\n\
         CNI_COMMAND=VERSION \"$NODE/bin/eni-cni\" </dev/null >/dev/null 2>&1 && echo answers\nexit $code"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--propagation", "private", "sh", "-c", &script]).env_clear();
    let at = |name: &str| node.path().join(name);
    let paths: [(&str, PathBuf); 5] = [
        ("NODE", node.path().to_path_buf()),
        ("HOST_CNI_BIN_PATH", at("bin")),
        ("HOST_CNI_CONFDIR_PATH", at("net.d")),
        ("IPAMD", binaries.ipamd),
        ("PLUGIN", binaries.plugin),
    ];
    let output = command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(paths).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    Outcome {
        installed: output.status.success(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        files: listed.lines().filter_map(|line| line.strip_prefix("file ")).map(str::to_owned).collect(),
        answers: listed.lines().any(|line| line == "answers"),
    }
}

/// The folder of plugins as a file system of its own, of this many KiB, with the former version in it.
fn small(kib: usize) -> String {
    format!(
        "mount -t tmpfs -o size={kib}k,mode=755 none \"$NODE/bin\"\n\
         printf '%s' \"{}\" >\"$NODE/bin/eni-cni\"\nchmod 755 \"$NODE/bin/eni-cni\"",
        FORMER.replace('"', "\\\"")
    )
}

#[test]
fn a_full_disk_leaves_the_former_plugin_and_nothing_else() {
    let node = node();
    let outcome = install(&node, &small(64));
    assert!(!outcome.installed, "{outcome:?}");
    assert!(outcome.said.contains("IPAM-324") && outcome.said.contains("No space left on device"), "{outcome:?}");
    assert!(outcome.answers, "{outcome:?}");
    assert_eq!(outcome.files, ["eni-cni"], "nothing half-written is left");
    let outcome = install(&node, &small(64 << 10));
    assert!(outcome.installed, "with space it works: {outcome:?}");
    assert_eq!(outcome.files, ["eni-cni", "eni-cni.previous"]);
}

#[test]
fn a_read_only_folder_is_named() {
    let node = node();
    let outcome = install(&node, &format!("{}\nmount -o remount,ro \"$NODE/bin\"", small(64 << 10)));
    assert!(!outcome.installed, "{outcome:?}");
    let folder = node.path().join("bin").display().to_string();
    for part in ["IPAM-324", folder.as_str(), "Read-only file system"] {
        assert!(outcome.said.contains(part), "{part} is not in {outcome:?}");
    }
    assert!(outcome.answers, "{outcome:?}");
    assert_eq!(outcome.files, ["eni-cni"]);
}

#[test]
fn a_folder_that_is_not_mounted_is_not_made() {
    let node = node();
    let outcome = install(&node, "rmdir \"$NODE/bin\"");
    assert!(!outcome.installed, "{outcome:?}");
    assert!(outcome.said.contains("IPAM-324") && outcome.said.contains("No such file or directory"), "{outcome:?}");
    assert!(!node.path().join("bin").exists());
}

#[test]
fn a_node_that_the_incumbent_serves_is_left_alone() {
    let node = node();
    let outcome = install(&node, "echo '{}' >\"$NODE/net.d/10-aws.conflist\"");
    assert!(!outcome.installed, "{outcome:?}");
    assert!(outcome.said.contains("IPAM-325") && outcome.said.contains("ipamd migrate import"), "{outcome:?}");
    assert_eq!(outcome.files, Vec::<String>::new());
}

#[test]
fn a_node_where_the_incumbent_starts_is_left_alone() {
    let node = node();
    // Before it serves there is no configuration of its yet, but it listens.
    fs::create_dir(node.path().join("aws-node")).unwrap();
    let _listener = UnixListener::bind(node.path().join("aws-node/ipamd.sock")).unwrap();
    let outcome = install(&node, "export AWS_VPC_K8S_CNI_BACKING_STORE=\"$NODE/aws-node/ipam.json\"");
    assert!(!outcome.installed, "{outcome:?}");
    assert!(outcome.said.contains("IPAM-351") && outcome.said.contains("aws-node/ipamd.sock"), "{outcome:?}");
    assert_eq!(outcome.files, Vec::<String>::new());
}
