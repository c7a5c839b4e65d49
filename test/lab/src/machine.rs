//! Processes and mounts of a node's own, for programs that leave things in `/run`, `/var/lib` and the process table.
//!
//! A container runtime writes to paths that no setting moves, and its sandboxes outlive it. Here it finds an empty `/run`, a
//! private copy of `/var/lib`, and a process table that ends as a whole: with the machine, or with the process that made it.

use std::{
    fs::{self, File},
    future::ready,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use crate::{Daemon, LabError, Namespace, wait};

/// Where the kernel's control groups are.
const CGROUPS: &str = "/sys/fs/cgroup";
/// First part of the name of each machine's control group; the id of the process that made it follows.
const CGROUP_PREFIX: &str = "eni-lab-";
/// How long a machine may take to come up, or to go down.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the machine's first process does: mounts, word that they are there, and a last parent for orphans.
/// It ends on SIGTERM, and all others with it.
const INIT: &str = r#"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns /run/.lib/upper /run/.lib/work
mount -t overlay -o lowerdir=/var/lib,upperdir=/run/.lib/upper,workdir=/run/.lib/work overlay /var/lib
trap 'exit 0' TERM
: > "$1"
while :; do sleep 1000 & wait; done
"#;

/// A node's own processes and mounts. Dropping it ends all of them.
#[derive(Debug)]
pub struct Machine {
    namespace: Arc<Namespace>,
    cgroup: String,
    init: Option<Daemon>,
}

impl Machine {
    /// Boots a machine in the network `network`. Its words go to `machine.log` in `directory`.
    ///
    /// # Errors
    /// [`LabError::NoMachine`] with what the kernel does not allow or have.
    pub(crate) async fn boot(network: &Arc<Namespace>, directory: &Path) -> Result<Self, LabError> {
        remove_cgroups_of_the_dead();
        if hierarchies().is_empty() {
            return Err(LabError::NoMachine { why: format!("no control groups are mounted in {CGROUPS}") });
        }
        let init = start_init(network, directory).await?;
        let open = |name: &str| {
            let path = format!("/proc/{}/ns/{name}", init.pid());
            File::open(&path).map_err(LabError::os(format!("open {path}")))
        };
        let namespace = Arc::new(network.within(open("mnt")?, open("pid_for_children")?)?);
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("{CGROUP_PREFIX}{}-{number}", std::process::id());
        Ok(Self { namespace, cgroup, init: Some(init) })
    }

    /// The node's network together with the machine's processes and mounts: what is started in it sees them only.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// The control group for everything that a runtime starts, as `/eni-lab-4711-1`. It is removed with the machine.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("/{}", self.cgroup)
    }

    /// Ends all processes, and returns when they have ended.
    fn shut_down(&mut self) {
        let Some(init) = self.init.take() else { return };
        // Not SIGKILL to the outer process: it would be gone before those inside are, and their control groups busy.
        let _ = self.namespace.run(&["kill", "-TERM", "1"]);
        let (ended, until_ended) = mpsc::channel();
        thread::spawn(move || {
            let mut init = init;
            let _ = init.wait();
            let _ = ended.send(());
        });
        let _ = until_ended.recv_timeout(PATIENCE);
        remove_cgroup(&self.cgroup);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Starts the first process, and returns when its mounts are there.
async fn start_init(network: &Arc<Namespace>, directory: &Path) -> Result<Daemon, LabError> {
    let (up, log) = (directory.join("machine.up"), directory.join("machine.log"));
    let mut line: Vec<String> =
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-ec", INIT, "init"]
            .map(str::to_owned)
            .into();
    line.push(up.display().to_string());
    let mut init = Daemon::start(network, &line, &[], &log)?;
    let started = wait::until(PATIENCE, "the machine to be up", || {
        ready(match init.ended() {
            _ if up.exists() => Ok(None),
            Ok(None) => Err("it is still starting"),
            Ok(Some(status)) => Ok(Some(status.to_string())),
            Err(error) => Ok(Some(error.to_string())),
        })
    });
    match started.await.map_err(|late| LabError::NoMachine { why: late.to_string() })? {
        None => Ok(init),
        Some(end) => Err(LabError::NoMachine { why: format!("{end}: {}", init.log().trim()) }),
    }
}

/// Folders in which a control group may be made: the one hierarchy of version 2, or those of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let holds_groups = |folder: &PathBuf| folder.join("cgroup.procs").exists();
    let inside = fs::read_dir(CGROUPS).into_iter().flatten().flatten().map(|entry| entry.path());
    match PathBuf::from(CGROUPS) {
        root if holds_groups(&root) => vec![root],
        _ => inside.filter(holds_groups).collect(),
    }
}

fn remove_cgroup(name: &str) {
    for hierarchy in hierarchies() {
        remove_groups(&hierarchy.join(name));
    }
}

/// Removes a control group and those inside. What is in it is made by the kernel and goes with it.
fn remove_groups(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Removes control groups of earlier runs that were killed before they could.
fn remove_cgroups_of_the_dead() {
    for entry in hierarchies().iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(CGROUP_PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove_groups(&entry.path());
        }
    }
}
