//! Addresses of /80 prefixes of IPv6, which are so many that nobody lists them.

use std::net::{IpAddr, Ipv6Addr};

use super::{Eni, Phase, Pool};
use crate::ports::Cidr6;

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
            self.next_of(first, prefix.last())
        })
    }

    /// The address behind the last that is taken, or else the first that is not. Looks at taken ones only, never at a whole prefix.
    fn next_of(&self, first: Ipv6Addr, last: Ipv6Addr) -> Option<Ipv6Addr> {
        let range = || IpAddr::V6(first)..=IpAddr::V6(last);
        let held = self.held.range(range()).next_back().map(|(address, _)| *address);
        let resting = self.cooling.range(range()).next_back().map(|(address, _)| *address);
        let stray = self.stray.range(range()).next_back().copied();
        let behind = |address: Ipv6Addr| Ipv6Addr::from_bits(address.to_bits().saturating_add(1));
        match held.max(resting).max(stray) {
            Some(IpAddr::V6(taken)) if taken < last => Some(behind(taken)),
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
