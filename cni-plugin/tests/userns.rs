//! A pod with `hostUsers: false`: its network namespace belongs to a user namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use eni_datapath::Netns;
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
    ip, run_in, snapshot,
};

/// The pod's first process; it ends with the test.
struct Pause(Child);

impl Pause {
    fn start() -> Self {
        let pause = ["--user", "--map-root-user", "--net", "sh", "-c", "echo there; read never"];
        let mut child =
            Command::new("unshare").args(pause).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "there\n");
        Self(child)
    }

    fn netns(&self) -> Netns {
        Netns::open_other(Path::new(&format!("/proc/{}/ns/net", self.0.id()))).unwrap()
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn a_pod_in_a_user_namespace_of_its_own_is_wired_checked_and_taken_back_as_any_other() {
    let node = Node::prepared();
    let pause = Pause::start();
    let pod = pause.netns();
    for (manner, ipv6) in [(Manner::Secondary, false), (Manner::Both, true)] {
        let daemon = Daemon::start_as(&node.socket(), manner);
        // As runtimes do; for a pod with IPv6 the plugin switches it on again.
        run_in(&pod, "sysctl", "-q -w net.ipv6.conf.default.disable_ipv6=1");
        let sandbox = Sandbox::new("c1", "web-0", &pod);
        let before = (node.snapshot(), snapshot(&pod));
        let mut config = node.config();
        config["prevResult"] = node.add(&sandbox).result();
        node.run("CHECK", &sandbox, &config).is_silent_success();
        assert!(ip(&pod, "route").contains("default via 169.254.1.1 dev eth0"));
        assert_eq!(ip(&pod, "-6 address show dev eth0").contains("2600:1f00::1"), ipv6);
        node.del(&sandbox).is_silent_success();
        assert_eq!((node.snapshot(), snapshot(&pod)), before);
        assert!(daemon.leased().is_empty());
    }
}
