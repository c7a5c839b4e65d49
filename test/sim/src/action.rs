//! The requests that the cloud understands: each a value, each with its whole rule in one place.

mod addresses;
mod attachments;
mod groups;
mod instances;
mod interfaces;
mod ipv6;
mod launch;
mod modify;
mod networks;
mod removal;
mod reservations;
mod tags;
mod types;

use std::{collections::BTreeMap, fmt};

pub use self::{
    addresses::{AssignPrivateIpAddresses, AssignedAddresses, UnassignPrivateIpAddresses},
    attachments::{AttachNetworkInterface, DetachNetworkInterface},
    groups::{CreateSecurityGroup, DescribeSecurityGroups},
    instances::{DescribeInstances, InstanceDescription, StateChange, TerminateInstances},
    interfaces::{CreateNetworkInterface, DeleteNetworkInterface, DescribeNetworkInterfaces},
    ipv6::{AssignIpv6Addresses, UnassignIpv6Addresses},
    launch::{LaunchInterface, RunInstances},
    modify::{Change, ModifyNetworkInterfaceAttribute},
    networks::{CreateSubnet, CreateVpc, DescribeSubnets, DescribeVpcs},
    removal::{AssociateVpcCidrBlock, DeleteSecurityGroup, DeleteSubnet, DeleteVpc, DisassociateVpcCidrBlock},
    reservations::{CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations},
    tags::{CreateTags, DeleteTags, DescribeTags, TagDescription},
    types::DescribeInstanceTypes,
};
use crate::{
    ApiError,
    world::{
        Filter, State,
        filter::{self, Filterable},
        lookup::{self, CloudId},
    },
};

/// A request. Ids in it are texts, as on the wire: whether they are ids is for the cloud to say.
pub trait Action: fmt::Debug {
    /// Its name in the API.
    const NAME: &'static str;
    /// What a good answer carries.
    type Answer;

    /// Does it, entirely or not at all. Only [`crate::World::call`] does this.
    ///
    /// # Errors
    /// EC2's refusal; nothing was changed.
    fn apply(&self, state: &mut State) -> Result<Self::Answer, ApiError>;

    /// Whether it asks for all there is, with neither a filter nor a page size: EC2 counts such requests apart.
    fn is_unbounded(&self) -> bool {
        false
    }

    /// Whether it puts tags on what it makes, for which the caller needs the permission CreateTags too.
    fn makes_with_tags(&self) -> bool {
        false
    }

    /// How many things it starts or ends, where those have a budget of their own.
    fn resources(&self) -> u32 {
        0
    }
}

/// The same request with `DryRun` set: it is never done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun<A>(pub A);

impl<A: Action> Action for DryRun<A> {
    const NAME: &'static str = A::NAME;
    type Answer = A::Answer;

    /// Tries on a copy, so that whatever is wrong with the request is said.
    fn apply(&self, state: &mut State) -> Result<A::Answer, ApiError> {
        self.0.apply(&mut state.clone())?;
        Err(ApiError::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set."))
    }

    fn is_unbounded(&self) -> bool {
        self.0.is_unbounded()
    }
}

/// The things with these ids (all of them without ids) that pass the filters, sorted by id.
///
/// An id that names nothing is refused, even where a filter would hide it.
fn select<K: CloudId, V: Filterable + Clone>(
    things: &BTreeMap<K, V>,
    ids: &[String],
    filters: &[Filter],
) -> Result<Vec<V>, ApiError> {
    let mut candidates: BTreeMap<K, &V> = BTreeMap::new();
    for id in ids {
        candidates.insert(lookup::parse(id)?, lookup::find(things, id)?);
    }
    let mut found = Vec::new();
    let all = things.values().filter(|_| ids.is_empty());
    for thing in candidates.into_values().chain(all) {
        if filter::passes(thing, filters)? {
            found.push(thing.clone());
        }
    }
    Ok(found)
}
