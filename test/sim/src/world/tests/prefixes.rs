use ipam_core::{EniId, ports::Cidr4};

use super::{Fixture, code, ip};
use crate::{
    Failure, Order, WorldConfig,
    action::{
        AssignPrivateIpAddresses, AssignedAddresses, AttachNetworkInterface, CreateNetworkInterface,
        CreateSubnetCidrReservation, DeleteSubnetCidrReservation, GetSubnetCidrReservations, RunInstances,
        UnassignPrivateIpAddresses,
    },
    world::{cidr, model::ReservationKind},
};

impl Fixture {
    fn assign_prefixes(&mut self, eni: &EniId, count: u16) -> Result<AssignedAddresses, Failure> {
        let (interface, prefix_count) = (eni.to_string(), Some(count));
        self.call(&AssignPrivateIpAddresses { interface, prefix_count, ..Default::default() })
    }

    fn create_with_prefixes(&mut self, count: u16) -> Result<EniId, Failure> {
        let new = CreateNetworkInterface { prefix_count: Some(count), ..self.new_eni() };
        self.call(&new).map(|eni| eni.id)
    }

    fn reserve(&mut self, cidr: &str, kind: ReservationKind) -> Result<String, Failure> {
        let (subnet, cidr) = (self.subnet.to_string(), cidr.to_owned());
        let (description, tags) = (String::new(), Default::default());
        let create = CreateSubnetCidrReservation { subnet, cidr, kind, description, tags };
        let made = self.world.arrange(&create, self.now)?;
        Ok(made.id.to_string())
    }
}

fn prefix(text: &str) -> Cidr4 {
    cidr::parse(text).unwrap()
}

#[test]
fn prefixes_are_aligned_blocks_of_sixteen_that_nobody_else_has() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create_with_prefixes(3).unwrap();
    let more = cloud.assign_prefixes(&eni, 2).unwrap();
    assert_eq!((more.addresses.len(), more.prefixes.len()), (0, 2));
    let mut all = cloud.eni(&eni).prefixes;
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|prefix| prefix.prefix == 28 && prefix.network.octets()[3].is_multiple_of(16)), "{all:?}");
    assert_eq!(cloud.free_addresses(), 251 - 1 - 5 * 16);
    let gone =
        UnassignPrivateIpAddresses { interface: eni.to_string(), addresses: vec![], prefixes: all[..4].to_vec() };
    cloud.call(&gone).unwrap();
    assert_eq!(cloud.eni(&eni).prefixes, all[4..]);
    assert_eq!(cloud.free_addresses(), 251 - 1 - 16);
    assert_eq!(cloud.refusal(&gone), "InvalidParameterValue");
}

#[test]
fn a_prefix_uses_one_slot_of_the_limit() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    // Three ENIs with four addresses each.
    let (instance, eni) = (cloud.run("t3.small"), cloud.create(1));
    cloud.attach(&eni, &instance, 1).unwrap();
    assert_eq!(code(cloud.assign_prefixes(&eni, 3)), "PrivateIpAddressLimitExceeded");
    cloud.assign_prefixes(&eni, 2).unwrap();
    assert_eq!(code(cloud.assign_prefixes(&eni, 1)), "PrivateIpAddressLimitExceeded");
    let single = AssignPrivateIpAddresses { interface: eni.to_string(), count: Some(1), ..Default::default() };
    assert_eq!(cloud.refusal(&single), "PrivateIpAddressLimitExceeded");
}

#[test]
fn a_subnet_without_a_free_block_still_has_addresses() {
    // The first and the last of its four blocks hold addresses that EC2 keeps.
    let mut cloud = Fixture::new("10.0.0.0/26");
    for address in ["10.0.0.20", "10.0.0.40"] {
        let new = CreateNetworkInterface { primary: Some(ip(address)), ..cloud.new_eni() };
        cloud.call(&new).unwrap();
    }
    assert_eq!(code(cloud.create_with_prefixes(1)), "InsufficientCidrBlocks");
    assert_eq!(cloud.free_addresses(), 57);
    let eni = cloud.create(48);
    assert_eq!(code(cloud.assign_prefixes(&eni, 1)), "InsufficientCidrBlocks");
    let rest = CreateNetworkInterface { secondary_count: Some(8), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&rest), "InsufficientFreeAddressesInSubnet");
}

#[test]
fn scattered_addresses_break_every_block() {
    let config = WorldConfig { order: Order::Scattered, ..WorldConfig::default() };
    let mut cloud = Fixture::with(config, "10.0.0.0/24");
    cloud.create(13);
    assert_eq!(code(cloud.create_with_prefixes(1)), "InsufficientCidrBlocks");
    assert_eq!(cloud.free_addresses(), 251 - 14);
}

#[test]
fn sequential_addresses_leave_the_blocks_whole() {
    let config = WorldConfig { order: Order::Sequential, ..WorldConfig::default() };
    let mut cloud = Fixture::with(config, "10.0.0.0/24");
    let eni = cloud.create(13);
    let eni = cloud.eni(&eni);
    let mut addresses: Vec<_> = eni.addresses().collect();
    addresses.sort();
    assert_eq!((addresses[0], addresses[13]), (ip("10.0.0.4"), ip("10.0.0.17")));
    let first = cloud.create_with_prefixes(1).unwrap();
    assert_eq!(cloud.eni(&first).prefixes, [prefix("10.0.0.32/28")]);
}

#[test]
fn all_prefixes_are_given_or_none() {
    let mut cloud = Fixture::new("10.0.0.0/26");
    assert_eq!(code(cloud.create_with_prefixes(3)), "InsufficientCidrBlocks");
    assert_eq!((cloud.free_addresses(), cloud.world.enis().count()), (59, 0));
    cloud.create_with_prefixes(2).unwrap();
}

#[test]
fn a_named_prefix_must_be_a_free_block_of_the_subnet() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let named =
        |text: &str, base: CreateNetworkInterface| CreateNetworkInterface { prefixes: vec![prefix(text)], ..base };
    let first = named("10.0.0.32/28", CreateNetworkInterface { primary: Some(ip("10.0.0.100")), ..cloud.new_eni() });
    assert_eq!(cloud.call(&first).unwrap().prefixes, [prefix("10.0.0.32/28")]);
    for (text, wanted) in [
        ("10.0.0.32/28", "InvalidIPAddress.InUse"),
        ("10.0.0.96/28", "InvalidIPAddress.InUse"),
        ("10.0.0.0/28", "InvalidParameterValue"),
        ("10.0.0.240/28", "InvalidParameterValue"),
        ("10.0.1.16/28", "InvalidParameterValue"),
        ("10.0.0.64/27", "InvalidParameterValue"),
    ] {
        assert_eq!(cloud.refusal(&named(text, cloud.new_eni())), wanted, "{text}");
    }
    let taken = CreateNetworkInterface { primary: Some(ip("10.0.0.40")), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&taken), "InvalidIPAddress.InUse");
}

#[test]
fn prefixes_and_addresses_are_not_asked_for_together() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let both = CreateNetworkInterface { secondary_count: Some(1), prefix_count: Some(1), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&both), "InvalidParameterCombination");
    let eni = cloud.create(1);
    let assign = AssignPrivateIpAddresses { interface: eni.to_string(), count: Some(1), ..Default::default() };
    let both = AssignPrivateIpAddresses { prefix_count: Some(1), ..assign };
    assert_eq!(cloud.refusal(&both), "InvalidParameterCombination");
    assert_eq!(code(cloud.assign_prefixes(&eni, 0)), "InvalidParameterValue");
    let given = cloud.assign_prefixes(&eni, 1).unwrap().prefixes;
    let addresses = cloud.eni(&eni).secondary;
    let both = UnassignPrivateIpAddresses { interface: eni.to_string(), addresses, prefixes: given.clone() };
    assert_eq!(cloud.refusal(&both), "InvalidParameterCombination");
    let inside = vec![given[0].network];
    let inside = UnassignPrivateIpAddresses { interface: eni.to_string(), addresses: inside, prefixes: vec![] };
    assert_eq!(cloud.refusal(&inside), "InvalidParameterValue");
}

#[test]
fn xen_has_no_prefixes() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (instance, plain) = (cloud.run("m4.xlarge"), cloud.create(0));
    cloud.attach(&plain, &instance, 1).unwrap();
    assert_eq!(code(cloud.assign_prefixes(&plain, 1)), "UnsupportedOperation");
    let interface = cloud.create_with_prefixes(1).unwrap().to_string();
    let attach = AttachNetworkInterface { interface, instance: instance.to_string(), device_index: 2, card: 0 };
    assert_eq!(cloud.refusal(&attach), "UnsupportedOperation");
    let subnet = Some(cloud.subnet.to_string());
    let run = RunInstances { instance_type: "m4.large".into(), subnet, prefix_count: 1, ..Default::default() };
    assert_eq!(cloud.refusal(&run), "UnsupportedOperation");
}

#[test]
fn an_instance_can_be_launched_with_prefixes() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let run = RunInstances { count: 2, prefix_count: 3, subnet: Some(cloud.subnet.to_string()), ..Default::default() };
    let made = cloud.call(&run).unwrap();
    assert!(made.iter().all(|instance| instance.interfaces[0].prefixes.len() == 3));
    assert_eq!(cloud.free_addresses(), 251 - 2 - 6 * 16);
    let many = RunInstances { count: 1, prefix_count: 15, ..run };
    assert_eq!(cloud.refusal(&many), "InvalidInterface.IpAddressLimitExceeded");
}

#[test]
fn what_is_reserved_for_prefixes_is_given_as_prefixes_only() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let reservation = cloud.reserve("10.0.0.128/27", ReservationKind::Prefix).unwrap();
    assert_eq!(cloud.free_addresses(), 251 - 32);
    for _ in 0..20 {
        let eni = cloud.create(9);
        assert!(cloud.eni(&eni).addresses().all(|address| !(128..160).contains(&address.octets()[3])));
    }
    let eni = cloud.create_with_prefixes(2).unwrap();
    assert!(cloud.eni(&eni).prefixes.iter().all(|prefix| [128, 144].contains(&prefix.network.octets()[3])));
    assert_eq!(cloud.free_addresses(), 251 - 32 - 201);
    assert_eq!(code(cloud.assign_prefixes(&eni, 1)), "InsufficientCidrBlocks");
    cloud.call(&DeleteSubnetCidrReservation { reservation: reservation.clone() }).unwrap();
    assert_eq!(cloud.refusal(&DeleteSubnetCidrReservation { reservation }), "InvalidSubnetCidrReservationID.NotFound");
    cloud.world.assert_invariants_of_all();
}

#[test]
fn what_is_reserved_explicitly_is_given_by_name_only() {
    let mut cloud = Fixture::new("10.0.0.0/27");
    cloud.reserve("10.0.0.16/28", ReservationKind::Explicit).unwrap();
    assert_eq!(cloud.free_addresses(), 12);
    assert_eq!(code(cloud.create_with_prefixes(1)), "InsufficientCidrBlocks");
    cloud.create(11);
    assert_eq!(cloud.refusal(&cloud.new_eni()), "InsufficientFreeAddressesInSubnet");
    let named = CreateNetworkInterface { primary: Some(ip("10.0.0.20")), ..cloud.new_eni() };
    cloud.call(&named).unwrap();
}

#[test]
fn reservations_lie_in_their_subnet_side_by_side() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    cloud.reserve("10.0.0.64/26", ReservationKind::Prefix).unwrap();
    for bad in ["10.0.0.96/28", "10.0.1.0/28", "10.0.0.1/28", "10.0.0.0/29", "many"] {
        assert_eq!(code(cloud.reserve(bad, ReservationKind::Prefix)), "InvalidParameterValue", "{bad}");
    }
    cloud.reserve("10.0.0.0/29", ReservationKind::Explicit).unwrap();
    let list = GetSubnetCidrReservations { subnet: cloud.subnet.to_string(), ..Default::default() };
    assert_eq!(cloud.call(&list).unwrap().items.len(), 2);
}
