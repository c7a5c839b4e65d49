//! Failures that users of other CNIs have reported, replayed: what they do to a node with this engine.
//!
//! Each test is named after one class of them: addresses and interfaces that were freed while pods used them (C1), leaked
//! ones (C2, C3), reuse that came too early (C4), rules that outlived their pod (C5), releases that needed the daemon (C6),
//! calls out of order (C7), one lock for all (C8), and races between allocator and pods (C9).

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of a test are test code too"
)]

mod node;
#[path = "replays/truths.rs"]
mod truths;

use std::{collections::BTreeSet, net::Ipv4Addr};

use eni_proto::PodKey;
use ipam_core::{
    Access, Action, Command, CoolDown, Done, Event, Limits, Mode, Placement, Policy, Ticket,
    pool::Phase,
    ports::{Cidr4, Ec2Error, Holdings, Interface, RefusalClass, Scope},
};
use node::{Node, Record, eni};
use truths::{Truths, add, at, day, del, granted, key, lease, removals};

/// No pod gets anything.
const NONE: [Ipv4Addr; 0] = [];

fn limits() -> Limits {
    Limits { max_enis: 4, addresses_per_eni: 5, ..Limits::default() }
}

fn warm(addresses: u16) -> Policy {
    Policy { warm_enis: 0, warm_addresses: addresses, placement: Placement::NodeSubnet, ..Policy::default() }
}

/// A node that begins with these leases on record, knowing these ENIs from an earlier run.
fn restarted(policy: Policy, record: Record, interfaces: &[Interface]) -> Node {
    let mut node = Node::begun(policy, limits(), record, at(0));
    node.tell(at(0), Event::Remembered { interfaces: interfaces.to_vec() });
    node
}

fn leases(pods: &[(&str, Ipv4Addr, u8)]) -> Record {
    Record {
        leases: pods.iter().map(|(pod, address, device)| lease(pod, *address, *device)).collect(),
        cooling: vec![],
    }
}

fn ip(device: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, device, last)
}

/// After a reboot the metadata service lists only the primary ENI, for as long as it likes.
#[test]
fn c1_an_interface_that_metadata_forgets_after_a_reboot_keeps_its_pods() {
    for access in [Access::Full, Access::MetadataOnly, Access::ReadOnly] {
        let (enis, policy) = ([eni(0, 4), eni(1, 4)], Policy { access, ..warm(1) });
        let mut node = restarted(policy, leases(&[("a", ip(1, 10), 1)]), &enis);
        let mut truths = Truths::new(&enis[..1], &[ip(1, 10)]);
        let said = truths.live(&mut node, at(0), day(2));
        let on_it = |action: &&Action| action.eni() == Some(&enis[1].id);
        assert_eq!(removals(&said).iter().filter(on_it).count(), 0, "{access:?}: {said:?}");
        let held = node.engine.lease(&key("a")).map(|lease| lease.addresses.v4().unwrap());
        assert_eq!(held, Some(ip(1, 10)), "{access:?}");
        assert!(node.engine.pool().eni(&enis[1].id).is_some(), "{access:?}: the interface is still known");
    }
}

/// The record is lost, and what was read from it is "presumed dead": two days later the prefix would be given back.
#[test]
fn c1_a_prefix_in_use_is_kept_although_the_record_of_its_pods_is_lost() {
    let mut primary = eni(0, 0);
    primary.prefixes = [16_u8, 32, 48].map(|last| Cidr4 { network: ip(0, last), prefix: 28 }).to_vec();
    let policy = Policy { mode: Mode::Prefixes, ..warm(1) };
    let mut node = restarted(policy, Record::default(), &[primary.clone()]);
    let mut truths = Truths::new(&[primary.clone()], &[ip(0, 20), ip(0, 40)]);
    let said = truths.live(&mut node, at(0), day(2));
    let holds = Holdings { addresses: vec![], prefixes: vec![primary.prefixes[2]], prefixes6: vec![] };
    let mut gone = removals(&said);
    gone.dedup();
    assert_eq!(gone, [Action::Unassign { eni: primary.id, holdings: holds }], "only what no pod uses");
}

/// EC2 has taken an address back; metadata lists it still when the daemon starts again.
#[test]
fn c1_an_address_that_was_given_back_before_a_restart_is_given_to_no_pod() {
    let enis = [eni(0, 2)];
    let mut node = restarted(warm(0), leases(&[("a", ip(0, 10), 0)]), &enis);
    let holdings = Holdings { addresses: vec![ip(0, 11)], prefixes: vec![], prefixes6: vec![] };
    node.tell(at(0), Event::LeftOpen { action: Action::Unassign { eni: enis[0].id.clone(), holdings } });
    let stale = Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: enis.to_vec() };
    node.tell(at(1), stale);
    node.tell(at(1), Event::HostReady { eni: enis[0].id.clone() });
    assert_eq!(granted(&add(&mut node, at(1), "b")), NONE);
}

/// EC2 and metadata disagree: what EC2 took away behind our back is noticed, and no other pod hears of it.
#[test]
fn c1_an_address_that_ec2_no_longer_lists_is_given_to_no_pod() {
    let (before, after) = ([eni(0, 4)], [eni(0, 3)]);
    let mut node = restarted(warm(0), Record::default(), &before);
    Truths::new(&after, &[]).live(&mut node, at(0), at(10));
    let pods = ["a", "b", "c", "d"].map(|pod| granted(&add(&mut node, at(20), pod)));
    assert_eq!(pods.concat(), [ip(0, 10), ip(0, 11), ip(0, 12)]);
}

/// Two interfaces claim one address, as stale metadata does after a move: no two pods may have it.
#[test]
fn c1_an_address_that_two_interfaces_claim_is_given_to_one_pod() {
    let (first, mut second) = (eni(0, 1), eni(1, 0));
    second.secondary = first.secondary.clone();
    let mut node = Node::begun(warm(0), limits(), Record::default(), at(0));
    node.see(&[first, second], at(0));
    let pods = ["a", "b"].map(|pod| granted(&add(&mut node, at(1), pod)));
    assert_eq!(pods.concat(), [ip(0, 10)]);
}

/// No source that fails lets anything go: neither the kernel nor EC2 can be asked.
#[test]
fn c1_nothing_is_given_back_while_only_our_own_record_can_be_asked() {
    let enis = [eni(0, 4), eni(1, 4), eni(2, 4)];
    let mut node = Node::begun(warm(0), limits(), Record::default(), at(0));
    node.see(&enis, at(0));
    let mut truths = Truths::new(&enis, &[]);
    (truths.kernel, truths.ec2) = (None, None);
    assert_eq!(removals(&truths.live(&mut node, at(1), day(1))), []);
    truths.ec2 = Some(enis.to_vec());
    assert!(!removals(&truths.live(&mut node, day(1), day(2))).is_empty(), "EC2 agrees with our record");
}

/// The daemon dies between making an interface and attaching it: found by its tag, it is used or goes.
#[test]
fn c2_an_interface_that_was_made_before_a_crash_is_found_and_goes() {
    let mut lost = eni(1, 4);
    lost.attachment = None;
    let enis = [eni(0, 4)];
    for (demand, wanted) in [(0, "delete"), (6, "attach")] {
        let mut node = restarted(warm(1), Record::default(), &enis);
        let amount = ipam_core::ports::Amount::Addresses(4);
        let (subnet, security_groups) = ("subnet-1".parse().unwrap(), vec![]);
        node.tell(
            at(0),
            Event::LeftOpen { action: Action::Create { subnet, security_groups, amount, prefix6: false } },
        );
        for pod in 0..demand {
            add(&mut node, at(0), &format!("p{pod}"));
        }
        let said = Truths::new(&[enis[0].clone(), lost.clone()], &[]).live(&mut node, at(0), at(15));
        let what = |action: &Action| match action {
            Action::Delete { eni } if *eni == lost.id => "delete",
            Action::Attach { eni, .. } if *eni == lost.id => "attach",
            Action::Create { .. } => "create",
            _ => "other",
        };
        let first = said.iter().map(what).find(|what| *what != "other");
        assert_eq!(first, Some(wanted), "{demand} pods: {said:?}");
    }
}

/// The daemon dies between detaching an interface and deleting it.
#[test]
fn c2_an_interface_that_was_detached_before_a_crash_is_deleted() {
    let (primary, mut leaving) = (eni(0, 4), eni(1, 4));
    let attachment = leaving.attachment.take().unwrap().id;
    let mut node = restarted(warm(1), Record::default(), &[primary.clone(), leaving.clone()]);
    node.tell(at(0), Event::LeftOpen { action: Action::Detach { eni: leaving.id.clone(), attachment } });
    let said = Truths::new(&[primary, leaving.clone()], &[]).live(&mut node, at(0), at(60));
    assert!(said.contains(&Action::Delete { eni: leaving.id }), "{said:?}");
}

/// The instance dies with an interface that stays for ever: the first thing after attaching it is to tie it to the instance.
#[test]
fn c2_an_interface_is_tied_to_the_instance_as_soon_as_it_is_attached() {
    let (primary, mut young) = (eni(0, 4), eni(1, 4));
    young.attachment.as_mut().unwrap().delete_on_termination = false;
    let mut node = Node::begun(Policy::default(), limits(), Record::default(), at(0));
    let seen = [primary, young.clone()];
    let commands =
        node.tell(at(0), Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: seen.to_vec() });
    let ties = |command: &Command| matches!(command, Command::Start { action: Action::DeleteOnTermination { eni, .. }, .. } if *eni == young.id);
    assert!(commands.iter().any(ties), "{commands:?}");
}

/// A pod goes and its DEL never comes: the address is free again as soon as somebody sees that its sandbox is gone.
#[test]
fn c3_an_address_whose_del_is_lost_comes_back() {
    let mut node = restarted(warm(0), leases(&[("a", ip(0, 10), 0)]), &[eni(0, 1)]);
    node.see(&[eni(0, 1)], at(0));
    node.tell(at(10), Event::Reclaim { ticket: Ticket(1), key: key("a"), seen_at: at(9) });
    assert_eq!(granted(&add(&mut node, at(41), "b")), [ip(0, 10)]);
}

/// A restart forgets nothing of a cool-down, and of the free addresses the one that was used last comes last.
#[test]
fn c4_a_restart_keeps_cool_downs_and_reuse_is_as_late_as_possible() {
    let cooling = vec![CoolDown { address: ip(0, 10).into(), until: at(25) }];
    let mut node = restarted(warm(0), Record { leases: vec![], cooling }, &[eni(0, 2)]);
    node.see(&[eni(0, 2)], at(0));
    assert_eq!(granted(&add(&mut node, at(1), "a")), [ip(0, 11)]);
    assert_eq!(granted(&add(&mut node, at(24), "b")), NONE);
    assert_eq!(granted(&node.tell(at(25), Event::Tick)), [ip(0, 10)]);
    del(&mut node, at(30), "a");
    del(&mut node, at(31), "b");
    assert_eq!(granted(&add(&mut node, at(100), "c")), [ip(0, 11)], "it has been free for longer");
}

/// An address comes back on another interface: its pod leaves by that one, whatever the one before it did.
#[test]
fn c5_an_address_that_moved_is_used_on_the_interface_that_has_it_now() {
    let (mut first, mut second) = (eni(0, 1), eni(1, 0));
    let one = Policy { minimum_addresses: 1, ..warm(0) };
    let mut node = Node::begun(one, limits(), Record::default(), at(0));
    node.see(&[first.clone(), second.clone()], at(0));
    add(&mut node, at(1), "a");
    del(&mut node, at(2), "a");
    std::mem::swap(&mut first.secondary, &mut second.secondary);
    node.see(&[first, second.clone()], at(100));
    node.see(&[eni(0, 0), second.clone()], at(110));
    let commands = add(&mut node, at(120), "b");
    let leases: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Grant { lease, .. } => Some((lease.addresses.v4().unwrap(), lease.eni.clone(), lease.eni_mark)),
            _ => None,
        })
        .collect();
    assert_eq!(leases, [(ip(0, 10), second.id, eni_proto::EniMark::of_device(1))]);
}

/// A full node whose daemon was away: the releases that it finds are enough to go on, before EC2 has said a word.
#[test]
fn c6_releases_of_the_time_without_a_daemon_free_addresses_before_ec2_answers() {
    let pods = [("a", ip(0, 10), 0), ("b", ip(0, 11), 0)];
    let mut node = restarted(warm(0), leases(&pods), &[eni(0, 2)]);
    node.tell(at(0), Event::HostReady { eni: eni(0, 2).id });
    let answered = |command: &Command| matches!(command, Command::Release { released, .. } if !released.is_empty());
    assert!(del(&mut node, at(1), "a").iter().any(answered));
    assert_eq!(granted(&add(&mut node, at(2), "c")), NONE, "it rests");
    assert_eq!(granted(&node.tell(at(31), Event::Tick)), [ip(0, 10)]);
}

/// A sandbox is made anew, and the DEL of the old one comes late, twice.
#[test]
fn c7_a_late_del_leaves_the_new_sandbox_alone() {
    let mut node = Node::begun(warm(0), limits(), Record::default(), at(0));
    node.see(&[eni(0, 3)], at(0));
    add(&mut node, at(1), "old");
    add(&mut node, at(2), "new");
    for second in [3, 4] {
        del(&mut node, at(second), "old");
    }
    let held: Vec<_> = node.engine.leases().map(|lease| lease.key.clone()).collect();
    assert_eq!(held, [key("new")]);
    // A DEL that overtakes its ADD ends nothing that comes later.
    del(&mut node, at(5), "next");
    assert_eq!(granted(&add(&mut node, at(6), "next")).len(), 1);
    // The same sandbox on another network or interface is another pod.
    let other = PodKey::new("pods", "sandbox-new", "eth1").unwrap();
    node.tell(at(7), Event::Del { ticket: Ticket(70), key: other });
    assert!(node.engine.lease(&key("new")).is_some());
}

/// Hundreds of pods at once do not wait for each other: each is answered in the step in which it came.
#[test]
fn c8_no_pod_of_a_burst_waits_for_another() {
    let limits = Limits { max_enis: 1, addresses_per_eni: 251, ..Limits::default() };
    let mut node = Node::begun(warm(0), limits, Record::default(), at(0));
    node.see(&[eni(0, 240)], at(0));
    let all: BTreeSet<_> = (0..240).flat_map(|pod| granted(&add(&mut node, at(1), &format!("p{pod}")))).collect();
    assert_eq!(all.len(), 240);
}

/// A pod comes between the decision to give its address back and the call: the address stays.
#[test]
fn c9_an_address_that_a_pod_took_meanwhile_is_not_given_back() {
    let enis = [eni(0, 4)];
    let mut node = Node::begun(warm(1), limits(), Record::default(), at(0));
    node.see(&enis, at(0));
    // The surplus is old enough, and the kernel is asked; its answer comes after the pod.
    node.tell(at(90), Event::Tick);
    let pod = granted(&add(&mut node, at(90), "a"));
    let answer = Event::Kernel { asked_at: at(90), holds: Ok(BTreeSet::new()) };
    let mut commands = node.tell(at(91), answer);
    commands.extend(node.tell(at(200), Event::Tick));
    let answer = Event::Kernel { asked_at: at(200), holds: Ok(BTreeSet::new()) };
    commands.extend(node.tell(at(200), answer));
    let given_back: Vec<_> = removals(&truths::started(&commands)).iter().flat_map(truths::addresses).collect();
    assert!(!given_back.is_empty() && !given_back.contains(&pod[0]), "{pod:?} of {given_back:?}");
    // And while the call is under way no pod gets what it takes.
    let next = granted(&add(&mut node, at(201), "b"));
    assert!(next.len() == 1 && !given_back.contains(&next[0]), "{next:?} of {given_back:?}");
}

/// Pods that are tried again and again, or have gone, do not make a node grow without end.
#[test]
fn c9_pods_that_come_again_and_again_do_not_make_more_interfaces() {
    let mut node = Node::begun(warm(0), limits(), Record::default(), at(0));
    node.see(&[eni(0, 4)], at(0));
    let mut commands = Vec::new();
    for second in 0..600 {
        // Each try is given up a second later.
        let ticket = Ticket(second);
        let (pod, deadline) = (eni_proto::Pod::default(), at(second + 20));
        let again = format!("p{}", second % 5);
        commands.extend(
            node.tell(
                at(second),
                Event::Add { ticket, key: key(&again), pod, netns: "/n".to_owned(), card: 0, deadline },
            ),
        );
        commands.extend(node.tell(at(second), Event::Cancel { ticket }));
    }
    let made = truths::started(&commands).into_iter().filter(|action| matches!(action, Action::Create { .. }));
    assert!(made.count() <= 1, "five pods need one interface more");
}

/// An interface that EC2 says is attached twice, or to nothing, while pods are on it, stays.
#[test]
fn c9_an_interface_with_pods_is_neither_detached_nor_deleted_whatever_ec2_says_of_it() {
    let enis = [eni(0, 4), eni(1, 4)];
    let mut odd = eni(1, 4);
    odd.attachment = None;
    let mut node = restarted(warm(0), leases(&[("a", ip(1, 10), 1)]), &enis);
    let said = Truths::new(&[eni(0, 4), odd.clone()], &[ip(1, 10)]).live(&mut node, at(0), day(1));
    let hurts = |action: &&Action| {
        matches!(action, Action::Detach { .. } | Action::Delete { .. }) && action.eni() == Some(&odd.id)
    };
    assert_eq!(said.iter().filter(hurts).count(), 0, "{said:?}");
    assert!(node.engine.lease(&key("a")).is_some());
}

/// A detachment that EC2 refuses leaves an interface that can serve again.
#[test]
fn c9_an_interface_that_ec2_would_not_detach_serves_again() {
    let enis = [eni(0, 4), eni(1, 4)];
    let mut node = Node::begun(warm(0), limits(), Record::default(), at(0));
    node.see(&enis, at(0));
    node.tell(at(90), Event::Tick);
    let commands = node.tell(at(90), Event::Kernel { asked_at: at(90), holds: Ok(BTreeSet::new()) });
    let intent = commands.iter().find_map(|command| match command {
        Command::Start { intent, action: Action::Detach { .. } } => Some(intent.clone()),
        _ => None,
    });
    let error = Ec2Error::Refused {
        action: "DetachNetworkInterface",
        class: RefusalClass::SlowDown,
        code: "RequestLimitExceeded".to_owned(),
        message: "Request limit exceeded.".to_owned(),
    };
    let outcome: Result<Done, Ec2Error> = Err(error);
    node.tell(at(91), Event::Settled { intent: intent.unwrap(), outcome });
    node.tell(at(91), Event::HostReady { eni: enis[1].id.clone() });
    assert_eq!(node.engine.pool().eni(&enis[1].id).map(|eni| eni.phase), Some(Phase::Ready));
}
