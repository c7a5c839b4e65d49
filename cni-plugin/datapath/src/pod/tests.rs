mod disturbed;
#[path = "../../tests/world/mod.rs"]
pub(super) mod world;

use std::{io, net::Ipv6Addr};

use eni_proto::PodAddresses;
use world::{MARK, World, ip, ruleset, snapshot, wiring};

use super::*;

const ADDRESS: [u8; 4] = [10, 0, 1, 7];
const ADDRESS_V6: Ipv6Addr = Ipv6Addr::new(0x2600, 0x1f00, 0, 0, 0xb, 0, 0, 1);

/// What is there of both families.
fn state() -> String {
    format!("{}\n{}\n{}", snapshot(), ip("-6 route show table all proto 142"), ip("-6 neighbour show nud permanent"))
}

/// Without a guard: what such an ADD leaves, nobody removes.
#[test]
fn an_add_that_fails_at_any_step_is_taken_back() {
    let world = World::new();
    world.on_node(|| {
        crate::prepare_host(&crate::HostPlan { ipv6: true, ..world::host_plan() }).unwrap();
        crate::prepare_eni(&crate::EniPlan { ipv6: true, ..world::eni_plan() }).unwrap();
    });
    world.activate();
    let pod = Netns::fresh().unwrap();
    let mut wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let before = (world.on_node(state), pod.inside(state).unwrap());
    for addresses in [PodAddresses::V4(ADDRESS.into()), PodAddresses::Dual(ADDRESS.into(), ADDRESS_V6)] {
        wiring.network.addresses = addresses;
        for failing in [Step::PairMade, Step::HostDone, Step::MapDone, Step::PodDone] {
            let error = world.on_node(|| {
                add(&wiring, &mut |step| {
                    if step != failing {
                        return Ok(());
                    }
                    let marked = matches!(step, Step::MapDone | Step::PodDone);
                    let elements = if marked { addresses.all().count() } else { 0 };
                    assert_eq!(ruleset().matches(": jump eni_2").count(), elements, "{step:?}");
                    Err(WireError::Socket(io::ErrorKind::Other.into()))
                })
                .unwrap_err()
            });
            assert!(matches!(error, WireError::Socket(_)), "{error:?}");
            assert_eq!((world.on_node(state), pod.inside(state).unwrap()), before, "{addresses} failed at {failing:?}");
        }
    }
}

#[test]
fn an_add_that_fails_leaves_an_address_to_the_pod_that_has_it_by_now() {
    let world = World::prepared();
    let (pod, other) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let failing = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let holding = wiring("c2", "web-1", ADDRESS, MARK, &other);
    let mut held = String::new();
    world.on_node(|| {
        let taken_away = |step| {
            if step != Step::MapDone {
                return Ok(());
            }
            assert!(forget_address(IpAddr::from(ADDRESS))?);
            held = add_pod(&holding)?.host_link;
            Err(WireError::Socket(io::ErrorKind::Other.into()))
        };
        add(&failing, &mut { taken_away }).unwrap_err();
    });
    let (map, routes, links) = world.on_node(|| (ruleset(), ip("route show table 20000"), ip("link")));
    assert!(map.contains("elements = { 10.0.1.7 : jump eni_2 }"), "{map}");
    assert!(routes.starts_with(&format!("10.0.1.7 dev {held} ")) && links.matches(": eni").count() == 1, "{links}");
}

#[test]
fn an_add_that_died_at_any_step_is_finished_by_its_repetition_or_taken_by_its_del() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    for dying in [Step::PairMade, Step::HostDone, Step::MapDone, Step::PodDone] {
        for repeat in [true, false] {
            let pod = Netns::fresh().unwrap();
            let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
            world.on_node(|| die_at(&wiring, dying));
            if repeat {
                world.on_node(|| add_pod(&wiring).unwrap());
                assert!(pod.inside(|| ip("route")).unwrap().contains("default via 169.254.1.1"), "died at {dying:?}");
            }
            world.on_node(|| del_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod, None).unwrap());
            assert_eq!(world.on_node(snapshot), before, "died at {dying:?}");
        }
    }
}

#[test]
fn a_late_del_does_not_hurt_a_newer_sandbox_that_is_not_labelled_yet() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let newer = wiring("new", "web-0", ADDRESS, MARK, &pod);
    let older = wiring("old", "web-0", [10, 0, 1, 8], MARK, &pod);
    world.on_node(|| {
        die_at(&newer, Step::PairMade);
        let unlabelled = snapshot();
        assert_eq!(del_pod(&older.network.veth_prefix, &older.key, &older.pod, None).unwrap(), None);
        assert_eq!(snapshot(), unlabelled);
    });
}

#[test]
fn hardware_addresses_are_local_unicast_and_the_keys_own() {
    let keys = ["a", "b"].map(|container| PodKey::new("pods", container, "eth0").unwrap());
    let macs: Vec<MacAddress> = keys.iter().flat_map(|key| [plan::mac(key, "host"), plan::mac(key, "pod")]).collect();
    assert!(macs.iter().all(|mac| mac.0[0] & 3 == 2), "{macs:?}");
    assert!(macs.iter().enumerate().all(|(at, mac)| !macs[..at].contains(mac)), "{macs:?}");
    assert_eq!(plan::mac(&keys[0], "host"), macs[0]);
}

/// Leaves behind what `kill -9` at this step would.
fn die_at(wiring: &PodWiring, dying: Step) {
    let died =
        std::panic::catch_unwind(|| add(wiring, &mut |step| if step == dying { panic!("killed") } else { Ok(()) }));
    assert!(died.is_err());
}
