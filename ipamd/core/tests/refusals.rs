//! The words of each refusal that the engine gives, as `kubectl describe pod` shows them: one file each in `refusals/`.
//!
//! Each says what is full, which limit, how many rest and until when, what EC2 said last, and what to do.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "the helpers of a test are test code too")]

mod node;

use std::{path::Path, time::Duration};

use eni_proto::{Pod, PodKey, Refusal};
use ipam_core::{
    Command, Event, Limits, Moment, Placement, Policy, Ticket,
    ports::{Ec2Error, Interface, RefusalClass},
};
use node::{Node, Record, eni};

fn at(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

fn limits() -> Limits {
    Limits { max_enis: 2, addresses_per_eni: 3, ..Limits::default() }
}

fn one_warm() -> Policy {
    Policy { warm_enis: 0, warm_addresses: 1, placement: Placement::NodeSubnet, ..Policy::default() }
}

fn node(policy: Policy, enis: &[Interface]) -> Node {
    let mut node = Node::begun(policy, limits(), Record::default(), at(0));
    node.see(enis, at(0));
    node
}

fn key(pod: &str) -> PodKey {
    PodKey::new("pods", &format!("sandbox-{pod}"), "eth0").unwrap()
}

/// An ADD of this pod that waits for `patience` seconds.
fn add(node: &mut Node, now: u64, pod: &str, patience: u64) -> Vec<Command> {
    let named = Pod { namespace: "web".to_owned(), name: pod.to_owned(), uid: String::new() };
    let (ticket, deadline) = (Ticket(now), at(now).after(Duration::from_secs(patience)));
    node.tell(at(now), Event::Add { ticket, key: key(pod), pod: named, netns: "/n".to_owned(), card: 0, deadline })
}

fn del(node: &mut Node, now: u64, pod: &str) -> Vec<Command> {
    node.tell(at(now), Event::Del { ticket: Ticket(1000 + now), key: key(pod) })
}

/// Four pods: all that two full ENIs carry.
fn full_node(policy: Policy, enis: &[Interface]) -> Node {
    let mut node = node(policy, enis);
    for (now, pod) in (1..).zip(["a", "b", "c", "d"]) {
        add(&mut node, now, pod, 20);
    }
    node
}

/// Ends every change that is under way with this refusal.
fn refuse_changes(node: &mut Node, now: u64, class: RefusalClass, code: &str) -> Vec<Command> {
    assert!(!node.under_way.is_empty());
    let mut answers = Vec::new();
    // A nearly full subnet is asked for less, step by step.
    while let Some(intent) = node.under_way.pop() {
        let (code, message) = (code.to_owned(), "in EC2's own words".to_owned());
        let outcome = Err(Ec2Error::Refused { action: "AssignPrivateIpAddresses", class, code, message });
        answers.extend(node.tell(at(now), Event::Settled { intent, outcome }));
    }
    answers
}

fn refusal(commands: &[Command]) -> Refusal {
    let refusals: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Refuse { refusal, .. } => Some(refusal.clone()),
            _ => None,
        })
        .collect();
    let [refusal] = &refusals[..] else { panic!("not one refusal: {commands:#?}") };
    refusal.clone()
}

#[track_caller]
fn reads_as(file: &str, refusal: &Refusal) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refusals").join(file);
    let printed = format!("{}\n{}\ntry again: {}\n", refusal.message, refusal.advice, refusal.try_again);
    let printed = format!("{} {printed}", refusal.code.as_str());
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(printed, wanted, "{} is not what is said now:\n{printed}", path.display());
}

#[test]
fn a_full_node_says_no_at_once_and_which_limit_is_reached() {
    let mut node = full_node(one_warm(), &[eni(0, 2), eni(1, 2)]);
    reads_as("node-full.txt", &refusal(&add(&mut node, 10, "late", 20)));
}

#[test]
fn a_full_node_names_the_operators_limit() {
    let policy = Policy { max_enis: Some(1), ..one_warm() };
    let mut node = full_node(policy, &[eni(0, 2)]);
    reads_as("max-eni.txt", &refusal(&add(&mut node, 30, "late", 20)));
}

#[test]
fn a_full_node_whose_addresses_rest_too_long_says_how_many_and_until_when() {
    let mut node = full_node(one_warm(), &[eni(0, 2), eni(1, 2)]);
    del(&mut node, 10, "a");
    reads_as("cooling-too-long.txt", &refusal(&add(&mut node, 11, "late", 20)));
}

#[test]
fn a_full_node_whose_addresses_are_soon_free_says_nothing_yet() {
    let mut node = full_node(one_warm(), &[eni(0, 2), eni(1, 2)]);
    del(&mut node, 10, "a");
    assert_eq!(add(&mut node, 25, "late", 20), []);
    assert!(matches!(&node.tell(at(40), Event::Tick)[..], [Command::Grant { .. }]));
}

#[test]
fn a_full_subnet_is_told_as_soon_as_ec2_says_so() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    add(&mut node, 2, "late", 20);
    let answers = refuse_changes(&mut node, 3, RefusalClass::SubnetFull, "InsufficientFreeAddressesInSubnet");
    reads_as("subnet-full.txt", &refusal(&answers));
}

#[test]
fn a_missing_permission_is_told_as_soon_as_ec2_says_so() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    add(&mut node, 2, "late", 20);
    let answers = refuse_changes(&mut node, 3, RefusalClass::NotAllowed, "UnauthorizedOperation");
    reads_as("not-allowed.txt", &refusal(&answers));
}

#[test]
fn an_add_that_waited_in_vain_says_what_was_on_its_way() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    assert!(!add(&mut node, 2, "late", 20).iter().any(|command| matches!(command, Command::Refuse { .. })));
    reads_as("late.txt", &refusal(&node.tell(at(22), Event::Tick)));
}

#[test]
fn an_add_that_waited_in_vain_counts_those_that_wait_with_it() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    add(&mut node, 2, "late", 20);
    add(&mut node, 3, "later", 60);
    add(&mut node, 4, "last", 60);
    reads_as("late-of-three.txt", &refusal(&node.tell(at(22), Event::Tick)));
}

#[test]
fn an_add_that_waited_while_ec2_throttled_says_so() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    add(&mut node, 2, "late", 20);
    refuse_changes(&mut node, 3, RefusalClass::SlowDown, "RequestLimitExceeded");
    reads_as("throttled.txt", &refusal(&node.tell(at(22), Event::Tick)));
}

#[test]
fn an_add_that_does_not_wait_is_refused_in_the_same_step_and_the_planner_is_woken_all_the_same() {
    let mut node = node(one_warm(), &[eni(0, 1)]);
    add(&mut node, 1, "a", 0);
    let commands = add(&mut node, 2, "late", 0);
    reads_as("no-wait.txt", &refusal(&commands));
    assert!(!node.under_way.is_empty(), "the next one will have an address");
}

#[test]
fn before_ec2_has_described_the_node_an_add_waits_and_then_says_what_it_waited_for() {
    let mut node = Node::begun(one_warm(), limits(), Record::default(), at(0));
    add(&mut node, 1, "early", 20);
    reads_as("not-ready.txt", &refusal(&node.tell(at(21), Event::Tick)));
}

#[test]
fn an_add_whose_del_comes_while_it_waits_ends() {
    let mut node = node(one_warm(), &[eni(0, 0)]);
    add(&mut node, 1, "gone", 20);
    reads_as("deleted.txt", &refusal(&del(&mut node, 2, "gone")));
}
