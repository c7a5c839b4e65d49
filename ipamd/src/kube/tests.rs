//! Against a stand-in for the API server, over HTTP. It is not a real one; what it leaves out is in its own documentation.

use std::{future::ready, time::Duration};

use api_sim::{ApiSim, Mood};
use ipam_core::engine::EngineStatus;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

mod tls;

const NODE: &str = "/api/v1/nodes/node-1";
const ENI_CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1/eniconfigs";
const PATIENCE: Duration = Duration::from_secs(30);

/// A stand-in that runs, and a daemon's way to it.
async fn stage() -> (ApiSim, KubeSettings, tempfile::TempDir) {
    let sim = ApiSim::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let router = sim.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let account = tempfile::tempdir().unwrap();
    std::fs::write(account.path().join("token"), "secret-1\n").unwrap();
    sim.demand_token("secret-1");
    let settings = KubeSettings {
        node: "node-1".to_owned(),
        endpoint: Some(endpoint),
        account: account.path().to_owned(),
        annotate: true,
        eni_config: Some(EniConfigNames { annotation: "k8s/eniConfig".to_owned(), label: "k8s/eniConfig".to_owned() }),
        branches: false,
    };
    (sim, settings, account)
}

fn kube(settings: &KubeSettings) -> Kube {
    start(Some(settings)).0.unwrap()
}

/// A Node with these labels and taints that takes 58 pods.
fn node(labels: &Value, taints: &Value) -> Value {
    json!({"kind": "Node", "metadata": {"name": "node-1", "labels": labels}, "spec": {"taints": taints},
        "status": {"allocatable": {"pods": "58"}, "conditions": [{"type": "Ready", "status": "True"}]}})
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "{what} has not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn max_pods(kube: &Kube) -> Option<u16> {
    kube.nodes.borrow().as_ref()?.max_pods
}

fn put_pods(sim: &ApiSim, pods: u16) {
    let mut object = node(&json!({}), &json!([]));
    object["status"]["allocatable"]["pods"] = json!(pods.to_string());
    sim.put(NODE, object);
}

#[tokio::test]
async fn only_our_own_node_is_asked_for_and_its_changes_come_by_the_watch() {
    let (sim, settings, _account) = stage().await;
    sim.put("/api/v1/nodes/node-2", node(&json!({}), &json!([])));
    put_pods(&sim, 58);
    let kube = kube(&settings);
    until("the node", || max_pods(&kube) == Some(58)).await;
    until("the watch", || sim.watchers() > 0).await;
    let lists = sim.asked().len();
    put_pods(&sim, 29);
    until("a change", || max_pods(&kube) == Some(29)).await;
    assert_eq!(sim.asked().iter().filter(|asked| asked.path == "/api/v1/nodes" && asked.verb == "GET").count(), 1);
    assert!(sim.asked().len() <= lists + 2, "{:?}", sim.asked());
    sim.remove(NODE);
    until("its end", || kube.nodes.borrow().is_none()).await;
}

#[tokio::test]
async fn a_watch_that_ends_or_is_too_old_begins_anew() {
    let (sim, settings, _account) = stage().await;
    put_pods(&sim, 58);
    let kube = kube(&settings);
    for (round, pods) in [(0, 10), (1, 11), (2, 12)] {
        until("the watch", || sim.watchers() > 0).await;
        match round {
            0 => sim.cut(),
            _ => sim.compact(),
        }
        put_pods(&sim, pods);
        until("the change", || max_pods(&kube) == Some(pods)).await;
    }
}

#[tokio::test]
async fn a_server_that_refuses_hangs_garbles_floods_or_lies_is_asked_again_and_what_was_known_stands() {
    for (count, mood) in [
        (3, Mood::Fails),
        (2, Mood::Busy),
        (3, Mood::Distrusts),
        (3, Mood::Garbles),
        (2, Mood::BreaksOff),
        (2, Mood::Lies),
        (2, Mood::Doubles),
        (1, Mood::Floods),
        (1, Mood::Hangs),
    ] {
        let (sim, settings, _account) = stage().await;
        put_pods(&sim, 58);
        let kube = kube(&settings);
        until("the node", || max_pods(&kube) == Some(58)).await;
        until("the watch", || sim.watchers() > 0).await;
        let before = sim.asked().len();
        sim.next(count, mood);
        sim.cut();
        until("the questions", || sim.asked().len() > before).await;
        assert_eq!(max_pods(&kube), Some(58), "{mood:?}");
        put_pods(&sim, 7);
        until(&format!("the change after {mood:?}"), || max_pods(&kube) == Some(7)).await;
    }
}

#[tokio::test]
async fn a_token_that_was_renewed_is_used() {
    let (sim, settings, account) = stage().await;
    put_pods(&sim, 58);
    let kube = kube(&settings);
    until("the watch", || sim.watchers() > 0).await;
    sim.demand_token("secret-2");
    sim.cut();
    std::fs::write(account.path().join("token"), "secret-2").unwrap();
    put_pods(&sim, 7);
    until("the change", || max_pods(&kube) == Some(7)).await;
}

#[tokio::test]
async fn a_node_with_custom_networking_waits_for_its_eni_config_and_says_so() {
    let (sim, settings, _account) = stage().await;
    let (reason, reasons) = seen::channel(String::new());
    let mut kube = kube(&settings);
    let waiting =
        tokio::spawn(async move { (kube.wanted(Wanted::default(), |why| drop(reason.send_replace(why))).await, kube) });
    let says = |part: &'static str| {
        let reasons = reasons.clone();
        move || reasons.borrow().contains(part)
    };
    until("the reason", says("IPAM-331")).await;
    sim.put(NODE, node(&json!({"k8s/eniConfig": "zone-a"}), &json!([])));
    until("what is missing", says("there is no ENIConfig zone-a")).await;
    sim.put(&format!("{ENI_CONFIGS}/zone-a"), json!({"spec": {"subnet": 7}}));
    until("what is wrong", says("spec.subnet is 7")).await;
    sim.put(&format!("{ENI_CONFIGS}/zone-a"), json!({"spec": {"subnet": "subnet-7", "securityGroups": ["sg-1"]}}));
    let (wanted, kube) = waiting.await.unwrap();
    let network = wanted.network.unwrap();
    assert_eq!((network.subnet.as_str(), wanted.max_pods), ("subnet-7", Some(58)));
    // Another name, another network; the one that nobody names any more is not asked for.
    sim.put(&format!("{ENI_CONFIGS}/zone-b"), json!({"spec": {"subnet": "subnet-8"}}));
    sim.put(NODE, node(&json!({"k8s/eniConfig": "zone-b"}), &json!([])));
    let subnet = || kube.network.borrow().as_ref().ok().map(|network| network.subnet.to_string());
    until("the other network", || subnet().as_deref() == Some("subnet-8")).await;
}

#[tokio::test]
async fn what_an_earlier_run_knew_is_enough_without_an_api_server() {
    let (sim, settings, _account) = stage().await;
    sim.mood(Mood::Hangs);
    let network = ipam_core::CustomNetwork { subnet: "subnet-7".parse().unwrap(), security_groups: vec![] };
    let before = Wanted { max_pods: Some(58), network: Some(network) };
    let wanted = tokio::time::timeout(Duration::from_secs(5), kube(&settings).wanted(before.clone(), drop)).await;
    assert_eq!(wanted.unwrap(), before);
}

/// What Kubernetes says, told as policies.
fn policies(kube: &Kube, known: Wanted) -> mpsc::UnboundedReceiver<Wanted> {
    let (tell, told) = mpsc::unbounded_channel();
    let change = move |wanted| {
        tell.send(wanted).unwrap();
        ready(())
    };
    tokio::spawn(keep_policy(kube.nodes.clone(), kube.network.clone(), known, change));
    told
}

#[tokio::test]
async fn an_eni_config_that_becomes_nonsense_or_goes_changes_nothing() {
    let (sim, settings, _account) = stage().await;
    let path = format!("{ENI_CONFIGS}/default");
    sim.put(NODE, node(&json!({}), &json!([])));
    sim.put(&path, json!({"spec": {"subnet": "subnet-7"}}));
    let kube = kube(&settings);
    let mut told = policies(&kube, Wanted::default());
    let mut last = Wanted::default();
    while last.network.is_none() || last.max_pods.is_none() {
        last = told.recv().await.unwrap();
    }
    sim.put(&path, json!({"spec": {"subnet": "the big one"}}));
    until("the nonsense", || kube.network.borrow().is_err()).await;
    sim.remove(&path);
    let gone = || kube.network.borrow().as_ref().err().is_some_and(|why| why.contains("there is no ENIConfig"));
    until("its end", gone).await;
    sim.put(&path, json!({"spec": {"subnet": "subnet-9"}}));
    let next = told.recv().await.unwrap();
    assert_eq!(next.network.unwrap().subnet.as_str(), "subnet-9", "nothing was told in between");
}

/// A pool with one free address, and what tells of it.
fn tell_of_a_serving_pool(kube: &Kube) {
    let pool = || ready(Some(EngineStatus { free: 1, leased: 3, ..EngineStatus::default() }));
    let events = Events::start(kube.node.clone());
    tokio::spawn(tell::follow(kube.node.clone(), kube.nodes.clone(), pool, events));
}

fn has_taint(sim: &ApiSim) -> bool {
    let taints = sim.get(NODE).unwrap()["spec"]["taints"].clone();
    taints.as_array().unwrap().iter().any(|taint| taint["key"] == decide::TAINT)
}

fn condition(sim: &ApiSim) -> Option<Value> {
    let conditions = sim.get(NODE)?["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == objects::CONDITION)
}

#[tokio::test]
async fn the_startup_taint_goes_and_the_condition_comes_whatever_the_server_does_first() {
    for (count, mood) in [(0, Mood::Well), (3, Mood::Conflicts), (3, Mood::Fails), (2, Mood::Busy), (2, Mood::Garbles)]
    {
        let (sim, settings, _account) = stage().await;
        let others = json!([{"key": "a", "effect": "NoSchedule"}, {"key": decide::TAINT, "effect": "NoSchedule"}]);
        sim.put(NODE, node(&json!({}), &others));
        let kube = kube(&settings);
        until("the watch", || sim.watchers() > 0).await;
        sim.next(count, mood);
        tell_of_a_serving_pool(&kube);
        until(&format!("the end of the taint after {mood:?}"), || !has_taint(&sim)).await;
        until(&format!("the condition after {mood:?}"), || condition(&sim).is_some()).await;
        let object = sim.get(NODE).unwrap();
        assert_eq!(object["spec"]["taints"], json!([{"key": "a", "effect": "NoSchedule"}]), "{mood:?}");
        assert_eq!(object["status"]["conditions"][0]["type"], "Ready", "{mood:?}");
        assert_eq!(condition(&sim).unwrap()["status"], "True", "{mood:?}");
    }
}

#[tokio::test]
async fn a_pod_that_got_no_address_has_an_event_once_and_a_hostile_name_none() {
    let (sim, settings, _account) = stage().await;
    let kube = kube(&settings);
    let events = Events::start(kube.node.clone());
    let (news, queue) = mpsc::channel(16);
    tokio::spawn(pass_on(queue, events, None));
    let pod = |namespace: &str, name: &str| Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: "u-1".to_owned(),
    };
    for pod in [pod("../../nodes", "x"), pod("web", "x?y=\r\n"), pod("", ""), pod("web", "shop"), pod("web", "shop")] {
        news.send(News::Refused { pod, message: "IPAM-201 <b>no free address</b>".to_owned() }).await.unwrap();
    }
    news.send(News::Lost { pod: pod("web", "cart"), message: "IPAM-313 lost".to_owned() }).await.unwrap();
    until("the events", || sim.all("/api/v1/namespaces/").len() == 2).await;
    let posts: Vec<_> = sim.asked().into_iter().filter(|asked| asked.verb == "POST").collect();
    assert_eq!(posts.len(), 2, "{posts:?}");
    assert!(posts.iter().all(|post| post.path == "/api/v1/namespaces/web/events"));
    assert_eq!(posts[0].body["involvedObject"]["name"], "shop");
    assert_eq!(posts[1].body["reason"], "PodNetworkLost");
}

#[tokio::test]
async fn a_pod_is_annotated_with_its_address_and_not_its_successor() {
    let (sim, settings, _account) = stage().await;
    let path = "/api/v1/namespaces/web/pods/shop";
    let pod = |uid: &str| Pod { namespace: "web".to_owned(), name: "shop".to_owned(), uid: uid.to_owned() };
    sim.put(path, json!({"metadata": {"name": "shop", "uid": "u-1"}, "spec": {"nodeName": "node-1"}}));
    let kube = kube(&settings);
    let key = PodKey::new("pods", "sandbox-1", "eth0").unwrap();
    let (news, queue) = mpsc::channel(16);
    sim.next(4, Mood::Fails);
    tokio::spawn(annotate::follow(kube.node.clone(), vec![], queue));
    let given = |uid: &str| News::Given { key: key.clone(), pod: pod(uid), address: "10.0.0.7".to_owned() };
    news.send(given("u-1")).await.unwrap();
    let note = || sim.get(path).unwrap()["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"].clone();
    until("the annotation", || note() == "10.0.0.7").await;
    let known = kube.node.pod(&pod("u-1")).await.unwrap();
    assert_eq!(known["metadata"]["annotations"]["vpc.amazonaws.com/pod-ips"], "10.0.0.7");
    news.send(News::Ended { key: key.clone() }).await.unwrap();
    until("its end", || note() == "").await;
    // The pod that has the name now is another one.
    let before = sim.asked().len();
    news.send(given("u-0")).await.unwrap();
    until("the try", || sim.asked().len() > before).await;
    assert_eq!(note(), "");
}

#[tokio::test]
async fn only_pods_of_this_node_are_read() {
    let (sim, settings, _account) = stage().await;
    let pod = |name: &str, uid: &str| Pod { namespace: "web".to_owned(), name: name.to_owned(), uid: uid.to_owned() };
    let object = |node: &str| json!({"metadata": {"uid": "u", "annotations": {"a": "b"}}, "spec": {"nodeName": node}});
    sim.put("/api/v1/namespaces/web/pods/here", object("node-1"));
    sim.put("/api/v1/namespaces/web/pods/there", object("node-2"));
    let node = kube(&settings).node();
    assert_eq!(node.pod(&pod("here", "u")).await.unwrap()["metadata"]["annotations"]["a"], "b");
    for pod in [pod("here", "other"), pod("there", "u"), pod("nowhere", "u"), pod("../x", "u")] {
        assert_eq!(node.pod(&pod).await.unwrap_err().code(), Some(404), "{pod:?}");
    }
}

#[tokio::test]
async fn without_a_node_name_kubernetes_is_not_used() {
    let (kube, newsroom) = start(None);
    assert!(kube.is_none());
    newsroom.tell(|| unreachable!("nobody listens"));
}

#[tokio::test]
async fn of_two_eni_configs_of_one_name_none_is_taken() {
    let (sim, settings, _account) = stage().await;
    sim.put(NODE, node(&json!({}), &json!([])));
    sim.put(&format!("{ENI_CONFIGS}/default"), json!({"spec": {"subnet": "subnet-7"}}));
    let kube = kube(&settings);
    until("the ENIConfig", || kube.network.borrow().is_ok()).await;
    until("both watches", || sim.watchers() > 1).await;
    sim.mood(Mood::Doubles);
    let before = sim.asked().len();
    sim.cut();
    until("the questions", || sim.asked()[before..].iter().filter(|asked| asked.path == ENI_CONFIGS).count() > 1).await;
    assert_eq!(kube.network.borrow().as_ref().unwrap().subnet.as_str(), "subnet-7", "what was known stands");
}

#[tokio::test]
async fn a_server_that_denies_is_left_alone_for_long_and_what_an_earlier_run_knew_is_enough() {
    let (sim, settings, _account) = stage().await;
    put_pods(&sim, 58);
    sim.mood(Mood::Denies);
    let mut kube = kube(&settings);
    let network = ipam_core::CustomNetwork { subnet: "subnet-7".parse().unwrap(), security_groups: vec![] };
    let known = Wanted { max_pods: Some(29), network: Some(network) };
    assert_eq!(kube.wanted(known.clone(), drop).await, known);
    until("the question", || !sim.asked().is_empty()).await;
    // One that is not denied is asked again within half a second; this one within a minute.
    let mut pace = watch::Pace::new(0);
    let denied = api::ApiError::Refused { code: 403, message: String::new(), retry_after: None };
    assert!(pace.wait(Some(&denied)) > Duration::from_secs(30));
    assert!(pace.wait(Some(&api::ApiError::Away(String::new()))) < Duration::from_secs(1));
    assert!(kube.nodes.borrow().is_none());
}

#[tokio::test]
async fn the_resource_controller_is_asked_for_a_trunk_whatever_the_server_does_first() {
    let path = "/apis/vpcresources.k8s.aws/v1alpha1/cninodes/node-1";
    for (count, mood) in [(0, Mood::Well), (2, Mood::Conflicts), (2, Mood::Fails), (1, Mood::Busy), (2, Mood::Doubles)]
    {
        let (sim, mut settings, _account) = stage().await;
        settings.branches = true;
        sim.put(NODE, node(&json!({"k8s/eniConfig": "zone-a"}), &json!([])));
        let kube = kube(&settings);
        until("the node", || max_pods(&kube) == Some(58)).await;
        // The controller makes the object when it sees the node.
        until("the watches", || sim.watchers() > 1).await;
        sim.next(count, mood);
        let other = json!({"name": "Other", "value": "x"});
        sim.put(path, json!({"spec": {"features": [other]}, "status": {"a": "b"}}));
        let wanted = |zone: &str| {
            let custom = json!({"name": "CustomNetworking", "value": zone});
            json!([other, {"name": "SecurityGroupsForPods"}, custom])
        };
        let features = |wanted: &Value| sim.get(path).is_some_and(|object| object["spec"]["features"] == *wanted);
        until(&format!("the features after {mood:?}"), || features(&wanted("zone-a"))).await;
        assert_eq!(sim.get(path).unwrap()["status"], json!({"a": "b"}));
        sim.put(NODE, node(&json!({"k8s/eniConfig": "zone-b"}), &json!([])));
        until("another ENIConfig", || features(&wanted("zone-b"))).await;
        sim.remove(path);
        sim.put(path, json!({"spec": {}}));
        until("a new object's", || features(&json!([wanted("")[1], wanted("zone-b")[2]]))).await;
    }
    let (sim, settings, _account) = stage().await;
    sim.put(path, json!({"spec": {}}));
    put_pods(&sim, 58);
    let kube = kube(&settings);
    until("the node", || max_pods(&kube) == Some(58)).await;
    assert!(!sim.asked().iter().any(|asked| asked.path.contains("cninodes")), "it is asked for without ENABLE_POD_ENI");
}
