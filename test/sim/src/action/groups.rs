//! Security groups. Their rules are not simulated: which groups an ENI has is all that matters to its manager.

use ipam_core::{SecurityGroupId, VpcId};

use crate::{
    Action, ApiError,
    action::tags,
    world::{
        Filter, Page, Paging, State,
        filter::Filterable,
        lookup,
        model::{GroupName, SecurityGroup, Tags},
    },
};

/// Makes a security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateSecurityGroup {
    /// Its name, unique in the VPC.
    pub name: String,
    /// Its description.
    pub description: String,
    /// Its VPC. Absent: the default VPC.
    pub vpc: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Action for CreateSecurityGroup {
    const NAME: &'static str = "CreateSecurityGroup";
    type Answer = SecurityGroupId;

    fn apply(&self, state: &mut State) -> Result<SecurityGroupId, ApiError> {
        let vpc = match &self.vpc {
            Some(vpc) => lookup::find(&state.vpcs, vpc)?,
            None => state.vpcs.values().find(|vpc| vpc.is_default).ok_or_else(no_default_vpc)?,
        };
        if state.groups.values().any(|group| group.vpc == vpc.id && group.name == self.name) {
            let message = format!("The security group '{}' already exists for VPC '{}'", self.name, vpc.id);
            return Err(ApiError::new("InvalidGroup.Duplicate", message));
        }
        tags::check(&Tags::new(), &self.tags)?;
        let vpc = vpc.id.clone();
        Ok(new_group(state, &vpc, &self.name, &self.description, self.tags.clone()))
    }
}

/// Lists security groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeSecurityGroups {
    /// Only these. Empty: all.
    pub ids: Vec<String>,
    /// Only what passes.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeSecurityGroups {
    const NAME: &'static str = "DescribeSecurityGroups";
    type Answer = Page<SecurityGroup>;

    fn apply(&self, state: &mut State) -> Result<Page<SecurityGroup>, ApiError> {
        self.paging.check(5..=1000, !self.ids.is_empty())?;
        let found = super::select(&state.groups, &self.ids, &self.filters)?;
        Ok(self.paging.cut(found, |group| group.id.clone()))
    }

    /// A list of ids counts as asking for all: EC2 does not say that it is a filter.
    fn is_unbounded(&self) -> bool {
        self.filters.is_empty() && self.paging.max_results.is_none()
    }
}

pub(super) fn no_default_vpc() -> ApiError {
    ApiError::new("VPCIdNotSpecified", "No default VPC for this user")
}

pub(super) fn new_group(state: &mut State, vpc: &VpcId, name: &str, description: &str, tags: Tags) -> SecurityGroupId {
    let id: SecurityGroupId = state.new_id();
    let (name, description) = (name.to_owned(), description.to_owned());
    state.groups.insert(id.clone(), SecurityGroup { id: id.clone(), name, description, vpc: vpc.clone(), tags });
    id
}

/// The groups of an ENI in `vpc`: those with these ids, or the VPC's default one when there are none.
pub(super) fn resolve(state: &State, vpc: &VpcId, ids: &[String]) -> Result<Vec<GroupName>, ApiError> {
    let before = ids.len().saturating_sub(1);
    state.config.quotas.check("SecurityGroupsPerInterfaceLimitExceeded", before, |quotas| quotas.groups_of_eni)?;
    if ids.is_empty() {
        let default = state.vpcs.get(vpc).and_then(|vpc| state.groups.get(&vpc.default_group));
        return Ok(default.into_iter().map(name_of).collect());
    }
    ids.iter().map(|id| resolve_one(state, vpc, id)).collect()
}

fn resolve_one(state: &State, vpc: &VpcId, id: &str) -> Result<GroupName, ApiError> {
    let group = lookup::find(&state.groups, id)?;
    if group.vpc == *vpc {
        Ok(name_of(group))
    } else {
        let message = format!("You have specified two resources that belong to different networks: {id} and {vpc}");
        Err(ApiError::new("InvalidGroup.NotFound", message))
    }
}

fn name_of(group: &SecurityGroup) -> GroupName {
    GroupName { id: group.id.clone(), name: group.name.clone() }
}

impl Filterable for SecurityGroup {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "group-id" => self.id.to_string(),
            "group-name" => self.name.clone(),
            "description" => self.description.clone(),
            "vpc-id" => self.vpc.to_string(),
            "owner-id" => crate::ACCOUNT.to_owned(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
