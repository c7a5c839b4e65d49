//! What the runtime asks: environment and standard input, checked as a whole. All mistakes come back together.

use std::{ffi::OsString, path::PathBuf};

use eni_proto::{InvalidKey, Pod, PodKey, VethPrefix, numbers};
use serde_json::{Map, Value};

use crate::{
    error::{CniError, code},
    version::Version,
};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
}

impl Verb {
    /// The verb as CNI_COMMAND spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

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
}

/// One attachment of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) key: PodKey,
    pub(crate) pod: Pod,
    /// Absent when the runtime gave none, which only DEL allows.
    pub(crate) netns: Option<PathBuf>,
}

/// A request that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) verb: Verb,
    pub(crate) config: Config,
    /// Absent for GC and STATUS, which concern no attachment.
    pub(crate) attachment: Option<Attachment>,
}

/// Reads the verb. `VERSION` is not among them: it needs nothing else to be right.
pub(crate) fn verb(command: &str) -> Result<Verb, CniError> {
    match command {
        "ADD" => Ok(Verb::Add),
        "DEL" => Ok(Verb::Del),
        "CHECK" => Ok(Verb::Check),
        "GC" => Ok(Verb::Gc),
        "STATUS" => Ok(Verb::Status),
        other => Err(CniError::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_COMMAND `{other}` is unknown"),
            "It is one of ADD, DEL, CHECK, GC, STATUS and VERSION, in capitals.",
        )),
    }
}

/// Checks the whole request.
///
/// # Errors
/// All mistakes in one error object; its code is that of the first.
pub(crate) fn read(
    verb: Verb,
    environment: impl Fn(&str) -> Option<OsString>,
    stdin: &[u8],
) -> Result<Request, CniError> {
    let mut mistakes = Mistakes::default();
    let sandbox = sandbox(verb, &environment, &mut mistakes);
    let config = config(verb, stdin, &mut mistakes);
    mistakes.finish()?;
    // Without mistakes there is a configuration, and its name makes a key with what the sandbox says.
    let config = config.ok_or_else(|| CniError::new(code::INVALID_CONFIG, "no configuration", ""))?;
    let attachment = sandbox.map(|sandbox| sandbox.of_network(&config.name)).transpose();
    let attachment = attachment.map_err(|error| CniError::new(code::INVALID_CONFIG, error.to_string(), ""))?;
    Ok(Request { verb, config, attachment })
}

#[derive(Default)]
struct Mistakes {
    code: Option<u32>,
    texts: Vec<String>,
}

impl Mistakes {
    fn add(&mut self, code: u32, text: impl Into<String>) {
        self.code.get_or_insert(code);
        self.texts.push(text.into());
    }

    fn finish(self) -> Result<(), CniError> {
        match self.code {
            None => Ok(()),
            Some(code) => Err(CniError::new(code, self.texts.join("; "), "Nothing was changed.")),
        }
    }
}

/// What the environment says of a sandbox, each part checked for itself.
struct Sandbox {
    container_id: String,
    interface: String,
    netns: Option<PathBuf>,
    pod: Pod,
}

impl Sandbox {
    fn of_network(self, network: &str) -> Result<Attachment, InvalidKey> {
        let key = PodKey::new(network, &self.container_id, &self.interface)?;
        Ok(Attachment { key, pod: self.pod, netns: self.netns })
    }
}

/// Reads the environment. Nothing for GC and STATUS, which concern no sandbox, and when it has mistakes.
fn sandbox(verb: Verb, environment: &impl Fn(&str) -> Option<OsString>, mistakes: &mut Mistakes) -> Option<Sandbox> {
    // Source: CNI specification 1.1.0, parameters. A DEL must work when the namespace has gone.
    let netns_is_needed = match verb {
        Verb::Add | Verb::Check => true,
        Verb::Del => false,
        Verb::Gc | Verb::Status => return None,
    };
    let mut given = |name: &str| text(environment(name)?, name, mistakes);
    let (container_id, interface) = (given("CNI_CONTAINERID"), given("CNI_IFNAME"));
    let (netns, arguments) = (given("CNI_NETNS"), given("CNI_ARGS"));
    let needed = [
        ("CNI_CONTAINERID", container_id.is_none()),
        ("CNI_NETNS", netns_is_needed && netns.is_none()),
        ("CNI_IFNAME", interface.is_none()),
    ];
    let missing: Vec<_> = needed.iter().filter(|(_, missing)| *missing).map(|(name, _)| *name).collect();
    if !missing.is_empty() {
        let text = format!("required environment variables are not set: {}", missing.join(", "));
        mistakes.add(code::INVALID_ENVIRONMENT, text);
    }
    // Each part is checked with harmless others, so that a wrong one does not hide the next.
    let checks = [
        container_id.as_deref().map(|id| ("CNI_CONTAINERID", PodKey::new("x", id, "x"))),
        interface.as_deref().map(|name| ("CNI_IFNAME", PodKey::new("x", "x", name))),
    ];
    for (name, check) in checks.into_iter().flatten() {
        if let Err(error) = check {
            mistakes.add(code::INVALID_ENVIRONMENT, format!("{name}: {error}"));
        }
    }
    let pod = pod(&arguments.unwrap_or_default());
    Some(Sandbox { container_id: container_id?, interface: interface?, netns: netns.map(PathBuf::from), pod })
}

/// A variable's text; nothing when it is empty, which means the same as unset.
fn text(value: OsString, name: &str, mistakes: &mut Mistakes) -> Option<String> {
    match value.into_string() {
        Ok(text) => Some(text).filter(|text| !text.is_empty()),
        Err(bytes) => {
            let readable = bytes.to_string_lossy().into_owned();
            mistakes.add(code::INVALID_ENVIRONMENT, format!("{name} is not UTF-8: {readable}"));
            Some(readable)
        }
    }
}

/// Reads the pod from `CNI_ARGS` (`KEY=VALUE;KEY=VALUE` in any order). Keys that we do not know are somebody else's.
fn pod(arguments: &str) -> Pod {
    let value = |wanted: &str| {
        let mut pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| key.trim() == wanted).map_or(String::new(), |(_, value)| value.to_owned())
    };
    Pod { namespace: value("K8S_POD_NAMESPACE"), name: value("K8S_POD_NAME"), uid: value("K8S_POD_UID") }
}

fn config(verb: Verb, stdin: &[u8], mistakes: &mut Mistakes) -> Option<Config> {
    let object = match serde_json::from_slice(stdin) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            mistakes.add(code::UNDECODABLE, "the network configuration on standard input is not a JSON object");
            return None;
        }
        Err(error) => {
            let why = if stdin.is_empty() { "it is empty".to_owned() } else { error.to_string() };
            mistakes
                .add(code::UNDECODABLE, format!("the network configuration on standard input cannot be read: {why}"));
            return None;
        }
    };
    let version = version(&object, verb, mistakes);
    let mut fields = Fields { object: &object, mistakes };
    let name = fields.name();
    let socket = fields.path("socket", numbers::DEFAULT_SOCKET);
    let released_dir = PathBuf::from(fields.path("releasedDir", numbers::DEFAULT_RELEASED_DIR));
    // A DEL fails for nothing that it does not need: the runtime would keep the pod until somebody mends the file.
    let add_wait_seconds = match verb {
        Verb::Add => fields.seconds("addWaitSeconds", numbers::DEFAULT_ADD_WAIT_SECONDS),
        Verb::Del | Verb::Check | Verb::Gc | Verb::Status => numbers::DEFAULT_ADD_WAIT_SECONDS,
    };
    let veth_prefix = fields.prefix();
    if verb == Verb::Add && !object.get("prevResult").is_none_or(Value::is_null) {
        mistakes.add(code::INVALID_CONFIG, "`prevResult` is set: eni-cni has to be the first plugin of its list");
    }
    Some(Config { version: version?, name, socket, released_dir, add_wait_seconds, veth_prefix })
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
        Verb::Add | Verb::Del => Version::V0_3_0,
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

    fn name(&mut self) -> String {
        let value = self.value("name").unwrap_or(Value::Null);
        // The same rule as for a container id, so a key made of it is well-formed.
        match value.as_str().filter(|name| PodKey::new(name, "x", "x").is_ok()) {
            Some(name) => name.to_owned(),
            None => {
                self.wrong("name", &value, "give a network name that matches [A-Za-z0-9][A-Za-z0-9_.-]*");
                String::new()
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

#[cfg(test)]
mod tests;
