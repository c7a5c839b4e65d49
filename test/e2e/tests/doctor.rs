//! What `ipamd doctor` and `ipamd explain` say of a real node, well and hurt.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::process::Command;

use e2e::{Worker, flight};
use nix::sys::signal::Signal;
use serde_json::Value;

mod stage;

use stage::ready_cluster;

/// Runs a command of `ipamd` on the node, as a person there would; returns its exit code and what it printed.
fn ipamd(worker: &Worker, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(&worker.binaries().ipamd);
    command.args(arguments).arg("--database").arg(worker.database());
    command.env_clear().envs(worker.daemon_environment());
    let output = worker.node().namespace().output(&mut command, &[]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doctor_finds_what_somebody_broke_and_only_that() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    let node = worker.node().namespace();
    let (code, said) = ipamd(worker, &["doctor"]);
    assert_eq!((code, said.as_str()), (Some(0), "3 leases checked: 0 errors, 0 warnings, 0 not checked\n"));

    // A daemon that runs would mend this at once.
    worker.signal_daemon(Signal::SIGSTOP).unwrap();
    let address = pods[0].place.address;
    node.run(&["ip", "route", "del", &address.to_string(), "table", "20000"]).unwrap();
    node.run(&["sysctl", "-qw", "net.ipv4.ip_forward=0"]).unwrap();
    let (code, said) = ipamd(worker, &["doctor", "--output", "json"]);
    assert_eq!(code, Some(1), "{said}");
    let report: Value = serde_json::from_str(&said).unwrap();
    let found: Vec<&str> =
        report["findings"].as_array().unwrap().iter().map(|it| it["what"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().any(|what| what.contains("ip_forward is 0 instead of 1")), "{found:?}");
    let route = format!("{address} of pod demo/{}: route to {address} in table 20000", pods[0].sandbox.name);
    assert!(found.iter().any(|what| what.starts_with(&route)), "{found:?}");

    worker.cut_ec2();
    node.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]).unwrap();
    worker.signal_daemon(Signal::SIGCONT).unwrap();
    flight::delete(&cluster, &pods).await.unwrap();
    let (code, said) = ipamd(worker, &["doctor"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.starts_with("not checked: EC2"), "{said}");
    assert_eq!(ipamd(worker, &["doctor", "--no-ec2"]).0, Some(3), "what was not asked was not checked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_way_is_explained_by_name_and_by_address() {
    let cluster = ready_cluster(1, 1, &[]).await;
    // More than the primary interface holds.
    let pods = flight::add(&cluster, &flight::sandboxes(20).unwrap()).await.unwrap();
    let worker = &cluster.workers[0];
    let mut marks = Vec::new();
    for pod in &pods {
        let (code, said) = ipamd(worker, &["explain", &pod.place.address.to_string(), "--output", "json"]);
        assert_eq!(code, Some(0), "{said}");
        let way: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&way["pod"], &way["eni-confirmed-by-ec2"]),
            (&pod.sandbox.name.as_str().into(), &true.into()),
            "{way}"
        );
        assert_eq!(way["trouble"], Value::Array(vec![]));
        marks.push(way["mark"].as_u64().unwrap());
    }
    // A mark is the owning device's table: 0 for the primary interface, device + 1 for the others. Which of the others
    // had an address first is a matter of timing.
    let last = marks.iter().position(|mark| *mark >= 2).unwrap_or_else(|| panic!("{marks:?}"));
    assert!(marks.contains(&0), "{marks:?}");
    let table = marks[last];
    let (code, said) = ipamd(worker, &["explain", &format!("demo/{}", pods[last].sandbox.name)]);
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        format!("eth0 {}/32", pods[last].place.address),
        format!("marks {table:#x}, rule 1536 leads to table {table}"),
        format!("device {}", table - 1),
    ] {
        assert!(said.contains(&expected), "{expected} is not in:\n{said}");
    }
    let (code, said) = ipamd(worker, &["explain", "demo/nobody"]);
    assert!(code == Some(1) && said.contains("20 have"), "{said}");
}
