//! The flows: who asks whom, who answers, as whom it sees the asker, and by which ENIs.

mod rows;

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use eni_datapath::Family;
use lab::Namespace;

use crate::{
    Outcome,
    probe::{self, Claims, PATIENCE, SILENCE},
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
    /// Pods whose only address of the family is not the VPC's (`ENABLE_V4_EGRESS`, `ENABLE_V6_EGRESS`).
    Egress,
    /// The same with external SNAT, which knows nothing of such addresses.
    EgressExternalSnat,
}

impl Setting {
    /// Those that a node can change to and fro.
    pub(crate) const ALL: [Self; 4] = [Self::Default, Self::ExternalSnat, Self::PeerExcluded, Self::ServicesByMain];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Default => "default settings",
            Self::ExternalSnat => "external SNAT",
            Self::PeerExcluded => "peered VPC excluded from SNAT, which is the same as a new network of the VPC",
            Self::Egress => "pods that have addresses of the other family (egress)",
            Self::EgressExternalSnat => "pods that have addresses of the other family (egress), external SNAT",
            Self::ServicesByMain => "172.16.0.0/12 excluded from SNAT, 172.17.0.0/16 an external service CIDR",
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// One datagram that no link carries whole.
    Fragments,
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
    /// UDP with the address of somebody else, whom no answer may lead to.
    As(&'static str),
    /// UDP in the name of a pod, as a transparent proxy sends it; the answer comes to the pod.
    InNameOf(&'static str),
    /// UDP while pod b has somebody else's address and tells everybody by ARP, or neighbour discovery.
    WhileClaimed(&'static str),
}

use Kind::{As, Expired, Fragments, Icmp, InNameOf, LearnsMtu, Tcp, TeachesMtu, Udp, Unreachable, WhileClaimed};

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) family: Family,
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
    /// Sends all and compares. Fails with what was not as it should be.
    pub(crate) fn follow(&self, world: &World) -> Outcome {
        match self.mistake(world) {
            None => Ok(()),
            Some(mistake) => Err(mistake),
        }
    }

    fn mistake(&self, world: &World) -> Option<String> {
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
        let (target, place) = (target(self.to, self.family), world.place(self.from));
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
            Fragments => told(place.inside(|| probe::ask_udp_at_length(target, 20_000, patience)).unwrap()),
            Icmp => {
                let ping = place.ping(target.ip(), patience).unwrap();
                if ping.answered { self.answer.to_owned() } else { "nobody".to_owned() }
            }
            Unreachable => {
                let closed = SocketAddr::new(target.ip(), CLOSED);
                let error = place.inside(|| probe::ask_udp(closed, patience)).unwrap().unwrap_err();
                if error.kind() == io::ErrorKind::ConnectionRefused { self.answer.to_owned() } else { told(Err(error)) }
            }
            As(other) => {
                let source = address_of(other, self.family);
                let answer = place.with_address(source, || probe::ask_udp_from(source, target, SILENCE));
                told(answer)
            }
            InNameOf(pod) => told(probe::ask_udp_in_name_of(
                (world.place(pod), address_of(pod, self.family)),
                place,
                target,
                patience,
            )),
            WhileClaimed(other) => world.place("b").with_address_told(address_of(other, self.family), || {
                told(place.inside(|| probe::ask_udp(target, patience)).unwrap())
            }),
            Expired(routers) => expired(place, routers, target.ip()),
            LearnsMtu(mtu) | TeachesMtu(mtu) => {
                let answer = told(place.inside(|| probe::ask_tcp(target, BULK, patience)).unwrap());
                let learner = if kind == LearnsMtu(mtu) { (self.from, target.ip()) } else { self.answering() };
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
    fn answering(&self) -> (&'static str, IpAddr) {
        let (server, asker) = self.answer.split_once(" sees ").unwrap();
        (server, address_of(asker, self.family))
    }
}

/// Who says that an echo request may cross no more routers.
fn expired(place: &Namespace, routers: u8, target: IpAddr) -> String {
    let (hops, target) = (routers.to_string(), target.to_string());
    let ping = ["ping", "-n", "-c", "1", "-W", "20", "-t", &hops, &target];
    let output = place.output(std::process::Command::new(ping[0]).args(&ping[1..]), &[]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("From ")?.split_once(' ')) {
        Some((router, what)) if what.contains("Time to live exceeded") || what.contains("Hop limit") => {
            let router = router.parse().map_or(router.to_owned(), name_of);
            format!("{router} says that the time is over")
        }
        _ => "nobody".to_owned(),
    }
}

/// Where a name leads, which may be a service's and may have a port.
pub(crate) fn target(name: &str, family: Family) -> SocketAddr {
    if let Some(service) = SERVICES.iter().find(|service| service.name == name) {
        return SocketAddr::new(service.address(family), PORT);
    }
    match name.split_once(':') {
        Some((name, port)) => SocketAddr::new(address_of(name, family), port.parse().unwrap()),
        None => SocketAddr::new(address_of(name, family), PORT),
    }
}

/// All flows in the order of the table. Of IPv6 nothing is translated, so that it has the default settings only.
pub(crate) fn all() -> Vec<Flow> {
    let default = [
        rows::PODS_AND_NODES,
        rows::OUTSIDE,
        rows::SERVICE_ADDRESSES,
        rows::NODE_PORTS,
        rows::BALANCERS_AND_HOST_PORTS,
        rows::ERRORS_AND_MTU,
        rows::PROTECTION,
    ]
    .map(|rows| (Setting::Default, rows));
    let others = [
        (Setting::ExternalSnat, rows::WITH_EXTERNAL_SNAT),
        (Setting::PeerExcluded, rows::WITH_PEER_EXCLUDED),
        (Setting::ServicesByMain, rows::WITH_SERVICES_BY_MAIN),
    ];
    let rows = |sections: &[(Setting, &'static [rows::Row])], family| {
        let rows = sections.iter().flat_map(|(setting, rows)| rows.iter().map(move |row| (*setting, row)));
        rows.map(|(setting, &(name, from, to, over, answer, way))| Flow {
            family,
            setting,
            name,
            from,
            to,
            over,
            answer,
            way,
        })
        .collect::<Vec<_>>()
    };
    let mut flows = rows(&default, Family::V4);
    flows.extend(rows(&others, Family::V4));
    flows.extend(rows(&default, Family::V6).into_iter().map(in_ipv6));
    let egress = [(Setting::Egress, rows::EGRESS), (Setting::EgressExternalSnat, rows::EGRESS_WITH_EXTERNAL_SNAT)];
    flows.extend(Family::ALL.into_iter().flat_map(|family| rows(&egress, family)));
    flows
}

/// The same flow where no address is translated on the way.
fn in_ipv6(flow: Flow) -> Flow {
    match rows::OTHERWISE_IN_IPV6.iter().find(|(name, ..)| *name == flow.name) {
        Some(&(_, answer, way)) => Flow { answer, way, ..flow },
        None => flow,
    }
}
