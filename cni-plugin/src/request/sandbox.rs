//! The environment: which sandbox, which interface, which pod.

use std::{ffi::OsString, path::PathBuf};

use eni_proto::{InvalidKey, Pod, PodKey, numbers};
use serde_json::{Map, Value};

use super::{Attachment, Mistakes, Verb};
use crate::error::code;

/// The annotation by which a pod asks for interfaces, and the only value that has a meaning; both are the AWS CNI's.
const NIC_CONFIG: &str = "k8s.amazonaws.com/nicConfig";
const MULTI_NIC: &str = "multi-nic-attachment";

/// What the environment says of a sandbox, each part checked for itself.
pub(super) struct Sandbox {
    container_id: String,
    interface: String,
    netns: Option<PathBuf>,
    pod: Pod,
    multi_nic: bool,
}

impl Sandbox {
    pub(super) fn of_network(self, network: &str) -> Result<Attachment, InvalidKey> {
        let key = PodKey::new(network, &self.container_id, &self.interface)?;
        Ok(Attachment { key, pod: self.pod, netns: self.netns, multi_nic: self.multi_nic })
    }
}

/// Reads the environment. Nothing for GC and STATUS, which concern no sandbox, and when it has mistakes.
pub(super) fn read(
    verb: Verb,
    environment: &impl Fn(&str) -> Option<OsString>,
    config: Option<&Map<String, Value>>,
    mistakes: &mut Mistakes,
) -> Option<Sandbox> {
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
    let arguments = Arguments { text: arguments.unwrap_or_default(), config };
    if verb == Verb::Add {
        arguments.refuse_wishes(mistakes);
    }
    let (pod, multi_nic) = (arguments.pod(), arguments.annotation(NIC_CONFIG) == Some(MULTI_NIC));
    Some(Sandbox {
        container_id: container_id?,
        interface: interface?,
        netns: netns.map(PathBuf::from),
        pod,
        multi_nic,
    })
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

/// `CNI_ARGS` (`KEY=VALUE;KEY=VALUE` in any order), and `args.cni` of the configuration, which counts more.
///
/// Keys that we do not know are somebody else's. Source: CNI conventions, dynamic plugin specific fields.
struct Arguments<'a> {
    text: String,
    config: Option<&'a Map<String, Value>>,
}

impl Arguments<'_> {
    fn value(&self, wanted: &str) -> Option<String> {
        let in_config = self.config.and_then(|config| config.get("args")?.get("cni")?.get(wanted)?.as_str());
        let mut pairs = self.text.split(';').filter_map(|pair| pair.split_once('='));
        let in_text = || pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value);
        in_config.or_else(in_text).map(str::to_owned)
    }

    fn pod(&self) -> Pod {
        let value = |wanted| self.value(wanted).unwrap_or_default();
        Pod { namespace: value("K8S_POD_NAMESPACE"), name: value("K8S_POD_NAME"), uid: value("K8S_POD_UID") }
    }

    /// One of the pod's annotations, which a runtime tells that was asked to by the configuration's `capabilities`.
    fn annotation(&self, name: &str) -> Option<&str> {
        self.config?.get("runtimeConfig")?.get(numbers::ANNOTATIONS_CAPABILITY)?.get(name)?.as_str()
    }

    /// An address that somebody chose cannot be given; giving another without a word would be worse than to refuse.
    fn refuse_wishes(&self, mistakes: &mut Mistakes) {
        let mut refuse = |key: &str, value: String| {
            let text = format!(
                "`{key}` is {value}: eni-cni gives the addresses that EC2 assigned to this node, none by choice"
            );
            mistakes.add(code::UNSUPPORTED_FIELD, text);
        };
        for key in ["IP", "MAC"] {
            if let Some(value) = self.value(key).filter(|value| !value.is_empty()) {
                refuse(&format!("CNI_ARGS {key}"), value);
            }
        }
        let config = self.config;
        let arguments = config.and_then(|config| config.get("args")?.get("cni")?.as_object());
        let runtime = config.and_then(|config| config.get("runtimeConfig")?.as_object());
        for (place, object) in [("args.cni", arguments), ("runtimeConfig", runtime)] {
            // containerd writes the keys as Go spells its fields: `IPs` or `Mac`.
            let wishes = object
                .into_iter()
                .flatten()
                .filter(|(key, _)| ["ips", "mac"].contains(&key.to_ascii_lowercase().as_str()));
            for (key, value) in wishes.filter(|(_, value)| !is_empty(value)) {
                refuse(&format!("{place}.{key}"), value.to_string());
            }
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
