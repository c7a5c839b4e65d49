//! Things that others break in ways of their own, with pods of both families: each is mended, or told.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::time::Instant;

use eni_datapath::{Kind, Netns, Outcome, add_pod};
use world::{
    MARK,
    guarded::{Guarded, PATIENCE, POD_V6},
    run, wiring,
};

/// Carries out lines of a shell on the node.
fn sh(node: &Guarded, line: &str) -> String {
    let line = if line.contains("POD") { line.replace("POD", &node.pod_link()) } else { line.to_owned() };
    let output = node.world.on_node(|| std::process::Command::new("sh").args(["-ec", &line]).output().unwrap());
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Breaks something, and waits until what `show` tells is as before and everything is mended.
fn is_mended(node: &Guarded, line: &str, show: &str) {
    let right = sh(node, show);
    let known = node.repairs().len();
    sh(node, line);
    let deadline = Instant::now() + PATIENCE;
    // What was mended is told right after it.
    while sh(node, show) != right || node.repairs().len() == known {
        assert!(Instant::now() < deadline, "`{line}`: {}, not {right}: {:#?}", sh(node, show), node.repairs());
    }
    let repairs = node.repairs().split_off(known);
    assert!(repairs.iter().all(|repair| repair.outcome == Outcome::Mended), "`{line}`: {repairs:#?}");
}

#[test]
fn a_link_that_alone_does_not_forward_does_so_again() {
    let node = Guarded::dual();
    for link in ["eth0", "eth1", "POD"] {
        let setting = format!("net.ipv4.conf.{link}.forwarding");
        is_mended(&node, &format!("sysctl -q -w {setting}=0"), &format!("sysctl -n {setting}"));
    }
}

#[test]
fn a_pod_forwards_where_new_links_do_not() {
    let node = Guarded::new();
    sh(&node, "sysctl -q -w net.ipv4.conf.default.forwarding=0");
    let netns = Netns::fresh().unwrap();
    let added = node.world.on_node(|| {
        let added = add_pod(&wiring("c3", "web-3", [10, 0, 1, 3], MARK, &netns)).unwrap();
        run("sysctl", &format!("-n net.ipv4.conf.{}.forwarding", added.host_link))
    });
    assert_eq!(added.trim(), "1");
}

#[test]
fn where_a_pods_ipv6_address_is_nobody_else_says() {
    let node = Guarded::dual();
    let show = "ip -6 neighbour show nud permanent";
    let elsewhere = format!("{POD_V6} lladdr 02:00:00:00:99:99 dev POD");
    for line in [
        "ip -6 neighbour flush dev POD nud permanent",
        &format!("ip -6 neighbour replace {elsewhere} nud permanent"),
        &format!("ip -6 neighbour replace {elsewhere} nud stale"),
    ] {
        is_mended(&node, line, show);
    }
}

#[test]
fn an_element_that_says_something_else_of_a_pod_is_ours_again() {
    let node = Guarded::dual();
    for (family, address) in [("ip", "10.0.1.2"), ("ip6", POD_V6)] {
        let element =
            |verb: &str, verdict: &str| format!("{verb} element {family} eni_cni pod_eni {{ {address}{verdict} }}");
        let line = format!("nft '{}; {}'", element("delete", ""), element("add", " : drop"));
        is_mended(&node, &line, &format!("nft list map {family} eni_cni pod_eni"));
    }
}

/// What a pod's link says of itself is all that the guard knows of the pod.
#[test]
fn what_a_pods_link_says_of_itself_and_its_mtu_are_given_back() {
    let node = Guarded::dual();
    let link = node.pod_link();
    let show =
        format!("ip -json link show {link} | grep -o '\"\\(mtu\\|ifalias\\)\":[^,]*'; nft list map ip eni_cni pod_eni");
    for change in ["alias 'uplink of somebody'", "alias ''", "mtu 1400"] {
        is_mended(&node, &format!("ip link set {link} {change}"), &show);
    }
    let told = node.repairs();
    assert!(told.iter().all(|repair| repair.kind == Kind::Link), "its elements stay: {told:#?}");
}
