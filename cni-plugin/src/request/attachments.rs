//! `cni.dev/valid-attachments`: what GC has to keep.

use eni_proto::PodKey;
use serde_json::{Map, Value};

use super::Mistakes;
use crate::error::code;

/// The list's key, and the one that runtimes used before; both mean the same.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// Returns the attachments of `network` that are valid; inside, nothing when no list is given.
///
/// One entry that cannot be read is a mistake, for we would end what the runtime wants to keep.
pub(super) fn read(object: &Map<String, Value>, network: &str, mistakes: &mut Mistakes) -> Option<Option<Vec<PodKey>>> {
    let Some((key, value)) = KEYS.iter().find_map(|key| Some((key, object.get(*key).filter(|v| !v.is_null())?))) else {
        return Some(None);
    };
    let Some(entries) = value.as_array() else {
        mistakes.add(code::INVALID_CONFIG, format!("`{key}` is {value}: give a list of {{containerID, ifname}}"));
        return None;
    };
    let read = |entry: &Value| {
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        PodKey::new(network, text("containerID"), text("ifname"))
    };
    let mut valid = Vec::with_capacity(entries.len());
    for entry in entries {
        match read(entry) {
            Ok(key) => valid.push(key),
            Err(why) => mistakes.add(code::INVALID_CONFIG, format!("`{key}` has {entry}: {why}")),
        }
    }
    (valid.len() == entries.len()).then_some(Some(valid))
}
