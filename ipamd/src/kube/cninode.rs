//! What the VPC resource controller is asked for by our `CNINode`: a trunk ENI, without which no pod has a branch ENI, and the name of the
//! `ENIConfig` that says where branch ENIs live. The object is the controller's; ours are these two of its features only.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    KubeNode,
    api::Patch,
    decide::{DEFAULT_ENI_CONFIG, EniConfigNames, eni_config},
    objects::{self, Node},
    wanted::complain,
    watch::{self as one, Pace},
};

const CNI_NODES: &str = "/apis/vpcresources.k8s.aws/v1alpha1/cninodes";
/// Asks for a trunk. Source: amazon-vpc-resource-controller-k8s.
const BRANCHES: &str = "SecurityGroupsForPods";
/// Names the `ENIConfig`. Source: the same.
const CUSTOM: &str = "CustomNetworking";

/// Keeps our features in the `CNINode`, for ever. `names`: where the node names its `ENIConfig`, with custom networking.
pub(super) async fn follow(
    node: KubeNode,
    names: Option<EniConfigNames>,
    mut nodes: watch::Receiver<Option<Arc<Node>>>,
) {
    let (see, mut seen) = watch::channel(None);
    tokio::spawn(see_it(node.clone(), see));
    let (mut pace, mut away) = (Pace::new(2), false);
    loop {
        let object = seen.borrow_and_update().clone();
        let known = nodes.borrow_and_update().clone();
        let patch = object.as_ref().and_then(|object| patch(object, known.as_deref(), names.as_ref()));
        if let Some(patch) = patch {
            match node.api.patch(&format!("{CNI_NODES}/{}", node.name), Patch::Merge, &patch).await {
                Ok(_) => {
                    tracing::info!(features = %patch["spec"]["features"], "the VPC resource controller is asked for a trunk");
                    (pace, away) = (Pace::new(2), false);
                }
                Err(error) => {
                    complain(&mut away, "the CNINode", &error);
                    // It shows itself anew after a conflict; whatever else it was may be over by then.
                    let _ = tokio::time::timeout(pace.wait(Some(&error)), seen.changed()).await;
                    continue;
                }
            }
        }
        let ended = tokio::select! { ended = seen.changed() => ended, ended = nodes.changed() => ended };
        if ended.is_err() {
            return;
        }
    }
}

async fn see_it(node: KubeNode, seen: watch::Sender<Option<Value>>) {
    let mut away = false;
    let see = |what: one::Seen<'_>| match what {
        Ok(object) => {
            away = false;
            drop(seen.send_replace(object.cloned()));
        }
        Err(error) => complain(&mut away, "the CNINode", error),
    };
    one::follow(&node.api, CNI_NODES, &node.name, node.seed, see).await;
}

/// The patch that gives the object the features that it lacks; nothing of it if it has become another one meanwhile. Absent: it lacks none,
/// or it is not known yet which.
fn patch(object: &Value, node: Option<&Node>, names: Option<&EniConfigNames>) -> Option<Value> {
    let custom = match names {
        // A trunk without it would be in the wrong subnet.
        Some(names) => Some(eni_config(node?, names)).filter(|name| *name != DEFAULT_ENI_CONFIG),
        None => None,
    };
    let version = objects::version(object);
    let there = object.pointer("/spec/features").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut features = there.clone();
    if !features.iter().any(|feature| feature["name"] == BRANCHES) {
        features.push(json!({ "name": BRANCHES }));
    }
    if let Some(custom) = custom {
        let wanted = json!({ "name": CUSTOM, "value": custom });
        match features.iter_mut().find(|feature| feature["name"] == CUSTOM) {
            Some(feature) => *feature = wanted,
            None => features.push(wanted),
        }
    }
    let differs = features != there && !version.is_empty();
    differs.then(|| json!({ "metadata": { "resourceVersion": version }, "spec": { "features": features } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_written_and_what_others_wrote_stays() {
        let names = EniConfigNames { annotation: "a".to_owned(), label: "l".to_owned() };
        let node = |label: &str| Node { labels: [("l".to_owned(), label.to_owned())].into(), ..Node::default() };
        let object = |features: Value| json!({"metadata": {"resourceVersion": "7"}, "spec": {"features": features}});
        let ours = json!({"name": BRANCHES});
        let zone = |name: &str| json!({"name": CUSTOM, "value": name});
        let other = json!({"name": "Other", "value": "x"});
        let table = [
            // features that are there, the node's ENIConfig, and what they become; null: nothing is written
            (json!([]), None, json!([ours])),
            (json!(null), None, json!([ours])),
            (json!("many"), None, json!([ours])),
            (json!([other]), None, json!([other, ours])),
            (json!([ours, other]), None, json!(null)),
            (json!([ours, zone("a")]), None, json!(null)),
            (json!([other]), Some("a"), json!([other, ours, zone("a")])),
            (json!([zone("a"), ours]), Some("b"), json!([zone("b"), ours])),
            (json!([zone("a"), ours]), Some("a"), json!(null)),
            (json!([]), Some("default"), json!([ours])),
        ];
        for (there, label, wanted) in table {
            let node = label.map(node);
            let written = patch(&object(there.clone()), node.as_ref(), label.map(|_| &names));
            let features = written.map(|patch| patch["spec"]["features"].clone()).unwrap_or_default();
            assert_eq!(features, wanted, "{there} with {label:?}");
        }
        assert_eq!(patch(&object(json!([])), None, Some(&names)), None, "the node is not known yet");
        assert_eq!(
            patch(&json!({}), None, None),
            None,
            "an object without a version cannot be told from its successor"
        );
    }
}
