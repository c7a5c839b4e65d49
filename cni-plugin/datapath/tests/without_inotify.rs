//! A node on which every inotify instance of the user is taken, as by agents that follow many files.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{env, fs, process::Command, time::Instant};

use world::{
    guarded::{Guarded, PATIENCE, settled},
    ip,
};

const INSIDE: &str = "IN_A_USER_NAMESPACE";

/// The limit is a user namespace's own, so the test starts itself again in one.
#[test]
fn a_guard_that_may_not_watch_files_says_so_and_mends_all_the_same() {
    if env::var_os(INSIDE).is_some() {
        return mends_without_inotify();
    }
    let name = "a_guard_that_may_not_watch_files_says_so_and_mends_all_the_same";
    let limited = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", limited, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{}\n{}", said[0], said[1]);
}

fn mends_without_inotify() {
    let node = Guarded::new();
    assert!(node.guard.unwatched().is_some());
    let right = node.world.on_node(settled);
    node.world.on_node(|| {
        fs::write("/proc/sys/net/ipv4/conf/eth1/arp_ignore", "0").unwrap();
        ip("rule del priority 512");
        node.wait_for(&right, "a rule that is gone");
        let deadline = Instant::now() + PATIENCE;
        while fs::read_to_string("/proc/sys/net/ipv4/conf/eth1/arp_ignore").unwrap().trim() != "1" {
            assert!(Instant::now() < deadline, "{:#?}", node.repairs());
        }
    });
}
