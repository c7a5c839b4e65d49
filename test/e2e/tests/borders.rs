//! Borders between crates that the design promises, held against cargo's own view.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

/// Names of all crates that `package` is built from, without build and test tools.
fn crates_of(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "-p", package, "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn assert_free_of(package: &str, strangers: &[&str]) {
    let crates = crates_of(package);
    assert!(crates.len() > 2, "{package}: {crates:?}");
    let found: Vec<_> =
        crates.iter().filter(|name| strangers.iter().any(|stranger| name.starts_with(stranger))).collect();
    assert!(found.is_empty(), "{package} is built from {found:?}");
}

#[test]
fn the_plugin_sees_no_cloud_kubernetes_tls_or_database_code() {
    assert_free_of(
        "eni-cni",
        &["aws", "kube", "k8s", "rustls", "ring", "openssl", "native-tls", "sqlx", "libsqlite", "ipam"],
    );
}

#[test]
fn the_core_sees_nothing_that_could_do_something() {
    assert_free_of("ipam-core", &["tokio", "tonic", "prost", "aws", "sqlx", "netlink", "rtnetlink", "nix", "tracing"]);
}

#[test]
fn only_one_crate_needs_the_aws_sdk() {
    for package in ["eni-proto", "eni-datapath", "ec2-sim", "lab"] {
        assert_free_of(package, &["aws"]);
    }
}
