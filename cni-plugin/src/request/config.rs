//! The network configuration on standard input.

use std::path::PathBuf;

use eni_proto::{PodKey, VethPrefix, numbers, policy::Mode};
use serde_json::{Map, Value};

use super::{Mistakes, Verb};
use crate::{error::code, version::Version};

/// The network configuration, as far as we use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) version: Version,
    pub(crate) name: String,
    /// `socket`: where ipamd listens.
    pub(crate) socket: String,
    /// `releasedDir`: where a DEL that finds no daemon leaves its note.
    pub(crate) released_dir: PathBuf,
    /// `addWaitSeconds`: how long an ADD waits for an address that is on its way.
    pub(crate) add_wait_seconds: u32,
    /// `vethPrefix`: first characters of host interfaces' names; must be the daemon's.
    pub(crate) veth_prefix: VethPrefix,
    /// `policyAgent`: who puts network policies into effect. Absent: nobody is told of pods.
    pub(crate) policy_agent: Option<PolicyAgent>,
}

/// How the network-policy agent is told of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyAgent {
    /// `socket`: where it listens.
    pub(crate) socket: String,
    /// `mode`: what a pod may do until its policies are in place.
    pub(crate) mode: Mode,
}

pub(super) fn read(verb: Verb, object: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<Config> {
    let version = version(object, verb, mistakes);
    let mut fields = Fields { object, mistakes };
    let name = fields.name();
    let socket = fields.path("socket", numbers::DEFAULT_SOCKET);
    let released_dir = PathBuf::from(fields.path("releasedDir", numbers::DEFAULT_RELEASED_DIR));
    // A DEL fails for nothing that it does not need: the runtime would keep the pod until somebody mends the file.
    let (add_wait_seconds, veth_prefix) = match verb {
        Verb::Add => (fields.seconds("addWaitSeconds", numbers::DEFAULT_ADD_WAIT_SECONDS), fields.prefix()),
        Verb::Del | Verb::Check | Verb::Gc | Verb::Status => {
            let prefix = object.get("vethPrefix").and_then(|value| value.as_str()?.parse().ok());
            (numbers::DEFAULT_ADD_WAIT_SECONDS, prefix.unwrap_or_default())
        }
    };
    let policy_agent = object.get("policyAgent").filter(|value| !value.is_null()).and_then(|value| {
        let agent = policy_agent(value);
        if agent.is_none() && verb == Verb::Add {
            let advice = "give {\"socket\": an absolute path, \"mode\": \"standard\" or \"strict\"}";
            mistakes.add(code::INVALID_CONFIG, format!("`policyAgent` is {value}: {advice}"));
        }
        agent
    });
    if verb == Verb::Add && !object.get("prevResult").is_none_or(Value::is_null) {
        mistakes.add(code::INVALID_CONFIG, "`prevResult` is set: eni-cni has to be the first plugin of its list");
    }
    Some(Config { version: version?, name: name?, socket, released_dir, add_wait_seconds, veth_prefix, policy_agent })
}

fn policy_agent(value: &Value) -> Option<PolicyAgent> {
    let socket = value["socket"].as_str().filter(|path| path.starts_with('/'))?;
    Some(PolicyAgent { socket: socket.to_owned(), mode: Mode::read(value["mode"].as_str()?)? })
}

fn version(object: &Map<String, Value>, verb: Verb, mistakes: &mut Mistakes) -> Option<Version> {
    let text = match object.get("cniVersion") {
        None | Some(Value::Null) => "0.1.0",
        Some(Value::String(text)) if text.is_empty() => "0.1.0",
        Some(Value::String(text)) => text,
        Some(other) => {
            mistakes.add(code::INVALID_CONFIG, format!("`cniVersion` is {other}: give a text like \"1.0.0\""));
            return None;
        }
    };
    let least = match verb {
        Verb::Add | Verb::Del => Version::V0_1_0,
        Verb::Check => Version::V0_4_0,
        Verb::Gc | Verb::Status => Version::V1_1_0,
    };
    match text.parse::<Version>() {
        Ok(version) if version >= least => Some(version),
        Ok(_) => {
            mistakes.add(
                code::INCOMPATIBLE_VERSION,
                format!("config version {text} does not allow {}: it came with {}", verb.as_str(), least.as_str()),
            );
            None
        }
        Err(()) => {
            let supported = Version::supported().join(", ");
            mistakes.add(
                code::INCOMPATIBLE_VERSION,
                format!("config version {text} is not supported: this plugin speaks {supported}"),
            );
            None
        }
    }
}

struct Fields<'a> {
    object: &'a Map<String, Value>,
    mistakes: &'a mut Mistakes,
}

impl Fields<'_> {
    fn wrong(&mut self, key: &str, value: &Value, advice: impl std::fmt::Display) {
        self.mistakes.add(code::INVALID_CONFIG, format!("`{key}` is {value}: {advice}"));
    }

    fn value(&self, key: &str) -> Option<Value> {
        self.object.get(key).filter(|value| !value.is_null()).cloned()
    }

    fn name(&mut self) -> Option<String> {
        let value = self.value("name").unwrap_or(Value::Null);
        // The same rule as for a container id, so a key made of it is well-formed.
        match value.as_str().filter(|name| PodKey::new(name, "x", "x").is_ok()) {
            Some(name) => Some(name.to_owned()),
            None => {
                self.wrong("name", &value, "give a network name that matches [A-Za-z0-9][A-Za-z0-9_.-]*");
                None
            }
        }
    }

    fn path(&mut self, key: &str, default: &str) -> String {
        let Some(value) = self.value(key) else { return default.to_owned() };
        match value.as_str().filter(|path| path.starts_with('/')) {
            Some(path) => path.to_owned(),
            None => {
                self.wrong(key, &value, "give an absolute path");
                default.to_owned()
            }
        }
    }

    fn seconds(&mut self, key: &str, default: u32) -> u32 {
        let Some(value) = self.value(key) else { return default };
        match value.as_u64().and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds <= 200) {
            Some(seconds) => seconds,
            None => {
                self.wrong(key, &value, "give whole seconds in 0..=200");
                default
            }
        }
    }

    fn prefix(&mut self) -> VethPrefix {
        let Some(value) = self.value("vethPrefix") else { return VethPrefix::default() };
        match value.as_str().unwrap_or_default().parse() {
            Ok(prefix) => prefix,
            Err(why) => {
                self.wrong("vethPrefix", &value, why);
                VethPrefix::default()
            }
        }
    }
}
