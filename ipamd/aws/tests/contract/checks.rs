//! What EC2 does according to its documentation, as far as we rely on it.

use std::{collections::BTreeSet, fmt::Debug, future::Future, net::Ipv4Addr, pin::Pin};

use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    EniId, InstanceId, Limits,
    ports::{
        Amount, Change, Cidr4, Ec2, Ec2Error, Ec2Result, Holdings, Interface, NewInterface,
        RefusalClass::{self, BadRequest, LimitReached, NotFound, SubnetFull, WrongState},
        Scope, Subnet,
    },
};

use crate::clouds::{Checked, World, ZONE, make_subnet, run_instance, until};

/// One thing that EC2 does.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: for<'a> fn(&'a World) -> Pin<Box<dyn Future<Output = Checked> + 'a>>,
    pub(crate) on_localstack: OnLocalStack,
}

/// Whether LocalStack does it too.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnLocalStack {
    Same,
    /// What it does instead.
    Wrong(&'static str),
}

use OnLocalStack::{Same, Wrong};

macro_rules! checks {
    ($($name:ident: $on_localstack:expr,)*) => {
        &[$(Check { name: stringify!($name), run: |world| Box::pin($name(world)), on_localstack: $on_localstack },)*]
    };
}

/// LocalStack 4.13.1. Its addresses are unique only because `setup.sh` patches it: as it comes, it draws them at random
/// without a look at those in use, the reserved ones included, and its MAC addresses are malformed.
#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = checks![
    a_new_interface_is_as_asked:                               Same,
    the_same_token_makes_one_interface:                        Wrong("client tokens are ignored: a second interface is made"),
    a_token_stands_for_one_request:                            Wrong("client tokens are ignored: a second interface is made"),
    the_primary_interface_is_listed:                           Same,
    the_primary_interface_goes_with_its_instance:              Wrong("DeleteOnTermination of interfaces made at launch is false"),
    an_attached_interface_is_listed_where_it_was_put:          Same,
    an_interface_can_be_made_to_go_with_its_instance:          Wrong("DeleteOnTermination cannot be set, and nobody says so"),
    a_device_index_is_taken_once:                              Wrong("both interfaces are then attached at the same index"),
    an_interface_is_attached_once:                             Wrong("it is attached a second time"),
    an_instance_has_a_limit_of_interfaces:                     Wrong("the limits of instance types are not kept"),
    assigned_addresses_are_added:                              Same,
    no_address_is_given_twice_nor_a_reserved_one:              Same,
    an_interface_has_a_limit_of_addresses:                     Wrong("the limits of instance types are not kept"),
    unassigned_addresses_are_gone:                             Same,
    an_address_that_is_not_there_cannot_be_unassigned:         Wrong("it is taken as done"),
    the_primary_address_cannot_be_unassigned:                  Wrong("it is unassigned"),
    a_detached_interface_can_be_deleted_and_is_gone:           Same,
    an_attached_interface_cannot_be_deleted:                   Wrong("it is deleted under the instance"),
    the_primary_interface_cannot_be_detached:                  Same,
    what_does_not_exist_is_not_found:                          Same,
    only_interfaces_of_the_node_are_listed:                    Same,
    a_subnet_counts_its_free_addresses:                        Same,
    a_full_subnet_says_so:                                     Wrong("addresses are given out twice instead"),
    an_instance_type_has_the_limits_of_our_table:              Same,
    a_long_list_comes_in_pages:                                Wrong("MaxResults is ignored: everything comes at once"),
];

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}

fn new_interface(world: &World, token: &str, secondary_count: u16) -> NewInterface {
    NewInterface {
        token: token.to_owned(),
        subnet: world.subnet.clone(),
        security_groups: vec![world.group.clone()],
        amount: Amount::Addresses(secondary_count),
        description: format!("made for {}", world.instance),
        tags: [(TAG_INSTANCE.to_owned(), world.instance.to_string())].into(),
    }
}

/// All ENIs of an instance, each once.
async fn interfaces(world: &World, instance: &InstanceId) -> Checked<Vec<Interface>> {
    let mut all = world.ec2.interfaces(instance, Scope::Attached).await?;
    let tagged = world.ec2.interfaces(instance, Scope::Tagged).await?;
    all.extend(tagged);
    all.sort_by(|one, other| one.id.cmp(&other.id));
    all.dedup_by(|one, other| one.id == other.id);
    Ok(all)
}

async fn subnet(world: &World) -> Checked<Subnet> {
    let all = world.ec2.subnets(&world.vpc.parse()?, ZONE).await?;
    Ok(all.iter().find(|subnet| subnet.id == world.subnet).ok_or_else(|| format!("not in {all:?}"))?.clone())
}

async fn listed(world: &World, eni: &EniId) -> Checked<Interface> {
    let all = interfaces(world, &world.instance).await?;
    Ok(all.iter().find(|interface| interface.id == *eni).ok_or_else(|| format!("{eni} is not in {all:?}"))?.clone())
}

async fn primary(world: &World) -> Checked<Interface> {
    let all = interfaces(world, &world.instance).await?;
    let primary = all.iter().find(|eni| eni.attachment.as_ref().is_some_and(|attachment| attachment.device_index == 0));
    Ok(primary.ok_or_else(|| format!("no primary interface in {all:?}"))?.clone())
}

/// Makes an ENI and attaches it; returns when it is `attached`.
async fn attached(world: &World, token: &str, device_index: u8) -> Checked<Interface> {
    let eni = world.ec2.create_interface(&new_interface(world, token, 2)).await?;
    let attachment = world.ec2.attach_interface(&eni.id, &world.instance, 0, device_index).await?;
    until("attached", async || {
        let eni = listed(world, &eni.id).await?;
        let done = eni.attachment.as_ref().is_some_and(|now| now.attached && now.id == attachment);
        Ok(done.then_some(eni))
    })
    .await
}

fn addresses(one: Ipv4Addr) -> Holdings {
    Holdings { addresses: vec![one], ..Holdings::default() }
}

fn refused<T: Debug>(wanted: RefusalClass, outcome: Ec2Result<T>) -> Checked {
    match outcome {
        Err(Ec2Error::Refused { class, .. }) if class == wanted => Ok(()),
        other => Err(format!("{other:?} is not a refusal of class {wanted:?}").into()),
    }
}

async fn a_new_interface_is_as_asked(world: &World) -> Checked {
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

async fn the_same_token_makes_one_interface(world: &World) -> Checked {
    let wanted = new_interface(world, "token-1", 1);
    let (first, second) = (world.ec2.create_interface(&wanted).await?, world.ec2.create_interface(&wanted).await?);
    ensure!(first.id == second.id, "{} and {}", first.id, second.id);
    Ok(())
}

async fn a_token_stands_for_one_request(world: &World) -> Checked {
    world.ec2.create_interface(&new_interface(world, "token-1", 1)).await?;
    refused(BadRequest, world.ec2.create_interface(&new_interface(world, "token-1", 2)).await)
}

async fn the_primary_interface_is_listed(world: &World) -> Checked {
    let primary = primary(world).await?;
    let attachment = primary.attachment.clone().ok_or("not attached")?;
    ensure!(attachment.instance == world.instance && attachment.card == 0 && attachment.attached, "{primary:?}");
    ensure!(primary.subnet == world.subnet && primary.secondary.is_empty(), "{primary:?}");
    Ok(())
}

async fn the_primary_interface_goes_with_its_instance(world: &World) -> Checked {
    let primary = primary(world).await?;
    ensure!(primary.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination), "{primary:?}");
    Ok(())
}

async fn an_attached_interface_is_listed_where_it_was_put(world: &World) -> Checked {
    let eni = attached(world, "token-1", 2).await?;
    let attachment = eni.attachment.clone().ok_or("not attached")?;
    ensure!(attachment.instance == world.instance, "{eni:?}");
    ensure!((attachment.card, attachment.device_index, attachment.delete_on_termination) == (0, 2, false), "{eni:?}");
    Ok(())
}

async fn an_interface_can_be_made_to_go_with_its_instance(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    let attachment = eni.attachment.ok_or("not attached")?;
    world.ec2.modify_interface(&eni.id, &Change::DeleteOnTermination(attachment.id.clone())).await?;
    let eni = listed(world, &eni.id).await?;
    ensure!(eni.attachment.as_ref().is_some_and(|attachment| attachment.delete_on_termination), "{eni:?}");
    Ok(())
}

async fn a_device_index_is_taken_once(world: &World) -> Checked {
    attached(world, "token-1", 1).await?;
    let second = world.ec2.create_interface(&new_interface(world, "token-2", 0)).await?;
    refused(WrongState, world.ec2.attach_interface(&second.id, &world.instance, 0, 1).await)
}

async fn an_interface_is_attached_once(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(WrongState, world.ec2.attach_interface(&eni.id, &world.instance, 0, 2).await)
}

async fn an_instance_has_a_limit_of_interfaces(world: &World) -> Checked {
    for index in 1..=3 {
        attached(world, &format!("token-{index}"), index).await?;
    }
    let fifth = world.ec2.create_interface(&new_interface(world, "token-4", 0)).await?;
    refused(LimitReached, world.ec2.attach_interface(&fifth.id, &world.instance, 0, 4).await)
}

async fn assigned_addresses_are_added(world: &World) -> Checked {
    let before = attached(world, "token-1", 1).await?;
    world.ec2.assign(&before.id, Amount::Addresses(4)).await?;
    let after = listed(world, &before.id).await?;
    ensure!(after.secondary.len() == 6, "{after:?}");
    ensure!(before.secondary.iter().all(|address| after.secondary.contains(address)), "{before:?}, then {after:?}");
    ensure!(after.secondary.iter().all(|address| address.octets()[..3] == [10, 0, 1]), "{after:?}");
    Ok(())
}

async fn no_address_is_given_twice_nor_a_reserved_one(world: &World) -> Checked {
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

async fn an_interface_has_a_limit_of_addresses(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(LimitReached, world.ec2.assign(&eni.id, Amount::Addresses(13)).await)?;
    let after = listed(world, &eni.id).await?;
    ensure!(after.secondary == eni.secondary, "refused, and yet changed: {after:?}");
    Ok(())
}

async fn unassigned_addresses_are_gone(world: &World) -> Checked {
    let mut eni = attached(world, "token-1", 1).await?;
    let gone = eni.secondary.pop().ok_or("no address")?;
    world.ec2.unassign(&eni.id, &addresses(gone)).await?;
    let after = listed(world, &eni.id).await?;
    ensure!(after.secondary == eni.secondary, "{gone} of {eni:?}, then {after:?}");
    Ok(())
}

async fn an_address_that_is_not_there_cannot_be_unassigned(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(BadRequest, world.ec2.unassign(&eni.id, &addresses(Ipv4Addr::new(10, 0, 1, 254))).await)
}

async fn the_primary_address_cannot_be_unassigned(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(BadRequest, world.ec2.unassign(&eni.id, &addresses(eni.primary)).await)
}

async fn a_detached_interface_can_be_deleted_and_is_gone(world: &World) -> Checked {
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

async fn an_attached_interface_cannot_be_deleted(world: &World) -> Checked {
    let eni = attached(world, "token-1", 1).await?;
    refused(WrongState, world.ec2.delete_interface(&eni.id).await)
}

async fn the_primary_interface_cannot_be_detached(world: &World) -> Checked {
    let attachment = primary(world).await?.attachment.ok_or("not attached")?;
    refused(WrongState, world.ec2.detach_interface(&attachment.id).await)
}

async fn what_does_not_exist_is_not_found(world: &World) -> Checked {
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

async fn only_interfaces_of_the_node_are_listed(world: &World) -> Checked {
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

async fn a_subnet_counts_its_free_addresses(world: &World) -> Checked {
    let before = subnet(world).await?;
    let cidr = Cidr4 { network: Ipv4Addr::new(10, 0, 1, 0), prefix: 24 };
    ensure!((before.cidr, before.available_addresses) == (cidr, 250), "{before:?}");
    world.ec2.create_interface(&new_interface(world, "token-1", 4)).await?;
    let after = subnet(world).await?;
    ensure!(after.available_addresses == 245, "{after:?}");
    Ok(())
}

async fn a_full_subnet_says_so(world: &World) -> Checked {
    // 16 addresses, of which EC2 keeps 5.
    let subnet = make_subnet(&world.raw, &world.vpc, "10.0.2.0/28").await?;
    let new = |token: &str, count| NewInterface { subnet: subnet.clone(), ..new_interface(world, token, count) };
    let eni = world.ec2.create_interface(&new("token-1", 8)).await?;
    refused(SubnetFull, world.ec2.create_interface(&new("token-2", 2)).await)?;
    refused(SubnetFull, world.ec2.assign(&eni.id, Amount::Addresses(3)).await)?;
    world.ec2.assign(&eni.id, Amount::Addresses(2)).await?;
    refused(SubnetFull, world.ec2.create_interface(&new("token-3", 0)).await)
}

async fn an_instance_type_has_the_limits_of_our_table(world: &World) -> Checked {
    for name in ["m5.xlarge", "t3.small", "m4.large", "p4d.24xlarge", "m5.metal"] {
        let told = world.ec2.limits(name).await?;
        ensure!(Some(told) == Limits::of(name), "{name}: {told:?}");
    }
    refused(BadRequest, world.ec2.limits("m99.huge").await)
}

async fn a_long_list_comes_in_pages(world: &World) -> Checked {
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
