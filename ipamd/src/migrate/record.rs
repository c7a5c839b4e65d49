//! What an import took away, so that `back` can put it in place again. Lies beside the database.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::legacy::Legacy;
use crate::conflist;

/// Everything that is needed to go back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Which boot it is about: no chain outlives it.
    pub(super) boot_id: String,
    /// The incumbent's leases as its file had them.
    pub(super) checkpoint: String,
    /// Its chains in nf_tables, in the kernel's words.
    pub(super) chains: String,
    /// Its chains in iptables-legacy.
    pub(super) legacy: Legacy,
}

impl Record {
    /// Reads the record beside this database; nothing when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn read(database: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(database)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it in one step, durably.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn write(&self, database: &Path) -> io::Result<()> {
        conflist::replace(&path(database), &serde_json::to_vec(self)?, 0o600)
    }

    /// Forgets it. Repeatable.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn remove(database: &Path) -> io::Result<()> {
        match fs::remove_file(path(database)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".incumbent");
    name.into()
}
