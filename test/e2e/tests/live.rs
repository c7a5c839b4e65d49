//! The settings file changes while the daemon runs: what holds at once, what waits for the next start, and nonsense.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

mod look;
mod stage;

use e2e::Worker;
use lab::wait;
use nix::sys::signal::Signal;
use stage::PATIENCE;

async fn until(what: &str, worker: &Worker, holds: impl Fn() -> Result<(), String>) {
    let outcome = wait::until(PATIENCE, what, || async { holds() }).await;
    outcome.unwrap_or_else(|late| panic!("{late}\n{}", worker.daemon_log()));
}

async fn until_logged(worker: &Worker, parts: &[&str]) {
    let logged = || {
        let log = worker.daemon_log();
        let found = log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        if found { Ok(()) } else { Err(format!("no line with {parts:?}")) }
    };
    until("a line of the log", worker, logged).await;
}

async fn until_refused(worker: &Worker, times: usize) {
    let line = format!("ipamd_config_reload_failures_total {times}");
    let counted = || {
        let page = look::get(worker, "http://127.0.0.1:61678/metrics");
        if page.lines().any(|one| one == line) { Ok(()) } else { Err(format!("no {line}")) }
    };
    until("the count", worker, counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_file_resizes_the_pool_while_the_daemon_runs_and_nonsense_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ipamd.toml");
    std::fs::write(&file, "WARM_IP_TARGET = 2\n").unwrap();
    let cluster = stage::ready_cluster(1, 2, &[("IPAMD_CONFIG", file.to_str().unwrap())]).await;
    let worker = &cluster.workers[0];
    let pid = worker.daemon_pid();
    let write = |text: &str| {
        std::fs::write(&file, text).unwrap();
        worker.signal_daemon(Signal::SIGHUP).unwrap();
    };
    assert_eq!(look::json(worker, "/v1/ipamd-env-settings")["WARM_IP_TARGET"], 2);

    write("WARM_IP_TARGET = 11\nAWS_VPC_ENI_MTU = 1500\n");
    worker.until_ready(11, PATIENCE).await.unwrap();
    assert_eq!(look::json(worker, "/v1/ipamd-env-settings")["WARM_IP_TARGET"], 11);
    until_logged(worker, &["this holds from now on", "WARM_IP_TARGET"]).await;
    until_logged(worker, &["takes effect when ipamd is started again", "AWS_VPC_ENI_MTU"]).await;
    assert_eq!(look::json(worker, "/v1/networkutils-env-settings")["AWS_VPC_ENI_MTU"], 9001);

    for (times, nonsense) in
        [(1, "WARM_IP_TARGET = \"many\"\nMAX_ENI = 99\n"), (2, "[[["), (3, "WARM_IP_TARGET = 1.5\n")]
    {
        write(nonsense);
        until_refused(worker, times).await;
    }
    until_logged(worker, &["the settings file is wrong now", "MAX_ENI"]).await;
    assert_eq!(look::json(worker, "/v1/ipamd-env-settings")["WARM_IP_TARGET"], 11, "the last good one stands");
    let status = worker.status().await.unwrap();
    assert!(status.ready && status.free >= 11, "{status:?}");

    write("WARM_IP_TARGET = 14\n");
    worker.until_ready(14, PATIENCE).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    worker.signal_daemon(Signal::SIGHUP).unwrap();
    until_refused(worker, 4).await;
    assert_eq!(worker.daemon_pid(), pid, "it was the same daemon all the time");
}
