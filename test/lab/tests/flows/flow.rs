//! The flows: who asks whom, who answers, as whom it sees the asker, and by which ENIs.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::{
    probe::{self, PATIENCE, SILENCE},
    services::{PORT, SERVICES},
    world::{World, address_of, name_of},
};

/// Large enough that segments of the first size are lost when nobody learns the path's MTU.
const BULK: usize = 300_000;
/// A port without a server.
const CLOSED: u16 = 9;

/// How the nodes are set while a flow is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The node translates what leaves the VPC.
    Default,
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: a NAT gateway does.
    ExternalSnat,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS` with the peered VPC's network.
    PeerExcluded,
    /// The same with 172.16.0.0/12, and `AWS_EXTERNAL_SERVICE_CIDRS` with a part of it that is on the node.
    ServicesByMain,
}

impl Setting {
    pub(crate) const ALL: [Self; 4] = [Self::Default, Self::ExternalSnat, Self::PeerExcluded, Self::ServicesByMain];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Default => "default settings",
            Self::ExternalSnat => "external SNAT",
            Self::PeerExcluded => "peered VPC excluded from SNAT",
            Self::ServicesByMain => "172.16.0.0/12 excluded from SNAT, 172.17.0.0/16 an external service CIDR",
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// One echo request.
    Icmp,
    /// UDP to a closed port: an ICMP error comes back.
    Unreachable,
    /// An echo request that may cross this many routers and needs one more: an ICMP error comes back.
    Expired(u8),
    /// Much data over TCP in both directions, where a link on the way is smaller than both ends think; the asker learns its MTU.
    LearnsMtu(u32),
    /// The same, but the answering side is the one to learn.
    TeachesMtu(u32),
}

use Kind::{Expired, Icmp, LearnsMtu, Tcp, TeachesMtu, Udp, Unreachable};

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) setting: Setting,
    pub(crate) name: &'static str,
    pub(crate) from: &'static str,
    /// A name, perhaps with a port, or a service's name.
    pub(crate) to: &'static str,
    pub(crate) over: &'static [Kind],
    /// `SERVER sees NAME`, or `nobody`.
    pub(crate) answer: &'static str,
    /// The ENIs of the two nodes that carry it, as [`World::ways`] tells them.
    pub(crate) way: &'static str,
}

impl Flow {
    /// Sends all and compares. Returns what was not as it should be; nothing when all was.
    pub(crate) fn follow(&self, world: &World) -> Option<String> {
        world.lab.count_ways().unwrap();
        for kind in self.over {
            let seen = self.send(world, *kind);
            if seen != self.answer {
                return Some(format!("{kind:?}: expected `{}`, got `{seen}` by {}", self.answer, world.ways()));
            }
        }
        let way = world.ways();
        (way != self.way).then(|| format!("expected the way `{}`, it took `{way}`", self.way))
    }

    fn send(&self, world: &World, kind: Kind) -> String {
        let (target, place) = (target(self.to), world.place(self.from));
        let patience = if self.answer == "nobody" { SILENCE } else { PATIENCE };
        let told = |answer: io::Result<probe::Answer>| match answer {
            Ok(answer) => format!("{} sees {}", answer.server, name_of(answer.seen_as)),
            Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
                "nobody".into()
            }
            Err(error) => error.to_string(),
        };
        match kind {
            Tcp => told(place.inside(|| probe::ask_tcp(target, 0, patience)).unwrap()),
            Udp => told(place.inside(|| probe::ask_udp(target, patience)).unwrap()),
            Icmp => {
                let ping = place.ping(*target.ip(), patience).unwrap();
                if ping.answered { self.answer.to_owned() } else { "nobody".to_owned() }
            }
            Unreachable => {
                let closed = SocketAddrV4::new(*target.ip(), CLOSED);
                let error = place.inside(|| probe::ask_udp(closed, patience)).unwrap().unwrap_err();
                if error.kind() == io::ErrorKind::ConnectionRefused { self.answer.to_owned() } else { told(Err(error)) }
            }
            Expired(routers) => {
                let (hops, target) = (routers.to_string(), target.ip().to_string());
                let ping = ["ping", "-n", "-c", "1", "-W", "3", "-t", &hops, &target];
                let output = place.output(std::process::Command::new(ping[0]).args(&ping[1..]), &[]).unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let router = text.lines().find_map(|line| line.strip_prefix("From ")?.split_once(' '));
                match router {
                    Some((router, what)) if what.contains("Time to live exceeded") => {
                        let router = router.parse().map_or(router.to_owned(), name_of);
                        format!("{router} says that the time is over")
                    }
                    _ => "nobody".to_owned(),
                }
            }
            LearnsMtu(mtu) | TeachesMtu(mtu) => {
                let answer = told(place.inside(|| probe::ask_tcp(target, BULK, patience)).unwrap());
                let learner = if kind == LearnsMtu(mtu) { (self.from, *target.ip()) } else { self.answering() };
                let route = world.place(learner.0).run(&["ip", "route", "get", &learner.1.to_string()]).unwrap();
                if route.contains(&format!("mtu {mtu}")) {
                    answer
                } else {
                    format!("{} learnt nothing: {route}", learner.0)
                }
            }
        }
    }

    /// Who answers, and whom it talks to.
    fn answering(&self) -> (&'static str, Ipv4Addr) {
        let (server, asker) = self.answer.split_once(" sees ").unwrap();
        (server, address_of(asker))
    }
}

/// Where a name leads, which may be a service's and may have a port.
pub(crate) fn target(name: &str) -> SocketAddrV4 {
    if let Some(service) = SERVICES.iter().find(|service| service.name == name) {
        return SocketAddrV4::new(service.address.into(), PORT);
    }
    match name.split_once(':') {
        Some((name, port)) => SocketAddrV4::new(address_of(name), port.parse().unwrap()),
        None => SocketAddrV4::new(address_of(name), PORT),
    }
}

/// All flows in the order of the table.
pub(crate) fn all() -> Vec<Flow> {
    let sections = [
        (Setting::Default, PODS_AND_NODES),
        (Setting::Default, OUTSIDE),
        (Setting::Default, SERVICE_ADDRESSES),
        (Setting::Default, NODE_PORTS),
        (Setting::Default, BALANCERS_AND_HOST_PORTS),
        (Setting::Default, ERRORS_AND_MTU),
        (Setting::ExternalSnat, WITH_EXTERNAL_SNAT),
        (Setting::PeerExcluded, WITH_PEER_EXCLUDED),
        (Setting::ServicesByMain, WITH_SERVICES_BY_MAIN),
    ];
    let rows = sections.into_iter().flat_map(|(setting, rows)| rows.iter().map(move |row| (setting, row)));
    rows.map(|(setting, &(name, from, to, over, answer, way))| Flow { setting, name, from, to, over, answer, way })
        .collect()
}

type Row = (&'static str, &'static str, &'static str, &'static [Kind], &'static str, &'static str);

const ALL: &[Kind] = &[Tcp, Udp, Icmp];
const PORTS: &[Kind] = &[Tcp, Udp];

const PODS_AND_NODES: &[Row] = &[
    ("pod to pod, same ENI", "b", "c", ALL, "c sees b", "-"),
    ("pod to pod, from primary to secondary ENI", "a", "b", ALL, "b sees a", "-"),
    ("pod to pod, from secondary to primary ENI", "b", "a", ALL, "a sees b", "-"),
    ("pod to pod, between secondary ENIs", "b", "d", ALL, "d sees b", "-"),
    ("pod to pod, other node, primary ENIs", "a", "e", ALL, "e sees a", "eth0, node-2 eth0"),
    ("pod to pod, other node, secondary ENIs", "b", "f", ALL, "f sees b", "eth1, node-2 eth1"),
    ("pod to pod, other node, secondary to primary ENI", "d", "e", ALL, "e sees d", "eth2, node-2 eth0"),
    ("pod from other node, primary to secondary ENI", "e", "d", ALL, "d sees e", "eth2, node-2 eth0"),
    ("pod on primary ENI to own node", "a", "node-1", ALL, "node-1 sees a", "-"),
    ("pod on secondary ENI to own node", "b", "node-1", ALL, "node-1 sees b", "-"),
    ("pod on primary ENI to other node", "a", "node-2", ALL, "node-2 sees a", "eth0, node-2 eth0"),
    ("pod on secondary ENI to other node", "b", "node-2", ALL, "node-2 sees b", "eth1, node-2 eth0"),
    ("host to pod on primary ENI (probe)", "node-1", "a", ALL, "a sees node-1", "-"),
    ("host to pod on secondary ENI (probe)", "node-1", "b", ALL, "b sees node-1", "-"),
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
    ("container in a network of the node to pod on secondary ENI", "container", "b", ALL, "b sees container", "-"),
    ("other node to pod on primary ENI", "node-2", "a", ALL, "a sees node-2", "eth0, node-2 eth0"),
    ("other node to pod on secondary ENI", "node-2", "b", ALL, "b sees node-2", "eth1, node-2 eth0"),
];

const OUTSIDE: &[Row] = &[
    ("pod on primary ENI to IMDS", "a", "imds", &[Tcp], "imds sees node-1", "eth0"),
    ("pod on secondary ENI to IMDS", "b", "imds", &[Tcp], "imds sees node-1", "eth0"),
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on another secondary ENI to internet", "d", "internet", ALL, "internet sees node-1", "eth0"),
    ("node to internet", "node-1", "internet", ALL, "internet sees node-1", "eth0"),
    ("pod on primary ENI to peered VPC", "a", "peer", ALL, "peer sees node-1", "eth0"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees node-1", "eth0"),
    ("peered VPC to pod on primary ENI", "peer", "a", ALL, "a sees peer", "eth0"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
];

const SERVICE_ADDRESSES: &[Row] = &[
    ("ClusterIP to pod on same node, same ENI", "c", "on-eth1", PORTS, "b sees c", "-"),
    ("ClusterIP to pod on same node, other ENI", "b", "on-eth2", PORTS, "d sees b", "-"),
    ("ClusterIP to pod on other node, primary ENIs", "a", "far-eth0", PORTS, "e sees a", "eth0, node-2 eth0"),
    ("ClusterIP to pod on other node, secondary ENIs", "b", "far-eth1", PORTS, "f sees b", "eth1, node-2 eth1"),
    ("ClusterIP to itself on primary ENI (hairpin)", "a", "on-eth0", PORTS, "a sees node-1", "-"),
    ("ClusterIP to itself on secondary ENI (hairpin)", "b", "on-eth1", PORTS, "b sees node-1", "-"),
    ("ClusterIP from host to own pod", "node-1", "on-eth1", PORTS, "b sees node-1", "-"),
    ("ClusterIP from host to pod on other node", "node-1", "far-eth1", PORTS, "f sees node-1", "eth0, node-2 eth1"),
];

const NODE_PORTS: &[Row] = &[
    ("NodePort, Cluster, from VPC to pod on primary ENI", "client", "node-1:30010", PORTS, "a sees node-1", "eth0"),
    ("NodePort, Cluster, from VPC to pod on secondary ENI", "client", "node-1:30011", PORTS, "b sees node-1", "eth0"),
    (
        "NodePort, Cluster, from internet to pod on secondary ENI",
        "internet",
        "node-1:30012",
        PORTS,
        "d sees node-1",
        "eth0",
    ),
    (
        "NodePort, Cluster, from VPC to pod on other node",
        "client",
        "node-1:30014",
        PORTS,
        "f sees node-1",
        "eth0, node-2 eth1",
    ),
    (
        "NodePort, Cluster, from internet to pod on other node",
        "internet",
        "node-1:30013",
        PORTS,
        "e sees node-1",
        "eth0, node-2 eth0",
    ),
    ("NodePort, Local, from VPC to pod on primary ENI", "client", "node-1:30020", PORTS, "a sees client", "eth0"),
    ("NodePort, Local, from VPC to pod on secondary ENI", "client", "node-1:30021", PORTS, "b sees client", "eth0"),
    (
        "NodePort, Local, from internet to pod on primary ENI",
        "internet",
        "node-1:30020",
        PORTS,
        "a sees internet",
        "eth0",
    ),
    (
        "NodePort, Local, from internet to pod on secondary ENI",
        "internet",
        "node-1:30022",
        PORTS,
        "d sees internet",
        "eth0",
    ),
    ("NodePort, Local, from peered VPC to pod on secondary ENI", "peer", "node-1:30021", PORTS, "b sees peer", "eth0"),
    ("NodePort, Local, without a pod on this node", "client", "node-1:30023", PORTS, "nobody", "in eth0"),
    ("NodePort of own node from pod, to pod on same node", "b", "node-1:30012", PORTS, "d sees node-1", "-"),
    ("NodePort of own node from pod, to itself", "b", "node-1:30011", PORTS, "b sees node-1", "-"),
    (
        "NodePort of own node from pod on secondary ENI, to pod on other node",
        "b",
        "node-1:30014",
        PORTS,
        "f sees node-1-eth1",
        "eth1, node-2 eth1",
    ),
    (
        "NodePort of other node from pod on secondary ENI",
        "b",
        "node-2:30013",
        PORTS,
        "e sees node-2",
        "eth1, node-2 eth0",
    ),
    (
        "NodePort of other node from pod on secondary ENI, back to itself",
        "b",
        "node-2:30011",
        PORTS,
        "b sees node-2",
        "eth1, node-2 eth0",
    ),
    ("NodePort of own node from host", "node-1", "node-1:30011", PORTS, "b sees node-1", "-"),
];

const BALANCERS_AND_HOST_PORTS: &[Row] = &[
    ("load balancer, instance mode, from VPC", "client", "node-1:30012", PORTS, "d sees node-1", "eth0"),
    ("load balancer, instance mode, keeps client, Local", "internet", "node-1:30021", PORTS, "b sees internet", "eth0"),
    ("load balancer, IP mode, from VPC, primary ENI", "client", "a", ALL, "a sees client", "eth0"),
    ("load balancer, IP mode, from VPC, secondary ENI", "client", "b", ALL, "b sees client", "eth1"),
    ("load balancer, IP mode, keeps client, primary ENI", "internet", "balancer-a", PORTS, "a sees internet", "eth0"),
    ("load balancer, IP mode, keeps client, secondary ENI", "internet", "balancer-b", PORTS, "b sees internet", "eth1"),
    (
        "load balancer, IP mode, keeps client, another secondary ENI",
        "internet",
        "balancer-d",
        PORTS,
        "d sees internet",
        "eth2",
    ),
    ("host port from VPC to pod on primary ENI", "client", "node-1:8080", PORTS, "a sees client", "eth0"),
    ("host port from VPC to pod on secondary ENI", "client", "node-1:8081", PORTS, "b sees client", "eth0"),
    ("host port from internet to pod on secondary ENI", "internet", "node-1:8081", PORTS, "b sees internet", "eth0"),
    ("host port from host", "node-1", "node-1:8081", PORTS, "b sees node-1", "-"),
    ("host port from pod on same node", "c", "node-1:8081", PORTS, "b sees c", "-"),
    ("host port of other node's pod from pod", "f", "node-1:8081", PORTS, "b sees f", "eth0, node-2 eth1"),
];

const ERRORS_AND_MTU: &[Row] = &[
    ("closed port of pod on other node", "b", "f", &[Unreachable], "f sees b", "eth1, node-2 eth1"),
    ("closed port of internet host", "b", "internet", &[Unreachable], "internet sees node-1", "eth0"),
    ("closed port of pod from VPC", "client", "b", &[Unreachable], "b sees client", "eth1"),
    ("closed port of pod from peered VPC", "peer", "b", &[Unreachable], "b sees peer", "eth1"),
    ("time exceeded on own node", "c", "internet", &[Expired(1)], "node-1 says that the time is over", "-"),
    ("time exceeded on the way to pod", "client", "a", &[Expired(2)], "node-1 says that the time is over", "eth0"),
    ("path MTU, pod on primary ENI to internet", "a", "internet", &[LearnsMtu(1500)], "internet sees node-1", "eth0"),
    ("path MTU, pod on secondary ENI to internet", "b", "internet", &[LearnsMtu(1500)], "internet sees node-1", "eth0"),
    ("path MTU, NodePort from internet", "internet", "node-1:30022", &[TeachesMtu(1500)], "d sees internet", "eth0"),
    (
        "path MTU, load balancer in IP mode from internet",
        "internet",
        "balancer-d",
        &[TeachesMtu(1500)],
        "d sees internet",
        "eth2",
    ),
    (
        "path MTU, from VPC to pod with smaller MTU",
        "client",
        "small",
        &[LearnsMtu(1500)],
        "small sees client",
        "out eth0, eth1",
    ),
    ("path MTU, from pod on same node to pod with smaller MTU", "d", "small", &[LearnsMtu(1500)], "small sees d", "-"),
];

const WITH_EXTERNAL_SNAT: &[Row] = &[
    ("pod on primary ENI to internet", "a", "internet", ALL, "internet sees nat-gateway", "eth0"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees nat-gateway", "eth1"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees b", "eth1"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
    ("pod on secondary ENI to IMDS", "b", "imds", &[Tcp], "imds sees b", "eth1"),
    ("pod to pod, other node, secondary ENIs", "b", "f", ALL, "f sees b", "eth1, node-2 eth1"),
    (
        "NodePort, Local, from internet to pod on secondary ENI",
        "internet",
        "node-1:30021",
        PORTS,
        "b sees internet",
        "eth0",
    ),
    (
        "NodePort, Cluster, from internet to pod on secondary ENI",
        "internet",
        "node-1:30012",
        PORTS,
        "d sees node-1",
        "eth0",
    ),
    ("load balancer, IP mode, keeps client, secondary ENI", "internet", "balancer-b", PORTS, "b sees internet", "eth1"),
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
];

const WITH_PEER_EXCLUDED: &[Row] = &[
    ("pod on primary ENI to peered VPC", "a", "peer", ALL, "peer sees a", "eth0"),
    ("pod on secondary ENI to peered VPC", "b", "peer", ALL, "peer sees b", "eth1"),
    ("peered VPC to pod on secondary ENI", "peer", "b", ALL, "b sees peer", "eth1"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
    ("NodePort, Local, from peered VPC to pod on secondary ENI", "peer", "node-1:30021", PORTS, "b sees peer", "eth0"),
];

const WITH_SERVICES_BY_MAIN: &[Row] = &[
    ("pod on secondary ENI to container in a network of the node", "b", "container", ALL, "container sees b", "-"),
    ("container in a network of the node to pod on secondary ENI", "container", "b", ALL, "b sees container", "-"),
    ("pod on secondary ENI to internet", "b", "internet", ALL, "internet sees node-1", "eth0"),
];
