//! A connection to the world outside that begins while our table is gone leaves as the pod, and nobody answers it. When the table is
//! back, its next packet begins it anew.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    net::{SocketAddrV4, UdpSocket},
    time::Instant,
};

use eni_datapath::{Guard, prepare_host};
use eni_proto::VethPrefix;
use world::{
    NODE, eni_plan, host_plan,
    outside::{INTERNET, ON_PRIMARY, PATIENCE, PORT, Pods, REMOTE, SERVICE, SILENCE, ask_over},
    run,
};

/// Connections that begin at once, so that some do before the table is back.
const MANY: usize = 50;

/// Outside only the node is answered, as the VPC does it; and somebody else on the node has the kernel remember connections too.
fn without_way_out() -> Pods {
    let pods = Pods::new();
    pods.world.on_node(|| {
        run("nft", "add table ip kube");
        run("nft", "add chain ip kube services { type nat hook prerouting priority dstnat ; }");
        run("nft", &format!("add rule ip kube services ct state new ip daddr {SERVICE} dnat to {REMOTE}"));
    });
    pods.world.in_fabric(|| {
        run("nft", "add chain ip seen gateway { type filter hook input priority 0 ; }");
        run(
            "nft",
            &format!("add rule ip seen gateway ip saddr 10.0.0.0/16 ip saddr != {NODE} ip daddr {INTERNET} drop"),
        );
    });
    pods
}

fn sockets(pods: &Pods) -> Vec<UdpSocket> {
    pods.primary.inside(|| (0..MANY).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect()).unwrap()
}

#[test]
fn a_connection_that_began_without_our_table_is_translated_after_the_next_preparation() {
    let pods = without_way_out();
    let socket = sockets(&pods).remove(0);
    let answered = ask_over(&socket, SocketAddrV4::new(REMOTE, PORT), PATIENCE);
    assert_eq!(answered, Some(ON_PRIMARY.into()));
    pods.world.on_node(|| run("nft", "delete table ip eni_cni"));
    assert_eq!(ask_over(&socket, SocketAddrV4::new(INTERNET, PORT), SILENCE), None);
    let known = || pods.world.on_node(|| run("cat", "/proc/net/nf_conntrack"));
    let of_vpc = |listed: String| listed.lines().filter(|line| line.contains(&format!("dst={REMOTE}"))).count();
    let before = of_vpc(known());
    pods.world.on_node(|| prepare_host(&host_plan())).unwrap();
    let deadline = Instant::now() + PATIENCE * 2;
    while ask_over(&socket, SocketAddrV4::new(INTERNET, PORT), SILENCE) != Some(NODE) {
        assert!(Instant::now() < deadline, "{}", known());
    }
    assert_eq!((before, of_vpc(known())), (1, 1), "what was answered goes on");
}

#[test]
fn connections_that_begin_before_the_guard_has_mended_our_table_are_translated_then() {
    let pods = without_way_out();
    let guard = pods.world.on_node(|| {
        let guard = Guard::start(&VethPrefix::default(), |_| {}).unwrap();
        guard.prepare_host(&host_plan()).unwrap();
        guard.prepare_eni(&eni_plan()).unwrap();
        guard
    });
    let deadline = Instant::now() + PATIENCE * 2;
    let to = SocketAddrV4::new(INTERNET, PORT);
    let begun = loop {
        assert!(Instant::now() < deadline, "the guard was always quicker");
        let sockets = sockets(&pods);
        pods.world.on_node(|| run("nft", "delete table ip eni_cni"));
        sockets.iter().for_each(|socket| assert_eq!(socket.send_to(b"first", to).unwrap(), 5));
        if pods.seen(ON_PRIMARY) == "f0" {
            break sockets;
        }
    };
    for (number, socket) in begun.iter().enumerate() {
        while ask_over(socket, to, SILENCE) != Some(NODE) {
            assert!(Instant::now() < deadline, "connection {number} is not translated; {:#?}", guard.drift());
        }
    }
}
