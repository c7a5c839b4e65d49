use std::{path::PathBuf, sync::Arc};

use api_sim::ApiSim;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::kube::{api::Api, place::Place};

const GOOD: &str = r#"[{"eniId":"eni-0a1b","ifAddress":"02:00:0a:00:05:07","privateIp":"10.0.5.7","ipv6Addr":"","vlanId":5,
    "subnetCidr":"10.0.0.0/20","subnetV6Cidr":"","associationID":"trunk-assoc-1"}]"#;

fn pod(limits: &Value, annotation: &Value) -> Value {
    json!({
        "metadata": { "name": "web-0", "uid": "u", "annotations": { ANNOTATION: annotation } },
        "spec": { "nodeName": "node-1", "containers": [
            { "name": "side" },
            { "name": "main", "resources": { "limits": limits } },
        ] },
    })
}

fn wanting(annotation: &str) -> Result<Option<Assigned>, NoBranch> {
    assigned(&pod(&json!({ RESOURCE: "1" }), &json!(annotation)))
}

#[test]
fn the_annotation_is_read_in_both_families() {
    let read = wanting(GOOD).unwrap().unwrap();
    assert_eq!((read.vlan, read.eni.to_string()), (5, "eni-0a1b".to_owned()));
    assert_eq!((read.addresses, read.router), (PodAddresses::V4([10, 0, 5, 7].into()), Some([10, 0, 0, 1].into())));
    let v6 =
        r#"[{"eniId":"eni-1","ifAddress":"02:00:00:00:00:01","privateIp":"","ipv6Addr":"2600:1f00::7","vlanID":4094}]"#;
    let read = wanting(v6).unwrap().unwrap();
    assert_eq!((read.addresses, read.router), (PodAddresses::V6("2600:1f00::7".parse().unwrap()), None));
}

#[test]
fn only_a_pod_that_asks_for_one_has_a_branch() {
    for limits in [json!({}), json!(null), json!({ "cpu": "1" })] {
        assert_eq!(assigned(&pod(&limits, &json!(GOOD))), Ok(None));
    }
    assert_eq!(assigned(&json!({})), Ok(None));
    assert_eq!(assigned(&pod(&json!({ RESOURCE: "1" }), &Value::Null)), Err(NoBranch::NotYet));
    assert_eq!(assigned(&pod(&json!({ "vpc.amazonaws.com/pod-eni-2": "1" }), &json!(7))), Err(NoBranch::NotYet));
}

#[test]
fn each_field_that_cannot_be_right_is_named() {
    let long = format!("[{}]", " ".repeat(LONGEST));
    #[rustfmt::skip]
    let table = [
        ("", "EOF"),
        ("[]", "lists no ENI"),
        ("{}", "invalid type"),
        ("null", "invalid type"),
        (r#"["eni-1"]"#, "invalid type"),
        (r#"[{"eniId":"eni-1"}]"#, "missing field `ifAddress`"),
        (long.as_str(), "more than 16384"),
    ];
    let swapped = [
        (r#""eni-0a1b""#, r#""i-1""#, "eniId"),
        (r#""eni-0a1b""#, r#""eni-1; rm -rf /""#, "eniId"),
        (r#""02:00:0a:00:05:07""#, r#""02:00""#, "ifAddress"),
        (r#""02:00:0a:00:05:07""#, "7", "expected a string"),
        (r#""10.0.5.7""#, r#""10.0.5""#, "privateIp"),
        (r#""10.0.5.7""#, r#""192.168.0.1""#, "is not in subnetCidr"),
        (r#""10.0.5.7""#, r#""""#, "neither privateIp nor ipv6Addr"),
        (r#""ipv6Addr":"""#, r#""ipv6Addr":"::g""#, "ipv6Addr"),
        (r#""vlanId":5"#, r#""vlanId":0"#, "vlanId 0"),
        (r#""vlanId":5"#, r#""vlanId":4095"#, "vlanId 4095"),
        (r#""vlanId":5"#, r#""vlanId":-1"#, "invalid value"),
        (r#""vlanId":5"#, r#""vlanId":18446744073709551615"#, "outside 1..=4094"),
        (r#""10.0.0.0/20""#, r#""10.0.0.1/20""#, "subnetCidr"),
        (r#""10.0.0.0/20""#, r#""""#, "subnetCidr"),
    ];
    let table = table.into_iter().map(|(text, part)| (text.to_owned(), part));
    for (text, part) in table.chain(swapped.map(|(from, to, part)| (GOOD.replacen(from, to, 1), part))) {
        match wanting(&text) {
            Err(NoBranch::Illegible(why)) => assert!(why.contains(part), "{text}: {why}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

/// A stand-in for the API server that has this pod, over HTTP, and the way to it.
async fn served(pod: Value) -> (KubeNode, ApiSim) {
    let sim = ApiSim::new();
    sim.put("/api/v1/namespaces/default/pods/web-0", pod);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let router = sim.router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let (authority, token) = (PathBuf::new(), PathBuf::from("/dev/null"));
    let api = Arc::new(Api::at(&Place { server, authority, token }).unwrap());
    (KubeNode::at(api, "node-1"), sim)
}

fn who(name: &str) -> Pod {
    Pod { namespace: "default".to_owned(), name: name.to_owned(), uid: "u".to_owned() }
}

#[tokio::test]
async fn the_pod_is_read_from_the_api_server_with_one_get() {
    let (kube, sim) = served(pod(&json!({ RESOURCE: "1" }), &json!(GOOD))).await;
    let found = look(Some(&kube), &who("web-0")).await.unwrap().unwrap();
    let asked: Vec<_> = sim.asked().into_iter().map(|asked| (asked.verb, asked.path)).collect();
    assert_eq!(asked, [("GET".to_owned(), "/api/v1/namespaces/default/pods/web-0".to_owned())]);
    assert_eq!(found.vlan, 5);
    let error = look(Some(&kube), &who("web-1")).await.unwrap_err();
    assert!(matches!(error, NoBranch::Api(_)), "{error:?}");
    assert_eq!(look(None, &who("web-0")).await, Err(NoBranch::NoApi));
    assert_eq!(look(Some(&kube), &Pod::default()).await, Err(NoBranch::Nameless));
}

#[test]
fn the_answer_has_the_branch_with_the_nodes_trunk_and_a_refusal_says_what_is_missing() {
    let settings = Settings::read(|_| None).unwrap();
    let assigned = wanting(GOOD).unwrap().unwrap();
    let trunk = MacAddress([2, 0, 0, 0, 0, 9]);
    let reply = reply(assigned, trunk, &settings, Enforcing::Standard).unwrap();
    let branch = BranchEni::try_from(reply.branch.unwrap()).unwrap();
    assert_eq!((branch.vlan(), branch.trunk(), branch.enforcing()), (5, trunk.0, Enforcing::Standard));
    let said = refusal(&who("web-0"), &NoBranch::NoTrunk);
    assert!(
        said.try_again && said.to_string().starts_with("IPAM-208") && said.message.contains("no trunk ENI"),
        "{said}"
    );
}
