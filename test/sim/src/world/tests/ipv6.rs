use std::collections::BTreeSet;

use ipam_core::EniId;

use super::{Fixture, code};
use crate::{
    Failure, Order, WorldConfig,
    action::{
        AssignIpv6Addresses, CreateNetworkInterface, CreateSubnet, CreateVpc, DeleteNetworkInterface,
        UnassignIpv6Addresses,
    },
    world::{Cidr6, Held6, Wanted6},
};

impl Fixture {
    fn assign6(&mut self, eni: &EniId, wanted: Wanted6) -> Result<Held6, Failure> {
        self.call(&AssignIpv6Addresses { interface: eni.to_string(), wanted }).map(|(_, new)| new)
    }

    fn cidr6(&self) -> Cidr6 {
        self.world.subnets().find(|subnet| subnet.id == self.subnet).and_then(|subnet| subnet.cidr6).unwrap()
    }
}

fn addresses(count: u16) -> Wanted6 {
    Wanted6 { count: Some(count), ..Wanted6::default() }
}

fn prefixes(count: u16) -> Wanted6 {
    Wanted6 { prefix_count: Some(count), ..Wanted6::default() }
}

#[test]
fn prefixes_are_aligned_blocks_that_no_address_is_in() {
    for order in [Order::Random, Order::Sequential, Order::Scattered] {
        let mut cloud = Fixture::with(WorldConfig { order, ..WorldConfig::default() }, "10.0.0.0/24");
        let (subnet, mut seen) = (cloud.cidr6(), BTreeSet::new());
        for nth in 0..10 {
            let new = CreateNetworkInterface { ipv6: prefixes(nth % 4), ..cloud.new_eni() };
            let eni = cloud.call(&new).unwrap().id;
            let single = cloud.assign6(&eni, addresses(3)).unwrap().addresses;
            for prefix in cloud.eni(&eni).ipv6.prefixes {
                assert!(prefix.prefix == 80 && subnet.contains(prefix) && seen.insert(prefix), "{prefix} {order:?}");
                assert_eq!(Cidr6::around(prefix.network, 80), prefix);
            }
            let singles = single.iter().map(|address| Cidr6 { network: *address, prefix: 128 });
            assert!(singles.clone().all(|one| subnet.contains(one) && !seen.iter().any(|block| block.contains(one))));
            seen.extend(singles);
        }
        cloud.world.assert_invariants_of_all();
    }
}

#[test]
fn an_interface_takes_as_many_as_its_type_allows_a_prefix_as_one() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    // Four addresses on each ENI.
    let (instance, eni) = (cloud.run("t3.small"), cloud.create(3));
    cloud.attach(&eni, &instance, 1).unwrap();
    cloud.assign6(&eni, prefixes(2)).unwrap();
    assert_eq!(code(cloud.assign6(&eni, addresses(3))), "PrivateIpAddressLimitExceeded");
    cloud.assign6(&eni, addresses(2)).unwrap();
    assert_eq!(code(cloud.assign6(&eni, prefixes(1))), "PrivateIpAddressLimitExceeded");

    let (old, plain) = (cloud.run("m4.large"), cloud.create(0));
    cloud.attach(&plain, &old, 1).unwrap();
    assert_eq!(code(cloud.assign6(&plain, prefixes(1))), "UnsupportedOperation");
    cloud.assign6(&plain, addresses(1)).unwrap();
}

#[test]
fn what_is_named_must_be_free_and_of_the_subnet() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (one, other) = (cloud.create(0), cloud.create(0));
    let base = cloud.cidr6().network.to_bits();
    let address = |offset: u128| Wanted6 { addresses: vec![(base + offset).into()], ..Wanted6::default() };
    let prefix = |block: u128, prefix| {
        let prefixes = vec![Cidr6 { network: (base + (block << 48)).into(), prefix }];
        Wanted6 { prefixes, ..Wanted6::default() }
    };
    assert_eq!(cloud.assign6(&one, address(9)).unwrap().addresses.len(), 1);
    cloud.assign6(&one, prefix(5, 80)).unwrap();
    #[rustfmt::skip]
    let table = [
        (address(9),             "InvalidIPAddress.InUse"),
        (address((5 << 48) + 7), "InvalidIPAddress.InUse"),
        (address(3),             "InvalidParameterValue"),
        (address(1 << 64),       "InvalidParameterValue"),
        (address((1 << 64) - 1), "InvalidParameterValue"),
        (prefix(5, 80),          "InvalidIPAddress.InUse"),
        (prefix(0, 80),          "InvalidParameterValue"),
        (prefix(6, 96),          "InvalidParameterValue"),
        (Wanted6::default(),     "InvalidParameterCombination"),
        (Wanted6 { prefix_count: Some(1), ..addresses(1) }, "InvalidParameterCombination"),
    ];
    for (wanted, refusal) in table {
        assert_eq!(code(cloud.assign6(&other, wanted.clone())), refusal, "{wanted:?}");
    }
}

#[test]
fn what_is_unassigned_or_deleted_is_free_again() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let (one, other) = (cloud.create(0), cloud.create(0));
    let held = Held6 {
        addresses: cloud.assign6(&one, addresses(2)).unwrap().addresses,
        prefixes: cloud.assign6(&one, prefixes(1)).unwrap().prefixes,
    };
    let unassign = UnassignIpv6Addresses { interface: one.to_string(), held: held.clone() };
    cloud.call(&unassign).unwrap();
    assert_eq!(cloud.eni(&one).ipv6, Held6::default());
    assert_eq!(cloud.refusal(&unassign), "InvalidParameterValue");
    let again = Wanted6 { addresses: held.addresses, ..Wanted6::default() };
    cloud.assign6(&other, again.clone()).unwrap();
    cloud.call(&DeleteNetworkInterface { interface: other.to_string() }).unwrap();
    cloud.assign6(&one, again).unwrap();
}

#[test]
fn a_subnet_has_ipv6_only_where_its_vpc_has() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let taken = cloud.cidr6();
    let new = |cidr6, vpc: &str| CreateSubnet {
        vpc: vpc.to_owned(),
        cidr: "10.0.9.0/24".into(),
        cidr6: Some(cidr6),
        ..Default::default()
    };
    let vpc = cloud.vpc.clone();
    assert_eq!(cloud.refusal(&new(taken, &vpc)), "InvalidSubnet.Conflict");
    assert_eq!(cloud.refusal(&new(Cidr6 { prefix: 60, ..taken }, &vpc)), "InvalidSubnet.Range");
    let plain = cloud.call(&CreateVpc { cidr: "10.0.0.0/16".into(), ..Default::default() }).unwrap().id.to_string();
    assert_eq!(cloud.refusal(&new(taken, &plain)), "InvalidSubnet.Range");
    let subnet = CreateSubnet { vpc: plain, cidr: "10.0.9.0/24".into(), ..Default::default() };
    let subnet = cloud.call(&subnet).unwrap().id.to_string();
    let eni = CreateNetworkInterface { subnet, ipv6: addresses(1), ..Default::default() };
    assert_eq!(cloud.refusal(&eni), "InvalidParameterValue");
}
