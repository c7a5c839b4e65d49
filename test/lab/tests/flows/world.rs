//! Two nodes with pods on each of their ENIs, and everybody that they talk with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

use eni_datapath::{Cidr, EniPlan, Guard, HostPlan, PodWiring, Repair, add_pod, prepare_eni, prepare_host};
use eni_proto::{EniMark, PodKey, PodNetwork, VethPrefix};
use ipam_core::ports::{Attachment, Cidr4, Interface, InterfaceKind};
use lab::{Direction, INTERNET_HOST, Lab, Namespace, Node, Pod};

use crate::{flow::Setting, probe, proxy::Proxy};

/// An ENI: node, device index, number, last bytes of its primary address.
type Eni = (&'static str, u8, u8, [u8; 2]);

const VPC: [u8; 2] = [10, 0];
const SUBNET: Cidr4 = Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 20 };
const PEER_VPC: Cidr4 = Cidr4 { network: Ipv4Addr::new(10, 1, 0, 0), prefix: 16 };
const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

const ENIS: &[Eni] = &[
    ("node-1", 0, 1, [0, 11]),
    ("node-1", 1, 2, [0, 12]),
    ("node-1", 2, 3, [0, 13]),
    ("node-2", 0, 4, [0, 21]),
    ("node-2", 1, 5, [0, 22]),
    ("client", 0, 6, [0, 31]),
];

/// A pod: name, node, device index of its ENI, last bytes of its address, MTU.
const PODS: &[(&str, &str, u8, [u8; 2], u16)] = &[
    ("a", "node-1", 0, [1, 1], 9001),
    ("b", "node-1", 1, [1, 2], 9001),
    ("c", "node-1", 1, [1, 3], 9001),
    ("d", "node-1", 2, [1, 4], 9001),
    ("small", "node-1", 1, [1, 5], 1500),
    ("e", "node-2", 0, [1, 6], 9001),
    ("f", "node-2", 1, [1, 7], 9001),
];

/// Who has neither an ENI nor a veth of its own in this lab.
const OTHERS: &[(&str, Ipv4Addr)] = &[
    ("peer", Ipv4Addr::new(10, 1, 0, 9)),
    ("container", Ipv4Addr::new(172, 17, 0, 2)),
    ("internet", INTERNET_HOST),
    ("imds", IMDS),
    ("gateway", eni_proto::numbers::POD_GATEWAY),
    ("nat-gateway", lab::NAT_GATEWAY),
    ("balancer-a", Ipv4Addr::new(203, 0, 113, 1)),
    ("balancer-b", Ipv4Addr::new(203, 0, 113, 2)),
    ("balancer-d", Ipv4Addr::new(203, 0, 113, 3)),
];

fn in_vpc(last: [u8; 2]) -> Ipv4Addr {
    Ipv4Addr::new(VPC[0], VPC[1], last[0], last[1])
}

/// Everybody's name and address.
fn everybody() -> impl Iterator<Item = (String, Ipv4Addr)> {
    let enis = ENIS.iter().map(|(node, index, _, last)| match index {
        0 => ((*node).to_owned(), in_vpc(*last)),
        _ => (format!("{node}-eth{index}"), in_vpc(*last)),
    });
    let pods = PODS.iter().map(|(name, _, _, last, _)| ((*name).to_owned(), in_vpc(*last)));
    enis.chain(pods).chain(OTHERS.iter().map(|(name, address)| ((*name).to_owned(), *address)))
}

/// The address of somebody by name; fails the test for a name that nobody has.
pub(crate) fn address_of(name: &str) -> Ipv4Addr {
    let found = everybody().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("nobody is called {name}")).1
}

/// The name of whom an address belongs to, or the address.
pub(crate) fn name_of(address: Ipv4Addr) -> String {
    everybody().find(|(_, other)| *other == address).map_or(address.to_string(), |(name, _)| name)
}

/// The node that a pod is on.
pub(crate) fn node_of(pod: &str) -> Option<&'static str> {
    PODS.iter().find(|(name, ..)| *name == pod).map(|(_, node, ..)| *node)
}

/// A lab with everybody in it and a server at each address.
pub(crate) struct World {
    pub(crate) lab: Lab,
    nodes: BTreeMap<&'static str, Arc<Node>>,
    pods: BTreeMap<&'static str, Pod>,
    peer: Namespace,
    /// A container of node-1 that is no pod, in a network of the node's own.
    container: Namespace,
    setting: Setting,
    /// Whether a NAT gateway is there under every setting.
    keeps_nat_gateway: bool,
}

impl World {
    /// Everybody is there and answers; the nodes are prepared and their pods wired.
    pub(crate) fn new() -> Self {
        let lab = Lab::new().unwrap();
        lab.add_subnet("subnet-1".parse().unwrap(), SUBNET);
        let add = |name| (name, lab.add_node(instance(name).parse().unwrap(), name).unwrap());
        let nodes = BTreeMap::from(["node-1", "node-2", "client"].map(add));
        lab.sync(&ENIS.iter().map(interface).collect::<Vec<_>>()).unwrap();
        let peer = lab.add_outside_host("peer", address_of("peer"), PEER_VPC).unwrap();
        let pods = PODS.iter().map(|(name, ..)| (*name, Pod::new(name).unwrap())).collect();
        let container = container_on(nodes["node-1"].namespace());
        let world = Self { lab, nodes, pods, peer, container, setting: Setting::Default, keeps_nat_gateway: false };
        world.prepare_nodes();
        world.wire_pods();
        world.balance();
        world.serve();
        world
    }

    /// Writes the rules of a proxy on both nodes.
    pub(crate) fn with_proxy(&mut self, proxy: Proxy) {
        for name in ["node-1", "node-2"] {
            proxy.write(&self.nodes[name]);
        }
    }

    /// Does `work` while the nodes have this setting.
    pub(crate) fn within<T>(&mut self, setting: Setting, work: impl FnOnce(&Self) -> T) -> T {
        if setting != self.setting {
            self.setting = setting;
            self.lab.set_nat_gateway(self.keeps_nat_gateway || setting == Setting::ExternalSnat).unwrap();
            self.prepare_hosts(setting);
        }
        work(self)
    }

    /// From now on there is a NAT gateway, also where no setting needs one.
    pub(crate) fn keep_nat_gateway(&mut self) {
        self.keeps_nat_gateway = true;
        self.lab.set_nat_gateway(true).unwrap();
    }

    /// The network that somebody is in.
    pub(crate) fn place(&self, name: &str) -> &Namespace {
        match name {
            "peer" => &self.peer,
            "container" => &self.container,
            "internet" => self.lab.internet(),
            "imds" => self.lab.fabric(),
            _ => match self.pods.get(name) {
                Some(pod) => pod.namespace(),
                None => self.nodes[name].namespace(),
            },
        }
    }

    /// Which ENIs of the nodes carried packets since the counting began, as `eth1, node-2 eth0`.
    ///
    /// An ENI that carried packets in one direction only is told with the direction.
    pub(crate) fn ways(&self) -> String {
        let mut links: BTreeMap<(&str, u8), BTreeSet<Direction>> = BTreeMap::new();
        for carried in self.lab.ways().unwrap() {
            let (node, index, ..) =
                *ENIS.iter().find(|(_, _, number, _)| carried.eni.as_str() == format!("eni-{number}")).unwrap();
            if node != "client" {
                links.entry((node, index)).or_default().insert(carried.direction);
            }
        }
        let words = links.into_iter().map(|((node, index), directions)| {
            let direction = match (directions.contains(&Direction::FromNode), directions.contains(&Direction::ToNode)) {
                (true, true) => "",
                (true, false) => "out ",
                (false, _) => "in ",
            };
            format!("{direction}{}eth{index}", if node == "node-1" { "" } else { "node-2 " })
        });
        let words: Vec<String> = words.collect();
        if words.is_empty() { "-".to_owned() } else { words.join(", ") }
    }

    fn prepare_nodes(&self) {
        self.prepare_hosts(self.setting);
        for node in ["node-1", "node-2"] {
            for plan in eni_plans(node) {
                self.nodes[node].namespace().inside(|| prepare_eni(&plan).unwrap()).unwrap();
            }
        }
    }

    /// Gives both nodes this setting, for the moment.
    pub(crate) fn prepare_hosts(&self, setting: Setting) {
        for node in ["node-1", "node-2"] {
            self.nodes[node].namespace().inside(|| prepare_host(&host_plan(node, setting)).unwrap()).unwrap();
        }
    }

    /// Keeps node-1 as it is from now on, with the default settings.
    pub(crate) fn guard(&self, report: impl Fn(&Repair) + Send + 'static) -> Guard {
        let prepare = || {
            let guard = Guard::start(&VethPrefix::default(), report).unwrap();
            guard.prepare_host(&host_plan("node-1", Setting::Default)).unwrap();
            for plan in eni_plans("node-1") {
                guard.prepare_eni(&plan).unwrap();
            }
            guard
        };
        self.nodes["node-1"].namespace().inside(prepare).unwrap()
    }

    fn wire_pods(&self) {
        for (name, node, index, last, mtu) in PODS {
            let wiring = PodWiring {
                key: PodKey::new("pods", &format!("sandbox-{name}"), "eth0").unwrap(),
                pod: eni_proto::Pod { namespace: "default".into(), name: (*name).into(), uid: String::new() },
                network: PodNetwork {
                    ipv4: in_vpc(*last),
                    ipv6: None,
                    eni: "eni".into(),
                    eni_mark: EniMark::of_device(*index),
                    mtu: *mtu,
                    veth_prefix: VethPrefix::default(),
                },
                netns: self.pods[name].netns(),
            };
            self.nodes[node].namespace().inside(|| add_pod(&wiring).unwrap()).unwrap();
        }
        // It offers larger segments than its link carries, so that who sends to it has to find the path's MTU.
        let small = self.pods["small"].namespace();
        small.ip("route change default via 169.254.1.1 dev eth0 advmss 8961\n").unwrap();
    }

    fn balance(&self) {
        for pod in ["a", "b", "d"] {
            let public = SocketAddrV4::new(address_of(&format!("balancer-{pod}")), crate::services::PORT);
            self.lab.balance(public, SocketAddrV4::new(address_of(pod), crate::services::PORT)).unwrap();
        }
    }

    fn serve(&self) {
        // The real metadata service is outside of the node.
        for node in ["node-1", "node-2"] {
            self.nodes[node].namespace().ip(&format!("addr del {IMDS}/32 dev lo\n")).unwrap();
        }
        self.lab.fabric().ip(&format!("addr add {IMDS}/32 dev lo\n")).unwrap();
        let pods = PODS.iter().map(|(name, ..)| *name);
        for name in pods.chain(["node-1", "node-2", "client", "peer", "container", "internet", "imds"]) {
            let address = address_of(name);
            self.place(name).inside(|| probe::serve(name, address)).unwrap();
        }
    }
}

/// The plan of a node's base, whose primary ENI is its first.
fn host_plan(node: &str, setting: Setting) -> HostPlan {
    let (_, _, number, last) = ENIS.iter().find(|(other, index, ..)| (*other, *index) == (node, 0)).unwrap();
    let mut plan = HostPlan {
        primary_mac: mac(*number).parse().unwrap(),
        primary_address: in_vpc(*last),
        direct: vec![Cidr::new(in_vpc([0, 0]), 16).unwrap()],
        external_snat: false,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 9001,
        ipv6: false,
    };
    match setting {
        Setting::Default => {}
        Setting::ExternalSnat => plan.external_snat = true,
        Setting::PeerExcluded => plan.direct.push(Cidr::new(PEER_VPC.network, PEER_VPC.prefix).unwrap()),
        Setting::ServicesByMain => {
            plan.direct.push("172.16.0.0/12".parse().unwrap());
            plan.by_main.push("172.17.0.0/16".parse().unwrap());
        }
    }
    plan
}

fn eni_plans(node: &str) -> impl Iterator<Item = EniPlan> {
    let enis = ENIS.iter().filter(move |(other, ..)| *other == node);
    enis.map(|(_, index, number, last)| EniPlan {
        mac: mac(*number).parse().unwrap(),
        primary: in_vpc(*last),
        subnet: Cidr::new(SUBNET.network, SUBNET.prefix).unwrap(),
        device_index: *index,
        card: 0,
        mark: EniMark::of_device(*index),
        mtu: 9001,
        ipv6: false,
    })
}

fn container_on(node: &Namespace) -> Namespace {
    let container = Namespace::fresh("container").unwrap();
    let (path, address) = (container.path(), address_of("container"));
    node.ip(&format!(
        "link add docker0 type veth peer name eth0 netns {}\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up\n",
        path.display()
    ))
    .unwrap();
    container
        .ip(&format!("link set eth0 up\naddr add {address}/16 dev eth0\nroute add default via 172.17.0.1\n"))
        .unwrap();
    container
}

fn instance(node: &str) -> String {
    format!("i-{node}")
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn interface((node, index, number, last): &Eni) -> Interface {
    let here = PODS.iter().filter(|(_, pod_node, pod_index, ..)| (pod_node, pod_index) == (node, index));
    Interface {
        id: format!("eni-{number}").parse().unwrap(),
        mac: mac(*number).parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: in_vpc(*last),
        secondary: here.map(|(_, _, _, last, _)| in_vpc(*last)).collect(),
        prefixes: vec![],
        kind: InterfaceKind::Plain,
        security_groups: vec![],
        attachment: Some(Attachment {
            id: format!("eni-attach-{number}").parse().unwrap(),
            instance: instance(node).parse().unwrap(),
            device_index: *index,
            card: 0,
            attached: true,
            delete_on_termination: true,
        }),
        tags: BTreeMap::new(),
    }
}
