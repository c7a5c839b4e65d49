//! eni-cni as the first plugin of a list, before the real portmap, bandwidth and tuning of Debian, called as libcni calls them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Answer, Node, Sandbox,
    daemon::{Daemon, Manner},
    ip,
};

/// Where the package containernetworking-plugins has them.
const FOLDER: &str = "/usr/lib/cni";

/// The plugins behind us, each with its configuration.
fn others(node: &Node) -> [Value; 3] {
    [
        json!({ "type": "portmap", "snat": true, "runtimeConfig": { "portMappings": [
            { "HostPort": 18080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
        ] } }),
        json!({ "type": "bandwidth", "runtimeConfig": { "bandwidth": {
            "IngressRate": 10_000_000, "IngressBurst": 10_000_000, "EgressRate": 10_000_000, "EgressBurst": 10_000_000,
        } } }),
        json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" }, "dataDir": node.folder.path() }),
    ]
}

/// Runs one of the others as the runtime does.
fn run(node: &Node, verb: &str, sandbox: &Sandbox, config: &Value) -> Answer {
    let program = format!("{FOLDER}/{}", config["type"].as_str().unwrap());
    let start = || {
        Command::new(&program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(sandbox.environment(verb))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; test/setup.sh installs it"))
    };
    let mut child = node.netns.inside(start).unwrap();
    child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
    stage::end(child)
}

fn configured(mut config: Value, version: &str, previous: &Value) -> Value {
    (config["cniVersion"], config["name"], config["prevResult"]) = (version.into(), "pods".into(), previous.clone());
    config
}

#[test]
fn our_result_is_a_previous_result_for_portmap_bandwidth_and_tuning() {
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
        let node = Node::prepared();
        let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let pod = Netns::fresh().unwrap();
        let sandbox = Sandbox::new("c1", "web-0", &pod);
        let mut own = node.config();
        own["cniVersion"] = version.into();

        let first = node.run("ADD", &sandbox, &own).result();
        let mut last = first.clone();
        for other in others(&node) {
            last = run(&node, "ADD", &sandbox, &configured(other, version, &last)).result();
        }
        assert_eq!((&last["ips"], &last["routes"]), (&first["ips"], &first["routes"]), "{version}");
        assert_eq!(last["interfaces"][1], first["interfaces"][1], "{version}");
        assert!(last["interfaces"].as_array().unwrap().len() > 2, "bandwidth adds its own: {last}");

        own["prevResult"] = last.clone();
        if version >= "0.4.0" {
            node.run("CHECK", &sandbox, &own).is_silent_success();
            // Debian's portmap fails its own CHECK where there is no IPv6.
            for other in others(&node).into_iter().skip(1) {
                run(&node, "CHECK", &sandbox, &configured(other, version, &last)).is_silent_success();
            }
        }
        for other in others(&node).into_iter().rev() {
            run(&node, "DEL", &sandbox, &configured(other, version, &last)).is_silent_success();
        }
        node.run("DEL", &sandbox, &own).is_silent_success();
        assert!(daemon.leased().is_empty());
        assert!(!ip(&node.netns, "link").contains("eni0"), "{version}");
    }
}

#[test]
fn a_list_in_which_we_are_not_the_first_is_refused() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let pod = Netns::fresh().unwrap();
    let mut config = node.config();
    config["prevResult"] = json!({ "cniVersion": "1.0.0", "interfaces": [], "ips": [] });
    let error = node.run("ADD", &Sandbox::new("c1", "web-0", &pod), &config).error();
    assert_eq!(error["code"], 7, "{error}");
    assert!(error["msg"].as_str().unwrap().contains("first plugin"), "{error}");
    assert!(daemon.book().calls.is_empty());
}
