//! Two nodes with pods on each of their ENIs, and everybody that they talk with.

mod addresses;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use addresses::{ENIS, Eni, IMDS, IMDS_V6, PEER_VPC, PODS, SUBNET, in_vpc, own_v6, pod_v6, prefix_v6};
pub(crate) use addresses::{address_of, name_of, node_of};
use eni_datapath::{Cidr, EniPlan, Family, Guard, HostPlan, PodWiring, Repair, add_pod, prepare_eni, prepare_host};
use eni_proto::{
    EniMark, PodAddresses, PodKey, PodNetwork, VethPrefix,
    numbers::{EGRESS_V4, EGRESS_V6},
};
use ipam_core::{
    EniId,
    ports::{Attachment, Interface, InterfaceKind},
};
use lab::{Direction, Lab, Namespace, Node, Pod};

use crate::{flow::Setting, probe, proxy::Proxy};

/// Which addresses pods have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    /// Of the VPC in IPv6, and one that leads out in IPv4.
    V6,
    Dual,
    /// Of the VPC in IPv4, and one that leads out in IPv6.
    V4LeadingOut,
}

impl Stack {
    pub(crate) const ALL: [Self; 4] = [Self::V4, Self::V6, Self::Dual, Self::V4LeadingOut];

    /// Of the addresses that the VPC knows, and of the cluster's services.
    pub(crate) const fn families(self) -> &'static [Family] {
        match self {
            Self::V4 | Self::V4LeadingOut => &[Family::V4],
            Self::V6 => &[Family::V6],
            Self::Dual => &Family::ALL,
        }
    }

    /// Whether a flow means anything in such a cluster.
    pub(crate) fn concerns(self, family: Family, setting: Setting) -> bool {
        let leads_out = match self {
            Self::V4 | Self::Dual => None,
            Self::V6 => Some(Family::V4),
            Self::V4LeadingOut => Some(Family::V6),
        };
        match setting {
            Setting::Egress | Setting::EgressExternalSnat => leads_out == Some(family),
            Setting::Default | Setting::ExternalSnat | Setting::PeerExcluded | Setting::ServicesByMain => {
                self != Self::V4LeadingOut && self.families().contains(&family)
            }
        }
    }

    /// Nodes always have IPv4.
    fn of_nodes(self) -> &'static [Family] {
        if self == Self::V4 { &[Family::V4] } else { &Family::ALL }
    }

    fn node_has_ipv6(self) -> bool {
        self.of_nodes().contains(&Family::V6)
    }
}

/// A lab with everybody in it and a server at each address.
pub(crate) struct World {
    pub(crate) lab: Lab,
    stack: Stack,
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
    pub(crate) fn new(stack: Stack) -> Self {
        let lab = Lab::new().unwrap();
        lab.add_subnet("subnet-1".parse().unwrap(), SUBNET);
        let add = |name| (name, lab.add_node(instance(name).parse().unwrap(), name).unwrap());
        let nodes = BTreeMap::from(["node-1", "node-2", "client"].map(add));
        let peer = lab.add_outside_host("peer", v4("peer"), PEER_VPC).unwrap();
        if stack.node_has_ipv6() {
            for (_, index, number, _) in ENIS {
                let own = (*index == 0).then_some((own_v6(*index, *number), 128));
                lab.give_ipv6(eni(*number), own.into_iter().chain([(prefix_v6(*number), 80)]));
            }
            lab.give_outside_host_ipv6(&peer, "peer", v6("peer")).unwrap();
        }
        lab.sync(&ENIS.iter().map(interface).collect::<Vec<_>>()).unwrap();
        let pods = PODS.iter().map(|(name, ..)| (*name, Pod::new(name).unwrap())).collect();
        let container = container_on(nodes["node-1"].namespace());
        let (setting, keeps_nat_gateway) = (Setting::Default, false);
        let world = Self { lab, stack, nodes, pods, peer, container, setting, keeps_nat_gateway };
        world.prepare_nodes();
        world.wire_pods();
        world.balance();
        world.serve();
        world
    }

    /// Writes the rules of a proxy on both nodes.
    pub(crate) fn with_proxy(&mut self, proxy: Proxy) {
        for name in ["node-1", "node-2"] {
            for family in self.stack.families() {
                proxy.write(&self.nodes[name], *family);
            }
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
            let (node, index, ..) = *ENIS.iter().find(|(_, _, number, _)| carried.eni == eni(*number)).unwrap();
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
            for plan in eni_plans(node, self.stack) {
                self.nodes[node].namespace().inside(|| prepare_eni(&plan).unwrap()).unwrap();
            }
        }
    }

    /// Gives both nodes this setting, for the moment.
    pub(crate) fn prepare_hosts(&self, setting: Setting) {
        for node in ["node-1", "node-2"] {
            self.nodes[node]
                .namespace()
                .inside(|| prepare_host(&host_plan(node, setting, self.stack)).unwrap())
                .unwrap();
        }
    }

    /// Keeps node-1 as it is from now on, with the default settings.
    pub(crate) fn guard(&self, report: impl Fn(&Repair) + Send + 'static) -> Guard {
        let prepare = || {
            let guard = Guard::start(&VethPrefix::default(), report).unwrap();
            guard.prepare_host(&host_plan("node-1", Setting::Default, self.stack)).unwrap();
            for plan in eni_plans("node-1", self.stack) {
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
                    addresses: addresses_of(self.stack, pod_v6(node, *index, *last), *last),
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
        if self.stack.node_has_ipv6() {
            small.ip("route change default via fe80::1 dev eth0 advmss 8941\n").unwrap();
        }
    }

    fn balance(&self) {
        for (pod, family) in
            ["a", "b", "d"].into_iter().flat_map(|pod| self.stack.families().iter().map(move |f| (pod, *f)))
        {
            let at = |name| SocketAddr::new(address_of(name, family), crate::services::PORT);
            self.lab.balance(at(&format!("balancer-{pod}")), at(pod)).unwrap();
        }
    }

    fn serve(&self) {
        // The real metadata service is outside of the node.
        for node in ["node-1", "node-2"] {
            self.nodes[node].namespace().ip(&format!("addr del {IMDS}/32 dev lo\n")).unwrap();
        }
        self.lab.fabric().ip(&format!("addr add {IMDS}/32 dev lo\naddr add {IMDS_V6}/128 dev lo nodad\n")).unwrap();
        let others = ["node-1", "node-2", "client", "peer", "container", "internet", "imds"];
        let pods = PODS.iter().map(|(name, ..)| (*name, self.stack.families()));
        for (name, families) in pods.chain(others.map(|name| (name, self.stack.of_nodes()))) {
            for family in families {
                self.place(name).inside(|| probe::serve(name, address_of(name, *family))).unwrap();
            }
        }
    }
}

/// All addresses of a pod.
fn addresses_of(stack: Stack, v6: Ipv6Addr, last: [u8; 2]) -> PodAddresses {
    let [.., low] = last;
    let out_v4 = Ipv4Addr::from_bits(EGRESS_V4.to_bits() | u32::from(low));
    let out_v6 = Ipv6Addr::from_bits(EGRESS_V6.to_bits() | u128::from(low));
    match stack {
        Stack::V4 => PodAddresses::V4(in_vpc(last)),
        Stack::V6 => PodAddresses::Dual(out_v4, v6),
        Stack::Dual => PodAddresses::Dual(in_vpc(last), v6),
        Stack::V4LeadingOut => PodAddresses::Dual(in_vpc(last), out_v6),
    }
}

fn v4(name: &str) -> Ipv4Addr {
    match address_of(name, Family::V4) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!(),
    }
}

fn v6(name: &str) -> Ipv6Addr {
    match address_of(name, Family::V6) {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => unreachable!(),
    }
}

/// The plan of a node's base, whose primary ENI is its first.
fn host_plan(node: &str, setting: Setting, stack: Stack) -> HostPlan {
    let (_, _, number, last) = addresses::eni_of(node, 0);
    let mut plan = HostPlan {
        primary_mac: mac(*number).parse().unwrap(),
        primary_address: in_vpc(*last),
        direct: vec![Cidr::new(in_vpc([0, 0]), 16).unwrap()],
        external_snat: false,
        node_ports: true,
        source_ports: eni_datapath::SourcePorts::default(),
        by_main: vec![],
        veth_prefix: VethPrefix::default(),
        mtu: 9001,
        ipv6: stack.node_has_ipv6(),
    };
    match setting {
        Setting::Default | Setting::Egress => {}
        Setting::ExternalSnat | Setting::EgressExternalSnat => plan.external_snat = true,
        Setting::PeerExcluded => plan.direct.push(Cidr::new(PEER_VPC.network, PEER_VPC.prefix).unwrap()),
        Setting::ServicesByMain => {
            plan.direct.push("172.16.0.0/12".parse().unwrap());
            plan.by_main.push("172.17.0.0/16".parse().unwrap());
        }
    }
    plan
}

fn eni_plans(node: &str, stack: Stack) -> impl Iterator<Item = EniPlan> {
    let enis = ENIS.iter().filter(move |(other, ..)| *other == node);
    enis.map(move |(_, index, number, last)| EniPlan {
        mac: mac(*number).parse().unwrap(),
        primary: in_vpc(*last),
        subnet: Cidr::new(SUBNET.network, SUBNET.prefix).unwrap(),
        device_index: *index,
        card: 0,
        mark: EniMark::of_device(*index),
        mtu: 9001,
        ipv6: stack.node_has_ipv6(),
        primary_v6: stack.node_has_ipv6().then(|| own_v6(*index, *number)),
    })
}

fn container_on(node: &Namespace) -> Namespace {
    let container = Namespace::fresh("container").unwrap();
    let (path, address) = (container.path(), address_of("container", Family::V4));
    let address_v6 = address_of("container", Family::V6);
    node.ip(&format!(
        "link add docker0 type veth peer name eth0 netns {}\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up\n\
         addr add fe80::1/64 dev docker0 nodad\naddr add fd00:17::1/64 dev docker0 nodad\n",
        path.display()
    ))
    .unwrap();
    container
        .ip(&format!(
            "link set eth0 up\naddr add {address}/16 dev eth0\nroute add default via 172.17.0.1\n\
             addr add {address_v6}/64 dev eth0 nodad\nroute add default via fd00:17::1\n"
        ))
        .unwrap();
    container
}

fn instance(node: &str) -> String {
    format!("i-{node}")
}

fn eni(number: u8) -> EniId {
    format!("eni-{number}").parse().unwrap()
}

fn mac(number: u8) -> String {
    format!("02:00:00:00:00:{number:02x}")
}

fn interface((node, index, number, last): &Eni) -> Interface {
    let here = PODS.iter().filter(|(_, pod_node, pod_index, ..)| (pod_node, pod_index) == (node, index));
    Interface {
        id: eni(*number),
        mac: mac(*number).parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        primary: in_vpc(*last),
        secondary: here.map(|(_, _, _, last, _)| in_vpc(*last)).collect(),
        prefixes: vec![],
        prefixes6: vec![],
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
