//! What we read of Kubernetes objects. What is missing or of another type counts as absent: the API server may be of any version,
//! and may lie.

use std::collections::BTreeMap;

use ipam_core::CustomNetwork;
use serde_json::Value;

use super::api::readable;

/// Our condition of the node: whether pods can have addresses.
pub(super) const CONDITION: &str = "PodAddressesAvailable";
/// No node has room for more pods. Source: kubelet refuses a larger `maxPods` in practice; EKS stays at 737.
const MOST_PODS: u16 = 2000;

/// What we need of the Node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) uid: String,
    /// Empty: the server did not say.
    pub(super) version: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// As they are, so that what we do not know goes back unchanged.
    pub(super) taints: Vec<Value>,
    /// How many pods kubelet takes. Absent: it has not said.
    pub(super) max_pods: Option<u16>,
    /// Status and reason of our condition. Absent: it has none.
    pub(super) condition: Option<(String, String)>,
}

impl Node {
    pub(super) fn read(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let pods = object.pointer("/status/allocatable/pods").or(object.pointer("/status/capacity/pods"));
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        let ours = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == CONDITION));
        Self {
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            version: text(&metadata["resourceVersion"]),
            labels: texts(&metadata["labels"]),
            annotations: texts(&metadata["annotations"]),
            taints: object.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default(),
            max_pods: pods.and_then(quantity).filter(|pods| (1..=MOST_PODS).contains(pods)),
            condition: ours.map(|condition| (text(&condition["status"]), text(&condition["reason"]))),
        }
    }
}

/// A number of things as Kubernetes writes it: `"110"`, rarely 110.
fn quantity(value: &Value) -> Option<u16> {
    value.as_str().map_or_else(|| value.as_u64()?.try_into().ok(), |text| text.parse().ok())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The entries of an object whose values are texts.
pub(super) fn texts(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The name of an object.
pub(super) fn name(object: &Value) -> &str {
    object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
}

/// The resource version of an object or a list. Empty: there is none.
pub(super) fn version(object: &Value) -> String {
    object.pointer("/metadata/resourceVersion").map(text).unwrap_or_default()
}

/// Reads an `ENIConfig`.
///
/// # Errors
/// What of it is wrong, for people.
pub(super) fn custom_network(object: &Value) -> Result<CustomNetwork, String> {
    let subnet = match object.pointer("/spec/subnet") {
        Some(Value::String(subnet)) => subnet.parse().map_err(|error| readable(&format!("spec.subnet: {error}")))?,
        Some(other) => return Err(readable(&format!("spec.subnet is {other}, not a subnet's id"))),
        None => return Err("spec.subnet is missing".to_owned()),
    };
    let groups = match object.pointer("/spec/securityGroups") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(groups)) => groups,
        Some(other) => return Err(readable(&format!("spec.securityGroups is {other}, not a list"))),
    };
    let parse = |group: &Value| {
        let id = group.as_str().ok_or_else(|| readable(&format!("spec.securityGroups has {group}")))?;
        id.parse().map_err(|error| readable(&format!("spec.securityGroups: {error}")))
    };
    let mut security_groups = groups.iter().map(parse).collect::<Result<Vec<_>, String>>()?;
    security_groups.sort();
    security_groups.dedup();
    Ok(CustomNetwork { subnet, security_groups })
}

/// Whether a text can be the name of a pod, a node or a namespace: only then does it go into a path. Source: RFC 1123 as
/// Kubernetes reads it.
pub(crate) fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && !text.starts_with(['-', '.'])
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_read_as_far_as_it_makes_sense() {
        let node = Node::read(&json!({
            "metadata": {"name": "n", "uid": "u", "resourceVersion": "7", "labels": {"a": "b", "c": 4}},
            "spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"pods": "58"}, "conditions": [
                {"type": "Ready", "status": "True"}, {"type": CONDITION, "status": "False", "reason": "Exhausted"}]},
        }));
        assert_eq!((node.name.as_str(), node.max_pods, node.taints.len()), ("n", Some(58), 1));
        assert_eq!(node.labels, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        assert_eq!(node.condition, Some(("False".to_owned(), "Exhausted".to_owned())));
    }

    #[test]
    fn what_makes_no_sense_counts_as_absent() {
        for pods in [json!("-7"), json!("0"), json!("99999"), json!("many"), json!(null), json!([1]), json!(-1)] {
            let object = json!({"metadata": 3, "spec": {"taints": "no"}, "status": {"allocatable": {"pods": pods},
                "conditions": 4}});
            let node = Node::read(&object);
            assert_eq!(node, Node::default(), "{pods}");
        }
        assert_eq!(Node::read(&json!({"status": {"capacity": {"pods": 29}}})).max_pods, Some(29));
        assert_eq!(Node::read(&Value::Null), Node::default());
    }

    #[test]
    fn an_eni_config_says_what_is_wrong_with_it() {
        let right = json!({"spec": {"subnet": "subnet-0a", "securityGroups": ["sg-2", "sg-1", "sg-2"]}});
        let network = custom_network(&right).unwrap();
        assert_eq!(network.subnet.as_str(), "subnet-0a");
        assert_eq!(network.security_groups.iter().map(|group| group.as_str()).collect::<Vec<_>>(), ["sg-1", "sg-2"]);
        assert_eq!(custom_network(&json!({"spec": {"subnet": "subnet-0a"}})).unwrap().security_groups, []);
        for (spec, says) in [
            (json!({}), "spec.subnet is missing"),
            (json!({"subnet": 7}), "spec.subnet is 7"),
            (json!({"subnet": "vpc-1"}), "vpc-1"),
            (json!({"subnet": "subnet-1", "securityGroups": "sg-1"}), "not a list"),
            (json!({"subnet": "subnet-1", "securityGroups": [7]}), "has 7"),
            (json!({"subnet": "subnet-1", "securityGroups": ["x"]}), "`x`"),
        ] {
            let error = custom_network(&json!({"spec": spec})).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn only_names_go_into_paths() {
        for right in ["web-7d9f", "a", "ip-10-0-0-1.eu-central-1.compute.internal"] {
            assert!(is_name(right), "{right}");
        }
        let long = "a".repeat(254);
        for wrong in ["", "a/b", "..", "a..b", "a?x", "A", "a b", "ä", "-a", ".a", "a\u{1b}[31m", long.as_str()] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
