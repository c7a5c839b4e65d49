//! Pods on a real kernel: wired, taken back, wired again.

mod world;

use eni_datapath::{Netns, add_pod, del_pod};
use eni_proto::VethPrefix;
use world::{MARK, World, snapshot, wiring};

#[test]
fn a_pod_is_wired_and_taken_back_without_a_trace() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod);

    let wired = world.on_node(|| add_pod(&wiring)).unwrap();
    assert!(world.on_node(snapshot).contains(&wired.host_link));
    let alias = world.on_node(|| del_pod(&VethPrefix::default(), &wiring.key, &wiring.pod)).unwrap();
    assert_eq!(alias.map(|alias| alias.address), Some(wiring.network.ipv4));
    assert_eq!(world.on_node(snapshot), before);
}
