//! What fails around a pod's life: each time exactly what the living pods need is left, and containerd gets rid of the pod.

use std::sync::Arc;

use e2e::{WorkerState, observe};
use lab::wait;
use nix::sys::signal::Signal;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    node::{DEADLINE, SHORT_DEADLINE, Stage, assert_reachable, assert_reaches, end, start},
    stage::PATIENCE,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_tells_the_pod_why_and_what_to_do() {
    let stage = Stage::new(1, "t3.nano").await;
    let containerd = stage.containerd();
    let pods = [start(containerd, "pod-1").await, start(containerd, "pod-2").await];

    let refusal = containerd.run_pod("pod-3", DEADLINE).await.unwrap_err();
    for expected in ["eni-cni", "IPAM-201", "demo/pod-3", "t3.nano", "use a larger instance type"] {
        assert!(refusal.message().contains(expected), "{expected} is not in: {refusal}");
    }
    let calls = stage.calls_of(&stage.last_added());
    assert_eq!(calls, [("ADD".to_owned(), true), ("DEL".to_owned(), true)]);
    stage.until_only(&[&pods[0], &pods[1]]).await;
    for pod in &pods {
        end(containerd, pod).await;
    }
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_that_hangs_ends_at_the_runtimes_deadline_and_leaves_nothing() {
    let stage = Stage::one().await;
    let before = start(stage.containerd(), "before").await;

    let mut hanging = stage.pod_that_waits("hangs", SHORT_DEADLINE).await;
    hanging.join_next().await.unwrap().unwrap().unwrap_err();
    // The runtime goes on after its answer: it kills the plugin and calls DEL.
    let deleted = || async {
        let calls = stage.calls_of(&stage.last_added());
        let running = stage.containerd().site().plugin_processes().map_err(|trouble| trouble.chain())?;
        if calls.len() == 2 && running.is_empty() { Ok(()) } else { Err(format!("{calls:?}, {running:?}")) }
    };
    wait::until(PATIENCE, "the DEL to end", deleted).await.unwrap();
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    stage.until_only(&[&before]).await;

    let after = start(stage.containerd(), "after").await;
    stage.until_only(&[&before, &after]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_killed_during_add_leaves_nothing() {
    let stage = Stage::one().await;

    let mut starting = stage.pod_that_waits("killed", DEADLINE).await;
    let plugin = stage.waiting_plugin().unwrap();
    stage.containerd().site().run(&["kill", "-KILL", &plugin]).unwrap();
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    let failure = starting.join_next().await.unwrap().unwrap().unwrap_err();

    assert!(failure.message().contains("killed"), "{failure}");
    stage.until_only(&[]).await;
    let pod = start(stage.containerd(), "killed").await;
    stage.until_only(&[&pod]).await;
}

/// As in the middle of a careless upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn pods_start_and_end_again_once_the_plugin_is_back() {
    let stage = Stage::one().await;
    let (containerd, site) = (stage.containerd(), stage.containerd().site());
    let (stays, ends) = (start(containerd, "stays").await, start(containerd, "ends").await);
    let (plugin, away) = ("/run/cni/bin/eni-cni", "/run/cni/away");
    site.run(&["mv", plugin, away]).unwrap();
    containerd.run_pod("never", DEADLINE).await.unwrap_err();
    containerd.stop_pod(&ends.id).await.unwrap_err();
    assert_reachable(&stage, &stays);

    site.run(&["mv", away, plugin]).unwrap();
    // The runtime keeps what it could not take back.
    let kept = containerd.pods().await.unwrap();
    for (id, _) in kept.iter().filter(|(id, _)| *id != stays.id) {
        containerd.stop_pod(id).await.unwrap();
        containerd.remove_pod(id).await.unwrap();
    }
    stage.until_only(&[&stays]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_namespace_is_gone_loses_its_address_and_can_be_removed() {
    let stage = Stage::one().await;
    let (lost, other) = (start(stage.containerd(), "lost").await, start(stage.containerd(), "other").await);
    let name = lost.status.netns.rsplit('/').next().unwrap();
    let site = stage.containerd().site();
    site.run(&["kill", "-KILL", &lost.status.pid.to_string()]).unwrap();
    site.run(&["ip", "netns", "del", name]).unwrap();
    // The daemon finds out by itself.
    let freed = || async {
        let leases = observe::leases(stage.worker()).await.map_err(|trouble| trouble.chain())?;
        if leases.contains_key(&lost.address()) { Err(format!("{leases:?}")) } else { Ok(()) }
    };
    wait::until(PATIENCE, "the lost pod's lease to end", freed).await.unwrap();

    end(stage.containerd(), &lost).await;
    let calls = stage.calls_of(&lost.id);
    assert_eq!(calls[..2], [("ADD".to_owned(), true), ("DEL".to_owned(), false)]);
    stage.until_only(&[&other]).await;
    assert_reaches(stage.containerd(), &other, "169.254.169.254".parse().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_is_killed_during_add_finds_the_pod_and_removes_it() {
    let stage = Stage::one().await;
    let before = start(stage.containerd(), "before").await;

    let mut starting = stage.pod_that_waits("orphan", DEADLINE).await;
    stage.containerd().kill();
    starting.join_next().await.unwrap().unwrap().unwrap_err();
    // Nobody has told the plugin: it gets its address and wires the pod.
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    let ended = || async { stage.waiting_plugin().map_or(Ok(()), Err) };
    wait::until(PATIENCE, "the plugin to end", ended).await.unwrap();

    stage.containerd().restart().await.unwrap();
    let orphan = stage.last_added();
    let known = stage.containerd().pods().await.unwrap();
    assert!(known.contains(&(orphan.clone(), false)) && known.contains(&(before.id.clone(), true)), "{known:?}");
    stage.containerd().stop_pod(&orphan).await.unwrap();
    stage.containerd().remove_pod(&orphan).await.unwrap();
    stage.until_only(&[&before]).await;
    end(stage.containerd(), &before).await;
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_the_daemon_is_away_is_heard_of_later() {
    let stage = Stage::one().await;
    let pods = [start(stage.containerd(), "pod-1").await, start(stage.containerd(), "pod-2").await];
    stage.worker().kill_daemon().unwrap();

    end(stage.containerd(), &pods[0]).await;
    let state = WorkerState::read(stage.worker()).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.leases.len()), (1, 1, 2), "{state:#?}");

    stage.worker().start_daemon().unwrap();
    stage.until_only(&[&pods[1]]).await;
    end(stage.containerd(), &pods[1]).await;
    stage.until_only(&[]).await;
}

/// A daemon that hangs is worse than none: it takes the call and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_while_the_daemon_hangs_is_heard_of_later() {
    let stage = Stage::one().await;
    let pod = start(stage.containerd(), "pod").await;
    stage.worker().signal_daemon(Signal::SIGSTOP).unwrap();

    end(stage.containerd(), &pod).await;
    let state = WorkerState::read(stage.worker()).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len()), (0, 0), "{state:#?}");
    stage.worker().signal_daemon(Signal::SIGCONT).unwrap();
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_and_go_while_the_daemon_is_killed_again_and_again() {
    let stage = Stage::one().await;
    let gate = Arc::new(Semaphore::new(4));
    let mut starting = JoinSet::new();
    for number in 0..12 {
        let (containerd, gate) = (Arc::clone(stage.containerd()), Arc::clone(&gate));
        starting.spawn(async move {
            let _turn = gate.acquire_owned().await;
            start(&containerd, &format!("pod-{number}")).await
        });
    }
    let pods = stage.joined_while_the_daemon_dies(starting).await;
    stage.until_only(&pods.iter().collect::<Vec<_>>()).await;

    let mut ending = JoinSet::new();
    for pod in pods {
        let (containerd, gate) = (Arc::clone(stage.containerd()), Arc::clone(&gate));
        ending.spawn(async move {
            let _turn = gate.acquire_owned().await;
            end(&containerd, &pod).await;
        });
    }
    stage.joined_while_the_daemon_dies(ending).await;
    stage.until_only(&[]).await;
}

/// As a StatefulSet makes one when its pod was deleted by force: the old sandbox goes in its own time. Both have the same host
/// interface, whose name policy engines compute from the pod's, so the newer one gets it.
#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_pod_takes_the_place_of_the_old_one_and_outlives_it() {
    let stage = Stage::one().await;
    let old = start(stage.containerd(), "web-0").await;
    let new = start(stage.containerd(), "web-0").await;
    assert_ne!(old.address(), new.address());
    assert_reachable(&stage, &new);

    end(stage.containerd(), &old).await;
    stage.until_only(&[&new]).await;
    assert_reachable(&stage, &new);
    end(stage.containerd(), &new).await;
    stage.until_only(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_can_be_stopped_and_removed_again_and_again() {
    let stage = Stage::one().await;
    let (pod, other) = (start(stage.containerd(), "pod").await, start(stage.containerd(), "other").await);

    for _ in 0..3 {
        stage.containerd().stop_pod(&pod.id).await.unwrap();
    }
    for _ in 0..2 {
        stage.containerd().remove_pod(&pod.id).await.unwrap();
    }
    let calls = stage.calls_of(&pod.id);
    assert_eq!(calls[..2], [("ADD".to_owned(), true), ("DEL".to_owned(), true)]);
    assert!(calls[2..].iter().all(|call| *call == ("DEL".to_owned(), false)), "{calls:?}");
    let calls = stage.containerd().site().calls().into_iter().filter(|call| call.container_id == pod.id);
    let with_result: Vec<bool> = calls.map(|call| call.with_result).collect();
    assert!(with_result[1] && !with_result[2..].contains(&true), "only the first DEL has what ADD answered");
    stage.until_only(&[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_outlive_both_the_runtime_and_the_daemon() {
    let stage = Stage::one().await;
    let pods = [start(stage.containerd(), "pod-1").await, start(stage.containerd(), "pod-2").await];
    stage.containerd().restart().await.unwrap();
    stage.worker().kill_daemon().unwrap();
    assert_reaches(stage.containerd(), &pods[0], pods[1].address());
    stage.worker().start_daemon().unwrap();
    stage.worker().until_ready(1, PATIENCE).await.unwrap();

    stage.until_only(&[&pods[0], &pods[1]]).await;
    assert_reaches(stage.containerd(), &pods[0], pods[1].address());
    for pod in &pods {
        end(stage.containerd(), pod).await;
    }
    stage.until_only(&[]).await;
}
