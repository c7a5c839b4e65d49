#![allow(clippy::wildcard_enum_match_arm, reason = "a test picks out what it is about")]

mod believing;
mod families;
mod neighbours;
#[path = "../../tests/node/mod.rs"]
mod node;
mod reporting;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use eni_proto::{RefusalCode, numbers};

use node::eni;

use super::*;
use crate::{
    Done, Placement,
    ports::{Amount, Interface, RefusalClass, Scope},
};

const SECOND: u64 = 1000;

fn at(seconds: u64) -> Moment {
    Moment::from_millis(seconds * SECOND)
}

fn warm(addresses: u16) -> Policy {
    Policy { warm_enis: 0, warm_addresses: addresses, placement: Placement::NodeSubnet, ..Policy::default() }
}

fn engine(policy: Policy) -> Engine {
    Engine::new(start(policy), at(0))
}

fn start(policy: Policy) -> Start {
    Start {
        node: node::identity(),
        policy,
        limits: Limits { max_enis: 3, addresses_per_eni: 10, ..Limits::default() },
        leases: vec![],
        cooling: vec![],
        intent_prefix: "i-1-0".to_owned(),
        intents_open: false,
    }
}

/// An engine that has seen these ENIs and whose kernel is ready for them.
fn ready(policy: Policy, enis: &[Interface]) -> Engine {
    let mut engine = engine(policy);
    let first = engine.handle(at(0), Event::Tick);
    assert_eq!(first, [Command::ObserveKernel, Command::Observe { scope: Scope::Attached }]);
    engine.handle(at(0), Event::Kernel { asked_at: at(0), holds: Ok(BTreeSet::new()) });
    engine.handle(at(0), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: enis.to_vec() });
    for eni in enis {
        engine.handle(at(0), Event::HostReady { eni: eni.id.clone() });
    }
    engine.handle(Moment::from_millis(200), Event::Tick);
    engine
}

/// What the engine does once it has gathered what is needed.
fn soon_after(engine: &mut Engine, second: u64) -> Vec<Command> {
    let due = engine.next_wake().unwrap();
    assert!(due <= Moment::from_millis(second * SECOND + 10), "{due}");
    engine.handle(due, Event::Tick)
}

/// What the engine does at `second` about a surplus, once the kernel has said that it holds nothing.
fn settle_surplus(engine: &mut Engine, second: u64) -> Vec<Command> {
    assert!(engine.handle(at(second), Event::Tick).contains(&Command::ObserveKernel));
    engine.handle(at(second), Event::Kernel { asked_at: at(second), holds: Ok(BTreeSet::new()) })
}

fn key(name: &str) -> PodKey {
    PodKey::new("pods", name, "eth0").unwrap()
}

fn add(ticket: u64, name: &str, deadline: u64) -> Event {
    Event::Add {
        ticket: Ticket(ticket),
        key: key(name),
        pod: Pod::default(),
        netns: "/n".to_owned(),
        card: 0,
        deadline: at(deadline),
    }
}

fn del(name: &str) -> Event {
    Event::Del { ticket: Ticket(900), key: key(name) }
}

fn granted(commands: &[Command]) -> Vec<(u64, Ipv4Addr)> {
    let grants = commands.iter().filter_map(|command| match command {
        Command::Grant { ticket, lease, .. } => Some((ticket.0, lease.addresses.v4().unwrap())),
        _ => None,
    });
    grants.collect()
}

fn started(commands: &[Command]) -> Vec<(IntentId, Action)> {
    let starts = commands.iter().filter_map(|command| match command {
        Command::Start { intent, action } => Some((intent.clone(), action.clone())),
        _ => None,
    });
    starts.collect()
}

fn refused(commands: &[Command]) -> Vec<(u64, RefusalCode)> {
    let refusals = commands.iter().filter_map(|command| match command {
        Command::Refuse { ticket, refusal } => Some((ticket.0, refusal.code)),
        _ => None,
    });
    refusals.collect()
}

fn refusal(class: RefusalClass) -> Ec2Error {
    Ec2Error::Refused { action: "Any", class, code: "Code".to_owned(), message: "text".to_owned() }
}

/// I3.
#[test]
fn the_same_key_gets_the_same_answer() {
    let mut engine = ready(warm(1), &[eni(0, 5)]);
    let first = granted(&engine.handle(at(1), add(1, "a", 20)));
    let again = granted(&engine.handle(at(2), add(2, "a", 20)));
    assert_eq!(first, [(1, Ipv4Addr::new(10, 0, 0, 10))]);
    assert_eq!(again, [(2, first[0].1)]);
}

/// I4.
#[test]
fn a_del_of_the_unknown_succeeds() {
    let mut engine = ready(warm(1), &[eni(0, 5)]);
    let commands = engine.handle(at(1), del("nobody"));
    assert!(commands.contains(&Command::Release { ticket: Some(Ticket(900)), key: key("nobody"), released: vec![] }));
}

/// I5.
#[test]
fn an_address_is_not_reused_before_its_cool_down_is_over() {
    let mut engine = ready(warm(1), &[eni(0, 9), eni(1, 9), eni(2, 9)]);
    for pod in 0..27 {
        assert_eq!(granted(&engine.handle(at(1), add(pod, &format!("p{pod}"), 100))).len(), 1);
    }
    let freed = engine.lease(&key("p3")).unwrap().addresses.v4().unwrap();
    engine.handle(at(2), del("p3"));
    assert_eq!(granted(&engine.handle(at(3), add(50, "late", 100))), []);
    assert_eq!(granted(&engine.handle(Moment::from_millis(31_999), Event::Tick)), []);
    assert_eq!(granted(&engine.handle(at(32), Event::Tick)), [(50, freed)]);
}

#[test]
fn a_cool_down_on_record_is_honoured_after_a_restart() {
    let limits = Limits { max_enis: 1, addresses_per_eni: 2, ..Limits::default() };
    let cooling = vec![CoolDown { address: Ipv4Addr::new(10, 0, 0, 10).into(), until: at(30) }];
    let mut engine = Engine::new(Start { limits, cooling, ..start(warm(1)) }, at(0));
    engine.handle(at(0), Event::Tick);
    engine.handle(at(0), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: vec![eni(0, 1)] });
    engine.handle(at(0), Event::HostReady { eni: "eni-1".parse().unwrap() });
    assert_eq!(granted(&engine.handle(at(1), add(1, "a", 60))), []);
    assert_eq!(granted(&engine.handle(at(30), Event::Tick)).len(), 1);
}

#[test]
fn a_node_serves_only_once_the_kernel_is_ready_for_an_interface() {
    let mut engine = engine(warm(1));
    engine.handle(at(0), Event::Tick);
    engine.handle(at(0), Event::Kernel { asked_at: at(0), holds: Ok(BTreeSet::new()) });
    engine.handle(at(0), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: vec![eni(0, 3)] });
    let eni: EniId = "eni-1".parse().unwrap();
    engine.handle(at(1), Event::HostFailed { eni: eni.clone(), reason: "the kernel refused it".to_owned() });
    assert!(!engine.status(at(1)).serves, "{:?}", engine.status(at(1)));
    engine.handle(at(2), Event::HostReady { eni });
    assert!(engine.status(at(2)).serves);
}

#[test]
fn pods_are_packed_onto_the_fullest_interface_and_reuse_is_late() {
    let mut engine = ready(warm(1), &[eni(0, 3), eni(1, 3)]);
    let first = granted(&engine.handle(at(1), add(1, "a", 20)));
    engine.handle(at(1), del("a"));
    let later: Vec<_> =
        ["b", "c", "d"].iter().map(|pod| granted(&engine.handle(at(40), add(2, pod, 60)))[0].1).collect();
    assert_eq!(first[0].1, Ipv4Addr::new(10, 0, 0, 10));
    assert_eq!(later, [11, 12, 10].map(|last| Ipv4Addr::new(10, 0, 0, last)), "the address used last comes last");
}

#[test]
fn an_address_is_given_only_when_the_kernel_is_ready_for_its_interface() {
    let mut engine = engine(warm(1));
    engine.handle(at(0), Event::Tick);
    engine.handle(at(0), add(1, "a", 20));
    let commands =
        engine.handle(at(1), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: vec![eni(0, 3)] });
    assert_eq!(granted(&commands), []);
    assert!(commands.contains(&Command::PrepareHost { interface: eni(0, 3) }));
    assert_eq!(granted(&engine.handle(at(2), Event::HostReady { eni: "eni-1".parse().unwrap() })).len(), 1);
}

#[test]
fn waiting_pods_are_served_in_their_order_once_addresses_arrive() {
    let mut engine = ready(warm(1), &[eni(0, 0)]);
    engine.handle(at(1), add(1, "a", 20));
    engine.handle(at(1), add(2, "b", 20));
    let commands =
        engine.handle(at(2), Event::Observed { asked_at: at(1), scope: Scope::Attached, interfaces: vec![eni(0, 1)] });
    // The answer to the first assignment is still out, so the description is stale.
    assert_eq!(granted(&commands), []);
}

#[test]
fn demand_wakes_the_planner_within_ten_milliseconds() {
    let mut engine = ready(warm(0), &[eni(0, 1)]);
    assert_eq!(granted(&engine.handle(at(1), add(1, "a", 20))).len(), 1);
    let started = started(&soon_after(&mut engine, 1));
    assert!(matches!(&started[..], [(_, Action::Assign { amount: Amount::Addresses(8), .. })]), "{started:?}");
}

#[test]
fn a_full_node_refuses_at_once_and_says_how_full_it_is() {
    let mut engine = ready(warm(0), &[eni(0, 9), eni(1, 9), eni(2, 9)]);
    for pod in 0..27 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 100));
    }
    let commands = engine.handle(at(2), add(99, "p99", 22));
    assert_eq!(refused(&commands), [(99, RefusalCode::NodeFull)]);
    let Some(Command::Refuse { refusal, .. }) = commands.first() else { panic!("{commands:?}") };
    assert!(refusal.message.contains("27 of 27 addresses are held"), "{refusal}");
    assert!(refusal.advice.contains("larger instance type"), "{refusal}");
}

#[test]
fn a_subnet_without_addresses_is_named_at_once() {
    let mut engine = ready(warm(0), &[eni(0, 0)]);
    let (intent, _) = engine.intents.clone().into_iter().next().unwrap();
    engine.handle(at(1), add(1, "a", 20));
    let (mut intent, mut asked) = (intent, vec![]);
    let commands = loop {
        let outcome = Err(refusal(RefusalClass::SubnetFull));
        let commands = engine.handle(at(2), Event::Settled { intent: intent.clone(), outcome });
        let Some((next, action)) = started(&commands).pop() else { break commands };
        asked.push(action);
        intent = next;
    };
    assert_eq!(asked.len(), 3, "4, 2, 1 instead of 9: {asked:?}");
    assert_eq!(refused(&commands), [(1, RefusalCode::SubnetFull)]);
}

#[test]
fn throttling_makes_pods_wait_and_the_planner_pause() {
    let mut engine = ready(warm(0), &[eni(0, 0)]);
    let (intent, _) = engine.intents.clone().into_iter().next().unwrap();
    engine.handle(at(1), add(1, "a", 20));
    let commands = engine.handle(at(2), Event::Settled { intent, outcome: Err(refusal(RefusalClass::SlowDown)) });
    assert_eq!((refused(&commands), started(&commands)), (vec![], vec![]));
    let wake = engine.next_wake().unwrap();
    assert!(wake > at(2) && wake < at(3), "{wake}");
}

#[test]
fn what_nobody_waits_for_leaves_the_budget_to_other_nodes() {
    for (waits, again_after) in [(true, 0..2), (false, 10..60)] {
        let mut engine = ready(warm(2), &[eni(0, 1)]);
        if waits {
            engine.handle(at(1), add(1, "a", 100));
            engine.handle(at(1), add(2, "b", 100));
        }
        let intent = engine.intents.keys().next().unwrap().clone();
        engine.handle(at(2), Event::Settled { intent, outcome: Err(refusal(RefusalClass::SlowDown)) });
        let again = (0..100).find(|second| !started(&engine.handle(at(2 + second), Event::Tick)).is_empty());
        assert!(again.is_some_and(|second| again_after.contains(&second)), "a pod waits: {waits}; {again:?}");
    }
}

#[test]
fn what_a_refused_pod_needs_is_asked_for_before_it_comes_again() {
    let pod = |name: &str| Pod { name: name.to_owned(), ..Pod::default() };
    let ask = |ticket, name, sandbox, deadline| match add(ticket, sandbox, deadline) {
        Event::Add { ticket, key, netns, card, deadline, .. } => {
            Event::Add { ticket, key, pod: pod(name), netns, card, deadline }
        }
        other => other,
    };
    let mut engine = ready(warm(1), &[eni(0, 1)]);
    engine.handle(at(1), ask(1, "served", "sandbox-1", 1));
    for (ticket, name) in [(2, "shop"), (3, "cart")] {
        assert_eq!(refused(&engine.handle(at(1), ask(ticket, name, name, 1))), [(ticket, RefusalCode::Late)]);
    }
    let three = [Action::Assign { eni: "eni-1".parse().unwrap(), amount: Amount::Addresses(3) }];
    let actions = |commands: &[Command]| started(commands).into_iter().map(|(_, action)| action).collect::<Vec<_>>();
    let mut later = engine.clone();
    assert_eq!(actions(&soon_after(&mut engine, 1)), three, "one warm and one for each of them");
    assert_eq!(actions(&later.handle(at(12), ask(4, "shop", "sandbox-4", 100))), three, "nobody is counted twice");
}

#[test]
fn at_the_deadline_a_pod_hears_no() {
    let mut engine = ready(warm(0), &[eni(0, 0)]);
    assert_eq!(refused(&engine.handle(at(1), add(1, "a", 5))), []);
    assert_eq!(engine.next_wake(), Some(at(5)));
    assert_eq!(refused(&engine.handle(at(5), Event::Tick)), [(1, RefusalCode::Late)]);
}

#[test]
fn a_cancelled_pod_gets_nothing() {
    let mut engine = engine(warm(1));
    engine.handle(at(0), Event::Tick);
    engine.handle(at(0), add(1, "a", 20));
    engine.handle(at(0), Event::Cancel { ticket: Ticket(1) });
    engine.handle(at(1), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: vec![eni(0, 3)] });
    assert_eq!(granted(&engine.handle(at(2), Event::HostReady { eni: "eni-1".parse().unwrap() })), []);
}

#[test]
fn a_lease_that_could_not_be_stored_rests() {
    let mut engine = ready(warm(1), &[eni(0, 2)]);
    engine.handle(at(1), add(1, "a", 20));
    let commands = engine.handle(at(1), Event::StoreFailed { key: key("a") });
    let released = vec![CoolDown { address: Ipv4Addr::new(10, 0, 0, 10).into(), until: at(31) }];
    assert!(commands.contains(&Command::Release { ticket: None, key: key("a"), released }));
    assert_eq!(engine.lease(&key("a")), None);
}
