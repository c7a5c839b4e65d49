//! The figures of a flight and the table that shows them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use e2e::{
    Cluster, Trouble, Worker, WorkerState,
    flight::Placed,
    pings::{Tally, Way},
};
use ipam_core::ports::Interface;

/// Times and counts of one flight.
#[derive(Debug)]
pub(crate) struct Figures {
    began: Instant,
    first_add: Option<Instant>,
    first_pod: Option<Instant>,
    last_pod: Option<Instant>,
    adds: Vec<Duration>,
    deletes: Vec<Duration>,
    pings: BTreeMap<Way, Tally>,
}

impl Figures {
    /// To be called when the first daemon is about to start.
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            first_add: None,
            first_pod: None,
            last_pod: None,
            adds: Vec::new(),
            deletes: Vec::new(),
            pings: BTreeMap::new(),
        }
    }

    pub(crate) fn first_add(&mut self) {
        self.first_add = Some(Instant::now());
    }

    pub(crate) fn added(&mut self, pods: &[Arc<Placed>]) {
        self.adds = pods.iter().map(|pod| pod.took).collect();
        self.adds.sort_unstable();
        self.first_pod = pods.iter().map(|pod| pod.ready).min();
        self.last_pod = pods.iter().map(|pod| pod.ready).max();
    }

    pub(crate) fn pinged(&mut self, tallies: BTreeMap<Way, Tally>) {
        self.pings = tallies;
    }

    pub(crate) fn deleted(&mut self, mut took: Vec<Duration>) {
        took.sort_unstable();
        self.deletes = took;
    }

    /// What the DELs took, for people.
    pub(crate) fn deletes(&self) -> String {
        format!("p50 {}, p99 {}", millis(percentile(&self.deletes, 50)), millis(percentile(&self.deletes, 99)))
    }

    /// The whole table.
    pub(crate) async fn table(&self, cluster: &Cluster, pods: &[Arc<Placed>]) -> Result<String, Trouble> {
        let mut text = String::new();
        enis(&mut text, cluster, pods);
        for worker in &cluster.workers {
            node(&mut text, worker).await?;
        }
        self.ways(&mut text, cluster)?;
        self.times(&mut text);
        Ok(text)
    }

    fn ways(&self, text: &mut String, cluster: &Cluster) -> Result<(), Trouble> {
        row(text, format_args!("\n{:<28} {:>6} {:>9}", "pings", "sent", "answered"));
        for (way, tally) in &self.pings {
            row(text, format_args!("{:<28} {:>6} {:>9}", way.to_string(), tally.sent, tally.answered));
        }
        let drops = cluster.lab.drops()?;
        let seen: Vec<String> = cluster.lab.internet_saw()?.keys().map(ToString::to_string).collect();
        row(text, format_args!("{:<28} {:>6}", "packets the fabric dropped", drops.total()));
        row(text, format_args!("{:<28} {}", "sources the internet saw", seen.join(", ")));
        for oddity in cluster.lab.oddities() {
            row(text, format_args!("{:<28} {oddity}", "oddity of the cloud"));
        }
        Ok(())
    }

    fn times(&self, text: &mut String) {
        let since = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), Some(to)) => millis(to.saturating_duration_since(from)),
            _ => "-".to_owned(),
        };
        let slowest = self.adds.last().copied().unwrap_or_default();
        row(text, format_args!("\n{:<28} {}", "daemon start to first pod", since(Some(self.began), self.first_pod)));
        row(text, format_args!("{:<28} {}", "first ADD to last pod", since(self.first_add, self.last_pod)));
        row(
            text,
            format_args!(
                "{:<28} p50 {}, p99 {}, slowest {}",
                "one ADD, exec to result",
                millis(percentile(&self.adds, 50)),
                millis(percentile(&self.adds, 99)),
                millis(slowest)
            ),
        );
    }
}

/// Primary addresses of the nodes: what may be seen on the internet.
pub(crate) fn primaries(cluster: &Cluster) -> BTreeSet<Ipv4Addr> {
    let index = |interface: &Interface| interface.attachment.as_ref().map(|attachment| attachment.device_index);
    cluster.lab.described().into_iter().filter(|eni| index(eni) == Some(0)).map(|eni| eni.primary).collect()
}

fn enis(text: &mut String, cluster: &Cluster, pods: &[Arc<Placed>]) {
    row(text, format_args!("{:<8} {:<22} {:<6} {:>9} {:>5}  pods", "node", "ENI", "link", "addresses", "pods"));
    let mut described = cluster.lab.described();
    described.sort_by_key(|eni| eni.attachment.as_ref().map(|a| (a.instance.clone(), a.device_index)));
    for worker in &cluster.workers {
        for eni in &described {
            let Some(attachment) = eni.attachment.as_ref().filter(|a| a.instance == *worker.node().instance()) else {
                continue;
            };
            let mut held: Vec<Ipv4Addr> =
                pods.iter().filter(|pod| pod.place.eni == eni.id).map(|pod| pod.place.address).collect();
            held.sort_unstable();
            let some = match held.as_slice() {
                [] => String::new(),
                [first] => first.to_string(),
                [first, .., last] => format!("{first} .. {last}"),
            };
            row(
                text,
                format_args!(
                    "{:<8} {:<22} eth{:<3} {:>9} {:>5}  {some}",
                    worker.node().name(),
                    eni.id,
                    attachment.device_index,
                    eni.secondary.len(),
                    held.len()
                ),
            );
        }
    }
}

async fn node(text: &mut String, worker: &Worker) -> Result<(), Trouble> {
    let state = WorkerState::read(worker).await?;
    let status = worker.status().await.map_err(Trouble::Broken)?;
    let calls: Vec<String> = worker.ec2_calls().iter().map(|(action, count)| format!("{action} {count}")).collect();
    let total: u64 = worker.ec2_calls().values().sum();
    let memory = worker.daemon_resident_kib().map_or("-".to_owned(), |kib| format!("{:.1} MiB", kib_to_mib(kib)));
    row(
        text,
        format_args!(
            "\n{}: {} leased, {} free, {} cooling; {} rules, {} pod routes, {} nft elements, {} leases in SQLite; ipamd {memory}",
            worker.node().name(),
            status.leased,
            status.free,
            status.cooling,
            state.rules.len(),
            state.routes.len(),
            state.elements.len(),
            state.leases.len(),
        ),
    );
    row(text, format_args!("  EC2 calls: {total} ({})", calls.join(", ")));
    Ok(())
}

fn row(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// The value below which `percent` of the sorted values are; zero when there are none.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn kib_to_mib(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
