//! The built binary against daemons that refuse, die, stay silent or are away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use std::os::unix::net::UnixListener;

use eni_datapath::Netns;
use eni_proto::{RefusalCode, wire};
use serde_json::Value;
use stage::{
    Node, Sandbox,
    daemon::{Daemon, Manner},
};

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn the_lease_of_a_failed_add_is_noted_when_it_cannot_be_returned() {
    let node = Node::new();
    let daemon = Daemon::start_as(&node.socket(), Manner::Secondary);
    daemon.book().starting = true;
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    assert_eq!(node.add(&sandbox).error()["code"], 102);
    assert_eq!(node.notes(), [sandbox.key()]);
}

#[test]
fn an_add_whose_answer_never_comes_ends_and_returns_what_it_may_have_got() {
    let node = Node::new();
    let daemon = Daemon::start_as(&node.socket(), Manner::Silent);
    let pod = Netns::fresh().unwrap();
    let mut config = node.config();
    config["addWaitSeconds"] = 0.into();
    let error = node.run("ADD", &Sandbox::new("c1", "web-0", &pod), &config).error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(text(&error["msg"]).contains("gave no answer within 3 s"), "{error}");
    assert_eq!(daemon.book().calls, ["ADD pods/c1/eth0", "DEL pods/c1/eth0"]);
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_refusal_reaches_the_runtime_in_the_daemons_words() {
    let node = Node::new();
    let pod = Netns::fresh().unwrap();
    let daemon = Daemon::start(&node.socket());
    for (code, try_again, wanted) in [(RefusalCode::NodeFull, false, 201), (RefusalCode::Late, true, 11)] {
        daemon.book().manner = Manner::Refuse(wire::Refusal {
            code: code.as_str().to_owned(),
            message: "no address for pod default/web-0: 27 of 27 are held".to_owned(),
            advice: "Use a larger instance.".to_owned(),
            try_again,
        });
        let error = node.add(&Sandbox::new("c1", "web-0", &pod)).error();
        assert_eq!(error["code"], wanted, "{error}");
        assert_eq!(error["msg"], format!("{} no address for pod default/web-0: 27 of 27 are held", code.as_str()));
        assert_eq!(error["details"], "Use a larger instance.");
    }
    assert_eq!(daemon.book().calls, ["ADD pods/c1/eth0"; 2], "nothing was given, so nothing is returned");
}

#[test]
fn an_add_outlasts_a_restart_of_the_daemon() {
    let node = Node::new();
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    // A daemon that dies with the call in its hands: the plugin has met it, and is not done.
    let dying = UnixListener::bind(node.socket()).unwrap();
    let add = node.start("ADD", &sandbox, &node.config());
    drop(dying.accept().unwrap());
    drop(dying);
    // The socket's file is there and nobody listens; then it is gone; then there is a daemon.
    std::fs::remove_file(node.socket()).unwrap();
    let daemon = Daemon::start(&node.socket());

    assert_eq!(stage::end(add).address(), "10.0.0.1/32");
    assert_eq!(daemon.leased(), [sandbox.key()]);
}

#[test]
fn an_add_that_was_leased_when_the_daemon_died_gets_its_answer_from_the_next() {
    let node = Node::new();
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let silent = Daemon::start_as(&node.socket(), Manner::Silent);
    let add = node.start("ADD", &sandbox, &node.config());
    silent.until_heard(1);
    drop(silent);
    let daemon = Daemon::start(&node.socket());
    assert_eq!(stage::end(add).address(), "10.0.0.1/32");
    assert_eq!(daemon.book().calls, ["ADD pods/c1/eth0"]);
}

#[test]
fn a_plugin_killed_in_the_middle_is_cleaned_up_by_del() {
    let node = Node::new();
    let before = node.snapshot();
    let pod = Netns::fresh().unwrap();
    let sandbox = Sandbox::new("c1", "web-0", &pod);
    let daemon = Daemon::start_as(&node.socket(), Manner::Silent);
    let mut add = node.start("ADD", &sandbox, &node.config());
    daemon.until_heard(1);
    add.kill().unwrap();
    add.wait().unwrap();
    assert_eq!(daemon.leased(), [sandbox.key()]);
    node.del(&sandbox).is_silent_success();
    assert_eq!(node.snapshot(), before);
    assert!(daemon.leased().is_empty());
}

#[test]
fn a_del_leaves_a_note_for_a_daemon_that_is_away_or_starting() {
    let node = Node::new();
    let before = node.snapshot();
    let pods = [(); 2].map(|()| Netns::fresh().unwrap());
    let [first, second] = [Sandbox::new("c1", "web-0", &pods[0]), Sandbox::new("c2", "web-1", &pods[1])];
    let daemon = Daemon::start(&node.socket());
    node.add(&first).result();
    node.add(&second).result();

    daemon.book().starting = true;
    node.del(&first).is_silent_success();
    drop(daemon);
    node.del(&second).is_silent_success();

    assert_eq!(node.notes(), [first.key(), second.key()]);
    assert_eq!(node.snapshot(), before);
}

#[test]
fn an_add_outdates_the_note_of_the_del_before_it() {
    let node = Node::new();
    let pod = Netns::fresh().unwrap();
    let (sandbox, other) = (Sandbox::new("c1", "web-0", &pod), Sandbox::new("c2", "web-1", &pod));
    node.del(&sandbox).is_silent_success();
    node.del(&other).is_silent_success();
    assert_eq!(node.notes(), [sandbox.key(), other.key()]);

    let _daemon = Daemon::start(&node.socket());
    node.add(&sandbox).result();

    assert_eq!(node.notes(), [other.key()]);
}

#[test]
fn status_says_what_the_daemon_says() {
    let node = Node::new();
    let daemon = Daemon::start(&node.socket());
    let mut config = node.config();
    config["cniVersion"] = "1.1.0".into();
    let status = || stage::run(&node.netns, &[("CNI_COMMAND".into(), "STATUS".into())], &config.to_string());
    status().is_silent_success();
    daemon.book().starting = true;
    let error = status().error();
    assert_eq!(error["code"], 50, "{error}");
    assert_eq!(error["msg"], "IPAM-205 ipamd is not ready: EC2 to answer");
}
