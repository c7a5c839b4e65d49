//! CHECK of the built binary: each thing that ADD made is taken away once, and CHECK says which.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
    ip, ip_json, run_in,
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

/// A pod on the secondary interface, as ADD left it.
struct Pod {
    node: Node,
    daemon: Daemon,
    netns: Netns,
    sandbox: Sandbox,
    config: Value,
}

impl Pod {
    fn added(version: &str) -> Self {
        let node = Node::prepared();
        let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let netns = Netns::fresh().unwrap();
        let sandbox = Sandbox::new("c1", "web-0", &netns);
        let mut config = node.config();
        config["cniVersion"] = version.into();
        config["prevResult"] = node.run("ADD", &sandbox, &config).result();
        Self { node, daemon, netns, sandbox, config }
    }

    fn check(&self) -> stage::Answer {
        self.node.run("CHECK", &self.sandbox, &self.config)
    }

    fn host_link(&self) -> &str {
        text(&self.config["prevResult"]["interfaces"][0]["name"])
    }

    fn on_host(&self, arguments: &str) {
        ip(&self.node.netns, &arguments.replace("HOST", self.host_link()));
    }

    fn inside(&self, arguments: &str) {
        ip(&self.netns, arguments);
    }
}

#[test]
fn check_succeeds_silently_right_after_add_in_every_version() {
    for version in ["0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::added(version);
        pod.check().is_silent_success();
        assert_eq!(pod.daemon.book().calls, ["ADD pods/c1/eth0", "CHECK pods/c1/eth0"]);
    }
}

#[test]
fn check_names_each_thing_that_is_gone_or_different() {
    type Change = fn(&Pod);
    #[rustfmt::skip]
    let table: [(Change, &str); 15] = [
        (|pod| pod.inside("link set eth0 mtu 1400"),                    "MTU of eth0 in the pod: wanted 9001, found 1400"),
        (|pod| pod.inside("link set eth0 address 02:00:00:00:00:99"),   "hardware address of eth0 in the pod: wanted "),
        (|pod| pod.inside("link set eth0 down"),                        "eth0 in the pod: wanted up, found down"),
        (|pod| pod.inside("link set eth0 name eth9"),                   "interface eth0 in the pod: wanted a link, found none"),
        (|pod| pod.inside("address flush dev eth0"),                    "address of eth0: wanted 10.0.0.1, found none"),
        (|pod| pod.inside("route delete default"),                      "route to 0.0.0.0/0 in the pod: wanted "),
        (|pod| pod.inside("neighbour delete 169.254.1.1 dev eth0"),     "neighbour 169.254.1.1 on eth0: wanted "),
        (|pod| pod.on_host("link set HOST mtu 1400"),                   "wanted 9001, found 1400"),
        (|pod| pod.on_host("link set HOST down"),                       ": wanted up, found down"),
        (|pod| pod.on_host("link delete HOST"),                         "host interface: wanted eni"),
        (|pod| pod.on_host("link set HOST alias other"),                "host interface: wanted eni"),
        (|pod| pod.on_host("route flush table 20000"),                  "route to 10.0.0.1 in table 20000: wanted over eni"),
        (|pod| run_in(&pod.node.netns, "nft", "delete element ip eni_cni pod_eni { 10.0.0.1 : jump eni_2 }"), "map element of 10.0.0.1: wanted eni_2, found none"),
        (|pod| run_in(&pod.node.netns, "nft", "delete table ip eni_cni"), "map element of 10.0.0.1: wanted eni_2, found no such map"),
        (|pod| pod.daemon.book().leases.clear(),                        "lease: wanted 10.0.0.1, found none"),
    ];
    for (change, part) in table {
        let pod = Pod::added("1.1.0");
        change(&pod);
        let error = pod.check().error();
        assert_eq!(error["code"], 108, "{error}");
        assert!(text(&error["msg"]).starts_with("IPAM-108 pods/c1/eth0 is not as ADD reported it: "), "{error}");
        assert!(text(&error["msg"]).contains(part), "{part}: {error}");
        pod.node.del(&pod.sandbox).is_silent_success();
    }
}

#[test]
fn what_others_added_is_no_difference() {
    let pod = Pod::added("1.0.0");
    pod.inside("address add 192.168.7.7/24 dev eth0");
    pod.inside("route add 172.20.0.0/16 via 169.254.1.1");
    pod.inside("rule add from 192.168.7.7 lookup 77");
    pod.on_host("route add 192.168.7.7/32 dev HOST");
    // A plugin behind us may set another MTU, and could not report it before version 1.1.0.
    pod.inside("link set eth0 mtu 1400");
    pod.check().is_silent_success();
}

#[test]
fn the_second_interface_is_checked_as_the_first() {
    let mut pod = Pod::added("1.1.0");
    let second = pod.sandbox.interface("net1");
    let mut config = pod.config.clone();
    config["prevResult"] = Value::Null;
    let result = pod.node.run("ADD", &second, &config).result();
    assert_eq!(
        result["routes"][0]["table"],
        ip_json(&pod.netns, "rule show from 10.0.0.2")[0]["table"]
            .as_str()
            .map_or(json!(null), |table| table.parse::<u64>().unwrap().into())
    );
    config["prevResult"] = result;
    pod.node.run("CHECK", &second, &config).is_silent_success();
    pod.check().is_silent_success();

    pod.inside("rule delete from 10.0.0.2");
    let error = pod.node.run("CHECK", &second, &config).error();
    assert!(text(&error["msg"]).contains("rule in the pod: wanted "), "{error}");
    pod.sandbox = second;
    pod.config["prevResult"] = Value::Null;
    assert_eq!(pod.check().error()["code"], 7);
}

#[test]
fn check_of_a_namespace_that_is_gone_says_so() {
    let mut pod = Pod::added("1.0.0");
    pod.sandbox = pod.sandbox.netns("/run/netns/is-not-there");
    assert_eq!(pod.check().error()["code"], 8);
}

#[test]
fn check_without_the_daemon_tells_the_kernels_differences_or_that_it_could_not_compare_the_lease() {
    let pod = Pod::added("1.0.0");
    pod.daemon.book().starting = true;
    let error = pod.check().error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(text(&error["msg"]).starts_with("IPAM-101"), "{error}");
    pod.inside("route delete default");
    let error = pod.check().error();
    assert_eq!(error["code"], 108, "{error}");
}

#[test]
fn check_changes_nothing() {
    let pod = Pod::added("1.0.0");
    pod.inside("route delete default");
    let before = (pod.node.snapshot(), stage::snapshot(&pod.netns), pod.daemon.leased());
    pod.check().error();
    assert_eq!((pod.node.snapshot(), stage::snapshot(&pod.netns), pod.daemon.leased()), before);
}
