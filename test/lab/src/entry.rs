//! Becoming root of an own user namespace, for users who are not root.

use std::{fs, io, process::Command};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

use crate::LabError;

/// Makes this process root of a user namespace of its own, with an empty network, unless it is root already.
///
/// To be called first in `main`: a process with threads cannot change its user namespace.
///
/// # Errors
/// [`LabError::NoNamespaces`] where the kernel does not allow it, with what the operator can do.
pub fn enter_user_namespace_if_not_root() -> Result<(), LabError> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| LabError::NoNamespaces { what: "unshare", source: errno.into() })?;
    let write = |file: &'static str, text: String| {
        fs::write(file, text).map_err(|source| LabError::NoNamespaces { what: file, source })
    };
    // The kernel lets an unprivileged process map its group only after it gave up setgroups.
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {user} 1"))?;
    write("/proc/self/gid_map", format!("0 {group} 1"))?;
    loopback_up().map_err(|source| LabError::NoNamespaces { what: "ip link set lo up", source })
}

/// Whether this process is in a user namespace other than the machine's.
pub(crate) fn in_user_namespace() -> bool {
    // The machine's own namespace maps every id to itself: `0 0 4294967295`.
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.contains("4294967295"))
}

fn loopback_up() -> io::Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(status.to_string())) }
}
