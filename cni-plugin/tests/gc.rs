//! GC and STATUS of the built binary.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::{
    Answer, Node, Sandbox,
    daemon::{Daemon, Manner},
    ip, run_in, snapshot,
};

fn ask(node: &Node, verb: &str, config: &Value) -> Answer {
    stage::run(&node.netns, &[("CNI_COMMAND".into(), verb.into())], &config.to_string())
}

fn gc(node: &Node, network: &str, valid: &[&Sandbox]) -> Answer {
    let mut config = node.config();
    (config["cniVersion"], config["name"]) = ("1.1.0".into(), network.into());
    config["cni.dev/valid-attachments"] =
        valid.iter().map(|it| json!({ "containerID": it.container, "ifname": it.interface })).collect();
    ask(node, "GC", &config)
}

/// Three pods on the secondary interface, the third with a second interface.
fn pods(node: &Node) -> (Vec<Netns>, Vec<Sandbox>) {
    let netns: Vec<_> = (0..3).map(|_| Netns::fresh().unwrap()).collect();
    let mut sandboxes: Vec<_> =
        netns.iter().enumerate().map(|(n, netns)| Sandbox::new(&format!("c{n}"), &format!("web-{n}"), netns)).collect();
    sandboxes.push(sandboxes[2].interface("net1"));
    for sandbox in &sandboxes {
        node.add(sandbox).result();
    }
    (netns, sandboxes)
}

#[test]
fn gc_ends_what_is_not_listed_and_nothing_else() {
    let node = Node::prepared();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let before = node.snapshot();
    let (netns, sandboxes) = pods(&node);
    let kept = (snapshot(&netns[0]), sandboxes[0].key());

    // Another network's list says nothing of this one.
    gc(&node, "other", &[]).is_silent_success();
    assert_eq!(daemon.leased().len(), 4);
    gc(&node, "pods", &[&sandboxes[0], &sandboxes[3]]).is_silent_success();
    assert_eq!(daemon.leased(), [kept.1.clone(), sandboxes[3].key()]);
    assert_eq!(snapshot(&netns[0]), kept.0);
    assert!(ip(&netns[2], "link").contains("net1") && !ip(&netns[2], "link").contains("eth0"));
    gc(&node, "pods", &[]).is_silent_success();
    gc(&node, "pods", &[]).is_silent_success();

    assert!(daemon.leased().is_empty() && node.notes().is_empty());
    assert_eq!(node.snapshot(), before);
}

#[test]
fn gc_without_a_list_ends_nothing() {
    let node = Node::prepared();
    let daemon = Daemon::start(&node.socket());
    let _pods = pods(&node);
    let before = node.snapshot();
    let mut config = node.config();
    config["cniVersion"] = "1.1.0".into();
    ask(&node, "GC", &config).is_silent_success();
    config["cni.dev/valid-attachments"] = json!([{ "containerID": "c0" }]);
    assert_eq!(ask(&node, "GC", &config).error()["code"], 7);
    assert_eq!((node.snapshot(), daemon.leased().len()), (before, 4));
}

#[test]
fn gc_without_the_daemon_ends_the_kernel_side_and_leaves_notes() {
    let node = Node::prepared();
    let before = node.snapshot();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let (_netns, sandboxes) = pods(&node);
    let alone = node.snapshot();
    assert_ne!(alone, before);
    drop(daemon);
    gc(&node, "pods", &[&sandboxes[0]]).is_silent_success();
    assert_eq!(node.notes(), [sandboxes[1].key(), sandboxes[2].key(), sandboxes[3].key()]);
    gc(&node, "pods", &[]).is_silent_success();
    assert_eq!(node.notes().len(), 4);
    assert_eq!(node.snapshot(), before);
}

#[test]
fn gc_keeps_what_was_given_while_the_runtime_made_its_list() {
    let node = Node::prepared();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let (netns, sandboxes) = pods(&node);
    let before = snapshot(&netns[1]);
    daemon.book().given_meanwhile = Some(sandboxes[1].key());
    gc(&node, "pods", &[&sandboxes[0]]).is_silent_success();
    assert_eq!(daemon.leased(), [sandboxes[0].key(), sandboxes[1].key()]);
    assert_eq!(snapshot(&netns[1]), before);
}

#[test]
fn gc_goes_on_after_an_error_and_reports_them_together() {
    let node = Node::prepared();
    let daemon = Daemon::start(&node.socket());
    let before = node.snapshot();
    let _pods = pods(&node);
    drop(daemon);
    std::fs::write(node.folder.path().join("released"), "a file where the folder should be").unwrap();
    let error = gc(&node, "pods", &[]).error();
    assert_eq!(error["code"], 107, "{error}");
    let text = error["msg"].as_str().unwrap();
    for key in ["pods/c0/eth0", "pods/c1/eth0", "pods/c2/eth0", "pods/c2/net1"] {
        assert!(text.contains(key), "{error}");
    }
    assert_eq!(node.snapshot(), before, "the kernel side of all is gone");
}

#[test]
fn status_is_silent_when_an_add_can_be_served_and_changes_nothing() {
    let node = Node::prepared();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    let _pods = pods(&node);
    let mut config = node.config();
    config["cniVersion"] = "1.1.0".into();
    let before = (node.snapshot(), daemon.book().calls.len());
    ask(&node, "STATUS", &config).is_silent_success();
    assert_eq!((node.snapshot(), daemon.book().calls.len()), before);

    daemon.book().starting = true;
    let error = ask(&node, "STATUS", &config).error();
    assert_eq!(
        (error["code"].as_u64(), error["msg"].as_str()),
        (Some(50), Some("IPAM-205 ipamd is not ready: EC2 to answer"))
    );
    drop(daemon);
    assert_eq!(ask(&node, "STATUS", &config).error()["code"], 50);
}

#[test]
fn status_says_when_the_pods_that_are_there_are_cut_off() {
    type Change = fn(&Node);
    #[rustfmt::skip]
    let table: [(Change, &str); 2] = [
        (|node| drop(ip(&node.netns, "rule delete pref 512")),               "rule 512 (lookup 20000) is missing"),
        (|node| run_in(&node.netns, "nft", "delete table ip eni_cni"), "nf_tables table ip eni_cni is missing"),
    ];
    for (change, part) in table {
        let node = Node::prepared();
        let _daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
        let mut config = node.config();
        config["cniVersion"] = "1.1.0".into();
        let pods = pods(&node);
        change(&node);
        let error = ask(&node, "STATUS", &config).error();
        assert_eq!(error["code"], 51, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(part), "{error}");
        // DEL works whatever STATUS says.
        for sandbox in pods.1 {
            node.del(&sandbox).is_silent_success();
        }
        ask(&node, "STATUS", &config).is_silent_success();
    }
}
