//! Pods with interfaces on several network cards: wired together, checked together, taken back together.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{Node, Sandbox, daemon::Daemon, ip, ip_json, snapshot};

/// A configuration as the runtime passes it for a pod that is annotated.
fn asking(node: &Node) -> Value {
    let annotations = json!({ "k8s.amazonaws.com/nicConfig": "multi-nic-attachment" });
    let mut config = node.config();
    config["cniVersion"] = "1.1.0".into();
    config["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": annotations });
    config
}

/// A node, its daemon that gives such pods two interfaces more, and a pod.
fn scene() -> (Node, Daemon, Netns, Sandbox) {
    let node = Node::prepared();
    let daemon = Daemon::start(&node.socket());
    daemon.book().further = 2;
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    (node, daemon, pod, sandbox)
}

fn lines(netns: &Netns, command: &str) -> Vec<String> {
    ip(netns, command).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn each_interface_has_its_address_and_its_own_way_out() {
    let (node, daemon, pod, sandbox) = scene();
    let before = node.snapshot();
    let result = node.run("ADD", &sandbox, &asking(&node)).result();

    let names: Vec<_> = result["interfaces"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    let [_, eth0, _, first, _, second] = names.as_slice() else { panic!("{result}") };
    assert_eq!([eth0, first, second], ["eth0", "mNicIf1", "mNicIf2"]);
    let ips = result["ips"].as_array().unwrap();
    let told: Vec<_> =
        ips.iter().map(|ip| (ip["address"].as_str().unwrap(), ip["interface"].as_u64().unwrap())).collect();
    assert_eq!(told, [("10.0.0.1/32", 1), ("10.0.0.2/32", 3), ("10.0.0.3/32", 5)]);

    let rules = lines(&pod, "rule show");
    for (interface, address) in [("mNicIf1", "10.0.0.2"), ("mNicIf2", "10.0.0.3")] {
        let seen = &ip_json(&pod, &format!("-4 address show {interface}"))[0];
        assert_eq!(seen["addr_info"][0]["local"], address);
        let table = 20_000 + seen["ifindex"].as_u64().unwrap();
        assert!(rules.iter().any(|rule| rule.contains(&format!("from {address} lookup {table} "))), "{rules:?}");
        let ways = lines(&pod, &format!("route show table {table}"));
        assert!(ways.iter().any(|way| way.contains(&format!("default via 169.254.1.1 dev {interface}"))), "{ways:?}");
    }
    let ways = lines(&pod, "route show");
    assert!(ways.iter().any(|way| way.contains("default via 169.254.1.1 dev eth0")), "{ways:?}");

    // The same again, and gone.
    assert_eq!(node.run("ADD", &sandbox, &asking(&node)).result(), result);
    node.del(&sandbox).is_silent_success();
    assert_eq!(node.snapshot(), before);
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_check_looks_at_every_interface() {
    let (node, _daemon, pod, sandbox) = scene();
    let mut config = asking(&node);
    config["prevResult"] = node.run("ADD", &sandbox, &config).result();
    node.run("CHECK", &sandbox, &config).is_silent_success();

    ip(&pod, "rule del from 10.0.0.3");
    let answer = node.run("CHECK", &sandbox, &config);
    assert!(!answer.success && answer.stdout.contains("IPAM-108"), "{}", answer.stdout);
    assert!(answer.stdout.contains("rule in the pod") && answer.stdout.contains("10.0.0.3"), "{}", answer.stdout);
}

#[test]
fn when_one_cannot_be_wired_none_is_left_and_all_addresses_are_returned() {
    let (node, daemon, pod, sandbox) = scene();
    ip(&pod, "link add mNicIf2 type veth peer name taken");
    let before = (node.snapshot(), snapshot(&pod));
    let answer = node.run("ADD", &sandbox, &asking(&node));
    assert!(!answer.success && answer.stdout.contains("IPAM-104"), "{}", answer.stdout);
    assert_eq!((node.snapshot(), snapshot(&pod)), before);
    assert!(daemon.leased().is_empty(), "{:?}", daemon.leased());
}

#[test]
fn a_del_without_a_daemon_removes_all_and_leaves_one_note() {
    let (node, daemon, _pod, sandbox) = scene();
    let before = node.snapshot();
    node.run("ADD", &sandbox, &asking(&node)).result();
    drop(daemon);
    std::fs::remove_file(node.socket()).unwrap();
    node.del(&sandbox).is_silent_success();
    assert_eq!(node.snapshot(), before);
    assert_eq!(node.notes(), [sandbox.key()]);
}

#[test]
fn a_gc_keeps_what_came_with_a_valid_interface_and_removes_the_rest() {
    let (node, daemon, _pod, sandbox) = scene();
    let before = node.snapshot();
    let config = asking(&node);
    node.run("ADD", &sandbox, &config).result();
    let wired = node.snapshot();
    let mut listed = config.clone();
    listed["cni.dev/valid-attachments"] = json!([{ "containerID": "c1", "ifname": "eth0" }]);
    daemon.book().given_meanwhile = None;
    node.run("GC", &sandbox, &listed).is_silent_success();
    assert_eq!(node.snapshot(), wired);
    listed["cni.dev/valid-attachments"] = json!([]);
    node.run("GC", &sandbox, &listed).is_silent_success();
    assert_eq!(node.snapshot(), before);
}
