//! Network namespaces: opened by path, told apart by (device, inode), entered only on a thread made for it.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

/// The network namespace of the calling thread; a thread may differ from its process.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// There is nothing at the path.
    #[error("network namespace {path} does not exist")]
    Missing {
        /// As the caller gave it.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("{path} is not a network namespace")]
    NotNetns {
        /// As the caller gave it.
        path: PathBuf,
    },
    /// The path is the caller's own namespace: a pod of the host network needs no wiring.
    #[error("{path} is the host's own network namespace")]
    Own {
        /// As the caller gave it.
        path: PathBuf,
    },
    /// The path cannot be opened.
    #[error("cannot open network namespace {path}")]
    Open {
        /// As the caller gave it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not let us in.
    #[error("cannot enter network namespace {path}")]
    Enter {
        /// As the caller gave it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not let us make one.
    #[error("cannot make a network namespace")]
    Create {
        /// Why.
        source: io::Error,
    },
}

/// Which namespace it is, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

/// An open network namespace. It lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    id: NetnsId,
}

impl Netns {
    /// Opens the namespace at `path`.
    ///
    /// # Errors
    /// [`NetnsError::Missing`], [`NetnsError::NotNetns`] or [`NetnsError::Open`].
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let describe = |source: io::Error| match source.kind() == io::ErrorKind::NotFound {
            true => NetnsError::Missing { path: path.to_owned() },
            false => NetnsError::Open { path: path.to_owned(), source },
        };
        let file = File::open(path).map_err(describe)?;
        let filesystem = fstatfs(&file).map_err(|errno| describe(errno.into()))?.filesystem_type();
        if filesystem != NSFS_MAGIC {
            return Err(NetnsError::NotNetns { path: path.to_owned() });
        }
        let metadata = file.metadata().map_err(describe)?;
        let id = NetnsId { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { file, path: path.to_owned(), id })
    }

    /// Opens the namespace at `path` and checks that it is not the calling thread's own.
    ///
    /// # Errors
    /// As [`Netns::open`], and [`NetnsError::Own`].
    pub fn open_other(path: &Path) -> Result<Self, NetnsError> {
        let other = Self::open(path)?;
        if other.id == Self::current()?.id {
            return Err(NetnsError::Own { path: path.to_owned() });
        }
        Ok(other)
    }

    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// [`NetnsError::Open`], as when /proc is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(OWN))
    }

    /// Makes a namespace without a name; it goes away with this value and the last process in it.
    ///
    /// # Errors
    /// [`NetnsError::Create`] without the right to.
    pub fn fresh() -> Result<Self, NetnsError> {
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| NetnsError::Create { source: errno.into() })?;
            Self::current()
        })
    }

    /// Which namespace it is.
    #[must_use]
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// A path that opens this namespace again, valid in this process while this value lives.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Runs `work` inside the namespace and returns its result.
    ///
    /// A panic in `work` reaches the caller; the caller's own namespace never changes.
    ///
    /// # Errors
    /// [`NetnsError::Enter`], [`NetnsError::NotNetns`]; in both cases `work` has not run.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_own_thread(|| {
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| match errno == Errno::EINVAL {
                // A namespace of another kind.
                true => NetnsError::NotNetns { path: self.path.clone() },
                false => NetnsError::Enter { path: self.path.clone(), source: errno.into() },
            })?;
            Ok(work())
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` inside the network namespace at `path` and returns its result.
///
/// A panic in `work` reaches the caller; the caller's own namespace never changes.
///
/// # Errors
/// As [`Netns::open`] and [`Netns::inside`]; in each case `work` has not run.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    Netns::open(path)?.inside(work)
}

/// A thread that changed its namespace ends with its work: there is no way back, so no way to get back wrong.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
