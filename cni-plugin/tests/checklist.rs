//! What the CNI specification 1.1.0 asks of a plugin and no other file of tests holds, and that CHECKLIST.md says the truth.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::{collections::BTreeSet, fs, path::Path};

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Answer, Node, Sandbox,
    corpus::recorded,
    daemon::{Daemon, Manner},
    ip_json, snapshot,
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn ask(node: &Node, environment: &[(&str, &str)], stdin: &str) -> Answer {
    let environment: Vec<_> = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    stage::run(&node.netns, &environment, stdin)
}

#[test]
fn each_verb_names_all_variables_that_it_misses() {
    let node = Node::new();
    #[rustfmt::skip]
    let table: [(&str, &str, &[&str]); 5] = [
        ("ADD",    "1.0.0", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("CHECK",  "1.0.0", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]),
        ("DEL",    "1.0.0", &["CNI_CONTAINERID", "CNI_IFNAME"]),
        ("GC",     "1.1.0", &[]),
        ("STATUS", "1.1.0", &[]),
    ];
    for (verb, version, needed) in table {
        let mut config = node.config();
        config["cniVersion"] = version.into();
        let answer = ask(&node, &[("CNI_COMMAND", verb)], &config.to_string());
        if needed.is_empty() {
            // STATUS finds no daemon; no variable is missing.
            assert!(answer.success || answer.error()["code"] == 50, "{verb}: {}", answer.stdout);
            continue;
        }
        let error = answer.error();
        assert_eq!(error["code"], 4, "{verb}: {error}");
        let listed: BTreeSet<_> =
            text(&error["msg"]).split([' ', ',', ';', ':']).filter(|word| word.starts_with("CNI_")).collect();
        let mut wanted: BTreeSet<_> = needed.iter().copied().collect();
        if verb == "CHECK" {
            assert!(wanted.is_subset(&listed), "{error}");
            wanted = listed.clone();
        }
        assert_eq!(listed, wanted, "{verb}: {error}");
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let node = Node::new();
    #[rustfmt::skip]
    let table = [
        ("CNI_CONTAINERID", "-c1"), ("CNI_CONTAINERID", "c/1"), ("CNI_CONTAINERID", "../c1"), ("CNI_CONTAINERID", "c 1"),
        ("CNI_IFNAME", "."), ("CNI_IFNAME", ".."), ("CNI_IFNAME", "a/b"), ("CNI_IFNAME", "a:b"), ("CNI_IFNAME", "a b"),
        ("CNI_IFNAME", "a\tb"), ("CNI_IFNAME", "sixteen-bytes-xx"),
    ];
    for verb in ["ADD", "DEL"] {
        for (name, value) in table {
            let mut environment = vec![("CNI_COMMAND", verb), ("CNI_NETNS", "/run/netns/x")];
            environment
                .extend([("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")].into_iter().filter(|it| it.0 != name));
            environment.push((name, value));
            let error = ask(&node, &environment, &node.config().to_string()).error();
            assert_eq!(error["code"], 4, "{verb} {name}={value}: {error}");
            assert!(text(&error["msg"]).contains(name), "{verb} {name}={value}: {error}");
        }
    }
}

#[test]
fn arguments_come_in_any_order_and_unknown_ones_are_somebody_elses() {
    let node = Node::new();
    let _daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let mut names = BTreeSet::new();
    for arguments in [
        "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0",
        "K8S_POD_NAME=web-0;K8S_POD_NAMESPACE=default;IgnoreUnknown=1;Foo=bar",
        "Foo=a=b;;novalue;K8S_POD_NAME=web-0;K8S_POD_UID=u;K8S_POD_NAMESPACE=default",
    ] {
        let mut environment = sandbox.environment("ADD");
        environment.retain(|(name, _)| name != "CNI_ARGS");
        environment.push(("CNI_ARGS".into(), arguments.into()));
        let result = stage::run(&node.netns, &environment, &node.config().to_string()).result();
        names.insert(text(&result["interfaces"][0]["name"]).to_owned());
        node.del(&sandbox).is_silent_success();
    }
    // The name is made of namespace and pod.
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["eni0d7763386da"]);
}

#[test]
fn the_search_path_is_of_no_consequence() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    for path in [None, Some(""), Some("/nowhere:/opt/cni/bin"), Some(":")] {
        for verb in ["ADD", "DEL"] {
            let mut environment = sandbox.environment(verb);
            environment.retain(|(name, _)| name != "CNI_PATH");
            environment.extend(path.map(|path| ("CNI_PATH".to_owned(), path.to_owned())));
            let answer = stage::run(&node.netns, &environment, &node.config().to_string());
            assert!(answer.success, "{path:?} {verb}: {}", answer.stdout);
        }
    }
    assert!(daemon.leased().is_empty());
}

#[test]
fn each_verb_refuses_a_version_that_does_not_have_it() {
    let node = Node::new();
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    #[rustfmt::skip]
    let table = [
        ("ADD", "2.0.0"), ("DEL", "1.0"), ("ADD", "0.3"), ("CHECK", "0.3.1"), ("CHECK", ""), ("GC", "1.0.0"), ("STATUS", "0.4.0"),
    ];
    for (verb, version) in table {
        let mut config = node.config();
        config["cniVersion"] = version.into();
        let error = node.run(verb, &sandbox, &config).error();
        assert_eq!(error["code"], 1, "{verb} {version}: {error}");
        let part = if version.is_empty() { "0.1.0" } else { version };
        assert!(text(&error["msg"]).contains(part), "{verb} {version}: {error}");
    }
}

#[test]
fn what_real_runtimes_send_is_served() {
    let requests = recorded();
    let adds: Vec<_> = requests.iter().filter(|request| request.verb() == "ADD").collect();
    assert!(adds.len() >= 6, "{adds:?}");
    for request in adds {
        let node = Node::prepared();
        let before = node.snapshot();
        let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let pod = Netns::fresh().unwrap();
        let empty = snapshot(&pod);
        let add = request.on(&node, &stage::path(&pod));
        let result = add.run(&node).result();
        assert_eq!(
            result["cniVersion"],
            add.stdin.get("cniVersion").unwrap_or(&json!("0.1.0")).clone(),
            "{}",
            add.name
        );
        let held = ip_json(&pod, &format!("-4 address show {}", add.environment["CNI_IFNAME"]));
        assert_eq!(held[0]["addr_info"][0]["local"], "10.0.0.1", "{}", add.name);
        // The second of two DELs comes without a namespace, as containerd sends it.
        add.verb_is("DEL").run(&node).is_silent_success();
        let mut again = add.verb_is("DEL");
        again.environment.insert("CNI_NETNS".into(), String::new());
        again.run(&node).is_silent_success();
        assert_eq!((node.snapshot(), snapshot(&pod)), (before, empty), "{}", add.name);
        assert!(daemon.leased().is_empty(), "{}", add.name);
    }
}

#[test]
fn what_real_runtimes_send_for_a_sandbox_that_never_was_is_answered_and_changes_nothing() {
    let node = Node::prepared();
    let before = node.snapshot();
    let _daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    for request in recorded().into_iter().filter(|request| request.verb() != "ADD") {
        let answer = request.on(&node, &stage::path(&pod)).run(&node);
        match request.verb() {
            "CHECK" => assert_eq!(answer.error()["code"], 108, "{}", request.name),
            "VERSION" => assert!(answer.success && answer.json()["supportedVersions"].is_array(), "{}", request.name),
            _ => answer.is_silent_success(),
        }
        assert_eq!(node.snapshot(), before, "{}", request.name);
    }
}

#[test]
fn a_previous_result_without_a_version_of_its_own_is_read_as_the_configurations() {
    let node = Node::prepared();
    let _daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let mut config = node.config();
    let mut result = node.add(&sandbox).result();
    result.as_object_mut().unwrap().shift_remove("cniVersion");
    config["prevResult"] = result;
    node.run("CHECK", &sandbox, &config).is_silent_success();
    node.run("DEL", &sandbox, &config).is_silent_success();
}

#[test]
fn every_version_that_is_listed_is_spoken() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let listed = ask(&node, &[("CNI_COMMAND", "VERSION")], "").json();
    for version in listed["supportedVersions"].as_array().unwrap() {
        let mut config = node.config();
        config["cniVersion"] = version.clone();
        let result = node.run("ADD", &sandbox, &config).result();
        assert_eq!(result["cniVersion"], *version);
        let address = match result.get("ip4") {
            Some(old) => &old["ip"],
            None => &result["ips"][0]["address"],
        };
        assert!(text(address).ends_with("/32"), "{result}");
        assert_eq!(result.get("ip4").is_some(), text(version) < "0.3.0", "{result}");
        assert_eq!(result.get("interfaces").is_none(), text(version) < "0.3.0", "{result}");
        node.run("DEL", &sandbox, &config).is_silent_success();
    }
    assert!(daemon.leased().is_empty());
}

/// Every test of the plugin and of the kernel side, by name.
fn tests_under(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            tests_under(&entry, names);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let after = text.split("#[test]\nfn ").skip(1).chain(text.split("#[test]\n    fn ").skip(1));
            names.extend(after.filter_map(|rest| rest.split_once('(')).map(|(name, _)| name.to_owned()));
        }
    }
}

#[test]
fn the_checklist_names_a_test_that_exists_for_every_item() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests", "datapath/src", "datapath/tests"] {
        tests_under(&root.join(folder), &mut tests);
    }
    let checklist = fs::read_to_string(root.join("CHECKLIST.md")).unwrap();
    let mut items = BTreeSet::new();
    for line in checklist.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let Ok(item) = cells[0].parse::<u32>() else { continue };
        let named: Vec<_> = cells[2].split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "item {item} has no test");
        for name in named {
            assert!(tests.contains(name), "item {item} names `{name}`, which is no test");
        }
        items.insert(item);
    }
    assert_eq!(items, (1..=48).collect::<BTreeSet<u32>>());
}
