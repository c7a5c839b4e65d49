//! The services and host ports of the test cluster; how a proxy writes them is in `proxy`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use eni_datapath::Family;

use crate::world::address_of;

/// Port of every server, and of every service's own address.
pub(crate) const PORT: u16 = 80;

/// Where a service's packets go. Each has one endpoint, so that each flow has one way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    pub(crate) name: &'static str,
    /// Last byte of its own address.
    last: u8,
    /// Port on every node. Zero: none.
    pub(crate) node_port: u16,
    /// `externalTrafficPolicy: Local`.
    pub(crate) local: bool,
    /// The pod behind it, which need not be on this node.
    pub(crate) endpoint: &'static str,
}

impl Service {
    /// Its own address.
    pub(crate) fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => [172, 20, 0, self.last].into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x172, 0x20, 0, 0, 0, 0, self.last.into()).into(),
        }
    }

    pub(crate) fn target(&self, family: Family) -> SocketAddr {
        SocketAddr::new(address_of(self.endpoint, family), PORT)
    }

    /// Whether the node's own pods serve it.
    pub(crate) fn is_on(&self, node: &str) -> bool {
        crate::world::node_of(self.endpoint) == Some(node)
    }
}

const fn service(name: &'static str, last: u8, node_port: u16, local: bool, endpoint: &'static str) -> Service {
    Service { name, last, node_port, local, endpoint }
}

/// All services of the cluster.
pub(crate) const SERVICES: &[Service] = &[
    service("on-eth0", 10, 30010, false, "a"),
    service("on-eth1", 11, 30011, false, "b"),
    service("on-eth2", 12, 30012, false, "d"),
    service("far-eth0", 13, 30013, false, "e"),
    service("far-eth1", 14, 30014, false, "f"),
    service("local-eth0", 20, 30020, true, "a"),
    service("local-eth1", 21, 30021, true, "b"),
    service("local-eth2", 22, 30022, true, "d"),
    service("local-far", 23, 30023, true, "f"),
];

/// A container's port on its node, as the portmap plugin makes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HostPort {
    pub(crate) port: u16,
    pub(crate) pod: &'static str,
}

/// All host ports of node-1.
pub(crate) const HOST_PORTS: &[HostPort] = &[HostPort { port: 8080, pod: "a" }, HostPort { port: 8081, pod: "b" }];
