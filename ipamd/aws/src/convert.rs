//! From the SDK's words to ours. An answer that cannot be right is an error that names the field.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{AttachmentStatus, NetworkInterface, Tag};
use ipam_core::ports::{Attachment, Cidr4, Interface, Subnet};

/// The field of an answer that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("EC2's answer cannot be right: {field} is {value}")]
pub(crate) struct BadAnswer {
    field: &'static str,
    value: String,
}

fn parsed<T: std::str::FromStr>(field: &'static str, value: Option<&str>) -> Result<T, BadAnswer> {
    let text = value.ok_or_else(|| BadAnswer { field, value: "absent".to_owned() })?;
    text.parse().map_err(|_| BadAnswer { field, value: format!("`{text}`") })
}

fn small(field: &'static str, value: Option<i32>) -> Result<u8, BadAnswer> {
    let number = value.ok_or_else(|| BadAnswer { field, value: "absent".to_owned() })?;
    u8::try_from(number).map_err(|_| BadAnswer { field, value: number.to_string() })
}

/// Reads one ENI. The tags of a fresh ENI come as `TagSet`.
pub(crate) fn interface(eni: &NetworkInterface) -> Result<Interface, BadAnswer> {
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
        attachment: attachment(eni)?,
        tags: tags(eni.tag_set()),
    })
}

/// Reads how an ENI hangs on an instance. One that is attached to something else than an instance counts as elsewhere.
fn attachment(eni: &NetworkInterface) -> Result<Option<Attachment>, BadAnswer> {
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
    let text = subnet.cidr_block();
    let cidr = text.and_then(cidr).ok_or_else(|| BadAnswer { field: "CidrBlock", value: format!("{text:?}") })?;
    let free = subnet.available_ip_address_count().unwrap_or(0);
    Ok(Subnet {
        id: parsed("SubnetId", subnet.subnet_id())?,
        cidr,
        // Some stand-ins of EC2 count below zero.
        available_addresses: u32::try_from(free).unwrap_or(0),
    })
}

/// Reads `a.b.c.d/n`.
pub(crate) fn cidr(text: &str) -> Option<Cidr4> {
    let (network, prefix) = text.split_once('/')?;
    Some(Cidr4 { network: network.parse().ok()?, prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32)? })
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
        let error = interface(&described("02:00:00:21902x:14702x:22702x")).unwrap_err();
        assert_eq!(error.to_string(), "EC2's answer cannot be right: MacAddress is `02:00:00:21902x:14702x:22702x`");
        let error = interface(&NetworkInterface::builder().build()).unwrap_err();
        assert_eq!(error.to_string(), "EC2's answer cannot be right: PrivateIpAddress is absent");
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
