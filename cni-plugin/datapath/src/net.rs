//! Hardware addresses and networks as values.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A 48-bit hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// A network whose host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// Text or numbers that make no hardware address or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNet {
    /// Not six pairs of hexadecimal digits.
    #[error("`{0}` is not a hardware address of the form 02:00:00:00:00:01")]
    Mac(String),
    /// Not an address, a slash and a length of at most 32 or 128.
    #[error("`{0}` is not a network of the form 10.0.0.0/16 or 2600:1f00::/56")]
    Cidr(String),
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddress {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<Self, InvalidNet> {
        let bytes: Option<Vec<u8>> = text
            .split(':')
            .map(|pair| if pair.len() == 2 { u8::from_str_radix(pair, 16).ok() } else { None })
            .collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or_else(|| InvalidNet::Mac(text.to_owned()))
    }
}

impl Cidr {
    /// Returns the network that `address` is in; the bits behind the prefix are cleared.
    ///
    /// # Errors
    /// [`InvalidNet::Cidr`] when `prefix` is above 32, or above 128 for IPv6.
    pub fn new(address: impl Into<IpAddr>, prefix: u8) -> Result<Self, InvalidNet> {
        let address = address.into();
        if prefix > Family::of(address).bits() {
            return Err(InvalidNet::Cidr(format!("{address}/{prefix}")));
        }
        Ok(Self { network: with_host_bits(address, prefix, false), prefix })
    }

    /// Returns the network of this one address.
    #[must_use]
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let network = address.into();
        Self { network, prefix: Family::of(network).bits() }
    }

    /// The network 0.0.0.0/0.
    pub const ANY: Self = Self { network: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 0 };

    /// The network ::/0.
    pub const ANY_V6: Self = Self { network: IpAddr::V6(Ipv6Addr::UNSPECIFIED), prefix: 0 };

    /// First address of the network.
    #[must_use]
    pub const fn network(self) -> IpAddr {
        self.network
    }

    /// Its family.
    #[must_use]
    pub const fn family(self) -> Family {
        Family::of(self.network)
    }

    /// Length of the prefix in bits, at most 32 or 128.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether it is one address.
    #[must_use]
    pub const fn is_host(self) -> bool {
        self.prefix == self.family().bits()
    }

    /// Last address of the network.
    #[must_use]
    pub fn last(self) -> IpAddr {
        with_host_bits(self.network, self.prefix, true)
    }

    /// Returns the IPv4 router of a VPC subnet: its base address plus one. Source: VPC User Guide, subnet sizing.
    #[must_use]
    pub fn router(self) -> IpAddr {
        match self.network {
            IpAddr::V4(network) => Ipv4Addr::from_bits(network.to_bits().saturating_add(1)).into(),
            IpAddr::V6(network) => Ipv6Addr::from_bits(network.to_bits().saturating_add(1)).into(),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = InvalidNet;

    fn from_str(text: &str) -> Result<Self, InvalidNet> {
        let invalid = || InvalidNet::Cidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        Self::new(address, prefix.parse().map_err(|_| invalid())?)
    }
}

/// The address with all bits behind the prefix set or cleared.
fn with_host_bits(address: IpAddr, prefix: u8, set: bool) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let bits = address.to_bits();
            Ipv4Addr::from_bits(if set { bits | host } else { bits & !host }).into()
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let bits = address.to_bits();
            Ipv6Addr::from_bits(if set { bits | host } else { bits & !host }).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_clears_its_host_bits_and_knows_its_router() {
        let subnet: Cidr = "10.0.5.77/20".parse().unwrap();
        assert_eq!(subnet.to_string(), "10.0.0.0/20");
        assert_eq!(subnet.router(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(subnet.last(), Ipv4Addr::new(10, 0, 15, 255));
        assert_eq!("0.0.0.0/0".parse(), Ok(Cidr::ANY));
        assert_eq!(Cidr::ANY.last(), Ipv4Addr::BROADCAST);
        let prefix: Cidr = "2600:1f00:0:1:2::7/80".parse().unwrap();
        assert_eq!(prefix.to_string(), "2600:1f00:0:1:2::/80");
        assert_eq!(prefix.last().to_string(), "2600:1f00:0:1:2:ffff:ffff:ffff");
        assert_eq!("::/0".parse(), Ok(Cidr::ANY_V6));
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "/8", "10.0.0.0/-1", "::/129"] {
            assert_eq!(bad.parse::<Cidr>(), Err(InvalidNet::Cidr(bad.into())));
        }
    }

    #[test]
    fn a_hardware_address_reads_back_as_written() {
        let mac: MacAddress = "02:00:0A:ff:00:01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:0a:ff:00:01");
        for bad in ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0", "02-00-00-00-00-00"] {
            assert_eq!(bad.parse::<MacAddress>(), Err(InvalidNet::Mac(bad.into())));
        }
    }
}
