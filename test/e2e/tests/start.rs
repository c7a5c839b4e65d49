//! The daemon's start when something is not as it should be: it says what, and goes on as soon as it can.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{fs, process::Command, sync::Arc};

use e2e::Worker;
use lab::{Daemon, wait};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

mod stage;

use stage::{PATIENCE, cluster, ready_cluster, until_waiting_for};

/// Runs the worker's daemon in the foreground; it is expected to end by itself. Returns exit code and last words.
fn run_daemon(worker: &Worker, extra: &[(&str, &str)]) -> (Option<i32>, String) {
    let line = worker.daemon_command();
    let mut command = Command::new("timeout");
    command.arg("20").args(&line).env_clear().envs(worker.daemon_environment()).envs(extra.iter().copied());
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let output = worker.node().namespace().output(&mut command, &[]).unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_database_is_refused_and_harms_nobody() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];

    let (code, words) = run_daemon(worker, &[]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("still waiting waiting_for=another ipamd to let go of "), "{words}");
    assert!(words.contains("IPAM-310") && words.contains(&worker.database().display().to_string()), "{words}");
    worker.until_ready(1, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_settings_are_told_together() {
    let cluster = cluster(1, &[]).await;

    let (code, words) =
        run_daemon(&cluster.workers[0], &[("WARM_ENI_TARGET", "many"), ("AWS_VPC_ENI_MTU", "9002"), ("MAX_ENI", "0")]);
    assert_eq!(code, Some(2), "{words}");
    for expected in ["IPAM-301 3 setting(s)", "WARM_ENI_TARGET=\"many\"", "AWS_VPC_ENI_MTU=\"9002\"", "MAX_ENI=\"0\""] {
        assert!(words.contains(expected), "{expected} is not in: {words}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_metadata_service_the_daemon_waits_for_it_and_says_so() {
    let cluster = cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    worker.node().namespace().ip("addr del 169.254.169.254/32 dev lo\n").unwrap();
    worker.start_daemon().unwrap();

    until_waiting_for(worker, "IPAM-307").await;
    worker.node().namespace().ip("addr add 169.254.169.254/32 dev lo\n").unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ec2_the_daemon_waits_for_it_and_says_so() {
    let cluster = cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    worker.cut_ec2();
    worker.start_daemon().unwrap();

    until_waiting_for(worker, "EC2").await;
    worker.connect_ec2().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_database_is_set_aside_and_said_so() {
    let cluster = cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    fs::write(worker.database(), "this is no database, and longer than the header of one would be: ".repeat(4))
        .unwrap();
    worker.start_daemon().unwrap();

    worker.until_ready(1, PATIENCE).await.unwrap();
    assert_eq!(set_aside(worker), 1);
    assert!(worker.daemon_log().contains("IPAM-305"), "{}", worker.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_database_is_set_aside_and_said_so() {
    let cluster = ready_cluster(1, 1, &[]).await;
    let worker = &cluster.workers[0];
    assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    let mut database = SqliteConnectOptions::new().filename(worker.database()).connect().await.unwrap();
    let from_the_future = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                           VALUES (99991231, 'from the future', TRUE, x'00', 0); \
                           UPDATE facts SET value = '99991231' WHERE name = 'oldest_reader'";
    sqlx::raw_sql(from_the_future).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    worker.start_daemon().unwrap();

    worker.until_ready(1, PATIENCE).await.unwrap();
    assert_eq!(set_aside(worker), 1);
    assert!(worker.daemon_log().contains("was written by a newer ipamd"), "{}", worker.daemon_log());
}

/// How many databases were set aside.
fn set_aside(worker: &Worker) -> usize {
    let names = fs::read_dir(worker.node().directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.iter().filter(|name| name.contains(".aside-") && !name.ends_with("-wal") && !name.ends_with("-shm")).count()
}

/// A daemon that may not change the network.
fn powerless(worker: &Worker, name: &str) -> Daemon {
    let setpriv = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"].map(str::to_owned);
    let line = [setpriv.as_slice(), &worker.daemon_command()].concat();
    worker.node().daemon(name, &line, &worker.daemon_environment()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_may_not_change_the_network_say_so_also_when_they_start_at_once() {
    let cluster = cluster(2, &[]).await;
    let names = ["powerless-1", "powerless-2"];
    let of = |worker: &Arc<Worker>| names.map(|name| (Arc::clone(worker), name));
    let places: Vec<_> = cluster.workers.iter().flat_map(of).collect();
    let _daemons: Vec<_> = places.iter().map(|(worker, name)| powerless(worker, name)).collect();
    for (worker, name) in places {
        let says = || async {
            let log = fs::read_to_string(worker.node().directory().join(format!("{name}.log"))).unwrap();
            // On one database the other one may still be ending.
            let told = log.contains("IPAM-311") && log.contains("Operation not permitted") || log.contains("IPAM-310");
            if told { Ok(()) } else { Err(log) }
        };
        wait::until(PATIENCE, "it to say why it does not serve", says).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_database_is_busy_says_what_it_waits_for() {
    let cluster = cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    let new = SqliteConnectOptions::new().filename(worker.database()).create_if_missing(true);
    let mut database = new.connect().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut database).await.unwrap();
    worker.start_daemon().unwrap();

    let awaited = format!("still waiting waiting_for=the database {} ", worker.database().display());
    let says = || async {
        let log = worker.daemon_log();
        if log.contains(&awaited) { Ok(()) } else { Err(log) }
    };
    wait::until(PATIENCE, &awaited, says).await.unwrap();
}
