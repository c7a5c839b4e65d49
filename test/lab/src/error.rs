//! Why the lab could not do what was asked.

use std::io;

/// Why the lab could not do what was asked. The lab may be half changed afterwards; drop it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A step that needs the operating system failed.
    #[error("lab: cannot {what}")]
    Os {
        /// The step, as `enter namespace node-1`.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A tool ran and refused.
    #[error("lab: `{tool}` in namespace {namespace} failed: {complaint}; it was told:\n{script}")]
    Tool {
        /// Command line.
        tool: String,
        /// Where it ran.
        namespace: String,
        /// What it wrote to stderr.
        complaint: String,
        /// What it was given on stdin.
        script: String,
    },
    /// A tool answered something that was not expected.
    #[error("lab: cannot understand {what}: {answer}")]
    Answer {
        /// Whose answer.
        what: &'static str,
        /// The answer, or the part that was not understood.
        answer: String,
    },
    /// EC2 refused a call.
    #[error("lab: EC2 refused {action}: {code}: {message}")]
    Refused {
        /// API action.
        action: String,
        /// EC2's error code.
        code: String,
        /// EC2's message.
        message: String,
    },
    /// A node cannot have processes and mounts of its own here.
    #[error(
        "lab: a container runtime cannot run here: {why}. It needs root, the mount and pid namespaces, overlayfs and control \
         groups in /sys/fs/cgroup"
    )]
    NoMachine {
        /// What failed.
        why: String,
    },
    /// The kernel does not let this user make namespaces.
    #[error(
        "lab: this user may not make network namespaces ({what}). Run as root, or allow unprivileged user namespaces \
         (Ubuntu 24.04: sysctl kernel.apparmor_restrict_unprivileged_userns=0)"
    )]
    NoNamespaces {
        /// The step that failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl LabError {
    /// Returns a function that turns an I/O error of the step `what` into an error of the lab.
    pub(crate) fn os<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source: source.into() }
    }
}
