//! Others have done something to the node that keeps a pod from being wired: the plugin says what and what to do, and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
    ip, run_in, snapshot,
};

/// The host's side of `default/web-0`.
const LINK: &str = "eni0d7763386da";

/// What they did, with an ADD of this manner, and what is said then.
type Case = (fn(&Netns), Manner, &'static str, &'static str);

#[rustfmt::skip]
const CASES: [Case; 5] = [
    (|node| drop(ip(node, &format!("link add {LINK} type bridge"))), Manner::Secondary,
        "the host has a link `eni0d7763386da` already, and it is not a pod's",
        "Rename or remove that link; `ip -details link show eni0d7763386da` says what it is."),
    (|node| drop(ip(node, "address add 10.0.0.1/16 dev eth1")), Manner::Secondary,
        "the host has the address 10.0.0.1 itself",
        "Take the address off the host's interface, and keep off what put it there; see `ip address show to 10.0.0.1`."),
    (|node| drop(ip(node, "route add 10.0.0.1/32 dev eth1 table 20000")), Manner::Secondary,
        "another link has the route for 10.0.0.1",
        "ipamd removes what leads to an address that is returned; see `ip route show table 20000 10.0.0.1`."),
    (|node| run_in(node, "nft", "flush ruleset"), Manner::Secondary,
        "nf_tables table ip eni_cni is not prepared",
        "ipamd makes the table at its start, and again when it is gone; `ipamd status` shows whether it runs."),
    (|node| run_in(node, "sysctl", "-q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"), Manner::Both,
        "the pod is to have 2600:1f00::1, and new links of this node have no IPv6",
        "Switch it on, see `sysctl net.ipv6.conf.default.disable_ipv6`, or let this node's pods do without."),
];

fn both_families(netns: &Netns) -> String {
    let of_ipv6 = ["-6 route show table all proto 142", "-6 neighbour show nud permanent", "-6 rule"];
    format!("{}\n{}", snapshot(netns), of_ipv6.map(|list| ip(netns, list)).concat())
}

#[test]
fn whatever_is_in_the_way_of_a_pod_is_said_with_what_to_do_about_it_and_nothing_is_left() {
    for (others, manner, what, to_do) in CASES {
        let node = Node::prepared();
        others(&node.netns);
        let daemon = Daemon::start_as(&node.socket(), manner);
        let pod = Netns::fresh().unwrap();
        let sandbox = Sandbox::new("c1", "web-0", &pod);
        let before = (both_families(&node.netns), both_families(&pod));
        let error = node.add(&sandbox).error();
        assert_eq!(error["code"], 102, "{error}");
        let (message, details) = (error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
        assert!(message.starts_with("IPAM-102 ") && message.contains(what), "{message}");
        assert_eq!(details, format!("What was begun was undone. {to_do} The address was returned."));
        assert_eq!((both_families(&node.netns), both_families(&pod)), before, "{what}");
        assert!(daemon.leased().is_empty() && node.notes().is_empty(), "{what}");
        node.del(&sandbox).is_silent_success();
        assert_eq!(both_families(&node.netns), before.0, "DEL after: {what}");
    }
}
