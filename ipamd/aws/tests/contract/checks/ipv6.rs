//! IPv6 addresses and /80 prefixes of an ENI.

use aws_sdk_ec2::types::NetworkInterface;

use super::{ensure, refused_with};
use crate::clouds::{Checked, World};

/// A subnet with IPv6, in a VPC of its own.
async fn subnet(world: &World) -> Checked<String> {
    let vpc =
        world.raw.create_vpc().cidr_block(world.at("0.0/16")).amazon_provided_ipv6_cidr_block(true).send().await?;
    let vpc = vpc.vpc().ok_or("no VPC")?;
    let block =
        vpc.ipv6_cidr_block_association_set().first().and_then(|one| one.ipv6_cidr_block()).ok_or("no block")?;
    let create = world.raw.create_subnet().vpc_id(vpc.vpc_id().unwrap_or_default()).cidr_block(world.at("9.0/24"));
    let made = create.ipv6_cidr_block(block.replace("/56", "/64")).send().await?;
    Ok(made.subnet().and_then(|subnet| subnet.subnet_id()).ok_or("no subnet")?.to_owned())
}

async fn eni(world: &World) -> Checked<String> {
    let made = world.raw.create_network_interface().subnet_id(subnet(world).await?).send().await?;
    Ok(made.network_interface().and_then(|eni| eni.network_interface_id()).ok_or("no ENI")?.to_owned())
}

async fn assign(world: &World, eni: &str, count: i32) -> Checked<Vec<String>> {
    let assign = world.raw.assign_ipv6_addresses().network_interface_id(eni).ipv6_address_count(count);
    Ok(assign.send().await?.assigned_ipv6_addresses().to_vec())
}

async fn described(world: &World, eni: &str) -> Checked<NetworkInterface> {
    let found = world.raw.describe_network_interfaces().network_interface_ids(eni).send().await?;
    Ok(found.network_interfaces().first().ok_or("gone")?.clone())
}

fn addresses(eni: &NetworkInterface) -> Vec<String> {
    eni.ipv6_addresses().iter().filter_map(|one| one.ipv6_address()).map(str::to_owned).collect()
}

pub(super) async fn ipv6_addresses_can_be_assigned_and_unassigned(world: &World) -> Checked {
    let eni = eni(world).await?;
    let mut given = assign(world, &eni, 3).await?;
    let gone = given.pop().ok_or("nothing was given")?;
    world.raw.unassign_ipv6_addresses().network_interface_id(&eni).ipv6_addresses(gone).send().await?;
    let (mut left, mut wanted) = (addresses(&described(world, &eni).await?), given);
    left.sort();
    wanted.sort();
    ensure!(left == wanted, "{left:?} instead of {wanted:?}");
    Ok(())
}

pub(super) async fn the_answer_lists_only_new_ipv6_addresses(world: &World) -> Checked {
    let eni = eni(world).await?;
    let (first, second) = (assign(world, &eni, 2).await?, assign(world, &eni, 1).await?);
    ensure!(second.len() == 1 && !first.contains(&second[0]), "{first:?}, then {second:?}");
    Ok(())
}

pub(super) async fn ipv6_prefixes_can_be_assigned(world: &World) -> Checked {
    let eni = eni(world).await?;
    let assign = world.raw.assign_ipv6_addresses().network_interface_id(&eni).ipv6_prefix_count(2).send().await?;
    let given = assign.assigned_ipv6_prefixes();
    ensure!(
        given.len() == 2 && given.iter().all(|prefix| prefix.ends_with(":0:0:0/80") || prefix.ends_with("::/80")),
        "{given:?}"
    );
    let told = described(world, &eni).await?;
    ensure!(told.ipv6_prefixes().len() == 2, "{told:?}");
    Ok(())
}

pub(super) async fn a_subnet_without_ipv6_gives_none(world: &World) -> Checked {
    let made = world.raw.create_network_interface().subnet_id(world.subnet.as_str()).send().await?;
    let eni = made.network_interface().and_then(|eni| eni.network_interface_id()).ok_or("no ENI")?;
    let assign = world.raw.assign_ipv6_addresses().network_interface_id(eni).ipv6_address_count(1);
    refused_with("InvalidParameterValue", assign.send().await)
}

pub(super) async fn an_ipv6_address_that_is_not_there_cannot_be_unassigned(world: &World) -> Checked {
    let eni = eni(world).await?;
    let unassign = world.raw.unassign_ipv6_addresses().network_interface_id(&eni).ipv6_addresses("2600:1f00::9");
    refused_with("InvalidParameterValue", unassign.send().await)
}
