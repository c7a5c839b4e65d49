//! What the engine believes of what EC2, the kernel and an earlier run say.

use super::*;

/// I12.
#[test]
fn an_interface_that_a_description_omits_keeps_its_leases() {
    let mut engine = ready(warm(1), &[eni(0, 2), eni(1, 2)]);
    for (n, pod) in ["a", "b", "c"].iter().enumerate() {
        engine.handle(at(1), add(n as u64, pod, 20));
    }
    let before: Vec<_> = engine.leases().cloned().collect();
    for second in (100..400).step_by(50) {
        engine.handle(
            at(second),
            Event::Observed { asked_at: at(second), scope: Scope::Attached, interfaces: vec![eni(0, 0)] },
        );
    }
    assert_eq!(engine.leases().cloned().collect::<Vec<_>>(), before);
    assert!(engine.pool().eni(&"eni-2".parse().unwrap()).is_some());
}

#[test]
fn an_operators_interface_is_left_alone() {
    let mut theirs = eni(1, 5);
    theirs.tags.insert(numbers::TAG_NO_MANAGE.to_owned(), "true".to_owned());
    let mut engine = engine(warm(1));
    engine.handle(at(0), Event::Tick);
    let commands = engine.handle(
        at(0),
        Event::Observed { asked_at: at(0), scope: Scope::Attached, interfaces: vec![eni(0, 0), theirs] },
    );
    let prepared: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::PrepareHost { interface } => Some(interface.id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(prepared, ["eni-1"]);
    assert_eq!(engine.status(at(0)).free, 0);
}

#[test]
fn an_interface_leaves_the_kernel_before_it_leaves_the_node() {
    let mut engine = ready(warm(1), &[eni(0, 5), eni(1, 3)]);
    let commands = settle_surplus(&mut engine, 100);
    let forget = commands.iter().position(|c| matches!(c, Command::ForgetHost { .. }));
    let detach = commands.iter().position(|c| matches!(c, Command::Start { action: Action::Detach { .. }, .. }));
    assert!(forget.is_some() && forget < detach, "{commands:?}");
}

/// I10.
#[test]
fn the_same_events_give_the_same_commands() {
    let run = || {
        let mut engine = ready(warm(2), &[eni(0, 4)]);
        (0..10).map(|n| engine.handle(at(n), add(n, &format!("p{n}"), 20))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_lease_that_was_answered_twice_outlives_a_failed_write() {
    let mut engine = ready(warm(1), &[eni(0, 5)]);
    engine.handle(at(1), add(1, "a", 20));
    engine.handle(at(1), add(2, "a", 20));
    engine.handle(at(1), Event::StoreFailed { key: key("a") });
    assert!(engine.lease(&key("a")).is_some(), "the second answer may have been stored");
}

#[test]
fn a_permission_that_only_tidying_needs_does_not_stop_growth() {
    let mut engine = ready(warm(1), &[eni(0, 1), Interface { tags: BTreeMap::new(), ..eni(1, 0) }]);
    let mut loose = eni(2, 0);
    loose.attachment.iter_mut().for_each(|attachment| attachment.delete_on_termination = false);
    let commands = engine
        .handle(at(1), Event::Observed { asked_at: at(1), scope: Scope::Attached, interfaces: vec![eni(0, 1), loose] });
    let (intent, action) = started(&commands).remove(0);
    assert!(matches!(action, Action::DeleteOnTermination { .. }), "{action:?}");
    engine.handle(at(2), Event::Settled { intent, outcome: Err(refusal(RefusalClass::NotAllowed)) });
    engine.handle(at(3), add(1, "a", 20));
    let commands = engine.handle(at(3), add(2, "b", 20));
    assert_eq!(refused(&commands), []);
    assert_eq!(refused(&soon_after(&mut engine, 3)), []);
    assert!(engine.intents.values().any(|action| matches!(action, Action::Assign { .. })), "{:?}", engine.intents);
}

#[test]
fn a_description_that_lags_does_not_bring_back_what_was_given_away() {
    let mut engine = ready(warm(1), &[eni(0, 5)]);
    let commands = settle_surplus(&mut engine, 90);
    let (intent, _) = started(&commands).remove(0);
    engine.handle(at(91), Event::Settled { intent, outcome: Ok(Done::Plain) });
    engine.handle(at(92), Event::Observed { asked_at: at(92), scope: Scope::Attached, interfaces: vec![eni(0, 5)] });
    assert_eq!(engine.status(at(92)).free, 1);
}

#[test]
fn resting_addresses_are_promised_to_one_waiting_pod_each() {
    let mut engine = ready(warm(0), &[eni(0, 9), eni(1, 9), eni(2, 9)]);
    for pod in 0..27 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 100));
    }
    engine.handle(at(2), del("p3"));
    assert_eq!(refused(&engine.handle(at(20), add(50, "first", 40))), []);
    assert_eq!(refused(&engine.handle(at(20), add(51, "second", 40))), [(51, RefusalCode::NodeFull)]);
    assert_eq!(granted(&engine.handle(at(32), Event::Tick)).len(), 1);
}

/// A description that overtakes the answer to a Create shows the new ENI too early: it is no spare one.
#[test]
fn an_interface_that_is_just_being_created_is_not_taken_for_a_spare_one() {
    let mut engine = ready(warm(0), &[eni(0, 9)]);
    for pod in 0..9 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 100));
    }
    soon_after(&mut engine, 1);
    let creating = engine.intents.values().any(|action| matches!(action, Action::Create { .. }));
    assert!(creating, "{:?}", engine.intents);
    let fresh = Interface { attachment: None, ..eni(1, 9) };
    let commands = engine
        .handle(at(2), Event::Observed { asked_at: at(2), scope: Scope::Attached, interfaces: vec![eni(0, 9), fresh] });
    assert_eq!(started(&commands), []);
}

#[test]
fn a_lease_without_a_sandbox_ends_unless_its_key_was_answered_since() {
    let released = |engine: &mut Engine, now, seen_at| -> Option<IpAddr> {
        let event = Event::Reclaim { ticket: Ticket(9), key: key("a"), seen_at: at(seen_at) };
        let commands = engine.handle(at(now), event);
        commands
            .into_iter()
            .find_map(|command| match command {
                Command::Release { ticket: Some(Ticket(9)), released, .. } => Some(released),
                _ => None,
            })?
            .first()
            .map(|rest| rest.address)
    };
    let mut engine = ready(warm(1), &[eni(0, 2)]);
    engine.handle(at(10), add(1, "a", 30));

    assert_eq!(released(&mut engine, 11, 10), None, "seen before the lease was given, or at that moment");
    engine.handle(at(12), add(2, "a", 30));
    assert_eq!(released(&mut engine, 13, 12), None, "an ADD has asked again since");
    assert_eq!(released(&mut engine, 14, 13), Some([10, 0, 0, 10].into()));
    assert_eq!(released(&mut engine, 15, 14), None, "it has ended already");
}

fn observed(asked_at: u64, interfaces: &[Interface]) -> Event {
    Event::Observed { asked_at: at(asked_at), scope: Scope::Attached, interfaces: interfaces.to_vec() }
}

#[test]
fn pods_are_served_from_what_an_earlier_run_knew_and_nothing_is_changed_on_its_word() {
    let mut engine = engine(warm(1));
    let commands = engine.handle(at(0), Event::Remembered { interfaces: vec![eni(0, 5)] });
    assert!(commands.contains(&Command::PrepareHost { interface: eni(0, 5) }), "{commands:?}");
    engine.handle(at(0), Event::HostReady { eni: eni(0, 5).id });
    let commands = engine.handle(at(1), add(1, "a", 20));
    assert_eq!(granted(&commands), [(1, Ipv4Addr::new(10, 0, 0, 10))]);
    assert!(started(&commands).is_empty(), "{commands:?}");
}

#[test]
fn what_an_earlier_run_left_open_is_looked_at_before_its_interface_is_changed() {
    let mut engine = engine(warm(8));
    let half = || Amount::Addresses(4);
    engine.handle(at(0), Event::LeftOpen { action: Action::Assign { eni: eni(0, 0).id, amount: half() } });
    let commands = engine.handle(at(0), observed(0, &[eni(0, 4)]));
    assert!(started(&commands).is_empty(), "{commands:?}");
    let commands = engine.handle(at(5), observed(5, &[eni(0, 8)]));
    assert!(started(&commands).is_empty(), "what was asked for has come: {commands:?}");
}

#[test]
fn an_address_that_an_earlier_run_was_giving_back_is_given_to_nobody() {
    let mut engine = engine(warm(5));
    let holdings =
        crate::ports::Holdings { addresses: vec![Ipv4Addr::new(10, 0, 0, 10)], prefixes: vec![], prefixes6: vec![] };
    engine.handle(at(0), Event::Remembered { interfaces: vec![eni(0, 2)] });
    engine.handle(at(0), Event::LeftOpen { action: Action::Unassign { eni: eni(0, 2).id, holdings } });
    engine.handle(at(0), Event::HostReady { eni: eni(0, 2).id });
    assert_eq!(granted(&engine.handle(at(1), add(1, "a", 20))), [(1, Ipv4Addr::new(10, 0, 0, 11))]);
    assert_eq!(granted(&engine.handle(at(1), add(2, "b", 20))), []);
}

#[test]
fn an_interface_that_an_earlier_run_was_detaching_serves_nobody_while_that_may_still_happen() {
    let mut engine = engine(warm(5));
    let (id, attachment) = (eni(1, 2).id, eni(1, 2).attachment.unwrap().id);
    engine.handle(at(0), Event::Remembered { interfaces: vec![eni(0, 0), eni(1, 2)] });
    engine.handle(at(0), Event::LeftOpen { action: Action::Detach { eni: id.clone(), attachment } });
    engine.handle(at(0), observed(0, &[eni(0, 0), eni(1, 2)]));
    engine.handle(at(0), Event::HostReady { eni: id });
    assert_eq!(granted(&engine.handle(at(1), add(1, "a", 20))), []);
}
