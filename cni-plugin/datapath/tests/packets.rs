//! Real packets: which ENI they leave by, and as whom.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use eni_datapath::{HostPlan, Netns, SourcePorts, add_pod, forget_address, forget_connections, prepare_host};
use eni_proto::EniMark;
use world::{
    NODE, host_plan, ip,
    outside::{
        ALSO_ON_SECONDARY, INTERNET, ON_PRIMARY, ON_SECONDARY, PATIENCE, PORT, Pods, REMOTE, SERVICE, SILENCE, answer,
        ask_over,
    },
    run, wiring,
};

#[test]
fn a_pods_packet_leaves_only_through_the_eni_that_owns_its_address() {
    let pods = Pods::new();
    assert_eq!(pods.ask(&pods.primary, REMOTE), Some(ON_PRIMARY.into()));
    assert_eq!(pods.ask(&pods.secondary, REMOTE), Some(ON_SECONDARY.into()));
    assert_eq!((pods.seen(ON_PRIMARY).as_str(), pods.seen(ON_SECONDARY).as_str()), ("f0", "f1"));
}

#[test]
fn outside_the_vpc_pods_are_the_nodes_primary_address() {
    let pods = Pods::new();
    assert_eq!(pods.ask(&pods.primary, INTERNET), Some(NODE));
    assert_eq!(pods.ask(&pods.secondary, INTERNET), Some(NODE));
    assert_eq!(pods.seen(NODE), "f0");
    assert_eq!(pods.seen(ON_SECONDARY), "");
}

#[test]
fn with_external_snat_pods_are_themselves_everywhere() {
    let pods = Pods::new();
    let mut plan = host_plan();
    plan.external_snat = true;
    pods.world.on_node(|| prepare_host(&plan)).unwrap();
    assert_eq!(pods.ask(&pods.secondary, INTERNET), Some(ON_SECONDARY.into()));
    assert_eq!(pods.ask(&pods.primary, INTERNET), Some(ON_PRIMARY.into()));
    assert_eq!((pods.seen(ON_SECONDARY).as_str(), pods.seen(NODE).as_str()), ("f1", ""));
}

#[test]
fn pods_of_one_node_meet_without_the_vpc() {
    let pods = Pods::new();
    for (netns, address) in [(&pods.neighbour, ALSO_ON_SECONDARY), (&pods.primary, ON_PRIMARY)] {
        let socket = netns.inside(|| UdpSocket::bind((Ipv4Addr::from(address), PORT)).unwrap()).unwrap();
        thread::spawn(move || answer(&socket));
        assert_eq!(pods.ask(&pods.secondary, address.into()), Some(ON_SECONDARY.into()));
    }
    assert_eq!(pods.seen(ON_SECONDARY), "");
}

#[test]
fn node_and_pod_reach_each_other() {
    let pods = Pods::new();
    let socket = pods.secondary.inside(|| UdpSocket::bind((Ipv4Addr::from(ON_SECONDARY), PORT)).unwrap()).unwrap();
    thread::spawn(move || answer(&socket));
    let seen = pods.world.on_node(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        ask_over(&socket, SocketAddrV4::new(ON_SECONDARY.into(), PORT), PATIENCE)
    });
    assert_eq!(seen, Some(NODE));
    let socket = pods.world.on_node(|| UdpSocket::bind((NODE, PORT)).unwrap());
    thread::spawn(move || answer(&socket));
    assert_eq!(pods.ask(&pods.secondary, NODE), Some(ON_SECONDARY.into()));
}

#[test]
fn a_service_is_judged_by_the_endpoint_that_was_chosen() {
    let pods = Pods::new();
    pods.world.on_node(|| {
        run("nft", "add table ip kube");
        run("nft", "add chain ip kube services { type nat hook prerouting priority dstnat ; }");
        run("nft", &format!("add rule ip kube services ip daddr {SERVICE} dnat to {REMOTE}"));
    });
    assert_eq!(pods.ask(&pods.secondary, SERVICE), Some(ON_SECONDARY.into()));
    assert_eq!(pods.seen(ON_SECONDARY), "f1");
}

/// Addresses in what the kernel of this thread's namespace remembers of connections.
fn connections() -> String {
    run("cat", "/proc/net/nf_conntrack")
}

/// With so many addresses more that have none.
fn forgotten_among(others: u8) {
    let pods = Pods::new();
    pods.world.on_node(|| {
        run("nft", "add table ip kube");
        run("nft", "add chain ip kube services { type nat hook prerouting priority dstnat ; }");
        run("nft", &format!("add rule ip kube services ip daddr {SERVICE} dnat to {}", Ipv4Addr::from(ON_SECONDARY)));
    });
    let server = pods.secondary.inside(|| UdpSocket::bind("0.0.0.0:7").unwrap()).unwrap();
    thread::spawn(move || answer(&server));
    // From it, to it, and to it as a service; and one of somebody else's.
    assert_eq!(pods.ask(&pods.secondary, INTERNET), Some(NODE));
    assert_eq!(pods.ask(&pods.primary, ON_SECONDARY.into()), Some(ON_PRIMARY.into()));
    assert_eq!(pods.ask(&pods.neighbour, SERVICE), Some(ALSO_ON_SECONDARY.into()));
    assert_eq!(pods.ask(&pods.neighbour, REMOTE), Some(ALSO_ON_SECONDARY.into()));
    let address = Ipv4Addr::from(ON_SECONDARY);
    let among = (0..others).map(|n| Ipv4Addr::new(10, 0, 200, n).into()).chain([address.into()]).collect();
    let of_address = |listed: &str| listed.lines().filter(|line| line.contains(&format!("{address} "))).count();
    pods.world.on_node(|| {
        let before = connections();
        assert_eq!(of_address(&before), 3, "{before}");
        assert_eq!(forget_connections(&among).unwrap(), 3);
        let after = connections();
        assert_eq!((of_address(&after), after.lines().count()), (0, before.lines().count() - 3), "{after}");
        assert_eq!(forget_connections(&among).unwrap(), 0);
    });
}

#[test]
fn the_connections_of_an_address_are_forgotten_and_no_others() {
    forgotten_among(0);
}

#[test]
fn the_connections_of_many_addresses_are_forgotten_and_no_others() {
    forgotten_among(100);
}

#[test]
fn a_reply_leaves_by_the_primary_when_the_request_came_in_there() {
    let pods = Pods::new();
    pods.world.on_node(|| {
        run("nft", "add table ip kube");
        run("nft", "add chain ip kube nodeports { type nat hook prerouting priority dstnat ; }");
        let pod = Ipv4Addr::from(ON_SECONDARY);
        run("nft", &format!("add rule ip kube nodeports ip daddr {NODE} tcp dport 30080 dnat to {pod}:80"));
    });
    let listener = pods.secondary.inside(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
    let clients = [INTERNET, REMOTE];
    let server = thread::spawn(move || {
        for _ in clients {
            let (mut client, from) = listener.accept().unwrap();
            client.write_all(from.ip().to_string().as_bytes()).unwrap();
        }
    });
    for client in clients {
        let answer = pods.world.in_fabric(|| {
            ip(&format!("route replace {NODE} dev f0 src {client}"));
            let mut stream = TcpStream::connect_timeout(&(NODE, 30080).into(), PATIENCE).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(answer, client.to_string());
    }
    server.join().unwrap();
    assert_eq!((pods.seen(NODE).as_str(), pods.seen(ON_SECONDARY).as_str()), ("f0", ""));
}

#[test]
fn the_first_packet_of_a_new_pod_is_not_lost() {
    let pods = Pods::new();
    let churning = AtomicBool::new(true);
    thread::scope(|scope| {
        // Others change links all the time, so that the kernel's background work on new links has to wait.
        scope.spawn(|| {
            let elsewhere = Netns::fresh().unwrap();
            while churning.load(Ordering::Relaxed) {
                elsewhere.inside(|| ip("link add x type veth peer name y")).unwrap();
                elsewhere.inside(|| ip("link del x")).unwrap();
            }
        });
        pods.world.on_node(|| forget_address(std::net::Ipv4Addr::from(ON_PRIMARY)).unwrap());
        let lost: Vec<u32> = (0..30)
            .filter(|round| {
                let netns = Netns::fresh().unwrap();
                let new = wiring(&format!("n{round}"), "new", ON_PRIMARY, EniMark::PRIMARY, &netns);
                pods.world.on_node(|| add_pod(&new).unwrap());
                netns
                    .inside(|| {
                        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                        // Nobody sends it again: a lost one is never answered, a late one is late on a busy machine.
                        ask_over(&socket, SocketAddrV4::new(REMOTE, PORT), PATIENCE)
                    })
                    .unwrap()
                    .is_none()
            })
            .collect();
        churning.store(false, Ordering::Relaxed);
        assert_eq!(lost, [0_u32; 0], "rounds whose first packet was lost");
    });
}

#[test]
fn a_pod_cannot_use_an_address_that_is_not_its_own() {
    let pods = Pods::new();
    let stolen = Ipv4Addr::from(ALSO_ON_SECONDARY);
    let answer = pods
        .secondary
        .inside(|| {
            ip(&format!("address add {stolen}/32 dev eth0"));
            let socket = UdpSocket::bind((stolen, 0)).unwrap();
            ask_over(&socket, SocketAddrV4::new(REMOTE, PORT), SILENCE)
        })
        .unwrap();
    assert_eq!(answer, None);
    assert_eq!(pods.seen(stolen), "");
}

/// portmap sets it on the links of pods with host ports, and kube-proxy in the mode `iptables` on all.
#[test]
fn a_pod_cannot_reach_what_listens_on_the_nodes_loopback_where_others_route_it() {
    let pods = Pods::new();
    let heard = pods.world.on_node(|| {
        run("sysctl", "-q -w net.ipv4.conf.all.route_localnet=1");
        ip("link set lo up");
        UdpSocket::bind((Ipv4Addr::LOCALHOST, PORT)).unwrap()
    });
    let send = |to: Ipv4Addr| UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"anybody?", (to, PORT)).unwrap();
    for pod in [&pods.primary, &pods.secondary] {
        pod.inside(|| {
            run("sysctl", "-q -w net.ipv4.conf.all.route_localnet=1");
            ip("route add 127.0.0.0/8 via 169.254.1.1 dev eth0");
            send(Ipv4Addr::LOCALHOST);
        })
        .unwrap();
        // What it sent before has come as far as it can.
        assert!(pods.ask(pod, REMOTE).is_some());
    }
    // The node itself is heard, and as the first.
    pods.world.on_node(|| send(Ipv4Addr::LOCALHOST));
    assert_eq!(heard.recv_from(&mut [0; 16]).unwrap().1.ip(), Ipv4Addr::LOCALHOST);
}

#[test]
fn the_marks_of_others_survive() {
    let pods = Pods::new();
    pods.world.on_node(|| {
        run("nft", "add table ip others");
        run("nft", "add chain ip others before { type filter hook prerouting priority mangle ; }");
        run("nft", "add rule ip others before iifname eni* meta mark set 0xabcdc000 ct mark set 0x12340000");
        run("nft", "add chain ip others after { type filter hook postrouting priority -200 ; }");
        run("nft", "add set ip others marks { type mark . mark ; flags dynamic ; }");
        run("nft", "add rule ip others after oifname eth* add @marks { meta mark . ct mark }");
    });
    assert_eq!(pods.ask(&pods.secondary, REMOTE), Some(ON_SECONDARY.into()));
    assert_eq!(pods.ask(&pods.secondary, INTERNET), Some(NODE));
    let marks = pods.world.on_node(|| run("nft", "list set ip others marks"));
    for pair in ["0xabcdc002 . 0x12340000", "0xabcdc080 . 0x12340080"] {
        assert!(marks.contains(pair), "{marks}");
    }
}

#[test]
fn a_kept_source_port_is_the_pods_own() {
    let pods = Pods::new();
    let plan = HostPlan { source_ports: SourcePorts::Kept, ..host_plan() };
    pods.world.on_node(|| prepare_host(&plan)).unwrap();
    let heard = pods.world.in_fabric(|| UdpSocket::bind((INTERNET, PORT + 1)).unwrap());
    heard.set_read_timeout(Some(PATIENCE)).unwrap();
    let own = pods
        .secondary
        .inside(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"who am I", (INTERNET, PORT + 1)).unwrap();
            socket.local_addr().unwrap().port()
        })
        .unwrap();
    let (_, from) = heard.recv_from(&mut [0; 16]).unwrap();
    assert_eq!(from, (NODE, own).into());
}
