//! How the tests look at a node from outside the daemon.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod browser;
pub(crate) mod expressions;

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use e2e::Worker;
use serde_json::Value;

/// Runs curl in the node's network and returns what it printed.
pub(crate) fn curl(worker: &Worker, arguments: &[&str]) -> String {
    // 7: nobody listens. The daemon opens its ports beside its socket, in no order.
    let begun = Instant::now();
    loop {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20"]).args(arguments);
        let output = worker.node().namespace().output(&mut command, &[]).unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap();
        }
        let refused = output.status.code() == Some(7) && begun.elapsed() < Duration::from_secs(10);
        assert!(refused, "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What is at a URL of the node.
pub(crate) fn get(worker: &Worker, url: &str) -> String {
    curl(worker, &[url])
}

/// What introspection answers.
pub(crate) fn json(worker: &Worker, path: &str) -> Value {
    let text = get(worker, &format!("http://127.0.0.1:61679{path}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

/// The folder of tools that `make setup` fills.
pub(crate) fn tool(name: &str) -> PathBuf {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tools")).join(name);
    assert!(path.exists(), "{} is missing: run `make setup`", path.display());
    path
}

/// What promtool has to say against a page of metrics. Names of the AWS CNI are as they are.
pub(crate) fn lint(page: &str) -> Vec<String> {
    let mut command = Command::new(tool("promtool"));
    command.args(["check", "metrics"]).stdin(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    // 3: it was read, and there are opinions; anything else but 0: it could not be read.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}\n{page}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    said.lines().filter(|line| !line.is_empty() && !line.starts_with("awscni_")).map(str::to_owned).collect()
}

/// Runs a command of `ipamd` on the node, as a person there would; returns its exit code and what it printed.
pub(crate) fn ipamd(worker: &Worker, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(&worker.binaries().ipamd);
    command.env_clear().envs(worker.daemon_environment());
    command.args(arguments).arg("--socket").arg(worker.socket()).arg("--database").arg(worker.database());
    let output = worker.node().namespace().output(&mut command, &[]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}
