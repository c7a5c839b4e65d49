#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::net::Ipv4Addr;

use super::*;
use crate::{plan::tests::node, ports::Cidr4};

const NOON: Moment = Moment::from_millis(43_200_000);

fn id(name: &str) -> SubnetId {
    format!("subnet-{name}").parse().unwrap()
}

fn subnet(name: &str, available_addresses: u32, tags: &[(&str, &str)]) -> Subnet {
    let cidr = Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 20 };
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Subnet { id: id(name), cidr, available_addresses, tags }
}

/// The node lives in `subnet-1`.
fn candidates(known: Option<Vec<Subnet>>, cluster: &str) -> Vec<SubnetId> {
    let mut subnets = Subnets::new(1);
    subnets.described(NOON, known);
    subnets.candidates(&node(), &Policy { cluster: cluster.to_owned(), ..Policy::default() })
}

#[test]
fn tags_say_which_subnets_may_be_used_and_the_emptiest_is_first() {
    let of = |cluster: &str| format!("{TAG_CLUSTER_PREFIX}{cluster}");
    let known = vec![
        subnet("1", 100, &[]),
        subnet("2", 4000, &[(TAG_ROLE, "1")]),
        subnet("3", 9000, &[]),
        subnet("4", 9000, &[(TAG_ROLE, "0")]),
        subnet("5", 200, &[(TAG_ROLE, "1"), (&of("blue"), "")]),
        subnet("6", 8000, &[(TAG_ROLE, "1"), (&of("green"), "")]),
    ];
    assert_eq!(candidates(Some(known.clone()), "blue"), [id("2"), id("5"), id("1")]);
    assert_eq!(
        candidates(Some(known), ""),
        [id("6"), id("2"), id("5"), id("1")],
        "without a name every cluster is ours"
    );
    assert_eq!(candidates(Some(vec![subnet("1", 100, &[(TAG_ROLE, "0")])]), ""), []);
    assert_eq!(candidates(None, ""), [id("1")], "what EC2 does not describe is not closed");
}

#[test]
fn a_subnet_that_refuses_is_asked_for_half_and_rests_when_it_has_not_even_one() {
    let mut subnets = Subnets::new(1);
    let asked = |subnets: &Subnets| subnets.at_most(&id("1"), Amount::Addresses(14));
    for rest in [7, 3, 1] {
        let amount = asked(&subnets);
        subnets.refused(NOON, &id("1"), amount, RefusalClass::SubnetFull);
        assert_eq!(asked(&subnets), Amount::Addresses(rest));
        assert!(!subnets.is_full(&id("1"), NOON));
    }
    subnets.refused(NOON, &id("1"), Amount::Addresses(1), RefusalClass::SubnetFull);
    assert!(subnets.is_full(&id("1"), NOON));
    assert!(!subnets.is_full(&id("2"), NOON), "only that one");
    let end = subnets.ends().max().unwrap();
    assert!(!subnets.is_full(&id("1"), end));

    for more in [2, 4, 8, 14] {
        subnets.granted(&id("1"), asked(&subnets));
        assert_eq!(asked(&subnets), Amount::Addresses(more));
    }
}

#[test]
fn a_subnet_without_a_free_prefix_gives_single_addresses_until_it_gives_a_prefix() {
    let mut subnets = Subnets::new(1);
    subnets.refused(NOON, &id("1"), Amount::Prefixes(1), RefusalClass::NoPrefix);
    assert!(subnets.is_fragmented(&id("1"), NOON) && !subnets.is_full(&id("1"), NOON));
    let first = subnets.ends().max().unwrap();
    assert!(!subnets.is_fragmented(&id("1"), first) && subnets.was_fragmented(&id("1")));

    subnets.refused(first, &id("1"), Amount::Prefixes(1), RefusalClass::NoPrefix);
    let second = subnets.ends().max().unwrap();
    assert!(second.since(first) > first.since(NOON), "it is asked ever more seldom");
    subnets.granted(&id("1"), Amount::Prefixes(1));
    assert!(!subnets.was_fragmented(&id("1")));
}
