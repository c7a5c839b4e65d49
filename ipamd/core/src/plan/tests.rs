#![allow(clippy::wildcard_enum_match_arm, clippy::type_complexity, reason = "a test picks out what it is about")]

use std::{collections::BTreeMap, net::Ipv4Addr};

use eni_proto::{EniMark, Pod, PodKey, numbers};

use super::*;
use crate::{
    Lease,
    ports::{Attachment, Cidr4, Interface, InterfaceKind},
};

const LIMITS: Limits =
    Limits { max_enis: 3, addresses_per_eni: 10, prefixes: true, other_cards: [0; crate::policy::MAX_CARDS] };

/// A node as the tests describe it: for each ENI how many addresses it has and how many of them pods hold.
fn pool(enis: &[(u8, u8)]) -> Pool {
    let mut pool = Pool::default();
    for (device, (count, held)) in (0_u8..).zip(enis) {
        let address = |n: u8| Ipv4Addr::new(10, 0, device, 10 + n);
        let id: EniId = format!("eni-{device}").parse().unwrap();
        let attachment = Attachment {
            id: format!("eni-attach-{device}").parse().unwrap(),
            instance: "i-1".parse().unwrap(),
            device_index: device,
            card: 0,
            attached: true,
            delete_on_termination: true,
        };
        let interface = Interface {
            id: id.clone(),
            mac: crate::MacAddress([2, 0, 0, 0, 0, device]),
            subnet: "subnet-1".parse().unwrap(),
            primary: address(200),
            secondary: (0..*count).map(address).collect(),
            prefixes: vec![],
            prefixes6: vec![],
            kind: InterfaceKind::Plain,
            security_groups: vec![],
            attachment: Some(attachment),
            tags: BTreeMap::from([(numbers::TAG_INSTANCE.to_owned(), "i-1".to_owned())]),
        };
        let epoch = Moment::default();
        pool.insert(Eni {
            interface,
            phase: Phase::Ready,
            since: epoch,
            changed_at: epoch,
            described_at: None,
            disputed: 0,
            unlisted_since: None,
            meant_for: 0,
        });
        for n in 0..*held {
            pool.hold(Lease {
                key: PodKey::new("n", &format!("c{device}-{n}"), "eth0").unwrap(),
                pod: Pod::default(),
                netns: String::new(),
                addresses: address(n).into(),
                eni: id.clone(),
                eni_mark: EniMark::of_device(device),
                since: epoch,
            });
        }
    }
    pool
}

pub(crate) fn node() -> NodeIdentity {
    NodeIdentity {
        instance: "i-1".parse().unwrap(),
        instance_type: "m5.large".to_owned(),
        region: "eu-central-1".to_owned(),
        primary_mac: crate::MacAddress([2, 0, 0, 0, 0, 0]),
        primary_eni: "eni-0".parse().unwrap(),
        subnet: "subnet-1".parse().unwrap(),
        subnet_cidr: Cidr4 { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 16 },
        zone: "eu-central-1a".to_owned(),
        vpc: "vpc-1".parse().unwrap(),
        vpc_cidrs: vec![],
        security_groups: vec![],
    }
}

fn policy(warm_enis: u8, warm: u16, minimum: u16) -> Policy {
    Policy {
        warm_enis,
        warm_addresses: warm,
        minimum_addresses: minimum,
        placement: Placement::NodeSubnet,
        ..Policy::default()
    }
}

/// The plan as text, one action a line.
fn planned(policy: &Policy, pool: &Pool, demand: usize) -> Vec<String> {
    plan_on(&node(), policy, pool, demand).actions.iter().map(describe).collect()
}

fn plan_on(node: &NodeIdentity, policy: &Policy, pool: &Pool, demand: usize) -> Plan {
    let in_flight = InFlight::default();
    let now = Moment::from_millis(1_000_000);
    plan(&Question {
        node,
        policy,
        limits: LIMITS,
        card: 0,
        pool,
        in_flight: &in_flight,
        demand,
        subnets: &Subnets::new(0),
        forecast: Outlook { free: 1, places: 1, is_young: false },
        surplus_since: Some(Moment::default()),
        now,
    })
}

fn describe(action: &Action) -> String {
    match action {
        Action::Create { amount, .. } => format!("create with {}", amount.addresses()),
        Action::Attach { eni, device_index, .. } => format!("attach {eni} at {device_index}"),
        Action::DeleteOnTermination { eni, .. } => format!("end {eni} with instance"),
        Action::SecurityGroups { eni, .. } => format!("other groups for {eni}"),
        Action::Assign { eni, amount } => format!("assign {} to {eni}", amount.addresses()),
        Action::Unassign { eni, holdings } => format!("unassign {} from {eni}", holdings.addresses.len()),
        Action::Detach { eni, .. } => format!("detach {eni}"),
        Action::Delete { eni } => format!("delete {eni}"),
    }
}

#[test]
fn the_plan_follows_the_targets() {
    #[rustfmt::skip]
    let table: &[(&str, Policy, &[(u8, u8)], usize, &[&str])] = &[
        ("an empty node fills its primary",         policy(1, 0, 0), &[(0, 0)],                 0,  &["assign 9 to eni-0"]),
        ("a warm ENI is there: nothing",            policy(1, 0, 0), &[(9, 0)],                 0,  &[]),
        ("one pod breaks the warm ENI",             policy(1, 0, 0), &[(9, 1)],                 0,  &["create with 9"]),
        ("a full node can grow no more",            policy(1, 0, 0), &[(9, 9), (9, 9), (9, 9)], 5,  &[]),
        ("two warm ENIs free: the last may go",     policy(1, 0, 0), &[(9, 3), (9, 0), (9, 0)], 0,  &["detach eni-2"]),
        ("no warm ENI: one address stays ready",    policy(0, 0, 0), &[(9, 8)],                 0,  &[]),
        ("no warm ENI and none free: a new one",    policy(0, 0, 0), &[(9, 9)],                 0,  &["create with 9"]),
        ("only as many as wanted",                  policy(1, 3, 0), &[(5, 4)],                 0,  &["assign 2 to eni-0"]),
        ("room first, then one more ENI, at once",  policy(1, 5, 0), &[(8, 8)],                 0,  &["assign 1 to eni-0", "create with 4"]),
        ("waiting pods count at once",              policy(1, 1, 0), &[(4, 4)],                 3,  &["assign 4 to eni-0"]),
        ("the minimum counts held addresses too",   policy(1, 0, 8), &[(5, 5)],                 0,  &["assign 3 to eni-0"]),
        ("too many single addresses go back",       policy(1, 2, 0), &[(9, 3)],                 0,  &["unassign 4 from eni-0"]),
        ("the minimum keeps them",                  policy(1, 2, 8), &[(9, 3)],                 0,  &["unassign 1 from eni-0"]),
        ("an empty ENI goes, then single ones",    policy(1, 2, 0), &[(9, 5), (3, 0)],         0,  &["detach eni-1", "unassign 2 from eni-0"]),
        ("the primary never goes",                  policy(1, 1, 0), &[(1, 0)],                 0,  &[]),
    ];
    for (why, policy, enis, demand, wanted) in table {
        assert_eq!(planned(policy, &pool(enis), *demand), *wanted, "{why}: {enis:?}");
    }
}

/// I7, fully searched in a small world.
#[test]
fn no_plan_exceeds_the_limits() {
    for first in 0..=9 {
        for second in 0..=9 {
            for (warm_enis, warm) in [(1, 0), (3, 0), (0, 1), (0, 40)] {
                for demand in [0, 1, 30] {
                    let pool = pool(&[(first, first), (second, second / 2)]);
                    for action in planned(&policy(warm_enis, warm, 0), &pool, demand) {
                        let count: u8 = action.split(' ').find_map(|word| word.parse().ok()).unwrap_or(0);
                        let room = if action.contains("eni-0") {
                            9 - first
                        } else if action.contains("eni-1") {
                            9 - second
                        } else {
                            9
                        };
                        assert!(
                            !action.starts_with("assign") && !action.starts_with("create") || count <= room,
                            "{action}: {first} {second}"
                        );
                    }
                }
            }
        }
    }
    let full = pool(&[(9, 9), (9, 9), (9, 9)]);
    assert_eq!(planned(&policy(5, 0, 0), &full, 9), Vec::<String>::new());
}

/// I6: what is held is never part of a plan that takes something away.
#[test]
fn nothing_in_use_is_given_back() {
    for held in 0..=9 {
        let pool = pool(&[(9, held), (9, held)]);
        let in_flight = InFlight::default();
        let (policy, now) = (policy(0, 1, 0), Moment::from_millis(1_000_000));
        let plan = plan(&Question {
            node: &node(),
            policy: &policy,
            limits: LIMITS,
            card: 0,
            pool: &pool,
            in_flight: &in_flight,
            demand: 0,
            subnets: &Subnets::new(0),
            forecast: Outlook { free: 1, places: 1, is_young: false },
            surplus_since: Some(Moment::default()),
            now,
        });
        for action in &plan.actions {
            match action {
                Action::Unassign { holdings, .. } => {
                    assert!(holdings.addresses.iter().all(|address| !pool.is_taken(*address)))
                }
                Action::Detach { eni, .. } => assert_eq!(pool.taken_on(pool.eni(eni).unwrap()), 0),
                Action::Create { .. } => assert_eq!(held, 9, "nothing is free, so one more is wanted"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn max_eni_is_a_limit_too() {
    let one = Policy { max_enis: Some(1), ..policy(1, 0, 0) };
    assert_eq!(planned(&one, &pool(&[(9, 9)]), 3), Vec::<String>::new());
}

#[test]
fn while_something_is_on_its_way_it_is_not_asked_for_twice() {
    let (policy, pool, now) = (policy(1, 0, 0), pool(&[(9, 5)]), Moment::default());
    let in_flight = InFlight { creating: vec![9], ..InFlight::default() };
    let plan = plan(&Question {
        node: &node(),
        policy: &policy,
        limits: LIMITS,
        card: 0,
        pool: &pool,
        in_flight: &in_flight,
        demand: 0,
        subnets: &Subnets::new(0),
        forecast: Outlook { free: 1, places: 1, is_young: false },
        surplus_since: Some(Moment::default()),
        now,
    });
    assert_eq!(plan.actions, []);
}

#[test]
fn a_place_stays_free_for_the_trunk_until_it_is_there_and_only_where_there_can_be_one() {
    let kept = Policy { trunk: true, ..policy(5, 0, 0) };
    let (nitro, burstable) = (node(), NodeIdentity { instance_type: "t3.medium".to_owned(), ..node() });
    let creates = |node: &NodeIdentity, policy: &Policy, pool: &Pool| plan_on(node, policy, pool, 0).actions.len();
    let full = pool(&[(9, 9)]);
    assert_eq!(creates(&nitro, &policy(5, 0, 0), &full), 2);
    assert_eq!(creates(&nitro, &kept, &full), 1);
    assert_eq!(creates(&burstable, &kept, &full), 2, "no trunk can come");
    let few = Policy { max_enis: Some(2), ..kept.clone() };
    assert_eq!(creates(&nitro, &few, &full), 0, "the trunk counts for MAX_ENI");

    let mut pool = pool(&[(9, 9), (0, 0)]);
    pool.eni_mut(&"eni-1".parse().unwrap()).unwrap().interface.kind = InterfaceKind::Trunk;
    assert_eq!(creates(&nitro, &kept, &pool), 1, "it is there");
}

#[test]
fn a_spare_interface_does_not_take_the_place_of_the_trunk() {
    let kept = Policy { trunk: true, ..policy(0, 1, 0) };
    let mut pool = pool(&[(9, 9), (9, 9), (9, 0)]);
    let spare = pool.eni_mut(&"eni-2".parse().unwrap()).unwrap();
    (spare.phase, spare.interface.attachment) = (Phase::Unattached, None);
    assert_eq!(planned(&policy(0, 1, 0), &pool, 1), ["attach eni-2 at 2"]);
    let plan = plan_on(&node(), &kept, &pool, 1);
    assert_eq!(plan.actions.iter().map(describe).collect::<Vec<_>>(), ["delete eni-2"]);
    assert_eq!(plan.blocked, Some(Blocked::NodeFull));
    assert_eq!(plan.waiting, ["all 2 interfaces are full, and one more place is kept for the trunk"]);
}
