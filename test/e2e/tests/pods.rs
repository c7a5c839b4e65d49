//! Pods through the real plugin and the real daemon on a real kernel.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{collections::BTreeSet, fs, net::Ipv4Addr, sync::Arc, time::Duration};

use e2e::{
    Cluster, PluginRun, Sandbox, Verb, WorkerState,
    flight::{self, Placed},
    observe,
    pings::{self, Place, Way},
};
use lab::wait;

mod stage;

use stage::{PATIENCE, cluster, ready_cluster};

async fn add_pods(cluster: &Cluster, count: usize) -> Vec<Arc<Placed>> {
    let sandboxes = flight::sandboxes(count).unwrap();
    let pods = flight::add(cluster, &sandboxes).await;
    pods.unwrap_or_else(|trouble| panic!("{}\n{}", trouble.chain(), cluster.workers[0].daemon_log()))
}

/// All pings answered, nothing dropped.
async fn all_is_well(cluster: &Cluster, pods: &[Arc<Placed>]) {
    let tallies = pings::send_all(cluster, pods).await.unwrap();
    let lost: Vec<&String> = tallies.values().flat_map(|tally| &tally.lost).collect();
    assert!(lost.is_empty(), "{lost:#?}\n{}", cluster.lab.drops().unwrap());
    assert_eq!(cluster.lab.drops().unwrap().to_string(), "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_pods_come_talk_and_go_without_a_trace() {
    let cluster = ready_cluster(1, 10, &[]).await;
    let pods = add_pods(&cluster, 10).await;

    flight::check_present(&cluster, &pods).await.unwrap();
    all_is_well(&cluster, &pods).await;
    flight::delete(&cluster, &pods).await.unwrap();
    flight::check_nothing_left(&cluster).await.unwrap();
}

/// The fabric is no decoration: a pod whose packets take the wrong ENI is noticed by the ordinary checks.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_eni_is_caught() {
    let cluster = ready_cluster(2, 1, &[]).await;
    // More than the primary ENIs hold, so that there are pods on secondary ones.
    let pods = add_pods(&cluster, 32).await;
    all_is_well(&cluster, &pods).await;
    let worker = &cluster.workers[0];
    let state = WorkerState::read(worker).await.unwrap();
    let marked = state.elements;
    let victim = pods.iter().find(|pod| marked.contains(&pod.place.address)).unwrap();
    let primary = pods.iter().find(|pod| pod.place.worker == 0 && !marked.contains(&pod.place.address)).unwrap();

    // Without its mark the pod's packets leave by the primary ENI. The daemon would mend that before it is seen here.
    worker.kill_daemon().unwrap();
    let address = victim.place.address;
    let takes_mark = format!(
        "table ip somebody {{ chain marks {{ type filter hook prerouting priority -80; ip saddr {address} meta mark set 0; }}; }}\n"
    );
    worker.node().namespace().nft(&takes_mark).unwrap();
    // Nor does the node know any more that the pod is a secondary ENI's, or it would stop them itself.
    worker.node().namespace().ip(&format!("link set {} group 0\n", state.routes[&address])).unwrap();

    let tallies = pings::send_all(&cluster, &pods).await.unwrap();
    assert!(tallies[&Way::AcrossNodes].lost.iter().any(|line| line.contains(&address.to_string())), "{tallies:#?}");
    assert!(flight::check_present(&cluster, &pods).await.is_ok(), "only the packets tell");
    let drops = cluster.lab.drops().unwrap();
    assert!(drops.of(&primary.place.eni) > 0, "{drops}");
    assert!(drops.wrong_source.iter().all(|drop| drop.source == address), "{drops}");
}

/// Every ADD that answered holds its address, no address is held twice, and the rest can be tried again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_dash_nine() {
    let cluster = ready_cluster(1, 14, &[]).await;
    let worker = Arc::clone(&cluster.workers[0]);
    let sandboxes = flight::sandboxes(40).unwrap();
    let everybody = |pods: &[Arc<Sandbox>]| -> Vec<_> {
        pods.iter().map(|sandbox| (Arc::clone(&worker), Arc::clone(sandbox))).collect()
    };

    let adds = tokio::spawn(flight::run_all(Verb::Add, everybody(&sandboxes), 40));
    let some = || async {
        let leases = observe::leases(&worker).await.map_or(0, |leases| leases.len());
        if leases >= 5 { Ok(()) } else { Err(format!("{leases} leases")) }
    };
    wait::until(PATIENCE, "the first leases", some).await.unwrap();
    worker.kill_daemon().unwrap();
    let leased = observe::leases(&worker).await.unwrap().len();
    assert!(leased < 40, "the daemon was killed too late to show anything");
    assert!(!adds.is_finished());

    worker.start_daemon().unwrap();
    let first: Vec<PluginRun> = adds.await.unwrap().unwrap().into_iter().map(|(run, _)| run).collect();
    worker.until_ready(0, PATIENCE).await.unwrap();
    let state = WorkerState::read(&worker).await.unwrap();
    for (sandbox, run) in sandboxes.iter().zip(&first) {
        let Some(address) = run.address() else { continue };
        assert_eq!(state.leases.get(&address), Some(&sandbox.container_id), "{}", sandbox.name);
        assert!(state.routes.get(&address).is_some_and(|link| state.links.contains(link)), "{}", sandbox.name);
    }

    // A runtime tries again; those that have an answer get the same one.
    let second = flight::run_all(Verb::Add, everybody(&sandboxes), 10).await.unwrap();
    let mut addresses: Vec<Ipv4Addr> = Vec::new();
    for ((sandbox, before), (after, _)) in sandboxes.iter().zip(&first).zip(&second) {
        match before.address() {
            Some(address) => addresses.push(address),
            None => addresses.push(after.address().unwrap_or_else(|| panic!("{}: {after:?}", sandbox.name))),
        }
    }
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 40, "an address was given twice: {addresses:?}");
    cluster.settle().await.unwrap();
    let place = |address| Place { worker: 0, eni: cluster.lab.owner(address).unwrap(), address };
    let placed = |(sandbox, address): (&Arc<Sandbox>, &Ipv4Addr)| {
        let (took, ready) = (Duration::ZERO, std::time::Instant::now());
        Arc::new(Placed { sandbox: Arc::clone(sandbox), place: place(*address), took, ready })
    };
    let pods: Vec<Arc<Placed>> = sandboxes.iter().zip(&addresses).map(placed).collect();
    flight::check_present(&cluster, &pods).await.unwrap();
    all_is_well(&cluster, &pods).await;
    flight::delete(&cluster, &pods).await.unwrap();
    flight::check_nothing_left(&cluster).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_add_without_a_daemon_says_so_and_may_be_tried_again() {
    let cluster = cluster(1, &[]).await;
    let worker = &cluster.workers[0];
    let sandbox = Sandbox::new("lonely", 1).unwrap();

    let run = worker.plugin(Verb::Add, &sandbox).await.unwrap();
    let failure = run.failure().unwrap();
    assert_eq!(failure.code, 11, "{failure:?}");
    assert!(format!("{failure:?}").contains(&worker.socket().display().to_string()), "{failure:?}");
    assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_del_without_a_daemon_succeeds_and_the_next_daemon_hears_of_it() {
    let cluster = ready_cluster(1, 2, &[]).await;
    let worker = &cluster.workers[0];
    let pods = add_pods(&cluster, 2).await;
    worker.kill_daemon().unwrap();

    flight::delete(&cluster, &pods).await.unwrap();
    assert_eq!(fs::read_dir(worker.released_directory()).unwrap().count(), 2);
    let state = WorkerState::read(worker).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.leases.len()), (0, 0, 2));

    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    let gone = || async {
        let leases = observe::leases(worker).await.map_err(|trouble| trouble.chain())?.len();
        if leases == 0 { Ok(()) } else { Err(format!("{leases} leases")) }
    };
    wait::until(PATIENCE, "the notes to be honoured", gone).await.unwrap();
    assert_eq!(fs::read_dir(worker.released_directory()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_cannot_be_wired_leaves_no_lease() {
    let cluster = ready_cluster(1, 2, &[]).await;
    let worker = &cluster.workers[0];
    let mut no_namespace = Sandbox::new("no-namespace", 1).unwrap();
    no_namespace.netns = "/etc/hostname".to_owned();
    let mut missing = Sandbox::new("missing", 2).unwrap();
    missing.netns = "/run/netns/is-not-there".to_owned();
    let taken = Sandbox::new("taken", 3).unwrap();
    taken.pod.namespace().ip("link add eth0 type veth peer name other\n").unwrap();

    for sandbox in [&no_namespace, &missing, &taken] {
        let run = worker.plugin(Verb::Add, sandbox).await.unwrap();
        let failure = run.failure().unwrap_or_else(|| panic!("{}: {run:?}", sandbox.name));
        assert!(failure.code > 0 && !failure.message.is_empty(), "{}: {failure:?}", sandbox.name);
        let named = if sandbox.name == "taken" { "eth0" } else { sandbox.netns.as_str() };
        assert!(format!("{failure:?}").contains(named), "{}: {failure:?}", sandbox.name);
    }
    assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
}
