//! ENIs: make, attach, change, detach, delete.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{AttributeBooleanValue, AttributeValue, NetworkInterfaceCreationType, NetworkInterfaceType};
use ipam_core::{
    SecurityGroupId,
    ports::{
        Change, Ec2, NewInterface,
        RefusalClass::{BadRequest, LimitReached, NotFound, WrongState},
    },
};

use super::{attached, ensure, interfaces, listed, loose, new_interface, nowhere, primary, refused, refused_with};
use crate::clouds::{Checked, World, make_subnet_in, run_instance, until};

pub(super) async fn a_new_interface_is_as_asked(world: &World) -> Checked {
    let wanted = new_interface(world, "token-1", 3);
    let made = world.ec2.create_interface(&wanted).await?;
    ensure!(made.subnet == wanted.subnet && made.tags == wanted.tags, "{made:?}");
    ensure!(made.secondary.len() == 3 && made.attachment.is_none(), "{made:?}");
    let found = listed(world, &made.id).await?;
    ensure!(found == made, "created {made:?}, listed {found:?}");
    let raw = world.raw.describe_network_interfaces().network_interface_ids(made.id.as_str()).send().await?;
    let raw = raw.network_interfaces().first().ok_or("not there")?;
    let groups: Vec<_> = raw.groups().iter().filter_map(|group| group.group_id()).collect();
    ensure!(groups == [world.group.as_str()], "{groups:?}");
    ensure!(raw.description() == Some(wanted.description.as_str()), "{:?}", raw.description());
    Ok(())
}

pub(super) async fn the_same_token_makes_one_interface(world: &World) -> Checked {
    let wanted = new_interface(world, "token-1", 1);
    let (first, second) = (world.ec2.create_interface(&wanted).await?, world.ec2.create_interface(&wanted).await?);
    ensure!(first.id == second.id, "{} and {}", first.id, second.id);
    Ok(())
}

pub(super) async fn a_token_stands_for_one_request(world: &World) -> Checked {
    world.ec2.create_interface(&new_interface(world, "token-1", 1)).await?;
    refused(BadRequest, world.ec2.create_interface(&new_interface(world, "token-1", 2)).await)
}

pub(super) async fn the_primary_interface_is_listed(world: &World) -> Checked {
    let primary = primary(world).await?;
    let attachment = primary.attachment.clone().ok_or("not attached")?;
    ensure!(attachment.instance == world.instance && attachment.card == 0 && attachment.attached, "{primary:?}");
    ensure!(primary.subnet == world.subnet && primary.secondary.is_empty(), "{primary:?}");
    Ok(())
}

pub(super) async fn an_attached_interface_is_listed_where_it_was_put(world: &World) -> Checked {
    let eni = attached(world, "token-1", 2).await?;
    let attachment = eni.attachment.clone().ok_or("not attached")?;
    ensure!(attachment.instance == world.instance, "{eni:?}");
    ensure!((attachment.card, attachment.device_index, attachment.delete_on_termination) == (0, 2, false), "{eni:?}");
    Ok(())
}

pub(super) async fn an_interface_can_be_made_to_go_with_its_instance(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let attachment = eni.attachment.ok_or("not attached")?;
    world.ec2.modify_interface(&eni.id, &Change::DeleteOnTermination(attachment.id.clone())).await?;
    let eni = listed(world, &eni.id).await?;
    ensure!(eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination), "{eni:?}");
    Ok(())
}

pub(super) async fn a_device_index_is_taken_once(world: &World) -> Checked {
    attached(world, "token-1", 1).await?;
    let second = world.ec2.create_interface(&new_interface(world, "token-2", 0)).await?;
    refused(WrongState, world.ec2.attach_interface(&second.id, &world.instance, 0, 1).await)
}

pub(super) async fn an_interface_is_attached_once(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(WrongState, world.ec2.attach_interface(&eni.id, &world.instance, 0, 2).await)
}

pub(super) async fn an_instance_has_a_limit_of_interfaces(world: &World) -> Checked {
    for index in 1..=3 {
        attached(world, &format!("token-{index}"), index).await?;
    }
    let fifth = world.ec2.create_interface(&new_interface(world, "token-4", 0)).await?;
    refused(LimitReached, world.ec2.attach_interface(&fifth.id, &world.instance, 0, 4).await)
}

pub(super) async fn a_detached_interface_can_be_deleted_and_is_gone(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let attachment = eni.attachment.ok_or("not attached")?.id;
    world.ec2.detach_interface(&attachment).await?;
    until("detached", async || Ok(listed(world, &eni.id).await?.attachment.is_none().then_some(()))).await?;
    world.ec2.delete_interface(&eni.id).await?;
    let left = interfaces(world, &world.instance).await?;
    ensure!(left.iter().all(|interface| interface.id != eni.id), "{left:?}");
    refused(NotFound, world.ec2.detach_interface(&attachment).await)?;
    refused(NotFound, world.ec2.delete_interface(&eni.id).await)
}

pub(super) async fn an_attached_interface_cannot_be_deleted(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(WrongState, world.ec2.delete_interface(&eni.id).await)
}

pub(super) async fn the_primary_interface_cannot_be_detached(world: &World) -> Checked {
    let attachment = primary(world).await?.attachment.ok_or("not attached")?;
    refused(WrongState, world.ec2.detach_interface(&attachment.id).await)
}

pub(super) async fn only_interfaces_of_the_node_are_listed(world: &World) -> Checked {
    let other = run_instance(&world.raw, &world.subnet).await?;
    let ours = attached(world, "token-1", 1).await?;
    let waiting = world.ec2.create_interface(&new_interface(world, "token-2", 0)).await?;
    let untagged = NewInterface { tags: [].into(), ..new_interface(world, "token-3", 0) };
    let untagged = world.ec2.create_interface(&untagged).await?;
    let mut found: Vec<_> = interfaces(world, &world.instance).await?.into_iter().map(|eni| eni.id).collect();
    let mut wanted = vec![primary(world).await?.id, ours.id, waiting.id];
    found.sort();
    wanted.sort();
    ensure!(found == wanted, "{found:?} instead of {wanted:?}; {} is nobody's", untagged.id);
    let others = interfaces(world, &other).await?;
    ensure!(others.len() == 1, "{others:?}");
    Ok(())
}

pub(super) async fn a_card_that_is_not_there_carries_nothing(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    refused(BadRequest, world.ec2.attach_interface(&eni.id, &world.instance, 1, 1).await)
}

pub(super) async fn an_interface_stays_in_its_zone(world: &World) -> Checked {
    let subnet = make_subnet_in(&world.raw, &world.vpc, &world.at("2.0/24"), "us-east-1b").await?;
    let elsewhere = NewInterface { subnet, ..new_interface(world, "token-1", 0) };
    let eni = world.ec2.create_interface(&elsewhere).await?;
    refused(BadRequest, world.ec2.attach_interface(&eni.id, &world.instance, 0, 1).await)
}

pub(super) async fn a_terminated_instance_gets_no_interface(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    world.raw.terminate_instances().instance_ids(world.instance.as_str()).send().await?;
    refused(WrongState, world.ec2.attach_interface(&eni.id, &world.instance, 0, 1).await)
}

pub(super) async fn macs_are_hardware_addresses_and_unique(world: &World) -> Checked {
    let mut seen = BTreeSet::from([primary(world).await?.mac]);
    for number in 0..8 {
        let mac = world.ec2.create_interface(&new_interface(world, &format!("token-{number}"), 0)).await?.mac;
        ensure!(seen.insert(mac) && mac.0[0] & 1 == 0, "{mac}");
    }
    Ok(())
}

pub(super) async fn an_interface_is_of_the_type_it_was_made_as(world: &World) -> Checked {
    let create = world.raw.create_network_interface().subnet_id(world.subnet.as_str());
    let made = create.interface_type(NetworkInterfaceCreationType::Trunk).send().await?;
    let kind = made.network_interface().and_then(|eni| eni.interface_type().cloned());
    ensure!(kind == Some(NetworkInterfaceType::Trunk), "{kind:?}");
    Ok(())
}

pub(super) async fn one_attribute_is_changed_at_a_time(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let modify = world.raw.modify_network_interface_attribute().network_interface_id(eni.id.as_str());
    let modify = modify.description(AttributeValue::builder().value("new").build());
    let both = modify.source_dest_check(AttributeBooleanValue::builder().value(false).build()).send().await;
    refused_with("InvalidParameterCombination", both)
}

pub(super) async fn the_description_can_be_changed(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let modify = world.raw.modify_network_interface_attribute().network_interface_id(eni.id.as_str());
    modify.description(AttributeValue::builder().value("new").build()).send().await?;
    let raw = world.raw.describe_network_interfaces().network_interface_ids(eni.id.as_str()).send().await?;
    let description = raw.network_interfaces().first().and_then(|eni| eni.description());
    ensure!(description == Some("new"), "{description:?}");
    Ok(())
}

pub(super) async fn the_source_check_can_be_turned_off(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let modify = world.raw.modify_network_interface_attribute().network_interface_id(eni.id.as_str());
    modify.source_dest_check(AttributeBooleanValue::builder().value(false).build()).send().await?;
    let raw = world.raw.describe_network_interfaces().network_interface_ids(eni.id.as_str()).send().await?;
    let checked = raw.network_interfaces().first().and_then(|eni| eni.source_dest_check());
    ensure!(checked == Some(false), "{checked:?}");
    Ok(())
}

async fn new_group(world: &World, name: &str) -> Checked<SecurityGroupId> {
    let create = world.raw.create_security_group().group_name(name).description("of a check").vpc_id(&world.vpc);
    Ok(create.send().await?.group_id().ok_or("no id")?.parse()?)
}

pub(super) async fn the_groups_of_a_detached_interface_can_be_changed(world: &World) -> Checked {
    let (eni, group) = (loose(world, "token-1").await?, new_group(world, "other").await?);
    world.ec2.modify_interface(&eni.id, &Change::SecurityGroups(vec![group.clone()])).await?;
    let groups = listed(world, &eni.id).await?.security_groups;
    ensure!(groups == [group], "{groups:?}");
    Ok(())
}

pub(super) async fn the_groups_of_an_attached_interface_can_be_changed(world: &World) -> Checked {
    let (eni, group) = (attached(world, "token-1", 1).await?, new_group(world, "other").await?);
    world.ec2.modify_interface(&eni.id, &Change::SecurityGroups(vec![group.clone()])).await?;
    let groups = listed(world, &eni.id).await?.security_groups;
    ensure!(groups == [group], "{groups:?}");
    Ok(())
}

pub(super) async fn an_interface_has_at_most_five_groups(world: &World) -> Checked {
    let mut groups = Vec::new();
    for number in 0..6 {
        groups.push(new_group(world, &format!("group-{number}")).await?);
    }
    let new = NewInterface { security_groups: groups, ..new_interface(world, "token-1", 0) };
    refused(LimitReached, world.ec2.create_interface(&new).await)
}

pub(super) async fn an_unknown_group_is_refused(world: &World) -> Checked {
    let new = NewInterface { security_groups: vec![nowhere("sg").parse()?], ..new_interface(world, "token-1", 0) };
    refused(NotFound, world.ec2.create_interface(&new).await)
}
