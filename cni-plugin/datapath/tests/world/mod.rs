//! A node and its VPC in network namespaces of their own, and the kernel's state as `ip` and `nft` see it.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part, and fails here")]

pub mod guarded;
pub mod outside;

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd, AsRawFd},
    process::{Command, Output},
};

use eni_datapath::{Cidr, EniPlan, HostPlan, MacAddress, Netns, PodWiring};
use eni_proto::{EniMark, Pod, PodKey, PodNetwork, VethPrefix};
use serde_json::Value;

/// Hardware address of the primary ENI.
pub const MAC0: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x10]);
/// Hardware address of the secondary ENI.
pub const MAC1: MacAddress = MacAddress([0x02, 0, 0, 0, 0, 0x11]);
/// Primary address of the primary ENI.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// Primary address of the secondary ENI.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
/// Mark of the secondary ENI.
pub const MARK: EniMark = EniMark::of_device(1);

/// A node with two ENIs, whose other ends (`f0`, `f1`) are in the fabric.
pub struct World {
    pub node: Netns,
    pub fabric: Netns,
}

impl World {
    pub fn new() -> Self {
        let world = Self { node: Netns::fresh().unwrap(), fabric: Netns::fresh().unwrap() };
        world.plug("eth0", MAC0, "f0");
        world.plug("eth1", MAC1, "f1");
        world.on_node(|| {
            ip("link set lo up");
            ip("link set eth0 up");
            ip(&format!("address add {NODE}/20 dev eth0"));
            ip("route add default via 10.0.0.1");
        });
        world
    }

    /// Makes a link appear on the node, as hot-plug does.
    pub fn plug(&self, name: &str, mac: MacAddress, fabric_name: &str) {
        let fabric = path(&self.fabric);
        let add =
            format!("link add {name} address {mac} mtu 9001 type veth peer name {fabric_name} mtu 9001 netns {fabric}");
        self.on_node(|| ip(&add));
        self.in_fabric(|| ip(&format!("link set {fabric_name} up")));
    }

    /// Lets the kernel notice that the links are up; by itself it does so some time later, and drops packets until then.
    pub fn activate(&self) {
        self.on_node(|| ["eth0", "eth1"].map(|link| ip(&format!("link show dev {link}"))));
        self.in_fabric(|| ["f0", "f1"].map(|link| ip(&format!("link show dev {link}"))));
    }

    pub fn on_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.node.inside(work).unwrap()
    }

    pub fn in_fabric<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.fabric.inside(work).unwrap()
    }

    /// A world whose node is ready for pods on both ENIs.
    pub fn prepared() -> Self {
        let world = Self::new();
        world.on_node(|| {
            eni_datapath::prepare_host(&host_plan()).unwrap();
            eni_datapath::prepare_eni(&eni_plan()).unwrap();
        });
        world
    }
}

pub fn host_plan() -> HostPlan {
    HostPlan {
        primary_mac: MAC0,
        primary_address: NODE,
        direct: vec!["10.0.0.0/16".parse().unwrap(), "172.31.0.0/16".parse().unwrap()],
        external_snat: false,
        node_ports: true,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 9001,
        ipv6: false,
    }
}

pub fn eni_plan() -> EniPlan {
    EniPlan {
        mac: MAC1,
        primary: SECOND,
        subnet: Cidr::new(SECOND, 20).unwrap(),
        device_index: 1,
        card: 0,
        mark: MARK,
        mtu: 9001,
        ipv6: false,
        primary_v6: None,
    }
}

/// A pod's wiring; `netns` must outlive it.
pub fn wiring(container: &str, pod: &str, address: [u8; 4], mark: EniMark, netns: &Netns) -> PodWiring {
    PodWiring {
        key: PodKey::new("pods", container, "eth0").unwrap(),
        pod: Pod { namespace: "default".into(), name: pod.into(), uid: String::new() },
        network: PodNetwork {
            addresses: Ipv4Addr::from(address).into(),
            eni: "eni-1".into(),
            eni_mark: mark,
            mtu: 9001,
            veth_prefix: VethPrefix::default(),
        },
        netns: netns.path(),
    }
}

/// The IPv4 address that was granted.
pub fn address(wiring: &PodWiring) -> IpAddr {
    wiring.network.addresses.all().next().unwrap()
}

/// A path by which other processes can open the namespace.
pub fn path(netns: &Netns) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd())
}

/// Runs `ip` in the namespace of this thread; fails the test when `ip` fails.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub fn ip_json(arguments: &str) -> Value {
    let text = run("ip", &format!("-json -details {arguments}"));
    if text.trim().is_empty() { Value::Array(Vec::new()) } else { serde_json::from_str(&text).unwrap() }
}

/// All that `nft` sees, without handles, which count up.
pub fn ruleset() -> String {
    tables("list ruleset")
}

/// What `nft` lists, without the name of a table's owner, which is now that of one thread of ours, now that of another.
pub fn tables(list: &str) -> String {
    let listed = run("nft", list);
    listed.lines().map(|line| line.split(" # progname ").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

pub fn run(program: &str, arguments: &str) -> String {
    let output = try_run(program, arguments);
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn try_run(program: &str, arguments: &str) -> Output {
    // The child starts in the namespace of this thread.
    Command::new(program).args(arguments.split_whitespace()).output().unwrap()
}

/// Everything about this thread's namespace that our work can change.
pub fn snapshot() -> String {
    let lists =
        ["-4 address", "-details link", "-4 -details route show table all", "rule", "-4 neighbour"].map(|list| {
            let lines = run("ip", list);
            // What the kernel learns from traffic is not configuration.
            let learnt =
                |line: &&str| ["REACHABLE", "STALE", "DELAY", "FAILED"].iter().any(|state| line.contains(state));
            lines.lines().filter(|line| !learnt(line)).map(without_state).collect::<Vec<_>>().join("\n")
        });
    format!("{}\n{}", lists.join("\n"), ruleset())
}

/// Without the operational state, which settles some time after each change.
fn without_state(line: &str) -> String {
    let kept = line.split(' ').scan("", |before, word| {
        let keep = *before != "state";
        *before = word;
        Some(keep.then(|| word.replace("NO-CARRIER,", "").replace(",LOWER_UP", "").replace(",M-DOWN", "")))
    });
    kept.flatten().filter(|word| *word != "linkdown").collect::<Vec<_>>().join(" ")
}
