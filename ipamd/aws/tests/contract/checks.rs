//! What EC2 does according to its documentation, as far as we rely on it.

mod addresses;
mod instances;
mod interfaces;
mod ipv6;
mod networks;
mod prefixes;
mod requests;

use std::{fmt::Debug, future::Future, net::Ipv4Addr, pin::Pin};

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    EniId, InstanceId,
    ports::{Amount, Ec2, Ec2Error, Ec2Result, Holdings, Interface, NewInterface, RefusalClass, Scope, Subnet},
};

use crate::clouds::{Checked, World, until};

/// Zone of the subnets: both stand-ins take the region's first.
const ZONE: &str = "us-east-1a";

/// One thing that EC2 does.
pub(crate) struct Check {
    /// What it is about: the file that it is in.
    pub(crate) subject: &'static str,
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
    ($($subject:ident { $($name:ident: $on_localstack:expr,)* })*) => {
        &[$($(Check {
            subject: stringify!($subject),
            name: stringify!($name),
            run: |world| Box::pin($subject::$name(world)),
            on_localstack: $on_localstack,
        },)*)*]
    };
}

const NO_TOKENS: &str = "client tokens are ignored: a second one is made";
const NO_LIMITS: &str = "the limits of instance types are not kept";
const NO_PREFIXES: &str = "prefixes are ignored, and nobody says so";
const ANY_ADDRESS: &str = "an address that is asked for by name is given, whatever it is";
const NO_SYNTAX: &str = "ids are not looked at: one that is no id is `NotFound`";

/// LocalStack 4.13.1. Its addresses are unique only because `setup.sh` patches it: as it comes, it draws them at random
/// without a look at those in use, the reserved ones included, and its MAC addresses are malformed.
#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = checks![
    interfaces {
        a_new_interface_is_as_asked:                               Same,
        the_same_token_makes_one_interface:                        Wrong(NO_TOKENS),
        a_token_stands_for_one_request:                            Wrong(NO_TOKENS),
        the_primary_interface_is_listed:                           Same,
        an_attached_interface_is_listed_where_it_was_put:          Same,
        an_interface_can_be_made_to_go_with_its_instance:          Wrong("DeleteOnTermination cannot be set, and nobody says so"),
        a_device_index_is_taken_once:                              Wrong("both interfaces are then attached at the same index"),
        an_interface_is_attached_once:                             Wrong("it is attached a second time"),
        an_instance_has_a_limit_of_interfaces:                     Wrong(NO_LIMITS),
        a_card_that_is_not_there_carries_nothing:                  Wrong("the network card is ignored"),
        an_interface_stays_in_its_zone:                            Wrong("it is attached across zones"),
        a_terminated_instance_gets_no_interface:                   Wrong("it is attached to the dead"),
        a_detached_interface_can_be_deleted_and_is_gone:           Same,
        an_attached_interface_cannot_be_deleted:                   Wrong("it is deleted under the instance"),
        the_primary_interface_cannot_be_detached:                  Same,
        only_interfaces_of_the_node_are_listed:                    Same,
        macs_are_hardware_addresses_and_unique:                    Same,
        an_interface_is_of_the_type_it_was_made_as:                Wrong("InterfaceType is ignored"),
        one_attribute_is_changed_at_a_time:                        Wrong("several are taken at once"),
        the_description_can_be_changed:                            Same,
        the_source_check_can_be_turned_off:                        Same,
        the_groups_of_a_detached_interface_can_be_changed:         Same,
        the_groups_of_an_attached_interface_can_be_changed:        Same,
        an_interface_has_at_most_five_groups:                      Wrong("any number is taken"),
        an_unknown_group_is_refused:                               Wrong("it is made on the spot, under that id"),
    }
    addresses {
        assigned_addresses_are_added:                              Same,
        the_answer_lists_only_what_is_new:                         Wrong("it lists all addresses, the primary included"),
        no_address_is_given_twice_nor_a_reserved_one:              Same,
        an_interface_has_a_limit_of_addresses:                     Wrong(NO_LIMITS),
        unassigned_addresses_are_gone:                             Same,
        an_address_that_is_not_there_cannot_be_unassigned:         Wrong("it is taken as done"),
        the_primary_address_cannot_be_unassigned:                  Wrong("it is unassigned"),
        a_new_interface_can_name_its_addresses:                    Same,
        an_address_in_use_is_not_given_to_a_new_interface:         Wrong(ANY_ADDRESS),
        an_address_outside_of_the_subnet_is_refused:               Wrong(ANY_ADDRESS),
        an_address_that_ec2_keeps_is_refused:                      Wrong(ANY_ADDRESS),
        an_address_of_another_interface_is_refused:                Wrong(ANY_ADDRESS),
        an_address_moves_when_that_is_allowed:                     Wrong("it is then on both interfaces"),
        names_and_a_number_exclude_each_other:                     Wrong("both are taken"),
        nothing_cannot_be_assigned:                                Wrong("it is taken as done"),
    }
    prefixes {
        prefixes_can_be_had_at_creation:                           Wrong(NO_PREFIXES),
        prefixes_can_be_assigned_and_unassigned:                   Wrong(NO_PREFIXES),
        a_prefix_takes_one_place_of_the_limit:                     Wrong(NO_PREFIXES),
        a_prefix_costs_the_subnet_sixteen_addresses:               Wrong(NO_PREFIXES),
        a_subnet_without_a_free_block_says_so:                     Wrong(NO_PREFIXES),
        a_prefix_can_be_asked_for_by_name:                         Wrong(NO_PREFIXES),
        prefixes_and_addresses_are_not_asked_for_together:         Wrong(NO_PREFIXES),
        prefixes_come_from_what_is_reserved_for_them:              Wrong(NO_PREFIXES),
        a_reservation_is_not_counted_as_free:                      Same,
        a_xen_instance_has_no_prefixes:                            Wrong(NO_PREFIXES),
    }
    networks {
        a_subnet_counts_its_free_addresses:                        Same,
        a_full_subnet_says_so:                                     Wrong("addresses are given out twice instead"),
        a_subnet_is_found_by_its_tags:                             Same,
        a_subnet_is_found_by_wildcards:                            Same,
        only_subnets_of_the_zone_are_listed:                       Same,
        a_subnet_is_no_smaller_than_a_28:                          Wrong("a /29 is made"),
        a_subnet_lies_in_its_vpc:                                  Same,
        subnets_do_not_overlap:                                    Same,
        a_vpc_is_no_larger_than_a_16:                              Same,
        a_group_name_is_taken_once:                                Same,
        a_vpc_takes_another_range:                                 Same,
        the_first_range_of_a_vpc_stays:                            Same,
        a_subnet_with_interfaces_is_not_deleted:                   Wrong("it is deleted under them"),
        an_empty_subnet_can_be_deleted:                            Same,
        a_subnet_lies_in_a_zone_of_the_region:                     Same,
        a_network_is_written_as_one:                               Wrong("one without a length is taken for a /32"),
        a_group_of_another_vpc_is_refused:                         Wrong("it is taken"),
        a_group_in_use_is_not_deleted:                             Wrong("it is deleted under its interfaces"),
    }
    ipv6 {
        ipv6_addresses_can_be_assigned_and_unassigned:             Same,
        the_answer_lists_only_new_ipv6_addresses:                  Wrong("it lists all addresses"),
        ipv6_prefixes_can_be_assigned:                             Wrong(NO_PREFIXES),
        a_subnet_without_ipv6_gives_none:                          Wrong("500: a list index out of range"),
        an_ipv6_address_that_is_not_there_cannot_be_unassigned:    Wrong("it is taken as done"),
    }
    instances {
        the_primary_interface_goes_with_its_instance:              Wrong("DeleteOnTermination of interfaces made at launch is false"),
        an_interface_outlives_its_instance_unless_told:            Wrong("it stays in use by the dead instance"),
        a_launch_can_ask_for_addresses:                            Wrong("SecondaryPrivateIpAddressCount is ignored"),
        a_launch_asks_for_no_more_than_the_type_carries:           Wrong("SecondaryPrivateIpAddressCount is ignored"),
        a_launch_tags_its_interfaces:                              Wrong("tags of network interfaces are dropped"),
        the_same_token_launches_once:                              Wrong(NO_TOKENS),
        an_unknown_type_is_not_launched:                           Wrong("it is launched"),
        an_instance_type_has_the_limits_of_our_table:              Same,
        instance_types_come_in_pages:                              Wrong("MaxResults is ignored: everything comes at once"),
        instances_come_in_pages:                                   Same,
    }
    requests {
        what_does_not_exist_is_not_found:                          Same,
        describing_what_does_not_exist_is_refused:                 Same,
        changing_what_does_not_exist_is_refused:                   Same,
        an_interface_needs_a_subnet:                               Wrong("`NotFound`, as if an empty id had been given"),
        instances_are_found_by_wildcards:                          Wrong("`*` is taken literally"),
        an_interface_id_that_is_none_is_malformed:                 Wrong(NO_SYNTAX),
        an_instance_id_that_is_none_is_malformed:                  Wrong(NO_SYNTAX),
        an_attachment_id_that_is_none_is_malformed:                Wrong(NO_SYNTAX),
        a_dry_run_creates_nothing:                                 Same,
        a_dry_run_attaches_nothing:                                Same,
        a_dry_run_detaches_nothing:                                Same,
        a_dry_run_deletes_nothing:                                 Same,
        a_dry_run_modifies_nothing:                                Same,
        a_dry_run_makes_no_network:                                Wrong("it is made"),
        a_long_list_comes_in_pages:                                Wrong("MaxResults is ignored: everything comes at once"),
        a_page_is_not_of_named_interfaces:                         Wrong("MaxResults is ignored: everything comes at once"),
        a_token_of_nobody_is_refused:                              Wrong("NextToken is ignored"),
        interfaces_are_found_by_any_of_their_addresses:            Wrong("only the primary address is looked at"),
        interfaces_are_found_by_their_attachment:                  Wrong("501: the filter is not implemented"),
        interfaces_are_found_by_wildcards:                         Same,
        filters_add_up_and_their_values_are_alternatives:          Same,
        a_filter_that_does_not_exist_is_refused:                   Wrong("501: the filter is not implemented"),
        tags_are_set_overwritten_and_removed:                      Same,
        a_thing_has_at_most_fifty_tags:                            Same,
        what_is_tagged_must_exist:                                 Wrong("it is taken as done"),
        tags_of_aws_are_reserved:                                  Wrong("they are set"),
        too_many_requests_are_refused:                             Wrong("there are no budgets"),
    }
];

macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(format!($($text)+).into());
        }
    };
}
use ensure;

fn new_interface(world: &World, token: &str, secondary_count: u16) -> NewInterface {
    NewInterface {
        prefix6: false,
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

/// Fails unless EC2 has refused with this code.
fn refused_with<T: Debug, E: ProvideErrorMetadata>(wanted: &str, outcome: Result<T, SdkError<E>>) -> Checked {
    match outcome {
        Err(error) if error.code() == Some(wanted) => Ok(()),
        Err(error) => Err(format!("{} instead of {wanted}", error.code().unwrap_or("no code")).into()),
        Ok(answer) => Err(format!("{answer:?} instead of {wanted}").into()),
    }
}

/// An ENI with two secondary addresses that is attached to nothing.
async fn loose(world: &World, token: &str) -> Checked<Interface> {
    Ok(world.ec2.create_interface(&new_interface(world, token, 2)).await?)
}

/// An id of this kind that nothing has.
fn nowhere(kind: &str) -> String {
    format!("{kind}-0123456789abcdef0")
}
