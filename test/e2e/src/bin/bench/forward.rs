//! A forwarded packet, from a pod over its node to a peer in the VPC, with 1 to 737 pods' worth of state, in IPv4 and IPv6; and in the
//! usual layout, which has two rules for each pod.
//!
//! Each state has a node of its own, and they are measured in turn, so that the machine's moods meet all alike. One pod is
//! wired for real; of the others the node has what forwarding looks at: the route in the pods' table and the map element.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::{Duration, Instant},
};

use e2e::Trouble;
use eni_datapath::{Cidr, EniPlan, HostPlan, MacAddress, PodWiring, add_pod, prepare_eni, prepare_host};
use eni_proto::{
    EniMark, Pod as PodName, PodKey, PodAddresses, PodNetwork, VethPrefix, host_link_name,
    numbers::{ROUTE_PROTOCOL, TABLE_PODS, VPC_ROUTER_V6},
};
use lab::{Namespace, Pod};

use crate::report::{Row, Samples};

/// Pods on a node.
const STATES: [usize; 5] = [1, 30, 110, 250, 737];
/// Round trips in one round.
const PINGS: usize = 300;
/// Packets in one round.
const PACKETS: u32 = 20_000;
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
const POD_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0, 1, 0, 0, 0, 0x10);
/// The peer: any other address of the VPC.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 1);
const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0, 200, 0, 0, 0, 1);
const ECHO: u16 = 7;
const DISCARD: u16 = 9;
/// Device index of the ENI that owns the pods' addresses.
pub(crate) const ENI: u8 = 1;
/// Both of the peer's ends.
const PEER_MAC: &str = "02:00:00:00:00:20";
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];

/// What a node is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Ours,
    /// A rule to and a rule from each pod, routes in `main`; without the incumbent's iptables chains, which cost the same for any number.
    Rules,
}

/// What is measured on one node in one family.
struct Course {
    name: &'static str,
    stage: usize,
    pod: IpAddr,
    peer: IpAddr,
    round_trips: Samples,
    packets: Samples,
}

/// Measures `rounds` of each state in turn.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Row>, Trouble> {
    println!("a forwarded packet: {rounds} rounds with {STATES:?} pods, beside the usual layout");
    let layouts = [Layout::Ours, Layout::Rules].into_iter().flat_map(|layout| STATES.map(|pods| (layout, pods)));
    let stages: Vec<Stage> = layouts.map(|(layout, pods)| Stage::build(layout, pods)).collect::<Result<_, _>>()?;
    let course = |name, stage, v6| {
        let (pod, peer) = if v6 { (POD_V6.into(), PEER_V6.into()) } else { (POD.into(), PEER.into()) };
        Course { name, stage, pod, peer, round_trips: Samples::default(), packets: Samples::default() }
    };
    let families = [("", 0, false), ("v6_", 0, true), ("usual_", STATES.len(), false)];
    let mut courses: Vec<Course> = families
        .into_iter()
        .flat_map(|(name, first, v6)| (0..STATES.len()).map(move |at| course(name, first + at, v6)))
        .collect();
    for round in 1..=rounds {
        for course in &mut courses {
            let stage = &stages[course.stage];
            stage.ping(course)?;
            course.packets.add(stage.flood(course)?);
        }
        if round % 10 == 0 {
            println!("  {round} of {rounds}");
        }
    }
    Ok(courses.chunks(STATES.len()).flat_map(rows).collect())
}

/// Each state beside the first of the same course.
fn rows(course: &[Course]) -> Vec<Row> {
    let Some(one) = course.first() else { return Vec::new() };
    let row = |what, unit, pods: usize, name: &str, measured: &Samples, reference: &Samples| Row {
        name: format!("forward_{name}{what}_{pods}"),
        unit,
        measured: measured.clone(),
        against: "1 pod",
        reference: reference.clone(),
        goal: 1.1,
    };
    let others = STATES.into_iter().zip(course).skip(1);
    others
        .flat_map(|(pods, many)| {
            [
                row("rtt", "us", pods, many.name, &many.round_trips, &one.round_trips),
                row("ns", "ns", pods, many.name, &many.packets, &one.packets),
            ]
        })
        .collect()
}

/// A node with its pods, and the peer behind its ENIs.
struct Stage {
    _node: Namespace,
    peer: Namespace,
    pod: Pod,
}

impl Stage {
    fn build(layout: Layout, pods: usize) -> Result<Self, Trouble> {
        let (node, peer, pod) = (node()?, Namespace::fresh("peer")?, Pod::new("pod")?);
        node.ip(&links(&peer))?;
        peer.sysctl(&[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")])?;
        peer.ip(&peer_side())?;
        peer.sysctl(&[("net/ipv4/conf/p1/rp_filter", "0")])?;
        if layout == Layout::Rules {
            usual(&node, &pod, pods)?;
        } else {
            let wiring = wiring(&pod)?;
            node.inside(|| prepare(&wiring))??;
            node.ip(&format!("neigh replace {VPC_ROUTER_V6} lladdr {PEER_MAC} dev eth1 nud permanent\n"))?;
            let link = host_link_name(&VethPrefix::default(), &wiring.key, &wiring.pod);
            others(&node, &link, pods - 1)?;
        }
        let stage = Self { _node: node, peer, pod };
        stage.serve()?;
        Ok(stage)
    }

    /// Answers at the echo port for as long as the program runs.
    fn serve(&self) -> Result<(), Trouble> {
        for address in [IpAddr::V4(PEER), IpAddr::V6(PEER_V6)] {
            let bound = |port| self.peer.inside(move || UdpSocket::bind((address, port)));
            let echo = bound(ECHO)?.map_err(Trouble::os("listen at the peer"))?;
            // Held open so that packets to it are no errors; what does not fit is dropped after it has been forwarded.
            let discard = bound(DISCARD)?.map_err(Trouble::os("listen at the peer"))?;
            std::thread::spawn(move || {
                let _discard = discard;
                let mut buffer = [0; 64];
                while let Ok((length, from)) = echo.recv_from(&mut buffer) {
                    let _ = echo.send_to(&buffer[..length], from);
                }
            });
        }
        Ok(())
    }

    fn socket(&self, course: &Course, port: u16) -> Result<UdpSocket, Trouble> {
        let (pod, peer) = (course.pod, course.peer);
        let open = move || {
            let socket = UdpSocket::bind((pod, 0))?;
            socket.connect((peer, port))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok::<_, io::Error>(socket)
        };
        self.pod.namespace().inside(open)?.map_err(Trouble::os("open a socket in the pod"))
    }

    /// Round trips in microseconds.
    fn ping(&self, course: &mut Course) -> Result<(), Trouble> {
        let socket = self.socket(course, ECHO)?;
        let mut buffer = [0; 64];
        for _ in 0..PINGS {
            let started = Instant::now();
            let answered = socket.send(&buffer[..56]).and_then(|_| socket.recv(&mut buffer));
            answered.map_err(Trouble::os(format!("get an answer from {}", course.peer)))?;
            course.round_trips.add(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }

    /// Nanoseconds of this thread for one packet from the pod's send to the peer's link: the kernel forwards in the sender's own time.
    fn flood(&self, course: &Course) -> Result<f64, Trouble> {
        let socket = self.socket(course, DISCARD)?;
        let before = self.arrived()?;
        let started = own_time()?;
        for _ in 0..PACKETS {
            socket.send(&[0; 22]).map_err(Trouble::os("send from the pod"))?;
        }
        let took = own_time()? - started;
        let arrived = self.arrived()? - before;
        if arrived < u64::from(PACKETS) * 99 / 100 {
            return Err(Trouble::Broken(format!("only {arrived} of {PACKETS} packets were forwarded")));
        }
        Ok(took / f64::from(PACKETS))
    }

    /// Packets that came in at the peer by the pod's ENI.
    fn arrived(&self) -> Result<u64, Trouble> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
        let text = self.peer.inside(read)?.map_err(Trouble::os("read the peer's counters"))?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("p1:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)).and_then(|count| count.parse().ok());
        packets.ok_or_else(|| Trouble::Broken(format!("no counter of p1 in {text}")))
    }
}

/// Nanoseconds that this thread has run, whatever else the machine did. Source: proc(5), schedstat.
fn own_time() -> Result<f64, Trouble> {
    let text =
        std::fs::read_to_string("/proc/thread-self/schedstat").map_err(Trouble::os("read this thread's time"))?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| Trouble::Broken(format!("no time in {text}")))
}

fn node() -> Result<Namespace, Trouble> {
    let node = Namespace::fresh("node")?;
    // Nobody else has the addresses of this stage.
    node.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/accept_dad", "0")])?;
    Ok(node)
}

/// A node that is prepared for pods of both families, without any.
pub(crate) fn bare_node() -> Result<Namespace, Trouble> {
    let (node, peer) = (node()?, Namespace::fresh("peer")?);
    node.ip(&links(&peer))?;
    node.inside(prepare_node)??;
    Ok(node)
}

fn mac(index: usize) -> String {
    MacAddress(MACS[index]).to_string()
}

/// The node's two ENIs, with their other ends at the peer.
fn links(peer: &Namespace) -> String {
    let netns = peer.path().display().to_string();
    let mut batch = String::new();
    for index in 0..MACS.len() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            batch,
            "link add eth{index} address {} type veth peer name p{index} address {PEER_MAC} netns {netns}",
            mac(index)
        );
    }
    batch
        + &format!(
            "link set lo up\naddr add 10.0.0.5/24 dev eth0\nlink set eth0 up\nroute add default via 10.0.0.1\n\
         addr add 2600:1f00::5/64 dev eth0 nodad\nroute add ::/0 via {VPC_ROUTER_V6} dev eth0\n"
        )
}

/// What a VPC does: it answers for the router, and delivers to the ENI that owns the address.
fn peer_side() -> String {
    format!(
        "link set lo up\naddr add {PEER}/32 dev lo\nlink set p0 up\nlink set p1 up\naddr add 10.0.0.1/32 dev p1\n\
         route add {POD}/32 dev p1 src {PEER}\nneigh add {POD} lladdr {eni} dev p1 nud permanent\n\
         addr add {PEER_V6}/128 dev lo nodad\naddr add {VPC_ROUTER_V6}/64 dev p1 nodad\n\
         neigh add fe80::e lladdr {eni} dev p1 nud permanent\nroute add {POD_V6}/128 via fe80::e dev p1\n",
        eni = mac(1)
    )
}

fn wiring(pod: &Pod) -> Result<PodWiring, Trouble> {
    let key = PodKey::new("bench", "forward", "eth0").map_err(|error| Trouble::Broken(error.to_string()))?;
    let network = PodNetwork {
        addresses: PodAddresses::Dual(POD, POD_V6),
        eni: "eni-bench".to_owned(),
        eni_mark: EniMark::of_device(ENI),
        mtu: 9001,
        veth_prefix: VethPrefix::default(),
    };
    Ok(PodWiring { key, pod: PodName::default(), network, netns: pod.netns() })
}

/// The node as ipamd and the plugin prepare it.
fn prepare(wiring: &PodWiring) -> Result<(), Trouble> {
    prepare_node()?;
    add_pod(wiring).map(drop).map_err(|error| Trouble::Broken(error.to_string()))
}

fn prepare_node() -> Result<(), Trouble> {
    let broken = |error: &dyn std::error::Error| Trouble::Broken(error.to_string());
    let vpc = Cidr::new(Ipv4Addr::new(10, 0, 0, 0), 16).map_err(|error| broken(&error))?;
    let host = HostPlan {
        primary_mac: MacAddress(MACS[0]),
        primary_address: Ipv4Addr::new(10, 0, 0, 5),
        direct: vec![vpc],
        external_snat: false,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 9001,
        ipv6: true,
    };
    let eni = EniPlan {
        mac: MacAddress(MACS[1]),
        primary: Ipv4Addr::new(10, 0, 1, 4),
        subnet: vpc,
        device_index: ENI,
        card: 0,
        mark: EniMark::of_device(ENI),
        mtu: 9001,
        ipv6: true,
        primary_v6: None,
    };
    prepare_host(&host).map_err(|error| broken(&error))?;
    prepare_eni(&eni).map_err(|error| broken(&error))?;
    Ok(())
}

/// The usual layout with this many pods; the one that is measured is in the middle of the rules.
fn usual(node: &Namespace, pod: &Pod, pods: usize) -> Result<(), Trouble> {
    let netns = pod.netns().display().to_string();
    let mut batch = format!(
        "link set eth1 up\naddr add 10.0.1.4/32 dev eth1\nroute add 10.0.0.1 dev eth1 table 2\n\
         route add default via 10.0.0.1 dev eth1 table 2\nlink add eni0 mtu 9001 type veth peer name eth0 mtu 9001 netns {netns}\n\
         link set eni0 up\n"
    );
    let others = (0..pods - 1)
        .map(|n| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 2, 0).to_bits() + u32::try_from(n).unwrap_or(0)));
    let mut addresses: Vec<Ipv4Addr> = others.collect();
    addresses.insert(addresses.len() / 2, POD);
    for address in addresses {
        let _ = writeln!(
            batch,
            "route add {address}/32 dev eni0\nrule add pref 512 to {address} lookup main\nrule add pref 1536 from {address} lookup 2"
        );
    }
    node.ip(&batch)?;
    node.sysctl(&[("net/ipv4/conf/eth1/rp_filter", "2")])?;
    let shown = node.run(&["ip", "-br", "link", "show", "eni0"])?;
    let mac = shown.split_whitespace().nth(2).unwrap_or_default();
    pod.namespace().ip(&format!(
        "link set eth0 up\naddr add {POD}/32 dev eth0\nroute add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n\
         neigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent\n"
    ))?;
    Ok(())
}

/// What forwarding looks at, of further pods.
fn others(node: &Namespace, link: &str, count: usize) -> Result<(), Trouble> {
    let chain = format!("eni_{}", EniMark::of_device(ENI).value());
    let (mut routes, mut elements) = (String::new(), String::new());
    for n in 0..u32::try_from(count).unwrap_or(0) {
        let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 2, 0).to_bits() + n);
        let v6 = Ipv6Addr::from_bits(POD_V6.to_bits() + 1 + u128::from(n));
        for (address, family) in [(IpAddr::V4(v4), "ip"), (IpAddr::V6(v6), "ip6")] {
            let _ = writeln!(routes, "route add {address} dev {link} table {TABLE_PODS} proto {ROUTE_PROTOCOL}");
            let _ = writeln!(elements, "add element {family} eni_cni pod_eni {{ {address} : jump {chain} }}");
        }
    }
    node.ip(&routes)?;
    node.nft(&elements)?;
    Ok(())
}
