//! Secondary addresses and prefixes of an ENI.

use std::net::Ipv4Addr;

use ipam_core::{EniId, SubnetId, ports::Cidr4};

use crate::{
    Action, ApiError,
    action::interfaces::Wanted,
    world::{State, lookup, model::Eni, space::Choice},
};

/// Gives an ENI more addresses or prefixes, in one of the four ways to ask for them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignPrivateIpAddresses {
    /// Which ENI.
    pub interface: String,
    /// Addresses by number.
    pub count: Option<u16>,
    /// Addresses by name.
    pub addresses: Vec<Ipv4Addr>,
    /// Prefixes by number.
    pub prefix_count: Option<u16>,
    /// Prefixes by name, each a /28.
    pub prefixes: Vec<Cidr4>,
    /// Whether a named address may be taken from another ENI.
    pub allow_reassignment: bool,
}

/// What an ENI was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignedAddresses {
    /// The ENI.
    pub interface: EniId,
    /// The new addresses only.
    pub addresses: Vec<Ipv4Addr>,
    /// The new prefixes only.
    pub prefixes: Vec<Cidr4>,
}

impl Action for AssignPrivateIpAddresses {
    const NAME: &'static str = "AssignPrivateIpAddresses";
    type Answer = AssignedAddresses;

    fn apply(&self, state: &mut State) -> Result<AssignedAddresses, ApiError> {
        let eni = state.known(&self.interface)?;
        if eni.primary.is_none() {
            return Err(ApiError::new("UnsupportedOperation", "An EFA-only network interface has no addresses"));
        }
        let new = self.check_wish(eni)?;
        if eni.slots() + new > usize::from(state.address_limit(eni)) {
            return Err(limit_exceeded());
        }
        if self.prefix_count.is_some() || !self.prefixes.is_empty() {
            state
                .instance_type_of(eni)
                .filter(|found| !found.has_prefixes())
                .map_or(Ok(()), |found| Err(no_prefixes_on(found.name)))?;
        }
        let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
        let (addresses, prefixes) = if self.addresses.is_empty() {
            let space = state.spaces.get(&subnet).ok_or_else(|| lookup::not_found::<SubnetId>(subnet.as_str()))?;
            let mut choice = Choice::new(space, state.config.order);
            self.wanted().choose(&mut choice, 0, &mut state.rng)?
        } else {
            (self.check_named(state, eni)?, Vec::new())
        };
        move_to(state, &id, &addresses);
        state.in_space(&subnet, |space| prefixes.iter().for_each(|prefix| space.take_prefix(*prefix, &id)));
        state.known_mut(&self.interface)?.prefixes.extend(&prefixes);
        Ok(AssignedAddresses { interface: id, addresses, prefixes })
    }
}

impl AssignPrivateIpAddresses {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            secondary: &self.addresses,
            count: self.count,
            prefixes: &self.prefixes,
            prefix_count: self.prefix_count,
        }
    }

    /// How many slots of the ENI are asked for, once it is clear what is asked for.
    fn check_wish(&self, eni: &Eni) -> Result<usize, ApiError> {
        let wanted = self.wanted();
        wanted.check()?;
        match (self.count, self.prefix_count, wanted.slots()) {
            (Some(0), _, _) => {
                Err(ApiError::invalid_value("Value (0) for parameter secondaryPrivateIpAddressCount is invalid."))
            }
            (_, Some(0), _) => Err(ApiError::invalid_value("Value (0) for parameter ipv4PrefixCount is invalid.")),
            (None, None, 0) => Err(ApiError::invalid_combination(
                "One of privateIpAddress, secondaryPrivateIpAddressCount, ipv4Prefix and ipv4PrefixCount must be given",
            )),
            (_, _, slots) => Ok(slots - self.addresses.iter().filter(|own| eni.secondary.contains(own)).count()),
        }
    }

    /// The named addresses that the ENI has not yet, once all may be given to it.
    fn check_named(&self, state: &State, eni: &Eni) -> Result<Vec<Ipv4Addr>, ApiError> {
        let mut wanted = Vec::new();
        let space = state.spaces.get(&eni.subnet).ok_or_else(|| lookup::not_found::<SubnetId>(eni.subnet.as_str()))?;
        for address in &self.addresses {
            space.check_usable(*address)?;
            let owner = space.owners.get(address).and_then(|owner| state.enis.get(owner));
            let movable = owner
                .map_or(space.is_free(*address), |owner| self.allow_reassignment && owner.primary != Some(*address));
            if owner.is_some_and(|owner| owner.id == eni.id && eni.primary != Some(*address))
                || wanted.contains(address)
            {
                continue;
            } else if movable {
                wanted.push(*address);
            } else {
                let message = format!("The address {address} is already assigned to a resource.");
                return Err(ApiError::new("Resource.AlreadyAssigned", message));
            }
        }
        Ok(wanted)
    }
}

/// Books the addresses for one ENI and takes them from whoever had them.
fn move_to(state: &mut State, id: &EniId, addresses: &[Ipv4Addr]) {
    let Some(eni) = state.enis.get_mut(id) else { return };
    eni.secondary.extend(addresses);
    let subnet = eni.subnet.clone();
    let take = |address: &Ipv4Addr| Some((*address, state.in_space(&subnet, |space| space.take(*address, id))??));
    let losers: Vec<_> = addresses.iter().filter_map(take).collect();
    for (address, loser) in losers {
        if let Some(eni) = state.enis.get_mut(&loser) {
            eni.secondary.retain(|own| *own != address);
        }
        state.touch(&loser);
    }
    state.touch(id);
}

/// The refusal of one address too many.
pub(super) fn limit_exceeded() -> ApiError {
    ApiError::new("PrivateIpAddressLimitExceeded", "Number of private addresses will exceed limit.")
}

/// The refusal of prefixes where there can be none.
pub(super) fn no_prefixes_on(instance_type: &str) -> ApiError {
    ApiError::new("UnsupportedOperation", format!("Prefixes are not supported on instance type {instance_type}"))
}

/// Takes secondary addresses or prefixes from an ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnassignPrivateIpAddresses {
    /// Which ENI.
    pub interface: String,
    /// Which addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Or which prefixes.
    pub prefixes: Vec<Cidr4>,
}

impl Action for UnassignPrivateIpAddresses {
    const NAME: &'static str = "UnassignPrivateIpAddresses";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let eni = state.known_mut(&self.interface)?;
        self.check(eni)?;
        eni.secondary.retain(|own| !self.addresses.contains(own));
        eni.prefixes.retain(|own| !self.prefixes.contains(own));
        let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
        state.in_space(&subnet, |space| {
            self.addresses.iter().for_each(|address| space.release(*address));
            self.prefixes.iter().for_each(|prefix| space.release_prefix(*prefix));
        });
        state.touch(&id);
        Ok(())
    }
}

impl UnassignPrivateIpAddresses {
    fn check(&self, eni: &Eni) -> Result<(), ApiError> {
        match (self.addresses.is_empty(), self.prefixes.is_empty()) {
            (true, true) => return Err(ApiError::missing("privateIpAddress")),
            (false, false) => {
                return Err(ApiError::invalid_combination("Addresses or prefixes may be unassigned, but not both"));
            }
            (true, false) | (false, true) => {}
        }
        if let Some(primary) = eni.primary.filter(|primary| self.addresses.contains(primary)) {
            let message = format!("The primary address {primary} of {} cannot be unassigned", eni.id);
            return Err(ApiError::invalid_value(message));
        }
        let all_there = self.addresses.iter().all(|address| eni.secondary.contains(address))
            && self.prefixes.iter().all(|prefix| eni.prefixes.contains(prefix));
        if all_there {
            return Ok(());
        }
        let message = format!("Some of the specified addresses are not assigned to interface {}", eni.id);
        Err(ApiError::invalid_value(message))
    }
}
