//! /28 prefixes of an ENI, and what is reserved for them.

use aws_sdk_ec2::types::{InstanceType, Ipv4PrefixSpecificationRequest, SubnetCidrReservationType};
use ipam_core::ports::{
    Amount, Cidr4, Ec2, Holdings, NewInterface,
    RefusalClass::{LimitReached, NoPrefix},
};

use super::{attached, ensure, listed, loose, new_interface, refused, refused_with, subnet};
use crate::clouds::{Checked, World, make_subnet, run_instance_of};

fn with_prefixes(world: &World, token: &str, count: u16) -> NewInterface {
    NewInterface { amount: Amount::Prefixes(count), ..new_interface(world, token, 0) }
}

fn are_blocks(world: &World, prefixes: &[Cidr4]) -> bool {
    prefixes
        .iter()
        .all(|prefix| prefix.prefix == 28 && world.is_ours(prefix.network) && prefix.network.octets()[3] % 16 == 0)
}

pub(super) async fn prefixes_can_be_had_at_creation(world: &World) -> Checked {
    let made = world.ec2.create_interface(&with_prefixes(world, "token-1", 2)).await?;
    ensure!(made.prefixes.len() == 2 && made.secondary.is_empty() && are_blocks(world, &made.prefixes), "{made:?}");
    let found = listed(world, &made.id).await?;
    ensure!(found == made, "{found:?} instead of {made:?}");
    Ok(())
}

pub(super) async fn prefixes_can_be_assigned_and_unassigned(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let mut given = world.ec2.assign(&eni.id, Amount::Prefixes(2)).await?;
    ensure!(given.prefixes.len() == 2 && given.addresses.is_empty() && are_blocks(world, &given.prefixes), "{given:?}");
    let gone = vec![given.prefixes.pop().ok_or("none")?];
    world.ec2.unassign(&eni.id, &Holdings { prefixes: gone, ..Holdings::default() }).await?;
    let after = listed(world, &eni.id).await?;
    ensure!(after.prefixes == given.prefixes && after.secondary == eni.secondary, "{after:?}");
    Ok(())
}

pub(super) async fn a_prefix_takes_one_place_of_the_limit(world: &World) -> Checked {
    // 15 places, of which the primary and two secondary addresses have three.
    let subnet = make_subnet(&world.raw, &world.vpc, &world.at("16.0/20")).await?;
    let eni = world.ec2.create_interface(&NewInterface { subnet, ..new_interface(world, "token-1", 2) }).await?;
    world.ec2.attach_interface(&eni.id, &world.instance, 0, 1).await?;
    refused(LimitReached, world.ec2.assign(&eni.id, Amount::Prefixes(13)).await)?;
    world.ec2.assign(&eni.id, Amount::Prefixes(12)).await?;
    refused(LimitReached, world.ec2.assign(&eni.id, Amount::Addresses(1)).await)
}

pub(super) async fn a_prefix_costs_the_subnet_sixteen_addresses(world: &World) -> Checked {
    let before = subnet(world).await?.available_addresses;
    world.ec2.create_interface(&with_prefixes(world, "token-1", 2)).await?;
    let after = subnet(world).await?.available_addresses;
    ensure!(before - after == 33, "{before}, then {after}");
    Ok(())
}

pub(super) async fn a_subnet_without_a_free_block_says_so(world: &World) -> Checked {
    // Of its two blocks, one holds the first addresses and the other the last, which EC2 keeps.
    let subnet = make_subnet(&world.raw, &world.vpc, &world.at("2.0/27")).await?;
    let new = NewInterface { subnet: subnet.clone(), ..with_prefixes(world, "token-1", 1) };
    refused(NoPrefix, world.ec2.create_interface(&new).await)?;
    let new = NewInterface { subnet, ..new_interface(world, "token-2", 5) };
    let eni = world.ec2.create_interface(&new).await?;
    refused(NoPrefix, world.ec2.assign(&eni.id, Amount::Prefixes(1)).await)
}

pub(super) async fn a_prefix_can_be_asked_for_by_name(world: &World) -> Checked {
    let named = |text: &str| {
        let prefix = Ipv4PrefixSpecificationRequest::builder().ipv4_prefix(text).build();
        world.raw.create_network_interface().subnet_id(world.subnet.as_str()).ipv4_prefixes(prefix)
    };
    let free = &world.at(if primary_block(world).await? == 32 { "1.64/28" } else { "1.32/28" });
    let made = named(free).private_ip_address(world.at("1.200")).send().await?;
    let eni = made.network_interface().ok_or("nothing")?;
    ensure!(eni.ipv4_prefixes().first().and_then(|one| one.ipv4_prefix()) == Some(free.as_str()), "{eni:?}");
    refused_with("InvalidIPAddress.InUse", named(free).private_ip_address(world.at("1.201")).send().await)?;
    refused_with("InvalidParameterValue", named(&world.at("1.0/28")).private_ip_address(world.at("1.201")).send().await)
}

/// First address, within the subnet, of the block that the instance's own address lies in.
async fn primary_block(world: &World) -> Checked<u8> {
    Ok(super::primary(world).await?.primary.octets()[3] & 0xf0)
}

pub(super) async fn prefixes_and_addresses_are_not_asked_for_together(world: &World) -> Checked {
    let create = world.raw.create_network_interface().subnet_id(world.subnet.as_str());
    let both = create.secondary_private_ip_address_count(1).ipv4_prefix_count(1).send().await;
    refused_with("InvalidParameterCombination", both)?;
    let eni = loose(world, "token-1").await?;
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(eni.id.as_str());
    let both = assign.secondary_private_ip_address_count(1).ipv4_prefix_count(1).send().await;
    refused_with("InvalidParameterCombination", both)
}

async fn reserve(world: &World, cidr: &str) -> Checked {
    let reserve = world.raw.create_subnet_cidr_reservation().subnet_id(world.subnet.as_str()).cidr(cidr);
    reserve.reservation_type(SubnetCidrReservationType::Prefix).send().await?;
    Ok(())
}

pub(super) async fn prefixes_come_from_what_is_reserved_for_them(world: &World) -> Checked {
    let reserved = if primary_block(world).await? == 64 { 96 } else { 64 };
    reserve(world, &world.at(&format!("1.{reserved}/28"))).await?;
    let eni = world.ec2.create_interface(&with_prefixes(world, "token-1", 1)).await?;
    ensure!(eni.prefixes.first().is_some_and(|prefix| prefix.network.octets()[3] == reserved), "{eni:?}");
    refused(NoPrefix, world.ec2.assign(&eni.id, Amount::Prefixes(1)).await)
}

pub(super) async fn a_reservation_is_not_counted_as_free(world: &World) -> Checked {
    let before = subnet(world).await?.available_addresses;
    let reserved = if primary_block(world).await? < 128 { 128 } else { 64 };
    reserve(world, &world.at(&format!("1.{reserved}/27"))).await?;
    let after = subnet(world).await?.available_addresses;
    ensure!(before - after == 32, "{before}, then {after}");
    Ok(())
}

pub(super) async fn a_xen_instance_has_no_prefixes(world: &World) -> Checked {
    let instance = run_instance_of(&world.raw, &world.subnet, InstanceType::M4Large).await?;
    let eni = loose(world, "token-1").await?;
    world.ec2.attach_interface(&eni.id, &instance, 0, 1).await?;
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(eni.id.as_str());
    refused_with("UnsupportedOperation", assign.ipv4_prefix_count(1).send().await)
}
