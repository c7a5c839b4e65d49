//! VPCs and subnets.

use ipam_core::{SubnetId, VpcId, ports::Cidr4};
use rand_chacha::rand_core::RngCore;

use crate::{
    Action, ApiError,
    action::{groups::new_group, tags},
    world::{
        Cidr6, Filter, Page, Paging, Space6, State, cidr,
        filter::Filterable,
        lookup,
        model::{Subnet, Tags, Vpc},
        space::Space,
    },
};

/// Makes a VPC and its default security group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateVpc {
    /// Its network, /16 to /28.
    pub cidr: String,
    /// Whether it has an IPv6 network of Amazon's, a /56.
    pub ipv6: bool,
    /// Its tags.
    pub tags: Tags,
}

impl Action for CreateVpc {
    const NAME: &'static str = "CreateVpc";
    type Answer = Vpc;

    fn apply(&self, state: &mut State) -> Result<Vpc, ApiError> {
        let cidr = parse_cidr(&self.cidr, "InvalidVpc.Range")?;
        tags::check(&Tags::new(), &self.tags)?;
        state.config.quotas.check("VpcLimitExceeded", state.vpcs.len(), |quotas| quotas.vpcs)?;
        let id: VpcId = state.new_id();
        let group = new_group(state, &id, "default", "default VPC security group", Tags::new());
        let is_default = state.vpcs.is_empty();
        let cidr6 = self.ipv6.then(|| amazons_block(state.rng.next_u64()));
        let tags = self.tags.clone();
        let vpc = Vpc { id: id.clone(), cidrs: vec![cidr], cidr6, default_group: group, is_default, tags };
        state.vpcs.insert(id, vpc.clone());
        Ok(vpc)
    }
}

/// Lists VPCs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeVpcs {
    /// Only these. Empty: all.
    pub ids: Vec<String>,
    /// Only what passes.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeVpcs {
    const NAME: &'static str = "DescribeVpcs";
    type Answer = Page<Vpc>;

    fn apply(&self, state: &mut State) -> Result<Page<Vpc>, ApiError> {
        self.paging.check(5..=1000, !self.ids.is_empty())?;
        let found = super::select(&state.vpcs, &self.ids, &self.filters)?;
        Ok(self.paging.cut(found, |vpc| vpc.id.clone()))
    }
}

/// Makes a subnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateSubnet {
    /// Its VPC.
    pub vpc: String,
    /// Its network, /16 to /28, inside the VPC's.
    pub cidr: String,
    /// Its IPv6 network, a /64 inside the VPC's.
    pub cidr6: Option<Cidr6>,
    /// Its zone. Absent: the region's first.
    pub availability_zone: Option<String>,
    /// Its tags.
    pub tags: Tags,
}

impl Action for CreateSubnet {
    const NAME: &'static str = "CreateSubnet";
    type Answer = Subnet;

    fn apply(&self, state: &mut State) -> Result<Subnet, ApiError> {
        let vpc = lookup::find(&state.vpcs, &self.vpc)?;
        let cidr = parse_cidr(&self.cidr, "InvalidSubnet.Range")?;
        if !vpc.cidrs.iter().any(|outer| cidr::contains(*outer, cidr)) {
            return Err(ApiError::new("InvalidSubnet.Range", format!("The CIDR '{}' is invalid.", self.cidr)));
        }
        let conflict = state.subnets.values().any(|other| other.vpc == vpc.id && cidr::overlap(other.cidr, cidr));
        if conflict {
            let message = format!("The CIDR '{}' conflicts with another subnet", self.cidr);
            return Err(ApiError::new("InvalidSubnet.Conflict", message));
        }
        self.check_ipv6(state, vpc)?;
        let availability_zone = self.zone(&state.config.region)?;
        tags::check(&Tags::new(), &self.tags)?;
        let vpc = vpc.id.clone();
        let subnets = state.subnets.values().filter(|subnet| subnet.vpc == vpc).count();
        state.config.quotas.check("SubnetLimitExceeded", subnets, |quotas| quotas.subnets_of_vpc)?;
        let id: SubnetId = state.new_id();
        let tags = self.tags.clone();
        let space = Space::new(cidr, !state.config.reuse_after.is_zero());
        let (cidr6, available) = (self.cidr6, space.available());
        let subnet = Subnet { id: id.clone(), vpc, cidr, cidr6, availability_zone, tags, available };
        state.spaces6.extend(cidr6.map(|cidr6| (id.clone(), Space6::new(cidr6))));
        state.spaces.insert(id.clone(), space);
        state.subnets.insert(id, subnet.clone());
        Ok(subnet)
    }
}

impl CreateSubnet {
    /// Its zone: one of the region's six.
    fn zone(&self, region: &str) -> Result<String, ApiError> {
        let Some(zone) = &self.availability_zone else { return Ok(format!("{region}a")) };
        if zone.strip_prefix(region).is_some_and(|rest| rest.len() == 1 && ("a"..="f").contains(&rest)) {
            return Ok(zone.clone());
        }
        let message = format!("Value ({zone}) for parameter availabilityZone is invalid.");
        Err(ApiError::invalid_value(message))
    }

    fn check_ipv6(&self, state: &State, vpc: &Vpc) -> Result<(), ApiError> {
        let Some(cidr) = self.cidr6 else { return Ok(()) };
        if cidr.prefix != 64 || !vpc.cidr6.is_some_and(|outer| outer.contains(cidr)) {
            return Err(ApiError::new("InvalidSubnet.Range", format!("The CIDR '{cidr}' is invalid.")));
        }
        if state.subnets.values().any(|other| other.cidr6 == Some(cidr)) {
            let message = format!("The CIDR '{cidr}' conflicts with another subnet");
            return Err(ApiError::new("InvalidSubnet.Conflict", message));
        }
        Ok(())
    }
}

/// A /56 of those that Amazon gives to VPCs.
fn amazons_block(random: u64) -> Cidr6 {
    let bits = (0x2600_1f00_u128 << 96) | (u128::from(random >> 8) << 72 & (0xff_ffff_u128 << 72));
    Cidr6::around(bits.into(), 56)
}

/// Lists subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeSubnets {
    /// Only these. Empty: all.
    pub ids: Vec<String>,
    /// Only what passes.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeSubnets {
    const NAME: &'static str = "DescribeSubnets";
    type Answer = Page<Subnet>;

    fn apply(&self, state: &mut State) -> Result<Page<Subnet>, ApiError> {
        self.paging.check(5..=1000, !self.ids.is_empty())?;
        let found = super::select(&state.subnets, &self.ids, &self.filters)?;
        Ok(self.paging.cut(found, |subnet| subnet.id.clone()))
    }
}

/// Reads a network of the sizes that VPCs and subnets may have.
pub(super) fn parse_cidr(text: &str, range_code: &'static str) -> Result<Cidr4, ApiError> {
    let invalid = || {
        ApiError::invalid_value(format!(
            "Value ({text}) for parameter cidrBlock is invalid. This is not a valid CIDR block."
        ))
    };
    let cidr = cidr::parse(text).ok_or_else(invalid)?;
    if (16..=28).contains(&cidr.prefix) {
        Ok(cidr)
    } else {
        Err(ApiError::new(range_code, format!("The CIDR '{text}' is invalid.")))
    }
}

impl Filterable for Vpc {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(match name {
            "vpc-id" => vec![self.id.to_string()],
            "cidr" | "cidr-block" => self.cidrs.iter().take(1).copied().map(cidr::text).collect(),
            "cidr-block-association.cidr-block" => self.cidrs.iter().copied().map(cidr::text).collect(),
            "cidr-block-association.association-id" => self.cidrs.iter().map(|cidr| self.association(*cidr)).collect(),
            "cidr-block-association.state" => self.cidrs.iter().map(|_| "associated".to_owned()).collect(),
            "ipv6-cidr-block-association.association-id" => self.association6().into_iter().collect(),
            "ipv6-cidr-block-association.ipv6-cidr-block" => self.cidr6.iter().map(ToString::to_string).collect(),
            "is-default" | "isDefault" => vec![self.is_default.to_string()],
            "state" => vec!["available".to_owned()],
            "owner-id" => vec![crate::ACCOUNT.to_owned()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Filterable for Subnet {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "subnet-id" => self.id.to_string(),
            "vpc-id" => self.vpc.to_string(),
            "cidr" | "cidr-block" | "cidrBlock" => cidr::text(self.cidr),
            "availability-zone" | "availabilityZone" => self.availability_zone.clone(),
            "ipv6-cidr-block-association.association-id" => return Some(self.association6().into_iter().collect()),
            "ipv6-cidr-block-association.ipv6-cidr-block" => {
                return Some(self.cidr6.iter().map(ToString::to_string).collect());
            }
            "available-ip-address-count" => self.available.to_string(),
            "state" => "available".to_owned(),
            "owner-id" => crate::ACCOUNT.to_owned(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}
