//! Secondary addresses of an ENI.

use std::net::Ipv4Addr;

use ipam_core::EniId;

use crate::{
    Action, ApiError,
    world::{State, lookup, model::Eni},
};

/// Gives an ENI more addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignPrivateIpAddresses {
    /// Which ENI.
    pub interface: String,
    /// By number; not together with names.
    pub count: Option<u16>,
    /// By name.
    pub addresses: Vec<Ipv4Addr>,
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
}

impl Action for AssignPrivateIpAddresses {
    const NAME: &'static str = "AssignPrivateIpAddresses";
    type Answer = AssignedAddresses;

    fn apply(&self, state: &mut State) -> Result<AssignedAddresses, ApiError> {
        let eni = lookup::find(&state.enis, &self.interface)?;
        let new = match (self.count, self.addresses.is_empty()) {
            (Some(0), true) => {
                return Err(ApiError::invalid_value(
                    "Value (0) for parameter secondaryPrivateIpAddressCount is invalid.",
                ));
            }
            (Some(count), true) => usize::from(count),
            (None, false) => self.addresses.iter().filter(|address| !eni.secondary.contains(address)).count(),
            (None, true) | (Some(_), false) => {
                return Err(ApiError::invalid_combination(
                    "Exactly one of privateIpAddress and secondaryPrivateIpAddressCount must be given",
                ));
            }
        };
        if eni.addresses().count() + new > usize::from(state.address_limit(eni)) {
            return Err(limit_exceeded());
        }
        let id = eni.id.clone();
        let assigned = if self.addresses.is_empty() {
            lookup::find(&state.subnets, eni.subnet.as_str())?.pick(new, &[], &mut state.rng)?
        } else {
            self.check_named(state, eni)?
        };
        move_to(state, &id, &assigned);
        Ok(AssignedAddresses { interface: id, addresses: assigned })
    }
}

impl AssignPrivateIpAddresses {
    /// The named addresses that the ENI has not yet, once all may be given to it.
    fn check_named(&self, state: &State, eni: &Eni) -> Result<Vec<Ipv4Addr>, ApiError> {
        let mut wanted = Vec::new();
        let subnet = lookup::find(&state.subnets, eni.subnet.as_str())?;
        for address in &self.addresses {
            subnet.check_usable(*address)?;
            let owner = subnet.used.get(address).and_then(|owner| state.enis.get(owner));
            let movable = owner.is_none_or(|owner| self.allow_reassignment && owner.primary != *address);
            if owner.is_some_and(|owner| owner.id == eni.id && eni.primary != *address) || wanted.contains(address) {
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
    let Some(subnet) = state.subnets.get_mut(&eni.subnet) else { return };
    let mut losers = Vec::new();
    for address in addresses {
        if let Some(loser) = subnet.used.insert(*address, id.clone()) {
            losers.push((loser, *address));
        }
    }
    for (loser, address) in losers {
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

/// Takes secondary addresses from an ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnassignPrivateIpAddresses {
    /// Which ENI.
    pub interface: String,
    /// Which addresses; at least one.
    pub addresses: Vec<Ipv4Addr>,
}

impl Action for UnassignPrivateIpAddresses {
    const NAME: &'static str = "UnassignPrivateIpAddresses";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let eni = lookup::find_mut(&mut state.enis, &self.interface)?;
        if self.addresses.is_empty() {
            return Err(ApiError::missing("privateIpAddress"));
        }
        if self.addresses.contains(&eni.primary) {
            let message = format!("The primary address {} of {} cannot be unassigned", eni.primary, eni.id);
            return Err(ApiError::invalid_value(message));
        }
        if !self.addresses.iter().all(|address| eni.secondary.contains(address)) {
            let message = format!("Some of the specified addresses are not assigned to interface {}", eni.id);
            return Err(ApiError::invalid_value(message));
        }
        eni.secondary.retain(|own| !self.addresses.contains(own));
        let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
        if let Some(subnet) = state.subnets.get_mut(&subnet) {
            for address in &self.addresses {
                subnet.used.remove(address);
            }
        }
        state.touch(&id);
        Ok(())
    }
}
