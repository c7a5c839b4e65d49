//! Networks that grow, shrink and go: more ranges for a VPC, and what can be deleted once nothing is in it.

use ipam_core::{VpcId, ports::Cidr4};

use crate::{
    Action, ApiError,
    action::networks::parse_cidr,
    world::{State, cidr, lookup, model::Vpc},
};

/// Gives a VPC another range, as one from 100.64.0.0/10 for pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssociateVpcCidrBlock {
    /// The VPC.
    pub vpc: String,
    /// The range, /16 to /28.
    pub cidr: String,
}

impl Action for AssociateVpcCidrBlock {
    const NAME: &'static str = "AssociateVpcCidrBlock";
    type Answer = (VpcId, Cidr4);

    fn apply(&self, state: &mut State) -> Result<Self::Answer, ApiError> {
        let cidr = parse_cidr(&self.cidr, "InvalidVpc.Range")?;
        let vpc = lookup::find_mut(&mut state.vpcs, &self.vpc)?;
        if vpc.cidrs.iter().any(|other| cidr::overlap(*other, cidr)) {
            return Err(ApiError::new("InvalidVpc.Range", format!("The CIDR '{}' conflicts with another", self.cidr)));
        }
        // EC2's list of error codes has none for this.
        state.config.quotas.check("VpcCidrLimitExceeded", vpc.cidrs.len(), |quotas| quotas.cidrs_of_vpc)?;
        vpc.cidrs.push(cidr);
        Ok((vpc.id.clone(), cidr))
    }
}

/// Takes a range from a VPC that no subnet lies in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisassociateVpcCidrBlock {
    /// The association, as [`Vpc::association`] names it.
    pub association: String,
}

impl Action for DisassociateVpcCidrBlock {
    const NAME: &'static str = "DisassociateVpcCidrBlock";
    type Answer = (VpcId, Cidr4);

    fn apply(&self, state: &mut State) -> Result<Self::Answer, ApiError> {
        let found = state.vpcs.values().find_map(|vpc| {
            let cidr = vpc.cidrs.iter().find(|cidr| vpc.association(**cidr) == self.association)?;
            Some((vpc, *cidr))
        });
        let (vpc, cidr) = found.ok_or_else(|| {
            let message = format!("The vpc CIDR block association ID '{}' does not exist", self.association);
            ApiError::new("InvalidVpcCidrBlockAssociationID.NotFound", message)
        })?;
        if vpc.cidrs.first() == Some(&cidr) {
            return Err(ApiError::new("OperationNotPermitted", "The primary CIDR block cannot be disassociated"));
        }
        if state.subnets.values().any(|subnet| subnet.vpc == vpc.id && cidr::contains(cidr, subnet.cidr)) {
            return Err(in_use("CIDR block", &cidr::text(cidr)));
        }
        let id = vpc.id.clone();
        lookup::find_mut(&mut state.vpcs, id.as_str())?.cidrs.retain(|own| *own != cidr);
        Ok((id, cidr))
    }
}

/// Deletes a subnet without ENIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteSubnet {
    /// Which.
    pub subnet: String,
}

impl Action for DeleteSubnet {
    const NAME: &'static str = "DeleteSubnet";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let id = lookup::find(&state.subnets, &self.subnet)?.id.clone();
        if state.enis.values().any(|eni| eni.subnet == id) {
            return Err(in_use("subnet", id.as_str()));
        }
        state.subnets.remove(&id);
        state.spaces.remove(&id);
        state.spaces6.remove(&id);
        state.reservations.retain(|_, reservation| reservation.subnet != id);
        Ok(())
    }
}

/// Deletes a security group that no ENI has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteSecurityGroup {
    /// Which.
    pub group: String,
}

impl Action for DeleteSecurityGroup {
    const NAME: &'static str = "DeleteSecurityGroup";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let group = lookup::find(&state.groups, &self.group)?;
        if group.name == "default" {
            let message = format!("the specified group: \"{}\" name: \"default\" cannot be deleted", group.id);
            return Err(ApiError::new("CannotDelete", message));
        }
        let id = group.id.clone();
        if state.enis.values().any(|eni| eni.groups.iter().any(|group| group.id == id)) {
            return Err(in_use("resource", id.as_str()));
        }
        state.groups.remove(&id);
        Ok(())
    }
}

/// Deletes a VPC that has nothing left but its default group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteVpc {
    /// Which.
    pub vpc: String,
}

impl Action for DeleteVpc {
    const NAME: &'static str = "DeleteVpc";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let Vpc { id, default_group, .. } = lookup::find(&state.vpcs, &self.vpc)?.clone();
        let has_groups = state.groups.values().any(|group| group.vpc == id && group.id != default_group);
        if has_groups || state.subnets.values().any(|subnet| subnet.vpc == id) {
            return Err(in_use("vpc", id.as_str()));
        }
        state.groups.remove(&default_group);
        state.vpcs.remove(&id);
        Ok(())
    }
}

fn in_use(what: &str, id: &str) -> ApiError {
    ApiError::new("DependencyViolation", format!("The {what} '{id}' has dependencies and cannot be deleted."))
}
