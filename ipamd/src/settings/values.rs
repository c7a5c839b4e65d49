//! A values file of the chart of amazon-vpc-cni-k8s, for `ipamd config check --values`: the settings that it gives the daemon, what our chart
//! takes over, and what not, each with its reason. What becomes of which value is in `values/keys.rs`.

pub(crate) mod keys;
mod yaml;

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use super::{Mistakes, ignored::IGNORED, table};
use keys::Fate;

/// A values file, read.
#[derive(Debug, Default)]
pub(crate) struct Values {
    /// The daemon's environment, by name.
    pub(crate) environment: BTreeMap<String, String>,
    /// A values file for our chart with everything that it takes over.
    pub(crate) carried: Map<String, Value>,
    /// What has no effect there, or another one.
    pub(crate) left: Vec<Left>,
}

/// A value without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// Its path, as `nodeAgent.image.tag`.
    pub(crate) path: String,
    pub(crate) why: String,
}

/// A setting that means another thing, or harms, in our chart: which texts of it do, and why.
type Unfit = (&'static str, fn(&str) -> bool, &'static str);

const UNFIT: &[Unfit] = &[
    ("HOST_CNI_BIN_PATH", is_path, "the chart's mounts decide where that folder is in the container"),
    ("HOST_CNI_CONFDIR_PATH", is_path, "the chart's mounts decide where that folder is in the container"),
    ("AWS_VPC_K8S_CNI_BACKING_STORE", is_path, "the chart's mounts decide where that folder is in the container"),
    (
        "AWS_VPC_K8S_CNI_LOG_FILE",
        is_path,
        "the container has no such folder, so the log goes to stderr; for a file mount a folder (extraVolumes, extraVolumeMounts) and set it again",
    ),
    (
        "NETWORK_POLICY_ENFORCING_MODE",
        |text| !text.eq_ignore_ascii_case("none"),
        "pods would wait in vain for an agent of network policies that does not run; set it again together with nodeAgent.enabled, or where one runs beside it",
    ),
];

fn is_path(text: &str) -> bool {
    text.starts_with('/')
}

/// Groups of values that mean nothing when one of them is false.
const SWITCHED: &[(&str, &str)] = &[("nodeAgent", "enabled"), ("cniConfig", "enabled"), ("podMonitor", "create")];

/// Reads a values file.
///
/// # Errors
/// That it cannot be read, is no YAML, or has values of a kind that no chart could use; all of them at once.
pub(crate) fn read(path: &Path) -> Result<Values, Mistakes> {
    let one = |mistake: String| Mistakes(vec![format!("  - {}: {mistake}", path.display())]);
    let text = std::fs::read_to_string(path).map_err(|error| one(error.to_string()))?;
    parse(&text).map_err(|mistakes| {
        Mistakes(mistakes.into_iter().map(|mistake| format!("  - {}: {mistake}", path.display())).collect())
    })
}

fn parse(text: &str) -> Result<Values, Vec<String>> {
    let tree = match yaml::parse(text).map_err(|why| vec![why])? {
        Value::Object(tree) => tree,
        Value::Null => Map::new(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(vec!["a values file has names with values, as env: and below it WARM_IP_TARGET: 8".to_owned()]);
        }
    };
    let mut reading = Reading::default();
    // Both charts set it to the name of the node, whichever that is.
    reading.values.environment.insert("MY_NODE_NAME".to_owned(), "a-node".to_owned());
    for (name, value) in &tree {
        match name.as_str() {
            "env" => reading.environment("env", value),
            "extraEnv" => reading.further_environment(value),
            _ => reading.value(name, value),
        }
    }
    for (group, switch) in SWITCHED {
        if at(&tree, &[group, switch]).is_some_and(|value| plain(value) == "false") {
            reading.values.left.retain(|left| !is_below(&left.path, group));
            if *group == "nodeAgent" {
                // Without the agent that chart does not set it.
                reading.values.environment.remove("NETWORK_POLICY_ENFORCING_MODE");
            }
        }
    }
    reading.leave_unfit();
    reading.leave_probes();
    reading.carry_environment();
    if reading.mistakes.is_empty() { Ok(reading.values) } else { Err(reading.mistakes) }
}

#[derive(Default)]
struct Reading {
    values: Values,
    /// Names of the environment that `env` sets, not `extraEnv`.
    in_env: Vec<String>,
    mistakes: Vec<String>,
}

impl Reading {
    fn environment(&mut self, path: &str, value: &Value) {
        for (name, value) in named(value) {
            match text(value) {
                Some(text) => {
                    self.in_env.push(name.clone());
                    self.values.environment.insert(name.clone(), text);
                }
                None if value.is_null() => {}
                None => self.mistakes.push(format!("{path}.{name}: give a text, a number, true or false")),
            }
        }
        if !matches!(value, Value::Object(_) | Value::Null) {
            self.mistakes.push(format!("{path}: give names with values"));
        }
    }

    fn further_environment(&mut self, value: &Value) {
        for one in value.as_array().into_iter().flatten() {
            let Some(name) = one.get("name").and_then(Value::as_str) else {
                self.mistakes.push("extraEnv: each entry needs a name".to_owned());
                continue;
            };
            match one.get("value").and_then(text) {
                Some(text) => drop(self.values.environment.insert(name.to_owned(), text)),
                None => self.leave(
                    &format!("extraEnv.{name}"),
                    "it is carried over, but its value is in the cluster, so it is not checked here",
                ),
            }
        }
        if value.as_array().is_some_and(|list| !list.is_empty()) {
            self.values.carried.insert("extraEnv".to_owned(), value.clone());
        }
    }

    /// What the init container of that chart gets: it sets kernel settings, ours puts a file in place.
    fn initial_environment(&mut self, value: &Value) {
        for (name, value) in named(value) {
            let text = text(value).unwrap_or_default();
            let ignored = IGNORED.iter().find(|ignored| ignored.name == name);
            let is_missed = match ignored {
                Some(ignored) => ignored.is_missed(&text),
                None => table::find(name).is_none() && !text.is_empty(),
            };
            if is_missed {
                let why = ignored.map_or("the init container only puts the plugin into place", |ignored| ignored.why);
                self.leave(&format!("init.env.{name}"), why);
            }
        }
    }

    /// Any other value, and what is below it.
    fn value(&mut self, path: &str, value: &Value) {
        if path == "init.env" {
            return self.initial_environment(value);
        }
        match (keys::find(path).map(|key| key.fate), value) {
            (_, Value::Null) => {}
            (Some(Fate::Carried), _) => carry(&mut self.values.carried, path, value),
            (Some(Fate::CarriedBut(is_other, why)), _) if is_other(value) => self.leave_all(path, value, &[], why),
            (Some(Fate::CarriedBut(..)), _) => carry(&mut self.values.carried, path, value),
            // What is below may have rows of its own.
            (Some(Fate::Left(..)) | None, Value::Object(below)) if !below.is_empty() => {
                below.iter().for_each(|(name, value)| self.value(&format!("{path}.{name}"), value));
            }
            (Some(Fate::Left(same, why)), _) => self.leave_all(path, value, same, why),
            (None, _) => match above(path) {
                Some((same, why)) => self.leave_all(path, value, same, why),
                None if plain(value) == "{}" && keys::KEYS.iter().any(|key| is_below(key.path, path)) => {}
                None => self.unknown(path),
            },
        }
    }

    fn unknown(&mut self, path: &str) {
        let nearest = keys::KEYS.iter().map(|key| (strsim::damerau_levenshtein(key.path, path), key.path)).min();
        let near = nearest.filter(|(slips, _)| *slips <= path.len() / 3);
        let near = near.map(|(_, nearest)| format!("; did you mean {nearest}?")).unwrap_or_default();
        self.leave(path, &format!("the chart of amazon-vpc-cni-k8s has no such value{near}"));
    }

    /// Leaves a value and all below it, but not what is so anyway.
    fn leave_all(&mut self, path: &str, value: &Value, same: &[&str], why: &str) {
        match value {
            Value::Object(below) if !below.is_empty() => {
                below.iter().for_each(|(name, value)| self.leave_all(&format!("{path}.{name}"), value, same, why));
            }
            Value::Null => {}
            value if same.contains(&plain(value).as_str()) => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                self.leave(path, why);
            }
        }
    }

    fn leave(&mut self, path: &str, why: &str) {
        self.values.left.push(Left { path: path.to_owned(), why: why.to_owned() });
    }

    fn leave_unfit(&mut self) {
        for (name, is_unfit, why) in UNFIT {
            let text = self.values.environment.get(*name).filter(|_| self.in_env.iter().any(|one| one == name));
            if text.is_some_and(|text| is_unfit(text.trim())) {
                self.values.environment.remove(*name);
                self.leave(&format!("env.{name}"), why);
            }
        }
    }

    /// Probes ask the usual place of introspection; where it is another, there are none.
    fn leave_probes(&mut self) {
        let set = |name: &str| self.values.environment.get(name).map_or("", |text| text.trim());
        let is_off = !["", "false", "f", "0"].contains(&set("DISABLE_INTROSPECTION").to_ascii_lowercase().as_str());
        let is_elsewhere = !["", "127.0.0.1:61679"].contains(&set("INTROSPECTION_BIND_ADDRESS"));
        if !is_off && !is_elsewhere {
            return;
        }
        for probe in ["livenessProbe", "readinessProbe"] {
            if !self.values.carried.contains_key(probe) {
                self.values.carried.insert(probe.to_owned(), Value::Null);
                self.leave(probe, "there is none: introspection, which the chart's own probe asks, is off or elsewhere; give one of your own");
            }
        }
    }

    /// What of the environment our daemon reads goes on in `env`; what it does not read would only be warned of again.
    fn carry_environment(&mut self) {
        let is_ignored = |name: &str| IGNORED.iter().any(|ignored| ignored.name == name);
        let is_silent = |name: &str| super::ignored::SILENT.contains(&name);
        let names = self.in_env.iter().filter(|name| !is_ignored(name) && !is_silent(name));
        let env: Map<String, Value> =
            names.filter_map(|name| Some((name.clone(), self.values.environment.get(name)?.clone().into()))).collect();
        if !env.is_empty() {
            self.values.carried.insert("env".to_owned(), Value::Object(env));
        }
    }
}

/// The row of the nearest path above that has one.
fn above(path: &str) -> Option<(&'static [&'static str], &'static str)> {
    let mut path = path;
    while let Some((shorter, _)) = path.rsplit_once('.') {
        if let Some(Fate::Left(same, why)) = keys::find(shorter).map(|key| key.fate) {
            return Some((same, why));
        }
        path = shorter;
    }
    None
}

fn is_below(path: &str, group: &str) -> bool {
    path.strip_prefix(group).is_some_and(|rest| rest.starts_with('.'))
}

fn named(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn at<'a>(tree: &'a Map<String, Value>, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(tree.get(*first)?, |value, name| value.get(*name))
}

/// A value as it stands in an environment. Absent: it cannot.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A value as the table of keys writes it.
fn plain(value: &Value) -> String {
    text(value).unwrap_or_else(|| value.to_string())
}

fn carry(carried: &mut Map<String, Value>, path: &str, value: &Value) {
    let Some((first, rest)) = path.split_once('.') else {
        carried.insert(path.to_owned(), value.clone());
        return;
    };
    let below = carried.entry(first).or_insert_with(|| json!({}));
    if let Value::Object(below) = below {
        carry(below, rest, value);
    }
}

/// The table of values as a part of the settings' reference.
pub(super) fn as_markdown() -> String {
    let mut text = "| value | here |\n|---|---|\n| `env`, `extraEnv` | the settings above |\n".to_owned();
    for key in keys::KEYS {
        let here = match key.fate {
            Fate::Carried => "carried over".to_owned(),
            Fate::CarriedBut(_, why) => format!("carried over, but not with `exec`: {why}"),
            Fate::Left(_, why) => why.to_owned(),
        };
        text.push_str(&format!("| `{}` | {here} |\n", key.path));
    }
    text
}

#[cfg(test)]
mod tests;
