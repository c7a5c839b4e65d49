//! Somebody else is at work on the same things while a pod is wired: it works all the same, or fails and leaves nothing.

use std::time::{Duration, Instant};

use eni_proto::{EniMark, PodAddresses};

use super::{
    world::{MARK, World, ip, run, snapshot, wiring},
    *,
};

const ADDRESS: [u8; 4] = [10, 0, 1, 7];
const PATIENCE: Duration = Duration::from_secs(20);

fn name(wiring: &PodWiring) -> String {
    plan::veth_pair(wiring).host_name
}

/// Waits until the node is as it was: the kernel takes a namespace down in the background.
fn wait_for(world: &World, wanted: &str, after: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = world.on_node(snapshot);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "after {after}: found {found}\nwanted {wanted}");
        std::thread::yield_now();
    }
}

#[test]
fn a_link_that_somebody_deletes_midway_fails_the_add_which_leaves_nothing() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    for at in [Step::PairMade, Step::HostDone, Step::MapDone] {
        let error = world.on_node(|| {
            let delete = |step| {
                if step == at {
                    ip(&format!("link del {}", name(&wiring)));
                }
                Ok(())
            };
            add(&wiring, &mut { delete }).unwrap_err()
        });
        match at {
            Step::PairMade => assert!(matches!(error, WireError::LinkTaken { .. }), "{error:?}"),
            Step::HostDone | Step::MapDone | Step::PodDone => {
                assert!(matches!(error, WireError::InPod(_) | WireError::Refused { .. }), "{error:?}");
            }
        }
        assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before, "deleted at {at:?}");
    }
}

/// Until the link is ours for sure, its settings are found by its name.
#[test]
fn a_link_that_somebody_renames_midway_is_refused_at_first_and_no_matter_later() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    for at in [Step::PairMade, Step::HostDone, Step::MapDone, Step::PodDone] {
        let pod = Netns::fresh().unwrap();
        let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
        let added = world.on_node(|| {
            let rename = |step| {
                if step == at {
                    ip(&format!("link set {} name docker9", name(&wiring)));
                }
                Ok(())
            };
            add(&wiring, &mut { rename })
        });
        if at == Step::PairMade {
            let error = added.unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("somebody renamed or deleted link {} while it was set up", name(&wiring))
            );
        } else {
            assert!(world.on_node(|| ip("route show table 20000")).contains("dev docker9"), "{added:?}");
            let removed = world.on_node(|| del_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod, None));
            assert!(removed.unwrap().is_some(), "renamed at {at:?}");
        }
        assert_eq!(world.on_node(snapshot), before, "renamed at {at:?}");
    }
}

#[test]
fn a_namespace_that_disappears_midway_takes_the_link_along_and_the_address_is_forgotten() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    for at in [Step::PairMade, Step::HostDone, Step::MapDone, Step::PodDone] {
        let pod = Netns::fresh().unwrap();
        let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
        let mut last = Some(pod);
        // Our own handle keeps the namespace until the ADD is done.
        world.on_node(|| {
            add(&wiring, &mut |step| {
                drop(if step == at { last.take() } else { None });
                Ok(())
            })
            .unwrap();
        });
        let deadline = Instant::now() + PATIENCE;
        while world.on_node(|| ip("link")).contains(&name(&wiring)) {
            assert!(Instant::now() < deadline, "the link outlives its namespace");
        }
        world.on_node(|| {
            assert_eq!(del_pod(&wiring.network.veth_prefix, &wiring.key, &wiring.pod, None).unwrap(), None);
            assert!(forget_address(IpAddr::from(ADDRESS)).unwrap());
        });
        wait_for(&world, &before, &format!("a namespace that went at {at:?}"));
    }
}

#[test]
fn an_address_that_the_host_has_itself_is_refused() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    // As agents do that configure every address of an ENI on its link.
    world.on_node(|| ip("address add 10.0.1.7/20 dev eth1"));
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    let error = world.on_node(|| add_pod(&wiring)).unwrap_err();
    assert_eq!(error.to_string(), "the host has the address 10.0.1.7 itself");
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before);
    world.on_node(|| ip("address del 10.0.1.7/20 dev eth1"));
    world.on_node(|| add_pod(&wiring)).unwrap();
}

#[test]
fn where_ipv6_is_switched_off_only_pods_without_it_are_wired() {
    let world = World::prepared();
    world.on_node(|| {
        run("sysctl", "-q -w net.ipv6.conf.all.disable_ipv6=1");
        run("sysctl", "-q -w net.ipv6.conf.default.disable_ipv6=1");
    });
    let pod = Netns::fresh().unwrap();
    let four = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let mut both = four.clone();
    both.network.addresses = PodAddresses::Dual(ADDRESS.into(), "2600:1f00::7".parse().unwrap());
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    let error = world.on_node(|| add_pod(&both)).unwrap_err();
    assert!(matches!(&error, WireError::NoIpv6 { address, .. } if address.to_string() == "2600:1f00::7"), "{error:?}");
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before);
    world.on_node(|| add_pod(&four)).unwrap();
}

#[test]
fn a_namespace_whose_new_links_have_no_ipv6_gets_it_for_a_pod_with_both_families() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    pod.inside(|| run("sysctl", "-q -w net.ipv6.conf.default.disable_ipv6=1")).unwrap();
    let mut both = wiring("c1", "web-0", ADDRESS, EniMark::PRIMARY, &pod);
    both.network.addresses = PodAddresses::Dual(ADDRESS.into(), "2600:1f00::7".parse().unwrap());
    world.on_node(|| add_pod(&both)).unwrap();
    assert!(pod.inside(|| ip("-6 address show dev eth0")).unwrap().contains("2600:1f00::7/128"));
}
