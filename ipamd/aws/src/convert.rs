//! From the SDK's words to ours. An answer that cannot be right is an error that names the field.

use std::{collections::BTreeMap, net::Ipv4Addr};

use aws_sdk_ec2::{
    operation::assign_private_ip_addresses::AssignPrivateIpAddressesOutput,
    types::{
        AttachmentStatus, InstanceType, InstanceTypeHypervisor, InstanceTypeInfo, NetworkInterface,
        NetworkInterfaceType, Tag,
    },
};
use ipam_core::{
    Limits, SecurityGroupId,
    policy::MAX_CARDS,
    ports::{Attachment, Cidr4, Holdings, Interface, InterfaceKind, Subnet},
};

/// An answer that cannot be right, by thing and field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EC2's answer cannot be right: {field} of {thing} is {value}")]
pub(crate) struct BadAnswer {
    thing: String,
    field: &'static str,
    value: String,
}

/// A field that cannot be right: its name, and its value for people.
type BadField = (&'static str, String);

fn of(thing: Option<&str>, (field, value): BadField) -> BadAnswer {
    BadAnswer { thing: thing.unwrap_or("something without id").to_owned(), field, value }
}

fn parsed<T: std::str::FromStr>(field: &'static str, value: Option<&str>) -> Result<T, BadField> {
    let text = value.ok_or((field, "absent".to_owned()))?;
    text.parse().map_err(|_| (field, format!("`{text}`")))
}

fn small(field: &'static str, value: Option<i32>) -> Result<u8, BadField> {
    let number = value.ok_or((field, "absent".to_owned()))?;
    u8::try_from(number).map_err(|_| (field, number.to_string()))
}

/// Reads one ENI.
pub(crate) fn interface(eni: &NetworkInterface) -> Result<Interface, BadAnswer> {
    read_interface(eni).map_err(|field| of(eni.network_interface_id(), field))
}

fn read_interface(eni: &NetworkInterface) -> Result<Interface, BadField> {
    let primary = parsed("PrivateIpAddress", eni.private_ip_address())?;
    let mut secondary = eni
        .private_ip_addresses()
        .iter()
        .filter(|address| address.primary() != Some(true))
        .map(|address| parsed("PrivateIpAddresses", address.private_ip_address()))
        .collect::<Result<Vec<_>, _>>()?;
    secondary.sort_unstable();
    secondary.dedup();
    secondary.retain(|address| *address != primary);
    Ok(Interface {
        id: parsed("NetworkInterfaceId", eni.network_interface_id())?,
        mac: parsed("MacAddress", eni.mac_address())?,
        subnet: parsed("SubnetId", eni.subnet_id())?,
        primary,
        secondary,
        prefixes: prefixes(eni)?,
        kind: kind(eni.interface_type()),
        security_groups: groups(eni)?,
        attachment: attachment(eni)?,
        tags: tags(eni.tag_set()),
    })
}

fn prefixes(eni: &NetworkInterface) -> Result<Vec<Cidr4>, BadField> {
    let texts = eni.ipv4_prefixes().iter().map(aws_sdk_ec2::types::Ipv4PrefixSpecification::ipv4_prefix);
    let mut prefixes = texts.map(prefix).collect::<Result<Vec<_>, _>>()?;
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

/// Reads a delegated prefix, always a /28: a larger one would give addresses to pods that are not ours.
fn prefix(text: Option<&str>) -> Result<Cidr4, BadField> {
    let text = text.ok_or(("Ipv4Prefix", "absent".to_owned()))?;
    cidr(text).filter(|cidr| cidr.prefix == 28).ok_or_else(|| ("Ipv4Prefix", format!("`{text}`")))
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
    let ids = eni.groups().iter().map(|group| parsed("GroupId", group.group_id()));
    let mut groups = ids.collect::<Result<Vec<_>, _>>()?;
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Reads what an ENI was given.
pub(crate) fn assigned(answer: &AssignPrivateIpAddressesOutput) -> Result<Holdings, BadAnswer> {
    let addresses = answer.assigned_private_ip_addresses().iter();
    let addresses = addresses.map(|one| parsed("AssignedPrivateIpAddresses", one.private_ip_address()));
    let prefixes = answer.assigned_ipv4_prefixes().iter().map(|one| prefix(one.ipv4_prefix()));
    let holdings = addresses
        .collect::<Result<Vec<_>, _>>()
        .and_then(|addresses| Ok(Holdings { addresses, prefixes: prefixes.collect::<Result<Vec<_>, _>>()? }));
    holdings.map_err(|field| of(answer.network_interface_id(), field))
}

/// Reads what an instance type can carry.
pub(crate) fn limits(info: &InstanceTypeInfo) -> Result<Limits, BadAnswer> {
    read_limits(info).map_err(|field| of(info.instance_type().map(InstanceType::as_str), field))
}

fn read_limits(info: &InstanceTypeInfo) -> Result<Limits, BadField> {
    let network = info.network_info().ok_or(("NetworkInfo", "absent".to_owned()))?;
    let default = small("DefaultNetworkCardIndex", network.default_network_card_index().or(Some(0)))?;
    // Without a list of cards there is one, which carries all.
    let mut max_enis = network.network_cards().is_empty().then(|| network.maximum_network_interfaces()).flatten();
    let mut other_cards = [0; MAX_CARDS];
    for card in network.network_cards() {
        let index = small("NetworkCardIndex", card.network_card_index())?;
        if index == default {
            max_enis = card.maximum_network_interfaces();
        } else {
            // More cards than any type has today are nobody's loss: they are not managed.
            let most = small("MaximumNetworkInterfaces", card.maximum_network_interfaces())?;
            other_cards.get_mut(usize::from(index)).into_iter().for_each(|place| *place = most);
        }
    }
    let addresses = network.ipv4_addresses_per_interface().and_then(|most| u16::try_from(most).ok());
    Ok(Limits {
        max_enis: small("MaximumNetworkInterfaces", max_enis)?,
        addresses_per_eni: addresses
            .ok_or_else(|| ("Ipv4AddressesPerInterface", "absent or out of range".to_owned()))?,
        prefixes: info.bare_metal() == Some(true) || info.hypervisor() == Some(&InstanceTypeHypervisor::Nitro),
        other_cards,
    })
}

/// Reads how an ENI hangs on an instance. One that is attached to something else than an instance counts as elsewhere.
fn attachment(eni: &NetworkInterface) -> Result<Option<Attachment>, BadField> {
    let Some(attachment) = eni.attachment().filter(|attachment| attachment.instance_id().is_some()) else {
        return Ok(None);
    };
    if attachment.status() == Some(&AttachmentStatus::Detached) {
        return Ok(None);
    }
    Ok(Some(Attachment {
        id: parsed("AttachmentId", attachment.attachment_id())?,
        instance: parsed("InstanceId", attachment.instance_id())?,
        device_index: small("DeviceIndex", attachment.device_index())?,
        // EC2 leaves the card out where there is but one.
        card: attachment.network_card_index().map_or(Ok(0), |card| small("NetworkCardIndex", Some(card)))?,
        attached: attachment.status() == Some(&AttachmentStatus::Attached),
        delete_on_termination: attachment.delete_on_termination() == Some(true),
    }))
}

fn tags(tags: &[Tag]) -> BTreeMap<String, String> {
    let pairs = tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
    pairs.collect()
}

/// Reads a subnet.
pub(crate) fn subnet(subnet: &aws_sdk_ec2::types::Subnet) -> Result<Subnet, BadAnswer> {
    read_subnet(subnet).map_err(|field| of(subnet.subnet_id(), field))
}

fn read_subnet(subnet: &aws_sdk_ec2::types::Subnet) -> Result<Subnet, BadField> {
    let text = subnet.cidr_block().ok_or(("CidrBlock", "absent".to_owned()))?;
    let free = subnet.available_ip_address_count().ok_or(("AvailableIpAddressCount", "absent".to_owned()))?;
    Ok(Subnet {
        id: parsed("SubnetId", subnet.subnet_id())?,
        cidr: cidr(text).ok_or_else(|| ("CidrBlock", format!("`{text}`")))?,
        // Some stand-ins of EC2 count below zero.
        available_addresses: u32::try_from(free).unwrap_or(0),
        tags: tags(subnet.tags()),
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
mod tests {
    use aws_sdk_ec2::types::{NetworkInterfaceAttachment, NetworkInterfacePrivateIpAddress};

    use super::*;

    fn address(text: &str, primary: bool) -> NetworkInterfacePrivateIpAddress {
        NetworkInterfacePrivateIpAddress::builder().private_ip_address(text).primary(primary).build()
    }

    fn described(mac: &str) -> NetworkInterface {
        NetworkInterface::builder()
            .network_interface_id("eni-1")
            .mac_address(mac)
            .subnet_id("subnet-1")
            .private_ip_address("10.0.0.4")
            .set_private_ip_addresses(Some(vec![
                address("10.0.0.9", false),
                address("10.0.0.4", true),
                address("10.0.0.7", false),
                address("10.0.0.7", false),
            ]))
            .tag_set(Tag::builder().key("a").value("b").build())
            .build()
    }

    #[test]
    fn addresses_are_sorted_unique_and_without_the_primary() {
        let interface = interface(&described("02:00:00:00:00:01")).unwrap();
        assert_eq!(
            interface.secondary,
            ["10.0.0.7", "10.0.0.9"].map(|text| text.parse::<std::net::Ipv4Addr>().unwrap())
        );
        assert_eq!(interface.attachment, None);
        assert_eq!(interface.tags.get("a").map(String::as_str), Some("b"));
    }

    #[test]
    fn what_cannot_be_right_is_named() {
        let with = |change: fn(&mut NetworkInterface)| {
            let mut eni = described("02:00:00:00:00:01");
            change(&mut eni);
            interface(&eni).unwrap_err().to_string()
        };
        #[rustfmt::skip]
        let table = [
            (with(|eni| eni.mac_address = Some("02:00:00:21902x".into())), "MacAddress of eni-1 is `02:00:00:21902x`"),
            (with(|eni| eni.private_ip_address = None),                    "PrivateIpAddress of eni-1 is absent"),
            (with(|eni| eni.subnet_id = Some("vpc-1".into())),             "SubnetId of eni-1 is `vpc-1`"),
            (with(|eni| eni.network_interface_id = None),                  "NetworkInterfaceId of something without id is absent"),
            (with(|eni| eni.private_ip_addresses = Some(vec![address("many", false)])), "PrivateIpAddresses of eni-1 is `many`"),
        ];
        for (error, wanted) in table {
            assert_eq!(error, format!("EC2's answer cannot be right: {wanted}"));
        }
    }

    #[test]
    fn an_empty_association_or_attachment_is_none() {
        let mut eni = described("02:00:00:00:00:01");
        eni.association = Some(aws_sdk_ec2::types::NetworkInterfaceAssociation::builder().build());
        eni.attachment = Some(NetworkInterfaceAttachment::builder().build());
        assert_eq!(interface(&eni).unwrap().attachment, None);
    }

    #[test]
    fn a_network_has_no_host_bits() {
        assert_eq!(cidr("10.0.0.0/16"), Some(Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 }));
        assert!(cidr("0.0.0.0/0").is_some() && cidr("10.0.0.1/32").is_some());
        for bad in ["10.0.0.1/16", "10.0.0.0/33", "10.0.0.0", "10.0.0/8", "::/0", "10.0.0.0/-1", ""] {
            assert_eq!(cidr(bad), None, "{bad}");
        }
    }

    #[test]
    fn free_addresses_are_never_below_zero() {
        let builder = aws_sdk_ec2::types::Subnet::builder().subnet_id("subnet-1").cidr_block("10.0.0.0/28");
        assert_eq!(subnet(&builder.available_ip_address_count(-19).build()).unwrap().available_addresses, 0);
    }

    #[test]
    fn an_attachment_without_a_card_is_on_the_first() {
        let attachment = NetworkInterfaceAttachment::builder()
            .attachment_id("eni-attach-1")
            .instance_id("i-1")
            .device_index(2)
            .status(AttachmentStatus::Attaching)
            .build();
        let mut eni = described("02:00:00:00:00:01");
        eni.attachment = Some(attachment);
        let attachment = interface(&eni).unwrap().attachment.unwrap();
        assert_eq!((attachment.card, attachment.device_index, attachment.attached), (0, 2, false));
    }
}
