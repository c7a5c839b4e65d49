//! How others on the node are reached, where they are.

use std::{path::PathBuf, time::Duration};

use eni_proto::policy::Mode;

/// How network policies are put into effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyAgent {
    /// `NETWORK_POLICY_ENFORCING_MODE`: what a pod may do until its policies are in place.
    pub(crate) mode: Mode,
    /// `IPAMD_POLICY_AGENT_DIR`: folder of the agent's socket and of ours for it.
    pub(crate) folder: PathBuf,
}

/// How the runtime is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runtime {
    /// `CRI_SOCKET`.
    pub(crate) socket: PathBuf,
    /// `UNLISTED_SANDBOX_SECONDS`: for how long a sandbox must be unlisted.
    pub(crate) patience: Duration,
}
