use std::time::Duration;

use super::{Fixture, ip, random};
use crate::{
    Quotas, WorldConfig,
    action::{CreateNetworkInterface, CreateSecurityGroup, CreateSubnet, CreateVpc, DeleteNetworkInterface},
};

#[test]
fn an_account_has_its_quotas() {
    let quotas = Quotas { enis: 2, vpcs: 1, subnets_of_vpc: 1, cidrs_of_vpc: 1, groups_of_eni: 1 };
    let mut cloud = Fixture::with(WorldConfig { quotas, ..WorldConfig::default() }, "10.0.0.0/24");
    assert_eq!(cloud.refusal(&CreateVpc { cidr: "10.1.0.0/16".into(), ..Default::default() }), "VpcLimitExceeded");
    let subnet = CreateSubnet { vpc: cloud.vpc.clone(), cidr: "10.0.1.0/24".into(), ..Default::default() };
    assert_eq!(cloud.refusal(&subnet), "SubnetLimitExceeded");
    let group = CreateSecurityGroup { name: "g".into(), vpc: Some(cloud.vpc.clone()), ..Default::default() };
    let groups = vec![cloud.call(&group).unwrap().to_string(); 2];
    let two_groups = CreateNetworkInterface { groups, ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&two_groups), "SecurityGroupsPerInterfaceLimitExceeded");
    let (first, _) = (cloud.create(0), cloud.create(0));
    assert_eq!(cloud.refusal(&cloud.new_eni()), "NetworkInterfaceLimitExceeded");
    cloud.call(&DeleteNetworkInterface { interface: first.to_string() }).unwrap();
    cloud.create(0);
}

#[test]
fn what_was_given_back_rests_before_it_is_given_again() {
    let config = WorldConfig { reuse_after: Duration::from_secs(60), ..WorldConfig::default() };
    let mut cloud = Fixture::with(config, "10.0.0.0/27");
    let named = CreateNetworkInterface { primary: Some(ip("10.0.0.9")), secondary_count: Some(26), ..cloud.new_eni() };
    let eni = cloud.call(&named).unwrap().id;
    cloud.call(&DeleteNetworkInterface { interface: eni.to_string() }).unwrap();
    let any = cloud.new_eni();
    assert_eq!(cloud.at(59_999).refusal(&any), "InsufficientFreeAddressesInSubnet");
    let again = CreateNetworkInterface { primary: Some(ip("10.0.0.9")), ..cloud.new_eni() };
    assert_eq!(cloud.refusal(&again), "InvalidIPAddress.InUse");
    cloud.world.assert_invariants_of_all();
    cloud.at(60_000).call(&again).unwrap();
    assert_eq!(cloud.free_addresses(), 26);

    let wide = WorldConfig { reuse_after: Duration::from_secs(60), ..WorldConfig::default() };
    let mut cloud = Fixture::with(wide, "10.0.0.0/26");
    let blocks = CreateNetworkInterface { prefix_count: Some(2), ..cloud.new_eni() };
    let eni = cloud.call(&blocks).unwrap().id;
    cloud.call(&DeleteNetworkInterface { interface: eni.to_string() }).unwrap();
    assert_eq!(cloud.at(59_999).refusal(&blocks), "InsufficientCidrBlocks");
    cloud.world.assert_invariants_of_all();
    cloud.at(60_000).call(&blocks).unwrap();
}

#[test]
fn a_clone_is_a_snapshot_that_goes_on_by_itself() {
    let mut cloud = random::run(WorldConfig::default(), 3, 100);
    let mut snapshot = cloud.world.clone();
    let (new, now) = (cloud.new_eni(), cloud.now);
    let before = snapshot.enis().count();
    let made = cloud.call(&new);
    assert_eq!(snapshot.enis().count(), before);
    assert_eq!(snapshot.call(&new, now), made);
    assert_eq!(snapshot.log().tail(usize::MAX), cloud.world.log().tail(usize::MAX));
}
