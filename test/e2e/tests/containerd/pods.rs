//! What a kubelet does on an ordinary day.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use e2e::WorkerState;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    node::{Stage, assert_reachable, assert_reaches, end, start},
    stage::PATIENCE,
};

#[tokio::test(flavor = "multi_thread")]
async fn thirty_pods_ten_at_a_time_come_talk_and_go_without_a_trace() {
    let stage = Stage::new(2, "m5.xlarge").await;
    let gate = Arc::new(Semaphore::new(10));
    let mut starting = JoinSet::new();
    for number in 0..30 {
        let (containerd, gate) = (Arc::clone(&stage.containerds[number % 2]), Arc::clone(&gate));
        starting.spawn(async move {
            let _turn = gate.acquire_owned().await;
            (number % 2, start(&containerd, &format!("pod-{number}")).await)
        });
    }
    let pods = starting.join_all().await;
    let addresses: BTreeSet<Ipv4Addr> = pods.iter().map(|(_, pod)| pod.address()).collect();
    assert_eq!(addresses.len(), 30, "an address was given twice: {pods:#?}");

    stage.cluster.settle().await.unwrap();
    for (index, (node, pod)) in pods.iter().enumerate() {
        let containerd = &stage.containerds[*node];
        let ping = stage.cluster.workers[*node].node().namespace().ping(pod.address(), PATIENCE).unwrap();
        assert!(ping.answered, "{}", ping.transcript);
        let (_, on_other_node) = pods.iter().cycle().skip(index).find(|(other, _)| other != node).unwrap();
        assert_reaches(containerd, pod, on_other_node.address());
    }
    assert_eq!(stage.cluster.lab.drops().unwrap().to_string(), "none");

    let mut ending = JoinSet::new();
    for (node, pod) in pods {
        let (containerd, gate) = (Arc::clone(&stage.containerds[node]), Arc::clone(&gate));
        ending.spawn(async move {
            let _turn = gate.acquire_owned().await;
            end(&containerd, &pod).await;
        });
    }
    ending.join_all().await;
    stage.until_only(&[]).await;
    for worker in &stage.cluster.workers {
        assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
        let status = worker.status().await.unwrap();
        assert_eq!((status.leased, status.cooling), (0, 15), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_calls_the_node_ready_when_the_daemon_can_serve() {
    let stage = Stage::without_daemons(1, "m5.xlarge").await;
    let not_ready = stage.containerd().network_ready().await.unwrap();
    assert!(not_ready.as_ref().is_err_and(|reason| reason.contains("cni plugin not initialized")), "{not_ready:?}");

    stage.worker().start_daemon().unwrap();
    stage.containerd().until_network_ready(PATIENCE).await.unwrap();
    let pod = start(stage.containerd(), "first").await;
    stage.until_only(&[&pod]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ipv6_switched_off_pods_have_not_even_a_link_local_address() {
    for (off, addresses) in [("false", true), ("true", false)] {
        let stage = Stage::with_settings(1, "m5.xlarge", &[("DISABLE_POD_V6", off)]).await;
        stage.worker().start_daemon().unwrap();
        stage.containerd().until_network_ready(PATIENCE).await.unwrap();
        let pod = start(stage.containerd(), "pod").await;
        let enter = format!("--net={}", pod.status.netns);
        let site = stage.containerd().site();
        let listed = site.run(&["nsenter", &enter, "ip", "-6", "address", "show"]).unwrap();
        assert_eq!(listed.contains("inet6"), addresses, "DISABLE_POD_V6={off}: {listed}");
        assert_reachable(&stage, &pod);
        end(stage.containerd(), &pod).await;
        stage.until_only(&[]).await;
    }
}
