//! VPCs, subnets and groups.

use aws_sdk_ec2::types::{Filter, Tag};
use ipam_core::ports::{Amount, Cidr4, Ec2, NewInterface, RefusalClass::SubnetFull};

use super::{ZONE, ensure, new_interface, refused, refused_with, subnet};
use crate::clouds::{Checked, World, make_subnet, make_subnet_in};

pub(super) async fn a_subnet_counts_its_free_addresses(world: &World) -> Checked {
    let before = subnet(world).await?;
    let Cidr4 { network, prefix } = before.cidr;
    ensure!((network.to_string(), prefix) == (world.at("1.0"), 24), "{before:?}");
    ensure!(before.available_addresses == 250, "{before:?}");
    world.ec2.create_interface(&new_interface(world, "token-1", 4)).await?;
    let after = subnet(world).await?;
    ensure!(after.available_addresses == 245, "{after:?}");
    Ok(())
}

pub(super) async fn a_full_subnet_says_so(world: &World) -> Checked {
    // 16 addresses, of which EC2 keeps 5.
    let subnet = make_subnet(&world.raw, &world.vpc, &world.at("2.0/28")).await?;
    let new = |token: &str, count| NewInterface { subnet: subnet.clone(), ..new_interface(world, token, count) };
    let eni = world.ec2.create_interface(&new("token-1", 8)).await?;
    refused(SubnetFull, world.ec2.create_interface(&new("token-2", 2)).await)?;
    refused(SubnetFull, world.ec2.assign(&eni.id, Amount::Addresses(3)).await)?;
    world.ec2.assign(&eni.id, Amount::Addresses(2)).await?;
    refused(SubnetFull, world.ec2.create_interface(&new("token-3", 0)).await)
}

/// The subnets that a filter finds.
async fn found(world: &World, name: &str, value: &str) -> Checked<Vec<String>> {
    let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
    let describe = world.raw.describe_subnets().filters(filter("vpc-id", &world.vpc)).filters(filter(name, value));
    let found = describe.send().await?;
    Ok(found.subnets().iter().filter_map(|subnet| subnet.subnet_id()).map(str::to_owned).collect())
}

pub(super) async fn a_subnet_is_found_by_its_tags(world: &World) -> Checked {
    let other = make_subnet(&world.raw, &world.vpc, &world.at("2.0/24")).await?;
    let tag = Tag::builder().key("kubernetes.io/role/cni").value("1").build();
    world.raw.create_tags().resources(other.as_str()).tags(tag).send().await?;
    for (name, value) in [("tag:kubernetes.io/role/cni", "1"), ("tag-key", "kubernetes.io/role/cni")] {
        let found = found(world, name, value).await?;
        ensure!(found == [other.to_string()], "{name}: {found:?}");
    }
    let all = world.ec2.subnets(&world.vpc.parse()?, ZONE).await?;
    let tags = all.iter().find(|subnet| subnet.id == other).map(|subnet| &subnet.tags);
    ensure!(tags.is_some_and(|tags| tags.get("kubernetes.io/role/cni").is_some_and(|value| value == "1")), "{all:?}");
    Ok(())
}

pub(super) async fn a_subnet_is_found_by_wildcards(world: &World) -> Checked {
    make_subnet(&world.raw, &world.vpc, &world.at("20.0/24")).await?;
    let tag = Tag::builder().key("Name").value("pods-in-zone-a").build();
    world.raw.create_tags().resources(world.subnet.as_str()).tags(tag).send().await?;
    let found = found(world, "tag:Name", "pods-*").await?;
    ensure!(found == [world.subnet.to_string()], "{found:?}");
    Ok(())
}

pub(super) async fn only_subnets_of_the_zone_are_listed(world: &World) -> Checked {
    let there = make_subnet_in(&world.raw, &world.vpc, &world.at("2.0/24"), "us-east-1b").await?;
    let ids = async |zone| -> Checked<Vec<_>> {
        Ok(world.ec2.subnets(&world.vpc.parse()?, zone).await?.into_iter().map(|subnet| subnet.id).collect())
    };
    let (here, elsewhere) = (ids(ZONE).await?, ids("us-east-1b").await?);
    ensure!(here == [world.subnet.clone()] && elsewhere == [there], "{here:?}, {elsewhere:?}");
    Ok(())
}

async fn refused_subnet(world: &World, code: &str, cidr: &str) -> Checked {
    refused_with(code, world.raw.create_subnet().vpc_id(&world.vpc).cidr_block(cidr).send().await)
}

pub(super) async fn a_subnet_is_no_smaller_than_a_28(world: &World) -> Checked {
    refused_subnet(world, "InvalidSubnet.Range", &world.at("2.0/29")).await
}

pub(super) async fn a_subnet_lies_in_its_vpc(world: &World) -> Checked {
    refused_subnet(world, "InvalidSubnet.Range", "10.200.0.0/24").await
}

pub(super) async fn subnets_do_not_overlap(world: &World) -> Checked {
    refused_subnet(world, "InvalidSubnet.Conflict", &world.at("1.128/25")).await
}

pub(super) async fn a_vpc_is_no_larger_than_a_16(world: &World) -> Checked {
    refused_with("InvalidVpc.Range", world.raw.create_vpc().cidr_block("10.0.0.0/8").send().await)
}

pub(super) async fn a_group_name_is_taken_once(world: &World) -> Checked {
    let create = || world.raw.create_security_group().group_name("one").description("of a check").vpc_id(&world.vpc);
    create().send().await?;
    refused_with("InvalidGroup.Duplicate", create().send().await)
}

pub(super) async fn a_vpc_takes_another_range(world: &World) -> Checked {
    let associate = world.raw.associate_vpc_cidr_block().vpc_id(&world.vpc).cidr_block("100.64.0.0/16").send().await?;
    let association = associate.cidr_block_association().and_then(|made| made.association_id()).ok_or("no id")?;
    make_subnet(&world.raw, &world.vpc, "100.64.0.0/20").await?;
    let vpcs = world.raw.describe_vpcs().vpc_ids(&world.vpc).send().await?;
    let ranges = vpcs.vpcs().first().ok_or("no VPC")?.cidr_block_association_set();
    ensure!(ranges.len() == 2 && ranges.iter().any(|one| one.association_id() == Some(association)), "{ranges:?}");
    Ok(())
}

pub(super) async fn the_first_range_of_a_vpc_stays(world: &World) -> Checked {
    let vpcs = world.raw.describe_vpcs().vpc_ids(&world.vpc).send().await?;
    let first = vpcs.vpcs().first().and_then(|vpc| vpc.cidr_block_association_set().first()).ok_or("no range")?;
    let disassociate =
        world.raw.disassociate_vpc_cidr_block().association_id(first.association_id().unwrap_or_default());
    refused_with("OperationNotPermitted", disassociate.send().await)
}

pub(super) async fn a_subnet_with_interfaces_is_not_deleted(world: &World) -> Checked {
    let delete = world.raw.delete_subnet().subnet_id(world.subnet.as_str());
    refused_with("DependencyViolation", delete.send().await)
}

pub(super) async fn a_group_in_use_is_not_deleted(world: &World) -> Checked {
    let create = world.raw.create_security_group().group_name("used").description("of a check").vpc_id(&world.vpc);
    let group = create.send().await?.group_id().ok_or("no id")?.to_owned();
    let used = world.raw.create_network_interface().subnet_id(world.subnet.as_str()).groups(&group);
    used.send().await?;
    refused_with("DependencyViolation", world.raw.delete_security_group().group_id(&group).send().await)
}

pub(super) async fn an_empty_subnet_can_be_deleted(world: &World) -> Checked {
    let subnet = make_subnet(&world.raw, &world.vpc, &world.at("3.0/24")).await?;
    world.raw.delete_subnet().subnet_id(subnet.as_str()).send().await?;
    refused_with("InvalidSubnetID.NotFound", world.raw.delete_subnet().subnet_id(subnet.as_str()).send().await)
}

pub(super) async fn a_subnet_lies_in_a_zone_of_the_region(world: &World) -> Checked {
    let create = world.raw.create_subnet().vpc_id(&world.vpc).cidr_block(world.at("4.0/24"));
    refused_with("InvalidParameterValue", create.availability_zone("us-east-9z").send().await)
}

pub(super) async fn a_network_is_written_as_one(world: &World) -> Checked {
    for text in ["10.0.0.0", "many"] {
        refused_with("InvalidParameterValue", world.raw.create_vpc().cidr_block(text).send().await)?;
        refused_subnet(world, "InvalidParameterValue", text).await?;
    }
    Ok(())
}

pub(super) async fn a_group_of_another_vpc_is_refused(world: &World) -> Checked {
    let vpc = world.raw.create_vpc().cidr_block(world.at("0.0/16")).send().await?;
    let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).ok_or("no VPC")?;
    let create = world.raw.create_security_group().group_name("theirs").description("of a check").vpc_id(vpc);
    let group = create.send().await?.group_id().ok_or("no id")?.to_owned();
    let create = world.raw.create_network_interface().subnet_id(world.subnet.as_str()).groups(group);
    refused_with("InvalidGroup.NotFound", create.send().await)
}
