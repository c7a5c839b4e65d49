use ipam_core::EniId;

use super::{Fixture, code, ip};
use crate::{
    Failure,
    action::{AssignPrivateIpAddresses, AssignedAddresses, UnassignPrivateIpAddresses},
};

impl Fixture {
    fn assign(&mut self, eni: &EniId, count: u16) -> Result<AssignedAddresses, Failure> {
        self.call(&AssignPrivateIpAddresses { interface: eni.to_string(), count: Some(count), ..Default::default() })
    }
}

fn named(eni: &EniId, address: &str) -> AssignPrivateIpAddresses {
    AssignPrivateIpAddresses { interface: eni.to_string(), addresses: vec![ip(address)], ..Default::default() }
}

#[test]
fn the_answer_lists_only_the_new_addresses() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(2);
    let first = cloud.assign(&eni, 3).unwrap().addresses;
    let second = cloud.assign(&eni, 2).unwrap().addresses;
    assert_eq!((first.len(), second.len()), (3, 2));
    assert!(second.iter().all(|address| !first.contains(address)));
    assert_eq!(cloud.eni(&eni).secondary.len(), 7);
    assert_eq!(cloud.free_addresses(), 251 - 8);
}

#[test]
fn an_attached_interface_takes_as_many_addresses_as_the_type_allows() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, eni) = (cloud.run("m5.large"), cloud.create(0));
    cloud.attach(&eni, &instance, 1).unwrap();
    assert_eq!(code(cloud.assign(&eni, 10)), "PrivateIpAddressLimitExceeded");
    assert!(cloud.eni(&eni).secondary.is_empty());
    cloud.assign(&eni, 9).unwrap();
    assert_eq!(code(cloud.assign(&eni, 1)), "PrivateIpAddressLimitExceeded");
}

#[test]
fn a_subnet_that_runs_out_gives_nothing() {
    let mut cloud = Fixture::new("10.0.0.0/28");
    let eni = cloud.create(8);
    assert_eq!(code(cloud.assign(&eni, 3)), "InsufficientFreeAddressesInSubnet");
    assert_eq!(cloud.free_addresses(), 2);
    cloud.assign(&eni, 2).unwrap();
    assert_eq!(cloud.free_addresses(), 0);
}

#[test]
fn number_and_names_exclude_each_other() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(0);
    let interface = eni.to_string();
    let neither = AssignPrivateIpAddresses { interface: interface.clone(), ..Default::default() };
    assert_eq!(cloud.refusal(&neither), "InvalidParameterCombination");
    let both = AssignPrivateIpAddresses { count: Some(1), ..named(&eni, "10.0.0.9") };
    assert_eq!(cloud.refusal(&both), "InvalidParameterCombination");
    assert_eq!(code(cloud.assign(&eni, 0)), "InvalidParameterValue");
    let unknown = "eni-00000000000000000".parse().unwrap();
    assert_eq!(code(cloud.assign(&unknown, 1)), "InvalidNetworkInterfaceID.NotFound");
}

#[test]
fn a_named_address_must_be_free_unless_reassignment_is_allowed() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (one, two) = (cloud.create(0), cloud.create(0));
    cloud.call(&named(&one, "10.0.0.9")).or_else(|_| cloud.call(&named(&one, "10.0.0.10"))).unwrap();
    let address = cloud.eni(&one).secondary[0].to_string();
    assert_eq!(cloud.refusal(&named(&two, &address)), "Resource.AlreadyAssigned");
    let moved = AssignPrivateIpAddresses { allow_reassignment: true, ..named(&two, &address) };
    assert_eq!(cloud.call(&moved).unwrap().addresses, [ip(&address)]);
    assert_eq!((cloud.eni(&one).secondary.len(), cloud.eni(&two).secondary.len()), (0, 1));
    let primary = cloud.eni(&one).primary.unwrap().to_string();
    let theft = AssignPrivateIpAddresses { allow_reassignment: true, ..named(&two, &primary) };
    assert_eq!(cloud.refusal(&theft), "Resource.AlreadyAssigned");
    assert_eq!(cloud.refusal(&named(&two, "10.0.7.7")), "InvalidParameterValue");
}

#[test]
fn only_secondary_addresses_of_the_interface_can_be_unassigned_and_all_or_none() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create(3);
    let before = cloud.eni(&eni);
    let unassign = |addresses| UnassignPrivateIpAddresses { interface: eni.to_string(), addresses, prefixes: vec![] };
    assert_eq!(cloud.refusal(&unassign(before.primary.into_iter().collect())), "InvalidParameterValue");
    assert_eq!(cloud.refusal(&unassign(vec![])), "MissingParameter");
    let mixed = unassign(vec![before.secondary[0], ip("10.9.9.9")]);
    assert_eq!(cloud.refusal(&mixed), "InvalidParameterValue");
    assert_eq!(cloud.eni(&eni).secondary, before.secondary);
    cloud.call(&unassign(before.secondary[..2].to_vec())).unwrap();
    assert_eq!(cloud.eni(&eni).secondary, before.secondary[2..]);
    assert_eq!(cloud.free_addresses(), 251 - 2);
}
