//! Tells when files come to or go from folders, by inotify: nobody has to look again and again.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::io::unix::AsyncFd;

/// Folders under watch. The kernel forgets them with this value.
#[derive(Debug)]
pub(crate) struct Folders {
    kernel: AsyncFd<Instance>,
    watched: BTreeMap<PathBuf, WatchDescriptor>,
}

#[derive(Debug)]
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Folders {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// When the user's inotify instances are used up.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        #[allow(
            deprecated,
            reason = "its replacement is unsafe; the value inside owns the descriptor and never replaces it"
        )]
        let kernel = AsyncFd::new(Instance(inotify))?;
        Ok(Self { kernel, watched: BTreeMap::new() })
    }

    /// Watches one more folder. Repeatable.
    ///
    /// # Errors
    /// When it is not there or is none; then nothing is told of it.
    pub(crate) fn watch(&mut self, folder: &Path) -> io::Result<()> {
        if !self.watched.contains_key(folder) {
            let wanted = AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVE
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_ONLYDIR;
            let watch = self.kernel.get_ref().0.add_watch(folder, wanted)?;
            self.watched.insert(folder.to_owned(), watch);
        }
        Ok(())
    }

    /// Waits until a file has come to or gone from one of the folders, or a folder itself has gone. Cancel-safe.
    ///
    /// # Errors
    /// When the kernel no longer tells.
    pub(crate) async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.kernel.readable().await?;
            let events = ready.try_io(|kernel| match kernel.get_ref().0.read_events() {
                Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
                other => other.map_err(io::Error::from),
            });
            // Somebody else cannot have read them, but the kernel may have woken us for nothing.
            let Ok(events) = events else { continue };
            for gone in events?.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_IGNORED)) {
                self.watched.retain(|_, watch| *watch != gone.wd);
            }
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn changes(folders: &mut Folders) -> bool {
        tokio::time::timeout(Duration::from_secs(10), folders.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_that_comes_or_goes_is_told_and_a_new_folder_of_the_same_name_can_be_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("netns");
        let mut folders = Folders::new().unwrap();
        assert!(folders.watch(&folder).is_err(), "it is not there");
        for _ in 0..2 {
            std::fs::create_dir(&folder).unwrap();
            folders.watch(&folder).unwrap();
            folders.watch(&folder).unwrap();
            std::fs::write(folder.join("cni-1"), "").unwrap();
            assert!(changes(&mut folders).await);
            std::fs::remove_file(folder.join("cni-1")).unwrap();
            assert!(changes(&mut folders).await);
            std::fs::remove_dir(&folder).unwrap();
            while !folders.watched.is_empty() {
                assert!(changes(&mut folders).await);
            }
        }
    }
}
