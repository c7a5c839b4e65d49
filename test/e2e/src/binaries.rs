//! Where the programs under test are.

use std::{
    env,
    path::{Path, PathBuf},
};

use crate::Trouble;

/// The programs under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    /// The daemon.
    pub ipamd: PathBuf,
    /// The CNI plugin.
    pub plugin: PathBuf,
}

impl Binaries {
    /// Takes the paths given, and for those not given the programs that cargo built beside this one.
    ///
    /// # Errors
    /// [`Trouble::NoBinary`] names the first that is not there.
    pub fn find(ipamd: Option<PathBuf>, plugin: Option<PathBuf>) -> Result<Self, Trouble> {
        Ok(Self {
            ipamd: there(ipamd.unwrap_or_else(|| built("ipamd")), "--ipamd or E2E_IPAMD")?,
            plugin: there(plugin.unwrap_or_else(|| built("eni-cni")), "--plugin or E2E_PLUGIN")?,
        })
    }

    /// Takes what `E2E_IPAMD` and `E2E_PLUGIN` name, as tests do, and for what they don't the programs that cargo built.
    ///
    /// # Errors
    /// As [`Binaries::find`].
    pub fn from_environment() -> Result<Self, Trouble> {
        Self::find(env::var_os("E2E_IPAMD").map(Into::into), env::var_os("E2E_PLUGIN").map(Into::into))
    }
}

fn there(path: PathBuf, option: &'static str) -> Result<PathBuf, Trouble> {
    match path.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => Err(Trouble::NoBinary { program: path.display().to_string(), option }),
    }
}

/// Programs are in `target/debug`, tests in `target/debug/deps`.
fn built(name: &str) -> PathBuf {
    let own = env::current_exe().unwrap_or_default();
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = if directory.ends_with("deps") { directory.parent().unwrap_or(directory) } else { directory };
    directory.join(name)
}
