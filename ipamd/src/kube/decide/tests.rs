use std::collections::BTreeMap;

use ipam_core::engine::{Waiting, WaitingFor};
use serde_json::json;

use super::*;

fn at(second: u64) -> Moment {
    Moment::from_millis(second * 1000)
}

fn pool(free: u32, leased: u32, in_flight: u32, queued: u32) -> EngineStatus {
    EngineStatus { free, leased, in_flight, queued, ..EngineStatus::default() }
}

fn waiting(text: &str) -> Waiting {
    Waiting { kind: WaitingFor::Subnet, text: text.to_owned() }
}

fn healths(course: Course, pool: &EngineStatus, max_pods: Option<u16>, seconds: &[u64]) -> Vec<Health> {
    let mut course = course;
    let next = |second: &u64| {
        course = course.next(pool, max_pods, at(*second));
        course.health
    };
    seconds.iter().map(next).collect()
}

#[test]
fn a_pool_is_exhausted_when_it_has_been_empty_for_a_while() {
    let serving = Course { health: Health::Serving, short_since: None };
    let (empty, coming) = (pool(0, 9, 0, 1), pool(0, 9, 3, 1));
    let [s, e] = [Health::Serving, Health::Exhausted];
    assert_eq!(healths(serving, &empty, None, &[0, 14, 15, 16]), [s, s, e, e]);
    assert_eq!(healths(serving, &coming, None, &[0, 15, 119, 120]), [s, s, s, e]);
    let cooling = EngineStatus { cooling: 2, ..empty.clone() };
    assert_eq!(healths(serving, &cooling, None, &[0, 15, 119, 120]), [s, s, s, e]);
}

#[test]
fn a_node_with_all_the_pods_that_it_takes_is_not_exhausted() {
    let serving = Course { health: Health::Serving, short_since: None };
    let [s, e] = [Health::Serving, Health::Exhausted];
    assert_eq!(healths(serving, &pool(0, 9, 0, 0), Some(9), &[0, 60]), [s, s]);
    assert_eq!(healths(serving, &pool(0, 9, 0, 1), Some(9), &[0, 60]), [s, e], "a pod waits all the same");
    assert_eq!(healths(serving, &pool(0, 9, 0, 0), Some(10), &[0, 60]), [s, e]);
}

#[test]
fn a_start_ends_with_the_first_address_or_with_pods_that_have_theirs() {
    let begun = Course::default();
    assert_eq!(healths(begun, &pool(0, 0, 5, 2), None, &[0, 600]), [Health::Starting; 2]);
    assert_eq!(healths(begun, &pool(1, 0, 0, 0), None, &[0]), [Health::Serving]);
    assert_eq!(healths(begun, &pool(0, 4, 0, 0), None, &[0]), [Health::Serving]);
}

#[test]
fn one_free_address_ends_an_exhaustion() {
    let exhausted = Course { health: Health::Exhausted, short_since: Some(at(0)) };
    assert_eq!(healths(exhausted, &pool(1, 9, 0, 0), None, &[1]), [Health::Serving]);
    let turned = turn(Health::Exhausted, Health::Serving, &pool(1, 9, 0, 0)).unwrap();
    assert_eq!((turned.reason, turned.is_bad), ("PodAddressesAvailable", false));
    assert_eq!(turn(Health::Starting, Health::Serving, &pool(1, 0, 0, 0)), None);
}

#[test]
fn an_exhaustion_is_told_with_numbers_and_reasons() {
    let mut empty = pool(0, 42, 0, 3);
    empty.waiting = vec![waiting("subnet-1 is full"); 9];
    let turned = turn(Health::Serving, Health::Exhausted, &empty).unwrap();
    assert!(turned.is_bad);
    for part in ["0 free", "42 leased", "3 pods waiting", "subnet-1 is full"] {
        assert!(turned.message.contains(part), "{}", turned.message);
    }
    empty.waiting = vec![waiting(&"é\u{1b}[31m\n".repeat(5000))];
    let message = turn(Health::Serving, Health::Exhausted, &empty).unwrap().message;
    assert!(message.len() <= LONGEST && !message.contains(char::is_control));
}

#[test]
fn the_condition_is_written_when_it_says_something_else_than_the_pool() {
    let node = |is: Option<(&str, &str)>| Node {
        condition: is.map(|(status, reason)| (status.to_owned(), reason.to_owned())),
        ..Node::default()
    };
    let write = |is, health| condition(&node(is), health, &pool(3, 1, 0, 0), at(1_795_270_927));
    let serving = Some(("True", "Serving"));
    assert_eq!(write(serving, Health::Serving), None);
    assert_eq!(write(serving, Health::Starting), None, "a restart changes nothing");
    let patch = write(None, Health::Serving).unwrap();
    let written = &patch["status"]["conditions"][0];
    assert_eq!(written["type"], CONDITION);
    assert_eq!((&written["status"], &written["reason"]), (&json!("True"), &json!("Serving")));
    assert_eq!(written["lastTransitionTime"], "2026-11-21T14:22:07Z");
    assert!(written["message"].as_str().unwrap().starts_with("3 free, 1 leased"));
    assert_eq!(write(serving, Health::Exhausted).unwrap()["status"]["conditions"][0]["status"], "False");
}

#[test]
fn only_our_taint_goes_and_only_from_the_node_that_was_seen() {
    let other = json!({"key": "dedicated", "value": "x", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"});
    let ours = json!({"key": TAINT, "effect": "NoExecute"});
    let node = |taints: &[&Value]| Node {
        version: "7".to_owned(),
        uid: "u".to_owned(),
        taints: taints.iter().copied().cloned().collect(),
        ..Node::default()
    };
    let patch = untaint(&node(&[&other, &ours]), Health::Serving).unwrap();
    assert_eq!(patch, json!({"metadata": {"resourceVersion": "7", "uid": "u"}, "spec": {"taints": [other]}}));
    assert_eq!(untaint(&node(&[&ours]), Health::Starting), None);
    assert_eq!(untaint(&node(&[&other]), Health::Serving), None);
    let unversioned = Node { version: String::new(), ..node(&[&ours]) };
    assert_eq!(untaint(&unversioned, Health::Serving), None);
}

#[test]
fn an_event_is_where_people_look_for_it() {
    let happened = Happened { reason: "PodAddressRefused", is_bad: true, message: "IPAM-201\nno".to_owned() };
    let pod = Pod { namespace: "web".to_owned(), name: "shop".to_owned(), uid: "u".to_owned() };
    let (path, object) = event(&About::Pod(pod), &happened, "node-1", 3, at(1));
    assert_eq!(path, "/api/v1/namespaces/web/events");
    assert_eq!(
        object["involvedObject"],
        json!({"kind": "Pod", "apiVersion": "v1", "namespace": "web", "name": "shop",
        "uid": "u"})
    );
    assert_eq!((&object["type"], &object["message"]), (&json!("Warning"), &json!("IPAM-201 no")));
    let about = About::Node { name: "node-1".to_owned(), uid: "n".to_owned() };
    let (path, object) = event(&about, &happened, "node-1", 4, at(1));
    assert_eq!(path, "/api/v1/namespaces/default/events");
    assert_eq!(object["metadata"]["namespace"], "default");
}

#[test]
fn the_eni_config_is_named_as_the_aws_cni_reads_it() {
    let names = EniConfigNames { annotation: "note".to_owned(), label: "label".to_owned() };
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    for (labels, annotations, wanted) in [
        (map(&[]), map(&[]), "default"),
        (map(&[("label", "a")]), map(&[]), "a"),
        (map(&[("label", "a")]), map(&[("note", "b")]), "b"),
        (map(&[("label", "a"), (EXTERNAL_LABEL, "c")]), map(&[("note", "b")]), "c"),
        (map(&[("label", "a")]), map(&[("note", "")]), "a"),
    ] {
        let node = Node { labels, annotations, ..Node::default() };
        assert_eq!(eni_config(&node, &names), wanted, "{node:?}");
    }
}

#[test]
fn what_the_operator_has_set_goes_before_what_kubernetes_says() {
    let network = CustomNetwork { subnet: "subnet-7".parse().unwrap(), security_groups: vec![] };
    let wanted = Wanted { max_pods: Some(58), network: Some(network.clone()) };
    let completed = wanted.complete(Policy { max_pods: Some(20), ..Policy::default() }, false);
    assert_eq!((completed.max_pods, completed.placement), (Some(20), Placement::Discover));
    let completed = wanted.complete(Policy::default(), true);
    assert_eq!((completed.max_pods, completed.placement), (Some(58), Placement::Custom(network)));
}
