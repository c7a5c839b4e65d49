//! Hears of kernel settings that somebody writes and of which the kernel itself tells nobody (`arp_ignore`, `arp_announce`,
//! `accept_ra`): their files under /proc/sys are watched.
//!
//! What is changed past the files, as over netlink, is found with the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Instant,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::{Kick, listen::Shared};
use crate::sysctl;

/// A link's index, and a setting of it as under /proc/sys/net. A link that comes back by the same name has other files.
pub(super) type LinkSetting = (u32, String);

/// Concerns every link, and is always there: the end of its watch ends the listener.
const OF_ALL: &str = "ipv4/conf/all/arp_ignore";

pub(super) struct Watches {
    inotify: Arc<Inotify>,
    /// The open file keeps the kernel from forgetting what is watched.
    files: BTreeMap<LinkSetting, (File, WatchDescriptor)>,
}

impl Watches {
    /// Starts to listen, on a thread of its own, until this value is dropped.
    pub(super) fn start(shared: &Shared, kicks: &mpsc::Sender<Kick>) -> io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC)?);
        let mut watches = Self { inotify: Arc::clone(&inotify), files: BTreeMap::new() };
        watches.add((0, OF_ALL.to_owned()))?;
        let (shared, kicks) = (shared.clone(), kicks.clone());
        thread::Builder::new().name("settings".to_owned()).spawn(move || {
            while !shared.is_stopped() && inotify.read_events().is_ok() {
                if kicks.send(Kick::Look(Instant::now())).is_err() {
                    return;
                }
            }
        })?;
        Ok(watches)
    }

    /// Watches these and no others. What cannot be watched is compared now and then, as everything is.
    pub(super) fn follow(&mut self, wanted: BTreeSet<LinkSetting>) {
        let inotify = &self.inotify;
        self.files.retain(|setting, (_, watch)| {
            let keep = setting.1 == OF_ALL || wanted.contains(setting);
            if !keep {
                let _ = inotify.rm_watch(*watch);
            }
            keep
        });
        for setting in wanted {
            if !self.files.contains_key(&setting) {
                let _ = self.add(setting);
            }
        }
    }

    fn add(&mut self, setting: LinkSetting) -> io::Result<()> {
        let path: PathBuf = sysctl::path(&setting.1);
        let file = File::open(&path)?;
        let watch = self.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY)?;
        self.files.insert(setting, (file, watch));
        Ok(())
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for (_, watch) in self.files.values() {
            let _ = self.inotify.rm_watch(*watch);
        }
    }
}
