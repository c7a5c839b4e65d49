use super::Fixture;
use crate::action::{
    AssociateVpcCidrBlock, CreateNetworkInterface, CreateSecurityGroup, CreateSubnet, CreateVpc,
    DeleteNetworkInterface, DeleteSecurityGroup, DeleteSubnet, DeleteVpc, DescribeSecurityGroups, DescribeVpcs,
    DisassociateVpcCidrBlock, DryRun,
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

#[test]
fn a_vpc_grows_by_ranges_and_shrinks_where_no_subnet_is() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let vpc = cloud.vpc.clone();
    let add = |cidr: &str| AssociateVpcCidrBlock { vpc: vpc.clone(), cidr: cidr.into() };
    for bad in ["10.0.4.0/24", "100.64.0.0/15"] {
        assert_eq!(cloud.refusal(&add(bad)), "InvalidVpc.Range", "{bad}");
    }
    for nth in 64..68 {
        cloud.call(&add(&format!("100.{nth}.0.0/16"))).unwrap();
    }
    assert_eq!(cloud.refusal(&add("100.80.0.0/16")), "VpcCidrLimitExceeded");
    let subnet = CreateSubnet { vpc: vpc.clone(), cidr: "100.64.0.0/24".into(), ..Default::default() };
    let subnet = cloud.call(&subnet).unwrap().id.to_string();

    let found = cloud.world.vpcs().next().unwrap().clone();
    let drop_range = |nth: usize| DisassociateVpcCidrBlock { association: found.association(found.cidrs[nth]) };
    assert_eq!(cloud.refusal(&drop_range(0)), "OperationNotPermitted");
    assert_eq!(cloud.refusal(&drop_range(1)), "DependencyViolation");
    cloud.call(&DeleteSubnet { subnet }).unwrap();
    cloud.call(&drop_range(1)).unwrap();
    assert_eq!(cloud.refusal(&drop_range(1)), "InvalidVpcCidrBlockAssociationID.NotFound");
}

#[test]
fn what_is_in_use_is_not_deleted() {
    let mut cloud = Fixture::new("10.0.0.0/24");
    let group = CreateSecurityGroup { name: "g".into(), vpc: Some(cloud.vpc.clone()), ..Default::default() };
    let group = cloud.call(&group).unwrap().to_string();
    let new = CreateNetworkInterface { groups: vec![group.clone()], ..cloud.new_eni() };
    let interface = cloud.call(&new).unwrap().id.to_string();
    let default = cloud.world.vpcs().next().unwrap().default_group.to_string();
    let (subnet, vpc) = (cloud.subnet.to_string(), cloud.vpc.clone());

    assert_eq!(cloud.refusal(&DeleteSecurityGroup { group: default }), "CannotDelete");
    assert_eq!(cloud.refusal(&DeleteSecurityGroup { group: group.clone() }), "DependencyViolation");
    assert_eq!(cloud.refusal(&DeleteSubnet { subnet: subnet.clone() }), "DependencyViolation");
    assert_eq!(cloud.refusal(&DeleteVpc { vpc: vpc.clone() }), "DependencyViolation");
    cloud.call(&DeleteNetworkInterface { interface }).unwrap();
    cloud.call(&DeleteSubnet { subnet: subnet.clone() }).unwrap();
    cloud.call(&DeleteSecurityGroup { group }).unwrap();
    cloud.call(&DeleteVpc { vpc }).unwrap();
    assert_eq!(cloud.refusal(&DeleteSubnet { subnet }), "InvalidSubnetID.NotFound");
}
