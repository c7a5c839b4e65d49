//! Pods with IPv6 addresses.

use std::net::Ipv6Addr;

use super::*;
use crate::{
    Families,
    ports::{Cidr6, Holdings},
};

/// A /80 prefix of an ENI's.
fn prefix6(device: u8) -> Cidr6 {
    format!("2600:1f00:0:1:{device}::/80").parse().unwrap()
}

fn with_prefix6(device: u8, count: u8) -> Interface {
    Interface { prefixes6: vec![prefix6(device)], ..eni(device, count) }
}

fn of(families: Families) -> Policy {
    Policy { families, ..warm(1) }
}

fn addresses(commands: &[Command]) -> Vec<String> {
    let grants = commands.iter().filter_map(|command| match command {
        Command::Grant { lease, .. } => Some(lease.addresses.to_string()),
        _ => None,
    });
    grants.collect()
}

fn prepared(commands: &[Command]) -> Vec<Option<Cidr6>> {
    let found = commands.iter().filter_map(|command| match command {
        Command::PrepareHost { interface } => Some(interface.prefixes6.first().copied()),
        _ => None,
    });
    found.collect()
}

#[test]
fn one_prefix_serves_all_pods_of_an_ipv6_node_and_nothing_else_is_ever_asked_for() {
    let mut engine = ready(of(Families::V6), &[]);
    engine.handle(at(1), Event::Observed { asked_at: at(1), scope: Scope::Attached, interfaces: vec![eni(0, 0)] });
    let mut asked = started(&engine.handle(at(1), Event::HostReady { eni: eni(0, 0).id }));
    asked.extend(started(&engine.handle(at(2), Event::Tick)));
    let [(intent, Action::Assign { amount: Amount::Prefix6, .. })] = asked.as_slice() else { panic!("{asked:?}") };
    let granted = Done::Assigned(Holdings { prefixes6: vec![prefix6(0)], ..Holdings::default() });
    let mut later = started(&engine.handle(at(3), Event::Settled { intent: intent.clone(), outcome: Ok(granted) }));
    later.extend(started(&engine.handle(at(3), Event::HostReady { eni: eni(0, 0).id })));
    let mut all = BTreeSet::new();
    for pod in 0..1000_u64 {
        let commands = engine.handle(at(4), add(pod, &format!("p{pod}"), 20));
        all.extend(addresses(&commands));
        later.extend(started(&commands));
    }
    for second in (5..600).step_by(5) {
        later.extend(started(&engine.handle(at(second), Event::Tick)));
    }
    assert_eq!((all.len(), later), (1000, vec![]));
    let prefix = prefix6(0);
    assert!(all.iter().all(|address| prefix.contains(address.parse::<Ipv6Addr>().unwrap())), "{all:?}");
    assert!(!all.contains(&prefix.network.to_string()), "that one is the interface's own");
}

#[test]
fn a_dual_stack_pod_has_both_addresses_by_one_interface() {
    let mut engine = ready(of(Families::Dual), &[with_prefix6(0, 1), with_prefix6(1, 3)]);
    let pods = ["a", "b"].map(|pod| addresses(&engine.handle(at(1), add(1, pod, 20))));
    let [first, second] = pods.map(|mut found| found.pop().unwrap());
    assert!(first.contains("10.0.0.10") && first.contains("2600:1f00:0:1::1"), "{first}");
    assert!(second.contains("10.0.1.10") && second.contains("2600:1f00:0:1:1::1"), "{second}");
}

#[test]
fn an_interface_whose_prefix_comes_later_is_prepared_once_more() {
    let mut engine = ready(of(Families::Dual), &[]);
    let look = |asked_at, device: Interface| Event::Observed {
        asked_at: at(asked_at),
        scope: Scope::Attached,
        interfaces: vec![with_prefix6(0, 3), device],
    };
    let mut asked = started(&engine.handle(at(1), look(1, eni(1, 3))));
    for device in 0..2 {
        asked.extend(started(&engine.handle(at(1), Event::HostReady { eni: eni(device, 3).id })));
    }
    asked.extend(started(&engine.handle(at(2), Event::Tick)));
    let (intent, action) = asked.pop().unwrap();
    assert_eq!(action, Action::Assign { eni: eni(1, 3).id, amount: Amount::Prefix6 });
    let lost = Ec2Error::Unknown { action: "AssignIpv6Addresses", reason: "no answer".to_owned() };
    engine.handle(at(3), Event::Settled { intent, outcome: Err(lost) });
    assert_eq!(prepared(&engine.handle(at(4), look(4, with_prefix6(1, 3)))), [Some(prefix6(1))]);
    assert_eq!(prepared(&engine.handle(at(60), look(60, with_prefix6(1, 3)))), []);
}

#[test]
fn a_pod_of_one_family_has_an_address_of_the_other_one_for_its_way_out() {
    let mut engine = ready(Policy { egress: true, ..of(Families::V6) }, &[with_prefix6(0, 0)]);
    let given = ["a", "b"].map(|pod| addresses(&engine.handle(at(1), add(1, pod, 20))));
    assert_eq!(given.concat(), ["169.254.172.1, 2600:1f00:0:1::1", "169.254.172.2, 2600:1f00:0:1::2"]);
    engine.handle(at(2), del("b"));
    let later = addresses(&engine.handle(at(3), add(2, "c", 20)));
    assert_eq!(later, ["169.254.172.3, 2600:1f00:0:1::3"], "they rest too");
    let mut engine = ready(Policy { egress: true, ..of(Families::V4) }, &[eni(0, 3)]);
    assert_eq!(addresses(&engine.handle(at(1), add(1, "a", 20))), ["10.0.0.10, fd00::ac:1"]);
}

#[test]
fn a_way_out_is_used_again_when_all_have_been_used_and_it_has_rested() {
    let mut engine = ready(Policy { egress: true, ..of(Families::V6) }, &[with_prefix6(0, 0)]);
    let all =
        (0..1022_u64).filter(|pod| !addresses(&engine.handle(at(1), add(*pod, &format!("p{pod}"), 20))).is_empty());
    assert_eq!(all.count(), 1022);
    assert_eq!(addresses(&engine.handle(at(2), add(2000, "late", 100))), [""; 0]);
    engine.handle(at(3), del("p7"));
    let served = addresses(&engine.handle(at(33), add(2001, "late", 100)));
    assert!(served.len() == 1 && served[0].starts_with("169.254.172.8,"), "{served:?}");
}
