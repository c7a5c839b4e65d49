//! Hardware addresses and IPv4 networks as values.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A 48-bit hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

/// An IPv4 network whose host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

/// Text or numbers that make no hardware address or network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNet {
    /// Not six pairs of hexadecimal digits.
    #[error("`{0}` is not a hardware address of the form 02:00:00:00:00:01")]
    Mac(String),
    /// Not an address, a slash and a length of at most 32.
    #[error("`{0}` is not an IPv4 network of the form 10.0.0.0/16")]
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
    /// [`InvalidNet::Cidr`] when `prefix` is above 32.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, InvalidNet> {
        if prefix > 32 {
            return Err(InvalidNet::Cidr(format!("{address}/{prefix}")));
        }
        Ok(Self { network: (address & Ipv4Addr::from_bits(mask(prefix))), prefix })
    }

    /// Returns the network of this one address.
    #[must_use]
    pub const fn host(address: Ipv4Addr) -> Self {
        Self { network: address, prefix: 32 }
    }

    /// The network 0.0.0.0/0.
    pub const ANY: Self = Self { network: Ipv4Addr::UNSPECIFIED, prefix: 0 };

    /// First address of the network.
    #[must_use]
    pub const fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Length of the prefix in bits, at most 32.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Last address of the network.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        self.network | Ipv4Addr::from_bits(!mask(self.prefix))
    }

    /// Returns the router of a VPC subnet: its base address plus one. Source: VPC User Guide, subnet sizing.
    #[must_use]
    pub fn router(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits().saturating_add(1))
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
        Self::new(address.parse().map_err(|_| invalid())?, prefix.parse().map_err(|_| invalid())?)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
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
        for bad in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "/8", "10.0.0.0/-1"] {
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
