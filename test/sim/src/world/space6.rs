//! IPv6 addresses and /80 prefixes of a subnet, and who has them.
//!
//! A subnet is a /64 with 65,536 blocks of /80. A prefix is such a block, and no address in it may be anybody else's.

use std::{collections::BTreeMap, fmt, net::Ipv6Addr, str::FromStr};

use ipam_core::EniId;
use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

use crate::{ApiError, world::Order};

/// Length of a delegated prefix.
const PREFIX_LENGTH: u8 = 80;
/// How many addresses a prefix has, less one.
const HOSTS: u128 = u128::MAX >> PREFIX_LENGTH;
/// How many places are looked at before the subnet counts as full: as many as it has blocks.
const TRIES: u32 = 1 << 16;

/// An IPv6 network without host bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr6 {
    /// Its first address.
    pub network: Ipv6Addr,
    /// How many bits it has.
    pub prefix: u8,
}

impl Cidr6 {
    /// The network of `prefix` bits that an address lies in.
    pub(crate) fn around(address: Ipv6Addr, prefix: u8) -> Self {
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
        Self { network: Ipv6Addr::from_bits(address.to_bits() & mask), prefix }
    }

    /// Whether another network, or one address as a /128, lies in it.
    pub(crate) fn contains(self, inner: Self) -> bool {
        self.prefix <= inner.prefix && Self::around(inner.network, self.prefix) == self
    }

    fn last(self) -> u128 {
        self.network.to_bits() | u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0)
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr6 {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::invalid_value(format!("Value ({text}) is no IPv6 network."));
        let (network, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 128).ok_or_else(invalid)?;
        let cidr = Self::around(network.parse().map_err(|_| invalid())?, prefix);
        if cidr.to_string() == text { Ok(cidr) } else { Err(invalid()) }
    }
}

/// What of IPv6 an ENI has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held6 {
    /// Its addresses, in the order they were assigned.
    pub addresses: Vec<Ipv6Addr>,
    /// Its prefixes, in the order they were assigned.
    pub prefixes: Vec<Cidr6>,
}

impl Held6 {
    /// How much of the type's limit it uses: a prefix counts as one address.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.addresses.len() + self.prefixes.len()
    }

    pub(crate) fn extend(&mut self, more: &Self) {
        self.addresses.extend(&more.addresses);
        self.prefixes.extend(&more.prefixes);
    }
}

/// What of IPv6 is asked for: in one of the four ways, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted6 {
    /// Addresses by number.
    pub count: Option<u16>,
    /// Addresses by name.
    pub addresses: Vec<Ipv6Addr>,
    /// Prefixes by number.
    pub prefix_count: Option<u16>,
    /// Prefixes by name, each a /80.
    pub prefixes: Vec<Cidr6>,
}

impl Wanted6 {
    /// Refuses more than one way; returns how many slots are asked for.
    pub(crate) fn check(&self) -> Result<usize, ApiError> {
        let (count, prefix_count) = (self.count.unwrap_or(0), self.prefix_count.unwrap_or(0));
        let ways = [self.addresses.len(), count.into(), self.prefixes.len(), prefix_count.into()];
        if ways.iter().filter(|way| **way > 0).count() > 1 {
            let message = "Only one of IPv6 addresses or prefixes, by number or by name, may be given";
            return Err(ApiError::invalid_combination(message));
        }
        Ok(ways.iter().sum())
    }

    pub(crate) fn has_prefixes(&self) -> bool {
        self.prefix_count.unwrap_or(0) > 0 || !self.prefixes.is_empty()
    }
}

/// The IPv6 addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Space6 {
    cidr: Cidr6,
    /// Who has which single address.
    pub(crate) owners: BTreeMap<Ipv6Addr, EniId>,
    /// Who has which prefix, by its first address.
    pub(crate) prefixes: BTreeMap<Ipv6Addr, EniId>,
}

impl Space6 {
    pub(crate) fn new(cidr: Cidr6) -> Self {
        Self { cidr, owners: BTreeMap::new(), prefixes: BTreeMap::new() }
    }

    /// Whether an address may be anybody's: neither one of the first four nor the last.
    pub(crate) fn is_usable(&self, address: Ipv6Addr) -> bool {
        let (first, number) = (self.cidr.network.to_bits(), address.to_bits());
        (first + 4..self.cidr.last()).contains(&number)
    }

    /// Whether a prefix may be anybody's.
    pub(crate) fn is_prefix(&self, prefix: Cidr6) -> bool {
        prefix.prefix == PREFIX_LENGTH
            && self.is_usable(prefix.network)
            && self.is_usable(Ipv6Addr::from_bits(prefix.last()))
    }

    fn is_free(&self, address: Ipv6Addr) -> bool {
        !self.owners.contains_key(&address)
            && !self.prefixes.contains_key(&Cidr6::around(address, PREFIX_LENGTH).network)
    }

    /// Whether a prefix is nobody's, nor any address in it.
    pub(crate) fn has_no_single(&self, prefix: Cidr6) -> bool {
        self.owners.range(prefix.network..=Ipv6Addr::from_bits(prefix.last())).next().is_none()
    }

    /// Finds all that is wanted, or refuses; nothing is taken yet.
    pub(crate) fn choose(&self, wanted: &Wanted6, order: Order, rng: &mut ChaCha8Rng) -> Result<Held6, ApiError> {
        let mut found = Held6::default();
        for address in &wanted.addresses {
            if !self.is_usable(*address) {
                return Err(ApiError::invalid_value(format!("Address {address} is not one of the subnet's")));
            }
            if !self.is_free(*address) || found.addresses.contains(address) {
                return Err(in_use(address));
            }
            found.addresses.push(*address);
        }
        for prefix in &wanted.prefixes {
            if !self.is_prefix(*prefix) {
                return Err(ApiError::invalid_value(format!("{prefix} is not a /{PREFIX_LENGTH} of the subnet")));
            }
            if !self.is_free_block(*prefix) || found.prefixes.contains(prefix) {
                return Err(in_use(prefix));
            }
            found.prefixes.push(*prefix);
        }
        let mut draws = Draws { first: self.cidr.network.to_bits(), order, rng };
        for _ in 0..wanted.count.unwrap_or(0) {
            let usable = |one: &Ipv6Addr| self.is_usable(*one) && self.is_free(*one) && !found.addresses.contains(one);
            let address = draws.all(0).find(usable).ok_or_else(no_address)?;
            found.addresses.push(address);
        }
        for _ in 0..wanted.prefix_count.unwrap_or(0) {
            let usable =
                |one: &Cidr6| self.is_prefix(*one) && self.is_free_block(*one) && !found.prefixes.contains(one);
            let blocks = draws.all(128 - PREFIX_LENGTH).map(|address| Cidr6::around(address, PREFIX_LENGTH));
            found.prefixes.push({ blocks }.find(usable).ok_or_else(no_block)?);
        }
        Ok(found)
    }

    fn is_free_block(&self, prefix: Cidr6) -> bool {
        !self.prefixes.contains_key(&prefix.network) && self.has_no_single(prefix)
    }

    /// Gives what was chosen to an ENI.
    pub(crate) fn take(&mut self, held: &Held6, eni: &EniId) {
        self.owners.extend(held.addresses.iter().map(|address| (*address, eni.clone())));
        self.prefixes.extend(held.prefixes.iter().map(|prefix| (prefix.network, eni.clone())));
    }

    /// Takes it back.
    pub(crate) fn release(&mut self, held: &Held6) {
        held.addresses.iter().for_each(|address| drop(self.owners.remove(address)));
        held.prefixes.iter().for_each(|prefix| drop(self.prefixes.remove(&prefix.network)));
    }
}

/// Places in a subnet where something may be free.
struct Draws<'a> {
    first: u128,
    order: Order,
    rng: &'a mut ChaCha8Rng,
}

impl Draws<'_> {
    /// Addresses, in steps of two to the power of `step`. In order for [`Order::Sequential`], else anywhere.
    fn all(&mut self, step: u8) -> impl Iterator<Item = Ipv6Addr> {
        let order = self.order;
        (0..TRIES).map(move |nth| {
            let place = match order {
                Order::Sequential => u128::from(nth) << step,
                Order::Random | Order::Scattered => u128::from(self.rng.next_u64()) & !(HOSTS >> (48 - step.min(48))),
            };
            Ipv6Addr::from_bits(self.first | place)
        })
    }
}

fn in_use(what: impl fmt::Display) -> ApiError {
    ApiError::new("InvalidIPAddress.InUse", format!("{what} is in use."))
}

fn no_block() -> ApiError {
    ApiError::new("InsufficientCidrBlocks", "The specified subnet does not have enough free cidr blocks.")
}

fn no_address() -> ApiError {
    ApiError::new("InsufficientFreeAddressesInSubnet", "The specified subnet does not have enough free addresses.")
}
