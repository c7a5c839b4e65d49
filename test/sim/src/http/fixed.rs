//! Answers about what is not simulated, as every VPC and instance has it: tools ask, and need some answer.

use super::{params::Params, xml::Xml};
use crate::ApiError;

/// Writes what stands inside of the answer. Absent: this action is not one of these.
pub(super) fn write(action: &str, params: &Params, xml: &mut Xml) -> Option<Result<(), ApiError>> {
    match action {
        "DescribeVpcAttribute" => return Some(vpc_attribute(params, xml)),
        "DescribeInstanceAttribute" => return Some(instance_attribute(params, xml)),
        "DescribeNetworkAcls" => default_of_vpc("networkAclSet", "networkAclId", "acl", params, xml),
        "DescribeRouteTables" => default_of_vpc("routeTableSet", "routeTableId", "rtb", params, xml),
        "DescribeVolumes" => xml.element("volumeSet", |_| ()),
        "DescribeSecurityGroupRules" => xml.element("securityGroupRuleSet", |_| ()),
        "DescribeInstanceCreditSpecifications" => xml.element("instanceCreditSpecificationSet", |_| ()),
        "DescribeIamInstanceProfileAssociations" => xml.element("iamInstanceProfileAssociationSet", |_| ()),
        "AuthorizeSecurityGroupEgress"
        | "AuthorizeSecurityGroupIngress"
        | "ModifyInstanceAttribute"
        | "ModifySubnetAttribute"
        | "ModifyVpcAttribute"
        | "RevokeSecurityGroupEgress"
        | "RevokeSecurityGroupIngress" => xml.done(),
        _ => return None,
    }
    Some(Ok(()))
}

fn vpc_attribute(params: &Params, xml: &mut Xml) -> Result<(), ApiError> {
    xml.leaf("vpcId", params.required("VpcId")?);
    let attribute = params.required("Attribute")?;
    xml.element(&attribute, |xml| xml.leaf("value", attribute == "enableDnsSupport"));
    Ok(())
}

fn instance_attribute(params: &Params, xml: &mut Xml) -> Result<(), ApiError> {
    xml.leaf("instanceId", params.required("InstanceId")?);
    let attribute = params.required("Attribute")?;
    match attribute.as_str() {
        "userData" => xml.element("userData", |_| ()),
        "instanceInitiatedShutdownBehavior" => xml.element(&attribute, |xml| xml.leaf("value", "stop")),
        _ => xml.element(&attribute, |xml| xml.leaf("value", false)),
    }
    Ok(())
}

/// The one that a VPC was made with; its id is the VPC's with another beginning.
fn default_of_vpc(set: &str, id: &str, kind: &str, params: &Params, xml: &mut Xml) {
    let filters = params.filters().unwrap_or_default();
    let vpcs = filters.iter().filter(|filter| filter.name == "vpc-id").flat_map(|filter| &filter.values);
    xml.list(set, vpcs, |xml, vpc| {
        xml.leaf(id, vpc.replacen("vpc", kind, 1));
        xml.leaf("vpcId", vpc);
        xml.leaf("default", true);
    });
}
