//! What real runtimes sent, one file each, with the test's own sandbox, socket and folder put in.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{Answer, Node};

/// One request of a runtime.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub name: String,
    pub environment: BTreeMap<String, String>,
    pub stdin: Value,
}

/// All recorded requests, sorted by name.
pub fn recorded() -> Vec<Recorded> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"));
    let mut all: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| read(&entry.unwrap().path())).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn read(path: &Path) -> Recorded {
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let environment = file["environment"].as_object().unwrap().iter();
    Recorded {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        environment: environment.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
        stdin: file["stdin"].clone(),
    }
}

impl Recorded {
    pub fn verb(&self) -> &str {
        &self.environment["CNI_COMMAND"]
    }

    /// The same with this test's socket and folder, and its sandbox where the runtime named one.
    pub fn on(&self, node: &Node, netns: &str) -> Self {
        let mut own = self.clone();
        let places = node.config();
        for key in ["socket", "releasedDir"] {
            own.stdin[key] = places[key].clone();
        }
        if let Some(path) = own.environment.get_mut("CNI_NETNS").filter(|path| path.starts_with('/')) {
            netns.clone_into(path);
        }
        own
    }

    pub fn verb_is(&self, verb: &str) -> Self {
        let mut own = self.clone();
        own.environment.insert("CNI_COMMAND".into(), verb.into());
        own
    }

    pub fn run(&self, node: &Node) -> Answer {
        let environment: Vec<_> = self.environment.clone().into_iter().collect();
        super::run(&node.netns, &environment, &self.stdin.to_string())
    }
}
