//! `make demo`: two nodes, 80 pods through the real plugin, pings on every way, a table, and nothing left behind.

#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, ValueEnum};
use e2e::{
    Binaries, Cloud, CloudKind, Cluster, ClusterPlan, Trouble,
    flight::{self, Placed},
    pings,
};
use tokio::signal::unix::{SignalKind, signal};

#[path = "demo/machine.rs"]
mod machine;
#[path = "demo/made.rs"]
mod made;
#[path = "demo/say.rs"]
mod say;
#[path = "demo/table.rs"]
mod table;

use say::Say;
use table::Figures;

/// How long two nodes may take from nothing to ready.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// Shows the whole chain on real parts: two nodes, pods with VPC addresses, and packets that a VPC would deliver.
#[derive(Debug, Parser)]
#[command(after_help = "Exit code 0: everything held. 1: something did not; the last lines say what.")]
struct Arguments {
    /// The cloud behind the nodes.
    #[arg(long, value_enum, default_value_t = CloudName::Sim)]
    cloud: CloudName,
    /// Take the network and the instances that Terraform made on a LocalStack that runs, from its output `lab` as JSON.
    #[arg(long, conflicts_with = "cloud")]
    made: Option<PathBuf>,
    /// Leave everything up until Ctrl-C, and say how to look inside.
    #[arg(long)]
    keep: bool,
    /// How many pods, over two nodes.
    #[arg(long, default_value_t = 80)]
    pods: usize,
    /// The daemon; default: beside this program.
    #[arg(long)]
    ipamd: Option<PathBuf>,
    /// The plugin; default: beside this program.
    #[arg(long)]
    plugin: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CloudName {
    /// The simulator, in this process.
    Sim,
    /// LocalStack.
    Localstack,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut say = Say::new();
    // Before the runtime: a process with threads cannot change its user namespace.
    let outcome = lab::enter_user_namespace_if_not_root().map_err(Trouble::from).and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(Trouble::os("start a runtime"))?.block_on(fly(&arguments, &mut say))
    });
    match outcome {
        Ok(()) => {
            say.good("everything held");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            say.bad(&trouble.chain());
            ExitCode::FAILURE
        }
    }
}

async fn fly(arguments: &Arguments, say: &mut Say) -> Result<(), Trouble> {
    let before = machine::traces()?;
    let binaries = Binaries::find(arguments.ipamd.clone(), arguments.plugin.clone())?;
    let cluster = cluster(arguments, binaries, say).await?;
    say.step(&format!("VPC {} with 2 m5.xlarge instances and an internet host", cluster.network.vpc_cidr));
    let directory = cluster.lab.directory().to_owned();
    let flown = tokio::select! {
        flown = flight_of(&cluster, arguments, say) => flown,
        interrupted = interruption(arguments.keep) => interrupted,
    };
    if flown.is_err() {
        for worker in &cluster.workers {
            say.log(worker.node().name(), &worker.daemon_log());
        }
    }
    drop(cluster);
    flown?;
    if directory.exists() {
        return Err(Trouble::Broken(format!("left behind: {}", directory.display())));
    }
    let traces: Vec<String> = machine::traces()?.difference(&before).cloned().collect();
    if !traces.is_empty() {
        return Err(Trouble::Broken(format!("left on the machine: {}", traces.join(", "))));
    }
    say.step("lab removed; nothing of it is on the machine");
    Ok(())
}

async fn cluster(arguments: &Arguments, binaries: Binaries, say: &mut Say) -> Result<Cluster, Trouble> {
    if let Some(file) = &arguments.made {
        say.step("taking what Terraform made on LocalStack");
        // The demo's lab has the nodes' subnet only, and Terraform made others for pods.
        let settings = vec![("ENABLE_SUBNET_DISCOVERY".to_owned(), "false".to_owned())];
        return made::cluster(file, &ClusterPlan { settings, ..plan(CloudKind::LocalStack, binaries) }).await;
    }
    let kind = match arguments.cloud {
        CloudName::Sim => CloudKind::Sim,
        CloudName::Localstack => CloudKind::LocalStack,
    };
    say.step(if kind == CloudKind::Sim { "starting the simulated cloud" } else { "starting LocalStack" });
    Cluster::start(Cloud::start(kind).await?, &plan(kind, binaries)).await
}

/// Ends when somebody wants the program to end, so that it still removes what it made.
async fn interruption(keep: bool) -> Result<(), Trouble> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Trouble::os("listen for SIGTERM"))?;
    let interrupt = async {
        if keep {
            // Ctrl-C is the way to end the show.
            std::future::pending().await
        } else {
            tokio::signal::ctrl_c().await
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        heard = interrupt => heard.map_err(Trouble::os("listen for Ctrl-C"))?,
    }
    Err(Trouble::Broken("interrupted".to_owned()))
}

fn plan(kind: CloudKind, binaries: Binaries) -> ClusterPlan {
    // LocalStack draws addresses at random and may draw one twice: the larger the subnet, the less often.
    let subnet = if kind == CloudKind::Sim { "10.0.0.0/22" } else { "10.0.0.0/16" };
    ClusterPlan { workers: 2, subnet: subnet.to_owned(), ..ClusterPlan::small(binaries) }
}

async fn flight_of(cluster: &Cluster, arguments: &Arguments, say: &mut Say) -> Result<(), Trouble> {
    let mut figures = Figures::begin();
    for worker in &cluster.workers {
        worker.start_daemon()?;
    }
    for worker in &cluster.workers {
        let status = worker.until_ready(1, READY_PATIENCE).await?;
        say.step(&format!("{} ready: {} addresses free", worker.node().name(), status.free));
    }
    say.step(&format!("adding {} pods, {} at a time", arguments.pods, flight::AT_ONCE));
    let sandboxes = flight::sandboxes(arguments.pods)?;
    figures.first_add();
    let pods = flight::add(cluster, &sandboxes).await?;
    figures.added(&pods);
    flight::check_present(cluster, &pods).await?;
    say.step("every pod has an address of its own: in SQLite, in the kernel, and on the ENI of its node");
    send_pings(cluster, &pods, say, &mut figures).await?;
    say.table(&figures.table(cluster, &pods).await?);
    if arguments.keep {
        keep(cluster, &pods, say).await?;
    }
    figures.deleted(flight::delete(cluster, &pods).await?);
    flight::check_nothing_left(cluster).await?;
    say.step(&format!(
        "{} pods deleted ({}); no link, rule, route, nft element or lease is left",
        pods.len(),
        figures.deletes()
    ));
    for worker in &cluster.workers {
        if !worker.stop_daemon(Duration::from_secs(10)).await? {
            return Err(Trouble::Broken(format!("ipamd on {} did not end well", worker.node().name())));
        }
    }
    say.step("both daemons stopped");
    Ok(())
}

async fn send_pings(
    cluster: &Cluster,
    pods: &[Arc<Placed>],
    say: &mut Say,
    figures: &mut Figures,
) -> Result<(), Trouble> {
    say.step("pinging: same ENI, across ENIs, across nodes, node to pod, pod to internet");
    let tallies = pings::send_all(cluster, pods).await?;
    let lost: Vec<String> =
        tallies.iter().flat_map(|(way, tally)| tally.lost.iter().map(move |line| format!("{way}: {line}"))).collect();
    let drops = cluster.lab.drops()?;
    figures.pinged(tallies);
    if !lost.is_empty() {
        // A careless cloud gives an address twice; then this is why.
        let odd = cluster.lab.oddities().join("\n");
        return Err(Trouble::Broken(format!(
            "{} pings lost:\n{}\nfabric drops: {drops}\n{odd}",
            lost.len(),
            lost.join("\n")
        )));
    }
    if drops.total() > 0 {
        return Err(Trouble::Broken(format!("the fabric dropped packets:\n{drops}")));
    }
    let primaries = table::primaries(cluster);
    let strangers: Vec<String> = cluster
        .lab
        .internet_saw()?
        .into_keys()
        .filter(|seen| !primaries.contains(seen))
        .map(|a| a.to_string())
        .collect();
    if !strangers.is_empty() {
        return Err(Trouble::Broken(format!("the internet saw {}, no node's primary address", strangers.join(", "))));
    }
    Ok(())
}

async fn keep(cluster: &Cluster, pods: &[Arc<Placed>], say: &mut Say) -> Result<(), Trouble> {
    say.step("left up; look inside from another terminal:");
    for (name, line) in cluster.lab.enter_hints() {
        say.hint(&name, &line);
    }
    for pod in pods.iter().take(4) {
        say.hint(&pod.sandbox.name, &pod.sandbox.pod.namespace().enter_hint());
    }
    for worker in &cluster.workers {
        let (ipamd, socket) = (worker.binaries().ipamd.display(), worker.socket());
        say.hint(&format!("{} pool", worker.node().name()), &format!("{ipamd} status --socket {}", socket.display()));
        // The page is served on the node's loopback: a browser has to be in the node's network.
        let enter = worker.node().namespace().enter_hint();
        say.hint(
            &format!("{} page", worker.node().name()),
            &format!("{enter} chromium --no-sandbox --user-data-dir=$(mktemp -d) http://127.0.0.1:61679/"),
        );
        say.hint(
            &format!("{} log", worker.node().name()),
            &format!("{}/ipamd.log", worker.node().directory().display()),
        );
    }
    say.step("Ctrl-C ends it");
    tokio::signal::ctrl_c().await.map_err(Trouble::os("wait for Ctrl-C"))?;
    Ok(())
}
