mod disturbed;
#[path = "../../tests/world/mod.rs"]
pub(super) mod world;

use std::io;

use world::{MARK, World, ip, snapshot, wiring};

use super::*;

const ADDRESS: [u8; 4] = [10, 0, 1, 7];

#[test]
fn an_add_that_fails_at_any_step_is_taken_back() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    for failing in [Step::PairMade, Step::HostDone, Step::MapDone, Step::PodDone] {
        let error = world.on_node(|| {
            let fail = |step| if step == failing { Err(io::ErrorKind::Other.into()) } else { Ok(()) };
            add(&wiring, &mut |step| fail(step).map_err(WireError::Socket)).unwrap_err()
        });
        assert!(matches!(error, WireError::Socket(_)), "{error:?}");
        assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before, "failed at {failing:?}");
    }
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
