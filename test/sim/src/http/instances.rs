//! Instances and their types on the wire.

use super::{
    Wire,
    interfaces::{read_kind, write_addresses, write_attachment, write_groups, write_prefixes, write_primary},
    params::Params,
    tags::write_tags,
    xml::Xml,
};
use crate::{
    ACCOUNT, ApiError,
    action::{
        DescribeInstanceTypes, DescribeInstances, InstanceDescription, LaunchInterface, RunInstances, StateChange,
        TerminateInstances,
    },
    clock::rfc3339,
    world::{
        InstanceType, Page,
        model::{Eni, InstanceState},
    },
};

impl Wire for RunInstances {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let defaults = Self::default();
        let mut interfaces = params.structures("NetworkInterface");
        let unknown = |i: &Params| i.text("NetworkInterfaceId").is_some() || !i.structures("Ipv4Prefix").is_empty();
        if interfaces.iter().any(unknown) {
            let message = "Launch with existing ENIs or named prefixes is not simulated";
            return Err(ApiError::new("UnsupportedOperation", message));
        }
        let at = interfaces.iter().position(|i| {
            matches!(i.text("DeviceIndex"), None | Some("0")) && matches!(i.text("NetworkCardIndex"), None | Some("0"))
        });
        let interface = at.map(|at| interfaces.remove(at));
        if interface.is_none() && !interfaces.is_empty() {
            return Err(ApiError::invalid_value("One network interface must have device index 0 on network card 0"));
        }
        let interface = interface.unwrap_or_default();
        let count = params.parsed("MaxCount")?.unwrap_or(1);
        if count == 0 || params.parsed::<u16>("MinCount")?.is_some_and(|min| min == 0 || min > count) {
            return Err(ApiError::invalid_value(
                "MinCount and MaxCount must be at least 1, and MinCount not above MaxCount",
            ));
        }
        let groups = interface.list("SecurityGroupId");
        Ok(Self {
            instance_type: params.owned("InstanceType").unwrap_or(defaults.instance_type),
            image: params.owned("ImageId").unwrap_or(defaults.image),
            count,
            subnet: interface.owned("SubnetId").or_else(|| params.owned("SubnetId")),
            groups: if groups.is_empty() { params.list("SecurityGroupId") } else { groups },
            secondary_count: interface.parsed("SecondaryPrivateIpAddressCount")?.unwrap_or(0),
            prefix_count: interface.parsed("Ipv4PrefixCount")?.unwrap_or(0),
            more: interfaces.iter().map(read_interface).collect::<Result<_, _>>()?,
            tags: params.tags_for("instance")?,
            interface_tags: params.tags_for("network-interface")?,
            client_token: params.owned("ClientToken"),
        })
    }

    fn write(instances: &Vec<InstanceDescription>, xml: &mut Xml) {
        if let Some(first) = instances.first() {
            xml.leaf("reservationId", &first.instance.reservation);
        }
        xml.leaf("ownerId", ACCOUNT);
        xml.list("instancesSet", instances, |xml, instance| write_instance(instance, xml));
    }
}

fn read_interface(params: &Params) -> Result<LaunchInterface, ApiError> {
    Ok(LaunchInterface {
        kind: read_kind(params)?,
        card: params.parsed("NetworkCardIndex")?.unwrap_or(0),
        device_index: params.parsed("DeviceIndex")?.ok_or_else(|| ApiError::missing("DeviceIndex"))?,
        secondary_count: params.parsed("SecondaryPrivateIpAddressCount")?.unwrap_or(0),
        prefix_count: params.parsed("Ipv4PrefixCount")?.unwrap_or(0),
    })
}

impl Wire for DescribeInstances {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { ids: params.list("InstanceId"), filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<InstanceDescription>, xml: &mut Xml) {
        // One reservation for each instance, so that a page may end anywhere.
        xml.list("reservationSet", &page.items, |xml, instance| {
            xml.leaf("reservationId", &instance.instance.reservation);
            xml.leaf("ownerId", ACCOUNT);
            xml.list("instancesSet", [instance], |xml, instance| write_instance(instance, xml));
        });
        xml.next_token(page.next_token.as_deref());
    }
}

impl Wire for TerminateInstances {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { ids: params.required_list("InstanceId")? })
    }

    fn write(changes: &Vec<StateChange>, xml: &mut Xml) {
        xml.list("instancesSet", changes, |xml, change| {
            xml.leaf("instanceId", &change.id);
            xml.element("currentState", |xml| write_state(change.current, xml));
            xml.element("previousState", |xml| write_state(change.previous, xml));
        });
    }
}

impl Wire for DescribeInstanceTypes {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { names: params.list("InstanceType"), filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<InstanceType>, xml: &mut Xml) {
        xml.list("instanceTypeSet", &page.items, |xml, instance_type| write_type(instance_type, xml));
        xml.next_token(page.next_token.as_deref());
    }
}

fn write_state(state: InstanceState, xml: &mut Xml) {
    xml.leaf("code", state.code());
    xml.leaf("name", state.name());
}

fn write_instance(described: &InstanceDescription, xml: &mut Xml) {
    let instance = &described.instance;
    xml.leaf("instanceId", &instance.id);
    xml.leaf("imageId", &instance.image);
    xml.leaf("instanceType", &instance.instance_type);
    xml.leaf("launchTime", rfc3339(instance.launched_at));
    xml.leaf("amiLaunchIndex", 0);
    xml.leaf("architecture", "x86_64");
    xml.element("instanceState", |xml| write_state(instance.state, xml));
    xml.element("placement", |xml| {
        xml.leaf("availabilityZone", &instance.availability_zone);
        xml.leaf("tenancy", "default");
    });
    if let Some(primary) = described.interfaces.first() {
        write_primary(primary, xml);
        xml.leaf("sourceDestCheck", primary.source_dest_check);
        xml.leaf("subnetId", &instance.subnet);
        xml.leaf("vpcId", &instance.vpc);
        write_groups(&primary.groups, xml);
    }
    xml.list("networkInterfaceSet", &described.interfaces, |xml, eni| write_interface(eni, xml));
    write_tags(&instance.tags, xml);
}

/// An ENI as DescribeInstances tells of it: less than DescribeNetworkInterfaces does.
fn write_interface(eni: &Eni, xml: &mut Xml) {
    xml.leaf("networkInterfaceId", &eni.id);
    xml.leaf("subnetId", &eni.subnet);
    xml.leaf("vpcId", &eni.vpc);
    xml.leaf("description", &eni.description);
    xml.leaf("ownerId", ACCOUNT);
    xml.leaf("status", eni.status());
    xml.leaf("macAddress", eni.mac);
    write_primary(eni, xml);
    xml.leaf("sourceDestCheck", eni.source_dest_check);
    xml.leaf("interfaceType", eni.kind.name());
    write_groups(&eni.groups, xml);
    if let Some(attachment) = &eni.attachment {
        xml.element("attachment", |xml| write_attachment(attachment, xml));
    }
    write_addresses(eni, xml);
    write_prefixes("ipv4PrefixSet", &eni.prefixes, xml);
}

fn write_type(instance_type: &InstanceType, xml: &mut Xml) {
    xml.leaf("instanceType", instance_type.name);
    xml.leaf("currentGeneration", true);
    xml.leaf("bareMetal", instance_type.bare_metal);
    if let Some(hypervisor) = instance_type.hypervisor {
        xml.leaf("hypervisor", hypervisor);
    }
    xml.element("networkInfo", |xml| {
        xml.leaf("maximumNetworkInterfaces", instance_type.cards.values().map(|enis| u32::from(*enis)).sum::<u32>());
        xml.leaf("maximumNetworkCards", instance_type.cards.len());
        xml.leaf("defaultNetworkCardIndex", instance_type.default_card);
        xml.list("networkCards", &instance_type.cards, |xml, (card, enis)| {
            xml.leaf("networkCardIndex", card);
            xml.leaf("maximumNetworkInterfaces", enis);
        });
        xml.leaf("ipv4AddressesPerInterface", instance_type.addresses_per_eni);
    });
}
