//! ADD, DEL and STATUS.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use eni_datapath::{Netns, PodWiring, add_pod, del_pod};
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
            format!("IPAM-106 {:?} is not built yet", request.verb),
            "Nothing was checked or changed. ADD, DEL, STATUS and VERSION work.",
        )),
    }
}

async fn add(config: &Config, attachment: &Attachment) -> Result<Value, CniError> {
    let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
    // Looked at before an address is asked for, so that a wrong path costs none.
    drop(Netns::open_other(netns).map_err(|error| error::netns(&error))?);
    let network = daemon::add(config, attachment, &netns.to_string_lossy()).await?;
    let wiring = PodWiring {
        key: attachment.key.clone(),
        pod: attachment.pod.clone(),
        network: network.clone(),
        netns: netns.to_owned(),
    };
    match add_pod(&wiring) {
        Ok(wired) => Ok(result::to_json(config.version, &attachment.key, netns, &network, &wired)),
        Err(error) => {
            let mut error = error::wiring(&error);
            if let Err(reason) = release(config, attachment).await {
                error.details.push_str(&format!(" The address could not be returned: {}", reason.msg));
            }
            Err(error)
        }
    }
}

/// First the kernel, so that nothing is left even when the daemon is away; then the lease.
async fn del(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let removed = del_pod(&config.veth_prefix, &attachment.key, &attachment.pod).map_err(|error| error::wiring(&error));
    release(config, attachment).await?;
    removed.map(drop)
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
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let note = ReleaseNote { key: attachment.key.clone(), at_milliseconds };
    std::fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!(".{}-{}", note.file_name(), std::process::id()));
    std::fs::write(&unfinished, note.to_string())?;
    std::fs::rename(&unfinished, folder.join(note.file_name()))
}
