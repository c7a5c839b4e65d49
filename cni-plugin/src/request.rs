//! What the runtime asks: environment and standard input, checked as a whole. All mistakes come back together.

mod attachments;
mod config;
mod previous;
mod sandbox;
#[cfg(test)]
mod tests;

use std::{ffi::OsString, path::PathBuf};

use eni_proto::{Pod, PodKey};
use serde_json::{Map, Value};

pub(crate) use config::{Config, PolicyAgent};
pub(crate) use previous::{End, Previous};

use crate::error::{CniError, code};

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

/// One attachment of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) key: PodKey,
    pub(crate) pod: Pod,
    /// Absent when the runtime gave none, which only DEL allows.
    pub(crate) netns: Option<PathBuf>,
    /// Whether the pod wants an interface on each network card.
    pub(crate) multi_nic: bool,
}

impl Attachment {
    /// Whether it is what Kubernetes calls the pod's network, and not one beside it.
    pub(crate) fn is_of_a_pod(&self) -> bool {
        self.key.interface() == "eth0" && !self.pod.namespace.is_empty() && !self.pod.name.is_empty()
    }
}

/// A request that is well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) config: Config,
    pub(crate) task: Task,
}

/// What is to be done, with all that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Task {
    Add(Attachment),
    Del(Attachment),
    /// Compare with what ADD reported: of the attachment first, then of each interface that came with it.
    Check(Attachment, Vec<(PodKey, Previous)>),
    /// End all attachments of the network but these. Absent: the runtime gave no list, which is no reason to end one.
    Gc(Option<Vec<PodKey>>),
    Status,
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
    let object = decode(stdin, &mut mistakes);
    let sandbox = sandbox::read(verb, &environment, object.as_ref(), &mut mistakes);
    let config = object.as_ref().and_then(|object| config::read(verb, object, &mut mistakes));
    let task = match (&object, &config) {
        (Some(object), Some(config)) => task(verb, config, sandbox, object, &mut mistakes),
        _ => None,
    };
    match (config, task, mistakes.finish()) {
        (_, _, Err(error)) => Err(error),
        (Some(config), Some(task), Ok(())) => Ok(Request { config, task }),
        _ => Err(CniError::new(code::INVALID_CONFIG, "the request is not complete", "Nothing was changed.")),
    }
}

fn decode(stdin: &[u8], mistakes: &mut Mistakes) -> Option<Map<String, Value>> {
    let why = match serde_json::from_slice(stdin) {
        Ok(Value::Object(object)) => return Some(object),
        Ok(_) => "is not a JSON object".to_owned(),
        Err(_) if stdin.is_empty() => "cannot be read: it is empty".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    mistakes.add(code::UNDECODABLE, format!("the network configuration on standard input {why}"));
    None
}

fn task(
    verb: Verb,
    config: &Config,
    sandbox: Option<sandbox::Sandbox>,
    object: &Map<String, Value>,
    mistakes: &mut Mistakes,
) -> Option<Task> {
    let attachment = sandbox.map(|sandbox| sandbox.of_network(&config.name));
    match verb {
        Verb::Add => attachment?.ok().map(Task::Add),
        Verb::Del => attachment?.ok().map(Task::Del),
        Verb::Status => Some(Task::Status),
        Verb::Gc => attachments::read(object, &config.name, mistakes).map(Task::Gc),
        Verb::Check => {
            let attachment = attachment?.ok()?;
            let (reported, key) = (object.get("prevResult"), &attachment.key);
            let parts = previous::read(reported, key.interface()).and_then(|own| {
                let further = previous::read_further(reported, key)?;
                Ok([vec![(key.clone(), own)], further].concat())
            });
            parts
                .map_err(|why| mistakes.add(code::INVALID_CONFIG, why))
                .ok()
                .map(|parts| Task::Check(attachment, parts))
        }
    }
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
