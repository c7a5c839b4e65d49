//! Instances and their types.

use aws_sdk_ec2::{
    operation::run_instances::builders::RunInstancesFluentBuilder,
    types::{
        Filter, InstanceNetworkInterfaceSpecification, InstanceType, NetworkInterface, ResourceType, Tag,
        TagSpecification,
    },
};
use ipam_core::{
    Limits,
    ports::{Ec2, RefusalClass::BadRequest},
};

use super::{attached, ensure, primary, refused, refused_with};
use crate::clouds::{Checked, INSTANCE_TYPE, World, run_instance, until};

pub(super) async fn the_primary_interface_goes_with_its_instance(world: &World) -> Checked {
    let primary = primary(world).await?;
    ensure!(primary.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination), "{primary:?}");
    Ok(())
}

pub(super) async fn an_instance_type_has_the_limits_of_our_table(world: &World) -> Checked {
    for name in ["m5.xlarge", "t3.small", "m4.large", "p4d.24xlarge", "m5.metal"] {
        let told = world.ec2.limits(name).await?;
        ensure!(Some(told) == Limits::of(name), "{name}: {told:?}");
    }
    refused(BadRequest, world.ec2.limits("m99.huge").await)
}

/// The raw description of an ENI. Absent: it is gone.
async fn described(world: &World, id: &str) -> Checked<Option<NetworkInterface>> {
    let filter = Filter::builder().name("network-interface-id").values(id).build();
    let found = world.raw.describe_network_interfaces().filters(filter).send().await?;
    Ok(found.network_interfaces().first().cloned())
}

pub(super) async fn an_interface_outlives_its_instance_unless_told(world: &World) -> Checked {
    let (eni, primary) = (attached(world, "token-1", 1).await?, primary(world).await?);
    world.raw.terminate_instances().instance_ids(world.instance.as_str()).send().await?;
    until("available", async || {
        let left = described(world, eni.id.as_str()).await?.ok_or("it went with the instance")?;
        Ok(left.attachment().is_none().then_some(()))
    })
    .await?;
    ensure!(described(world, primary.id.as_str()).await?.is_none(), "the primary interface is left");
    Ok(())
}

fn run(world: &World) -> RunInstancesFluentBuilder {
    world.raw.run_instances().image_id("ami-12345678").instance_type(INSTANCE_TYPE).min_count(1).max_count(1)
}

fn with_addresses(world: &World, count: i32) -> RunInstancesFluentBuilder {
    let interface = InstanceNetworkInterfaceSpecification::builder().device_index(0).subnet_id(world.subnet.as_str());
    run(world).network_interfaces(interface.secondary_private_ip_address_count(count).build())
}

pub(super) async fn a_launch_can_ask_for_addresses(world: &World) -> Checked {
    let made = with_addresses(world, 4).send().await?;
    let eni = made.instances().first().and_then(|instance| instance.network_interfaces().first()).ok_or("no ENI")?;
    ensure!(eni.private_ip_addresses().len() == 5, "{eni:?}");
    Ok(())
}

pub(super) async fn a_launch_asks_for_no_more_than_the_type_carries(world: &World) -> Checked {
    refused_with("InvalidInterface.IpAddressLimitExceeded", with_addresses(world, 15).send().await)
}

pub(super) async fn a_launch_tags_its_interfaces(world: &World) -> Checked {
    let tags = TagSpecification::builder().resource_type(ResourceType::NetworkInterface);
    let tags = tags.tags(Tag::builder().key("owner").value("a check").build()).build();
    let made = run(world).subnet_id(world.subnet.as_str()).tag_specifications(tags).send().await?;
    let eni = made.instances().first().and_then(|instance| instance.network_interfaces().first()).ok_or("no ENI")?;
    let eni = described(world, eni.network_interface_id().unwrap_or_default()).await?.ok_or("gone")?;
    ensure!(eni.tag_set().iter().any(|tag| tag.key() == Some("owner")), "{eni:?}");
    Ok(())
}

pub(super) async fn the_same_token_launches_once(world: &World) -> Checked {
    let run = || run(world).subnet_id(world.subnet.as_str()).client_token("launch-1").send();
    let (one, other) = (run().await?, run().await?);
    let id = |made: &aws_sdk_ec2::operation::run_instances::RunInstancesOutput| {
        made.instances().first().and_then(|instance| instance.instance_id()).map(str::to_owned)
    };
    ensure!(id(&one) == id(&other), "{:?} and {:?}", id(&one), id(&other));
    Ok(())
}

pub(super) async fn an_unknown_type_is_not_launched(world: &World) -> Checked {
    let launch = run(world).instance_type(InstanceType::from("m99.huge")).subnet_id(world.subnet.as_str());
    refused_with("InvalidParameterValue", launch.send().await)
}

pub(super) async fn instance_types_come_in_pages(world: &World) -> Checked {
    let filter = Filter::builder().name("instance-type").values("m5.*").build();
    let page = world.raw.describe_instance_types().filters(filter).max_results(5).send().await?;
    let names: Vec<_> = page.instance_types().iter().filter_map(|found| found.instance_type()).collect();
    ensure!(names.len() == 5 && page.next_token().is_some(), "{names:?}");
    ensure!(names.iter().all(|name| name.as_str().starts_with("m5.")), "{names:?}");
    Ok(())
}

pub(super) async fn instances_come_in_pages(world: &World) -> Checked {
    for _ in 0..5 {
        run_instance(&world.raw, &world.subnet).await?;
    }
    let first = world.raw.describe_instances().max_results(5).send().await?;
    let second = world.raw.describe_instances().max_results(5).next_token(first.next_token().ok_or("no token")?);
    let second = second.send().await?;
    ensure!((first.reservations().len(), second.reservations().len()) == (5, 1), "{first:?}, {second:?}");
    ensure!(second.next_token().is_none(), "and yet more");
    Ok(())
}
