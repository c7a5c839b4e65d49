//! Which addresses of a subnet are free, and who gets them.

use std::net::Ipv4Addr;

use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

use crate::{
    ApiError,
    world::{cidr, model::Subnet},
};

impl Subnet {
    /// The addresses that EC2 may give out: without the first four and the last.
    fn usable(&self) -> std::ops::RangeInclusive<u32> {
        let (first, last) = cidr::bounds(self.cidr);
        first + 4..=last - 1
    }

    /// Size of the subnet without the five reserved addresses.
    fn capacity(&self) -> usize {
        let range = self.usable();
        usize::try_from(range.end() - range.start() + 1).unwrap_or(usize::MAX)
    }

    /// How many addresses are free.
    #[must_use]
    pub fn available(&self) -> usize {
        self.capacity().saturating_sub(self.used.len())
    }

    /// The subnet's router: the first host address.
    #[must_use]
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::from(cidr::bounds(self.cidr).0 + 1)
    }

    /// Picks `count` different free addresses that are not among `avoid` (free ones too), without taking them.
    ///
    /// Each begins at a random place and takes the next free one, as good an order as any: EC2's own is not specified.
    pub(crate) fn pick(
        &self,
        count: usize,
        avoid: &[Ipv4Addr],
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<Ipv4Addr>, ApiError> {
        if self.available() < count + avoid.len() {
            return Err(ApiError::new(
                "InsufficientFreeAddressesInSubnet",
                format!("The specified subnet does not have enough free addresses to satisfy the request: {}", self.id),
            ));
        }
        let (first, last) = (*self.usable().start(), *self.usable().end());
        let size = last - first + 1;
        let mut picked = Vec::with_capacity(count);
        while picked.len() < count {
            let mut candidate = first + rng.next_u32() % size;
            let taken = |address: &Ipv4Addr| {
                self.used.contains_key(address) || picked.contains(address) || avoid.contains(address)
            };
            while taken(&Ipv4Addr::from(candidate)) {
                candidate = if candidate == last { first } else { candidate + 1 };
            }
            picked.push(Ipv4Addr::from(candidate));
        }
        Ok(picked)
    }

    /// Refuses an address that nobody may have here.
    pub(crate) fn check_usable(&self, address: Ipv4Addr) -> Result<(), ApiError> {
        let (first, last) = cidr::bounds(self.cidr);
        let number = u32::from(address);
        if !(first..=last).contains(&number) {
            Err(ApiError::invalid_value(format!("Address {address} does not fall within the subnet's address range")))
        } else if self.usable().contains(&number) {
            Ok(())
        } else {
            Err(ApiError::invalid_value(format!("Address {address} is in subnet's reserved address range")))
        }
    }
}
