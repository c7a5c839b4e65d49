//! Who held an address, asked on the command line; and databases of other versions.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{process::Command, sync::Arc};

use e2e::{Sandbox, Verb, Worker, flight};
use serde_json::Value;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

mod stage;

use stage::{PATIENCE, ready_cluster};

/// What `ipamd history` prints.
fn history(worker: &Worker, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(&worker.binaries().ipamd);
    command.arg("history").arg("--database").arg(worker.database()).args(arguments).env_clear();
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
}

fn records(worker: &Worker, arguments: &[&str]) -> Vec<Value> {
    let (code, text) = history(worker, &[arguments, &["--output", "json"]].concat());
    assert_eq!(code, Some(0), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_tells_who_holds_and_who_held_an_address_with_and_without_a_daemon() {
    let cluster = ready_cluster(1, 2, &[]).await;
    let worker = &cluster.workers[0];
    let sandboxes = flight::sandboxes(2).unwrap();
    let pods = flight::add(&cluster, &sandboxes).await.unwrap();
    flight::delete(&cluster, &pods[..1]).await.unwrap();
    let (gone, lives) = (&pods[0].place, &pods[1].place);

    for daemon_runs in [true, false] {
        let all = records(worker, &[]);
        assert_eq!(all.len(), 2, "{all:?}");
        let [former] = &records(worker, &["--ip", &gone.address.to_string()])[..] else { panic!("{all:?}") };
        assert_eq!(former["interface-id"], gone.eni.to_string());
        assert_eq!(former["pkt-srcaddr"], gone.address.to_string());
        assert_eq!(
            (&former["pod"], &former["namespace"], &former["ended-by"]),
            (&"pod-01".into(), &"demo".into(), &"del".into())
        );
        assert!(former["end"].as_u64().unwrap() > former["start"].as_u64().unwrap());
        let [present] = &records(worker, &["--pod", "demo/pod-02"])[..] else { panic!("{all:?}") };
        assert_eq!((&present["pkt-srcaddr"], &present["end"]), (&lives.address.to_string().into(), &Value::Null));
        assert_eq!(records(worker, &["--at", "2020-01-01T00:00Z"]), Vec::<Value>::new());
        let (code, table) = history(worker, &["--ip", &gone.address.to_string()]);
        assert!(code == Some(0) && table.lines().count() == 2 && table.contains("demo/pod-01"), "{table}");
        if daemon_runs {
            worker.kill_daemon().unwrap();
        }
    }
    assert_eq!(history(worker, &["--ip", "10.0.3"]).0, Some(2));
    assert_eq!(history(worker, &["--at", "yesterday"]).0, Some(2));
}

/// A downgrade: the daemon of the version before sets the newer database aside and reads its leases back from the kernel and EC2.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_downgrade_pods_keep_their_addresses_and_can_go() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let sandboxes = flight::sandboxes(4).unwrap();
    let pods = flight::add(&cluster, &sandboxes).await.unwrap();
    assert!(worker.stop_daemon(PATIENCE).await.unwrap());
    let mut database = SqliteConnectOptions::new().filename(worker.database()).connect().await.unwrap();
    let from_the_future = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                           VALUES (99991231, 'from the future', TRUE, x'00', 0)";
    sqlx::query(from_the_future).execute(&mut database).await.unwrap();
    database.close().await.unwrap();

    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();

    flight::check_present(&cluster, &pods).await.unwrap();
    let again = worker.plugin(Verb::Add, &sandboxes[0]).await.unwrap();
    assert_eq!(again.address(), Some(pods[0].place.address), "same key, same answer: {again:?}");
    let newcomer = Arc::new(Sandbox::new("newcomer", 99).unwrap());
    let added = flight::add(&cluster, &[newcomer]).await.unwrap();
    assert!(pods.iter().all(|pod| pod.place.address != added[0].place.address), "an address was given twice");
    flight::delete(&cluster, &[pods, added].concat()).await.unwrap();
    flight::check_nothing_left(&cluster).await.unwrap();
}
