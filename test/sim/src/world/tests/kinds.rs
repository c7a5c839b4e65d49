use super::{Fixture, code};
use crate::{
    action::{
        AssignPrivateIpAddresses, CreateNetworkInterface, DescribeInstanceTypes, DescribeNetworkInterfaces,
        LaunchInterface, RunInstances,
    },
    world::{Filter, model::EniKind},
};

impl Fixture {
    fn create_kind(&mut self, kind: EniKind) -> ipam_core::EniId {
        let new = CreateNetworkInterface { kind, ..self.new_eni() };
        self.call(&new).unwrap().id
    }

    fn launch(&self, instance_type: &str, more: Vec<LaunchInterface>) -> RunInstances {
        RunInstances {
            instance_type: instance_type.into(),
            subnet: Some(self.subnet.to_string()),
            more,
            ..Default::default()
        }
    }
}

fn at(card: u8, device_index: u8, kind: EniKind) -> LaunchInterface {
    LaunchInterface { kind, card, device_index, ..Default::default() }
}

#[test]
fn an_interface_is_what_it_was_made_for() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let instance = cloud.run("m5.xlarge");
    let [trunk, efa, branch] = [EniKind::Trunk, EniKind::Efa, EniKind::Branch].map(|kind| cloud.create_kind(kind));
    cloud.attach(&trunk, &instance, 1).unwrap();
    assert_eq!(code(cloud.attach(&efa, &instance, 2)), "IncorrectInstanceState");
    assert_eq!(code(cloud.attach(&branch, &instance, 2)), "InvalidParameterValue");
    let filters = vec![Filter::new("interface-type", "t*")];
    let found = cloud.call(&DescribeNetworkInterfaces { filters, ..Default::default() }).unwrap().items;
    assert_eq!(found.iter().map(|eni| (&eni.id, eni.kind)).collect::<Vec<_>>(), [(&trunk, EniKind::Trunk)]);
}

#[test]
fn an_interface_for_efa_only_has_no_address() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let eni = cloud.create_kind(EniKind::EfaOnly);
    assert_eq!((cloud.eni(&eni).addresses().count(), cloud.free_addresses()), (0, 251));
    let assign = AssignPrivateIpAddresses { interface: eni.to_string(), count: Some(1), ..Default::default() };
    assert_eq!(cloud.refusal(&assign), "UnsupportedOperation");
    let new = CreateNetworkInterface { kind: EniKind::EfaOnly, secondary_count: Some(1), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&new), "InvalidParameterCombination");
}

#[test]
fn an_instance_can_be_launched_with_interfaces_on_several_cards() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let more = vec![at(0, 1, EniKind::Efa), at(1, 1, EniKind::EfaOnly), at(2, 1, EniKind::Interface)];
    let made = cloud.call(&cloud.launch("p4d.24xlarge", more)).unwrap().remove(0);
    let places: Vec<_> = made.instance.interfaces.keys().copied().collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 1), (2, 1)]);
    let kinds: Vec<_> = made.interfaces.iter().map(|eni| eni.kind).collect();
    assert_eq!(kinds, [EniKind::Interface, EniKind::Efa, EniKind::EfaOnly, EniKind::Interface]);
    assert_eq!(cloud.free_addresses(), 251 - 3);
    assert!(made.interfaces.iter().all(|eni| eni.attachment.as_ref().unwrap().delete_on_termination));
}

#[test]
fn each_card_has_its_own_limit_at_launch() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let plain = |card, index| at(card, index, EniKind::Interface);
    // Two on the first card and two on each further one.
    let full = |more: &[LaunchInterface]| more.to_vec();
    let table = [
        (full(&[plain(0, 1), plain(0, 2)]), "AttachmentLimitExceeded"),
        (full(&[plain(1, 1), plain(1, 1)]), "InvalidParameterValue"),
        (full(&[plain(99, 1)]), "InvalidParameterValue"),
        (full(&[plain(0, 0)]), "InvalidParameterValue"),
        (full(&[at(1, 1, EniKind::Branch)]), "InvalidParameterCombination"),
        (full(&[LaunchInterface { secondary_count: 90, ..plain(1, 1) }]), "InvalidInterface.IpAddressLimitExceeded"),
    ];
    for (second, (more, wanted)) in (1..).zip(table) {
        cloud.at(second * 1000);
        assert_eq!(cloud.refusal(&cloud.launch("p5.48xlarge", more.clone())), wanted, "{more:?}");
    }
    assert!(cloud.call(&cloud.launch("p5.48xlarge", vec![plain(0, 1), plain(1, 1), plain(1, 2)])).is_ok());
}

#[test]
fn there_are_types_that_no_table_has() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let names = vec!["x99.4xlarge".to_owned()];
    let found = cloud.call(&DescribeInstanceTypes { names, ..Default::default() }).unwrap().items.remove(0);
    assert_eq!((found.cards[&0], found.cards[&1], found.addresses_per_eni), (4, 2, 15));
    cloud.run("x99.4xlarge");
    let unknown = DescribeInstanceTypes { names: vec!["x99.huge".into()], ..Default::default() };
    assert_eq!(cloud.refusal(&unknown), "InvalidInstanceType");
}
