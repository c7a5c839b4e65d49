//! What a pod says in the name of others by neighbour discovery: real messages, made by hand, and nobody believes them.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    net::{Ipv6Addr, SocketAddrV6},
    os::fd::AsRawFd,
};

use eni_datapath::{EniPlan, HostPlan, Netns, add_pod, prepare_eni, prepare_host};
use eni_proto::{EniMark, PodAddresses};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, sendto, setsockopt, socket,
    sockopt::{Ipv6MulticastHops, Ipv6Ttl},
};
use world::{MARK, World, eni_plan, host_plan, ip, run, wiring};

const NODE: &str = "2600:1f00::10";
const LIAR: &str = "2600:1f00::b:0:0:1";
const OTHER: &str = "2600:1f00::b:0:0:2";
/// Of the node too, and nobody claims it.
const ALSO_NODE: &str = "2600:1f00::11";
const ALL_NODES: &str = "ff02::1";
/// No message with another hop limit can come from a neighbour. Source: RFC 4861.
const HOPS: i32 = 255;
const LIARS_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

// Types and flags. Source: RFC 4861.
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const ROUTER_SOLICITED_OVERRIDE: u8 = 0xe0;

/// Sends one message, in the name of `source`, from this thread's namespace.
fn say(source: &str, to: &str, message: &[u8]) {
    let link = u32::try_from(world::ip_json("link show eth0")[0]["ifindex"].as_u64().unwrap()).unwrap();
    let at = |address: &str| {
        let address: Ipv6Addr = address.parse().unwrap();
        let scope = if address.is_unicast_link_local() || address.is_multicast() { link } else { 0 };
        SockaddrIn6::from(SocketAddrV6::new(address, 0, 0, scope))
    };
    let raw = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::empty(), SockProtocol::IcmpV6).unwrap();
    setsockopt(&raw, Ipv6Ttl, &HOPS).unwrap();
    setsockopt(&raw, Ipv6MulticastHops, &HOPS).unwrap();
    bind(raw.as_raw_fd(), &at(source)).unwrap();
    // The kernel counts the checksum.
    sendto(raw.as_raw_fd(), message, &at(to), MsgFlags::empty())
        .unwrap_or_else(|error| panic!("{source} to {to}: {error}"));
}

/// A message about `target`, with the liar's hardware address in an option of this kind.
fn about(kind: u8, flags: u8, target: &str, option: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    message.extend([option, 1]);
    message.extend(LIARS_MAC);
    message
}

/// "I am the router, and this is my network", for half an hour.
fn router(network: &str) -> Vec<u8> {
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    message.extend(network.parse::<Ipv6Addr>().unwrap().octets());
    message
}

/// "Take me instead of the gateway", for `target`.
fn redirect(target: &str) -> Vec<u8> {
    let mut message = vec![REDIRECT, 0, 0, 0, 0, 0, 0, 0];
    message.extend(LIAR.parse::<Ipv6Addr>().unwrap().octets());
    message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
    message
}

/// Everything that the node knows of its neighbours, ways and addresses.
fn knowledge() -> String {
    let counters = |line: &&str| !line.contains("FAILED") && !line.contains("INCOMPLETE");
    ["-6 neighbour", "-6 route show table all", "-6 -oneline address"]
        .map(|list| ip(list).lines().filter(counters).map(str::trim).collect::<Vec<_>>().join("\n"))
        .join("\n")
}

#[test]
fn nobody_believes_what_a_pod_says_of_others_or_of_the_router() {
    let world = World::new();
    let netns = [(); 2].map(|()| Netns::fresh().unwrap());
    // Nothing changes by itself meanwhile: nobody speaks but the pods, and no link's own address is looked for duplicates of.
    world.in_fabric(|| ["f0", "f1"].map(|link| run("sysctl", &format!("-q -w net.ipv6.conf.{link}.disable_ipv6=1"))));
    world.on_node(|| {
        for link in ["eth0", "eth1"] {
            run("sysctl", &format!("-q -w net.ipv6.conf.{link}.addr_gen_mode=1"));
            ip(&format!("-6 address flush dev {link}"));
            ip(&format!("-6 neighbour flush dev {link}"));
        }
        ip(&format!("address add {NODE}/64 dev eth0 nodad"));
        ip(&format!("address add {ALSO_NODE}/64 dev eth0 nodad"));
        prepare_host(&HostPlan { ipv6: true, ..host_plan() }).unwrap();
        prepare_eni(&EniPlan { ipv6: true, ..eni_plan() }).unwrap();
        ip(&format!("neighbour replace fe80:ec2::1 lladdr {} dev eth1 nud permanent", world::MAC0));
        for (n, address) in [LIAR, OTHER].into_iter().enumerate() {
            let last = u8::try_from(n).unwrap() + 1;
            let mut pod = wiring(&format!("c{n}"), &format!("web-{n}"), [10, 0, 1, last], MARK, &netns[n]);
            pod.network.addresses = PodAddresses::Dual([10, 0, 1, last].into(), address.parse().unwrap());
            assert_ne!(pod.network.eni_mark, EniMark::PRIMARY);
            add_pod(&pod).unwrap();
        }
    });
    world.activate();
    let before = world.on_node(knowledge);
    netns[0]
        .inside(|| {
            for claimed in [OTHER, NODE, "fe80::1", "fe80::bad"] {
                ip(&format!("address add {claimed}/128 dev eth0 nodad"));
            }
            for source in [LIAR, OTHER, NODE, "fe80::1", "fe80::bad"] {
                for to in [ALSO_NODE, ALL_NODES] {
                    for of in [OTHER, NODE, LIAR, "fe80::1", "fe80:ec2::1"] {
                        say(source, to, &about(ADVERTISEMENT, ROUTER_SOLICITED_OVERRIDE, of, 2));
                        say(source, to, &about(SOLICITATION, 0, of, 1));
                    }
                    say(source, to, &router("2600:1f99::"));
                    say(source, to, &redirect("2600:1f00:0:9::9"));
                }
            }
        })
        .unwrap();
    let heard = world.on_node(|| run("nstat", "-as Icmp6InNeighborAdvertisements"));
    assert!(heard.contains("Icmp6InNeighborAdvertisements"), "nothing of it reached the node: {heard}");
    assert_eq!(world.on_node(knowledge), before);
    // The other pod still knows its gateway only.
    let others = netns[1].inside(|| ip("-6 neighbour")).unwrap();
    assert!(others.lines().all(|line| line.starts_with("fe80::1 ") && line.contains("PERMANENT")), "{others}");
}
