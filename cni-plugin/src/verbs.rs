//! ADD, DEL and STATUS.
//!
//! Promises, each held by a test of its name in `tests/attach.rs`:
//! - `a_failed_add_leaves_nothing_and_returns_its_lease`
//! - `a_failed_repeat_never_takes_the_address_of_the_attachment_that_lives`
//! - `a_late_del_does_not_touch_a_newer_sandbox`

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use eni_datapath::{Netns, PodWiring, add_pod, del_pod, find_pod};
use eni_proto::ReleaseNote;
use serde_json::Value;

use crate::{
    daemon,
    error::{self, CniError, chain, code},
    request::{Attachment, Config, Request, Verb},
    result,
};

/// Does what was asked. Returns what goes to standard output, if anything.
pub(crate) async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let config = &request.config;
    match (request.verb, &request.attachment) {
        (Verb::Add, Some(attachment)) => add(config, attachment).await.map(Some),
        (Verb::Del, Some(attachment)) => del(config, attachment).await.map(|()| None),
        (Verb::Status, _) => daemon::status(config).await.map(|()| None),
        (Verb::Check | Verb::Gc | Verb::Add | Verb::Del, _) => Err(CniError::new(
            code::NOT_BUILT,
            format!("IPAM-106 {} is not built yet", request.verb.as_str()),
            "Nothing was checked or changed. ADD, DEL, STATUS and VERSION work.",
        )),
    }
}

async fn add(config: &Config, attachment: &Attachment) -> Result<Value, CniError> {
    let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
    // Looked at before an address is asked for, so that a wrong path costs none.
    drop(Netns::open_other(netns).map_err(|error| error::netns(&error))?);
    // A note of an earlier DEL would end the lease that this ADD is about to get: a runtime may start a sandbox again.
    let _ = std::fs::remove_file(config.released_dir.join(note(attachment).file_name()));
    let network = match daemon::add(config, attachment, &netns.to_string_lossy()).await {
        Ok(network) => network,
        Err(none) if none.may_be_leased => {
            return Err(given_back(config, attachment, none.error).await);
        }
        Err(none) => return Err(none.error),
    };
    let wiring = PodWiring {
        key: attachment.key.clone(),
        pod: attachment.pod.clone(),
        network: network.clone(),
        netns: netns.to_owned(),
    };
    match add_pod(&wiring) {
        Ok(wired) => Ok(result::to_json(config.version, &attachment.key, netns, &network, &wired)),
        Err(error) => Err(given_back(config, attachment, error::wiring(&error)).await),
    }
}

/// Returns the lease of an ADD that failed with `error`, and the error with what became of the lease.
///
/// The same key may be wired already, by an earlier ADD: then the address is in use, and stays.
async fn given_back(config: &Config, attachment: &Attachment, mut error: CniError) -> CniError {
    let fate = match find_pod(&attachment.key).map(|link| link.and_then(|link| link.alias)) {
        Ok(Some(_)) => "The attachment that an earlier ADD made lives on and keeps its address.".to_owned(),
        Ok(None) => match release(config, attachment).await {
            Ok(()) => "The address was returned.".to_owned(),
            Err(reason) => format!("The address could not be returned: {}", reason.msg),
        },
        Err(reason) => format!("The address stays held until DEL: {}.", chain(&reason)),
    };
    error.details = format!("{} {fate}", error.details);
    error
}

/// First the kernel, then the lease: an address that the kernel still leads to a pod may not be given to another.
async fn del(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let netns = attachment.netns.as_deref();
    let removed = del_pod(&config.veth_prefix, &attachment.key, &attachment.pod, netns);
    removed.map_err(|error| error::not_removed(&error))?;
    release(config, attachment).await
}

/// Returns the lease, or leaves a note for a daemon that is away.
async fn release(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let Err(reason) = daemon::del(config, attachment).await else { return Ok(()) };
    leave_note(&config.released_dir, attachment).map_err(|error| {
        CniError::new(
            code::NOT_RELEASED,
            format!(
                "IPAM-107 the address of {} could not be released: ipamd is away ({reason}), and no note can be left in {}: {}",
                attachment.key,
                config.released_dir.display(),
                chain(&error),
            ),
            "The pod's interface is gone; its address stays held until a DEL gets through. The runtime will try again.",
        )
    })
}

/// Writes the note under another name first, so that the daemon never reads half of it.
fn leave_note(folder: &Path, attachment: &Attachment) -> std::io::Result<()> {
    let note = note(attachment);
    std::fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".{}-{}", note.file_name(), std::process::id()));
    std::fs::write(&unfinished, note.to_string())?;
    std::fs::rename(&unfinished, folder.join(note.file_name()))
}

/// The note that the attachment ended now.
fn note(attachment: &Attachment) -> ReleaseNote {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    ReleaseNote { key: attachment.key.clone(), at_milliseconds }
}
