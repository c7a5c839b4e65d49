use super::{Fixture, ip};
use crate::action::{Change, CreateNetworkInterface, DeleteNetworkInterface, ModifyNetworkInterfaceAttribute};

#[test]
fn a_new_interface_is_pending_until_its_delay_is_over() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(3);
    assert_eq!(cloud.at(99).eni(&eni).status(), "pending");
    assert_eq!(cloud.at(100).eni(&eni).status(), "available");
    assert_eq!(cloud.eni(&eni).secondary.len(), 3);
    assert_eq!(cloud.free_addresses(), 251 - 4);
}

#[test]
fn macs_are_unique_unicast_and_locally_administered() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    (0..100).for_each(|_| drop(cloud.create(0)));
    let mut macs: Vec<_> = cloud.world.enis().map(|eni| eni.mac).collect();
    assert!(macs.iter().all(|mac| mac.0[0] == 0x02));
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), 100);
}

#[test]
fn a_subnet_that_runs_out_refuses_the_whole_call() {
    let mut cloud = Fixture::new("10.0.0.0/28");
    cloud.create(8);
    let two = CreateNetworkInterface { secondary_count: Some(2), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&two), "InsufficientFreeAddressesInSubnet");
    assert_eq!(cloud.free_addresses(), 2);
    assert_eq!(cloud.world.enis().count(), 1);
    cloud.create(1);
    assert_eq!(cloud.refusal(&cloud.new_eni()), "InsufficientFreeAddressesInSubnet");
}

#[test]
fn named_addresses_must_be_free_and_of_the_subnet() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let named = |primary: &str, base: &CreateNetworkInterface| CreateNetworkInterface {
        primary: Some(ip(primary)),
        ..base.clone()
    };
    let base = cloud.new_eni();
    let eni = cloud.call(&named("10.0.0.9", &base)).unwrap();
    assert_eq!(eni.primary, Some(ip("10.0.0.9")));
    #[rustfmt::skip]
    let table = [
        ("10.0.0.9",   "InvalidIPAddress.InUse"),
        ("10.0.0.3",   "InvalidParameterValue"),
        ("10.0.0.255", "InvalidParameterValue"),
        ("10.0.1.9",   "InvalidParameterValue"),
    ];
    for (address, code) in table {
        assert_eq!(cloud.refusal(&named(address, &base)), code, "{address}");
    }
    let both = CreateNetworkInterface { secondary: vec![ip("10.0.0.10")], secondary_count: Some(1), ..base };
    assert_eq!(cloud.refusal(&both), "InvalidParameterCombination");
}

#[test]
fn the_same_client_token_gives_the_same_interface() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let new = CreateNetworkInterface { client_token: Some("t".into()), secondary_count: Some(2), ..cloud.new_eni() };
    let first = cloud.call(&new).unwrap().id;
    assert_eq!(cloud.at(5000).call(&new).unwrap().id, first);
    assert_eq!(cloud.world.enis().count(), 1);
    let other = CreateNetworkInterface { secondary_count: Some(3), ..new };
    assert_eq!(cloud.refusal(&other), "IdempotentParameterMismatch");
}

#[test]
fn a_group_must_exist_and_no_group_means_the_default_one() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(0);
    assert_eq!(cloud.eni(&eni).groups[0].name, "default");
    let unknown = CreateNetworkInterface { groups: vec!["sg-0aaaaaaaaaaaaaaaa".into()], ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&unknown), "InvalidGroup.NotFound");
    let group = cloud.eni(&eni).groups[0].id.to_string();
    let many = CreateNetworkInterface { groups: vec![group; 6], ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&many), "SecurityGroupsPerInterfaceLimitExceeded");
}

#[test]
fn deleting_frees_the_addresses_and_works_once() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(4);
    let delete = DeleteNetworkInterface { interface: eni.to_string() };
    cloud.call(&delete).unwrap();
    assert_eq!(cloud.free_addresses(), 251);
    assert_eq!(cloud.refusal(&delete), "InvalidNetworkInterfaceID.NotFound");
    let malformed = DeleteNetworkInterface { interface: "eni-xyz".into() };
    assert_eq!(cloud.refusal(&malformed), "InvalidNetworkInterfaceId.Malformed");
}

#[test]
fn an_attached_interface_cannot_be_deleted() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.attach(&eni, &instance, 1).unwrap();
    let delete = DeleteNetworkInterface { interface: eni.to_string() };
    assert_eq!(cloud.refusal(&delete), "InvalidNetworkInterface.InUse");
}

#[test]
fn an_attribute_is_changed_alone() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    let attachment = cloud.attach(&eni, &instance, 1).unwrap().to_string();
    let mut modify = |change| {
        cloud
            .call(&ModifyNetworkInterfaceAttribute { interface: eni.to_string(), change })
            .map_err(|e| e.code().to_owned())
    };
    modify(Change::DeleteOnTermination { attachment, value: true }).unwrap();
    modify(Change::Description("new".into())).unwrap();
    modify(Change::SourceDestCheck(false)).unwrap();
    let stranger = Change::DeleteOnTermination { attachment: "eni-attach-00000000000000000".into(), value: true };
    assert_eq!(modify(stranger), Err("InvalidAttachmentID.NotFound".to_owned()));
    let eni = cloud.eni(&eni);
    assert!(eni.attachment.is_some_and(|attachment| attachment.delete_on_termination));
    assert_eq!((eni.description.as_str(), eni.source_dest_check), ("new", false));
}
