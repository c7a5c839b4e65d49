//! What is not ours is left alone, what is ours follows the primary ENI, and no change waits for another ENI's.

use super::*;
use crate::{CustomNetwork, SecurityGroupId, ports::InterfaceKind};

fn group(name: &str) -> SecurityGroupId {
    format!("sg-{name}").parse().unwrap()
}

fn groups(engine: &mut Engine, second: u64, name: &str) -> Vec<(IntentId, Action)> {
    started(&engine.handle(at(second), Event::SecurityGroups { security_groups: vec![group(name)] }))
}

#[test]
fn interfaces_for_other_purposes_and_other_cards_are_left_alone_but_take_their_places() {
    let (mut efa, mut trunk, mut far) = (eni(1, 3), eni(2, 3), eni(3, 3));
    (efa.kind, trunk.kind) = (InterfaceKind::Efa, InterfaceKind::Trunk);
    far.attachment.as_mut().unwrap().card = 1;
    let mut engine = ready(warm(1), &[eni(0, 9), efa, trunk, far]);
    for pod in 0..9 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 99));
    }
    // Two of three places of the default card are theirs; the other card does not count.
    let commands = engine.handle(at(2), add(9, "p9", 99));
    assert_eq!(granted(&commands), []);
    assert_eq!(refused(&commands), [(9, RefusalCode::NodeFull)]);
    engine.handle(at(200), Event::Kernel { asked_at: at(200), holds: Ok(BTreeSet::new()) });
    let mut later = engine.handle(at(200), Event::Tick);
    later.extend(engine.handle(at(400), Event::Tick));
    assert_eq!(started(&later), []);
    assert_eq!(engine.status(at(400)).leased, 9);
}

#[test]
fn a_pod_hears_that_the_last_place_is_kept_for_the_trunk_until_that_is_there() {
    let policy = Policy { trunk: true, ..warm(1) };
    let mut engine = ready(policy, &[eni(0, 9), eni(1, 9)]);
    for pod in 0..18 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 99));
    }
    let commands = engine.handle(at(2), add(18, "p18", 99));
    let Some(Command::Refuse { refusal, .. }) = commands.first() else { panic!("{commands:?}") };
    assert_eq!(refusal.code, RefusalCode::NodeFull);
    assert!(
        refusal.message.contains("all 2 interfaces are full, and ENABLE_POD_ENI keeps one more place"),
        "{refusal}"
    );

    let mut trunk = eni(2, 0);
    trunk.kind = InterfaceKind::Trunk;
    let interfaces = vec![eni(0, 9), eni(1, 9), trunk];
    engine.handle(at(3), Event::Observed { asked_at: at(3), scope: Scope::Attached, interfaces });
    let commands = engine.handle(at(4), add(19, "p19", 99));
    let Some(Command::Refuse { refusal, .. }) = commands.first() else { panic!("{commands:?}") };
    assert!(refusal.message.contains("all 3 interfaces are full and m5.large allows no more"), "{refusal}");
}

#[test]
fn security_groups_of_our_interfaces_follow_the_primary_one() {
    let mut theirs = eni(2, 2);
    theirs.tags.clear();
    let mut engine = ready(warm(1), &[eni(0, 1), eni(1, 1), theirs]);
    let changes = groups(&mut engine, 1, "new");
    let [(intent, Action::SecurityGroups { eni: changed, security_groups })] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!((changed, &security_groups[..]), (&eni(1, 1).id, &[group("new")][..]));
    engine.handle(at(2), Event::Settled { intent: intent.clone(), outcome: Ok(Done::Plain) });
    assert_eq!(groups(&mut engine, 3, "new"), [], "they have them");
}

#[test]
fn with_custom_networking_security_groups_stay_as_configured() {
    let network = CustomNetwork { subnet: "subnet-1".parse().unwrap(), security_groups: vec![group("own")] };
    let custom = Policy { placement: Placement::Custom(network), ..warm(1) };
    let mut engine = ready(custom, &[eni(0, 0), eni(1, 1)]);
    assert_eq!(groups(&mut engine, 1, "new"), []);
}

#[test]
fn a_change_of_one_interface_does_not_hold_up_those_of_others() {
    let mut engine = ready(warm(1), &[eni(0, 1), eni(1, 0)]);
    // One ENI is being detached when pods come: another is filled and a third one made at once.
    let detach = Action::Detach { eni: eni(1, 0).id, attachment: "eni-attach-2".parse().unwrap() };
    engine.left_open(at(2), detach);
    for pod in 0..12 {
        engine.handle(at(2), add(pod, &format!("p{pod}"), 99));
    }
    let due = Moment::from_millis(2_010);
    let mut begun = Vec::new();
    while let Some(wake) = engine.next_wake().filter(|wake| *wake <= due) {
        begun.extend(started(&engine.handle(wake, Event::Tick)));
    }
    let fills =
        |(_, action): &(IntentId, Action)| matches!(action, Action::Assign { eni: id, .. } if *id == eni(0, 1).id);
    let makes = |(_, action): &(IntentId, Action)| matches!(action, Action::Create { .. });
    assert!(begun.iter().any(fills), "{begun:?}");
    assert!(begun.iter().any(makes), "{begun:?}");
}
