//! From the SDK's words to ours. An answer that cannot be right is an error that names the field.

use std::{collections::BTreeMap, fmt::Display, net::Ipv4Addr, str::FromStr};

use aws_sdk_ec2::{
    operation::{
        assign_ipv6_addresses::AssignIpv6AddressesOutput, assign_private_ip_addresses::AssignPrivateIpAddressesOutput,
    },
    types::{InstanceType, InstanceTypeHypervisor, InstanceTypeInfo, NetworkInterface, NetworkInterfaceType, Tag},
};
use ipam_core::{
    EniId, Limits, SecurityGroupId,
    policy::MAX_CARDS,
    ports::{Attachment, Cidr4, Cidr6, Holdings, Interface, InterfaceKind, PREFIX6_BITS, Subnet},
};

/// An answer that cannot be right, by thing and field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EC2's answer cannot be right: {field} of {thing} is {value}; expected {expected}")]
pub(crate) struct BadAnswer {
    thing: String,
    field: &'static str,
    value: String,
    expected: &'static str,
}

/// A field of an answer, and what belongs there.
#[derive(Clone, Copy)]
struct Field(&'static str, &'static str);

/// A field that cannot be right, and its value for people.
struct BadField(Field, String);

impl Field {
    const fn absent(self) -> BadField {
        BadField(self, String::new())
    }

    fn is(self, value: impl Display) -> BadField {
        BadField(self, format!("`{value}`"))
    }
}

fn of(thing: Option<&str>, BadField(Field(field, expected), value): BadField) -> BadAnswer {
    let thing = thing.unwrap_or("something without id").to_owned();
    let value = if value.is_empty() { "absent".to_owned() } else { value };
    BadAnswer { thing, field, value, expected }
}

fn parsed<T: FromStr>(field: Field, value: Option<&str>) -> Result<T, BadField> {
    let text = value.ok_or(field.absent())?;
    text.parse().map_err(|_| field.is(text))
}

fn small(field: Field, value: Option<i32>) -> Result<u8, BadField> {
    let number = value.ok_or(field.absent())?;
    u8::try_from(number).map_err(|_| field.is(number))
}

const PRIMARY: Field = Field("PrivateIpAddress", "an IPv4 address");
const ADDRESSES: Field = Field("PrivateIpAddresses", "IPv4 addresses, the primary among them");
const PREFIX6: Field = Field("Ipv6Prefix", "a /80 without host bits");
const PREFIX: Field = Field("Ipv4Prefix", "a /28 without host bits");
const ENI: Field = Field("NetworkInterfaceId", "an id as eni-0123abcd");
const MAC: Field = Field("MacAddress", "six bytes as 02:00:00:00:00:01");
const SUBNET: Field = Field("SubnetId", "an id as subnet-0123abcd");
const GROUP: Field = Field("GroupId", "an id as sg-0123abcd");
const ATTACHMENT: Field = Field("AttachmentId", "an id as eni-attach-0123abcd");
const INSTANCE: Field = Field("Attachment.InstanceId", "an id as i-0123abcd");
const STATUS: Field = Field("Attachment.Status", "attaching, attached, detaching or detached");
const DEVICE: Field = Field("DeviceIndex", "a number in 0..=255");
const CARD: Field = Field("NetworkCardIndex", "a number in 0..=255");
const TAG: Field = Field("TagSet", "a key and a value in each tag");
const ASSIGNED: Field = Field("AssignedPrivateIpAddresses", "IPv4 addresses");
const NETWORK_INFO: Field = Field("NetworkInfo", "the limits of the type");
const MAX_ENIS: Field = Field("MaximumNetworkInterfaces", "a number in 1..=255");
const MAX_ADDRESSES: Field = Field("Ipv4AddressesPerInterface", "a number in 1..=65535");
const CIDR: Field = Field("CidrBlock", "a network as 10.0.0.0/16 without host bits");
const FREE: Field = Field("AvailableIpAddressCount", "a number");

/// Reads one ENI.
pub(crate) fn interface(eni: &NetworkInterface) -> Result<Interface, BadAnswer> {
    read_interface(eni).map_err(|field| of(eni.network_interface_id(), field))
}

fn read_interface(eni: &NetworkInterface) -> Result<Interface, BadField> {
    let primary = parsed(PRIMARY, eni.private_ip_address())?;
    let all = eni.private_ip_addresses().iter().map(|address| parsed(ADDRESSES, address.private_ip_address()));
    let mut secondary = all.collect::<Result<Vec<Ipv4Addr>, _>>()?;
    if !secondary.contains(&primary) {
        // A list that is not there at all must not look as if all the others were gone.
        return Err(ADDRESSES.is(format_args!("{secondary:?}")));
    }
    secondary.sort_unstable();
    secondary.dedup();
    secondary.retain(|address| *address != primary);
    Ok(Interface {
        id: parsed(ENI, eni.network_interface_id())?,
        mac: parsed(MAC, eni.mac_address())?,
        subnet: parsed(SUBNET, eni.subnet_id())?,
        primary,
        secondary,
        prefixes: prefixes(eni)?,
        prefixes6: prefixes6(eni)?,
        kind: kind(eni.interface_type()),
        security_groups: groups(eni)?,
        attachment: attachment(eni)?,
        tags: tags(eni.tag_set())?,
    })
}

fn prefixes(eni: &NetworkInterface) -> Result<Vec<Cidr4>, BadField> {
    let texts = eni.ipv4_prefixes().iter().map(aws_sdk_ec2::types::Ipv4PrefixSpecification::ipv4_prefix);
    let mut prefixes = texts.map(prefix).collect::<Result<Vec<_>, _>>()?;
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

fn prefixes6(eni: &NetworkInterface) -> Result<Vec<Cidr6>, BadField> {
    let mut prefixes =
        eni.ipv6_prefixes().iter().map(|one| prefix6(one.ipv6_prefix())).collect::<Result<Vec<_>, _>>()?;
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

/// Reads a delegated IPv6 prefix, always a /80.
fn prefix6(text: Option<&str>) -> Result<Cidr6, BadField> {
    let text = text.ok_or(PREFIX6.absent())?;
    text.parse().ok().filter(|cidr: &Cidr6| cidr.prefix == PREFIX6_BITS).ok_or_else(|| PREFIX6.is(text))
}

/// Reads a delegated prefix, always a /28: a larger one would give addresses to pods that are not ours.
fn prefix(text: Option<&str>) -> Result<Cidr4, BadField> {
    let text = text.ok_or(PREFIX.absent())?;
    cidr(text).filter(|cidr| cidr.prefix == 28).ok_or_else(|| PREFIX.is(text))
}

/// Absent counts as ordinary: some stand-ins of EC2 leave it out.
fn kind(kind: Option<&NetworkInterfaceType>) -> InterfaceKind {
    match kind {
        None | Some(NetworkInterfaceType::Interface) => InterfaceKind::Plain,
        Some(NetworkInterfaceType::Efa) => InterfaceKind::Efa,
        Some(NetworkInterfaceType::Trunk) => InterfaceKind::Trunk,
        Some(_) => InterfaceKind::Other,
    }
}

fn groups(eni: &NetworkInterface) -> Result<Vec<SecurityGroupId>, BadField> {
    let ids = eni.groups().iter().map(|group| parsed(GROUP, group.group_id()));
    let mut groups = ids.collect::<Result<Vec<_>, _>>()?;
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Refuses addresses that two ENIs, or an address and a prefix, claim: nobody could say whose packets they are.
pub(crate) fn check_claims<'a>(enis: impl Iterator<Item = &'a Interface>) -> Result<(), BadAnswer> {
    let mut claims: Vec<(u32, u32, &EniId)> = Vec::new();
    for eni in enis {
        let addresses = eni.secondary.iter().chain([&eni.primary]).map(|address| u32::from(*address));
        claims.extend(addresses.map(|address| (address, address, &eni.id)));
        let first = |prefix: &Cidr4| u32::from(prefix.network);
        claims.extend(eni.prefixes.iter().map(|prefix| (first(prefix), first(prefix) | 0xf, &eni.id)));
    }
    claims.sort_unstable();
    let twice = claims.windows(2).find_map(|pair| match pair {
        [(_, last, one), (first, _, other)] if first <= last => Some((*first, *one, *other)),
        _ => None,
    });
    let Some((address, one, other)) = twice else { return Ok(()) };
    let (thing, value) = (Ipv4Addr::from(address).to_string(), format!("on {one} and on {other}"));
    Err(BadAnswer { thing, field: "the place", value, expected: "one ENI for each address" })
}

/// Reads what an ENI was given.
pub(crate) fn assigned(answer: &AssignPrivateIpAddressesOutput) -> Result<Holdings, BadAnswer> {
    let addresses = answer.assigned_private_ip_addresses().iter();
    let addresses = addresses.map(|one| parsed(ASSIGNED, one.private_ip_address()));
    let prefixes = answer.assigned_ipv4_prefixes().iter().map(|one| prefix(one.ipv4_prefix()));
    let holdings = addresses.collect::<Result<Vec<_>, _>>().and_then(|addresses| {
        Ok(Holdings { addresses, prefixes: prefixes.collect::<Result<Vec<_>, _>>()?, prefixes6: Vec::new() })
    });
    holdings.map_err(|field| of(answer.network_interface_id(), field))
}

/// Reads the IPv6 prefixes that an answer lists as new.
pub(crate) fn assigned6(answer: &AssignIpv6AddressesOutput) -> Result<Holdings, BadAnswer> {
    let prefixes = answer.assigned_ipv6_prefixes().iter().map(|text| prefix6(Some(text)));
    let holdings = prefixes.collect::<Result<Vec<_>, _>>();
    let holdings = holdings.map(|prefixes6| Holdings { prefixes6, ..Holdings::default() });
    holdings.map_err(|field| of(answer.network_interface_id(), field))
}

/// Reads what an instance type can carry.
pub(crate) fn limits(info: &InstanceTypeInfo) -> Result<Limits, BadAnswer> {
    read_limits(info).map_err(|field| of(info.instance_type().map(InstanceType::as_str), field))
}

fn read_limits(info: &InstanceTypeInfo) -> Result<Limits, BadField> {
    let network = info.network_info().ok_or(NETWORK_INFO.absent())?;
    let default = small(CARD, network.default_network_card_index().or(Some(0)))?;
    // Without a list of cards there is one, which carries all.
    let mut max_enis = network.network_cards().is_empty().then(|| network.maximum_network_interfaces()).flatten();
    let mut other_cards = [0; MAX_CARDS];
    for card in network.network_cards() {
        let index = small(CARD, card.network_card_index())?;
        if index == default {
            max_enis = card.maximum_network_interfaces();
        } else {
            // More cards than any type has today are nobody's loss: they are not managed.
            let most = small(MAX_ENIS, card.maximum_network_interfaces())?;
            other_cards.get_mut(usize::from(index)).into_iter().for_each(|place| *place = most);
        }
    }
    let max_enis = max_enis.ok_or(MAX_ENIS.absent())?;
    let addresses = network.ipv4_addresses_per_interface().ok_or(MAX_ADDRESSES.absent())?;
    Ok(Limits {
        max_enis: u8::try_from(max_enis).ok().filter(|most| *most > 0).ok_or_else(|| MAX_ENIS.is(max_enis))?,
        addresses_per_eni: u16::try_from(addresses)
            .ok()
            .filter(|most| *most > 0)
            .ok_or_else(|| MAX_ADDRESSES.is(addresses))?,
        prefixes: info.bare_metal() == Some(true) || info.hypervisor() == Some(&InstanceTypeHypervisor::Nitro),
        other_cards,
    })
}

/// Reads how an ENI hangs on an instance. One that is attached to something else (a load balancer, a NAT gateway) counts as elsewhere.
fn attachment(eni: &NetworkInterface) -> Result<Option<Attachment>, BadField> {
    let Some(attachment) = eni.attachment() else { return Ok(None) };
    let to_instance = attachment.attachment_id().is_some_and(|id| id.starts_with("eni-attach-"));
    if attachment.instance_id().is_none() && !to_instance {
        return Ok(None);
    }
    let attached = match attachment.status().ok_or(STATUS.absent())?.as_str() {
        "detached" => return Ok(None),
        "attached" => true,
        "attaching" | "detaching" => false,
        other => return Err(STATUS.is(other)),
    };
    Ok(Some(Attachment {
        id: parsed(ATTACHMENT, attachment.attachment_id())?,
        instance: parsed(INSTANCE, attachment.instance_id())?,
        device_index: small(DEVICE, attachment.device_index())?,
        // EC2 leaves the card out where there is but one.
        card: attachment.network_card_index().map_or(Ok(0), |card| small(CARD, Some(card)))?,
        attached,
        delete_on_termination: attachment.delete_on_termination() == Some(true),
    }))
}

fn tags(tags: &[Tag]) -> Result<BTreeMap<String, String>, BadField> {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    tags.iter().map(|tag| pair(tag).ok_or(TAG.absent())).collect()
}

/// Reads a subnet.
pub(crate) fn subnet(subnet: &aws_sdk_ec2::types::Subnet) -> Result<Subnet, BadAnswer> {
    read_subnet(subnet).map_err(|field| of(subnet.subnet_id(), field))
}

fn read_subnet(subnet: &aws_sdk_ec2::types::Subnet) -> Result<Subnet, BadField> {
    let text = subnet.cidr_block().ok_or(CIDR.absent())?;
    let free = subnet.available_ip_address_count().ok_or(FREE.absent())?;
    Ok(Subnet {
        id: parsed(SUBNET, subnet.subnet_id())?,
        cidr: cidr(text).ok_or_else(|| CIDR.is(text))?,
        // Some stand-ins of EC2 count below zero.
        available_addresses: u32::try_from(free).unwrap_or(0),
        tags: tags(subnet.tags())?,
    })
}

/// Reads `a.b.c.d/n`; nothing when it is something else or has host bits.
pub(crate) fn cidr(text: &str) -> Option<Cidr4> {
    let (network, prefix) = text.split_once('/')?;
    let (network, prefix): (Ipv4Addr, u8) = (network.parse().ok()?, prefix.parse().ok()?);
    let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    (prefix <= 32 && u32::from(network) & host_bits == 0).then_some(Cidr4 { network, prefix })
}

#[cfg(test)]
mod tests;
