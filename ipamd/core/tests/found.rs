//! Bugs that the random test found, each as the shortest story that shows it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of a test are test code too, and are shared"
)]

mod node;
#[path = "replays/truths.rs"]
mod truths;

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use ipam_core::{
    Action, Command, Done, Event, IntentId, Limits, Moment, Placement, Policy, Ticket,
    ports::{Ec2Error, Interface, Scope},
};
use node::{Node, Record, eni};
use truths::{Truths, add, at, granted, key, lease, started};

/// No pod gets anything.
const NONE: [Ipv4Addr; 0] = [];

fn limits() -> Limits {
    Limits { max_enis: 2, addresses_per_eni: 5, ..Limits::default() }
}

/// One address is held, free or not, and none is warm.
fn one() -> Policy {
    Policy { warm_enis: 0, minimum_addresses: 1, placement: Placement::NodeSubnet, ..Policy::default() }
}

fn fresh(enis: &[Interface]) -> Node {
    let mut node = Node::begun(one(), limits(), Record::default(), at(0));
    node.see(enis, at(0));
    node
}

fn restarted(record: Record, interfaces: &[Interface]) -> Node {
    let mut node = Node::begun(one(), limits(), record, at(0));
    node.tell(at(0), Event::Remembered { interfaces: interfaces.to_vec() });
    for eni in interfaces {
        node.tell(at(0), Event::HostReady { eni: eni.id.clone() });
    }
    node
}

fn observed(node: &mut Node, asked_at: Moment, scope: Scope, enis: &[Interface]) -> Vec<Command> {
    let event = Event::Observed { asked_at, scope, interfaces: enis.to_vec() };
    node.tell(asked_at.after(Duration::from_millis(100)), event)
}

fn ip(device: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, device, last)
}

/// The intent of the first change like this.
fn intent(commands: &[Command], is: impl Fn(&Action) -> bool) -> IntentId {
    let found = commands.iter().find_map(|command| match command {
        Command::Start { intent, action } if is(action) => Some(intent.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("there is no such change in {commands:?}"))
}

fn lost() -> Ec2Error {
    Ec2Error::Unknown { action: "Any", reason: "the reply was lost".to_owned() }
}

#[test]
fn a_description_that_lags_after_a_start_takes_no_address_from_its_pod() {
    let record = Record { leases: vec![lease("a", ip(0, 12), 0)], cooling: vec![] };
    let mut node = restarted(record, &[eni(0, 3)]);
    observed(&mut node, at(0), Scope::Attached, &[eni(0, 2)]);
    assert!(node.engine.pool().eni(&eni(0, 3).id).unwrap().interface.has(ip(0, 12)));
}

#[test]
fn what_the_kernel_still_has_is_not_given_out_when_its_rest_is_over() {
    let mut node = fresh(&[eni(0, 1)]);
    add(&mut node, at(1), "a");
    node.tell(at(10), Event::Reclaim { ticket: Ticket(1), key: key("a"), seen_at: at(9) });
    node.tell(at(20), Event::Kernel { asked_at: at(20), holds: Ok(BTreeSet::from([ip(0, 10).into()])) });
    assert_eq!(granted(&add(&mut node, at(50), "b")), NONE);
    let gone = Event::Kernel { asked_at: at(60), holds: Ok(BTreeSet::new()) };
    assert_eq!(granted(&node.tell(at(60), gone)), [ip(0, 10)]);
}

#[test]
fn what_an_earlier_run_gave_back_is_not_given_out_although_ec2_still_lists_it() {
    let mut node = restarted(Record::default(), &[eni(0, 1)]);
    observed(&mut node, at(0), Scope::Attached, &[eni(0, 2)]);
    assert_eq!(granted(&add(&mut node, at(1), "a")), [ip(0, 10)]);
    assert_eq!(granted(&add(&mut node.clone(), at(1), "b")), NONE);
    // Later EC2 would not say so any more if it were not true.
    node.tell(at(2), Event::Del { ticket: Ticket(2), key: key("a") });
    observed(&mut node, at(6), Scope::Attached, &[eni(0, 2)]);
    assert_eq!(granted(&add(&mut node, at(7), "b")), [ip(0, 11)]);
}

#[test]
fn an_interface_whose_answer_listed_nothing_is_not_filled_before_ec2_describes_it() {
    let mut node = fresh(&[eni(0, 4)]);
    for pod in ["a", "b", "c", "d"] {
        add(&mut node, at(1), pod);
    }
    let commands = add(&mut node, at(2), "e");
    let create = intent(&commands, |action| matches!(action, Action::Create { .. }));
    let (mut made, mut silent) = (eni(1, 1), eni(1, 0));
    (made.attachment, silent.attachment) = (None, None);
    let mut commands = node.tell(at(3), Event::Settled { intent: create, outcome: Ok(Done::Created(silent)) });
    commands.extend(node.tell(at(4), Event::Tick));
    assert_eq!(started(&commands), []);
    let commands = observed(&mut node, at(5), Scope::Tagged, &[made]);
    assert!(matches!(started(&commands)[..], [Action::Attach { .. }]), "{commands:?}");
}

#[test]
fn a_doubt_does_not_end_with_a_description_that_leaves_the_interface_out() {
    let enis = [eni(0, 4), eni(1, 3)];
    let mut node = fresh(&enis);
    for pod in ["a", "b", "c", "d", "e", "f", "g"] {
        add(&mut node, at(1), pod);
    }
    let commands = add(&mut node, at(2), "h");
    let assign = intent(&commands, |action| matches!(action, Action::Assign { .. }));
    node.tell(at(3), Event::Settled { intent: assign, outcome: Err(lost()) });
    let mut commands = observed(&mut node, at(10), Scope::Attached, &enis[..1]);
    commands.extend(node.tell(at(11), Event::Tick));
    assert_eq!(started(&commands), [], "it may have been granted");
    let commands = observed(&mut node, at(12), Scope::Attached, &[eni(0, 4), eni(1, 4)]);
    assert_eq!(granted(&commands), [ip(1, 13)]);
}

#[test]
fn a_change_of_an_interface_that_is_no_more_keeps_no_place() {
    let mut node = restarted(Record::default(), &[eni(0, 4)]);
    let attach = Action::Attach { eni: "eni-9".parse().unwrap(), card: 0, device_index: 1 };
    node.tell(at(0), Event::LeftOpen { action: attach.clone() });
    let said = Truths::new(&[eni(0, 4)], &[]).live(&mut node, at(0), at(10));
    assert_eq!(said.iter().filter(|action| matches!(action, Action::Create { .. })).count(), 0);
    assert!(!node.engine.doubts(&attach));
}

#[test]
fn no_interface_is_made_while_there_is_no_index_to_attach_it_at() {
    let mut node = restarted(Record::default(), &[eni(0, 4)]);
    let attach = Action::Attach { eni: "eni-9".parse().unwrap(), card: 0, device_index: 1 };
    node.tell(at(0), Event::LeftOpen { action: attach });
    let mut commands = observed(&mut node, at(0), Scope::Attached, &[eni(0, 4)]);
    for pod in ["a", "b", "c", "d", "e"] {
        commands.extend(add(&mut node, at(1), pod));
    }
    assert_eq!(started(&commands), []);
}

#[test]
fn an_interface_that_ec2_leaves_out_again_and_again_is_looked_for_an_hour_later() {
    let mut node = fresh(&[eni(0, 4)]);
    for pod in ["a", "b", "c", "d"] {
        add(&mut node, at(1), pod);
    }
    let create = intent(&add(&mut node, at(2), "e"), |action| matches!(action, Action::Create { .. }));
    let mut silent = eni(1, 0);
    silent.attachment = None;
    node.tell(at(3), Event::Settled { intent: create, outcome: Ok(Done::Created(silent)) });
    observed(&mut node, at(4), Scope::Tagged, &[]);
    observed(&mut node, at(70), Scope::Tagged, &[]);
    node.tell(at(200), Event::Tick);
    assert_eq!(node.engine.pool().enis().count(), 1, "it is forgotten");
    let late = node.tell(at(3600 * 2), Event::Tick);
    assert!(late.iter().any(|command| matches!(command, Command::Observe { .. })), "{late:?}");
}

#[test]
fn what_is_being_given_back_without_an_answer_is_given_to_no_pod() {
    let mut node = fresh(&[eni(0, 3)]);
    node.tell(at(90), Event::Tick);
    let answer = Event::Kernel { asked_at: at(90), holds: Ok(BTreeSet::new()) };
    let commands = node.tell(at(90), answer);
    let unassign = intent(&commands, |action| matches!(action, Action::Unassign { .. }));
    node.tell(at(91), Event::Settled { intent: unassign, outcome: Err(lost()) });
    // The description is as old as it can be and shows what is not there any more.
    let said = observed(&mut node, at(95), Scope::Attached, &[eni(0, 3)]);
    assert_eq!(granted(&said), NONE);
    let all: Vec<_> = ["a", "b", "c"].iter().flat_map(|pod| granted(&add(&mut node, at(95), pod))).collect();
    assert_eq!(all.len(), 1, "{all:?}");
}
