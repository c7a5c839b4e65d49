//! VPCs, subnets and security groups on the wire.

use ipam_core::SecurityGroupId;

use super::{Wire, ipv6, params::Params, tags::write_tags, xml::Xml};
use crate::{
    ACCOUNT, ApiError,
    action::{CreateSecurityGroup, CreateSubnet, CreateVpc, DescribeSecurityGroups, DescribeSubnets, DescribeVpcs},
    world::{
        Page, cidr,
        model::{SecurityGroup, Subnet, Vpc},
    },
};

impl Wire for CreateVpc {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let ipv6 = params.flag("AmazonProvidedIpv6CidrBlock")?.unwrap_or(false);
        Ok(Self { cidr: params.required("CidrBlock")?, ipv6, tags: params.tags_for("vpc")? })
    }

    fn write(vpc: &Vpc, xml: &mut Xml) {
        xml.element("vpc", |xml| write_vpc(vpc, xml));
    }
}

impl Wire for DescribeVpcs {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { ids: params.list("VpcId"), filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<Vpc>, xml: &mut Xml) {
        xml.list("vpcSet", &page.items, |xml, vpc| write_vpc(vpc, xml));
        xml.next_token(page.next_token.as_deref());
    }
}

impl Wire for CreateSubnet {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            vpc: params.required("VpcId")?,
            cidr: params.required("CidrBlock")?,
            cidr6: params.text("Ipv6CidrBlock").map(str::parse).transpose()?,
            availability_zone: params.owned("AvailabilityZone"),
            tags: params.tags_for("subnet")?,
        })
    }

    fn write(subnet: &Subnet, xml: &mut Xml) {
        xml.element("subnet", |xml| write_subnet(subnet, xml));
    }
}

impl Wire for DescribeSubnets {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { ids: params.list("SubnetId"), filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<Subnet>, xml: &mut Xml) {
        xml.list("subnetSet", &page.items, |xml, subnet| write_subnet(subnet, xml));
        xml.next_token(page.next_token.as_deref());
    }
}

impl Wire for CreateSecurityGroup {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            name: params.required("GroupName")?,
            description: params.required("GroupDescription")?,
            vpc: params.owned("VpcId"),
            tags: params.tags_for("security-group")?,
        })
    }

    fn write(group: &SecurityGroupId, xml: &mut Xml) {
        xml.done();
        xml.leaf("groupId", group);
    }
}

impl Wire for DescribeSecurityGroups {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let mut filters = params.filters()?;
        let names = params.list("GroupName");
        if !names.is_empty() {
            filters.push(crate::world::Filter { name: "group-name".to_owned(), values: names });
        }
        Ok(Self { ids: params.list("GroupId"), filters, paging: params.paging()? })
    }

    fn write(page: &Page<SecurityGroup>, xml: &mut Xml) {
        xml.list("securityGroupInfo", &page.items, |xml, group| {
            xml.leaf("ownerId", ACCOUNT);
            xml.leaf("groupId", &group.id);
            xml.leaf("groupName", &group.name);
            xml.leaf("groupDescription", &group.description);
            xml.leaf("vpcId", &group.vpc);
            write_tags(&group.tags, xml);
        });
        xml.next_token(page.next_token.as_deref());
    }
}

fn write_vpc(vpc: &Vpc, xml: &mut Xml) {
    xml.leaf("vpcId", &vpc.id);
    xml.leaf("ownerId", ACCOUNT);
    xml.leaf("state", "available");
    if let Some(first) = vpc.cidrs.first() {
        xml.leaf("cidrBlock", cidr::text(*first));
    }
    xml.list("cidrBlockAssociationSet", &vpc.cidrs, |xml, block| {
        xml.leaf("associationId", vpc.association(*block));
        xml.leaf("cidrBlock", cidr::text(*block));
        xml.element("cidrBlockState", |xml| xml.leaf("state", "associated"));
    });
    ipv6::write_block(vpc.association6(), vpc.cidr6, xml);
    xml.leaf("dhcpOptionsId", "default");
    xml.leaf("instanceTenancy", "default");
    xml.leaf("isDefault", vpc.is_default);
    write_tags(&vpc.tags, xml);
}

fn write_subnet(subnet: &Subnet, xml: &mut Xml) {
    xml.leaf("subnetId", &subnet.id);
    xml.leaf("vpcId", &subnet.vpc);
    xml.leaf("ownerId", ACCOUNT);
    xml.leaf("state", "available");
    xml.leaf("cidrBlock", cidr::text(subnet.cidr));
    ipv6::write_block(subnet.association6(), subnet.cidr6, xml);
    xml.leaf("availabilityZone", &subnet.availability_zone);
    xml.leaf("availableIpAddressCount", subnet.available);
    xml.leaf("defaultForAz", false);
    xml.leaf("mapPublicIpOnLaunch", false);
    write_tags(&subnet.tags, xml);
}
