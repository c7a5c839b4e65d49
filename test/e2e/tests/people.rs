//! What people type and read: tables in a terminal, logs, and what must never be read anywhere.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Instant,
};

use e2e::{Sandbox, Worker, flight, plugin::Verb};
use lab::wait;

mod look;
mod stage;

use stage::{PATIENCE, ready_cluster};

/// The command line that runs `ipamd` on the node in a terminal of so many columns.
fn in_terminal(worker: &Worker, columns: u16, environment: &str, arguments: &str) -> Command {
    let ipamd = worker.binaries().ipamd.display();
    let enter = worker.node().namespace().enter_hint();
    let (socket, database) = (worker.socket(), worker.database());
    let places = format!("--socket {} --database {}", socket.display(), database.display());
    let line = format!("stty rows 24 cols {columns}; {environment} exec {enter} {ipamd} {arguments} {places}");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "script", "-qec", &line, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn shown(worker: &Worker, columns: u16, environment: &str, arguments: &str) -> String {
    let output = in_terminal(worker, columns, environment, arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments}: {said}");
    said
}

/// A command that shows again and again; it is ended with this value.
struct Watch(Child);

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watch {
    /// Reads until `text` was written `times` times.
    fn until(&mut self, text: &str, times: usize) -> String {
        let (mut said, mut part, begun) = (String::new(), [0; 4096], Instant::now());
        while said.matches(text).count() < times {
            let length = self.0.stdout.as_mut().unwrap().read(&mut part).unwrap();
            assert!(length > 0, "it ended:\n{said}");
            assert!(begun.elapsed() < PATIENCE, "never: {text}\n{said}");
            said.push_str(&String::from_utf8_lossy(&part[..length]));
        }
        said
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_fits_its_terminal_and_wide_leaves_nothing_out() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    for (arguments, columns) in [("status", 76), ("pods", 80), ("plan", 70), ("history", 100)] {
        let narrow = shown(worker, columns, "NO_COLOR=1", arguments);
        let heading = |line: &&str| line.starts_with(|c: char| c.is_ascii_uppercase()) && !line.starts_with("EC2 said");
        let table: Vec<&str> =
            narrow.lines().skip_while(|line| !heading(line)).take_while(|line| !line.starts_with("  ")).collect();
        assert!(table.len() > 1, "{arguments} has no table:\n{narrow}");
        for line in table {
            assert!(line.trim_end().chars().count() <= columns.into(), "{arguments}: {line:?} in\n{narrow}");
        }
        assert!(!narrow.contains('\u{1b}'), "{arguments}: colours although NO_COLOR says no:\n{narrow}");
    }
    let narrow = shown(worker, 80, "", "pods");
    assert!(narrow.contains('…') && !narrow.contains("NETWORK NAMESPACE"), "{narrow}");
    let wide = shown(worker, 60, "", "pods --output wide");
    assert!(!wide.contains('…') && wide.contains(&pods[0].sandbox.container_id), "{wide}");
    let colourful = shown(worker, 200, "", "status");
    assert!(colourful.contains("\u{1b}[32myes\u{1b}[0m") && !colourful.contains('…'), "{colourful}");
    let (code, piped) = look::ipamd(worker, &["pods"]);
    assert!(code == Some(0) && !piped.contains('\u{1b}') && !piped.contains('…'), "{piped}");

    let mut watch = Watch(in_terminal(worker, 100, "", "status --watch").spawn().unwrap());
    let said = watch.until("\u{1b}[2J\u{1b}[H", 2);
    assert!(said.contains("3 leased"), "{said}");
    worker.kill_daemon().unwrap();
    watch.until("no daemon answers", 1);
    worker.start_daemon().unwrap();
    watch.until("3 leased", 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_json_log_is_an_object_and_the_plugins_calls_are_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep/ipamd.log");
    let settings = [
        ("AWS_VPC_K8S_CNI_LOG_FILE", file.to_str().unwrap()),
        ("IPAMD_LOG_FORMAT", "json"),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "debug"),
    ];
    let cluster = ready_cluster(1, 1, &settings).await;
    let worker = &cluster.workers[0];
    let well = Sandbox::new("well", 1).unwrap();
    let odd = Sandbox { netns: "/proc/self/ns/nothing".to_owned(), ..Sandbox::new("odd", 2).unwrap() };
    assert!(worker.plugin(Verb::Add, &well).await.unwrap().failure().is_none());
    assert!(worker.plugin(Verb::Add, &odd).await.unwrap().failure().is_some());
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&file).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let said = |message: &str, pod: &str| {
        let pod = format!("demo/{pod}");
        lines().into_iter().find(|line| line["message"] == message && line["pod"] == pod.as_str())
    };
    let both = || async {
        let done = said("the plugin is done", &well.name).filter(|line| line["level"] == "DEBUG");
        let failed = said("the plugin failed", &odd.name).filter(|line| line["level"] == "WARN");
        match (done, failed) {
            (Some(done), Some(failed)) => Ok((done, failed)),
            _ => Err(format!("{:?}", lines())),
        }
    };
    let (done, failed) = wait::until(PATIENCE, "both calls in the log", both).await.unwrap();
    assert!(done["verb"] == "ADD" && done["took_ms"].is_u64(), "{done}");
    assert!(failed["error"].as_str().is_some_and(|why| !why.is_empty()) && failed["code"].is_u64(), "{failed}");
    assert!(lines().iter().all(|line| line["timestamp"].is_string() && line["message"].is_string()));
    assert_eq!(worker.daemon_log(), "", "a log in a file is in the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_file_that_cannot_be_opened_costs_no_pod_its_network() {
    let cluster = ready_cluster(1, 1, &[("AWS_VPC_K8S_CNI_LOG_FILE", "/proc/nobody/ipamd.log")]).await;
    let pods = flight::add(&cluster, &flight::sandboxes(1).unwrap()).await.unwrap();
    let log = cluster.workers[0].daemon_log();
    assert!(log.contains("IPAM-315") && log.contains("/proc/nobody/ipamd.log"), "{log}");
    flight::delete(&cluster, &pods).await.unwrap();
}

/// Keys that look like real ones, and are found wherever they stand.
const SECRETS: [&str; 3] = ["wJalrSECRETkeySECRETkeySECRETkey", "IQoJSESSIONtokenSESSIONtoken", "hunter2hunter2"];

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_log_the_page_the_metrics_or_the_bundle() {
    let [key, token, other] = SECRETS;
    let settings = [
        ("AWS_SECRET_ACCESS_KEY", key),
        ("AWS_SESSION_TOKEN", token),
        ("IPAMD_DB_PASSWORD", other),
        ("AWS_VPC_K8S_CNI_LOGLEVEL", "trace"),
    ];
    let cluster = ready_cluster(1, 1, &settings).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(1).unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.tar");
    let (code, said) = look::ipamd(worker, &["support-bundle", bundle.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let bundle = String::from_utf8_lossy(&std::fs::read(&bundle).unwrap()).into_owned();
    assert!(bundle.contains("WARM_ENI_TARGET") && bundle.contains(&pods[0].sandbox.name), "the bundle is empty");
    let mut places = vec![("log", worker.daemon_log()), ("bundle", bundle)];
    places.push(("metrics", look::get(worker, "http://127.0.0.1:61678/metrics")));
    for path in
        ["/", "/v1/enis", "/v1/ipamd-env-settings", "/v1/networkutils-env-settings", "/v2/overview", "/v2/leases"]
    {
        places.push((path, look::get(worker, &format!("http://127.0.0.1:61679{path}"))));
    }
    for arguments in [&["config", "check"][..], &["config", "check", "--output", "json"]] {
        places.push(("config check", look::ipamd(worker, arguments).1));
    }
    for (place, text) in places {
        for secret in SECRETS {
            assert!(!text.contains(secret), "a secret is in {place}");
        }
    }
}
