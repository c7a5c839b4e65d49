//! Which addresses of a subnet are free, and who has the others.
//!
//! A subnet is seen as aligned blocks of 16 addresses, because a prefix is such a block and needs one that is free as a whole:
//! a subnet with many free addresses may well have no free block.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipam_core::{EniId, ports::Cidr4};
use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

use crate::{
    ApiError,
    world::{
        cidr,
        config::Order,
        model::{CidrReservation, ReservationKind},
    },
};

/// Length of a delegated prefix.
pub(crate) const PREFIX_LENGTH: u8 = 28;
const BLOCK: u32 = 16;

/// The addresses of one subnet. A bit stands for an address, a word for a block.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    cidr: Cidr4,
    /// Given to an ENI, or one of the five that EC2 keeps.
    taken: Vec<u16>,
    /// Reserved by the subnet's owner: never given unless asked for by name, or as a prefix where it is for prefixes.
    reserved: Vec<u16>,
    /// Reserved for prefixes. Absent: nothing is, and prefixes come from what is not reserved.
    for_prefixes: Option<Vec<u16>>,
    /// How many addresses are neither taken nor reserved.
    available: usize,
    /// Who has which single address.
    pub(crate) owners: BTreeMap<Ipv4Addr, EniId>,
    /// Who has which prefix, by its first address.
    pub(crate) prefixes: BTreeMap<Ipv4Addr, EniId>,
    /// What was given back and is not to be given again yet, single addresses as a /32. Absent: nothing ever waits.
    resting: Option<BTreeSet<Cidr4>>,
    /// What of that was given back since somebody last asked.
    newly_resting: Vec<Cidr4>,
}

impl Space {
    /// All free but the first four and the last address.
    pub(crate) fn new(cidr: Cidr4, rests: bool) -> Self {
        let (first, last) = cidr::bounds(cidr);
        let blocks = index((last - first) / BLOCK + 1);
        let mut taken = vec![0; blocks];
        taken[0] = 0b1111;
        taken[blocks - 1] |= 1 << (BLOCK - 1);
        let (reserved, owners, prefixes) = (vec![0; blocks], BTreeMap::new(), BTreeMap::new());
        let mut space = Self {
            cidr,
            taken,
            reserved,
            for_prefixes: None,
            available: 0,
            owners,
            prefixes,
            resting: rests.then(BTreeSet::new),
            newly_resting: vec![],
        };
        space.available = space.count();
        space
    }

    /// How many addresses are neither taken nor reserved.
    pub(crate) fn available(&self) -> usize {
        self.available
    }

    fn count(&self) -> usize {
        (0..self.taken.len()).map(|block| self.free_in(block)).sum()
    }

    fn free_in(&self, block: usize) -> usize {
        index((self.taken[block] | self.reserved[block]).count_zeros())
    }

    fn change(&mut self, block: usize, taken: u16) {
        self.available -= self.free_in(block);
        self.taken[block] = taken;
        self.available += self.free_in(block);
    }

    /// Refuses an address that nobody may have here.
    pub(crate) fn check_usable(&self, address: Ipv4Addr) -> Result<(), ApiError> {
        let (first, last) = cidr::bounds(self.cidr);
        let number = u32::from(address);
        if !(first..=last).contains(&number) {
            Err(ApiError::invalid_value(format!("Address {address} does not fall within the subnet's address range")))
        } else if (first + 4..last).contains(&number) {
            Ok(())
        } else {
            Err(ApiError::invalid_value(format!("Address {address} is in subnet's reserved address range")))
        }
    }

    /// Refuses what is no block of 16 addresses that an ENI may have here.
    pub(crate) fn check_prefix(&self, prefix: Cidr4) -> Result<(), ApiError> {
        if prefix.prefix != PREFIX_LENGTH {
            return Err(ApiError::invalid_value(format!(
                "{prefix} is not a valid prefix: it must be a /{PREFIX_LENGTH}"
            )));
        }
        let (first, last) = cidr::bounds(prefix);
        self.check_usable(first.into()).and_then(|()| self.check_usable(last.into()))
    }

    /// Whether nobody has the address, as such or in a prefix. It must lie in the subnet.
    pub(crate) fn is_free(&self, address: Ipv4Addr) -> bool {
        let (block, bit) = self.place(address);
        self.taken[block] & bit == 0
    }

    /// Gives an address to an ENI; returns who had it.
    pub(crate) fn take(&mut self, address: Ipv4Addr, eni: &EniId) -> Option<EniId> {
        let (block, bit) = self.place(address);
        self.change(block, self.taken[block] | bit);
        self.owners.insert(address, eni.clone())
    }

    /// Takes an address back.
    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.owners.remove(&address);
        self.give_back(Cidr4 { network: address, prefix: 32 });
    }

    /// Gives a prefix to an ENI. All of it must be free.
    pub(crate) fn take_prefix(&mut self, prefix: Cidr4, eni: &EniId) {
        let (block, _) = self.place(prefix.network);
        self.change(block, u16::MAX);
        self.prefixes.insert(prefix.network, eni.clone());
    }

    /// Takes a prefix back.
    pub(crate) fn release_prefix(&mut self, prefix: Cidr4) {
        self.prefixes.remove(&prefix.network);
        self.give_back(prefix);
    }

    fn give_back(&mut self, what: Cidr4) {
        match &mut self.resting {
            Some(resting) => {
                resting.insert(what);
                self.newly_resting.push(what);
            }
            None => self.free(what),
        }
    }

    /// What was given back since the last call, and is to rest now.
    pub(crate) fn newly_resting(&mut self) -> Vec<Cidr4> {
        std::mem::take(&mut self.newly_resting)
    }

    /// Ends the rest of an address or a prefix.
    pub(crate) fn rested(&mut self, what: Cidr4) {
        if self.resting.as_mut().is_some_and(|resting| resting.remove(&what)) {
            self.free(what);
        }
    }

    fn free(&mut self, what: Cidr4) {
        let (block, bit) = self.place(what.network);
        self.change(block, if what.prefix == PREFIX_LENGTH { 0 } else { self.taken[block] & !bit });
    }

    /// Sets apart what these reservations say, and nothing else.
    pub(crate) fn reserve<'a>(&mut self, reservations: impl Iterator<Item = &'a CidrReservation>) {
        self.reserved.fill(0);
        self.for_prefixes = None;
        for reservation in reservations {
            let (first, last) = cidr::bounds(reservation.cidr);
            for address in first..=last {
                let (block, bit) = self.place(address.into());
                self.reserved[block] |= bit;
                if reservation.kind == ReservationKind::Prefix {
                    self.for_prefixes.get_or_insert_with(|| vec![0; self.taken.len()])[block] |= bit;
                }
            }
        }
        self.available = self.count();
    }

    /// Block and bit of an address in the subnet.
    fn place(&self, address: Ipv4Addr) -> (usize, u16) {
        let offset = u32::from(address) - u32::from(self.cidr.network);
        (index(offset / BLOCK), 1 << (offset % BLOCK))
    }

    fn address(&self, block: usize, bit: u32) -> Ipv4Addr {
        let block = u32::try_from(block).unwrap_or(u32::MAX);
        Ipv4Addr::from(u32::from(self.cidr.network) + block * BLOCK + bit)
    }

    /// Whether books and bits say the same.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut bits = Self::new(self.cidr, false).taken;
        let resting = || self.resting.iter().flatten();
        let singly = resting().filter(|what| what.prefix != PREFIX_LENGTH).map(|what| &what.network);
        for address in self.owners.keys().chain(singly) {
            let (block, bit) = self.place(*address);
            bits[block] |= bit;
        }
        let whole = resting().filter(|what| what.prefix == PREFIX_LENGTH).map(|what| &what.network);
        for network in self.prefixes.keys().chain(whole) {
            let (block, _) = self.place(*network);
            if bits[block] != 0 {
                return false;
            }
            bits[block] = u16::MAX;
        }
        bits == self.taken && self.available == self.count()
    }
}

/// Addresses and prefixes that are about to be taken: found one after the other, none twice, and taken only when all were found.
#[derive(Debug)]
pub(crate) struct Choice<'a> {
    space: &'a Space,
    order: Order,
    chosen: BTreeMap<usize, u16>,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(space: &'a Space, order: Order) -> Self {
        Self { space, order, chosen: BTreeMap::new() }
    }

    fn chosen(&self, block: usize) -> u16 {
        self.chosen.get(&block).copied().unwrap_or(0)
    }

    /// Chooses these addresses.
    pub(crate) fn name(&mut self, address: Ipv4Addr) -> Result<(), ApiError> {
        self.space.check_usable(address)?;
        let (block, bit) = self.space.place(address);
        if !self.space.is_free(address) || self.chosen(block) & bit != 0 {
            return Err(ApiError::new("InvalidIPAddress.InUse", format!("Address {address} is in use.")));
        }
        *self.chosen.entry(block).or_default() |= bit;
        Ok(())
    }

    /// Chooses this prefix.
    pub(crate) fn name_prefix(&mut self, prefix: Cidr4) -> Result<(), ApiError> {
        self.space.check_prefix(prefix)?;
        let (block, _) = self.space.place(prefix.network);
        if self.space.taken[block] | self.chosen(block) != 0 {
            return Err(ApiError::new("InvalidIPAddress.InUse", format!("Addresses of {prefix} are in use.")));
        }
        self.chosen.insert(block, u16::MAX);
        Ok(())
    }

    /// Chooses any `count` prefixes, from what is reserved for them if anything is.
    ///
    /// Once that is used up, EC2 refuses, whatever is free elsewhere.
    pub(crate) fn prefixes(&mut self, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Cidr4>, ApiError> {
        let mut found = Vec::new();
        while found.len() < count {
            let usable = |block: usize| {
                let set_apart = match &self.space.for_prefixes {
                    Some(for_prefixes) => !for_prefixes[block],
                    None => self.space.reserved[block],
                };
                self.space.taken[block] | self.chosen(block) | set_apart == 0
            };
            let block = self.circle(rng).find(|block| usable(*block)).ok_or_else(no_block)?;
            self.chosen.insert(block, u16::MAX);
            found.push(Cidr4 { network: self.space.address(block, 0), prefix: PREFIX_LENGTH });
        }
        Ok(found)
    }

    /// Chooses any `count` addresses.
    pub(crate) fn addresses(&mut self, count: usize, rng: &mut ChaCha8Rng) -> Result<Vec<Ipv4Addr>, ApiError> {
        let mut found = Vec::new();
        while found.len() < count {
            let busy = |block: usize| self.space.taken[block] | self.space.reserved[block] | self.chosen(block);
            let whole = (self.order == Order::Scattered).then(|| self.circle(rng).find(|block| busy(*block) == 0));
            let block = whole.flatten().or_else(|| self.circle(rng).find(|block| busy(*block) != u16::MAX));
            let block = block.ok_or_else(no_address)?;
            let busy = busy(block);
            let turn = if self.order == Order::Sequential { 0 } else { rng.next_u32() % BLOCK };
            let bit = (busy.rotate_right(turn).trailing_ones() + turn) % BLOCK;
            *self.chosen.entry(block).or_default() |= 1 << bit;
            found.push(self.space.address(block, bit));
        }
        Ok(found)
    }

    /// All blocks once, from where the order wants to begin.
    fn circle(&self, rng: &mut ChaCha8Rng) -> impl Iterator<Item = usize> + use<> {
        let blocks = self.space.taken.len();
        let start = if self.order == Order::Sequential { 0 } else { index(rng.next_u32()) % blocks };
        (start..blocks).chain(0..start)
    }
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn no_block() -> ApiError {
    let message = "The specified subnet does not have enough free cidr blocks to satisfy the request.";
    ApiError::new("InsufficientCidrBlocks", message)
}

fn no_address() -> ApiError {
    let message = "The specified subnet does not have enough free addresses to satisfy the request.";
    ApiError::new("InsufficientFreeAddressesInSubnet", message)
}
