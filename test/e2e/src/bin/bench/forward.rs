//! A forwarded packet, from a pod over its node to a peer in the VPC, with 1, 110 and 737 pods' worth of state.
//!
//! Each state has a node of its own, and they are measured in turn, so that the machine's moods meet all alike. One pod is
//! wired for real; of the others the node has what forwarding looks at: the route in the pods' table and the map element.

use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use e2e::Trouble;
use eni_datapath::{Cidr, EniPlan, HostPlan, MacAddress, PodWiring, add_pod, prepare_eni, prepare_host};
use eni_proto::{
    EniMark, Pod as PodName, PodKey, PodNetwork, VethPrefix, host_link_name,
    numbers::{ROUTE_PROTOCOL, TABLE_PODS},
};
use lab::{Namespace, Pod};

use crate::report::{Row, Samples};

const STATES: [usize; 3] = [1, 110, 737];
/// Round trips in one round.
const PINGS: usize = 300;
/// Packets in one round.
const PACKETS: u32 = 20_000;
const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
/// The peer: any other address of the VPC.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 1);
const ECHO: u16 = 7;
const DISCARD: u16 = 9;
const ENI: u8 = 1;
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];

/// Measures `rounds` of each state in turn.
pub(crate) fn measure(rounds: usize) -> Result<Vec<Row>, Trouble> {
    println!("a forwarded packet: {rounds} rounds with {STATES:?} pods");
    let stages: Vec<Stage> = STATES.iter().map(|pods| Stage::build(*pods)).collect::<Result<_, _>>()?;
    let mut round_trips = vec![Samples::default(); STATES.len()];
    let mut packets = vec![Samples::default(); STATES.len()];
    for round in 1..=rounds {
        for (stage, (trips, one_way)) in stages.iter().zip(round_trips.iter_mut().zip(&mut packets)) {
            stage.ping(trips)?;
            one_way.add(stage.flood()?);
        }
        if round % 10 == 0 {
            println!("  {round} of {rounds}");
        }
    }
    let row = |name, unit, samples: &[Samples], state: usize| Row {
        name,
        unit,
        measured: samples[state].clone(),
        against: "1 pod",
        reference: samples[0].clone(),
        goal: 1.3,
    };
    Ok(vec![
        row("forward_rtt_110", "us", &round_trips, 1),
        row("forward_rtt_737", "us", &round_trips, 2),
        row("forward_ns_110", "ns", &packets, 1),
        row("forward_ns_737", "ns", &packets, 2),
    ])
}

/// A node with its pods, and the peer behind its ENIs.
struct Stage {
    _node: Namespace,
    peer: Namespace,
    pod: Pod,
}

impl Stage {
    fn build(pods: usize) -> Result<Self, Trouble> {
        let (node, peer, pod) = (Namespace::fresh("node")?, Namespace::fresh("peer")?, Pod::new("pod")?);
        node.ip(&links(&peer))?;
        node.sysctl(&[("net/ipv4/ip_forward", "1")])?;
        peer.sysctl(&[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")])?;
        peer.ip(&peer_side())?;
        peer.sysctl(&[("net/ipv4/conf/p1/rp_filter", "0")])?;
        let wiring = wiring(&pod)?;
        node.inside(|| prepare(&wiring))??;
        let link = host_link_name(&VethPrefix::default(), &wiring.key, &wiring.pod);
        others(&node, &link, pods - 1)?;
        let stage = Self { _node: node, peer, pod };
        stage.serve()?;
        Ok(stage)
    }

    /// Answers at the echo port for as long as the program runs.
    fn serve(&self) -> Result<(), Trouble> {
        let bound = |port| self.peer.inside(move || UdpSocket::bind(SocketAddrV4::new(PEER, port)));
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
        Ok(())
    }

    fn socket(&self, port: u16) -> Result<UdpSocket, Trouble> {
        let open = move || {
            let socket = UdpSocket::bind(SocketAddrV4::new(POD, 0))?;
            socket.connect(SocketAddrV4::new(PEER, port))?;
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
            Ok::<_, io::Error>(socket)
        };
        self.pod.namespace().inside(open)?.map_err(Trouble::os("open a socket in the pod"))
    }

    /// Round trips in microseconds.
    fn ping(&self, samples: &mut Samples) -> Result<(), Trouble> {
        let socket = self.socket(ECHO)?;
        let mut buffer = [0; 64];
        for _ in 0..PINGS {
            let started = Instant::now();
            let answered = socket.send(&buffer[..56]).and_then(|_| socket.recv(&mut buffer));
            answered.map_err(Trouble::os("get an answer from the peer"))?;
            samples.add(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(())
    }

    /// Nanoseconds for one packet from the pod's send to the peer's link: the kernel forwards in the sender's own time.
    fn flood(&self) -> Result<f64, Trouble> {
        let socket = self.socket(DISCARD)?;
        let before = self.arrived()?;
        let started = Instant::now();
        for _ in 0..PACKETS {
            socket.send(&[0; 22]).map_err(Trouble::os("send from the pod"))?;
        }
        let took = started.elapsed();
        let arrived = self.arrived()? - before;
        if arrived < u64::from(PACKETS) * 99 / 100 {
            return Err(Trouble::Broken(format!("only {arrived} of {PACKETS} packets were forwarded")));
        }
        Ok(took.as_secs_f64() * 1e9 / f64::from(PACKETS))
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

fn mac(index: usize) -> String {
    MacAddress(MACS[index]).to_string()
}

/// The node's two ENIs, with their other ends at the peer.
fn links(peer: &Namespace) -> String {
    let netns = peer.path().display().to_string();
    let mut batch = String::new();
    for index in 0..MACS.len() {
        // Writing to a string cannot fail.
        let _ =
            writeln!(batch, "link add eth{index} address {} type veth peer name p{index} netns {netns}", mac(index));
    }
    batch + "link set lo up\naddr add 10.0.0.5/24 dev eth0\nlink set eth0 up\nroute add default via 10.0.0.1\n"
}

/// What a VPC does: it answers for the router, and delivers to the ENI that owns the address.
fn peer_side() -> String {
    format!(
        "link set lo up\naddr add {PEER}/32 dev lo\nlink set p0 up\nlink set p1 up\naddr add 10.0.0.1/32 dev p1\n\
         route add {POD}/32 dev p1 src {PEER}\nneigh add {POD} lladdr {} dev p1 nud permanent\n",
        mac(1)
    )
}

fn wiring(pod: &Pod) -> Result<PodWiring, Trouble> {
    let key = PodKey::new("bench", "forward", "eth0").map_err(|error| Trouble::Broken(error.to_string()))?;
    let network = PodNetwork {
        ipv4: POD,
        ipv6: None,
        eni: "eni-bench".to_owned(),
        eni_mark: EniMark::of_device(ENI),
        mtu: 9001,
        veth_prefix: VethPrefix::default(),
    };
    Ok(PodWiring { key, pod: PodName::default(), network, netns: pod.netns() })
}

/// The node as ipamd and the plugin prepare it.
fn prepare(wiring: &PodWiring) -> Result<(), Trouble> {
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
        ipv6: false,
    };
    let eni = EniPlan {
        mac: MacAddress(MACS[1]),
        primary: Ipv4Addr::new(10, 0, 1, 4),
        subnet: vpc,
        device_index: ENI,
        card: 0,
        mark: EniMark::of_device(ENI),
        mtu: 9001,
        ipv6: false,
    };
    prepare_host(&host).map_err(|error| broken(&error))?;
    prepare_eni(&eni).map_err(|error| broken(&error))?;
    add_pod(wiring).map(drop).map_err(|error| broken(&error))
}

/// What forwarding looks at, of further pods.
fn others(node: &Namespace, link: &str, count: usize) -> Result<(), Trouble> {
    let addresses: Vec<Ipv4Addr> = (0..count)
        .map(|n| Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 2, 0).to_bits() + u32::try_from(n).unwrap_or(0)))
        .collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let mut routes = String::new();
    for address in &addresses {
        let _ =
            writeln!(routes, "route add {address}/32 dev {link} scope link table {TABLE_PODS} proto {ROUTE_PROTOCOL}");
    }
    node.ip(&routes)?;
    let chain = format!("eni_{}", EniMark::of_device(ENI).value());
    let elements: Vec<String> = addresses.iter().map(|address| format!("{address} : jump {chain}")).collect();
    node.nft(&format!("add element ip eni_cni pod_eni {{ {} }}\n", elements.join(", ")))?;
    Ok(())
}
