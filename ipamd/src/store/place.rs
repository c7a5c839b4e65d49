//! Where the database lies: whose it is, of which boot of the machine, and what becomes of one that cannot be used.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{clock, errors::SystemError, waits::Waits};

/// How long a former daemon may take to end: longer than it may live on after a signal to stop.
const LOCK_PATIENCE: Duration = Duration::from_secs(4);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// Why the place of the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Another daemon uses the same database.
    #[error("IPAM-310 another ipamd uses the database {path}; stop it first, or give this one a database of its own")]
    Locked {
        /// Path of the database.
        path: String,
    },
    /// The lock file cannot be made.
    #[error(
        "IPAM-304 the folder of the database {path} cannot be used; check that it exists on a local disk and can be written"
    )]
    Folder {
        /// Path of the database.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// Takes the lock that belongs to the database; it is held until the value is dropped or the process ends.
///
/// A daemon that is just ending is waited for.
pub(crate) async fn lock(database: &Path) -> Result<Flock<File>, PlaceError> {
    let path = database.display().to_string();
    let failed = |source| PlaceError::Folder { path: path.clone(), source };
    if let Some(folder) = database.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = File::options().create(true).append(true).open(beside(database, ".lock")).map_err(failed)?;
    let _waits = Waits::begin(format!("another ipamd to let go of {path}"));
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if tokio::time::Instant::now() < deadline => file = back,
            Err((_, Errno::EWOULDBLOCK)) => return Err(PlaceError::Locked { path }),
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Which boot of the machine this is.
pub(crate) fn boot_id() -> Result<String, SystemError> {
    Ok(read_system("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn read_system(path: &'static str) -> Result<String, SystemError> {
    std::fs::read_to_string(path).map_err(|source| SystemError { what: path, source })
}

/// Renames the database and its two companions, so that somebody can look at them later; also what somebody who was killed in that
/// has left of them. Returns the new name; nothing when nothing was there.
pub(crate) fn set_aside(database: &Path) -> Result<Option<PathBuf>, PlaceError> {
    let suffix = format!(".aside-{}", clock::now().as_millis());
    let mut found = false;
    for companion in ["", "-wal", "-shm"] {
        let from = beside(database, companion);
        match std::fs::rename(&from, beside(&beside(database, &suffix), companion)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(PlaceError::Folder { path: from.display().to_string(), source });
            }
            moved => found |= moved.is_ok(),
        }
    }
    Ok(found.then(|| beside(database, &suffix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_complete_also_after_somebody_was_killed_in_that() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ipamd.db");
        assert_eq!(set_aside(&database).unwrap(), None);
        for left in [["", "-wal"], ["-wal", "-shm"]] {
            left.iter().for_each(|companion| std::fs::write(beside(&database, companion), "").unwrap());
            let aside = set_aside(&database).unwrap().unwrap();
            for companion in left {
                assert!(!beside(&database, companion).exists() && beside(&aside, companion).exists());
            }
        }
    }
}
