//! Networks of both families, as text and as values.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// An IPv4 network: address of the network and length of its prefix, 0 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr4 {
    /// First address of the network; host bits are zero.
    pub network: Ipv4Addr,
    /// Length of the prefix in bits, 0 to 32.
    pub prefix: u8,
}

impl Cidr4 {
    /// Whether the address lies in the network.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let host_bits = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        address.to_bits() & !host_bits == self.network.to_bits()
    }

    /// All addresses of the network in order, the first and the last included. Meant for small networks.
    pub fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        let host_bits = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (self.network.to_bits()..=self.network.to_bits() | host_bits).map(Ipv4Addr::from_bits)
    }
}

impl fmt::Display for Cidr4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// An IPv6 network: address of the network and length of its prefix, 0 to 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr6 {
    /// First address of the network; host bits are zero.
    pub network: Ipv6Addr,
    /// Length of the prefix in bits, 0 to 128.
    pub prefix: u8,
}

impl Cidr6 {
    /// Whether the address lies in the network.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        (self.network..=self.last()).contains(&address)
    }

    /// The last address of the network.
    #[must_use]
    pub fn last(self) -> Ipv6Addr {
        let host_bits = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        Ipv6Addr::from_bits(self.network.to_bits() | host_bits)
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Text that is no IPv6 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network as 2600:1f00:0:1::/80")]
pub struct InvalidCidr6(String);

impl FromStr for Cidr6 {
    type Err = InvalidCidr6;

    fn from_str(text: &str) -> Result<Self, InvalidCidr6> {
        let parse = || {
            let (network, prefix) = text.split_once('/')?;
            let (network, prefix) = (network.parse().ok()?, prefix.parse().ok().filter(|bits| *bits <= 128)?);
            let found = Self { network, prefix };
            let host_bits = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            (network.to_bits() & host_bits == 0).then_some(found)
        };
        parse().ok_or_else(|| InvalidCidr6(text.to_owned()))
    }
}
