//! The objects, their versions, and how patches change them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// What happened to an object.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) object: Value,
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<String, Value>,
    changes: Vec<Change>,
    pub(crate) version: u64,
    /// Watches cannot begin before this.
    pub(crate) oldest: u64,
}

/// Why a patch was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unpatched {
    NotFound,
    Conflict,
}

impl Store {
    pub(crate) fn get(&self, path: &str) -> Option<&Value> {
        self.objects.get(path)
    }

    pub(crate) fn all<'a>(&'a self, begins: &'a str) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.objects.iter().filter(move |(path, _)| path.starts_with(begins))
    }

    /// What happened after a version to what a collection holds, oldest first.
    pub(crate) fn since(&self, version: u64, collection: &str) -> Vec<Change> {
        let in_it = |path: &str| path.rsplit_once('/').is_some_and(|(folder, _)| folder == collection);
        self.changes.iter().filter(|change| change.version > version && in_it(&change.path)).cloned().collect()
    }

    pub(crate) fn put(&mut self, path: &str, mut object: Value) {
        self.version += 1;
        let before = self.objects.get(path);
        let uid = before.and_then(|before| before.pointer("/metadata/uid").cloned());
        let uid = uid.unwrap_or_else(|| json!(format!("00000000-0000-4000-8000-{:012}", self.version)));
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(metadata) = fields(&mut object, "metadata") {
            metadata.insert("resourceVersion".to_owned(), json!(self.version.to_string()));
            metadata.entry("uid").or_insert(uid);
            metadata.entry("name").or_insert_with(|| json!(name));
        }
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.changes.push(Change { version: self.version, path: path.to_owned(), kind, object: object.clone() });
        self.objects.insert(path.to_owned(), object);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        let Some(object) = self.objects.remove(path) else { return };
        self.version += 1;
        self.changes.push(Change { version: self.version, path: path.to_owned(), kind: "DELETED", object });
    }

    pub(crate) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.changes.clear();
    }

    /// Applies a merge patch, or a strategic one, to the object at a path; of the status only where `status`.
    pub(crate) fn patch(&mut self, path: &str, patch: &Value, strategic: bool) -> Result<Value, Unpatched> {
        let mut object = self.objects.get(path).cloned().ok_or(Unpatched::NotFound)?;
        for field in ["resourceVersion", "uid"] {
            let demanded = patch.pointer(&format!("/metadata/{field}"));
            if demanded.is_some_and(|demanded| object.pointer(&format!("/metadata/{field}")) != Some(demanded)) {
                return Err(Unpatched::Conflict);
            }
        }
        merge(&mut object, patch, strategic);
        self.put(path, object);
        self.objects.get(path).cloned().ok_or(Unpatched::NotFound)
    }
}

/// The fields of an inner object, which is made if there is none.
fn fields<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    if !object.is_object() {
        *object = json!({});
    }
    let inner = &mut object[name];
    if !inner.is_object() {
        *inner = json!({});
    }
    inner.as_object_mut()
}

fn merge(target: &mut Value, patch: &Value, strategic: bool) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        match (value, name.as_str(), strategic) {
            (Value::Null, ..) => {
                if let Value::Object(map) = target {
                    map.shift_remove(name);
                }
            }
            (Value::Array(new), "conditions", true) => merge_conditions(&mut target[name], new),
            _ => merge(&mut target[name], value, strategic),
        }
    }
}

/// Conditions are merged by their type.
fn merge_conditions(target: &mut Value, new: &[Value]) {
    if !target.is_array() {
        *target = json!([]);
    }
    let Value::Array(known) = target else { return };
    for condition in new {
        match known.iter_mut().find(|known| known["type"] == condition["type"]) {
            Some(known) => merge(known, condition, true),
            None => known.push(condition.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_nothing_else() {
        let mut store = Store::default();
        store.put(
            "/a/x",
            json!({"spec": {"a": 1, "b": 2}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        let patch = json!({"spec": {"a": null}, "status": {"conditions": [{"type": "Mine", "status": "False"}]}});
        let object = store.patch("/a/x", &patch, true).unwrap();
        assert_eq!(object["spec"], json!({"b": 2}));
        assert_eq!(object["status"]["conditions"].as_array().unwrap().len(), 2);
        assert_eq!(store.patch("/a/y", &patch, true), Err(Unpatched::NotFound));
    }

    #[test]
    fn a_patch_of_an_older_version_or_another_uid_is_a_conflict() {
        let mut store = Store::default();
        store.put("/a/x", json!({}));
        let version = store.get("/a/x").unwrap()["metadata"]["resourceVersion"].clone();
        let patch = json!({"metadata": {"resourceVersion": version, "labels": {"a": "b"}}});
        assert!(store.patch("/a/x", &patch, false).is_ok());
        assert_eq!(store.patch("/a/x", &patch, false), Err(Unpatched::Conflict));
        assert_eq!(store.patch("/a/x", &json!({"metadata": {"uid": "other"}}), false), Err(Unpatched::Conflict));
    }
}
