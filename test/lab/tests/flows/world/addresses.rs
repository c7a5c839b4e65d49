//! Who has which addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eni_datapath::Family;
use ipam_core::ports::Cidr4;
use lab::{INTERNET_HOST, INTERNET_HOST_V6};

/// An ENI: node, device index, number, last bytes of its primary address.
pub(super) type Eni = (&'static str, u8, u8, [u8; 2]);

pub(super) const SUBNET: Cidr4 = Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 20 };
pub(super) const PEER_VPC: Cidr4 = Cidr4 { network: Ipv4Addr::new(10, 1, 0, 0), prefix: 16 };
pub(super) const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Source: EC2 User Guide, "Access instance metadata".
pub(super) const IMDS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

pub(super) const ENIS: &[Eni] = &[
    ("node-1", 0, 1, [0, 11]),
    ("node-1", 1, 2, [0, 12]),
    ("node-1", 2, 3, [0, 13]),
    ("node-2", 0, 4, [0, 21]),
    ("node-2", 1, 5, [0, 22]),
    ("client", 0, 6, [0, 31]),
];

/// A pod: name, node, device index of its ENI, last bytes of its address, MTU.
pub(super) const PODS: &[(&str, &str, u8, [u8; 2], u16)] = &[
    ("a", "node-1", 0, [1, 1], 9001),
    ("b", "node-1", 1, [1, 2], 9001),
    ("c", "node-1", 1, [1, 3], 9001),
    ("d", "node-1", 2, [1, 4], 9001),
    ("small", "node-1", 1, [1, 5], 1500),
    ("e", "node-2", 0, [1, 6], 9001),
    ("f", "node-2", 1, [1, 7], 9001),
];

/// Who has neither an ENI nor a veth of its own in this lab. There is no NAT gateway in IPv6.
const OTHERS: &[(&str, Ipv4Addr, Ipv6Addr)] = &[
    ("peer", Ipv4Addr::new(10, 1, 0, 9), Ipv6Addr::new(0x2600, 0x1f01, 0, 1, 0, 0, 0, 9)),
    ("container", Ipv4Addr::new(172, 17, 0, 2), Ipv6Addr::new(0xfd00, 0x17, 0, 0, 0, 0, 0, 2)),
    ("internet", INTERNET_HOST, INTERNET_HOST_V6),
    ("imds", IMDS, IMDS_V6),
    ("gateway", eni_proto::numbers::POD_GATEWAY, eni_proto::numbers::POD_GATEWAY_V6),
    ("nat-gateway", lab::NAT_GATEWAY, Ipv6Addr::UNSPECIFIED),
    ("balancer-a", Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1)),
    ("balancer-b", Ipv4Addr::new(203, 0, 113, 2), Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2)),
    ("balancer-d", Ipv4Addr::new(203, 0, 113, 3), Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 3)),
];

/// An address of the VPC's IPv4 network.
pub(super) const fn in_vpc(last: [u8; 2]) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, last[0], last[1])
}

/// The own address of the ENI with this device index and number: the node's, or the first of the ENI's /80, which is nearer to its pods.
pub(super) const fn own_v6(index: u8, number: u8) -> Ipv6Addr {
    match index {
        0 => Ipv6Addr::new(0x2600, 0x1f00, 0, 1, 0, 0, 0, number as u16),
        _ => prefix_v6(number),
    }
}

/// The /80 of the ENI with this number, by its first address.
pub(super) const fn prefix_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2600, 0x1f00, 0, 1, number as u16, 0, 0, 0)
}

pub(super) fn eni_of(node: &str, index: u8) -> &'static Eni {
    ENIS.iter().find(|(other, other_index, ..)| (*other, *other_index) == (node, index)).unwrap()
}

/// A pod's address is in its ENI's prefix.
pub(super) fn pod_v6(node: &str, index: u8, last: [u8; 2]) -> Ipv6Addr {
    let (_, _, number, _) = *eni_of(node, index);
    let [.., high, low] = last;
    Ipv6Addr::from_bits(prefix_v6(number).to_bits() | u128::from(u16::from_be_bytes([high, low])))
}

/// Everybody's name and addresses.
fn everybody() -> impl Iterator<Item = (String, Ipv4Addr, Ipv6Addr)> {
    let enis = ENIS.iter().map(|(node, index, number, last)| {
        let name = if *index == 0 { (*node).to_owned() } else { format!("{node}-eth{index}") };
        (name, in_vpc(*last), own_v6(*index, *number))
    });
    let pods = PODS
        .iter()
        .map(|(name, node, index, last, _)| ((*name).to_owned(), in_vpc(*last), pod_v6(node, *index, *last)));
    enis.chain(pods).chain(OTHERS.iter().map(|(name, v4, v6)| ((*name).to_owned(), *v4, *v6)))
}

/// The address of somebody by name; fails the test for a name that nobody has.
pub(crate) fn address_of(name: &str, family: Family) -> IpAddr {
    let found = everybody().find(|(other, ..)| other == name);
    let (_, v4, v6) = found.unwrap_or_else(|| panic!("nobody is called {name}"));
    match family {
        Family::V4 => v4.into(),
        Family::V6 => v6.into(),
    }
}

/// The name of whom an address belongs to, or the address.
pub(crate) fn name_of(address: IpAddr) -> String {
    everybody().find(|(_, v4, v6)| *v4 == address || *v6 == address).map_or(address.to_string(), |(name, ..)| name)
}

/// The node that a pod is on.
pub(crate) fn node_of(pod: &str) -> Option<&'static str> {
    PODS.iter().find(|(name, ..)| *name == pod).map(|(_, node, ..)| *node)
}
