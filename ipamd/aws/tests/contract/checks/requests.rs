//! How requests are made: ids, dry runs, pages, filters, tags, budgets.

use aws_sdk_ec2::types::{AttributeValue, Filter, InstanceType, NetworkInterface, SubnetCidrReservationType, Tag};
use ipam_core::{
    EniId,
    ports::{Amount, Ec2, NewInterface, RefusalClass::NotFound},
};

use super::{attached, ensure, listed, loose, new_interface, nowhere, primary, refused, refused_with};
use crate::clouds::{Checked, World, run_instance_of};

pub(super) async fn what_does_not_exist_is_not_found(world: &World) -> Checked {
    let (ec2, nowhere) = (&world.ec2, "0123456789abcdef0");
    let eni: EniId = format!("eni-{nowhere}").parse()?;
    let made = ec2.create_interface(&new_interface(world, "token-1", 0)).await?;
    let elsewhere = NewInterface { subnet: format!("subnet-{nowhere}").parse()?, ..new_interface(world, "token-2", 0) };
    refused(NotFound, ec2.create_interface(&elsewhere).await)?;
    refused(NotFound, ec2.attach_interface(&eni, &world.instance, 0, 1).await)?;
    refused(NotFound, ec2.attach_interface(&made.id, &format!("i-{nowhere}").parse()?, 0, 1).await)?;
    refused(NotFound, ec2.assign(&eni, Amount::Addresses(1)).await)?;
    refused(NotFound, ec2.detach_interface(&format!("eni-attach-{nowhere}").parse()?).await)?;
    refused(NotFound, ec2.delete_interface(&eni).await)
}

pub(super) async fn a_long_list_comes_in_pages(world: &World) -> Checked {
    for number in 0..6 {
        world.ec2.create_interface(&new_interface(world, &format!("token-{number}"), 0)).await?;
    }
    let first = world.raw.describe_network_interfaces().max_results(5).send().await?;
    ensure!(first.network_interfaces().len() == 5, "{} on the first page", first.network_interfaces().len());
    let second = world.raw.describe_network_interfaces().max_results(5);
    let second = second.next_token(first.next_token().ok_or("no token")?).send().await?;
    ensure!(second.network_interfaces().len() == 2, "{} on the second page", second.network_interfaces().len());
    ensure!(second.next_token().is_none(), "and yet more");
    Ok(())
}

pub(super) async fn an_interface_id_that_is_none_is_malformed(world: &World) -> Checked {
    let delete = world.raw.delete_network_interface().network_interface_id("eni-x");
    refused_with("InvalidNetworkInterfaceId.Malformed", delete.send().await)
}

pub(super) async fn an_instance_id_that_is_none_is_malformed(world: &World) -> Checked {
    refused_with("InvalidInstanceID.Malformed", world.raw.terminate_instances().instance_ids("i-x").send().await)
}

pub(super) async fn an_attachment_id_that_is_none_is_malformed(world: &World) -> Checked {
    let detach = world.raw.detach_network_interface().attachment_id("eni-attach-x");
    refused_with("InvalidNetworkInterfaceAttachmentId.Malformed", detach.send().await)
}

const DRY_RUN: &str = "DryRunOperation";

pub(super) async fn a_dry_run_creates_nothing(world: &World) -> Checked {
    let create = world.raw.create_network_interface().subnet_id(world.subnet.as_str());
    refused_with(DRY_RUN, create.dry_run(true).send().await)?;
    let all = world.raw.describe_network_interfaces().send().await?;
    ensure!(all.network_interfaces().len() == 1, "{all:?}");
    Ok(())
}

pub(super) async fn a_dry_run_attaches_nothing(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let attach = world.raw.attach_network_interface().network_interface_id(eni.id.as_str());
    let attach = attach.instance_id(world.instance.as_str()).device_index(1);
    refused_with(DRY_RUN, attach.dry_run(true).send().await)?;
    ensure!(listed(world, &eni.id).await?.attachment.is_none(), "it is attached");
    Ok(())
}

pub(super) async fn a_dry_run_detaches_nothing(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let attachment = eni.attachment.as_ref().ok_or("not attached")?.id.to_string();
    refused_with(DRY_RUN, world.raw.detach_network_interface().attachment_id(attachment).dry_run(true).send().await)?;
    ensure!(listed(world, &eni.id).await? == eni, "it is detached");
    Ok(())
}

pub(super) async fn a_dry_run_deletes_nothing(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let delete = world.raw.delete_network_interface().network_interface_id(eni.id.as_str());
    refused_with(DRY_RUN, delete.dry_run(true).send().await)?;
    listed(world, &eni.id).await.map(drop)
}

pub(super) async fn a_dry_run_modifies_nothing(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let modify = world.raw.modify_network_interface_attribute().network_interface_id(eni.id.as_str());
    let modify = modify.description(AttributeValue::builder().value("new").build());
    refused_with(DRY_RUN, modify.dry_run(true).send().await)
}

pub(super) async fn a_dry_run_makes_no_network(world: &World) -> Checked {
    refused_with(DRY_RUN, world.raw.create_vpc().cidr_block("10.200.0.0/16").dry_run(true).send().await)
}

pub(super) async fn a_page_is_not_of_named_interfaces(world: &World) -> Checked {
    let id = primary(world).await?.id;
    let describe = world.raw.describe_network_interfaces().network_interface_ids(id.as_str()).max_results(5);
    refused_with("InvalidParameterCombination", describe.send().await)
}

pub(super) async fn a_token_of_nobody_is_refused(world: &World) -> Checked {
    let describe = world.raw.describe_network_interfaces().max_results(5).next_token("made up");
    refused_with("InvalidNextToken", describe.send().await)
}

/// The ENIs that filters find.
async fn found(world: &World, filters: &[(&str, &[&str])]) -> Checked<Vec<NetworkInterface>> {
    let filter = |(name, values): &(&str, &[&str])| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Filter::builder().name(*name).set_values(Some(values)).build()
    };
    let filters = filters.iter().map(filter).collect();
    let found = world.raw.describe_network_interfaces().set_filters(Some(filters)).send().await?;
    Ok(found.network_interfaces().to_vec())
}

fn is_only(found: &[NetworkInterface], wanted: &EniId) -> bool {
    found.len() == 1 && found.iter().all(|eni| eni.network_interface_id() == Some(wanted.as_str()))
}

pub(super) async fn interfaces_are_found_by_any_of_their_addresses(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    for address in [eni.primary, *eni.secondary.first().ok_or("no address")?] {
        let found = found(world, &[("addresses.private-ip-address", &[&address.to_string()])]).await?;
        ensure!(is_only(&found, &eni.id), "{address}: {found:?}");
    }
    Ok(())
}

pub(super) async fn interfaces_are_found_by_their_attachment(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let attachment = eni.attachment.as_ref().ok_or("not attached")?.id.to_string();
    let table = [("attachment.attachment-id", attachment.as_str()), ("attachment.device-index", "1")];
    for (name, value) in table {
        let found = found(world, &[(name, &[value])]).await?;
        ensure!(is_only(&found, &eni.id), "{name}: {found:?}");
    }
    ensure!(found(world, &[("attachment.status", &["attached"])]).await?.len() == 2, "by status");
    Ok(())
}

pub(super) async fn interfaces_are_found_by_wildcards(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let found = found(world, &[("description", &["made for i-*"])]).await?;
    ensure!(is_only(&found, &eni.id), "{found:?}");
    Ok(())
}

pub(super) async fn filters_add_up_and_their_values_are_alternatives(world: &World) -> Checked {
    let (one, other) = (loose(world, "token-1").await?, loose(world, "token-2").await?);
    let either: &[&str] = &[one.id.as_str(), other.id.as_str()];
    let found_both = found(world, &[("network-interface-id", either)]).await?;
    ensure!(found_both.len() == 2, "{found_both:?}");
    let found_one = found(world, &[("network-interface-id", either), ("mac-address", &[&one.mac.to_string()])]).await?;
    ensure!(is_only(&found_one, &one.id), "{found_one:?}");
    Ok(())
}

pub(super) async fn a_filter_that_does_not_exist_is_refused(world: &World) -> Checked {
    let filter = Filter::builder().name("colour").values("red").build();
    refused_with("InvalidParameterValue", world.raw.describe_network_interfaces().filters(filter).send().await)
}

fn tag(key: impl Into<String>, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build()
}

pub(super) async fn tags_are_set_overwritten_and_removed(world: &World) -> Checked {
    let eni = loose(world, "token-1").await?;
    let set = async |value| world.raw.create_tags().resources(eni.id.as_str()).tags(tag("colour", value)).send().await;
    set("red").await?;
    set("blue").await?;
    let now = listed(world, &eni.id).await?.tags;
    ensure!(now.get("colour").is_some_and(|value| value == "blue"), "{now:?}");
    world.raw.delete_tags().resources(eni.id.as_str()).tags(Tag::builder().key("colour").build()).send().await?;
    let now = listed(world, &eni.id).await?.tags;
    ensure!(now == eni.tags, "{now:?}");
    Ok(())
}

pub(super) async fn a_thing_has_at_most_fifty_tags(world: &World) -> Checked {
    let tags = (0..51).map(|number| tag(format!("key-{number}"), "x")).collect();
    let create = world.raw.create_tags().resources(world.subnet.as_str()).set_tags(Some(tags));
    refused_with("TagLimitExceeded", create.send().await)
}

pub(super) async fn what_is_tagged_must_exist(world: &World) -> Checked {
    let create = world.raw.create_tags().resources(nowhere("eni")).tags(tag("colour", "red"));
    refused_with("InvalidNetworkInterfaceID.NotFound", create.send().await)
}

pub(super) async fn tags_of_aws_are_reserved(world: &World) -> Checked {
    let create = world.raw.create_tags().resources(world.subnet.as_str()).tags(tag("aws:colour", "red"));
    refused_with("InvalidParameterValue", create.send().await)
}

pub(super) async fn too_many_requests_are_refused(world: &World) -> Checked {
    // The smallest budget that there is: five at once, then one a second.
    let reserve = async || {
        let reserve = world.raw.create_subnet_cidr_reservation().subnet_id(nowhere("subnet")).cidr(world.at("1.64/28"));
        reserve.reservation_type(SubnetCidrReservationType::Prefix).send().await
    };
    for _ in 0..30 {
        if refused_with("InvalidSubnetID.NotFound", reserve().await).is_err() {
            refused_with("RequestLimitExceeded", reserve().await)?;
            // Other actions have budgets of their own.
            return loose(world, "token-1").await.map(drop);
        }
    }
    Err("30 requests in a row were looked at".into())
}

pub(super) async fn describing_what_does_not_exist_is_refused(world: &World) -> Checked {
    let raw = &world.raw;
    let enis = raw.describe_network_interfaces().network_interface_ids(nowhere("eni")).send().await;
    refused_with("InvalidNetworkInterfaceID.NotFound", enis)?;
    let instances = raw.describe_instances().instance_ids(nowhere("i")).send().await;
    refused_with("InvalidInstanceID.NotFound", instances)?;
    refused_with("InvalidSubnetID.NotFound", raw.describe_subnets().subnet_ids(nowhere("subnet")).send().await)?;
    refused_with("InvalidVpcID.NotFound", raw.describe_vpcs().vpc_ids(nowhere("vpc")).send().await)?;
    refused_with("InvalidGroup.NotFound", raw.describe_security_groups().group_ids(nowhere("sg")).send().await)
}

pub(super) async fn changing_what_does_not_exist_is_refused(world: &World) -> Checked {
    let raw = &world.raw;
    let subnet = raw.create_subnet().vpc_id(nowhere("vpc")).cidr_block("10.200.0.0/24").send().await;
    refused_with("InvalidVpcID.NotFound", subnet)?;
    refused_with("InvalidInstanceID.NotFound", raw.terminate_instances().instance_ids(nowhere("i")).send().await)?;
    let modify = raw.modify_network_interface_attribute().network_interface_id(nowhere("eni"));
    let modify = modify.description(AttributeValue::builder().value("new").build()).send().await;
    refused_with("InvalidNetworkInterfaceID.NotFound", modify)?;
    let unassign = raw.unassign_private_ip_addresses().network_interface_id(nowhere("eni"));
    let unassign = unassign.private_ip_addresses("10.0.1.9").send().await;
    refused_with("InvalidNetworkInterfaceID.NotFound", unassign)?;
    refused_with("InvalidSubnetID.NotFound", raw.delete_subnet().subnet_id(nowhere("subnet")).send().await)?;
    refused_with("InvalidVpcID.NotFound", raw.delete_vpc().vpc_id(nowhere("vpc")).send().await)
}

pub(super) async fn an_interface_needs_a_subnet(world: &World) -> Checked {
    refused_with("MissingParameter", world.raw.create_network_interface().send().await)
}

pub(super) async fn instances_are_found_by_wildcards(world: &World) -> Checked {
    let other = run_instance_of(&world.raw, &world.subnet, InstanceType::M5Large).await?;
    let filter = Filter::builder().name("instance-type").values("m5.l*").build();
    let found = world.raw.describe_instances().filters(filter).send().await?;
    let ids: Vec<_> =
        found.reservations().iter().flat_map(|one| one.instances()).map(|one| one.instance_id()).collect();
    ensure!(ids == [Some(other.as_str())], "{ids:?} instead of {other}");
    Ok(())
}
