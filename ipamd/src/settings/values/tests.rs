//! Every value of a file is carried over, is so anyway, or is named.

use std::collections::BTreeSet;

use super::*;
use crate::settings::{Settings, ignored::SILENT, sources::Sources};

const FULL: &str = include_str!("aws-vpc-cni.yaml");

/// The paths of all that a file says, lists as one thing.
fn leaves(path: &str, value: &Value) -> Vec<String> {
    match value {
        Value::Object(below) if !below.is_empty() => below
            .iter()
            .flat_map(|(name, value)| leaves(&format!("{path}{}{name}", if path.is_empty() { "" } else { "." }), value))
            .collect(),
        Value::Null => Vec::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            vec![path.to_owned()]
        }
    }
}

fn tree(text: &str) -> Value {
    yaml::parse(text).unwrap()
}

fn sources(values: &Values) -> Sources {
    Sources { environment: values.environment.clone(), ..Sources::default() }
}

fn left(values: &Values) -> BTreeSet<&str> {
    values.left.iter().map(|left| left.path.as_str()).collect()
}

/// What the file says that is so anyway: nothing needs to be said of it.
const SO_ANYWAY: &[&str] = &[
    "cniConfig.enabled",
    "cniConfig.fileContents",
    "enableWindowsIpam",
    "enableWindowsPrefixDelegation",
    "init.env.ENABLE_IPv6",
    "init.env.ENABLE_V6_EGRESS",
    "minimumWindowsIPTarget",
    "nodeAgent.extraVolumeMounts",
    "nodeAgent.resources",
    "podSecurityContext",
    "warmWindowsIPTarget",
    "warmWindowsPrefixTarget",
];

#[test]
fn every_value_of_a_full_file_is_carried_over_or_named_with_the_reason() {
    let values = parse(FULL).unwrap();
    let (left, sources) = (left(&values), sources(&values));
    let carried: BTreeSet<String> = leaves("", &Value::Object(values.carried.clone())).into_iter().collect();
    let warnings = sources.warnings();
    let is_warned = |name: &str| warnings.iter().any(|warning| warning.starts_with(&format!("{name}=\"")));
    let mut unsaid = Vec::new();
    for path in leaves("", &tree(FULL)) {
        let name = path.strip_prefix("env.").unwrap_or_default();
        let is_same = IGNORED.iter().any(|row| row.name == name && !is_warned(name)) || SILENT.contains(&name);
        let ways = [carried.contains(&path), left.contains(path.as_str()), is_warned(name), is_same];
        match ways.iter().filter(|way| **way).count() {
            0 => unsaid.push(path),
            1 => {}
            _ => panic!("{path} has more than one fate: {ways:?}"),
        }
    }
    unsaid.sort();
    assert_eq!(unsaid, SO_ANYWAY, "what nothing is said of");
    assert!(values.left.iter().all(|left| left.why.len() > 20), "{:?}", values.left);
    for (name, text) in &values.environment {
        let row = IGNORED.iter().find(|row| row.name == name);
        assert_eq!(is_warned(name), row.is_some_and(|row| row.is_missed(text)), "{name}: {warnings:?}");
    }
}

#[test]
fn the_settings_of_a_full_file_are_those_that_the_daemon_gets() {
    let values = parse(FULL).unwrap();
    let sources = sources(&values);
    Settings::of(&sources).unwrap();
    for (name, text) in [
        ("WARM_IP_TARGET", "8"),
        ("MINIMUM_IP_TARGET", "24"),
        ("ANNOTATE_POD_IP", "true"),
        ("ENABLE_SUBNET_DISCOVERY", "false"),
        ("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", "192.168.0.0/16,172.16.0.0/12"),
        ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone"),
        ("ADDITIONAL_ENI_TAGS", "{\"team\":\"platform\"}"),
    ] {
        assert_eq!(sources.get(name).map(|(text, _)| text), Some(text), "{name}");
        assert_eq!(values.carried["env"][name], text, "{name}");
    }
    assert_eq!(sources.get("MAX_ENI"), None);
    for unfit in ["AWS_VPC_K8S_CNI_LOG_FILE", "NETWORK_POLICY_ENFORCING_MODE"] {
        assert_eq!(sources.get(unfit), None, "{unfit} would harm in our chart");
    }
    // What our daemon gets from our chart with these values is the same, and nothing is left to be warned of.
    let again = parse(&Value::Object(values.carried.clone()).to_string()).unwrap();
    assert_eq!(Settings::of(&super::tests::sources(&again)), Settings::of(&sources));
    let left: Vec<&Left> = again.left.iter().filter(|left| !left.path.starts_with("extraEnv")).collect();
    assert_eq!(left, Vec::<&Left>::new());
}

/// The schema of our chart's values.
fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/eni-cni/values.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_is_carried_over_is_a_value_of_our_chart() {
    let schema = schema();
    for key in keys::KEYS {
        let place = key.path.split('.').try_fold(&schema, |schema, name| schema.get("properties")?.get(name));
        if matches!(key.fate, Fate::Carried | Fate::CarriedBut(..)) {
            assert!(place.is_some(), "our chart has no {}", key.path);
        }
    }
}

#[test]
fn a_value_that_nobody_has_is_named_with_the_nearest_that_somebody_has() {
    let values = parse("nodeSelektor: { a: b }\nimage: { tagg: x }\nenv: { WARM_IPS: 3 }\ninit: {}\n").unwrap();
    let said: Vec<String> = values.left.iter().map(|left| format!("{}: {}", left.path, left.why)).collect();
    assert_eq!(
        said,
        [
            "nodeSelektor.a: the chart of amazon-vpc-cni-k8s has no such value; did you mean nodeSelector?",
            "image.tagg: the chart of amazon-vpc-cni-k8s has no such value; did you mean image.tag?",
        ]
    );
    assert_eq!(sources(&values).warnings().len(), 1);
}

#[test]
fn where_introspection_is_elsewhere_there_are_no_probes_and_that_is_said() {
    for env in ["DISABLE_INTROSPECTION: true", "INTROSPECTION_BIND_ADDRESS: 127.0.0.1:9999"] {
        let values = parse(&format!("env: {{ {env} }}\n")).unwrap();
        assert_eq!(values.carried["livenessProbe"], Value::Null);
        assert_eq!(left(&values), ["livenessProbe", "readinessProbe"].into());
    }
    let own = "env: { DISABLE_INTROSPECTION: 'true' }\nlivenessProbe: { httpGet: { port: 61678, path: /metrics } }\n";
    assert_eq!(left(&parse(own).unwrap()), ["readinessProbe"].into());
}

#[test]
fn groups_that_are_off_and_defaults_ask_for_nothing() {
    let off = "nodeAgent: { enabled: false, image: { tag: v1 } }\ncniConfig: { enabled: false, fileContents: '{}' }\n\
               podMonitor: { create: false, sampleLimit: 5 }\nenv: { NETWORK_POLICY_ENFORCING_MODE: standard }\n";
    let values = parse(off).unwrap();
    assert_eq!(values.left, []);
    assert_eq!(sources(&values).warnings(), [""; 0]);
    for nothing in ["", "# only a remark\n", "{}", "env:\n"] {
        let values = parse(nothing).unwrap();
        assert!(values.left.is_empty() && values.carried.is_empty() && values.environment.len() == 1, "{nothing:?}");
    }
}

#[test]
fn a_file_that_is_no_values_file_is_refused_in_words() {
    let wrong = |text: &str| parse(text).unwrap_err().join("\n");
    assert!(wrong("env: [a, b").contains("line"), "{}", wrong("env: [a, b"));
    assert!(wrong("- a\n- b\n").contains("names with values"));
    assert!(wrong("env: 5\n").contains("names with values"));
    assert!(wrong("env: { WARM_IP_TARGET: [1] }\n").contains("env.WARM_IP_TARGET"));
    assert!(wrong("extraEnv: [{ value: x }]\n").contains("needs a name"));
    assert!(wrong("env: { A: 1 }\nenv: { B: 2 }\n").contains("env"));
}
