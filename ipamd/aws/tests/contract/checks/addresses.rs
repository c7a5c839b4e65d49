//! Secondary addresses of an ENI.

use std::{collections::BTreeSet, net::Ipv4Addr};

use aws_sdk_ec2::operation::create_network_interface::builders::CreateNetworkInterfaceFluentBuilder;
use ipam_core::ports::{
    Amount, Ec2,
    RefusalClass::{BadRequest, LimitReached},
};

use super::{addresses, attached, ensure, listed, loose, new_interface, primary, refused, refused_with};
use crate::clouds::{Checked, World};

pub(super) async fn assigned_addresses_are_added(world: &World) -> Checked {
    let before = attached(world, "token-1", 1).await?;
    world.ec2.assign(&before.id, Amount::Addresses(4)).await?;
    let after = listed(world, &before.id).await?;
    ensure!(after.secondary.len() == 6, "{after:?}");
    ensure!(before.secondary.iter().all(|address| after.secondary.contains(address)), "{before:?}, then {after:?}");
    ensure!(after.secondary.iter().all(|address| world.is_ours(*address)), "{after:?}");
    Ok(())
}

pub(super) async fn no_address_is_given_twice_nor_a_reserved_one(world: &World) -> Checked {
    let mut seen: BTreeSet<Ipv4Addr> = [primary(world).await?.primary].into();
    for number in 0..8 {
        let eni = world.ec2.create_interface(&new_interface(world, &format!("token-{number}"), 14)).await?;
        for address in eni.secondary.into_iter().chain([eni.primary]) {
            ensure!(seen.insert(address), "{address} is there twice");
            ensure!((4..255).contains(&address.octets()[3]), "{address} is reserved");
        }
    }
    Ok(())
}

pub(super) async fn an_interface_has_a_limit_of_addresses(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(LimitReached, world.ec2.assign(&eni.id, Amount::Addresses(13)).await)?;
    let after = listed(world, &eni.id).await?;
    ensure!(after.secondary == eni.secondary, "refused, and yet changed: {after:?}");
    Ok(())
}

pub(super) async fn unassigned_addresses_are_gone(world: &World) -> Checked {
    let mut eni = attached(world, "token-1", 1).await?;
    let gone = eni.secondary.pop().ok_or("no address")?;
    world.ec2.unassign(&eni.id, &addresses(gone)).await?;
    let after = listed(world, &eni.id).await?;
    ensure!(after.secondary == eni.secondary, "{gone} of {eni:?}, then {after:?}");
    Ok(())
}

pub(super) async fn an_address_that_is_not_there_cannot_be_unassigned(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(BadRequest, world.ec2.unassign(&eni.id, &addresses(world.at("1.254").parse()?)).await)
}

pub(super) async fn the_primary_address_cannot_be_unassigned(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(BadRequest, world.ec2.unassign(&eni.id, &addresses(eni.primary)).await)
}

pub(super) async fn the_answer_lists_only_what_is_new(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let new = world.ec2.assign(&eni.id, Amount::Addresses(3)).await?.addresses;
    ensure!(new.len() == 3 && !new.iter().any(|one| eni.secondary.contains(one) || *one == eni.primary), "{new:?}");
    Ok(())
}

fn create(world: &World) -> CreateNetworkInterfaceFluentBuilder {
    world.raw.create_network_interface().subnet_id(world.subnet.as_str())
}

pub(super) async fn a_new_interface_can_name_its_addresses(world: &World) -> Checked {
    let made = create(world).private_ip_address(world.at("1.99")).send().await?;
    let address = made.network_interface().and_then(|eni| eni.private_ip_address());
    ensure!(address == Some(world.at("1.99").as_str()), "{address:?}");
    Ok(())
}

pub(super) async fn an_address_in_use_is_not_given_to_a_new_interface(world: &World) -> Checked {
    let taken = primary(world).await?.primary.to_string();
    refused_with("InvalidIPAddress.InUse", create(world).private_ip_address(taken).send().await)
}

pub(super) async fn an_address_outside_of_the_subnet_is_refused(world: &World) -> Checked {
    refused_with("InvalidParameterValue", create(world).private_ip_address(world.at("7.7")).send().await)
}

pub(super) async fn an_address_that_ec2_keeps_is_refused(world: &World) -> Checked {
    refused_with("InvalidParameterValue", create(world).private_ip_address(world.at("1.1")).send().await)
}

pub(super) async fn an_address_of_another_interface_is_refused(world: &World) -> Checked {
    let (one, other) = (loose(world, "token-1").await?, loose(world, "token-2").await?);
    let taken = one.secondary.first().ok_or("no address")?.to_string();
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(other.id.as_str());
    refused_with("Resource.AlreadyAssigned", assign.private_ip_addresses(taken).send().await)
}

pub(super) async fn an_address_moves_when_that_is_allowed(world: &World) -> Checked {
    let (one, other) = (loose(world, "token-1").await?, loose(world, "token-2").await?);
    let moved = *one.secondary.first().ok_or("no address")?;
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(other.id.as_str());
    assign.private_ip_addresses(moved.to_string()).allow_reassignment(true).send().await?;
    let (one, other) = (listed(world, &one.id).await?, listed(world, &other.id).await?);
    ensure!(!one.secondary.contains(&moved) && other.secondary.contains(&moved), "{one:?}, {other:?}");
    Ok(())
}

pub(super) async fn names_and_a_number_exclude_each_other(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(eni.id.as_str());
    let both = assign.private_ip_addresses(world.at("1.99")).secondary_private_ip_address_count(1).send().await;
    refused_with("InvalidParameterCombination", both)
}

pub(super) async fn nothing_cannot_be_assigned(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let assign = world.raw.assign_private_ip_addresses().network_interface_id(eni.id.as_str());
    refused_with("InvalidParameterCombination", assign.send().await)
}
