//! The fabric does to packets what a VPC does; shown on the real kernel, without any code that is under test elsewhere.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use ipam_core::ports::{Attachment, Cidr4, Interface, InterfaceKind};
use lab::{INTERNET_HOST, INTERNET_HOST_V6, Lab, Node};

const PATIENCE: Duration = Duration::from_secs(1);

fn ip(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

/// An ENI whose MAC ends in `number`, attached to `instance` at `index`.
fn eni(number: u8, instance: &str, index: u8, addresses: &[&str]) -> Interface {
    Interface {
        id: format!("eni-{number}").parse().unwrap(),
        mac: format!("02:00:00:00:00:{number:02x}").parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: ip(addresses[0]),
        secondary: addresses[1..].iter().copied().map(ip).collect(),
        prefixes: vec![],
        prefixes6: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(Attachment {
            id: format!("eni-attach-{number}").parse().unwrap(),
            instance: instance.parse().unwrap(),
            device_index: index,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    }
}

fn two_nodes() -> (Lab, Arc<Node>, Arc<Node>) {
    let lab = Lab::new().unwrap();
    lab.add_subnet("subnet-1".parse().unwrap(), Cidr4 { network: ip("10.0.0.0"), prefix: 22 });
    let one = lab.add_node("i-1".parse().unwrap(), "node-1").unwrap();
    let two = lab.add_node("i-2".parse().unwrap(), "node-2").unwrap();
    (lab, one, two)
}

fn primaries() -> [Interface; 2] {
    [eni(1, "i-1", 0, &["10.0.0.11", "10.0.0.111"]), eni(2, "i-2", 0, &["10.0.0.12"])]
}

/// What shall arrive may take this long on a busy machine.
const LONG: Duration = Duration::from_secs(5);

/// As [`ping_from`], for an answer that shall come.
fn reaches_from(node: &Node, source: &str, target: &str) -> bool {
    node.namespace().run(&["ping", "-n", "-c", "5", "-i", "0.3", "-W", "2", "-I", source, target]).is_ok()
}

/// Pings from `source`, which must be an address of the node, and tells whether the answer came.
fn ping_from(node: &Node, source: &str, target: &str) -> bool {
    node.namespace().run(&["ping", "-n", "-c", "1", "-W", "1", "-I", source, target]).is_ok()
}

#[test]
fn nodes_reach_each_other_and_the_internet_by_their_primary_addresses() {
    let (lab, one, two) = two_nodes();
    lab.sync(&primaries()).unwrap();

    assert!(one.namespace().ping(ip("10.0.0.12"), PATIENCE).unwrap().answered);
    assert!(two.namespace().ping(ip("10.0.0.11"), PATIENCE).unwrap().answered);
    assert!(two.namespace().ping(ip("10.0.0.1"), PATIENCE).unwrap().answered, "the router answers");
    assert!(one.namespace().ping(INTERNET_HOST, PATIENCE).unwrap().answered);
    assert_eq!(lab.internet_saw().unwrap(), BTreeMap::from([(ip("10.0.0.11"), 1)]));
    assert_eq!(lab.drops().unwrap().to_string(), "none");
}

/// A node's own address, and a prefix for its pods.
fn give_ipv6(lab: &Lab, eni: &str, host: u16) {
    let networks = [(ip6(&format!("2600:1f00::{host:x}")), 128), (ip6(&format!("2600:1f00::{host:x}:0:0:0")), 80)];
    lab.give_ipv6(eni.parse().unwrap(), networks);
}

fn ip6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

#[test]
fn ipv6_networks_are_delivered_to_their_eni_and_other_sources_dropped() {
    let (lab, one, two) = two_nodes();
    give_ipv6(&lab, "eni-1", 0x11);
    give_ipv6(&lab, "eni-2", 0x12);
    lab.sync(&primaries()).unwrap();
    for (node, address) in [(&one, "2600:1f00::11:0:0:7"), (&two, "2600:1f00::12:0:0:7"), (&two, "2600:1f00::dead")] {
        // The kernel makes it the node's own some time later.
        let own = format!("addr add {address}/128 dev lo nodad\nroute replace local {address} dev lo table local\n");
        node.namespace().ip(&own).unwrap();
    }

    assert!(one.namespace().ping(INTERNET_HOST_V6, LONG).unwrap().answered);
    assert!(one.namespace().ping(ip6("2600:1f00::12"), LONG).unwrap().answered);
    assert!(reaches_from(&two, "2600:1f00::12:0:0:7", "2600:1f00::11:0:0:7"));
    assert_eq!(lab.drops().unwrap().to_string(), "none");

    assert!(!ping_from(&two, "2600:1f00::dead", "2600:1f00::11"));
    assert_eq!(lab.drops().unwrap().to_string(), "1 from 2600:1f00::dead by eni-2, which does not own it\n");

    // The prefix moves to the other node's ENI.
    lab.give_ipv6("eni-2".parse().unwrap(), [(ip6("2600:1f00::12"), 128)]);
    lab.give_ipv6("eni-1".parse().unwrap(), [(ip6("2600:1f00::11"), 128), (ip6("2600:1f00::12:0:0:0"), 80)]);
    lab.sync(&primaries()).unwrap();
    assert!(!ping_from(&two, "2600:1f00::12:0:0:7", "2600:1f00::11"));
    assert_eq!(lab.drops().unwrap().total(), 2);
}

#[test]
fn an_address_is_delivered_to_its_owner_and_follows_it() {
    let (lab, one, two) = two_nodes();
    let [first, second] = primaries();
    lab.sync(&[first.clone(), second.clone()]).unwrap();
    for node in [&one, &two] {
        node.namespace().ip("addr add 10.0.0.111/32 dev lo\n").unwrap();
    }
    let counted = |node: &Node| {
        let statistics = node.namespace().run(&["ip", "-s", "-j", "link", "show", "eth0"]).unwrap();
        let links: serde_json::Value = serde_json::from_str(&statistics).unwrap();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };
    let arrived = || (counted(&one), counted(&two));

    let before = arrived();
    lab_router_pings(&lab, "10.0.0.111");
    let after = arrived();
    assert!(after.0 > before.0 && after.1 == before.1, "{before:?} {after:?}");
    assert_eq!(lab.owner(ip("10.0.0.111")), Some(first.id.clone()));

    let moved = Interface { secondary: vec![], ..first };
    let mover = Interface { secondary: vec![ip("10.0.0.111")], ..second };
    lab.sync(&[moved, mover.clone()]).unwrap();
    let before = arrived();
    lab_router_pings(&lab, "10.0.0.111");
    let after = arrived();
    assert!(after.1 > before.1 && after.0 == before.0, "{before:?} {after:?}");
    assert_eq!(lab.owner(ip("10.0.0.111")), Some(mover.id));
}

/// A ping from the fabric itself takes the way that a delivered packet takes.
fn lab_router_pings(lab: &Lab, target: &str) {
    let namespace = lab.fabric();
    let _answered_or_not = namespace.ping(ip(target), PATIENCE).unwrap();
}

#[test]
fn a_packet_with_a_source_of_another_eni_is_dropped_and_counted() {
    let (lab, one, _two) = two_nodes();
    let [first, second] = primaries();
    let extra = eni(3, "i-1", 1, &["10.0.0.13", "10.0.0.113"]);
    lab.sync(&[first.clone(), second, extra.clone()]).unwrap();
    one.namespace().ip("addr add 10.0.0.113/32 dev lo\naddr add 10.0.0.99/32 dev lo\n").unwrap();

    // 10.0.0.113 belongs to the second ENI, but the node's routes send it out by the first.
    assert!(!ping_from(&one, "10.0.0.113", "10.0.0.12"));
    let drops = lab.drops().unwrap();
    assert_eq!((drops.of(&first.id), drops.of(&extra.id), drops.total()), (1, 0, 1), "{drops}");
    assert_eq!(drops.to_string(), "1 from 10.0.0.113 by eni-1, which does not own it\n");

    // Nobody owns 10.0.0.99.
    assert!(!ping_from(&one, "10.0.0.99", "10.0.0.12"));
    assert_eq!(lab.drops().unwrap().of(&first.id), 2);

    // By its own ENI it arrives.
    one.namespace()
        .ip("addr add 10.0.0.13/32 dev eth1\nlink set eth1 up\nroute add 10.0.0.1 dev eth1 table 2\n\
             route add default via 10.0.0.1 dev eth1 table 2\nrule add from 10.0.0.113 lookup 2\n")
        .unwrap();
    assert!(reaches_from(&one, "10.0.0.113", "10.0.0.12"));
    assert_eq!(lab.drops().unwrap().total(), 2);
}

#[test]
fn the_internet_gateway_drops_an_address_without_a_public_one() {
    let (lab, one, _two) = two_nodes();
    lab.sync(&primaries()).unwrap();
    one.namespace().ip("addr add 10.0.0.111/32 dev lo\n").unwrap();

    assert!(ping_from(&one, "10.0.0.111", "10.0.0.12"), "inside the VPC the address is good");
    assert!(!ping_from(&one, "10.0.0.111", &INTERNET_HOST.to_string()));

    let drops = lab.drops().unwrap();
    assert_eq!(drops.no_public_address, BTreeMap::from([(ip("10.0.0.111"), 1)]));
    assert_eq!(drops.wrong_source, []);
    assert_eq!(lab.internet_saw().unwrap(), BTreeMap::new());
}

#[test]
fn an_attached_eni_appears_as_a_bare_link_with_its_mac_and_vanishes_when_detached() {
    let (lab, one, _two) = two_nodes();
    let link = || one.namespace().run(&["ip", "-j", "addr", "show", "dev", "eth2"]);
    let mut described = primaries().to_vec();
    lab.sync(&described).unwrap();
    assert!(link().is_err());

    described.push(eni(4, "i-1", 2, &["10.0.0.14", "10.0.0.114"]));
    lab.sync(&described).unwrap();
    let seen: serde_json::Value = serde_json::from_str(&link().unwrap()).unwrap();
    assert_eq!(seen[0]["address"], "02:00:00:00:00:04");
    assert_eq!(seen[0]["operstate"], "DOWN");
    assert_eq!(seen[0]["addr_info"], serde_json::json!([]));

    described.pop();
    lab.sync(&described).unwrap();
    assert!(link().is_err());
    assert_eq!(lab.owner(ip("10.0.0.114")), None);
}

#[test]
fn two_full_nodes_are_up_within_a_second() {
    let started = Instant::now();
    let (lab, one, _two) = two_nodes();
    let mut described = Vec::new();
    for node in 1..=2_u8 {
        for index in 0..4_u8 {
            let texts: Vec<String> = (0..15).map(|n| format!("10.0.{node}.{}", 16 * index + n + 5)).collect();
            let addresses: Vec<&str> = texts.iter().map(String::as_str).collect();
            described.push(eni(10 * node + index, &format!("i-{node}"), index, &addresses));
        }
    }
    lab.sync(&described).unwrap();
    let took = started.elapsed();

    assert!(one.namespace().ping(ip("10.0.2.5"), PATIENCE).unwrap().answered);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn listeners_inside_a_node_answer_only_there() {
    let (_lab, one, two) = two_nodes();
    let listener = one.listen_imds().unwrap();
    let address = lab::IMDS_ADDRESS.into();
    let connect = |node: &Node| {
        node.namespace().inside(|| std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok()).unwrap()
    };

    assert!(connect(&one));
    assert!(!connect(&two));
    assert_eq!(listener.local_addr().unwrap().ip(), IpAddr::V4(*lab::IMDS_ADDRESS.ip()));
}

#[test]
fn a_dropped_lab_leaves_nothing() {
    let (lab, one, _two) = two_nodes();
    lab.sync(&primaries()).unwrap();
    let daemon = one.daemon("waiter", &["tail".into(), "-f".into(), "/dev/null".into()], &[]).unwrap();
    let mine = namespaces_of(daemon.pid());
    let directory = lab.directory().to_owned();
    assert!(holders(&mine).contains(&daemon.pid()));

    drop(daemon);
    drop((lab, one, _two));
    assert_eq!(holders(&mine), BTreeSet::new());
    assert!(!directory.exists());
}

/// Identity of a process's network namespace.
fn namespaces_of(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino()
}

/// Processes that run in the namespace, and ourselves while we hold it open.
fn holders(namespace: &u64) -> BTreeSet<u32> {
    let is_it = |path: PathBuf| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == *namespace);
    let mut holders: BTreeSet<u32> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(|pid| is_it(format!("/proc/{pid}/ns/net").into()))
        .collect();
    if fs::read_dir("/proc/self/fd").unwrap().any(|fd| fd.is_ok_and(|fd| is_it(fd.path()))) {
        holders.insert(std::process::id());
    }
    holders
}
