//! Ends leases of sandboxes that the container runtime does not know any more, where `CRI_SOCKET` says how to ask it.
//!
//! A runtime that loses its records, or is killed while it takes a pod apart, leaves a network namespace that nobody will ever
//! send a DEL for. Three things must agree before such a lease ends: the runtime has not listed the sandbox for some time, the
//! lease is as old as that, and no process lives in the namespace. A runtime whose processes we could not see proves nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use eni_proto::{
    PodKey, VethPrefix,
    cri::{ListPodSandboxRequest, runtime_service_client::RuntimeServiceClient},
};
use ipam_core::{Lease, Moment};
use nix::errno::Errno;
use tokio::net::UnixStream;
use tonic::{Request, transport::Endpoint};

use crate::{clock, errors::chain, handle::Handle, host::HostNet, policy_agent, settings::Runtime, tenure::Ended};

/// Longest time between two questions.
const LONGEST_PERIOD: Duration = Duration::from_secs(60);
/// How long the runtime may take to answer.
const CALL_PATIENCE: Duration = Duration::from_secs(10);

/// Device and inode of a network namespace: the same for every path that leads to it.
type Namespace = (u64, u64);

/// Asks the runtime now and then, for ever.
pub(crate) async fn follow(runtime: Runtime, handle: Handle, host: HostNet, prefix: VethPrefix) {
    let period = (runtime.patience / 2).min(LONGEST_PERIOD);
    let mut watcher = Watcher { runtime, handle, host, prefix, unlisted: BTreeMap::new() };
    loop {
        tokio::time::sleep(period).await;
        let Ok(leases) = watcher.handle.leases().await else { return };
        if let Err(reason) = watcher.look(&leases).await {
            tracing::warn!(socket = %watcher.runtime.socket.display(), reason, "the container runtime did not list its sandboxes");
            watcher.unlisted.clear();
        }
    }
}

struct Watcher {
    runtime: Runtime,
    handle: Handle,
    host: HostNet,
    prefix: VethPrefix,
    /// Leases whose sandbox the runtime does not list, and since when.
    unlisted: BTreeMap<PodKey, Moment>,
}

impl Watcher {
    /// Ends every lease that certainly belongs to no sandbox any more.
    async fn look(&mut self, leases: &[Lease]) -> Result<(), String> {
        let asked_at = clock::now();
        let listed = self.runtime.sandboxes().await?;
        let unlisted: Vec<&Lease> = leases.iter().filter(|lease| !listed.contains(lease.key.container_id())).collect();
        let keys: BTreeSet<&PodKey> = unlisted.iter().map(|lease| &lease.key).collect();
        self.unlisted.retain(|key, _| keys.contains(key));
        let mut over = Vec::new();
        for lease in unlisted {
            let since = *self.unlisted.entry(lease.key.clone()).or_insert(asked_at);
            if asked_at.since(since.max(lease.since)) >= self.runtime.patience {
                over.push(lease);
            }
        }
        if over.is_empty() {
            return Ok(());
        }
        if !self.runtime.is_visible().await.map_err(|error| error.to_string())? {
            return Err("its processes cannot be seen from here; ipamd needs hostPID for that".to_owned());
        }
        let inhabited = tokio::task::spawn_blocking(inhabited).await.map_err(|error| error.to_string())?;
        let inhabited = inhabited.map_err(|error| format!("its processes could not be read from /proc: {error}"))?;
        for lease in over {
            // A namespace that is gone is for those who watch the folders.
            if namespace(Path::new(&lease.netns)).is_some_and(|it| !inhabited.contains(&it)) {
                self.end(lease, asked_at).await;
            }
        }
        Ok(())
    }

    async fn end(&self, lease: &Lease, seen_at: Moment) {
        // The kernel first: while its link lives, the namespace could still send with the address.
        if let Err(error) = self.host.end_pod(&self.prefix, lease).await {
            tracing::error!(key = %lease.key, error = %chain(&error), "the interface of a lost sandbox could not be removed; its lease stays");
            return;
        }
        match self.handle.reclaim(lease.key.clone(), seen_at, Ended::SandboxUnknown).await {
            Ok(Ok(released)) => {
                policy_agent::gone(lease);
                tracing::warn!(key = %lease.key, pod = %lease.pod, address = %lease.addresses, released = !released.is_empty(), "the container runtime does not know the sandbox and no process lives in it; its address was released");
            }
            Ok(Err(refusal)) => {
                tracing::error!(key = %lease.key, refusal = %refusal, "a lost sandbox could not be released");
            }
            Err(_) => {}
        }
    }
}

impl Runtime {
    /// Ids of all sandboxes that the runtime knows, ready or not.
    async fn sandboxes(&self) -> Result<BTreeSet<String>, String> {
        let endpoint = Endpoint::try_from(format!("unix:{}", self.socket.display())).map_err(|error| chain(&error))?;
        let channel = endpoint.connect_timeout(CALL_PATIENCE).connect().await.map_err(|error| chain(&error))?;
        let mut question = Request::new(ListPodSandboxRequest {});
        question.set_timeout(CALL_PATIENCE);
        let reply = RuntimeServiceClient::new(channel).list_pod_sandbox(question).await;
        let reply = reply.map_err(|status| status.to_string())?.into_inner();
        Ok(reply.items.into_iter().map(|sandbox| sandbox.id).collect())
    }

    /// Whether the runtime's process, and so its children, are among those that /proc shows us.
    async fn is_visible(&self) -> io::Result<bool> {
        let peer = UnixStream::connect(&self.socket).await?.peer_cred()?;
        // The kernel says 0 of a process outside our PID namespace.
        Ok(peer.pid().is_some_and(|pid| pid > 0))
    }
}

/// The network namespaces that processes live in.
///
/// # Errors
///
/// One process that could not be looked at is enough: it may live in any.
fn inhabited() -> io::Result<BTreeSet<Namespace>> {
    let mut found = BTreeSet::new();
    for process in fs::read_dir("/proc")? {
        let path = process?.path();
        let is_process =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u32>().is_ok());
        if !is_process {
            continue;
        }
        match fs::metadata(path.join("ns/net")) {
            Ok(file) => {
                found.insert((file.dev(), file.ino()));
            }
            // It has ended.
            Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENOENT | Errno::ESRCH)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The namespace that a path leads to. Absent: to none, or it cannot be seen.
fn namespace(path: &Path) -> Option<Namespace> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_the_same_by_whichever_path() {
        let own = namespace(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(namespace(Path::new("/proc/thread-self/ns/net")), Some(own));
        match inhabited() {
            Ok(found) => assert!(found.contains(&own)),
            // A process with more rights than this one cannot be looked at; then nobody is taken for gone.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!(namespace(Path::new("/run/netns/is-not-there")), None);
    }
}
