//! A node's base and its ENIs on a real kernel: prepared, kept right, taken away.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::fs;

use eni_datapath::{
    EniError, Family, HostError, HostPlan, MacAddress, Netns, SourcePorts, add_pod,
    apply::{Already, ApplyError, apply},
    clean_host, del_pod, forget_eni, leftovers, observe_pods,
    ops::{Address, Object, Op, Route, Rule},
    pod_leftovers, prepare_eni, prepare_host,
};
use eni_proto::VethPrefix;
use world::{MAC1, MARK, SECOND, World, eni_plan, host_plan, ip, ip_json, ruleset, run, snapshot, wiring};

fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap().trim().to_owned()
}

#[test]
fn a_prepared_node_forwards_by_rules_that_do_not_depend_on_pods() {
    let world = World::new();
    world.on_node(|| {
        assert_eq!(prepare_host(&host_plan()).unwrap(), "eth0");
        assert_eq!(setting("ip_forward"), "1");
        assert_eq!(setting("conf/eth0/rp_filter"), "2");
        let rules = ip("rule");
        assert!(rules.contains("512:\tfrom all lookup 20000 proto 142"), "{rules}");
        assert!(rules.contains("1024:\tfrom all fwmark 0x80/0x80 lookup main proto 142"), "{rules}");
        let table = ruleset();
        for line in [
            "elements = { 10.0.0.0/16, 172.31.0.0/16 }",
            "iifname \"eth0\" ct state new fib daddr type local ct mark set ct mark | 0x00000080",
            "iifname \"eni*\" goto from_pod",
            "ip daddr @direct goto by_owner",
            "snat to 10.0.0.10 fully-random",
            "type filter hook prerouting priority dstnat + 10;",
            "type route hook output priority mangle;",
        ] {
            assert!(table.contains(line), "no `{line}` in {table}");
        }
    });
}

#[test]
fn with_external_snat_pods_keep_their_address_everywhere() {
    let world = World::new();
    world.on_node(|| {
        let mut plan = host_plan();
        plan.external_snat = true;
        prepare_host(&plan).unwrap();
        let table = ruleset();
        assert!(!table.contains("ct status"), "no connection begins as the node: {table}");
        assert!(table.contains("ip saddr vmap @pod_eni"), "{table}");
    });
}

#[test]
fn without_node_ports_what_came_in_for_the_node_is_answered_by_the_pods_eni() {
    let world = World::prepared();
    let remembers = || world.on_node(|| run("nft", "list chain ip eni_cni inbound")).contains("ct mark set");
    assert!(remembers());
    let plan = HostPlan { node_ports: false, ..host_plan() };
    world.on_node(|| prepare_host(&plan).unwrap());
    assert!(!remembers());
}

#[test]
fn source_ports_are_chosen_as_the_operator_wants() {
    let world = World::new();
    world.on_node(|| {
        for (ports, rule) in [
            (SourcePorts::Random, "snat to 10.0.0.10 fully-random\n"),
            (SourcePorts::Hashed, "snat to 10.0.0.10 random\n"),
            (SourcePorts::Kept, "snat to 10.0.0.10\n"),
        ] {
            prepare_host(&HostPlan { source_ports: ports, ..host_plan() }).unwrap();
            assert_eq!(ruleset().matches(rule).count(), 2, "{}", ruleset());
        }
    });
}

#[test]
fn a_prepared_eni_has_its_address_table_and_rules() {
    let world = World::new();
    world.on_node(|| {
        prepare_host(&host_plan()).unwrap();
        assert_eq!(prepare_eni(&eni_plan()).unwrap(), "eth1");
        let address = &ip_json("-4 address show eth1")[0];
        assert_eq!(address["addr_info"][0]["local"], SECOND.to_string());
        assert_eq!(address["addr_info"][0]["prefixlen"], 32);
        assert!(address["flags"].as_array().unwrap().contains(&"UP".into()));
        let routes = ip("route show table 2");
        assert!(routes.contains("default via 10.0.0.1 dev eth1 proto 142"), "{routes}");
        assert!(routes.contains("10.0.0.1 dev eth1 proto 142 scope link"), "{routes}");
        let rules = ip("rule");
        assert!(rules.contains("1536:\tfrom all fwmark 0x2/0x7f lookup 2 proto 142"), "{rules}");
        assert!(rules.contains("32765:\tfrom 10.0.0.11 lookup 2 proto 142"), "{rules}");
        let settings = ["rp_filter", "arp_ignore", "arp_announce"].map(|name| setting(&format!("conf/eth1/{name}")));
        assert_eq!(settings, ["2", "1", "2"]);
        assert!(ruleset().contains("chain eni_2 {"));
    });
}

#[test]
fn preparing_again_changes_nothing() {
    let world = World::prepared();
    world.on_node(|| {
        let before = snapshot();
        prepare_host(&host_plan()).unwrap();
        prepare_eni(&eni_plan()).unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn a_restart_keeps_running_pods_and_takes_over_new_settings() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    world.on_node(|| {
        add_pod(&wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod)).unwrap();
        let before = observe_pods(&VethPrefix::default()).unwrap();
        let mut plan = host_plan();
        plan.direct = vec!["10.0.0.0/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()];

        prepare_host(&plan).unwrap();

        assert_eq!(observe_pods(&VethPrefix::default()).unwrap(), before);
        let table = ruleset();
        assert!(table.contains("elements = { 10.0.0.0/15 }") || table.contains("10.0.0.0-10.1.255.255"), "{table}");
        assert_eq!(table.matches("snat to").count(), 2, "{table}");
    });
}

#[test]
fn a_table_of_another_make_is_made_anew_with_the_same_pods() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    let table = || run("nft", "list table ip eni_cni");
    world.on_node(|| {
        let right = table();
        add_pod(&wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod)).unwrap();
        let with_pod = table();
        run("nft", "delete chain ip eni_cni prerouting");
        run("nft", "add chain ip eni_cni prerouting { type filter hook prerouting priority -5 ; }");

        prepare_host(&host_plan()).unwrap();

        assert_eq!(table().lines().count(), with_pod.lines().count());
        assert!(table().contains("elements = { 10.0.1.7 : jump eni_2 }"));
        del_pod(
            &VethPrefix::default(),
            &wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod).key,
            &wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod).pod,
            None,
        )
        .unwrap();
        assert_eq!(table(), right);
    });
}

#[test]
fn an_eni_at_another_place_or_with_other_addresses_is_made_right() {
    let world = World::prepared();
    world.on_node(|| {
        let right = snapshot();
        let mut other = eni_plan();
        other.primary = [10, 0, 32, 5].into();
        other.subnet = "10.0.32.0/20".parse().unwrap();
        prepare_eni(&other).unwrap();
        let changed = snapshot();
        assert!(changed.contains("default via 10.0.32.1 dev eth1"), "{changed}");
        assert!(!changed.contains("10.0.0.11"), "{changed}");

        prepare_eni(&eni_plan()).unwrap();
        assert_eq!(snapshot(), right);

        ip("link delete eth1");
        world.plug("eth9", MAC1, "f9");
        assert_eq!(prepare_eni(&eni_plan()).unwrap(), "eth9");
        assert_eq!(ip("rule").matches("lookup 2 ").count(), 2);
    });
}

#[test]
fn an_eni_is_forgotten_only_after_its_last_pod() {
    let world = World::new();
    let pod = Netns::fresh().unwrap();
    let wiring = wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod);
    world.on_node(|| {
        prepare_host(&host_plan()).unwrap();
        let before = ruleset();
        let rules = ip("rule");
        prepare_eni(&eni_plan()).unwrap();
        add_pod(&wiring).unwrap();
        let with_pod = snapshot();

        let error = forget_eni(0, 1, MARK).unwrap_err();
        assert!(matches!(error, EniError::InUse { mark: 2 }), "{error:?}");
        assert_eq!(snapshot(), with_pod);

        del_pod(&VethPrefix::default(), &wiring.key, &wiring.pod, None).unwrap();
        forget_eni(0, 1, MARK).unwrap();
        assert_eq!((ruleset(), ip("rule")), (before, rules));
        assert!(!ip("address").contains("10.0.0.11"));
        forget_eni(0, 1, MARK).unwrap();
    });
}

#[test]
fn cleaning_takes_all_of_ours_and_none_of_others() {
    let world = World::new();
    world.on_node(|| {
        // Uninstalling leaves links as they are.
        ip("link set eth1 up");
        run("nft", "add table ip others");
        ip("rule add priority 700 from 192.168.0.1 lookup 99");
        ip("route add 192.168.9.0/24 dev eth0 table 99");
        let before = snapshot();
        assert_eq!(leftovers().unwrap(), Vec::<String>::new());

        prepare_host(&host_plan()).unwrap();
        prepare_eni(&eni_plan()).unwrap();
        assert_eq!(pod_leftovers().unwrap(), Vec::<String>::new());
        let found = leftovers().unwrap().join("\n");
        for line in [
            "rule 512: lookup 20000",
            "nf_tables table ip eni_cni",
            "route 0.0.0.0/0 via 10.0.0.1",
            "address 10.0.0.11/32",
        ] {
            assert!(found.contains(line), "no `{line}` in {found}");
        }
        clean_host().unwrap();

        assert_eq!(leftovers().unwrap(), Vec::<String>::new());
        assert_eq!(snapshot(), before);
        clean_host().unwrap();
    });
}

#[test]
fn what_pods_leave_behind_is_named() {
    let world = World::prepared();
    let pod = Netns::fresh().unwrap();
    world.on_node(|| {
        add_pod(&wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod)).unwrap();
        let found = pod_leftovers().unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0], "link eni0d7763386da of pods/c1/eth0 with 10.0.1.7");
        assert_eq!(found[2], "map element 10.0.1.7 -> eni_2");
    });
}

#[test]
fn a_loose_filter_for_all_gives_way_to_a_strict_one_for_pods() {
    let world = World::new();
    world.on_node(|| {
        fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        fs::write("/proc/sys/net/ipv4/conf/eth1/rp_filter", "0").unwrap();
        prepare_host(&host_plan()).unwrap();
        let settings = ["all", "default", "eth0", "eth1"].map(|link| setting(&format!("conf/{link}/rp_filter")));
        assert_eq!(settings, ["0", "2", "2", "2"]);
    });
}

#[test]
fn a_link_that_is_not_there_is_named() {
    let world = World::new();
    world.on_node(|| {
        let mut plan = host_plan();
        plan.primary_mac = MacAddress([2, 9, 9, 9, 9, 9]);
        let error = prepare_host(&plan).unwrap_err();
        assert!(matches!(error, HostError::LinkMissing { .. }), "{error:?}");
        let mut plan = eni_plan();
        plan.mac = MacAddress([2, 9, 9, 9, 9, 9]);
        let error = prepare_eni(&plan).unwrap_err();
        assert_eq!(error.to_string(), "no link with hardware address 02:09:09:09:09:09");
    });
}

/// A plan that does each kind of thing once.
fn every_kind_of_step(link: u32) -> Vec<Op> {
    let route =
        |destination: &str, gateway| Route { table: 77, destination: destination.parse().unwrap(), gateway, link };
    let rule =
        Rule { family: Family::V4, priority: 900, from: Some([10, 9, 9, 9].into()), mark: Some((1, 3)), table: 77 };
    vec![
        Op::Add(Object::Address(Address { link, address: [10, 9, 9, 9].into(), deprecated: false })),
        Op::Add(Object::Route(route("10.9.9.1/32", None))),
        Op::Add(Object::Route(route("0.0.0.0/0", Some([10, 9, 9, 1].into())))),
        Op::Add(Object::Rule(rule)),
        Op::Remove(Object::Rule(rule)),
        Op::Add(Object::Rule(Rule { mark: None, ..rule })),
    ]
}

#[test]
fn a_plan_that_fails_at_any_step_is_taken_back() {
    let world = World::prepared();
    world.on_node(|| {
        let link = u32::try_from(ip_json("link show eth0")[0]["ifindex"].as_u64().unwrap()).unwrap();
        let before = snapshot();
        let steps = every_kind_of_step(link);
        let impossible =
            Op::Add(Object::Address(Address { link: 999_999, address: [10, 9, 9, 8].into(), deprecated: false }));
        for at in 0..=steps.len() {
            let mut broken = steps.clone();
            broken.insert(at, impossible);
            let error = apply(&broken, Already::Fine).unwrap_err();
            assert!(matches!(error, ApplyError::Refused { op, .. } if op == impossible), "{error:?}");
            assert_eq!(snapshot(), before, "failed at step {at}");
        }
        assert_eq!(apply(&steps, Already::Fine).unwrap(), steps);
        assert_ne!(snapshot(), before);
        let back: Vec<Op> = steps.iter().rev().map(|op| op.inverse()).collect();
        apply(&back, Already::Refused).unwrap();
        assert_eq!(snapshot(), before);
    });
}

#[test]
fn one_step_done_already_is_fine_or_refused_as_the_caller_says() {
    let world = World::prepared();
    world.on_node(|| {
        let link = u32::try_from(ip_json("link show eth0")[0]["ifindex"].as_u64().unwrap()).unwrap();
        let step = every_kind_of_step(link)[0];
        assert_eq!(apply(&[step], Already::Refused).unwrap(), [step]);
        assert_eq!(apply(&[step], Already::Fine).unwrap(), []);
        assert!(apply(&[step], Already::Refused).is_err());
        assert_eq!(apply(&[step.inverse(), step.inverse()], Already::Fine).unwrap(), [step.inverse()]);
    });
}
