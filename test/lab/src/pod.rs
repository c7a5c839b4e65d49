//! A pod's sandbox: an empty network that a CNI plugin is to fill.

use std::{net::IpAddr, path::PathBuf, process::Command, time::Duration};

use crate::{LabError, Namespace};

/// A sandbox as a container runtime makes it before it calls the plugin.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
}

/// What became of one ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Whether the answer came.
    pub answered: bool,
    /// What `ping` wrote, for people.
    pub transcript: String,
}

impl Pod {
    /// Makes an empty sandbox. `name` is for messages only.
    ///
    /// # Errors
    /// As [`Namespace::fresh`].
    pub fn new(name: &str) -> Result<Self, LabError> {
        Ok(Self { namespace: Namespace::fresh(name)? })
    }

    /// Its network.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What `CNI_NETNS` should say.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Sends one ping from inside and waits for the answer, at most `patience`, rounded up to whole seconds.
    ///
    /// # Errors
    /// [`LabError::Os`] when `ping` cannot be started.
    pub fn ping(&self, target: impl Into<IpAddr>, patience: Duration) -> Result<Ping, LabError> {
        self.namespace.ping(target, patience)
    }
}

impl Namespace {
    /// Sends one ping from inside and waits for the answer, at most `patience`, rounded up to whole seconds.
    ///
    /// # Errors
    /// [`LabError::Os`] when `ping` cannot be started.
    pub fn ping(&self, target: impl Into<IpAddr>, patience: Duration) -> Result<Ping, LabError> {
        let seconds = patience.as_millis().div_ceil(1000).max(1).to_string();
        let mut command = Command::new("ping");
        command.args(["-n", "-c", "1", "-W", &seconds]).arg(target.into().to_string());
        let output = self.output(&mut command, &[])?;
        let mut transcript = String::from_utf8_lossy(&output.stdout).into_owned();
        transcript.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Ping { answered: output.status.success(), transcript })
    }
}
