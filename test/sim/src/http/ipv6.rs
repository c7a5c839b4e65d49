//! IPv6 on the wire.

use std::{fmt::Display, net::Ipv6Addr};

use ipam_core::EniId;

use super::{Wire, params::Params, xml::Xml};
use crate::{
    ApiError,
    action::{AssignIpv6Addresses, UnassignIpv6Addresses},
    world::{Cidr6, Held6, Wanted6},
};

impl Wire for AssignIpv6Addresses {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let Held6 { addresses, prefixes } = named(params)?;
        let (count, prefix_count) = (params.parsed("Ipv6AddressCount")?, params.parsed("Ipv6PrefixCount")?);
        let wanted = Wanted6 { count, addresses, prefix_count, prefixes };
        Ok(Self { interface: params.required("NetworkInterfaceId")?, wanted })
    }

    fn write((eni, new): &(EniId, Held6), xml: &mut Xml) {
        xml.leaf("networkInterfaceId", eni);
        write_texts("assignedIpv6Addresses", &new.addresses, xml);
        write_texts("assignedIpv6PrefixSet", &new.prefixes, xml);
    }
}

impl Wire for UnassignIpv6Addresses {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { interface: params.required("NetworkInterfaceId")?, held: named(params)? })
    }

    fn write((eni, gone): &(EniId, Held6), xml: &mut Xml) {
        xml.leaf("networkInterfaceId", eni);
        write_texts("unassignedIpv6Addresses", &gone.addresses, xml);
        write_texts("unassignedIpv6PrefixSet", &gone.prefixes, xml);
    }
}

/// `Ipv6Addresses.N` and `Ipv6Prefix.N`.
fn named(params: &Params) -> Result<Held6, ApiError> {
    let addresses = params.list("Ipv6Addresses").iter().map(|text| address(text)).collect::<Result<_, _>>()?;
    let prefixes = params.list("Ipv6Prefix").iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    Ok(Held6 { addresses, prefixes })
}

/// What a call that makes an ENI says of IPv6.
pub(super) fn specified(params: &Params) -> Result<Wanted6, ApiError> {
    let addresses = params.structures("Ipv6Addresses");
    let prefixes = params.structures("Ipv6Prefix");
    Ok(Wanted6 {
        count: params.parsed("Ipv6AddressCount")?,
        addresses: addresses.iter().map(|one| address(&one.required("Ipv6Address")?)).collect::<Result<_, _>>()?,
        prefix_count: params.parsed("Ipv6PrefixCount")?,
        prefixes: prefixes.iter().map(|one| one.required("Ipv6Prefix")?.parse()).collect::<Result<_, _>>()?,
    })
}

fn address(text: &str) -> Result<Ipv6Addr, ApiError> {
    text.parse().map_err(|_| ApiError::invalid_value(format!("Value ({text}) for parameter ipv6Address is invalid.")))
}

/// Writes what Describe tells of an ENI's IPv6. Without prefixes, nothing is written of them.
pub(super) fn write_held(held: &Held6, xml: &mut Xml) {
    xml.list("ipv6AddressesSet", &held.addresses, |xml, address| xml.leaf("ipv6Address", address));
    if !held.prefixes.is_empty() {
        xml.list("ipv6PrefixSet", &held.prefixes, |xml, prefix| xml.leaf("ipv6Prefix", prefix));
    }
}

/// Writes the IPv6 network of a VPC or a subnet, if it has one.
pub(super) fn write_block(association: Option<String>, block: Option<Cidr6>, xml: &mut Xml) {
    if let (Some(association), Some(block)) = (association, block) {
        xml.list("ipv6CidrBlockAssociationSet", [block], |xml, block| {
            xml.leaf("associationId", &association);
            xml.leaf("ipv6CidrBlock", block);
            xml.leaf("ipv6Pool", "Amazon");
            xml.leaf("networkBorderGroup", "simulated");
            xml.element("ipv6CidrBlockState", |xml| xml.leaf("state", "associated"));
        });
    }
}

/// Writes a list of plain texts.
fn write_texts<T: Display>(name: &str, things: &[T], xml: &mut Xml) {
    if !things.is_empty() {
        xml.element(name, |xml| things.iter().for_each(|thing| xml.leaf("item", thing)));
    }
}
