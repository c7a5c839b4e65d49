//! The daemon and an API server: what it tells, what it takes over, and that it needs none. The server is a stand-in (`api-sim`) and no
//! real one.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::sync::Arc;

use api_sim::{ApiSim, Mood};
use e2e::{Cluster, Verb, Worker, WorkerState, flight, plugin::NETWORK};
use ec2_sim::world::model::Eni;
use lab::wait;
use serde_json::{Value, json};
use stage::PATIENCE;

mod stage;

const API: &str = "127.0.0.1:6443";
const NODE: &str = "/api/v1/nodes/node-1";
const TAINT: &str = "node.eni-cni.dev/not-ready";
const SETTINGS: [(&str, &str); 4] = [
    ("MY_NODE_NAME", "node-1"),
    ("CLUSTER_ENDPOINT", "http://127.0.0.1:6443"),
    ("ANNOTATE_POD_IP", "true"),
    ("IP_COOLDOWN_PERIOD", "5"),
];

/// A cluster of one node whose API server is on the node; no daemon runs yet.
async fn with_api(instance_type: &str, settings: &[(&str, &str)]) -> (Cluster, Arc<Worker>, ApiSim) {
    let settings = [&SETTINGS[..], settings].concat();
    let cluster = stage::cluster_of(instance_type, 1, &settings).await;
    let worker = Arc::clone(&cluster.workers[0]);
    let sim = ApiSim::new();
    let listener = worker.node().namespace().listen(API.parse().unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let router = sim.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let taints = json!([{"key": "other", "effect": "NoSchedule"}, {"key": TAINT, "effect": "NoSchedule"}]);
    let labels = json!({"k8s.amazonaws.com/eniConfig": "zone-a"});
    sim.put(
        NODE,
        json!({"metadata": {"labels": labels}, "spec": {"taints": taints},
        "status": {"allocatable": {"pods": "20"}}}),
    );
    (cluster, worker, sim)
}

async fn until(what: &str, worker: &Worker, holds: impl Fn() -> Result<(), String>) {
    let outcome = wait::until(PATIENCE, what, || async { holds() }).await;
    outcome.unwrap_or_else(|late| panic!("{late}\n{}", worker.daemon_log()));
}

/// Nothing, if it is so; else what there is.
fn is(so: bool, found: impl ToString) -> Result<(), String> {
    if so { Ok(()) } else { Err(found.to_string()) }
}

fn condition(sim: &ApiSim) -> Value {
    let conditions = sim.get(NODE).unwrap()["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == "PodAddressesAvailable").unwrap_or_default()
}

async fn until_condition(worker: &Worker, sim: &ApiSim, status: &str) {
    let holds = || is(condition(sim)["status"] == status, condition(sim));
    until(&format!("the condition {status}"), worker, holds).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eni_config_max_pods_and_a_taint_are_followed_and_the_api_server_may_go() {
    let custom = ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true");
    let (cluster, worker, sim) = with_api("m5.xlarge", &[custom, ("WARM_ENI_TARGET", "3")]).await;
    worker.start_daemon().unwrap();
    stage::until_waiting_for(&worker, "there is no ENIConfig zone-a").await;
    let path = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs/zone-a";
    sim.put(path, json!({"spec": {"subnet": cluster.network.subnet.as_str()}}));
    worker.until_ready(15, PATIENCE).await.unwrap();
    let taints = || sim.get(NODE).unwrap()["spec"]["taints"].clone();
    until("the end of the taint", &worker, || {
        is(taints() == json!([{"key": "other", "effect": "NoSchedule"}]), taints())
    })
    .await;
    until_condition(&worker, &sim, "True").await;

    let pod = "/api/v1/namespaces/demo/pods/pod-01";
    sim.put(pod, json!({"metadata": {"uid": "uid-pod-01"}, "spec": {"nodeName": "node-1"}}));
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    let is_primary = |eni: &Eni| eni.attachment.as_ref().is_some_and(|attachment| attachment.device_index == 0);
    let primary =
        cluster.cloud.sim().unwrap().with(|world, _| world.enis().find(|eni| is_primary(eni)).unwrap().id.clone());
    assert!(pods.iter().all(|pod| pod.place.eni != primary), "custom networking leaves the primary ENI alone");
    let note = || sim.get(pod).unwrap()["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"].clone();
    let address = pods[0].place.address.to_string();
    until("the annotation", &worker, || is(note() == address.as_str(), note())).await;
    // Three warm ENIs would be 45 addresses.
    let counted = worker.status().await.unwrap();
    assert!(counted.free + counted.leased <= 20, "max pods is known: {counted:?}");

    // A pod that has lost its interface while nobody looked.
    worker.kill_daemon().unwrap();
    let unplugged = WorkerState::read(&worker).await.unwrap().routes[&pods[1].place.address].clone();
    worker.node().namespace().ip(&format!("link del {unplugged}\n")).unwrap();
    worker.start_daemon().unwrap();
    until("the event of the lost network", &worker, || {
        let told = sim.all("/api/v1/namespaces/demo/events/");
        let is_it = |event: &Value| event["reason"] == "PodNetworkLost" && event["involvedObject"]["name"] == "pod-02";
        is(told.iter().any(is_it), Value::from(told))
    })
    .await;

    // What was known is enough: the API server hangs, and then is no more.
    sim.mood(Mood::Hangs);
    worker.kill_daemon().unwrap();
    worker.start_daemon().unwrap();
    worker.until_ready(10, PATIENCE).await.unwrap();
    let more: Vec<_> = flight::sandboxes(6).unwrap().drain(3..).collect();
    let more = flight::add(&cluster, &more).await.unwrap();
    assert!(more.iter().all(|pod| pod.place.eni != primary));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_node_is_told_of_with_numbers_at_the_node_and_at_the_pod() {
    let (cluster, worker, sim) = with_api("t3.nano", &[]).await;
    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    let sandboxes = flight::sandboxes(3).unwrap();
    flight::add(&cluster, &sandboxes[..2]).await.unwrap();
    let refused = worker.plugin(Verb::Add, &sandboxes[2]).await.unwrap();
    assert!(refused.failure().is_some(), "two pods are all that a t3.nano carries");

    let events = |namespace: &str| sim.all(&format!("/api/v1/namespaces/{namespace}/events/"));
    let says = |namespace: &str, name: &str, part: &str| {
        let told = events(namespace);
        let found = told.iter().any(|event| {
            event["involvedObject"]["name"] == name && event["message"].as_str().is_some_and(|text| text.contains(part))
        });
        is(found, Value::from(told))
    };
    until("the pod's event", &worker, || says("demo", "pod-03", "IPAM-201")).await;
    until_condition(&worker, &sim, "False").await;
    assert!(condition(&sim)["message"].as_str().unwrap().contains("0 free, 2 leased"), "{}", condition(&sim));
    until("the node's event", &worker, || says("default", "node-1", "no address is left")).await;

    worker.plugin(Verb::Del, &sandboxes[0]).await.unwrap();
    until_condition(&worker, &sim, "True").await;
    until("the node's other event", &worker, || says("default", "node-1", "again")).await;
    let asked = sim.asked();
    let cluster_wide = |path: &str| path.ends_with("/pods") && !path.contains("/namespaces/");
    assert!(!asked.iter().any(|asked| cluster_wide(&asked.path)), "only what concerns this node is asked for");
}

/// Gives the instance a trunk, as the VPC resource controller does, and waits for its link.
async fn attach_trunk(cluster: &Cluster, worker: &Worker) {
    let subnet = cluster.network.subnet.to_string();
    let made = cluster.cloud.call("CreateNetworkInterface", &[("SubnetId", &subnet), ("InterfaceType", "trunk")]).await;
    let made = made.unwrap();
    let (eni, mac) =
        ["networkInterfaceId", "macAddress"].map(|part| made.text_at(&format!("networkInterface/{part}"))).into();
    let instance = worker.node().instance().to_string();
    let attach = [("NetworkInterfaceId", eni), ("InstanceId", &instance), ("DeviceIndex", "1")];
    cluster.cloud.call("AttachNetworkInterface", &attach).await.unwrap();
    until("the trunk's link", worker, || {
        let links = worker.node().namespace().ip("link show\n").unwrap();
        is(links.contains(mac), links)
    })
    .await;
}

/// As far as the kernel goes: without VLANs the refusal with its code, and nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_security_groups_of_its_own_gets_its_branch_or_nothing_and_what_an_older_one_left_is_swept() {
    let (cluster, worker, sim) = with_api("m5.large", &[("ENABLE_POD_ENI", "true"), ("WARM_IP_TARGET", "2")]).await;
    attach_trunk(&cluster, &worker).await;
    let ip = |line: &str| worker.node().namespace().ip(&format!("{line}\n")).unwrap();
    ip("link add vlan.eth.7 type veth peer name other7");
    ip(&format!("link set vlan.eth.7 alias eni-cni-branch:1:{NETWORK}/c9/eth0:7:0+10.0.5.9"));
    ip("rule add priority 10 iif vlan.eth.7 lookup 107 protocol 142");
    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    until("the sweep", &worker, || {
        let left = [ip("rule show"), ip("link show")].concat();
        is(!left.contains("vlan.eth.7"), left)
    })
    .await;

    let sandbox = flight::sandboxes(1).unwrap().remove(0);
    let wants = json!([{"name": "main", "resources": {"limits": {"vpc.amazonaws.com/pod-eni": "1"}}}]);
    let metadata = json!({"uid": "uid-pod-01"});
    let pod = "/api/v1/namespaces/demo/pods/pod-01";
    sim.put(pod, json!({"metadata": metadata, "spec": {"nodeName": "node-1", "containers": wants}}));
    let early = worker.plugin(Verb::Add, &sandbox).await.unwrap();
    let failure = early.failure().unwrap();
    assert!(failure.message.contains("IPAM-208") && failure.message.contains("no annotation"), "{failure:?}");

    let branch = json!([{"eniId": "eni-0b0b0b0b", "ifAddress": "02:00:00:00:00:55", "privateIp": "10.0.5.7", "vlanId": 5,
        "subnetCidr": "10.0.0.0/16"}]);
    let metadata = json!({"uid": "uid-pod-01", "annotations": {"vpc.amazonaws.com/pod-eni": branch.to_string()}});
    sim.put(pod, json!({"metadata": metadata, "spec": {"nodeName": "node-1", "containers": wants}}));
    let added = worker.plugin(Verb::Add, &sandbox).await.unwrap();
    match added.failure() {
        None => assert_eq!(added.address(), Some([10, 0, 5, 7].into())),
        Some(failure) => {
            println!("NOT RUN: this kernel has no VLAN (CONFIG_VLAN_8021Q)");
            assert_eq!(failure.code, 111, "{failure:?}");
            assert!(failure.message.contains("CONFIG_VLAN_8021Q"), "{failure:?}");
        }
    }
    assert_eq!(worker.status().await.unwrap().leased, 0, "a branch ENI is nobody's lease");
    assert!(worker.plugin(Verb::Del, &sandbox).await.unwrap().failure().is_none());
    let left = [ip("rule show"), ip("link show"), ip("route show table all")].concat();
    assert!(["vlan.eth", "lookup 105", "10.0.5.7"].iter().all(|part| !left.contains(part)), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_denies_or_lags_costs_no_pod_and_is_told_of_once() {
    for (mood, says) in [(Mood::Denies, "answered 403: this user cannot do that"), (Mood::Lags, "nothing came within")]
    {
        let (cluster, worker, sim) = with_api("m5.xlarge", &[]).await;
        sim.mood(mood);
        worker.start_daemon().unwrap();
        worker.until_ready(3, PATIENCE).await.unwrap();
        flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
        let told = || worker.daemon_log().lines().filter(|line| line.contains("our node cannot be read")).count();
        until("the warning", &worker, || is(told() > 0, "no line")).await;
        assert!(worker.daemon_log().contains(says), "{}", worker.daemon_log());
        let more: Vec<_> = flight::sandboxes(6).unwrap().drain(3..).collect();
        flight::add(&cluster, &more).await.unwrap();
        assert_eq!(told(), 1, "{}", worker.daemon_log());
    }
}
