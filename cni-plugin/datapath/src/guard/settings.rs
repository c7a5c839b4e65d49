//! Hears of kernel settings that somebody writes and of which the kernel itself tells nobody (`arp_ignore`, `arp_announce`,
//! `accept_ra`): their files under /proc/sys are watched.
//!
//! What is changed past the files, as over netlink, is found with the next look.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    path::PathBuf,
    sync::Arc,
};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::sysctl;

/// A link's index, and a setting of it as under /proc/sys/net. A link that comes back by the same name has other files.
pub(super) type LinkSetting = (u32, String);

/// Concerns every link, and is always there.
const OF_ALL: &str = "ipv4/conf/all/arp_ignore";

pub(super) struct Watches {
    inotify: Arc<Inotify>,
    /// The open file keeps the kernel from forgetting what is watched.
    files: BTreeMap<LinkSetting, (File, WatchDescriptor)>,
}

impl Watches {
    /// Watches what concerns every link.
    pub(super) fn start() -> io::Result<Self> {
        let inotify = Arc::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
        let mut watches = Self { inotify, files: BTreeMap::new() };
        watches.add((0, OF_ALL.to_owned()))?;
        Ok(watches)
    }

    /// What tells of changes.
    pub(super) const fn inotify(&self) -> &Arc<Inotify> {
        &self.inotify
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
