//! A pod's end in two parts: what DEL does at once, and what is left to the daemon.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod world;

use std::net::IpAddr;

use eni_datapath::{
    Netns, PodWiring, add_pod, del_pod, delete_ended, end_pod, find_pod, forget_addresses, observe_pods, remove_ended,
};
use eni_proto::VethPrefix;
use world::{MARK, World, address, ip, snapshot, try_run, wiring};

const ADDRESS: [u8; 4] = [10, 0, 1, 7];

fn prefix() -> VethPrefix {
    VethPrefix::default()
}

#[test]
fn an_ended_pod_is_cut_off_at_once_and_its_link_goes_with_all_others() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pods: Vec<_> = (0..3).map(|_| Netns::fresh().unwrap()).collect();
    let wirings: Vec<_> = (0u8..)
        .zip(&pods)
        .map(|(n, pod)| wiring(&format!("c{n}"), &format!("web-{n}"), [10, 0, 1, n + 1], MARK, pod))
        .collect();
    let all: Vec<_> = wirings.iter().map(|wiring| world.on_node(|| add_pod(wiring)).unwrap()).collect();
    assert!(end(&world, &wirings[0]) && end(&world, &wirings[1]) && end(&world, &wirings[1]), "repeatable");

    let state = world.on_node(|| observe_pods(&prefix())).unwrap();
    assert_eq!(state.routes.into_iter().collect::<Vec<_>>(), [(address(&wirings[2]), all[2].host_index)]);
    assert_eq!(state.marks.len(), 3, "an element without a link has no effect");
    assert_eq!(state.links.iter().filter(|link| link.alias.is_some()).count(), 1, "no daemon takes it for a pod's");
    assert_eq!(world.on_node(|| find_pod(&wirings[0].key)).unwrap(), None);
    // Whatever the pod still sends is dropped.
    world.on_node(|| ip("address add 10.0.0.77/32 dev lo"));
    let answers = |pod: &Netns, seconds| {
        let ping = format!("-c 1 -W {seconds} 10.0.0.77");
        pod.inside(|| try_run("ping", &ping).status.success()).unwrap()
    };
    assert!(!answers(&pods[0], 1) && answers(&pods[2], 20));
    world.on_node(|| ip("address delete 10.0.0.77/32 dev lo"));

    // One that nobody has does not keep the others.
    let addresses = [address(&wirings[0]), address(&wirings[1]), IpAddr::from([10, 0, 9, 9])].into();
    assert_eq!(world.on_node(|| forget_addresses(&addresses)).unwrap(), 2);
    assert_eq!(world.on_node(|| forget_addresses(&addresses)).unwrap(), 0);
    world.on_node(delete_ended).unwrap();
    world.on_node(delete_ended).unwrap();
    for pod in &pods[..2] {
        assert!(!pod.inside(|| ip("link")).unwrap().contains("eth0"));
    }
    assert!(!end(&world, &wirings[1]), "nothing is left of it");
    world.on_node(|| del_pod(&prefix(), &wirings[2].key, &wirings[2].pod, None)).unwrap();
    assert_eq!(world.on_node(snapshot), before);
}

#[test]
fn an_ended_pod_can_be_removed_alone() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    world.on_node(|| add_pod(&wiring)).unwrap();
    let ended = world.on_node(|| end_pod(&prefix(), &wiring.key, &wiring.pod)).unwrap().unwrap();
    world.on_node(|| {
        ip(&format!("link set {} name renamed0", eni_proto::host_link_name(&prefix(), &wiring.key, &wiring.pod)))
    });
    assert!(end(&world, &wiring), "found by its label");
    world.on_node(|| remove_ended(&ended)).unwrap();
    world.on_node(|| remove_ended(&ended)).unwrap();
    assert_eq!(world.on_node(snapshot), before);
}

#[test]
fn names_and_address_of_an_ended_pod_are_free_for_the_next() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let (pod, other) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let ended = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    #[rustfmt::skip]
    let table = [
        ("the same attachment",              wiring("c1", "web-0", ADDRESS, MARK, &pod)),
        ("the pod's next sandbox",           wiring("c2", "web-0", ADDRESS, MARK, &other)),
        ("another pod in the same sandbox",  wiring("c2", "web-1", ADDRESS, MARK, &pod)),
        ("another pod with the address",     wiring("c2", "web-1", ADDRESS, MARK, &other)),
    ];
    for (who, next) in &table {
        world.on_node(|| add_pod(&ended)).unwrap();
        assert!(end(&world, &ended));
        let wired = world.on_node(|| add_pod(next)).unwrap();
        // Whoever is late ends nothing of the next.
        world.on_node(delete_ended).unwrap();
        if next.key != ended.key {
            assert!(!end(&world, &ended), "{who}");
        }
        let state = world.on_node(|| observe_pods(&prefix())).unwrap();
        assert_eq!(state.routes.get(&address(next)), Some(&wired.host_index), "{who}");
        assert_eq!((state.links.len(), state.marks.len()), (1, 1), "{who}: {state:?}");
        world.on_node(|| del_pod(&prefix(), &next.key, &next.pod, None)).unwrap();
        assert_eq!(world.on_node(snapshot), before, "{who}");
    }
}

/// Whether a link is left to delete.
fn end(world: &World, wiring: &PodWiring) -> bool {
    world.on_node(|| end_pod(&prefix(), &wiring.key, &wiring.pod).expect("the kernel refuses nothing")).is_some()
}
