//! The addresses of one interface of a pod.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::numbers::{EGRESS_V4, EGRESS_V4_BITS, EGRESS_V6, EGRESS_V6_BITS};

/// The addresses of one interface of a pod: one of each family at most, and at least one, all by the same ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodAddresses {
    /// IPv4 only.
    V4(Ipv4Addr),
    /// IPv6 only.
    V6(Ipv6Addr),
    /// Both families.
    Dual(Ipv4Addr, Ipv6Addr),
}

impl PodAddresses {
    /// Returns the addresses together; nothing when there is none.
    #[must_use]
    pub const fn new(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), Some(v6)) => Some(Self::Dual(v4, v6)),
            (Some(v4), None) => Some(Self::V4(v4)),
            (None, Some(v6)) => Some(Self::V6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 address.
    #[must_use]
    pub const fn v4(self) -> Option<Ipv4Addr> {
        match self {
            Self::V4(address) | Self::Dual(address, _) => Some(address),
            Self::V6(_) => None,
        }
    }

    /// The IPv6 address.
    #[must_use]
    pub const fn v6(self) -> Option<Ipv6Addr> {
        match self {
            Self::V6(address) | Self::Dual(_, address) => Some(address),
            Self::V4(_) => None,
        }
    }

    /// All of them, IPv4 first.
    pub fn all(self) -> impl Iterator<Item = IpAddr> + Clone {
        [self.v4().map(IpAddr::V4), self.v6().map(IpAddr::V6)].into_iter().flatten()
    }

    /// Those of the VPC, by which others reach the pod: without what serves only for its way out.
    pub fn of_vpc(self) -> impl Iterator<Item = IpAddr> + Clone {
        self.all().filter(|address| !is_for_egress(*address))
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn has(self, address: impl Into<IpAddr>) -> bool {
        let address = address.into();
        self.all().any(|own| own == address)
    }
}

impl From<Ipv4Addr> for PodAddresses {
    fn from(address: Ipv4Addr) -> Self {
        Self::V4(address)
    }
}

impl From<Ipv6Addr> for PodAddresses {
    fn from(address: Ipv6Addr) -> Self {
        Self::V6(address)
    }
}

/// As `10.0.3.7`, `2600:1f00::7` or `10.0.3.7, 2600:1f00::7`.
impl fmt::Display for PodAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(v4) => v4.fmt(f),
            Self::V6(v6) => v6.fmt(f),
            Self::Dual(v4, v6) => write!(f, "{v4}, {v6}"),
        }
    }
}

/// Whether the address is known on its node only and serves a pod of the other family for its way out, translated to the node's.
#[must_use]
pub const fn is_for_egress(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => (address.to_bits() ^ EGRESS_V4.to_bits()) >> (32 - EGRESS_V4_BITS) == 0,
        IpAddr::V6(address) => (address.to_bits() ^ EGRESS_V6.to_bits()) >> (128 - EGRESS_V6_BITS) == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_for_the_way_out_is_not_shown_to_others() {
        let ipv6: Ipv6Addr = "2600:1f00::7".parse().unwrap();
        let pod = PodAddresses::Dual([169, 254, 172, 5].into(), ipv6);
        assert_eq!(pod.of_vpc().collect::<Vec<_>>(), [IpAddr::V6(ipv6)]);
        assert_eq!(pod.all().count(), 2);
        #[rustfmt::skip]
        let table = [
            ("169.254.172.0", true), ("169.254.175.255", true), ("169.254.171.255", false), ("169.254.176.0", false),
            ("fd00::ac:0", true), ("fd00::ac:3ff", true), ("fd00::ac:400", false), ("fd00::ab:ffff", false), ("10.0.0.1", false),
        ];
        for (address, wanted) in table {
            assert_eq!(is_for_egress(address.parse().unwrap()), wanted, "{address}");
        }
    }
}
