//! What the daemon costs while nothing happens, and how soon it serves: memory, CPU and wake-ups with 250 pods on the node, and the time
//! from exec to the CNI configuration with addresses attached and neither EC2 nor an API server, beside an empty server's start.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::{Binaries, Cloud, CloudKind, Cluster, ClusterPlan, Sandbox, Trouble, Worker, flight};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{service::Routes, transport::Server};

use crate::report::{Good, Row, Samples};

const PODS: usize = 250;
const PATIENCE: Duration = Duration::from_secs(180);
/// What a start and a burst of pods leave to be done has ended by then.
const SETTLING: Duration = Duration::from_secs(40);
/// The goals: MiB, percent of a core, wake-ups a minute, and milliseconds until the configuration is there.
const MOST_MEMORY: f64 = 20.0;
const MOST_CPU: f64 = 0.1;
const MOST_WAKE_UPS: f64 = 60.0;
const LATEST: f64 = 100.0;
const CONFIGURATION: &str = "10-eni-cni.conflist";

/// Measures for a minute with `share` 1, for a part of it otherwise; and `starts` starts.
pub(crate) async fn measure(binaries: Binaries, share: u32, starts: usize) -> Result<Vec<Row>, Trouble> {
    println!("an idle daemon with {PODS} pods, and {starts} cold starts");
    let folder = tempfile::tempdir().map_err(Trouble::os("make a folder"))?;
    let settings = [
        ("WARM_IP_TARGET", "5".to_owned()),
        ("MINIMUM_IP_TARGET", "260".to_owned()),
        ("HOST_CNI_CONFDIR_PATH", folder.path().display().to_string()),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let plan = ClusterPlan { instance_type: "m5.24xlarge".to_owned(), settings, ..ClusterPlan::small(binaries) };
    let cluster = Cluster::start(Cloud::start(CloudKind::Sim).await?, &plan).await?;
    let worker = &cluster.workers[0];
    worker.start_daemon()?;
    worker.until_ready(250, PATIENCE).await?;
    let names = Names::new()?;
    let pods = flight::add(&cluster, &names.sandboxes(PODS)?).await?;
    let mut rows = idle(worker, share).await?;
    rows.push(cold_starts(worker, folder.path(), starts)?);
    drop(pods);
    drop(names);
    Ok(rows)
}

/// Gives this thread, and those that it starts, mounts of their own, which end with the last of them.
pub(crate) fn own_mounts() -> Result<(), Trouble> {
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    };
    private().map_err(std::io::Error::from).map_err(Trouble::os("have mounts of its own"))
}

/// A folder in which network namespaces have names, as a container runtime gives them. A name in `/proc` would have to be looked
/// at again and again.
struct Names(tempfile::TempDir);

impl Names {
    fn new() -> Result<Self, Trouble> {
        let folder = tempfile::tempdir().map_err(Trouble::os("make a folder"))?;
        mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>)
            .map_err(std::io::Error::from)
            .map_err(Trouble::os("mount a folder for names"))?;
        Ok(Self(folder))
    }

    fn sandboxes(&self, count: usize) -> Result<Vec<Arc<Sandbox>>, Trouble> {
        let named = |number| {
            let mut sandbox = Sandbox::new(&format!("pod-{number:02}"), number)?;
            let path = self.0.path().join(format!("cni-{number}"));
            fs::write(&path, "").map_err(Trouble::os("make a file"))?;
            mount(Some(&*sandbox.netns), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(std::io::Error::from)
                .map_err(Trouble::os("name a namespace"))?;
            sandbox.netns = path.display().to_string();
            Ok(Arc::new(sandbox))
        };
        (1..=count).map(named).collect()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        // With all names in it. What stays goes with the mounts.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

async fn idle(worker: &Worker, share: u32) -> Result<Vec<Row>, Trouble> {
    let window = Duration::from_secs(60) / share;
    tokio::time::sleep(SETTLING / share).await;
    let before = Use::of(worker)?;
    tokio::time::sleep(window).await;
    let after = Use::of(worker)?;
    let cpu = 100.0 * (after.cpu_seconds - before.cpu_seconds) / window.as_secs_f64();
    let wake_ups = (after.wake_ups - before.wake_ups) * 60.0 / window.as_secs_f64();
    println!("  where the memory is: {}", after.memory);
    println!("  who woke up: {}", after.threads_since(&before));
    Ok(vec![
        limited("idle_memory", "MiB", after.resident_mib, MOST_MEMORY),
        limited("idle_cpu", "%", cpu, MOST_CPU),
        limited("idle_wake_ups", "/min", wake_ups, MOST_WAKE_UPS),
    ])
}

/// A row whose reference is what it should not exceed.
fn limited(name: &str, unit: &'static str, value: f64, limit: f64) -> Row {
    let (mut measured, mut reference) = (Samples::default(), Samples::default());
    measured.add(value);
    reference.add(limit);
    row(name, unit, (measured, "its limit", reference), Some(1.0))
}

fn row(
    name: &str,
    unit: &'static str,
    (measured, against, reference): (Samples, &'static str, Samples),
    goal: Option<f64>,
) -> Row {
    let (name, good) = (name.to_owned(), Good::Low);
    Row { name, unit, measured, against, reference, goal, good, paired: false, detail: false }
}

/// What a process has used so far.
struct Use {
    resident_mib: f64,
    cpu_seconds: f64,
    wake_ups: f64,
    memory: String,
    /// Wake-ups by thread name.
    threads: Vec<(String, f64)>,
}

impl Use {
    fn of(worker: &Worker) -> Result<Self, Trouble> {
        let pid = worker.daemon_pid().ok_or_else(|| Trouble::Broken("there is no daemon".to_owned()))?;
        let process = Path::new("/proc").join(pid.to_string());
        let read = |path: &Path| fs::read_to_string(path).map_err(Trouble::os("read /proc of the daemon"));
        let rollup = read(&process.join("smaps_rollup"))?;
        let mib = |name: &str| field(&rollup, name) / 1024.0;
        let memory = format!(
            "{:.1} MiB resident: {:.1} its own pages (heap, stacks), {:.1} of files (the program), of which {:.1} in use by others too",
            mib("Rss:"),
            mib("Anonymous:"),
            mib("Rss:") - mib("Anonymous:"),
            mib("Shared_Clean:")
        );
        let (mut cpu, mut threads) = (0.0, Vec::new());
        for task in fs::read_dir(process.join("task")).map_err(Trouble::os("list the daemon's threads"))? {
            let task = task.map_err(Trouble::os("list the daemon's threads"))?.path();
            // Nanoseconds on a CPU are the first number.
            let ran: f64 = read(&task.join("schedstat"))?.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
            cpu += ran / 1e9;
            let name = read(&task.join("comm"))?.trim().to_owned();
            threads.push((name, field(&read(&task.join("status"))?, "voluntary_ctxt_switches:")));
        }
        let wake_ups = threads.iter().map(|(_, count)| count).sum();
        Ok(Self { resident_mib: mib("Rss:"), cpu_seconds: cpu, wake_ups, memory, threads })
    }

    fn threads_since(&self, before: &Self) -> String {
        let was = |name: &str| before.threads.iter().filter(|(other, _)| other == name).map(|(_, n)| n).sum::<f64>();
        let mut names: Vec<&String> = self.threads.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        let is = |name: &str| self.threads.iter().filter(|(other, _)| other == name).map(|(_, n)| n).sum::<f64>();
        let told: Vec<_> = names.iter().map(|name| format!("{name} {}", is(name) - was(name))).collect();
        told.join(", ")
    }
}

/// The number behind a name in a file of /proc.
fn field(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    value.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

fn cold_starts(worker: &Worker, folder: &Path, starts: usize) -> Result<Row, Trouble> {
    worker.cut_ec2();
    let (mut ours, mut empty) = (Samples::default(), Samples::default());
    for _ in 0..starts {
        worker.kill_daemon()?;
        let path = folder.join(CONFIGURATION);
        // Not there before the first one.
        let _ = fs::remove_file(&path);
        let begun = Instant::now();
        worker.start_daemon()?;
        ours.add(until_there(&path, begun)?);
        let started = folder.join("started");
        let _ = fs::remove_file(&started);
        let begun = Instant::now();
        let own = std::env::current_exe().map_err(Trouble::os("find this program"))?;
        let mut command = Command::new(own);
        command.arg("--empty-server").arg(&started).stdout(Stdio::null());
        let mut child = command.spawn().map_err(Trouble::os("start an empty server"))?;
        let took = until_there(&started, begun);
        child.kill().and_then(|()| child.wait()).map_err(Trouble::os("end the empty server"))?;
        empty.add(took?);
    }
    let p50 = ours.percentile(0.5).unwrap_or(f64::NAN);
    println!(
        "  exec to {CONFIGURATION}: p50 {p50:.1} ms, goal {LATEST} ms: {}",
        if p50 <= LATEST { "met" } else { "not met" }
    );
    Ok(row("cold_start", "ms", (ours, "an empty tonic server", empty), None))
}

/// Milliseconds from `begun` until the file is there.
fn until_there(path: &Path, begun: Instant) -> Result<f64, Trouble> {
    while begun.elapsed() < PATIENCE {
        if path.exists() {
            return Ok(begun.elapsed().as_secs_f64() * 1e3);
        }
        std::thread::yield_now();
    }
    Err(Trouble::Broken(format!("{} did not appear", path.display())))
}

/// A gRPC server of the same runtime with nothing to serve; makes the file once it listens, and serves until it is killed.
pub(crate) fn serve_nothing(started: &Path) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = started.with_extension("sock");
        // Of the one before.
        let _ = fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket)?;
        fs::write(started, "")?;
        let server = Server::builder().add_routes(Routes::default());
        server.serve_with_incoming(UnixListenerStream::new(listener)).await.map_err(std::io::Error::other)
    })
}
