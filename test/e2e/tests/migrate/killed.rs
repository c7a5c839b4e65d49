//! `kill -9` at any time of an import or of a way back; the same command again finishes it.

use std::{collections::BTreeSet, fs, net::Ipv4Addr, time::Duration};

use lab::wait;
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};

use crate::{
    layout::World,
    stage::PATIENCE,
    steps::{Step, Watch},
    traffic::Traffic,
};

/// Instants at which each command is killed, for a few of all there are.
const TIMES: u32 = 6;

/// Starts a command and kills it this long after; it may have finished by then.
async fn killed(world: &World, verb: &str, after: Duration) {
    let environment = world.worker.daemon_environment();
    let mut daemon = world.worker.node().daemon("migrate", &world.command(verb), &environment).unwrap();
    let _ = wait::until(after, "its end", || {
        std::future::ready(match daemon.ended() {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err("it runs"),
        })
    })
    .await;
    let _ = daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_on_the_way_is_finished_by_the_next_and_no_packet_is_lost() {
    let world = World::new(20, "iptables-nft").await;
    let traffic = Traffic::start(&world);
    traffic.until(1).await;
    let before = world.shown();
    let started = std::time::Instant::now();
    assert!(world.migrate("import").0);
    let length = started.elapsed();
    assert!(world.migrate("back").0);
    assert_eq!(world.shown(), before);
    for time in 1..=TIMES {
        let after = length * time / TIMES;
        for verb in ["import", "back"] {
            killed(&world, verb, after).await;
            let (done, told, complaint) = world.migrate(verb);
            assert!(done, "{verb} after {after:?}: {told} {complaint}");
            traffic.until(1).await;
        }
        assert_eq!(world.shown(), before, "after {after:?}");
        assert_eq!(world.node().inside(eni_datapath::leftovers).unwrap().unwrap(), [""; 0]);
    }
    let (_, lost) = traffic.end();
    assert_eq!(lost, [""; 0]);
}

/// One of so many system calls is the last one, unless `EVERY_SYSCALL` is set.
const STRIDE: usize = 97;
/// More than any of them makes.
const MOST_STEPS: usize = 10_000;

/// Starts a command and kills it before its step `nth`, counted from 0. Nothing when it had finished before.
async fn killed_before(world: &World, verb: &str, nth: usize) -> Option<Step> {
    // It stands still until it is watched.
    let shell = ["sh", "-c", "kill -STOP $$; exec \"$@\"", "sh"].map(str::to_owned);
    let line = [shell.as_slice(), &world.command(verb)].concat();
    let mut command = world.worker.node().daemon("migrate", &line, &world.worker.daemon_environment()).unwrap();
    let pid = command.pid();
    let stands = || async {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|error| error.to_string())?;
        if stat.contains("(sh) T") { Ok(()) } else { Err(stat) }
    };
    wait::until(PATIENCE, "the command to stand still", stands).await.unwrap();
    let watched = Watch::command(pid, nth);
    let go_on = async { command.signal(Signal::SIGCONT).unwrap() };
    let (killed, ()) = tokio::join!(watched, go_on);
    let ended = command.wait().unwrap();
    // Whoever is watched is slow, and may have waited for the metadata service longer than it does.
    killed.or_else(|| (!ended.success()).then(|| format!("its own end, {ended}")))
}

/// Addresses in our database, each once for each lease. Nothing when there is none.
async fn leased(world: &World) -> Vec<String> {
    if !world.worker.database().exists() {
        return Vec::new();
    }
    let database = SqliteConnectOptions::new().filename(world.worker.database()).read_only(true);
    let mut database = database.connect().await.unwrap();
    let query = sqlx::query_scalar("SELECT address FROM leases ORDER BY address");
    let addresses = query.fetch_all(&mut database).await.unwrap();
    database.close().await.unwrap();
    addresses
}

/// Addresses in the incumbent's file.
fn given(world: &World) -> Vec<Ipv4Addr> {
    let file: Value = serde_json::from_slice(&fs::read(world.checkpoint()).unwrap()).unwrap();
    let allocations = file["allocations"].as_array().unwrap_or_else(|| panic!("{file:#}"));
    let mut addresses: Vec<Ipv4Addr> =
        allocations.iter().map(|it| it["ipv4"].as_str().unwrap().parse().unwrap()).collect();
    addresses.sort();
    addresses
}

/// What lies beside the node's database, without what is set aside on purpose.
fn files(world: &World) -> BTreeSet<String> {
    let names = fs::read_dir(world.worker.node().directory()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("ipamd.db") && !name.contains(".aside-")).collect()
}

/// How the node is after each way: what the kernel has, who has which address, and which files there are.
struct Ends {
    ours: Vec<String>,
    its: Vec<String>,
    pods: Vec<Ipv4Addr>,
}

impl Ends {
    async fn assert(&self, world: &World, verb: &str, after: &str) {
        let addresses: Vec<String> = {
            let mut texts: Vec<_> = self.pods.iter().map(ToString::to_string).collect();
            texts.sort();
            texts
        };
        if verb == "import" {
            assert_eq!(world.shown(), self.ours, "{after}");
            assert_eq!(leased(world).await, addresses, "{after}");
        } else {
            assert_eq!(world.shown(), self.its, "{after}");
            assert_eq!(given(world), self.pods, "{after}");
            assert_eq!(files(world), BTreeSet::from(["ipamd.db.lock".to_owned()]), "{after}");
            assert_eq!(world.node().inside(eni_datapath::leftovers).unwrap().unwrap(), [""; 0], "{after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_before_any_of_its_system_calls_is_finished_by_the_next() {
    let world = World::new(16, "iptables-nft").await;
    let its = world.shown();
    assert!(world.migrate("import").0);
    let ours = world.shown();
    let mut pods: Vec<_> = world.pods.iter().map(|pod| pod.address).collect();
    pods.sort();
    let ends = Ends { ours, its, pods };
    ends.assert(&world, "import", "undisturbed").await;
    let stride = if std::env::var_os("EVERY_SYSCALL").is_some() { 1 } else { STRIDE };
    for verb in ["back", "import"] {
        let (mut steps, mut nth, begun) = (Vec::new(), 0, std::time::Instant::now());
        while let Some(step) = killed_before(&world, verb, nth).await {
            let after = format!("{verb} killed before step {nth}, {step}");
            let (done, told, complaint) = world.migrate(verb);
            assert!(done, "{after}: {told} {complaint}");
            ends.assert(&world, verb, &after).await;
            let other = if verb == "back" { "import" } else { "back" };
            let (done, told, complaint) = world.migrate(other);
            assert!(done, "{other} after {after}: {told} {complaint}");
            ends.assert(&world, other, &after).await;
            steps.push(step);
            nth += stride;
            assert!(nth < MOST_STEPS, "{verb} never finishes: {steps:?}");
        }
        ends.assert(&world, verb, "undisturbed").await;
        println!("{verb} killed before {} of about {nth} steps in {:.0?}: {steps:?}", steps.len(), begun.elapsed());
    }
}
