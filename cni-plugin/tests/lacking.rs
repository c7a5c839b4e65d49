//! The plugin on a kernel that lacks something: it says what, and leaves nothing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use stage::{
    Answer, Node, Sandbox,
    daemon::{Daemon, Manner},
    fault, snapshot,
};

fn without_nf_tables(node: &Node, verb: &str, sandbox: &Sandbox) -> Answer {
    let plugin = stage::start_waiting(&node.netns, &sandbox.environment(verb));
    fault::run_without_nf_tables(plugin, &node.config().to_string())
}

#[test]
fn without_nf_tables_a_pod_that_needs_them_is_refused_with_the_reason_and_nothing_is_left() {
    let node = Node::prepared();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let before = (node.snapshot(), snapshot(&pod));
    let error = without_nf_tables(&node, "ADD", &sandbox).error();
    assert_eq!(error["code"], 102, "{error}");
    let text = format!("{} {}", error["msg"].as_str().unwrap(), error["details"].as_str().unwrap());
    for part in ["this kernel has no nf_tables (CONFIG_NF_TABLES)", "was undone", "The address was returned"] {
        assert!(text.contains(part), "{part}: {error}");
    }
    assert_eq!((node.snapshot(), snapshot(&pod)), before);
    assert!(daemon.leased().is_empty() && node.notes().is_empty());
    without_nf_tables(&node, "DEL", &sandbox).is_silent_success();
    node.add(&sandbox).result();
    node.del(&sandbox).is_silent_success();
    node.comes_to(&before.0, "ADD and DEL with nf_tables");
}
