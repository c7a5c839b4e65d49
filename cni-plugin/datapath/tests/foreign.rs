//! Others rename links, take them away, and use numbers that are ours: it is mended, or told, and counted.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::time::Instant;

use eni_datapath::{EniError, Guard, Kind, Outcome, Repair, observe_pods, prepare_eni};
use eni_proto::VethPrefix;
use world::{
    MAC1, World, eni_plan,
    guarded::{Guarded, PATIENCE, settled, until_gate_is_free},
    host_plan, ip, path, ruleset,
};

/// Waits until the guard has told something like this, and returns it.
fn told(node: &Guarded, wanted: impl Fn(&Repair) -> bool) -> Repair {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let repairs = node.repairs();
        if let Some(repair) = repairs.iter().find(|repair| wanted(repair)) {
            return repair.clone();
        }
        assert!(Instant::now() < deadline, "{repairs:#?}");
        std::thread::yield_now();
    }
}

#[test]
fn a_pods_link_that_somebody_renames_gets_its_name_back() {
    let node = Guarded::new();
    let right = node.world.on_node(settled);
    let name = node.world.on_node(|| observe_pods(&VethPrefix::default()).unwrap().links[1].name.clone());
    node.world.on_node(|| ip(&format!("link set {name} name docker7")));
    node.wait_for(&right, "a new name");
    let repair = told(&node, |repair| repair.what.contains("its name back"));
    assert_eq!((repair.kind, repair.outcome), (Kind::Link, Outcome::Mended));
}

#[test]
fn a_link_that_somebody_renamed_while_no_guard_looked_gets_its_own_name_back() {
    let Guarded { guard, pods, world, repairs, _netns } = Guarded::new();
    let right = world.on_node(settled);
    drop(guard);
    world.on_node(until_gate_is_free);
    let links = world.on_node(|| observe_pods(&VethPrefix::default()).unwrap().links);
    world.on_node(|| {
        // One looks like a pod's still, the other like nobody's.
        ip(&format!("link set {} name eniother", links[0].name));
        ip(&format!("link set {} name docker7", links[1].name));
    });
    let told = std::sync::Arc::clone(&repairs);
    let report = move |repair: &Repair| told.lock().unwrap().push(repair.clone());
    let guard = world.on_node(|| {
        let guard = Guard::start(&VethPrefix::default(), report).unwrap();
        guard.prepare_host(&host_plan()).unwrap();
        guard.prepare_eni(&eni_plan()).unwrap();
        guard
    });
    let node = Guarded { guard, pods, world, repairs, _netns };
    node.wait_for(&right, "new names and a new guard");
}

/// Our table names the primary ENI's link; of a secondary one nothing depends on the name.
#[test]
fn an_eni_that_somebody_renames_carries_on_under_the_new_name() {
    let node = Guarded::new();
    node.world.on_node(|| {
        ip("link set eth0 name ens5");
        let deadline = Instant::now() + PATIENCE;
        while ruleset().contains("\"eth0\"") {
            assert!(Instant::now() < deadline, "{}\n{:#?}", ruleset(), node.repairs());
        }
        assert!(ruleset().contains("\"ens5\""));
        ip("link set eth1 name ens6");
        assert_eq!(node.guard.prepare_eni(&eni_plan()).unwrap(), "ens6");
        // A repair of something else shows that the guard has looked.
        ip("rule del priority 512");
    });
    told(&node, |repair| repair.kind == Kind::Rule && repair.outcome == Outcome::Mended);
    assert!(
        node.repairs().iter().all(|repair| matches!(repair.kind, Kind::Rule | Kind::Table)),
        "{:#?}",
        node.repairs()
    );
}

#[test]
fn an_eni_whose_link_goes_and_comes_back_is_made_right_again() {
    let node = Guarded::new();
    let right = node.world.on_node(|| ip("route show table 2"));
    assert!(right.contains("default via 10.0.0.1 dev eth1"), "{right}");
    node.world.on_node(|| ip("link del eth1"));
    // What can be mended meanwhile is.
    node.world.on_node(|| ip("rule del priority 512"));
    told(&node, |repair| repair.what.contains("rule 512"));
    let error = node.world.on_node(|| prepare_eni(&eni_plan())).unwrap_err();
    assert!(matches!(error, EniError::LinkMissing { mac } if mac == MAC1), "{error:?}");
    // Under another name, as a second hot-plug may give it.
    let fabric = path(&node.world.fabric);
    node.world.on_node(|| {
        ip(&format!("link add ens9 address {MAC1} mtu 9001 type veth peer name f1 mtu 9001 netns {fabric}"));
        let wanted = right.replace("eth1", "ens9");
        let deadline = Instant::now() + PATIENCE;
        while ip("route show table 2").replace(" linkdown", "") != wanted.replace(" linkdown", "") {
            assert!(Instant::now() < deadline, "{}\n{:#?}", ip("route show table 2"), node.repairs());
        }
    });
}

#[test]
fn a_priority_and_a_table_of_ours_that_others_use_are_told_once() {
    let node = Guarded::new();
    node.world.on_node(|| {
        ip("rule add priority 512 from 192.168.0.1 lookup 77");
        ip("route add 10.9.0.0/16 dev eth0 table 2");
    });
    let rule = told(&node, |repair| repair.kind == Kind::Rule);
    assert_eq!(rule.outcome, Outcome::Taken);
    assert_eq!(
        rule.to_string(),
        "somebody else uses what is ours: a rule of priority 512 to table 77; see `ip rule show priority 512`"
    );
    let route = told(&node, |repair| repair.kind == Kind::Route);
    assert!(route.what.starts_with("a route to 10.9.0.0/16 "), "{route}");
    // Looks that follow do not tell it again, and what is not ours is left as it is.
    node.look_again();
    node.look_again();
    assert_eq!(node.repairs().len(), 2, "{:#?}", node.repairs());
    assert!(node.world.on_node(|| ip("rule")).contains("192.168.0.1"));
    let drift = node.guard.drift();
    assert_eq!((drift.kinds[&Kind::Rule].taken, drift.kinds[&Kind::Route].taken), (1, 1));
}

/// A default route of somebody else in an ENI's table would send its pods' packets elsewhere.
#[test]
fn a_table_that_leads_elsewhere_before_us_is_ours_right_after() {
    let world = World::new();
    world.on_node(|| ip("route add default via 10.0.0.1 dev eth0 onlink table 2"));
    let node = Guarded::on(world);
    let deadline = Instant::now() + PATIENCE;
    node.world.on_node(|| {
        while !ip("route show table 2").contains("default via 10.0.0.1 dev eth1") {
            assert!(Instant::now() < deadline, "{}\n{:#?}", ip("route show table 2"), node.repairs());
        }
    });
}

#[test]
fn what_was_mended_is_counted_by_kind_with_its_time() {
    let node = Guarded::new();
    let right = node.world.on_node(settled);
    node.world.on_node(|| {
        ip("route flush table 2");
        node.wait_for(&right, "flush");
    });
    let route = node.guard.drift().kinds[&Kind::Route];
    // `ip` looks again after it has flushed, and flushes what is there again.
    assert!(route.mended >= 2, "{route:?}");
    assert_eq!((route.refused, route.left_alone, route.resting), (0, 0, 0));
    assert!(!route.took.is_zero() && route.within.is_sorted());
}
