//! Every value of the chart of amazon-vpc-cni-k8s, and what becomes of it in ours.

use serde_json::Value;

/// One value of that chart, or all values below it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Its path, as `nodeAgent.image`.
    pub(crate) path: &'static str,
    pub(crate) fate: Fate,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// Our chart has it by the same path and with the same meaning.
    Carried,
    /// The same, but not for what this function finds, for the reason that follows.
    CarriedBut(fn(&Value) -> bool, &'static str),
    /// It asks for something that our chart does not do, for the reason that follows; one of these texts asks for what is so anyway.
    Left(&'static [&'static str], &'static str),
}

use Fate::{Carried, CarriedBut, Left};

const fn key(path: &'static str, fate: Fate) -> Key {
    Key { path, fate }
}

const OFF: &[&str] = &["false", "{}"];
const NOTHING: &[&str] = &["{}", "[]", ""];
const IMAGE: &str =
    "it names an image of amazon-vpc-cni-k8s; set image.repository, and image.tag or image.digest, to one of eni-cni";
const ONE_IMAGE: &str = "all containers have the one image of image.repository";
const RIGHTS: &str =
    "the chart decides: ipamd has NET_ADMIN and no other capability, the init container none, and none is privileged";
const NAME: &str = "objects have names of their own, beside those of aws-node for as long as both are there";
const AGENT: &str = "the agent of network policies runs only where it is asked for again: give nodeAgent.enabled and its image after a look at them";
const WINDOWS: &str =
    "controllers of AWS read it from the ConfigMap amazon-vpc-cni: keep that, if the cluster has Windows nodes";
const PROBE: &str = "the image has no such program: ipamd is asked over HTTP, as the chart's own probe does";

/// The table. Source: values.yaml and README of the chart, versions 1.12 to 1.23.
pub(crate) const KEYS: &[Key] = &[
    key("affinity", Carried),
    key(
        "branchENICooldown",
        Left(&[], "the VPC resource controller of AWS reads it from the ConfigMap amazon-vpc-cni: keep that"),
    ),
    key(
        "cniConfig.enabled",
        Left(
            OFF,
            "ipamd writes the CNI configuration itself, when the node can serve; further plugins need a configuration of their own",
        ),
    ),
    key("cniConfig.fileContents", Left(NOTHING, "ipamd writes the CNI configuration itself, when the node can serve")),
    key("enableNetworkPolicy", Left(OFF, AGENT)),
    key("enableWindowsIpam", Left(OFF, WINDOWS)),
    key("enableWindowsPrefixDelegation", Left(OFF, WINDOWS)),
    key("eniConfig.create", Carried),
    key(
        "eniConfig.region",
        Left(&["us-west-2"], "ENIConfigs are named by the keys of eniConfig.subnets as they stand"),
    ),
    key("eniConfig.subnets", Carried),
    key("extraVolumeMounts", Carried),
    key("extraVolumes", Carried),
    key("fullnameOverride", Left(NOTHING, NAME)),
    key("image.account", Left(NOTHING, IMAGE)),
    key("image.domain", Left(NOTHING, IMAGE)),
    key("image.endpoint", Left(NOTHING, IMAGE)),
    key("image.override", Left(NOTHING, IMAGE)),
    key("image.pullPolicy", Carried),
    key("image.region", Left(NOTHING, IMAGE)),
    key("image.tag", Left(NOTHING, IMAGE)),
    key("imagePullSecrets", Carried),
    key("init.extraVolumeMounts", Carried),
    key("init.image", Left(NOTHING, ONE_IMAGE)),
    key("init.resources", Carried),
    key("init.securityContext", Left(NOTHING, RIGHTS)),
    key("livenessProbe", CarriedBut(runs_a_program, PROBE)),
    key("livenessProbeTimeoutSeconds", Carried),
    key("minimumWindowsIPTarget", Left(&["3"], WINDOWS)),
    key("nameOverride", Left(NOTHING, NAME)),
    key("nodeAgent.enabled", Left(OFF, AGENT)),
    key("nodeAgent", Left(NOTHING, AGENT)),
    key("nodeSelector", Carried),
    key("originalMatchLabels", Left(OFF, "the DaemonSet is another one than aws-node, with labels of its own")),
    key("podAnnotations", Carried),
    key("podLabels", Carried),
    key("podMonitor.create", Carried),
    key("podMonitor.interval", Carried),
    key("podMonitor.labels", Carried),
    key("podMonitor.namespace", Left(NOTHING, "the PodMonitor is in the namespace of the release")),
    key("podMonitor", Left(NOTHING, "the PodMonitor has an interval and labels, nothing else")),
    key("podSecurityContext", Left(NOTHING, RIGHTS)),
    key("priorityClassName", Carried),
    key("readinessProbe", CarriedBut(runs_a_program, PROBE)),
    key("readinessProbeTimeoutSeconds", Carried),
    key("resources", Carried),
    key("securityContext", Left(NOTHING, RIGHTS)),
    key("serviceAccount.annotations", Carried),
    key("serviceAccount.create", Carried),
    key("serviceAccount.name", Carried),
    key("terminationGracePeriodSeconds", Carried),
    key("tolerations", Carried),
    key("updateStrategy", Carried),
    key("warmWindowsIPTarget", Left(&["1"], WINDOWS)),
    key("warmWindowsPrefixTarget", Left(&["0"], WINDOWS)),
];

/// The row of a path: the one that names it, not one that is above it.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

fn runs_a_program(probe: &Value) -> bool {
    probe.get("exec").is_some() || probe.get("grpc").is_some()
}
