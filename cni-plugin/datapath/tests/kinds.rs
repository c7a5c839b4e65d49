//! Things that others break in ways of their own, with pods of both families: each is mended, or told.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{collections::BTreeSet, time::Instant};

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

#[test]
fn what_comes_before_ours_is_told_once_and_left() {
    let node = Guarded::dual();
    for line in [
        "ip rule add priority 100 lookup main",
        "ip -6 rule add priority 101 blackhole",
        "ip -6 route add default via fe80:ec2::1 dev eth0 table 2 metric 1",
        "ip -6 route add 2600:9999::/32 via fe80:ec2::1 dev eth0 table 2",
        // None of these takes anything from us.
        "ip rule add priority 102 from 192.0.2.1 lookup main",
        "ip rule add priority 103 not fwmark 0x1/0x1 lookup main",
        "ip rule add priority 104 lookup main suppress_prefixlength 0",
        "ip rule add priority 105 lookup local",
        "ip rule add priority 30000 lookup main",
        "ip -6 route add default via fe80:ec2::1 dev eth0 table 2 metric 2000",
        "ip route add default via 10.0.0.1 dev eth0 onlink table 2 metric 5",
    ] {
        sh(&node, line);
    }
    node.look_again();
    node.look_again();
    let told = node.repairs();
    assert!(told.iter().all(|repair| repair.outcome == Outcome::Taken), "{told:#?}");
    let told: BTreeSet<&str> = told.iter().map(|repair| repair.what.split(" on link").next().unwrap()).collect();
    assert_eq!(
        told,
        BTreeSet::from([
            "a route to 2600:9999::/32",
            "a route to ::/0",
            "a rule of priority 100 to table 254; see `ip rule show priority 100`",
            "a rule of priority 101 to table 0; see `ip -6 rule show priority 101`",
        ])
    );
}

#[test]
fn a_table_that_somebody_put_to_sleep_wakes_up() {
    let node = Guarded::dual();
    for family in ["ip", "ip6"] {
        is_mended(
            &node,
            &format!("nft 'add table {family} eni_cni {{ flags dormant; }}'"),
            "nft list ruleset | grep -c dormant || true",
        );
    }
}

/// As networkd does at a restart, NetworkManager with a link that it takes over, and a firewall's script.
#[test]
fn what_goes_all_at_once_comes_back() {
    let node = Guarded::dual();
    let show = "ip rule; ip -6 rule; for t in 2 20000; do ip route show table $t; ip -6 route show table $t; done | sed 's/ linkdown//'
        ip -o -4 address show dev eth1; ip -o -6 address show dev eth1 scope global; ip -6 neighbour show nud permanent
        nft list table ip eni_cni; nft list table ip6 eni_cni";
    for line in [
        "for f in -4 -6; do ip $f route flush table all proto 142; for n in 512 1024 1536 32765; do ip $f rule del priority $n; done; done
            ip address flush dev eth1 scope global",
        "ip link set eth1 down; ip link set eth1 up; ip link set POD down; ip link set POD up",
        "iptables-nft -t nat -N OTHERS; nft flush ruleset",
    ] {
        is_mended(&node, line, show);
    }
}

/// As long as somebody has turned IPv6 off on the link, the kernel takes neither address nor route there.
#[test]
fn what_the_kernel_refuses_is_told_once_for_each_try_of_many_and_the_rest_is_mended() {
    let node = Guarded::dual();
    let show =
        "ip -6 address show dev eth1 scope global | grep -o 'inet6 [^ ]*' || true; ip -6 route show table 2; ip rule";
    let right = sh(&node, show);
    sh(&node, "sysctl -q -w net.ipv6.conf.eth1.disable_ipv6=1");
    let deadline = Instant::now() + PATIENCE * 3;
    while node.guard.drift().kinds.get(&Kind::Address).is_none_or(|address| address.refused < 8) {
        assert!(Instant::now() < deadline, "{:#?}", node.guard.drift());
    }
    let told = node.repairs();
    let refused = told.iter().filter(|it| it.kind == Kind::Address && matches!(it.outcome, Outcome::Refused(_)));
    let pauses = node.guard.drift().kinds[&Kind::Address].left_alone;
    assert!((1..=pauses + 1).contains(&(refused.count() as u64)), "{told:#?}");
    is_rule_back(&node, deadline);
    let told = node.repairs();
    assert!(!told.iter().any(|it| matches!(it.outcome, Outcome::LeftAlone(_))), "nobody fights here: {told:#?}");

    sh(&node, "sysctl -q -w net.ipv6.conf.eth1.disable_ipv6=0");
    while sh(&node, show) != right {
        assert!(Instant::now() < deadline, "{}\n{:#?}", sh(&node, show), node.repairs());
    }
}

fn is_rule_back(node: &Guarded, deadline: Instant) {
    sh(node, "ip rule del priority 512");
    while !sh(node, "ip rule").contains("512:") {
        assert!(Instant::now() < deadline, "{:#?}", node.repairs());
    }
}
