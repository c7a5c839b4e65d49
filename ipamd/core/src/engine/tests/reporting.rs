//! What is told of the pool and the plan.

use super::*;

#[test]
fn every_address_is_in_one_state() {
    let mut engine = ready(warm(1), &[eni(0, 3)]);
    engine.handle(at(1), add(1, "a", 20));
    engine.handle(at(1), add(2, "b", 20));
    engine.handle(at(2), del("a"));
    let status = engine.status(at(3));
    let states: Vec<_> = status.enis[0].addresses.iter().map(|(_, state)| state.clone()).collect();
    assert_eq!(states, [AddressState::Cooling(at(32)), AddressState::Leased(key("b")), AddressState::Free]);
    assert!(status.enis[0].carries_pods);
    assert_eq!((status.free, status.leased, status.cooling), (1, 1, 1));
}

#[test]
fn what_a_full_node_waits_for_is_a_pod_to_end() {
    let mut engine = ready(warm(0), &[eni(0, 9), eni(1, 9), eni(2, 9)]);
    for pod in 0..27 {
        engine.handle(at(1), add(pod, &format!("p{pod}"), 100));
    }
    engine.handle(at(2), add(99, "p99", 22));
    let plan = engine.plan_status(at(2));
    assert_eq!(plan.waiting.iter().map(|waiting| waiting.kind).collect::<Vec<_>>(), [WaitingFor::Pods], "{plan:?}");
    assert_eq!(plan.waiting[0].to_string(), "all 3 interfaces are full");
}

#[test]
fn what_is_under_way_is_told_in_words() {
    let mut engine = ready(warm(0), &[eni(0, 1)]);
    engine.handle(at(1), add(1, "a", 20));
    soon_after(&mut engine, 1);
    let plan = engine.plan_status(at(1));
    assert_eq!(plan.under_way.len(), 1);
    assert_eq!(plan.under_way[0].1, "ask for 8 addresses on eni-1");
    assert!(plan.waiting.iter().any(|waiting| waiting.kind == WaitingFor::Ec2), "{plan:?}");
}
