//! A node with its pods and a peer behind its ENIs, in our layout or the usual one.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
};

use e2e::Trouble;
use eni_datapath::{Cidr, EniPlan, HostPlan, MacAddress, PodWiring, add_pod, prepare_eni, prepare_host};
use eni_proto::{
    EniMark, Pod as PodName, PodAddresses, PodKey, PodNetwork, VethPrefix, host_link_name,
    numbers::{ROUTE_PROTOCOL, TABLE_PODS, VPC_ROUTER_V6},
};
use lab::{Namespace, Pod};

use crate::forward::{ENI, Layout};

pub(crate) const POD: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 10);
pub(crate) const POD_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0, 1, 0, 0, 0, 0x10);
/// The node's own address, on its primary ENI.
pub(crate) const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// The peer: any other address of the VPC.
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 200, 1);
pub(crate) const PEER_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0, 200, 0, 0, 0, 1);
pub(crate) const ECHO: u16 = 7;
pub(crate) const DISCARD: u16 = 9;
/// Takes all that is sent, and then answers with one byte.
pub(crate) const SINK: u16 = 19;
/// Both of the peer's ends.
const PEER_MAC: &str = "02:00:00:00:00:20";
const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11]];
/// What the incumbent has beside its rules, whatever the number of pods: the node's address for the world, and the mark that remembers
/// by which ENI a connection came in.
const USUAL_CHAINS: &str = "
table ip usual {
    chain translate {
        ip daddr 10.0.0.0/16 return
        oifname != \"vlan*\" fib daddr type != local snat to 10.0.0.5 fully-random
    }
    chain outgoing {
        type nat hook postrouting priority 100
        jump translate
    }
    chain remember {
        ip daddr 10.0.0.0/16 return
        ct mark set ct mark | 0x80
    }
    chain incoming {
        type nat hook prerouting priority -90
        iifname \"eni*\" jump remember
    }
    chain restore {
        type filter hook prerouting priority -150
        iifname \"eth0\" fib daddr type local ct mark set ct mark | 0x80
        iifname \"eni*\" meta mark set ct mark & 0x80
    }
}
";

/// A node with its pods, and the peer.
pub(crate) struct Stage {
    pub(crate) node: Namespace,
    pub(crate) peer: Namespace,
    pub(crate) pod: Pod,
}

impl Stage {
    pub(crate) fn build(layout: Layout, pods: usize) -> Result<Self, Trouble> {
        let (node, peer, pod) = (node()?, Namespace::fresh("peer")?, Pod::new("pod")?);
        node.ip(&links(&peer))?;
        peer.sysctl(&[("net/ipv4/conf/all/rp_filter", "0"), ("net/ipv4/conf/default/rp_filter", "0")])?;
        peer.ip(&peer_side())?;
        peer.sysctl(&[("net/ipv4/conf/p0/rp_filter", "0"), ("net/ipv4/conf/p1/rp_filter", "0")])?;
        match layout {
            Layout::Rules => usual(&node, &pod, pods)?,
            Layout::Ours => {
                let wiring = wiring(&pod)?;
                node.inside(|| prepare(&wiring))??;
                node.ip(&format!("neigh replace {VPC_ROUTER_V6} lladdr {PEER_MAC} dev eth1 nud permanent\n"))?;
                let link = host_link_name(&VethPrefix::default(), &wiring.key, &wiring.pod);
                others(&node, &link, pods - 1)?;
            }
        }
        let stage = Self { node, peer, pod };
        stage.serve()?;
        Ok(stage)
    }

    /// Answers at the peer for as long as the program runs.
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
            let sink = self.peer.inside(move || TcpListener::bind((address, SINK)))?;
            let sink = sink.map_err(Trouble::os("listen at the peer"))?;
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 18];
                for mut stream in sink.incoming().flatten() {
                    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
                    let _ = stream.write_all(&[1]);
                }
            });
        }
        Ok(())
    }
}

fn node() -> Result<Namespace, Trouble> {
    let node = Namespace::fresh("node")?;
    // Nobody else has the addresses of this stage.
    node.sysctl(&[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/accept_dad", "0")])?;
    Ok(node)
}

/// A node that is prepared for pods of both families, without any; and the peer, with which its ENIs would go.
pub(crate) fn bare_node() -> Result<(Namespace, Namespace), Trouble> {
    let (node, peer) = (node()?, Namespace::fresh("peer")?);
    node.ip(&links(&peer))?;
    node.inside(prepare_node)??;
    Ok((node, peer))
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
            "link set lo up\naddr add {NODE}/24 dev eth0\nlink set eth0 up\nroute add default via 10.0.0.1\n\
         addr add 2600:1f00::5/64 dev eth0 nodad\nroute add ::/0 via {VPC_ROUTER_V6} dev eth0\n"
        )
}

/// What a VPC does: it answers for the router, and delivers to the ENI that owns the address.
fn peer_side() -> String {
    format!(
        "link set lo up\naddr add {PEER}/32 dev lo\nlink set p0 up\nlink set p1 up\naddr add 10.0.0.1/32 dev p1\n\
         route add {POD}/32 dev p1 src {PEER}\nneigh add {POD} lladdr {eni} dev p1 nud permanent\n\
         route add {NODE}/32 dev p0 src {PEER}\nneigh add {NODE} lladdr {primary} dev p0 nud permanent\n\
         addr add {PEER_V6}/128 dev lo nodad\naddr add {VPC_ROUTER_V6}/64 dev p1 nodad\n\
         neigh add fe80::e lladdr {eni} dev p1 nud permanent\nroute add {POD_V6}/128 via fe80::e dev p1\n",
        eni = mac(1),
        primary = mac(0)
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

/// How ipamd would have the node's base.
pub(crate) fn host_plan() -> Result<HostPlan, Trouble> {
    Ok(HostPlan {
        primary_mac: MacAddress(MACS[0]),
        primary_address: NODE,
        direct: vec![vpc()?],
        external_snat: false,
        node_ports: true,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 9001,
        ipv6: true,
    })
}

fn vpc() -> Result<Cidr, Trouble> {
    Cidr::new(Ipv4Addr::new(10, 0, 0, 0), 16).map_err(|error| Trouble::Broken(error.to_string()))
}

fn prepare_node() -> Result<(), Trouble> {
    let eni = EniPlan {
        mac: MacAddress(MACS[1]),
        primary: Ipv4Addr::new(10, 0, 1, 4),
        subnet: vpc()?,
        device_index: ENI,
        card: 0,
        mark: EniMark::of_device(ENI),
        mtu: 9001,
        ipv6: true,
        primary_v6: None,
    };
    prepare_host(&host_plan()?).map_err(|error| Trouble::Broken(error.to_string()))?;
    prepare_eni(&eni).map_err(|error| Trouble::Broken(error.to_string()))?;
    Ok(())
}

/// The usual layout with this many pods; the one that is measured is in the middle of the rules.
fn usual(node: &Namespace, pod: &Pod, pods: usize) -> Result<(), Trouble> {
    let netns = pod.netns().display().to_string();
    let mut batch = format!(
        "link set eth1 up\naddr add 10.0.1.4/32 dev eth1\nroute add 10.0.0.1 dev eth1 table 2\n\
         route add default via 10.0.0.1 dev eth1 table 2\nlink add eni0 mtu 9001 type veth peer name eth0 mtu 9001 netns {netns}\n\
         link set eni0 up\nrule add pref 1024 fwmark 0x80/0x80 lookup main\n"
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
    node.nft(USUAL_CHAINS)?;
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
