use super::Fixture;
use crate::action::{
    CreateNetworkInterface, CreateSecurityGroup, CreateSubnet, CreateVpc, DescribeSecurityGroups, DescribeVpcs, DryRun,
};

#[test]
fn networks_must_be_well_formed_and_of_the_right_size() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    #[rustfmt::skip]
    let table = [
        ("10.0.0.0",      "InvalidParameterValue"),
        ("10.0.0.0/33",   "InvalidParameterValue"),
        ("10.0.0.0/8",    "InvalidVpc.Range"),
        ("10.0.0.0/29",   "InvalidVpc.Range"),
    ];
    for (cidr, code) in table {
        assert_eq!(cloud.refusal(&CreateVpc { cidr: cidr.into(), ..Default::default() }), code, "{cidr}");
    }
}

#[test]
fn a_subnet_lies_inside_its_vpc_and_overlaps_no_other() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    #[rustfmt::skip]
    let table = [
        ("10.1.0.0/24",  "InvalidSubnet.Range"),
        ("10.0.1.0/29",  "InvalidSubnet.Range"),
        ("10.0.0.128/25", "InvalidSubnet.Conflict"),
    ];
    for (cidr, code) in table {
        let create = CreateSubnet { vpc: cloud.vpc.clone(), cidr: cidr.into(), ..Default::default() };
        assert_eq!(cloud.refusal(&create), code, "{cidr}");
    }
}

#[test]
fn a_subnet_keeps_five_addresses_for_itself() {
    let mut cloud = Fixture::new("10.0.0.0/28");
    assert_eq!(cloud.free_addresses(), 11);
    cloud.create(10);
    assert_eq!(cloud.free_addresses(), 0);
    let enis: Vec<_> = cloud.world.enis().flat_map(|eni| eni.addresses()).map(|ip| ip.octets()[3]).collect();
    assert!(enis.iter().all(|last| (4..=14).contains(last)), "{enis:?}");
}

#[test]
fn an_unknown_id_and_a_malformed_one_are_different_mistakes() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let subnet = |subnet: &str| CreateNetworkInterface { subnet: subnet.into(), ..Default::default() };
    assert_eq!(cloud.refusal(&subnet("subnet-00000000000000000")), "InvalidSubnetID.NotFound");
    assert_eq!(cloud.refusal(&subnet("subnet-1")), "InvalidSubnetID.Malformed");
    assert_eq!(cloud.refusal(&subnet("vpc-00000000000000000")), "InvalidSubnetID.Malformed");
    let vpcs = DescribeVpcs { ids: vec!["vpc-00000000".into()], ..Default::default() };
    assert_eq!(cloud.refusal(&vpcs), "InvalidVpcID.NotFound");
}

#[test]
fn a_dry_run_changes_nothing() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let dry = DryRun(CreateVpc { cidr: "10.2.0.0/16".into(), ..Default::default() });
    assert_eq!(cloud.refusal(&dry), "DryRunOperation");
    assert_eq!(cloud.world.vpcs().count(), 1);
}

#[test]
fn a_group_name_is_unique_in_its_vpc() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let create = CreateSecurityGroup { name: "web".into(), vpc: Some(cloud.vpc.clone()), ..Default::default() };
    cloud.call(&create).unwrap();
    assert_eq!(cloud.refusal(&create), "InvalidGroup.Duplicate");
    let names: Vec<_> =
        cloud.call(&DescribeSecurityGroups::default()).unwrap().items.into_iter().map(|group| group.name).collect();
    assert!(names.contains(&"web".to_owned()) && names.contains(&"default".to_owned()), "{names:?}");
}
