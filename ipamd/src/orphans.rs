//! Finds leases whose sandbox is gone although no DEL came, and lets them end.
//!
//! Two truths must agree before a lease ends: the path of the network namespace leads to none any more, and the kernel has no
//! host interface of the attachment, because it removes that together with the namespace. A name that was only unlinked while
//! processes live on in the namespace is therefore no reason. And the lease must be old enough that no plugin can still be at
//! work on it, and must not have been asked for again ([`ipam_core::Event::Reclaim`]).
//!
//! Nothing is looked at while nothing happens: inotify tells when a namespace's file goes. Only paths under `/proc`, of which
//! inotify knows nothing, are looked at every two seconds, and all others once a minute in case something was missed. Where the node
//! has no inotify instance left, all are looked at every two seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    future, io,
    path::Path,
    time::Duration,
};

use eni_datapath::{Netns, NetnsError};
use eni_proto::{PodKey, VethPrefix};
use ipam_core::{Lease, Moment};
use tokio::{sync::mpsc, time::Instant};

use crate::{clock, errors::chain, folders::Folders, handle::Handle, host::HostNet, policy_agent, tenure::Ended};

/// How often everything is looked at, although nobody told of a change.
const BACKSTOP: Duration = Duration::from_secs(60);
/// How often paths of which inotify does not tell are looked at.
const PROC_PERIOD: Duration = Duration::from_secs(2);
/// How soon something that is not certain yet is looked at again.
const SOON: Duration = Duration::from_millis(500);
/// Namespaces often go in swarms, and the kernel takes them apart a moment later: one look for all of them.
const SETTLING: Duration = Duration::from_millis(200);
/// Younger leases are left alone: their plugin may hold the namespace open and wire it just now.
const YOUNGEST: Duration = Duration::from_secs(2);
/// For how long a namespace whose name is gone is looked at often. It lives on then, and a DEL will come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the sandboxes of all leases for ever. `granted` brings the namespace's path of each new lease.
pub(crate) async fn follow(
    handle: Handle,
    host: HostNet,
    prefix: VethPrefix,
    mut granted: mpsc::UnboundedReceiver<String>,
) {
    let blind = |error| tracing::warn!(error = %chain(&error), "IPAM-316 inotify cannot be had: lost network namespaces are looked for every 2 s");
    let mut folders = Folders::new().map_err(blind).ok();
    let mut watcher = Watcher { handle, host, prefix, missing: BTreeMap::new() };
    let mut next = Instant::now() + SETTLING;
    loop {
        tokio::select! {
            path = granted.recv() => {
                let Some(path) = path else { return };
                next = next.min(Instant::now() + watch(folders.as_mut(), &path));
            }
            changed = changed(&mut folders) => {
                if let Err(error) = changed {
                    tracing::warn!(error = %chain(&error), "inotify failed");
                }
                next = next.min(Instant::now() + SETTLING);
            }
            () = tokio::time::sleep_until(next) => {
                let Some(leases) = watcher.leases().await else { return };
                let soonest = leases.iter().map(|lease| watch(folders.as_mut(), &lease.netns)).min();
                let wait = watcher.look(&leases).await;
                next = Instant::now() + wait.min(soonest.unwrap_or(BACKSTOP));
            }
        }
    }
}

/// Has the kernel tell when the namespace's file goes; returns when to look at the latest.
fn watch(folders: Option<&mut Folders>, netns: &str) -> Duration {
    let path = Path::new(netns);
    let Some(folder) = path.parent() else { return BACKSTOP };
    let folders = folders.filter(|_| !path.starts_with("/proc"));
    // A folder that is not there cannot be watched, and its files are gone too.
    let is_watched = folders.is_some_and(|folders| folders.watch(folder).is_ok());
    if is_watched { BACKSTOP } else { PROC_PERIOD }
}

/// Resolves when the kernel tells of a file that came or went.
async fn changed(folders: &mut Option<Folders>) -> io::Result<()> {
    match folders {
        Some(folders) => folders.changed().await,
        None => future::pending().await,
    }
}

struct Watcher {
    handle: Handle,
    host: HostNet,
    prefix: VethPrefix,
    /// Leases whose namespace's name is gone, and since when.
    missing: BTreeMap<PodKey, Moment>,
}

impl Watcher {
    async fn leases(&self) -> Option<Vec<Lease>> {
        self.handle.leases().await.ok()
    }

    /// Ends every lease that is certainly an orphan; returns when to look again.
    async fn look(&mut self, leases: &[Lease]) -> Duration {
        let seen_at = clock::now();
        let gone: Vec<&Lease> = leases.iter().filter(|lease| is_gone(&lease.netns)).collect();
        let keys: BTreeSet<&PodKey> = gone.iter().map(|lease| &lease.key).collect();
        self.missing.retain(|key, _| keys.contains(key));
        if gone.is_empty() {
            return BACKSTOP;
        }
        let wired: BTreeSet<PodKey> = match self.host.observe(&self.prefix).await {
            Ok(pods) => pods.into_iter().map(|pod| pod.alias.key).collect(),
            Err(error) => {
                // Without the kernel's word nothing ends.
                tracing::warn!(error = %chain(&error), "the kernel's pods could not be listed; lost namespaces are looked at again");
                return PROC_PERIOD;
            }
        };
        let mut wait = BACKSTOP;
        for lease in gone {
            let since = *self.missing.entry(lease.key.clone()).or_insert(seen_at);
            let patient = seen_at.since(since) < PATIENCE;
            if wired.contains(&lease.key) {
                if patient {
                    wait = wait.min(SOON);
                }
            } else if seen_at.since(lease.since) < YOUNGEST {
                wait = wait.min(SOON);
            } else {
                self.end(lease, seen_at).await;
            }
        }
        wait
    }

    async fn end(&self, lease: &Lease, seen_at: Moment) {
        match self.handle.reclaim(lease.key.clone(), seen_at, Ended::NamespaceGone).await {
            Ok(Ok(released)) if !released.is_empty() => {
                policy_agent::gone(lease);
                tracing::warn!(key = %lease.key, pod = %lease.pod, address = %lease.addresses, netns = lease.netns, "the sandbox went without a DEL; its address was released");
            }
            Ok(Ok(_)) => tracing::info!(key = %lease.key, "the lease was asked for again, or has ended by itself"),
            Ok(Err(refusal)) => {
                tracing::error!(key = %lease.key, refusal = %refusal, "an orphan could not be released")
            }
            Err(_) => {}
        }
    }
}

/// Whether the path certainly leads to no network namespace. An unknown path, or one that cannot be read, proves nothing.
pub(crate) fn is_gone(netns: &str) -> bool {
    !netns.is_empty()
        && matches!(Netns::open(Path::new(netns)), Err(NetnsError::Missing { .. } | NetnsError::NotNetns { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_inotify_does_not_tell_of_is_looked_at_often() {
        let folder = tempfile::tempdir().unwrap();
        let netns = folder.path().join("cni-1").display().to_string();
        let mut folders = Folders::new().unwrap();
        #[rustfmt::skip]
        let table = [
            (true,  netns.as_str(),               BACKSTOP),
            (true,  "/run/is-not-there/cni-1",    PROC_PERIOD),
            (true,  "/proc/1/ns/net",             PROC_PERIOD),
            (true,  "",                           BACKSTOP),
            (false, netns.as_str(),               PROC_PERIOD),
            (false, "/proc/1/ns/net",             PROC_PERIOD),
            (false, "",                           BACKSTOP),
        ];
        for (has_inotify, netns, wanted) in table {
            assert_eq!(watch(Some(&mut folders).filter(|_| has_inotify), netns), wanted, "{has_inotify} {netns}");
        }
    }

    #[test]
    fn only_a_path_that_certainly_leads_to_no_namespace_is_gone() {
        assert!(is_gone("/run/netns/is-not-there"));
        assert!(is_gone("/etc/hostname"));
        assert!(is_gone("/proc/4194305/ns/net"), "no process can have this id");
        assert!(!is_gone("/proc/self/ns/net"));
        assert!(!is_gone(""), "the path is not known");
    }
}
