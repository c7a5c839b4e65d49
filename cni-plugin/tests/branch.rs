//! Pods on branch ENIs (security groups for pods) with the built binary, as far as a kernel without VLANs goes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use serde_json::json;
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner, VLAN},
    ip, run_in, snapshot,
};

/// On a kernel with VLANs the whole way; elsewhere up to the link, and back.
#[test]
fn an_add_with_a_branch_goes_as_far_as_the_kernel_does_and_leaves_nothing_where_it_fails() {
    let node = Node::prepared();
    let daemon = Daemon::start_as(&node.socket(), Manner::Branch);
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let before = (node.snapshot(), snapshot(&pod));
    let answer = node.add(&sandbox);
    if answer.success {
        assert!(ip(&node.netns, "link").contains(&format!("vlan.eth.{VLAN}@")));
    } else {
        println!("NOT RUN: this kernel has no VLAN (CONFIG_VLAN_8021Q)");
        let error = answer.error();
        let text = format!("{} {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
        assert_eq!(error["code"], 111, "{error}");
        for part in ["IPAM-111 ", "CONFIG_VLAN_8021Q", "was undone", "The address was returned"] {
            assert!(text.contains(part), "{part}: {error}");
        }
        assert_eq!((node.snapshot(), snapshot(&pod)), before);
        assert!(daemon.leased().is_empty());
    }
    node.del(&sandbox).is_silent_success();
    assert_eq!((node.snapshot(), snapshot(&pod)), before);
    assert!(daemon.leased().is_empty() && node.notes().is_empty());
}

#[test]
fn a_trunk_that_is_not_there_is_named() {
    let node = Node::prepared();
    let _daemon = Daemon::start_as(&node.socket(), Manner::Branch);
    let pod = Netns::fresh().unwrap();
    let secondary =
        ip(&node.netns, "-o link show").lines().find(|line| line.contains("02:00:00:00:00:11")).unwrap().to_owned();
    let name = secondary.split(": ").nth(1).unwrap().split('@').next().unwrap().to_owned();
    ip(&node.netns, &format!("link set {name} address 02:00:00:00:00:99"));
    let error = node.add(&Sandbox::new("c1", "web-0", &pod)).error();
    assert_eq!(error["code"], 102, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("02:00:00:00:00:11, which the trunk has"), "{error}");
}

/// What such a pod leaves, with another link in the place of the VLAN's.
#[test]
fn gc_ends_pods_on_branches_that_nobody_lists_but_none_that_is_young() {
    let node = Node::prepared();
    let _daemon = Daemon::start(&node.socket());
    let before = node.snapshot();
    let uptime: u64 = std::fs::read_to_string("/proc/uptime").unwrap().split('.').next().unwrap().parse().unwrap();
    let gc = |valid: &[&str]| {
        let mut config = node.config();
        config["cniVersion"] = "1.1.0".into();
        config["cni.dev/valid-attachments"] =
            valid.iter().map(|container| json!({ "containerID": container, "ifname": "eth0" })).collect();
        stage::run(&node.netns, &[("CNI_COMMAND".into(), "GC".into())], &config.to_string()).is_silent_success();
    };
    for (container, network, since, valid, stays) in [
        ("c1", "pods", 0, &[][..], false),
        ("c1", "pods", 0, &["c1"], true),
        ("c1", "others", 0, &[], true),
        ("c1", "pods", uptime, &[], true),
    ] {
        let alias = format!("eni-cni-branch:1:{network}/{container}/eth0:{VLAN}:{since}+10.0.5.7");
        for name in ["vlan.eth.5", "eni0123456789a"] {
            ip(&node.netns, &format!("link add {name} type veth peer name p{}", name.len()));
            run_in(&node.netns, "ip", &format!("link set {name} alias {alias}"));
        }
        ip(&node.netns, "rule add priority 10 iif vlan.eth.5 lookup 105 protocol 142");
        gc(valid);
        let there = ip(&node.netns, "link").contains("eni-cni-branch:1:");
        let rule = ip(&node.netns, "rule").contains("lookup 105");
        assert_eq!((there, rule), (stays, stays), "{alias}, listed {valid:?}");
        for line in ["link del vlan.eth.5", "link del eni0123456789a", "rule del priority 10"].iter().filter(|_| stays)
        {
            ip(&node.netns, line);
        }
        assert_eq!(node.snapshot(), before);
    }
}
