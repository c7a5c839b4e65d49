//! Addresses of ranges that nobody lists: /80 prefixes of IPv6, and those for the way out in the other family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use eni_proto::numbers::{EGRESS_V4, EGRESS_V4_BITS, EGRESS_V6, EGRESS_V6_BITS};

use super::{Eni, Phase, Pool};
use crate::{Families, ports::Cidr6};

impl Pool {
    /// Picks the IPv6 address of the next pod, on the first ready ENI that `carries` pods and has a prefix.
    #[must_use]
    pub fn pick6(&self, carries: impl Fn(&Eni) -> bool) -> Option<(&Eni, Ipv6Addr)> {
        let ready = self.managed().filter(|eni| eni.phase == Phase::Ready && carries(eni));
        let picks = ready.filter_map(|eni| Some((eni, self.next6(eni)?)));
        picks.min_by_key(|(eni, _)| (eni.device_index(), eni.interface.id.clone()))
    }

    /// The next free address of an ENI's prefixes: the one behind the last that is taken, so that reuse is as late as possible.
    #[must_use]
    pub fn next6(&self, eni: &Eni) -> Option<Ipv6Addr> {
        eni.interface.prefixes6.iter().find_map(|prefix| {
            // The first one is the subnet's routers' (RFC 4291, 2.6.1).
            let first = Ipv6Addr::from_bits(prefix.network.to_bits() + 1);
            match self.next_of(first.into(), prefix.last().into())? {
                IpAddr::V6(next) => Some(next),
                IpAddr::V4(_) => None,
            }
        })
    }

    /// The next free address for the way out of pods that have only these families. Absent: all are taken, or there is no other family.
    #[must_use]
    pub fn next_for_egress(&self, families: Families) -> Option<IpAddr> {
        // As in any network, the first and the last are nobody's.
        let (first, last) = match families {
            Families::Dual => return None,
            Families::V6 => {
                let first = EGRESS_V4.to_bits();
                let last = first | (u32::MAX >> EGRESS_V4_BITS);
                (Ipv4Addr::from_bits(first + 1).into(), Ipv4Addr::from_bits(last - 1).into())
            }
            Families::V4 => {
                let first = EGRESS_V6.to_bits();
                let last = first | (u128::MAX >> EGRESS_V6_BITS);
                (Ipv6Addr::from_bits(first + 1).into(), Ipv6Addr::from_bits(last - 1).into())
            }
        };
        self.next_of(first, last)
    }

    /// The address behind the last that is taken, or else the first that is not. Looks at taken ones only, never at a whole range.
    fn next_of(&self, first: IpAddr, last: IpAddr) -> Option<IpAddr> {
        let held = self.held.range(first..=last).next_back().map(|(address, _)| *address);
        let resting = self.cooling.range(first..=last).next_back().map(|(address, _)| *address);
        let stray = self.stray.range(first..=last).next_back().copied();
        match held.max(resting).max(stray) {
            Some(taken) if taken < last => Some(behind(taken)),
            Some(_) => {
                let mut next = first;
                while next < last && self.is_taken(next) {
                    next = behind(next);
                }
                Some(next).filter(|address| !self.is_taken(*address))
            }
            None => Some(first),
        }
    }

    /// Addresses of an ENI's IPv6 prefixes that are held, rest or are strays, sorted by kind.
    pub fn taken_of_prefixes6<'a>(&'a self, eni: &'a Eni) -> impl Iterator<Item = IpAddr> + 'a {
        let of = |prefix: &Cidr6| IpAddr::V6(prefix.network)..=IpAddr::V6(prefix.last());
        eni.interface.prefixes6.iter().flat_map(move |prefix| {
            let held = self.held.range(of(prefix)).map(|(address, _)| *address);
            let cooling = self.cooling.range(of(prefix)).map(|(address, _)| *address);
            held.chain(cooling).chain(self.stray.range(of(prefix)).copied())
        })
    }
}

fn behind(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits().saturating_add(1)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits().saturating_add(1)).into(),
    }
}
