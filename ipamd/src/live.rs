//! Gives the loop the policy that holds now: what the settings say, which may change while the daemon runs, completed by what Kubernetes
//! wants.

use ipam_core::Policy;
use tokio::sync::watch;

use crate::{handle::Handle, kube::decide::Wanted};

/// Where the policy comes from.
#[derive(Debug)]
pub(crate) struct Sources {
    /// What the settings say.
    pub(crate) settings: watch::Receiver<Policy>,
    /// What Kubernetes wants. Absent: it is not used.
    pub(crate) wanted: Option<watch::Receiver<Wanted>>,
    /// Whether an `ENIConfig` says where ENIs live.
    pub(crate) with_eni_config: bool,
}

impl Sources {
    fn policy(&mut self) -> Policy {
        let settings = self.settings.borrow_and_update().clone();
        match &mut self.wanted {
            Some(wanted) => wanted.borrow_and_update().complete(settings, self.with_eni_config),
            None => settings,
        }
    }

    /// Resolves when one of them has changed.
    async fn changed(&mut self) {
        let Self { settings, wanted, .. } = self;
        let wanted = async {
            match wanted {
                Some(wanted) => changed(wanted).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! { () = changed(settings) => {}, () = wanted => {} }
    }
}

/// A source that has ended does not change any more.
async fn changed<T>(source: &mut watch::Receiver<T>) {
    if source.changed().await.is_err() {
        std::future::pending().await
    }
}

/// Tells the loop of each change, for ever. `last` is the policy that it has.
pub(crate) async fn follow(mut sources: Sources, mut last: Policy, handle: Handle) {
    loop {
        let policy = sources.policy();
        if policy != last {
            handle.policy(policy.clone());
            last = policy;
        }
        sources.changed().await;
    }
}
