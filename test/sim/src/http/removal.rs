//! Changes and deletions of networks on the wire.

use ipam_core::{VpcId, ports::Cidr4};

use super::{Wire, params::Params, xml::Xml};
use crate::{
    ApiError,
    action::{AssociateVpcCidrBlock, DeleteSecurityGroup, DeleteSubnet, DeleteVpc, DisassociateVpcCidrBlock},
    world::{cidr, model::Vpc},
};

impl Wire for AssociateVpcCidrBlock {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { vpc: params.required("VpcId")?, cidr: params.required("CidrBlock")? })
    }

    fn write((vpc, cidr): &(VpcId, Cidr4), xml: &mut Xml) {
        write_change(vpc, *cidr, "associating", xml);
    }
}

impl Wire for DisassociateVpcCidrBlock {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { association: params.required("AssociationId")? })
    }

    fn write((vpc, cidr): &(VpcId, Cidr4), xml: &mut Xml) {
        write_change(vpc, *cidr, "disassociating", xml);
    }
}

fn write_change(vpc: &VpcId, block: Cidr4, state: &str, xml: &mut Xml) {
    xml.leaf("vpcId", vpc);
    xml.element("cidrBlockAssociation", |xml| {
        xml.leaf("associationId", Vpc::association_of(vpc, block));
        xml.leaf("cidrBlock", cidr::text(block));
        xml.element("cidrBlockState", |xml| xml.leaf("state", state));
    });
}

macro_rules! deletions {
    ($($action:ident: $field:ident, $name:literal;)*) => {
        $(impl Wire for $action {
            fn read(params: &Params) -> Result<Self, ApiError> {
                Ok(Self { $field: params.required($name)? })
            }

            fn write((): &(), xml: &mut Xml) {
                xml.done();
            }
        })*
    };
}

deletions! {
    DeleteSubnet: subnet, "SubnetId";
    DeleteSecurityGroup: group, "GroupId";
    DeleteVpc: vpc, "VpcId";
}
