//! Nodes with several network cards: a pod that wants it has an address of each, and each card looks after itself.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "the helpers of a test are test code too")]

mod node;

use std::net::Ipv4Addr;

use eni_proto::{EniMark, Pod, PodKey, RefusalCode};
use ipam_core::{
    Action, Command, Done, Event, IntentId, Limits, Moment, Placement, Policy, Ticket,
    ports::{Amount, Interface, InterfaceKind},
};
use node::{Node, Record, eni};

fn at(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

/// Two ENIs on the default card, one on card 1 and four on card 3.
fn limits() -> Limits {
    let mut limits = Limits { max_enis: 2, addresses_per_eni: 3, ..Limits::default() };
    (limits.other_cards[1], limits.other_cards[3]) = (1, 4);
    limits
}

fn policy(further_cards: bool) -> Policy {
    Policy { warm_enis: 0, warm_addresses: 1, placement: Placement::NodeSubnet, further_cards, ..Policy::default() }
}

/// An ENI on a further card.
fn on_card(card: u8, device: u8, number: u8, count: u8) -> Interface {
    let mut interface = eni(number, count);
    if let Some(attachment) = &mut interface.attachment {
        (attachment.card, attachment.device_index) = (card, device);
    }
    interface
}

fn ready(policy: Policy, enis: &[Interface]) -> (Node, Vec<(IntentId, Action)>) {
    let mut node = Node::begun(policy, limits(), Record::default(), at(0));
    let commands = node.see(enis, at(0));
    (node, started(&commands))
}

fn started(commands: &[Command]) -> Vec<(IntentId, Action)> {
    let starts = commands.iter().filter_map(|command| match command {
        Command::Start { intent, action } => Some((intent.clone(), action.clone())),
        _ => None,
    });
    starts.collect()
}

fn add(node: &mut Node, now: u64, pod: &str, card: u8) -> Vec<Command> {
    let interface = if card == 0 { "eth0".to_owned() } else { format!("mNicIf{card}") };
    let key = PodKey::new("pods", pod, &interface).unwrap();
    let event = Event::Add {
        ticket: Ticket(now),
        key,
        pod: Pod::default(),
        netns: "/n".to_owned(),
        card,
        deadline: at(now + 20),
    };
    node.tell(at(now), event)
}

fn granted(commands: &[Command]) -> Vec<(Ipv4Addr, u32)> {
    let grants = commands.iter().filter_map(|command| match command {
        Command::Grant { lease, .. } => Some((lease.addresses.v4().unwrap(), lease.eni_mark.value())),
        _ => None,
    });
    grants.collect()
}

fn made(number: u8, count: u8) -> Interface {
    Interface { attachment: None, ..eni(number, count) }
}

#[test]
fn a_card_without_interface_gets_one_with_one_address_and_is_used_for_who_asks_for_it() {
    let (mut node, first) = ready(policy(true), &[eni(0, 2)]);
    let creates: Vec<_> = first.iter().filter(|(_, action)| matches!(action, Action::Create { .. })).collect();
    assert_eq!(creates.len(), 2, "one for card 1 and one for card 3: {first:?}");
    assert!(creates.iter().all(|(_, action)| matches!(action, Action::Create { amount: Amount::Addresses(1), .. })));
    let mut attached = Vec::new();
    for ((intent, _), number) in creates.into_iter().zip([5, 6]) {
        let outcome = Ok(Done::Created(made(number, 1)));
        for (attach, action) in started(&node.tell(at(1), Event::Settled { intent: intent.clone(), outcome })) {
            let Action::Attach { eni, card, device_index } = action else { panic!("{action:?}") };
            attached.push((card, device_index));
            let id = format!("eni-attach-{eni}").parse().unwrap();
            node.tell(at(1), Event::Settled { intent: attach, outcome: Ok(Done::Attached(id)) });
            node.tell(at(1), Event::HostReady { eni });
        }
    }
    assert_eq!(attached, [(1, 1), (3, 1)]);
    let mark = |card, index| EniMark::of_slot(card, index).unwrap().value();
    assert_eq!(granted(&add(&mut node, 2, "a", 1)), [(Ipv4Addr::new(10, 0, 5, 10), mark(1, 1))]);
    assert_eq!(granted(&add(&mut node, 3, "a", 3)), [(Ipv4Addr::new(10, 0, 6, 10), mark(3, 1))]);
    assert_eq!(granted(&add(&mut node, 4, "a", 0)), [(Ipv4Addr::new(10, 0, 0, 10), 0)]);
}

#[test]
fn without_the_setting_further_cards_are_left_alone() {
    let (node, first) = ready(policy(false), &[eni(0, 2), on_card(3, 1, 6, 2)]);
    assert_eq!(first, []);
    assert_eq!(node.engine.cards().collect::<Vec<_>>(), [0]);
}

#[test]
fn an_ordinary_pod_never_gets_the_address_of_a_further_card() {
    let (mut node, _) = ready(policy(true), &[eni(0, 1), on_card(1, 1, 5, 2), on_card(3, 1, 6, 2)]);
    assert_eq!(granted(&add(&mut node, 1, "a", 0)), [(Ipv4Addr::new(10, 0, 0, 10), 0)]);
    assert_eq!(granted(&add(&mut node, 2, "b", 0)), [], "it waits for one of its card");
    assert_eq!(granted(&add(&mut node, 3, "c", 1)).len(), 1, "and holds up nobody of another");
}

#[test]
fn a_card_with_nothing_but_interfaces_of_others_is_not_used() {
    let foreign = Interface { kind: InterfaceKind::Other, ..on_card(1, 1, 5, 2) };
    let efa = Interface { kind: InterfaceKind::Efa, ..on_card(3, 0, 6, 2) };
    let (mut node, first) = ready(policy(true), &[eni(0, 2), foreign, efa]);
    assert_eq!(node.engine.cards().collect::<Vec<_>>(), [0, 3]);
    assert!(first.iter().all(|(_, action)| !matches!(action, Action::Create { .. })), "{first:?}");
    assert_eq!(granted(&add(&mut node, 1, "a", 3)).len(), 1, "one with a fabric adapter serves pods");
}

#[test]
fn a_full_card_is_named_in_the_refusal() {
    let (mut node, _) = ready(policy(true), &[eni(0, 2), on_card(1, 1, 5, 2), on_card(3, 1, 6, 2)]);
    for pod in ["a", "b"] {
        assert_eq!(granted(&add(&mut node, 1, pod, 1)).len(), 1);
    }
    let refusal = add(&mut node, 2, "c", 1).into_iter().find_map(|command| match command {
        Command::Refuse { refusal, .. } => Some(refusal),
        _ => None,
    });
    let refusal = refusal.unwrap();
    assert_eq!(refusal.code, RefusalCode::NodeFull);
    assert!(refusal.message.contains("on network card 1: the only interface is full"), "{}", refusal.message);
}

#[test]
fn a_card_gives_back_what_is_too_much_for_it_alone() {
    let (mut node, _) = ready(policy(true), &[eni(0, 2), on_card(1, 1, 5, 2), on_card(3, 1, 6, 2)]);
    let mut given_back = Vec::new();
    for second in 1..200 {
        for (intent, action) in started(&node.tell(at(second), Event::Tick)) {
            if let Action::Unassign { eni, holdings } = &action {
                given_back.push((eni.to_string(), holdings.addresses.len()));
            }
            node.tell(at(second), Event::Settled { intent, outcome: Ok(Done::Plain) });
        }
        let holds = Ok(std::collections::BTreeSet::new());
        node.tell(at(second), Event::Kernel { asked_at: at(second), holds });
    }
    given_back.sort();
    assert_eq!(given_back, [("eni-1".to_owned(), 1), ("eni-6".to_owned(), 1), ("eni-7".to_owned(), 1)]);
}

#[test]
fn the_del_of_a_pod_returns_its_address_on_each_card() {
    let (mut node, _) = ready(policy(true), &[eni(0, 2), on_card(1, 1, 5, 2), on_card(3, 1, 6, 2)]);
    for card in [0, 1, 3] {
        assert_eq!(granted(&add(&mut node, 1, "a", card)).len(), 1);
        assert_eq!(granted(&add(&mut node, 1, "b", card)).len(), 1);
    }
    let key = PodKey::new("pods", "a", "eth0").unwrap();
    let released = |commands: &[Command]| {
        commands
            .iter()
            .filter(|command| matches!(command, Command::Release { released, .. } if !released.is_empty()))
            .count()
    };
    assert_eq!(released(&node.tell(at(2), Event::Del { ticket: Ticket(9), key: key.clone() })), 3);
    assert_eq!(node.engine.leases().count(), 3, "those of the other pod");
    assert_eq!(released(&node.tell(at(3), Event::Del { ticket: Ticket(9), key })), 0);
}
