//! The built binary as a container runtime meets it: environment and standard input in, one JSON object and an exit code out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod stage;

use eni_datapath::Netns;
use serde_json::{Value, json};
use stage::Answer;

/// Runs the plugin in a network namespace of its own, so that the machine's network is out of its reach.
fn run(environment: &[(&str, &str)], stdin: &str) -> Answer {
    let environment: Vec<_> = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    stage::run(&Netns::fresh().unwrap(), &environment, stdin)
}

fn attachment(command: &str) -> Vec<(&str, &str)> {
    vec![
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
    ]
}

fn config(folder: &std::path::Path) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "eni-cni", "addWaitSeconds": 0,
        "socket": folder.join("ipamd.sock"), "releasedDir": folder.join("released"),
    })
}

#[test]
fn version_echoes_what_was_asked_and_needs_nothing_to_be_right() {
    #[rustfmt::skip]
    let table = [
        (r#"{"cniVersion":"1.0.0"}"#, "1.0.0"),
        (r#"{"cniVersion":"7.7.7"}"#, "7.7.7"),
        ("",                          "1.1.0"),
        ("not json",                  "1.1.0"),
    ];
    for (stdin, echoed) in table {
        let answer = run(&[("CNI_COMMAND", "VERSION"), ("CNI_NETNS", "dummy")], stdin);
        assert!(answer.success, "{stdin}");
        assert_eq!(answer.json()["cniVersion"], echoed, "{stdin}");
        assert_eq!(
            answer.json()["supportedVersions"],
            json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
        );
    }
}

#[test]
fn a_command_that_is_none_is_named() {
    for command in ["", "add", "REMOVE"] {
        let error = run(&[("CNI_COMMAND", command)], "{}").error();
        assert_eq!(error["code"], 4, "{error}");
        assert!(error["msg"].as_str().unwrap().contains(command), "{error}");
    }
    assert_eq!(run(&[], "{}").error()["code"], 4);
}

#[test]
fn an_error_speaks_the_version_of_the_request() {
    let error = run(&[("CNI_COMMAND", "ADD")], r#"{"cniVersion":"0.4.0","name":"pods"}"#).error();
    assert_eq!((error["cniVersion"].as_str(), error["code"].as_u64()), (Some("0.4.0"), Some(4)));
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
        assert!(error["msg"].as_str().unwrap().contains(name), "{error}");
    }
}

#[test]
fn an_add_without_a_daemon_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    // A namespace of the test's own, held open by this process for as long as the plugin looks at it.
    let sandbox = Netns::fresh().unwrap();
    let netns = stage::path(&sandbox);
    let mut environment = attachment("ADD");
    environment[2].1 = &netns;
    let error = run(&environment, &config(folder.path()).to_string()).error();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["msg"].as_str().unwrap().starts_with("IPAM-101"), "{error}");
    assert!(error["details"].as_str().unwrap().contains("try again"), "{error}");
}

#[test]
fn a_namespace_that_is_none_or_our_own_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for netns in ["/nowhere", "/etc/hostname", "/proc/self/ns/net"] {
        let mut environment = attachment("ADD");
        environment[2].1 = netns;
        let error = run(&environment, &config(folder.path()).to_string()).error();
        assert_eq!(error["code"], 8, "{netns}: {error}");
        assert!(error["msg"].as_str().unwrap().starts_with("IPAM-103"), "{netns}: {error}");
    }
}

#[test]
fn a_del_without_a_daemon_succeeds_says_nothing_and_leaves_one_note() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let answer = run(&attachment("DEL"), &config(folder.path()).to_string());
        assert!(answer.success && answer.stdout.is_empty(), "{}", answer.stdout);
    }
    let notes: Vec<_> = std::fs::read_dir(folder.path().join("released")).unwrap().flatten().collect();
    assert_eq!(notes.len(), 1);
    let note: eni_proto::ReleaseNote = std::fs::read_to_string(notes[0].path()).unwrap().parse().unwrap();
    assert_eq!(note.key.to_string(), "pods/c1/eth0");
}

#[test]
fn a_del_that_can_leave_no_note_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("released"), "a file where the folder should be").unwrap();
    let error = run(&attachment("DEL"), &config(folder.path()).to_string()).error();
    assert_eq!(error["code"], 107, "{error}");
}

#[test]
fn status_says_that_nothing_can_be_added_without_a_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config["cniVersion"] = "1.1.0".into();
    let error = run(&[("CNI_COMMAND", "STATUS")], &config.to_string()).error();
    assert_eq!(error["code"], 50, "{error}");
}

#[test]
fn an_input_without_end_is_refused() {
    let error = run(&attachment("ADD"), &" ".repeat(2 << 20)).error();
    assert_eq!(error["code"], 6, "{error}");
}
