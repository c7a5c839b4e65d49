//! A runtime that lost its records never sends a DEL: ipamd finds out by listing what the runtime knows.

use std::collections::BTreeMap;

use e2e::{WorkerState, observe};
use lab::wait;

use crate::{
    node::{Stage, assert_reachable, start},
    stage::PATIENCE,
};

/// Where nobody lives, the lease ends; where a pod runs on, it stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_the_runtime_forgot_ends_unless_somebody_lives_in_it() {
    const SOCKET: &str = "/run/cni/cri.sock";
    let asked = [("CRI_SOCKET", SOCKET), ("UNLISTED_SANDBOX_SECONDS", "2")];
    let stage = Stage::with_settings(1, "m5.xlarge", &asked).await;
    let site = stage.containerd().site();
    site.run(&["ln", "-s", &site.file("containerd.sock").display().to_string(), SOCKET]).unwrap();
    stage.worker().start_daemon().unwrap();
    stage.containerd().until_network_ready(PATIENCE).await.unwrap();
    let (lost, alive) = (start(stage.containerd(), "lost").await, start(stage.containerd(), "alive").await);

    stage.containerd().kill();
    site.run(&["kill", "-KILL", &lost.status.pid.to_string()]).unwrap();
    site.run(&["rm", "-r", "/run/containerd/root/io.containerd.metadata.v1.bolt"]).unwrap();
    stage.containerd().restart().await.unwrap();
    assert_eq!(stage.containerd().pods().await.unwrap(), []);
    let freed = || async {
        let leases = observe::leases(stage.worker()).await.map_err(|trouble| trouble.chain())?;
        if leases.contains_key(&lost.address()) { Err(format!("{leases:?}")) } else { Ok(()) }
    };
    wait::until(PATIENCE, "the forgotten pod's lease to end", freed).await.unwrap();

    let state = WorkerState::read(stage.worker()).await.unwrap();
    assert_eq!(state.leases, BTreeMap::from([(alive.address(), alive.id.clone())]));
    assert_eq!(state.routes.keys().collect::<Vec<_>>(), [&alive.address()]);
    assert_reachable(&stage, &alive);
    assert!(stage.worker().daemon_log().contains("no process lives in it"), "{}", stage.worker().daemon_log());
}
