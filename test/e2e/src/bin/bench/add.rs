//! A warm ADD, from exec to result, in turn with the floor and with Debian's ptp and host-local; then STATUS and DEL.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use e2e::{Binaries, Cloud, CloudKind, Cluster, ClusterPlan, Sandbox, Trouble, Worker};
use lab::{Namespace, Pod};
use serde_json::{Value, json};

use crate::{
    floor,
    report::{Good, Row, Samples},
};

/// Debian's package containernetworking-plugins.
const PEERS: &str = "/usr/lib/cni";
const PATIENCE: Duration = Duration::from_secs(120);
/// As many addresses as runs, and more than the primary ENI has: the floor wires pods of a secondary one.
const READY: u32 = 200;

/// A runtime that polls STATUS waits for the answer without a deadline.
const STATUS_LIMIT_MILLISECONDS: f64 = 5.0;

/// Times `runs` of each in turn, each with a fresh sandbox that is not part of the time.
pub(crate) async fn measure(binaries: Binaries, runs: usize) -> Result<Vec<Row>, Trouble> {
    println!("a warm ADD, STATUS and DEL: {runs} runs each of the plugin, raw netlink, and ptp with host-local");
    let settings =
        vec![("WARM_IP_TARGET".to_owned(), "5".to_owned()), ("MINIMUM_IP_TARGET".to_owned(), "230".to_owned())];
    let plan = ClusterPlan { instance_type: "m5.4xlarge".to_owned(), settings, ..ClusterPlan::small(binaries) };
    let cluster = Cluster::start(Cloud::start(CloudKind::Sim).await?, &plan).await?;
    let worker = &cluster.workers[0];
    worker.start_daemon()?;
    worker.until_ready(READY, PATIENCE).await?;
    let (mut ours, mut raw, mut peer) = (Samples::default(), Samples::default(), Samples::default());
    let peers = Namespace::fresh("ptp")?;
    // All live until the end: a namespace that goes away keeps the kernel's lock for the next one's links.
    let (mut sandboxes, mut others) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        let (sandbox, floor, third) =
            (Sandbox::new(&format!("bench-{run}"), run)?, Pod::new("floor")?, Pod::new("ptp")?);
        ours.add(plugin(worker, "ADD", &sandbox)?);
        raw.add(bare(worker.node().namespace(), &floor, run)?);
        peer.add(ptp(&peers, &third, worker.node().directory(), run)?);
        sandboxes.push(sandbox);
        others.extend([floor, third]);
        if run % 50 == 0 {
            println!("  {run} of {runs}");
        }
    }
    let status = status(worker, runs)?;
    let (mut del, mut deletion) = (Samples::default(), Samples::default());
    for (run, sandbox) in (1..).zip(&sandboxes) {
        del.add(plugin(worker, "DEL", sandbox)?);
        deletion.add(bare_deletion(worker.node().namespace(), run)?);
    }
    let mut limit = Samples::default();
    limit.add(STATUS_LIMIT_MILLISECONDS);
    Ok(vec![
        row("add_warm", ours.clone(), ("raw netlink", raw), 4.0),
        row("add_warm_vs_ptp", ours, ("ptp + host-local", peer), 1.0),
        row("status", status, ("its limit", limit), 1.0),
        row("del", del, ("deleting a link", deletion), 1.0),
    ])
}

fn row(name: &str, measured: Samples, (against, reference): (&'static str, Samples), goal: f64) -> Row {
    let paired = measured.count() == reference.count();
    Row {
        name: name.to_owned(),
        unit: "ms",
        measured,
        against,
        reference,
        goal: Some(goal),
        good: Good::Low,
        paired,
        detail: false,
    }
}

/// One ADD or DEL of the real plugin, in milliseconds.
fn plugin(worker: &Worker, verb: &str, sandbox: &Sandbox) -> Result<f64, Trouble> {
    let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={}", sandbox.name);
    let environment = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", &sandbox.container_id),
        ("CNI_NETNS", &sandbox.netns),
        ("CNI_ARGS", &arguments),
    ];
    exec(worker.node().namespace(), &worker.binaries().plugin, &environment, &worker.configuration())
}

/// STATUS of a node with pods, in milliseconds.
fn status(worker: &Worker, runs: usize) -> Result<Samples, Trouble> {
    let mut configuration = worker.configuration();
    if let Some(version) = configuration.get_mut("cniVersion") {
        *version = "1.1.0".into();
    }
    let mut samples = Samples::default();
    for _ in 0..runs {
        let environment = [("CNI_COMMAND", "STATUS")];
        samples.add(exec(worker.node().namespace(), &worker.binaries().plugin, &environment, &configuration)?);
    }
    Ok(samples)
}

/// One wiring in raw netlink, in milliseconds.
fn bare(node: &Namespace, pod: &Pod, run: usize) -> Result<f64, Trouble> {
    let [.., high, low] = run.to_be_bytes();
    let address = Ipv4Addr::new(192, 168, high, low);
    let wired = node.inside(|| {
        let sockets = floor::open()?;
        let started = Instant::now();
        floor::wire(&sockets, &pod.netns(), &format!("floor{run}"), address)?;
        Ok::<_, std::io::Error>(milliseconds(started.elapsed()))
    })?;
    wired.map_err(Trouble::os("wire a pod in raw netlink"))
}

/// The deletion of one link that [`bare`] made, in milliseconds.
fn bare_deletion(node: &Namespace, run: usize) -> Result<f64, Trouble> {
    let deleted = node.inside(|| {
        let sockets = floor::open()?;
        let started = Instant::now();
        floor::delete(&sockets, &format!("floor{run}"))?;
        Ok::<_, std::io::Error>(milliseconds(started.elapsed()))
    })?;
    deleted.map_err(Trouble::os("delete a link in raw netlink"))
}

/// One ADD of Debian's ptp with host-local, in milliseconds.
fn ptp(namespace: &Namespace, pod: &Pod, folder: &Path, run: usize) -> Result<f64, Trouble> {
    let configuration = json!({
        "cniVersion": "1.0.0", "name": "peer", "type": "ptp",
        "ipam": { "type": "host-local", "subnet": "10.99.0.0/16", "dataDir": folder.join("host-local") },
    });
    let (container, netns) = (format!("peer{run}"), pod.netns().display().to_string());
    let environment = [("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", container.as_str()), ("CNI_NETNS", &netns)];
    exec(namespace, &Path::new(PEERS).join("ptp"), &environment, &configuration)
}

/// Runs a plugin as a runtime does, and returns the milliseconds from exec to its end.
fn exec(
    namespace: &Namespace,
    program: &Path,
    environment: &[(&str, &str)],
    configuration: &Value,
) -> Result<f64, Trouble> {
    let input = configuration.to_string();
    let run = || {
        let mut command = Command::new(program);
        command.env_clear().envs([("CNI_IFNAME", "eth0"), ("CNI_PATH", PEERS)]);
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        Ok::<_, std::io::Error>((started.elapsed(), output))
    };
    let (took, output) = namespace.inside(run)?.map_err(Trouble::os("run a plugin"))?;
    if !output.status.success() {
        let words = [output.stdout, output.stderr].concat();
        return Err(Trouble::Broken(format!("{}: {}", program.display(), String::from_utf8_lossy(&words))));
    }
    Ok(milliseconds(took))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
