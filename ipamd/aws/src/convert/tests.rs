use aws_sdk_ec2::types::{AttachmentStatus, NetworkInterfaceAttachment, NetworkInterfacePrivateIpAddress};

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
    assert_eq!(interface.secondary, ["10.0.0.7", "10.0.0.9"].map(|text| text.parse::<std::net::Ipv4Addr>().unwrap()));
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
        (with(|eni| eni.mac_address = Some("02:00:00:21902x".into())), "MacAddress of eni-1 is `02:00:00:21902x`; expected six bytes as 02:00:00:00:00:01"),
        (with(|eni| eni.private_ip_address = None),                    "PrivateIpAddress of eni-1 is absent; expected an IPv4 address"),
        (with(|eni| eni.subnet_id = Some("vpc-1".into())),             "SubnetId of eni-1 is `vpc-1`; expected an id as subnet-0123abcd"),
        (with(|eni| eni.network_interface_id = None),                  "NetworkInterfaceId of something without id is absent; expected an id as eni-0123abcd"),
        (with(|eni| eni.private_ip_addresses = Some(vec![address("many", false)])), "PrivateIpAddresses of eni-1 is `many`; expected IPv4 addresses, the primary among them"),
        (with(|eni| eni.private_ip_addresses = None),                  "PrivateIpAddresses of eni-1 is `[]`; expected IPv4 addresses, the primary among them"),
        (with(|eni| eni.tag_set = Some(vec![Tag::builder().key("a").build()])), "TagSet of eni-1 is absent; expected a key and a value in each tag"),
        (with(|eni| eni.attachment = Some(attachment_to("i-1", "levitating"))), "Attachment.Status of eni-1 is `levitating`; expected attaching, attached, detaching or detached"),
        (with(|eni| eni.attachment = Some(NetworkInterfaceAttachment::builder().attachment_id("eni-attach-1").status(AttachmentStatus::Attached).build())),
            "Attachment.InstanceId of eni-1 is absent; expected an id as i-0123abcd"),
    ];
    for (error, wanted) in table {
        assert_eq!(error, format!("EC2's answer cannot be right: {wanted}"));
    }
}

fn attachment_to(instance: &str, status: &str) -> NetworkInterfaceAttachment {
    let attachment = NetworkInterfaceAttachment::builder().attachment_id("eni-attach-1").device_index(1);
    attachment.instance_id(instance).status(status.into()).build()
}

#[test]
fn what_hangs_on_a_load_balancer_is_attached_to_no_instance() {
    let mut eni = described("02:00:00:00:00:01");
    let attachment =
        NetworkInterfaceAttachment::builder().attachment_id("ela-attach-1").instance_owner_id("amazon-elb");
    eni.attachment = Some(attachment.status(AttachmentStatus::Attached).build());
    assert_eq!(interface(&eni).unwrap().attachment, None);
}

#[test]
fn an_address_is_on_one_interface_alone() {
    let with = |id: &str, primary: &str, prefix: Option<&str>| {
        let mut eni = described("02:00:00:00:00:01");
        (eni.network_interface_id, eni.private_ip_address) = (Some(id.into()), Some(primary.into()));
        eni.private_ip_addresses = Some(vec![address(primary, true)]);
        let prefix =
            prefix.map(|text| aws_sdk_ec2::types::Ipv4PrefixSpecification::builder().ipv4_prefix(text).build());
        eni.ipv4_prefixes = prefix.map(|prefix| vec![prefix]);
        interface(&eni).unwrap()
    };
    let claims = |enis: &[Interface]| check_claims(enis.iter()).map_err(|error| error.to_string());
    let (one, block) = (with("eni-1", "10.0.0.4", None), with("eni-2", "10.0.0.5", Some("10.0.0.16/28")));
    assert_eq!(claims(&[one.clone(), block.clone()]), Ok(()));
    for (other, address) in
        [(with("eni-3", "10.0.0.4", None), "10.0.0.4"), (with("eni-3", "10.0.0.31", None), "10.0.0.31")]
    {
        let error = claims(&[one.clone(), block.clone(), other]).unwrap_err();
        let wanted = format!("EC2's answer cannot be right: the place of {address} is on eni-");
        assert!(error.starts_with(&wanted) && error.ends_with("; expected one ENI for each address"), "{error}");
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
