//! ENIs on the wire.

use std::net::Ipv4Addr;

use ipam_core::{AttachmentId, ports::Cidr4};

use super::{Wire, ipv6, params::Params, tags::write_tags, xml::Xml};
use crate::{
    ACCOUNT, ApiError,
    action::{
        AssignPrivateIpAddresses, AssignedAddresses, AttachNetworkInterface, Change, CreateNetworkInterface,
        DeleteNetworkInterface, DescribeNetworkInterfaces, DetachNetworkInterface, ModifyNetworkInterfaceAttribute,
        UnassignPrivateIpAddresses,
    },
    clock::rfc3339,
    world::{
        Page, cidr,
        model::{Attachment, Eni, EniKind, GroupName},
    },
};

impl Wire for CreateNetworkInterface {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let mut primary = params.parsed("PrivateIpAddress")?;
        let mut secondary = Vec::new();
        for address in params.structures("PrivateIpAddresses") {
            let value = address.parsed("PrivateIpAddress")?.ok_or_else(|| ApiError::missing("PrivateIpAddress"))?;
            if address.flag("Primary")? == Some(true) {
                primary = Some(value);
            } else {
                secondary.push(value);
            }
        }
        Ok(Self {
            subnet: params.required("SubnetId")?,
            description: params.owned("Description").unwrap_or_default(),
            kind: read_kind(params)?,
            groups: params.list("SecurityGroupId"),
            primary,
            secondary,
            secondary_count: params.parsed("SecondaryPrivateIpAddressCount")?,
            prefixes: specified_prefixes(params)?,
            prefix_count: params.parsed("Ipv4PrefixCount")?,
            ipv6: ipv6::specified(params)?,
            tags: params.tags_for("network-interface")?,
            client_token: params.owned("ClientToken"),
        })
    }

    fn write(eni: &Eni, xml: &mut Xml) {
        xml.element("networkInterface", |xml| write_eni(eni, xml));
    }
}

impl Wire for DescribeNetworkInterfaces {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { ids: params.list("NetworkInterfaceId"), filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<Eni>, xml: &mut Xml) {
        xml.list("networkInterfaceSet", &page.items, |xml, eni| write_eni(eni, xml));
        xml.next_token(page.next_token.as_deref());
    }
}

impl Wire for DeleteNetworkInterface {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { interface: params.required("NetworkInterfaceId")? })
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

impl Wire for AttachNetworkInterface {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            interface: params.required("NetworkInterfaceId")?,
            instance: params.required("InstanceId")?,
            card: params.parsed("NetworkCardIndex")?.unwrap_or(0),
            device_index: params.parsed("DeviceIndex")?.ok_or_else(|| ApiError::missing("DeviceIndex"))?,
        })
    }

    fn write(attachment: &AttachmentId, xml: &mut Xml) {
        xml.leaf("attachmentId", attachment);
    }
}

impl Wire for DetachNetworkInterface {
    fn read(params: &Params) -> Result<Self, ApiError> {
        // `Force` changes what a broken instance sees, and there are none.
        Ok(Self { attachment: params.required("AttachmentId")? })
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

impl Wire for ModifyNetworkInterfaceAttribute {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let groups = Some(params.list("SecurityGroupId")).filter(|groups| !groups.is_empty());
        let on_termination = match params.flag("Attachment.DeleteOnTermination")? {
            Some(value) => {
                Some(Change::DeleteOnTermination { attachment: params.required("Attachment.AttachmentId")?, value })
            }
            None => None,
        };
        let source_dest_check = params.flag("SourceDestCheck.Value")?.map(Change::SourceDestCheck);
        let description = params.owned("Description.Value").map(Change::Description);
        let changes = [on_termination, source_dest_check, description, groups.map(Change::Groups)];
        let mut changes = changes.into_iter().flatten();
        match (changes.next(), changes.next()) {
            (Some(change), None) => Ok(Self { interface: params.required("NetworkInterfaceId")?, change }),
            (None, _) => Err(ApiError::invalid_combination("No attributes specified")),
            (Some(_), Some(_)) => {
                Err(ApiError::invalid_combination("Fields for multiple attribute types specified: give exactly one"))
            }
        }
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

impl Wire for AssignPrivateIpAddresses {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            interface: params.required("NetworkInterfaceId")?,
            count: params.parsed("SecondaryPrivateIpAddressCount")?,
            addresses: params.addresses("PrivateIpAddress")?,
            prefix_count: params.parsed("Ipv4PrefixCount")?,
            prefixes: params.prefixes("Ipv4Prefix")?,
            allow_reassignment: params.flag("AllowReassignment")?.unwrap_or(false),
        })
    }

    fn write(assigned: &AssignedAddresses, xml: &mut Xml) {
        xml.leaf("networkInterfaceId", &assigned.interface);
        xml.list("assignedPrivateIpAddressesSet", &assigned.addresses, |xml, address| {
            xml.leaf("privateIpAddress", address)
        });
        write_prefixes("assignedIpv4PrefixSet", &assigned.prefixes, xml);
        xml.done();
    }
}

impl Wire for UnassignPrivateIpAddresses {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self {
            interface: params.required("NetworkInterfaceId")?,
            addresses: params.addresses("PrivateIpAddress")?,
            prefixes: params.prefixes("Ipv4Prefix")?,
        })
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

/// Writes everything that Describe tells of an ENI. What is absent is not written at all: an empty element would be read as something.
pub(super) fn write_eni(eni: &Eni, xml: &mut Xml) {
    xml.leaf("networkInterfaceId", &eni.id);
    xml.leaf("subnetId", &eni.subnet);
    xml.leaf("vpcId", &eni.vpc);
    xml.leaf("availabilityZone", &eni.availability_zone);
    xml.leaf("description", &eni.description);
    xml.leaf("ownerId", ACCOUNT);
    xml.leaf("requesterManaged", false);
    xml.leaf("status", eni.status());
    xml.leaf("macAddress", eni.mac);
    write_primary(eni, xml);
    xml.leaf("sourceDestCheck", eni.source_dest_check);
    xml.leaf("interfaceType", eni.kind.name());
    write_groups(&eni.groups, xml);
    if let Some(attachment) = &eni.attachment {
        xml.element("attachment", |xml| {
            write_attachment(attachment, xml);
            xml.leaf("instanceId", &attachment.instance);
            xml.leaf("instanceOwnerId", ACCOUNT);
        });
    }
    write_addresses(eni, xml);
    write_prefixes("ipv4PrefixSet", &eni.prefixes, xml);
    ipv6::write_held(&eni.ipv6, xml);
    write_tags(&eni.tags, xml);
}

pub(super) fn write_groups(groups: &[GroupName], xml: &mut Xml) {
    xml.list("groupSet", groups, |xml, group| {
        xml.leaf("groupId", &group.id);
        xml.leaf("groupName", &group.name);
    });
}

pub(super) fn write_attachment(attachment: &Attachment, xml: &mut Xml) {
    xml.leaf("attachmentId", &attachment.id);
    xml.leaf("deviceIndex", attachment.device_index);
    xml.leaf("networkCardIndex", attachment.card);
    xml.leaf("status", attachment.state.name());
    xml.leaf("attachTime", rfc3339(attachment.attach_time));
    xml.leaf("deleteOnTermination", attachment.delete_on_termination);
}

pub(super) fn write_addresses(eni: &Eni, xml: &mut Xml) {
    xml.list("privateIpAddressesSet", eni.addresses(), |xml, address| {
        xml.leaf("privateIpAddress", address);
        xml.leaf("privateDnsName", dns_name(address));
        xml.leaf("primary", Some(address) == eni.primary);
    });
}

/// `Ipv4Prefix.N.Ipv4Prefix`, as the calls that make ENIs have it.
pub(super) fn specified_prefixes(params: &Params) -> Result<Vec<Cidr4>, ApiError> {
    let one = |specification: &Params| specification.prefix("Ipv4Prefix");
    params.structures("Ipv4Prefix").iter().map(one).collect()
}

/// Writes prefixes. Without any, nothing is written.
pub(super) fn write_prefixes(name: &str, prefixes: &[Cidr4], xml: &mut Xml) {
    if !prefixes.is_empty() {
        xml.list(name, prefixes, |xml, prefix| xml.leaf("ipv4Prefix", cidr::text(*prefix)));
    }
}

/// Writes an ENI's primary address, if it has one.
pub(super) fn write_primary(eni: &Eni, xml: &mut Xml) {
    if let Some(primary) = eni.primary {
        xml.leaf("privateIpAddress", primary);
        xml.leaf("privateDnsName", dns_name(primary));
    }
}

/// `InterfaceType`; absent means an ordinary ENI.
pub(super) fn read_kind(params: &Params) -> Result<EniKind, ApiError> {
    let Some(name) = params.text("InterfaceType") else { return Ok(EniKind::Interface) };
    EniKind::named(name)
        .ok_or_else(|| ApiError::invalid_value(format!("Value ({name}) for parameter InterfaceType is invalid.")))
}

fn dns_name(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("ip-{a}-{b}-{c}-{d}.ec2.internal")
}
