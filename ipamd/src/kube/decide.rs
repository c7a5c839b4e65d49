//! What Kubernetes should be told, as a function of how the pool stands and of what Kubernetes has. Asks and tells nobody.

use std::time::Duration;

use eni_proto::Pod;
use ipam_core::{CustomNetwork, Moment, Placement, Policy, engine::EngineStatus};
use serde_json::{Value, json};

use super::objects::{CONDITION, Node};
use crate::clock::rfc3339;

/// Taint that keeps pods away from a node until it can serve them.
pub(super) const TAINT: &str = "node.eni-cni.dev/not-ready";
/// Name of the `ENIConfig` of a node that names none.
pub(super) const DEFAULT_ENI_CONFIG: &str = "default";
/// Names an `ENIConfig` before all else. Source: amazon-vpc-cni-k8s.
const EXTERNAL_LABEL: &str = "vpc.amazonaws.com/externalEniConfig";
/// A pool that has had no address for so long, and expects none, is exhausted.
const SHORT_FOR: Duration = Duration::from_secs(15);
/// The same while addresses are on their way.
const SHORT_AT_MOST: Duration = Duration::from_secs(120);
/// No message to people is longer, in characters. Source: the API server refuses events with more than 1024 bytes.
const LONGEST: usize = 1000;

/// How the pool stands, as far as pods are concerned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
    /// It has had no address yet.
    #[default]
    Starting,
    /// Pods can have addresses, or will in a moment.
    Serving,
    /// No pod can have one.
    Exhausted,
}

/// How the pool stood, and since when it is short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) health: Health,
    short_since: Option<Moment>,
}

impl Course {
    /// How the pool stands now. A node that has all the pods that it takes is short of nothing.
    pub(super) fn next(self, pool: &EngineStatus, max_pods: Option<u16>, now: Moment) -> Self {
        let is_full = pool.queued == 0 && max_pods.is_some_and(|most| pool.leased >= most.into());
        if pool.free > 0 || is_full {
            return Self { health: Health::Serving, short_since: None };
        }
        let short_since = self.short_since.unwrap_or(now);
        let short_for = now.since(short_since);
        let is_coming = pool.in_flight > 0 || pool.cooling > 0;
        let patience = if is_coming { SHORT_AT_MOST } else { SHORT_FOR };
        let health = match self.health {
            // A restart on a full node: it has served, so it can.
            Health::Starting if pool.leased > 0 => Health::Serving,
            Health::Serving if short_for >= patience => Health::Exhausted,
            Health::Starting | Health::Serving | Health::Exhausted => self.health,
        };
        Self { health, short_since: Some(short_since) }
    }
}

/// The pool in numbers, for people.
pub(super) fn in_numbers(pool: &EngineStatus) -> String {
    let EngineStatus { free, leased, cooling, in_flight, queued, .. } = pool;
    let numbers =
        format!("{free} free, {leased} leased, {cooling} cooling, {in_flight} on their way, {queued} pods waiting");
    let reasons = pool.waiting.iter().take(3).map(|reason| format!("; {reason}"));
    cut(&format!("{numbers}{}", reasons.collect::<String>()))
}

/// At most so much as an API server takes.
pub(super) fn cut(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut end = plain.len().min(LONGEST);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain[..end].to_owned()
}

/// Status and reason of our condition.
const fn standing(health: Health) -> (&'static str, &'static str) {
    match health {
        Health::Starting => ("Unknown", "Starting"),
        Health::Serving => ("True", "Serving"),
        Health::Exhausted => ("False", "Exhausted"),
    }
}

/// The patch of the node's status, if its condition says something else than how the pool stands. Nothing of a start is told:
/// the condition of an earlier run, or none, says as much.
pub(super) fn condition(node: &Node, health: Health, pool: &EngineStatus, now: Moment) -> Option<Value> {
    let (status, reason) = standing(health);
    let is = node.condition.as_ref().map(|(status, reason)| (status.as_str(), reason.as_str()));
    if health == Health::Starting || is == Some((status, reason)) {
        return None;
    }
    let time = rfc3339(now);
    let mut condition = json!({"type": CONDITION, "status": status, "reason": reason, "message": in_numbers(pool),
        "lastHeartbeatTime": time});
    if is.is_none_or(|(before, _)| before != status) {
        condition["lastTransitionTime"] = json!(time);
    }
    Some(json!({"status": {"conditions": [condition]}}))
}

/// The patch that takes the startup taint away, if the node has it and the pool can serve. Nothing is changed if the node has
/// become another one meanwhile.
pub(super) fn untaint(node: &Node, health: Health) -> Option<Value> {
    let is_ours = |taint: &&Value| taint["key"] == TAINT;
    if health == Health::Starting || node.version.is_empty() || !node.taints.iter().any(|taint| is_ours(&taint)) {
        return None;
    }
    let others: Vec<_> = node.taints.iter().filter(|taint| !is_ours(taint)).collect();
    Some(json!({"metadata": {"resourceVersion": node.version, "uid": node.uid}, "spec": {"taints": others}}))
}

/// What happened, for people who look at a pod or a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Happened {
    /// As `PodAddressRefused`.
    pub(super) reason: &'static str,
    pub(super) is_bad: bool,
    pub(super) message: String,
}

/// What a change of how the pool stands means for who looks at the node.
pub(super) fn turn(before: Health, after: Health, pool: &EngineStatus) -> Option<Happened> {
    let numbers = in_numbers(pool);
    match (before, after) {
        (Health::Serving, Health::Exhausted) => {
            let message = cut(&format!("no address is left for pods: {numbers}"));
            Some(Happened { reason: "PodAddressesExhausted", is_bad: true, message })
        }
        (Health::Exhausted, Health::Serving) => {
            let message = cut(&format!("there are addresses for pods again: {numbers}"));
            Some(Happened { reason: "PodAddressesAvailable", is_bad: false, message })
        }
        _ => None,
    }
}

/// About whom an event is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    Node { name: String, uid: String },
    Pod(Pod),
}

/// An Event object, and the collection it goes into. `number` makes its name unique on this node.
pub(super) fn event(about: &About, happened: &Happened, node: &str, number: u64, now: Moment) -> (String, Value) {
    let (namespace, involved) = match about {
        // A node is in no namespace; events have to be.
        About::Node { name, uid } => ("default", json!({"kind": "Node", "apiVersion": "v1", "name": name, "uid": uid})),
        About::Pod(Pod { namespace, name, uid }) => {
            let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": name});
            if !uid.is_empty() {
                pod["uid"] = json!(uid);
            }
            (namespace.as_str(), pod)
        }
    };
    let time = rfc3339(now);
    let name = involved["name"].as_str().unwrap_or_default();
    // A name has at most 253 characters.
    let name: String = name.chars().take(200).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": format!("{name}.{:x}{number:x}", now.as_millis()), "namespace": namespace},
        "involvedObject": involved,
        "type": if happened.is_bad { "Warning" } else { "Normal" },
        "reason": happened.reason,
        "message": cut(&happened.message),
        "source": {"component": "eni-cni", "host": node},
        "reportingComponent": "eni-cni",
        "reportingInstance": node,
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    });
    (format!("/api/v1/namespaces/{namespace}/events"), object)
}

/// Where a node names its `ENIConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EniConfigNames {
    /// `ENI_CONFIG_ANNOTATION_DEF`: an annotation.
    pub(crate) annotation: String,
    /// `ENI_CONFIG_LABEL_DEF`: a label.
    pub(crate) label: String,
}

/// The name of a node's `ENIConfig`, by the AWS CNI's rules: the label of its external choice, the annotation, the label, `default`.
pub(super) fn eni_config<'a>(node: &'a Node, names: &EniConfigNames) -> &'a str {
    let said =
        [node.labels.get(EXTERNAL_LABEL), node.annotations.get(&names.annotation), node.labels.get(&names.label)];
    said.into_iter().flatten().find(|name| !name.is_empty()).map_or(DEFAULT_ENI_CONFIG, String::as_str)
}

/// What of the pool's policy Kubernetes knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The node's max pods. Absent: not known.
    pub(crate) max_pods: Option<u16>,
    /// What its `ENIConfig` says. Absent: not known, or custom networking is off.
    pub(crate) network: Option<CustomNetwork>,
}

impl Wanted {
    /// The policy with what is known; what the operator has set stands.
    pub(crate) fn complete(&self, mut policy: Policy, with_eni_config: bool) -> Policy {
        policy.max_pods = policy.max_pods.or(self.max_pods);
        if let Some(network) = self.network.clone().filter(|_| with_eni_config) {
            policy.placement = Placement::Custom(network);
        }
        policy
    }
}

#[cfg(test)]
mod tests;
