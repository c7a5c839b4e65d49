//! Pods on a real kernel: wired, taken back, wired again.

mod world;

use std::{fs, path::Path, thread};

use eni_datapath::{Netns, NetnsError, NftError, WireError, add_pod, del_pod, find_pod, forget_address, observe_pods};
use eni_proto::{EniMark, PodKey, VethPrefix, numbers::TABLE_IN_POD};
use world::{MARK, World, address, ip, ip_json, ruleset, run, snapshot, wiring};

const ADDRESS: [u8; 4] = [10, 0, 1, 7];

fn prefix() -> VethPrefix {
    VethPrefix::default()
}

#[test]
fn a_pod_is_wired_and_taken_back_without_a_trace() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);

    let wired = world.on_node(|| add_pod(&wiring)).unwrap();
    assert!(world.on_node(snapshot).contains(&wired.host_link));
    let alias = world.on_node(|| del_pod(&prefix(), &wiring.key, &wiring.pod, None)).unwrap();

    assert_eq!(alias.map(|alias| alias.addresses), Some(wiring.network.addresses));
    assert_eq!(world.on_node(snapshot), before);
    assert_eq!(world.on_node(|| del_pod(&prefix(), &wiring.key, &wiring.pod, None)).unwrap(), None);
}

#[test]
fn the_pod_has_its_address_a_gateway_and_nothing_to_ask_for() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();

    let wired = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap();

    pod.inside(|| {
        let link = &ip_json("link show eth0")[0];
        assert_eq!((link["mtu"].as_u64(), link["ifindex"].as_u64()), (Some(9001), Some(wired.pod_index.into())));
        assert_eq!(link["address"], wired.pod_mac.to_string());
        assert!(link["flags"].as_array().unwrap().contains(&"UP".into()));
        let address = &ip_json("-4 address show eth0")[0]["addr_info"];
        assert_eq!((address[0]["local"].as_str(), address[0]["prefixlen"].as_u64()), (Some("10.0.1.7"), Some(32)));
        let routes = ip("route");
        assert!(routes.contains("default via 169.254.1.1 dev eth0"), "{routes}");
        assert!(routes.contains("169.254.1.1 dev eth0 proto 142 scope link"), "{routes}");
        let neighbour = format!("169.254.1.1 dev eth0 lladdr {} PERMANENT", wired.host_mac);
        assert!(ip("neighbour").contains(&neighbour));
    })
    .unwrap();
}

#[test]
fn the_host_end_says_whose_it_is_and_trusts_nothing_from_the_pod() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();

    let wired = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap();

    world.on_node(|| {
        assert_eq!(wired.host_link, "eni0d7763386da");
        let link = &ip_json(&format!("link show {}", wired.host_link))[0];
        assert_eq!((link["mtu"].as_u64(), link["ifindex"].as_u64()), (Some(9001), Some(wired.host_index.into())));
        assert_eq!(link["address"], wired.host_mac.to_string());
        assert_eq!(link["ifalias"], "eni-cni:1:pods/c1/eth0:10.0.1.7:2:0d7763386da");
        assert_eq!(link["inet6_addr_gen_mode"], "none");
        let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap().trim().to_owned();
        assert_eq!(setting(&format!("ipv4/conf/{}/rp_filter", wired.host_link)), "1");
        assert_eq!(setting(&format!("ipv6/conf/{}/accept_ra", wired.host_link)), "0");
        let route = format!("10.0.1.7 dev {} proto 142 scope link", wired.host_link);
        assert!(ip("route show table 20000").contains(&route));
        assert!(ruleset().contains("elements = { 10.0.1.7 : jump eni_2 }"));
    });
}

#[test]
fn a_pod_of_the_primary_eni_needs_no_map_element() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, EniMark::PRIMARY, &pod))).unwrap();
    let state = world.on_node(|| observe_pods(&prefix())).unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.marks.len()), (1, 1, 0));
}

#[test]
fn the_same_add_again_gives_the_same_answer_and_completes_what_is_missing() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let first = world.on_node(|| add_pod(&wiring)).unwrap();
    let (outside, inside) = (world.on_node(snapshot), pod.inside(snapshot).unwrap());

    assert_eq!(world.on_node(|| add_pod(&wiring)).unwrap(), first);
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), (outside.clone(), inside.clone()));

    world.on_node(|| assert!(forget_address(address(&wiring)).unwrap()));
    pod.inside(|| ip("route flush table main")).unwrap();
    assert_eq!(world.on_node(|| add_pod(&wiring)).unwrap(), first);
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), (outside, inside));
}

#[test]
fn the_same_key_with_another_address_or_a_new_namespace_is_wired_anew() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let (pod, again) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let old = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap();

    let moved = wiring("c1", "web-0", [10, 0, 1, 8], EniMark::PRIMARY, &pod);
    let new = world.on_node(|| add_pod(&moved)).unwrap();
    assert_ne!(new.host_index, old.host_index);
    let state = world.on_node(|| observe_pods(&prefix())).unwrap();
    assert_eq!(state.routes.into_iter().collect::<Vec<_>>(), [(address(&moved), new.host_index)]);
    assert!(state.marks.is_empty());

    let recreated = wiring("c1", "web-0", [10, 0, 1, 8], EniMark::PRIMARY, &again);
    world.on_node(|| add_pod(&recreated)).unwrap();
    assert!(again.inside(|| ip("-4 address")).unwrap().contains("10.0.1.8/32"));
    world.on_node(|| del_pod(&prefix(), &recreated.key, &recreated.pod, None)).unwrap();
    assert_eq!(world.on_node(snapshot), before);
}

#[test]
fn a_late_del_never_hurts_a_newer_sandbox() {
    let world = World::prepared();
    let (older_pod, newer_pod) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let older = wiring("old", "web-0", ADDRESS, MARK, &older_pod);
    let newer = wiring("new", "web-0", [10, 0, 1, 8], MARK, &newer_pod);
    world.on_node(|| add_pod(&older)).unwrap();
    world.on_node(|| add_pod(&newer)).unwrap();
    let after = world.on_node(snapshot);
    assert!(!after.contains("10.0.1.7"), "the older sandbox is gone: {after}");

    assert_eq!(world.on_node(|| del_pod(&prefix(), &older.key, &older.pod, None)).unwrap(), None);

    assert_eq!(world.on_node(snapshot), after);
    assert!(newer_pod.inside(|| ip("link")).unwrap().contains("eth0"));
}

#[test]
fn a_second_interface_works_beside_the_first_and_goes_without_a_trace() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let first = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let mut second = wiring("c1", "web-0", [10, 0, 1, 8], EniMark::PRIMARY, &pod);
    second.key = PodKey::new("other", "c1", "net1").unwrap();
    world.on_node(|| add_pod(&first)).unwrap();
    let one = (world.on_node(snapshot), pod.inside(snapshot).unwrap());

    let wired = world.on_node(|| add_pod(&second)).unwrap();
    let both = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    assert_eq!(wired.pod_table, TABLE_IN_POD + wired.pod_index);
    // The host answers by the interface that owns the address, or its packet would be dropped.
    let way = |from: &str| pod.inside(|| ip(&format!("route get 10.0.0.10 from {from}"))).unwrap();
    assert!(way("10.0.1.7").contains("dev eth0") && way("10.0.1.8").contains("dev net1"), "{both:?}");
    world.on_node(|| ip("address add 10.0.0.77/32 dev lo"));
    pod.inside(|| {
        for source in ["10.0.1.7", "10.0.1.8"] {
            run("ping", &format!("-c 1 -W 20 -I {source} 10.0.0.77"));
        }
    })
    .unwrap();
    world.on_node(|| ip("address delete 10.0.0.77/32 dev lo"));
    assert_eq!(world.on_node(|| add_pod(&second)).unwrap(), wired);
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), both);

    world.on_node(|| del_pod(&prefix(), &second.key, &second.pod, Some(&second.netns))).unwrap();
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), one);
}

#[test]
fn an_interface_beside_somebody_elses_leaves_the_default_route_alone() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    pod.inside(|| {
        ip("link add eth0 type veth peer name other");
        ip("link set eth0 up");
        ip("route add default dev eth0");
    })
    .unwrap();
    let mut wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    wiring.key = PodKey::new("pods", "c1", "net1").unwrap();
    world.on_node(|| add_pod(&wiring)).unwrap();
    assert!(pod.inside(|| ip("route get 10.9.9.9")).unwrap().contains("dev eth0"));
    assert!(pod.inside(|| ip("route get 10.9.9.9 from 10.0.1.7")).unwrap().contains("dev net1"));
}

#[test]
fn a_link_that_somebody_renamed_is_found_by_its_alias() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let wired = world.on_node(|| add_pod(&wiring)).unwrap();
    world.on_node(|| ip(&format!("link set {} down", wired.host_link)));
    world.on_node(|| ip(&format!("link set {} name renamed0", wired.host_link)));
    let nobody = PodKey::new("pods", "c2", "eth0").unwrap();
    assert_eq!(world.on_node(|| find_pod(&nobody)).unwrap(), None);
    assert_eq!(world.on_node(|| find_pod(&wiring.key)).unwrap().map(|link| link.name).as_deref(), Some("renamed0"));

    assert!(world.on_node(|| del_pod(&prefix(), &wiring.key, &wiring.pod, None)).unwrap().is_some());
    assert_eq!(world.on_node(snapshot), before);
}

#[test]
fn an_older_sandbox_does_not_take_its_reused_address_with_it() {
    let world = World::prepared();
    let pods = [(); 3].map(|()| Netns::fresh().unwrap());
    let older = wiring("old", "web-0", ADDRESS, MARK, &pods[0]);
    world.on_node(|| add_pod(&older)).unwrap();
    // The daemon released the address, and another pod got it, while the old link was still there.
    world.on_node(|| forget_address(address(&older))).unwrap();
    world.on_node(|| add_pod(&wiring("other", "db-0", ADDRESS, MARK, &pods[1]))).unwrap();

    world.on_node(|| add_pod(&wiring("new", "web-0", [10, 0, 1, 9], MARK, &pods[2]))).unwrap();

    let state = world.on_node(|| observe_pods(&prefix())).unwrap();
    assert_eq!(state.links.len(), 2);
    assert!(state.routes.contains_key(&address(&older)));
    assert!(state.marks.contains_key(&address(&older)));
}

#[test]
fn an_interface_name_in_use_is_refused_and_nothing_changes() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    pod.inside(|| ip("link add eth0 type veth peer name other")).unwrap();
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());

    let error = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap_err();

    assert!(matches!(&error, WireError::InterfaceExists { interface } if interface == "eth0"), "{error:?}");
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before);
}

#[test]
fn a_host_link_that_never_was_a_pods_is_left_alone() {
    let world = World::prepared();
    world.on_node(|| ip("link add eni0d7763386da type bridge"));
    let pod = Netns::fresh().unwrap();
    let error = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap_err();
    assert!(matches!(error, WireError::ForeignLink { .. }), "{error:?}");
    assert!(world.on_node(|| ip("link")).contains("eni0d7763386da"));
}

#[test]
fn an_address_that_still_leads_to_another_pod_is_refused() {
    let world = World::prepared();
    let (first, second) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &first))).unwrap();
    let before = world.on_node(snapshot);
    let error = world.on_node(|| add_pod(&wiring("c2", "web-1", ADDRESS, MARK, &second))).unwrap_err();
    assert!(matches!(error, WireError::AddressInUse { .. }), "{error:?}");
    assert_eq!(world.on_node(snapshot), before);
}

#[test]
fn a_namespace_that_is_missing_none_or_our_own_is_told_apart() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let mut wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let mut refusal = |path: &Path| {
        wiring.netns = path.to_owned();
        let error = world.on_node(|| add_pod(&wiring)).unwrap_err();
        let WireError::Netns(error) = error else { panic!("{error:?}") };
        error
    };
    assert!(matches!(refusal(Path::new("/no/such/namespace")), NetnsError::Missing { .. }));
    assert!(matches!(refusal(Path::new("/proc/self/status")), NetnsError::NotNetns { .. }));
    assert!(matches!(refusal(Path::new("/")), NetnsError::NotNetns { .. }));
    assert!(matches!(refusal(Path::new("/proc/self/ns/uts")), NetnsError::NotNetns { .. }));
    assert!(matches!(refusal(&world.node.path()), NetnsError::Own { .. }));
}

#[test]
fn a_failed_add_leaves_nothing_behind() {
    let unprepared = World::new();
    let pod = Netns::fresh().unwrap();
    let before = (unprepared.on_node(snapshot), pod.inside(snapshot).unwrap());
    let error = unprepared.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap_err();
    assert!(matches!(error, WireError::Nft(NftError::NotPrepared { .. })), "{error:?}");
    assert_eq!((unprepared.on_node(snapshot), pod.inside(snapshot).unwrap()), before);

    let world = World::prepared();
    pod.inside(|| {
        ip("link add other type veth peer name end");
        ip("link set other up");
        ip("route add default dev other");
        // Neither in `main` nor in a table of the interface's own.
        for link in 2..9 {
            ip(&format!("route add default dev other table {}", TABLE_IN_POD + link));
        }
    })
    .unwrap();
    let before = (world.on_node(snapshot), pod.inside(snapshot).unwrap());
    let error = world.on_node(|| add_pod(&wiring("c1", "web-0", ADDRESS, MARK, &pod))).unwrap_err();
    assert!(matches!(error, WireError::InPod(_)), "{error:?}");
    assert_eq!((world.on_node(snapshot), pod.inside(snapshot).unwrap()), before);
}

#[test]
fn a_pod_whose_namespace_went_first_leaves_only_what_forget_address_takes() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", ADDRESS, MARK, &pod);
    let wired = world.on_node(|| add_pod(&wiring)).unwrap();
    world.on_node(|| ip(&format!("link delete {}", wired.host_link)));

    assert_eq!(world.on_node(|| del_pod(&prefix(), &wiring.key, &wiring.pod, None)).unwrap(), None);
    assert!(world.on_node(|| forget_address(address(&wiring))).unwrap());

    assert_eq!(world.on_node(snapshot), before);
    assert!(!world.on_node(|| forget_address(address(&wiring))).unwrap());
}

#[test]
fn forty_adds_and_dels_at_once_all_succeed() {
    let world = World::prepared();
    let before = world.on_node(snapshot);
    let pods: Vec<_> = (0..40).map(|_| Netns::fresh().unwrap()).collect();
    let wirings: Vec<_> = (0u8..)
        .zip(&pods)
        .map(|(n, pod)| {
            let mark = if n % 2 == 0 { MARK } else { EniMark::PRIMARY };
            wiring(&format!("c{n}"), &format!("web-{n}"), [10, 0, 2, n], mark, pod)
        })
        .collect();

    thread::scope(|scope| {
        for wiring in &wirings {
            scope.spawn(|| world.on_node(|| add_pod(wiring)).unwrap());
        }
    });
    let state = world.on_node(|| observe_pods(&prefix())).unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.marks.len()), (40, 40, 20));
    assert!(state.links.iter().all(|link| link.alias.is_some()));

    thread::scope(|scope| {
        for wiring in &wirings {
            scope.spawn(|| {
                assert!(world.on_node(|| del_pod(&prefix(), &wiring.key, &wiring.pod, None)).unwrap().is_some())
            });
        }
    });
    assert_eq!(world.on_node(snapshot), before);
}
