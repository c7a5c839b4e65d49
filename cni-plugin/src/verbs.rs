//! ADD, DEL and STATUS; CHECK and GC have files of their own.
//!
//! Promises, each held by a test of its name in `tests/attach.rs`:
//! - `a_failed_add_leaves_nothing_and_returns_its_lease`
//! - `a_failed_repeat_never_takes_the_address_of_the_attachment_that_lives`
//! - `a_late_del_does_not_touch_a_newer_sandbox`

mod check;
mod gc;

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use eni_datapath::{
    Netns, PodWiring, WireError, add_branch_pod, add_pod, del_branch_pod, del_pod, end_pod, find_pod, further_pods,
    impairment, is_replaced, remove_ended,
};
use eni_proto::{PodKey, ReleaseNote, policy::Mode};
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    unistd::linkat,
};
use serde_json::Value;

use crate::{
    daemon::{self, Granted},
    error::{self, CniError, chain, code},
    policy, report,
    request::{Attachment, Config, Request, Task},
    result,
};

/// Does what was asked. Returns what goes to standard output, if anything.
pub(crate) async fn run(request: &Request) -> Result<Option<Value>, CniError> {
    let config = &request.config;
    match &request.task {
        Task::Add(attachment) => add(config, attachment).await.map(Some),
        Task::Del(attachment) => del(config, attachment).await.map(|()| None),
        Task::Check(attachment, parts) => check::check(config, attachment, parts).await.map(|()| None),
        Task::Gc(valid) => gc::gc(config, valid.as_deref()).await.map(|()| None),
        Task::Status => status(config).await.map(|()| None),
    }
}

async fn add(config: &Config, attachment: &Attachment) -> Result<Value, CniError> {
    let netns = attachment.netns.as_deref().unwrap_or(Path::new(""));
    // Looked at before an address is asked for, so that a wrong path costs none.
    drop(Netns::open_other(netns).map_err(|error| error::netns(&error))?);
    // A note of an earlier DEL would end the lease that this ADD is about to get: a runtime may start a sandbox again.
    let _ = std::fs::remove_file(config.released_dir.join(note(&attachment.key).file_name()));
    let granted = match daemon::add(config, attachment, &netns.to_string_lossy()).await {
        Ok(granted) => granted,
        Err(none) if none.may_be_leased => {
            return Err(given_back(config, attachment, none.error).await);
        }
        Err(none) => return Err(none.error),
    };
    let lived = may_be_taken_back(config) && find_pod(&attachment.key).is_ok_and(|link| link.is_some());
    let wired = report::wiring(|| wire(config, attachment, netns, &granted)).map_err(|error| error::wiring(&error));
    let protected = match wired {
        Ok(results) => protect(config, attachment, results.len()).await.map(|()| results).inspect_err(|_| {
            let made = granted.interfaces.iter().take(if lived { 0 } else { granted.interfaces.len() }).rev();
            for (key, _) in made {
                // The error that led here is the one to report; what stays of this its DEL removes.
                let _ = take_back(config, attachment, key, granted.branch.is_some());
            }
        }),
        Err(error) => Err(error),
    };
    match protected {
        Ok(results) => Ok(result::join(results)),
        Err(error) => Err(given_back(config, attachment, error).await),
    }
}

/// Whether a pod that is wired may be refused all the same.
fn may_be_taken_back(config: &Config) -> bool {
    config.policy_agent.as_ref().is_some_and(|agent| agent.mode == Mode::Strict)
}

/// Network policies hold for the pod from here on, as far as its node's mode asks for.
async fn protect(config: &Config, attachment: &Attachment, interfaces: usize) -> Result<(), CniError> {
    match config.policy_agent.as_ref().filter(|_| attachment.is_of_a_pod()) {
        Some(agent) => policy::enforce(agent, &attachment.pod, interfaces).await,
        None => Ok(()),
    }
}

fn take_back(config: &Config, attachment: &Attachment, key: &PodKey, is_branch: bool) -> Result<(), WireError> {
    if is_branch && *key == attachment.key {
        del_branch_pod(&config.veth_prefix, key, &attachment.pod)?;
    }
    del_pod(&config.veth_prefix, key, &attachment.pod, attachment.netns.as_deref()).map(drop)
}

/// Wires each interface, and returns the result of each. On failure all are gone, unless an earlier ADD made them.
fn wire(config: &Config, attachment: &Attachment, netns: &Path, granted: &Granted) -> Result<Vec<Value>, WireError> {
    let Granted { interfaces, branch } = granted;
    // One alone undoes itself.
    let lived = interfaces.len() > 1 && find_pod(&attachment.key)?.is_some();
    let mut results = Vec::with_capacity(interfaces.len());
    for (key, network) in interfaces {
        let (pod, network, netns) = (attachment.pod.clone(), network.clone(), netns.to_owned());
        let wiring = PodWiring { key: key.clone(), pod, network, netns };
        let added = match branch {
            Some(branch) if *key == attachment.key => add_branch_pod(&wiring, branch),
            Some(_) | None => add_pod(&wiring),
        };
        match added {
            Ok(wired) => results.push(result::to_json(config.version, key, &wiring.netns, &wiring.network, &wired)),
            Err(error) => {
                let made = interfaces.iter().take(if lived { 0 } else { results.len() }).rev();
                for (key, _) in made {
                    // The error that led here is the one to report; what stays of this its DEL removes.
                    let _ = del_pod(&config.veth_prefix, key, &attachment.pod, Some(&wiring.netns));
                }
                return Err(error);
            }
        }
    }
    Ok(results)
}

/// Returns the lease of an ADD that failed with `error`, and the error with what became of the lease.
///
/// The same key may be wired already, by an earlier ADD: then the address is in use, and stays.
async fn given_back(config: &Config, attachment: &Attachment, mut error: CniError) -> CniError {
    let fate = match find_pod(&attachment.key).map(|link| link.and_then(|link| link.alias)) {
        Ok(Some(_)) => "The attachment that an earlier ADD made lives on and keeps its address.".to_owned(),
        Ok(None) => match release(config, &attachment.key).await {
            Ok(()) => "The address was returned.".to_owned(),
            Err(reason) => format!("The address could not be returned: {}", reason.msg),
        },
        Err(reason) => format!("The address stays held until DEL: {}.", chain(&reason)),
    };
    error.details = format!("{} {fate}", error.details);
    error
}

/// The network-policy agent knows pods by their names only: of one that has a newer sandbox by now it may not hear that it is gone.
async fn del(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let ended = end(config, attachment).await;
    let (key, pod) = (&attachment.key, &attachment.pod);
    if let Some(agent) = config.policy_agent.as_ref().filter(|_| ended.is_ok() && attachment.is_of_a_pod())
        && is_replaced(&config.veth_prefix, key, pod).is_ok_and(|replaced| !replaced)
    {
        policy::forget(agent, pod).await;
    }
    ended
}

/// First the kernel, then the lease: an address that the kernel still leads to a pod may not be given to another.
async fn end(config: &Config, attachment: &Attachment) -> Result<(), CniError> {
    let (key, netns) = (&attachment.key, attachment.netns.as_deref());
    let not_removed = |error| error::not_removed(&error);
    if key.is_first() && del_branch_pod(&config.veth_prefix, key, &attachment.pod).map_err(not_removed)? {
        return release(config, key).await;
    }
    // The first comes last: it is where to look for the others.
    let mut keys = vec![key.clone()];
    keys.extend(further_pods(&config.veth_prefix, key, &attachment.pod).map_err(not_removed)?);
    keys.reverse();
    // Runtimes of Kubernetes end a sandbox by the DEL of its `eth0`, so that the interface may live on in it for a moment. Any other
    // may be taken out of a pod that lives on, and somebody may want its name at once.
    if !attachment.is_of_a_pod() {
        for key in &keys {
            report::wiring(|| del_pod(&config.veth_prefix, key, &attachment.pod, netns)).map_err(not_removed)?;
        }
        return release(config, key).await;
    }
    let mut left = Vec::new();
    for key in &keys {
        left.extend(report::wiring(|| end_pod(&config.veth_prefix, key, &attachment.pod)).map_err(not_removed)?);
    }
    let heard = daemon::del(config, key, !left.is_empty()).await;
    if heard != Ok(true) {
        // Nobody else will: the daemon is away, or of a version that does not know of this.
        for link in &left {
            remove_ended(link).map_err(not_removed)?;
        }
    }
    settle(config, key, heard)
}

/// Whether an ADD could be served, and whether those that were are well served. Changes nothing.
async fn status(config: &Config) -> Result<(), CniError> {
    match impairment() {
        Ok(None) => daemon::status(config).await,
        Ok(Some(what)) => Err(error::impaired(&what)),
        Err(error) => Err(CniError { code: code::NOT_AVAILABLE, ..error::unseen(&error) }),
    }
}

/// Returns the lease, or leaves a note for a daemon that is away.
async fn release(config: &Config, key: &PodKey) -> Result<(), CniError> {
    let heard = daemon::del(config, key, false).await;
    settle(config, key, heard)
}

fn settle(config: &Config, key: &PodKey, heard: Result<bool, String>) -> Result<(), CniError> {
    let Err(reason) = heard else {
        // A DEL before this one may have left it: it was killed, or the daemon was away.
        let _ = std::fs::remove_file(config.released_dir.join(note(key).file_name()));
        return Ok(());
    };
    leave_note(&config.released_dir, key).map_err(|error| {
        CniError::new(
            code::NOT_RELEASED,
            format!(
                "IPAM-107 the address of {} could not be released: ipamd is away ({reason}), and no note can be left in {}: {}",
                key,
                config.released_dir.display(),
                chain(&error),
            ),
            "The pod's interface is gone; its address stays held until a DEL gets through. The runtime will try again.",
        )
    })
}

/// Makes the note whole before it has a name, so that nobody reads half of it and nothing is left of one that was never finished.
fn leave_note(folder: &Path, key: &PodKey) -> io::Result<()> {
    let note = note(key);
    std::fs::create_dir_all(folder)?;
    let mut nameless = OpenOptions::new().write(true).custom_flags(OFlag::O_TMPFILE.bits()).open(folder)?;
    nameless.write_all(note.to_string().as_bytes())?;
    let open = format!("/proc/self/fd/{}", nameless.as_raw_fd());
    let named = folder.join(note.file_name());
    match linkat(AT_FDCWD, open.as_str(), AT_FDCWD, &named, AtFlags::AT_SYMLINK_FOLLOW) {
        // The note of a DEL before this one says the same: an ADD in between would have removed it.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// The note that the attachment ended now.
fn note(key: &PodKey) -> ReleaseNote {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_milliseconds = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    ReleaseNote { key: key.clone(), at_milliseconds }
}
