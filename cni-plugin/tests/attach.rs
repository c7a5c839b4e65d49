//! ADD and DEL of the built binary on a real kernel, against a daemon that speaks real gRPC.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::{collections::BTreeSet, thread};

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
    ip, ip_json, snapshot,
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn the_result_is_what_is_really_there_in_every_version() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Netns::fresh().unwrap();
        let sandbox = Sandbox::new(&format!("c{version}"), "web-0", &pod);
        let mut config = node.config();
        config["cniVersion"] = version.into();
        let result = node.run("ADD", &sandbox, &config).result();

        assert_eq!(result["cniVersion"], version);
        let [host, inside] = result["interfaces"].as_array().unwrap().as_slice() else { panic!("{result}") };
        let seen = &ip_json(&pod, "-4 address show eth0")[0];
        assert_eq!((&inside["name"], &inside["mac"]), (&json!("eth0"), &ip_json(&pod, "link show eth0")[0]["address"]));
        assert_eq!(inside["sandbox"], sandbox.netns);
        let outside = &ip_json(&node.netns, &format!("link show {}", text(&host["name"])))[0];
        assert_eq!((&host["mac"], host.get("sandbox")), (&outside["address"], None));
        let ips = &result["ips"][0];
        assert_eq!(ips["address"], format!("{}/32", text(&seen["addr_info"][0]["local"])));
        assert_eq!((&ips["interface"], &ips["gateway"]), (&json!(1), &json!("169.254.1.1")));
        assert_eq!(ips.get("version"), (version < "1.0.0").then_some(&json!("4")), "{version}");
        let mtu = (version == "1.1.0").then_some(&seen["mtu"]);
        assert_eq!((inside.get("mtu"), host.get("mtu")), (mtu, mtu), "{version}");
        let route = &ip_json(&pod, "route show default")[0];
        assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0", "gw": route["gateway"] }]));
        assert_eq!(result.get("dns"), None);
        node.run("DEL", &sandbox, &config).is_silent_success();
    }
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_del_takes_everything_back_and_may_be_repeated() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let empty = snapshot(&pod);
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    // Never added.
    node.del(&sandbox).is_silent_success();

    assert_eq!(node.add(&sandbox).address(), "10.0.0.1/32");
    assert_eq!(daemon.leased(), [sandbox.key()]);
    node.del(&sandbox).is_silent_success();
    node.del(&sandbox.netns("")).is_silent_success();

    assert_eq!((node.snapshot(), snapshot(&pod)), (before, empty));
    assert!(daemon.leased().is_empty() && node.notes().is_empty());
}

#[test]
fn a_del_needs_neither_namespace_nor_previous_result_nor_the_same_configuration() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    type Change = fn(&mut Sandbox, &mut Value);
    #[rustfmt::skip]
    let table: [(&str, Change); 7] = [
        ("the namespace is not named",           |sandbox, _| sandbox.netns.clear()),
        ("the namespace is gone",                |sandbox, _| sandbox.netns = "/run/netns/is-not-there".to_owned()),
        ("the path is no namespace",             |sandbox, _| sandbox.netns = "/etc/hostname".to_owned()),
        ("a previous result of an older version",|_, config| config["prevResult"] = json!({ "cniVersion": "0.2.0", "ip4": {} })),
        ("a previous result that is none",       |_, config| config["prevResult"] = json!("?")),
        ("the configuration speaks an older version", |_, config| config["cniVersion"] = "0.3.1".into()),
        ("a setting that only ADD needs is wrong",    |_, config| config["addWaitSeconds"] = "long".into()),
    ];
    for (case, change) in table {
        let pod = Netns::fresh().unwrap();
        let (mut sandbox, mut config) = (Sandbox::new("c1", "web-0", &pod), node.config());
        node.add(&sandbox).result();
        change(&mut sandbox, &mut config);
        let answer = node.run("DEL", &sandbox, &config);
        assert!(answer.success && answer.stdout.is_empty(), "{case}: {}", answer.stdout);
        assert_eq!(node.snapshot(), before, "{case}");
        assert!(daemon.leased().is_empty(), "{case}");
    }
}

#[test]
fn a_del_after_the_namespace_went_succeeds() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    node.add(&sandbox).result();
    drop(pod);
    node.del(&sandbox).is_silent_success();
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_sandbox_whose_pod_nobody_names_is_wired_and_taken_back() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "", &pod);
    node.add(&sandbox).result();
    node.del(&sandbox).is_silent_success();
    assert_eq!(node.snapshot(), before);
    assert!(daemon.leased().is_empty());
}

#[test]
fn an_interface_in_use_is_refused_and_left_as_it_is() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    ip(&pod, "link add eth0 type veth peer name other");
    let before = (node.snapshot(), snapshot(&pod));

    let error = node.add(&Sandbox::new("c1", "web-0", &pod)).error();

    assert_eq!(error["code"], 104, "{error}");
    assert!(text(&error["msg"]).starts_with("IPAM-104") && text(&error["msg"]).contains("eth0"), "{error}");
    assert!(text(&error["details"]).contains("The address was returned."), "{error}");
    assert_eq!((node.snapshot(), snapshot(&pod)), before);
    assert_eq!(daemon.book().calls, ["ADD pods/c1/eth0", "DEL pods/c1/eth0"]);
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_namespace_that_is_none_costs_no_address() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let own = stage::path(&node.netns);
    for netns in ["/run/netns/is-not-there", "/etc/hostname", "/proc/self/ns/uts", &own] {
        let sandbox = Sandbox::new("c1", "web-0", &node.netns).netns(netns);
        let error = node.add(&sandbox).error();
        assert_eq!(error["code"], 8, "{netns}: {error}");
        assert!(text(&error["msg"]).contains(netns), "{netns}: {error}");
    }
    assert!(daemon.leased().is_empty(), "{:?}", daemon.leased());
}

#[test]
fn a_failed_add_leaves_nothing_and_returns_its_lease() {
    #[rustfmt::skip]
    let table = [
        (Manner::Secondary, 102, "IPAM-102"),
        (Manner::Senseless,   11, "IPAM-105"),
    ];
    for (manner, code, name) in table {
        let node = Node::new();
        let daemon = Daemon::start_as(&node.socket(), manner);
        let pod = Netns::fresh().unwrap();
        let before = (node.snapshot(), snapshot(&pod));
        let error = node.add(&Sandbox::new("c1", "web-0", &pod)).error();
        assert_eq!(error["code"], code, "{error}");
        assert!(text(&error["msg"]).starts_with(name), "{error}");
        assert!(text(&error["details"]).ends_with("The address was returned."), "{error}");
        assert_eq!((node.snapshot(), snapshot(&pod)), before, "{name}");
        assert!(daemon.leased().is_empty(), "{name}");
    }
}

#[test]
fn a_failed_repeat_never_takes_the_address_of_the_attachment_that_lives() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let (pod, other) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    node.add(&sandbox).result();
    ip(&other, "link add eth0 type veth peer name other");
    let before = (node.snapshot(), snapshot(&pod));

    let error = node.add(&sandbox.netns(&stage::path(&other))).error();
    assert_eq!(error["code"], 104, "{error}");
    assert!(text(&error["details"]).ends_with("lives on and keeps its address."), "{error}");

    daemon.book().manner = Manner::Silent;
    let mut config = node.config();
    config["addWaitSeconds"] = 0.into();
    assert_eq!(node.run("ADD", &sandbox, &config).error()["code"], 11);

    assert_eq!((node.snapshot(), snapshot(&pod)), before);
    assert_eq!(daemon.leased(), [sandbox.key()]);
}

#[test]
fn the_same_add_twice_gives_the_same_answer_and_holds_one_address() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let first = node.add(&sandbox);
    assert_eq!(first.address(), "10.0.0.1/32");
    assert_eq!(node.add(&sandbox), first);
    assert_eq!(daemon.leased().len(), 1);
}

#[test]
fn a_second_interface_of_a_sandbox_never_disturbs_the_first() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    node.add(&sandbox).result();
    let with_one = (node.snapshot(), snapshot(&pod));

    let second = sandbox.interface("net1");
    let result = node.add(&second).result();
    assert_eq!(result["routes"], json!([]), "the first has the default route");
    assert!(ip(&pod, "route get 10.9.9.9").contains("dev eth0"));
    assert!(ip(&pod, "route get 10.9.9.9 from 10.0.0.2").contains("dev net1"));
    assert_eq!(daemon.leased(), [sandbox.key(), second.key()]);
    assert_eq!(node.add(&second).result(), result);

    node.del(&second).is_silent_success();
    assert_eq!((node.snapshot(), snapshot(&pod)), with_one);
    assert_eq!(daemon.leased(), [sandbox.key()]);
}

#[test]
fn one_container_on_several_networks_has_independent_attachments() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let empty = snapshot(&pod);
    // As podman does it: one container id, an interface name and a network of the user's choice for each.
    let networks = ["blue", "green", "red"].map(|name| {
        let mut config = node.config();
        (config["name"], config["cniVersion"]) = (name.into(), "1.1.0".into());
        (Sandbox::new("c1", "", &pod).interface(&format!("{name}0")), config)
    });
    let addresses: BTreeSet<_> =
        networks.iter().map(|(sandbox, config)| node.run("ADD", sandbox, config).address()).collect();
    assert_eq!((addresses.len(), daemon.leased().len()), (3, 3));
    for address in &addresses {
        let source = address.trim_end_matches("/32");
        let own = ip_json(&pod, &format!("route get 10.9.9.9 from {source}"));
        let holder = ip_json(&pod, &format!("-4 address show to {source}"));
        assert_eq!(own[0]["dev"], holder[0]["ifname"], "{source}");
    }
    // The wrong network is another attachment, which there is not.
    node.run("DEL", &networks[0].0, &networks[1].1).is_silent_success();
    assert_eq!(daemon.leased().len(), 3);
    for (sandbox, config) in &networks {
        node.run("DEL", sandbox, config).is_silent_success();
    }
    assert_eq!((node.snapshot(), snapshot(&pod)), (before, empty));
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_del_finds_its_link_under_any_name() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    type Change = fn(&Node, &mut Sandbox, &mut Value);
    #[rustfmt::skip]
    let table: [(&str, Change); 4] = [
        ("the runtime does not name the pod any more", |_, sandbox, _| sandbox.pod.clear()),
        ("the runtime names another pod",              |_, sandbox, _| "web-1".clone_into(&mut sandbox.pod)),
        ("the configuration has another prefix",       |_, _, config| config["vethPrefix"] = "cali".into()),
        ("somebody renamed the link",                  |node, _, _| {
            let links = ip_json(&node.netns, "link show type veth");
            ip(&node.netns, &format!("link set {} down", text(&links[0]["ifname"])));
            ip(&node.netns, &format!("link set {} name other", text(&links[0]["ifname"])));
        }),
    ];
    for (case, change) in table {
        let pod = Netns::fresh().unwrap();
        let (mut sandbox, mut config) = (Sandbox::new("c1", "web-0", &pod), node.config());
        node.add(&sandbox).result();
        change(&node, &mut sandbox, &mut config);
        let answer = node.run("DEL", &sandbox, &config);
        assert!(answer.success && answer.stdout.is_empty(), "{case}: {}", answer.stdout);
        assert_eq!(node.snapshot(), before, "{case}");
        assert!(daemon.leased().is_empty(), "{case}");
    }
}

#[test]
fn the_slow_part_of_a_pods_end_is_left_to_the_daemon_and_everything_else_is_gone_at_once() {
    let node = Node::prepared();
    let before = node.snapshot();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    for (sandbox, may_be_left) in [
        (sandbox.clone(), true),
        (sandbox.interface("net1"), false),
        (Sandbox { pod: String::new(), ..sandbox.clone() }, false),
    ] {
        node.add(&sandbox).result();
        // The daemon promises, and is in no hurry.
        daemon.deletes_links_on(&Node::new());
        node.del(&sandbox).is_silent_success();
        let inside = ip_json(&pod, "link show type veth");
        assert_eq!(!inside.as_array().unwrap().is_empty(), may_be_left, "{sandbox:?}: {inside}");
        assert!(daemon.leased().is_empty());
        let left = node.netns.inside(|| eni_datapath::pod_leftovers().unwrap()).unwrap();
        assert!(left.iter().all(|left| may_be_left && left.starts_with("map element")), "{left:?}");
        // A repeated DEL, and the same ADD, find what is left and deal with it.
        node.del(&sandbox.netns("")).is_silent_success();
        node.add(&sandbox).result();
        daemon.deletes_links_on(&node);
        node.del(&sandbox).is_silent_success();
        node.comes_to(&before, &format!("{sandbox:?}"));
    }
}

#[test]
fn a_recreated_pod_takes_the_place_of_its_older_sandbox() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    let pods = [(); 3].map(|()| Netns::fresh().unwrap());
    let sandboxes: Vec<_> =
        pods.iter().enumerate().map(|(n, pod)| Sandbox::new(&format!("c{n}"), "web-0", pod)).collect();
    for sandbox in &sandboxes {
        node.add(sandbox).result();
    }
    let after = (node.snapshot(), snapshot(&pods[2]));
    // The DELs of the older ones come late, in any order, and more than once.
    for sandbox in [&sandboxes[1], &sandboxes[0], &sandboxes[1].netns(""), &sandboxes[0].netns(&sandboxes[2].netns)] {
        node.del(sandbox).is_silent_success();
        assert_eq!((node.snapshot(), snapshot(&pods[2])), after);
        assert!(daemon.leased().contains(&sandboxes[2].key()));
    }
    node.del(&sandboxes[2]).is_silent_success();
    assert_eq!(node.snapshot(), before);
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_late_del_does_not_touch_a_newer_sandbox() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let (older_pod, newer_pod) = (Netns::fresh().unwrap(), Netns::fresh().unwrap());
    let (older, newer) = (Sandbox::new("old", "web-0", &older_pod), Sandbox::new("new", "web-0", &newer_pod));
    node.add(&older).result();
    node.add(&newer).result();
    let after = (node.snapshot(), snapshot(&newer_pod));

    node.del(&older).is_silent_success();
    // Somebody else's id on the newer sandbox's own namespace.
    node.del(&Sandbox::new("stranger", "web-0", &newer_pod)).is_silent_success();

    assert_eq!((node.snapshot(), snapshot(&newer_pod)), after);
    assert_eq!(daemon.leased(), [newer.key()]);
}

#[test]
fn twenty_adds_at_once_get_twenty_addresses_and_go_without_a_trace() {
    let node = Node::new();
    let before = node.snapshot();
    let daemon = Daemon::start(&node.socket());
    let pods: Vec<_> = (0..20).map(|_| Netns::fresh().unwrap()).collect();
    let sandbox = |n: usize, pod| Sandbox::new(&format!("c{n}"), &format!("web-{n}"), pod);
    let sandboxes: Vec<_> = pods.iter().enumerate().map(|(n, pod)| sandbox(n, pod)).collect();

    let addresses: BTreeSet<_> = thread::scope(|scope| {
        let running: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(|| node.add(sandbox).address())).collect();
        running.into_iter().map(|add| add.join().unwrap()).collect()
    });
    assert_eq!((addresses.len(), daemon.leased().len()), (20, 20));

    thread::scope(|scope| {
        for sandbox in &sandboxes {
            scope.spawn(|| node.del(sandbox).is_silent_success());
        }
    });
    assert_eq!(node.snapshot(), before);
    assert!(daemon.leased().is_empty());
}
