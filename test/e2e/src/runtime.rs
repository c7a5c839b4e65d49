//! Real container runtimes as clients of the plugin: containerd through the CRI, and podman.
//!
//! Each runs on a worker that was booted, so that what it leaves in `/run`, `/var/lib` and the process table ends with the
//! worker. Images are made here; nothing is fetched.

mod busybox;
pub mod containerd;
pub mod podman;
pub mod site;

pub use containerd::{Containerd, PodStatus};
pub use podman::Podman;
pub use site::{Call, SETTINGS, Site};
