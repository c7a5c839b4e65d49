//! IPv6 addresses and /80 prefixes of an ENI.

use ipam_core::{EniId, SubnetId};

use crate::{
    Action, ApiError,
    action::addresses::{limit_exceeded, no_prefixes_on},
    world::{Held6, State, Wanted6, lookup},
};

/// Gives an ENI IPv6 addresses or prefixes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignIpv6Addresses {
    /// Which ENI.
    pub interface: String,
    /// What.
    pub wanted: Wanted6,
}

impl Action for AssignIpv6Addresses {
    const NAME: &'static str = "AssignIpv6Addresses";
    /// The ENI, and what is new.
    type Answer = (EniId, Held6);

    fn apply(&self, state: &mut State) -> Result<(EniId, Held6), ApiError> {
        let eni = state.known(&self.interface)?;
        let new = self.wanted.check()?;
        if new == 0 {
            return Err(ApiError::invalid_combination("One of the ways to ask for IPv6 addresses must be used"));
        }
        // Types carry as many IPv6 addresses as IPv4 ones; EC2's list has no code of its own for one too many.
        if eni.ipv6.slots() + new > usize::from(state.address_limit(eni)) {
            return Err(limit_exceeded());
        }
        let without = state.instance_type_of(eni).filter(|found| self.wanted.has_prefixes() && !found.has_prefixes());
        if let Some(found) = without {
            return Err(no_prefixes_on(found.name));
        }
        let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
        let new = choose(state, &subnet, &self.wanted)?;
        state.known_mut(&self.interface)?.ipv6.extend(&new);
        book(state, &subnet, &new, &id);
        state.touch(&id);
        Ok((id, new))
    }
}

/// Takes IPv6 addresses or prefixes from an ENI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnassignIpv6Addresses {
    /// Which ENI.
    pub interface: String,
    /// What.
    pub held: Held6,
}

impl Action for UnassignIpv6Addresses {
    const NAME: &'static str = "UnassignIpv6Addresses";
    /// The ENI, and what is gone.
    type Answer = (EniId, Held6);

    fn apply(&self, state: &mut State) -> Result<(EniId, Held6), ApiError> {
        let eni = state.known_mut(&self.interface)?;
        let there = self.held.addresses.iter().all(|address| eni.ipv6.addresses.contains(address))
            && self.held.prefixes.iter().all(|prefix| eni.ipv6.prefixes.contains(prefix));
        if !there || self.held.slots() == 0 {
            let message = format!("Some of the specified addresses are not assigned to interface {}", eni.id);
            return Err(ApiError::invalid_value(message));
        }
        eni.ipv6.addresses.retain(|own| !self.held.addresses.contains(own));
        eni.ipv6.prefixes.retain(|own| !self.held.prefixes.contains(own));
        let (id, subnet) = (eni.id.clone(), eni.subnet.clone());
        if let Some(space) = state.spaces6.get_mut(&subnet) {
            space.release(&self.held);
        }
        state.touch(&id);
        Ok((id, self.held.clone()))
    }
}

/// Finds in a subnet what is wanted; nothing is taken yet.
pub(super) fn choose(state: &mut State, subnet: &SubnetId, wanted: &Wanted6) -> Result<Held6, ApiError> {
    if wanted.check()? == 0 {
        return Ok(Held6::default());
    }
    lookup::find(&state.subnets, subnet.as_str())?;
    let none = || ApiError::invalid_value(format!("The subnet {subnet} has no IPv6 CIDR block"));
    let space = state.spaces6.get(subnet).ok_or_else(none)?;
    space.choose(wanted, state.config.order, &mut state.rng)
}

/// Gives an ENI what was chosen.
pub(super) fn book(state: &mut State, subnet: &SubnetId, held: &Held6, eni: &EniId) {
    if let Some(space) = state.spaces6.get_mut(subnet) {
        space.take(held, eni);
    }
}
