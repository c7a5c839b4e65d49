//! The few kernel settings that netlink does not reach, under /proc/sys/net of the calling thread's namespace.

use std::{fs, io, path::Path};

/// Where a container that is not privileged, and so finds /proc/sys read-only, has the same folder mounted from its host.
const MOUNTED: &str = "/host/proc/sys/net";

/// A setting that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot set /proc/sys/net/{name} to {value}")]
pub struct SysctlError {
    name: String,
    value: u32,
    source: io::Error,
}

/// Returns the setting's value, or nothing when the kernel has no such setting.
pub(crate) fn read(name: &str) -> Option<u32> {
    fs::read_to_string(path(name)).ok()?.trim().parse().ok()
}

/// Writes the setting unless it has the value already; some of them do work on every write.
pub(crate) fn ensure(name: &str, value: u32) -> Result<(), SysctlError> {
    if read(name) == Some(value) {
        return Ok(());
    }
    write(name, value).map_err(|source| SysctlError { name: name.to_owned(), value, source })
}

/// Writes the setting. Returns false when the kernel has no such setting, as IPv6 ones on a node without IPv6.
pub(crate) fn write_if_present(name: &str, value: u32) -> Result<bool, SysctlError> {
    match write(name, value) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SysctlError { name: name.to_owned(), value, source }),
    }
}

/// Whether the kernel has IPv6.
pub(crate) fn has_ipv6() -> bool {
    path("ipv6").exists()
}

/// Lists the links that have IPv4 settings, without `all` and `default`.
pub(crate) fn ipv4_links() -> Vec<String> {
    let Ok(entries) = fs::read_dir(path("ipv4/conf")) else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != "all" && name != "default")
        .collect()
}

fn write(name: &str, value: u32) -> io::Result<()> {
    // Without O_CREAT: /proc answers that with "permission denied" instead of "not found".
    let mounted = Path::new(MOUNTED).join(name);
    let path = if mounted.exists() { mounted } else { path(name) };
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    io::Write::write_all(&mut file, value.to_string().as_bytes())
}

/// Where the setting is; only right on a thread of the same namespace.
pub(crate) fn path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys/net").join(name)
}
