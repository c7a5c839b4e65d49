//! Leases that end without a DEL: garbage collection, and sandboxes that are gone.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use e2e::{Cluster, Sandbox, Verb, Worker, WorkerState, observe, plugin::NETWORK};
use eni_proto::{numbers::ENDED_LINK_GROUP, wire};
use lab::wait;

mod stage;

use stage::{PATIENCE, client, key, ready_cluster};

async fn add(worker: &Worker, sandbox: &Sandbox) -> std::net::Ipv4Addr {
    let run = worker.plugin(Verb::Add, sandbox).await.unwrap();
    run.address().unwrap_or_else(|| panic!("{}: {run:?}\n{}", sandbox.name, worker.daemon_log()))
}

async fn until_leases(worker: &Worker, wanted: usize) -> WorkerState {
    let as_wanted = || async {
        let state = WorkerState::read(worker).await.map_err(|trouble| trouble.chain())?;
        if state.leases.len() == wanted { Ok(state) } else { Err(format!("{:?}", state.leases)) }
    };
    wait::until(PATIENCE, &format!("{wanted} lease(s)"), as_wanted).await.unwrap()
}

/// A sandbox whose namespace has a name in a folder, as runtimes do it, and that name.
fn named_sandbox(cluster: &Cluster, name: &str, number: usize) -> (Sandbox, PathBuf) {
    let folder = cluster.workers[0].node().directory().join("netns");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let mut sandbox = Sandbox::new(name, number).unwrap();
    symlink(&sandbox.netns, &path).unwrap();
    sandbox.netns = path.display().to_string();
    (sandbox, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_ends_every_lease_of_the_network_that_is_not_valid_and_no_other() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let sandboxes: Vec<Sandbox> = (1..=3).map(|n| Sandbox::new(&format!("pod-{n}"), n).unwrap()).collect();
    for sandbox in &sandboxes {
        add(worker, sandbox).await;
    }
    let mut client = client(worker).await;
    let gc = |network: &str, valid: &[&Sandbox]| wire::GcRequest {
        network: network.to_owned(),
        valid: valid.iter().map(|sandbox| key(sandbox)).collect(),
    };

    let elsewhere = client.gc(gc("another-network", &[])).await.unwrap().into_inner();
    assert_eq!(elsewhere.released, 0, "leases of other networks stay");
    let first = client.gc(gc(NETWORK, &[&sandboxes[0], &sandboxes[2]])).await.unwrap().into_inner();
    assert_eq!(first.released, 1);
    let state = WorkerState::read(worker).await.unwrap();
    let mut left: Vec<&String> = state.leases.values().collect();
    left.sort();
    assert_eq!(left, [&sandboxes[0].container_id, &sandboxes[2].container_id]);
    let again = client.gc(gc(NETWORK, &[&sandboxes[0], &sandboxes[2]])).await.unwrap().into_inner();
    assert_eq!(again.released, 0, "repeatable");
    assert_eq!(client.gc(gc(NETWORK, &[])).await.unwrap().into_inner().released, 2, "nothing is valid");
    assert_eq!(worker.status().await.unwrap().leased, 0);

    for wrong in [gc("", &[]), wire::GcRequest { valid: vec![wire::PodKey::default()], ..gc(NETWORK, &[]) }] {
        assert_eq!(client.gc(wrong).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    }
}

/// What the node's kernel remembers of connections of an address.
fn connections(worker: &Worker, address: std::net::Ipv4Addr) -> Vec<String> {
    let all = worker.node().namespace().run(&["cat", "/proc/net/nf_conntrack"]).unwrap();
    all.lines().filter(|line| line.contains(&format!("={address} "))).map(str::to_owned).collect()
}

async fn until_forgotten(worker: &Worker, address: std::net::Ipv4Addr) {
    let forgotten = || async {
        let left = connections(worker, address);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    };
    wait::until(PATIENCE, "connections to be forgotten", forgotten).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connections_of_a_released_address_are_forgotten_also_by_the_next_daemon() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let (one, other) = (Sandbox::new("one", 1).unwrap(), Sandbox::new("other", 2).unwrap());
    let talks = |sandbox: &Sandbox| {
        sandbox.pod.namespace().inside(|| {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            // Nobody needs to be there: it is remembered what left the node.
            socket.send_to(b"hello", "10.0.3.200:9").unwrap();
        })
    };
    let addresses = [add(worker, &one).await, add(worker, &other).await];
    for (sandbox, address) in [(&one, addresses[0]), (&other, addresses[1])] {
        talks(sandbox).unwrap();
        assert_eq!(connections(worker, address).len(), 1);
    }
    worker.plugin(Verb::Del, &one).await.unwrap();
    until_forgotten(worker, addresses[0]).await;
    assert_eq!(connections(worker, addresses[1]).len(), 1, "the other pod's stay");

    // The plugin leaves a note.
    worker.kill_daemon().unwrap();
    assert_eq!(worker.plugin(Verb::Del, &other).await.unwrap().failure(), None);
    assert_eq!(connections(worker, addresses[1]).len(), 1);
    worker.start_daemon().unwrap();
    until_forgotten(worker, addresses[1]).await;
    assert!(!worker.daemon_log().contains("IPAM-312"), "{}", worker.daemon_log());
}

/// Must hold within 5 s; the figure is printed, the machine decides what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_went_without_a_del_gives_its_address_back() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let (named, path) = named_sandbox(&cluster, "cni-1", 1);
    let of_process = Sandbox::new("of-process", 2).unwrap();
    let (alive, _) = named_sandbox(&cluster, "cni-3", 3);
    for sandbox in [&named, &of_process, &alive] {
        add(worker, sandbox).await;
    }
    // No lease as young as an ADD that is still under way is touched.
    let begun = std::time::Instant::now();
    fs::remove_file(path).unwrap();
    drop((named, of_process));

    let state = until_leases(worker, 1).await;
    println!("two orphans were free for cooling after {:?}", begun.elapsed());
    assert_eq!(state.leases.values().collect::<Vec<_>>(), [&alive.container_id]);
    assert_eq!((state.links.len(), state.routes.len()), (1, 1));
    assert_eq!(worker.status().await.unwrap().cooling, 2);
    assert!(worker.daemon_log().contains("went without a DEL"), "{}", worker.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_only_lost_its_name_keeps_its_address() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let (unlinked, path) = named_sandbox(&cluster, "cni-1", 1);
    let (gone, gone_path) = named_sandbox(&cluster, "cni-2", 2);
    let address = add(worker, &unlinked).await;
    add(worker, &gone).await;
    fs::remove_file(path).unwrap();
    fs::remove_file(gone_path).unwrap();
    drop(gone);

    // When the one is found, the other was looked at too.
    let state = until_leases(worker, 1).await;
    assert_eq!(state.leases.get(&address), Some(&unlinked.container_id));
    assert!(state.routes.contains_key(&address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_went_while_the_daemon_was_away_is_found_by_the_next() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let (named, path) = named_sandbox(&cluster, "cni-1", 1);
    add(worker, &named).await;
    worker.kill_daemon().unwrap();
    fs::remove_file(path).unwrap();
    drop(named);

    worker.start_daemon().unwrap();
    let state = until_leases(worker, 0).await;
    assert_eq!(state.leftovers(), [""; 0]);
}

/// A DEL answers before the kernel has deleted the link; the daemon that promised to do it dies in between.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_a_killed_daemon_was_to_delete_go_with_the_next_start() {
    let cluster = ready_cluster(1, 6, &[]).await;
    let worker = &cluster.workers[0];
    let sandboxes: Vec<Sandbox> = (1..=5).map(|n| Sandbox::new(&format!("pod-{n}"), n).unwrap()).collect();
    for sandbox in &sandboxes {
        add(worker, sandbox).await;
    }
    for sandbox in &sandboxes[..3] {
        assert_eq!(worker.plugin(Verb::Del, sandbox).await.unwrap().failure(), None);
    }
    worker.kill_daemon().unwrap();
    // A plugin was killed too, before it told the daemon.
    let namespace = worker.node().namespace();
    let state = observe::leases(worker).await.unwrap();
    let (address, _) = state.iter().find(|(_, container)| **container == sandboxes[3].container_id).unwrap();
    let route = namespace.run(&["ip", "route", "show", &address.to_string(), "table", "20000"]).unwrap();
    let link = route.split(' ').nth(2).unwrap();
    let shown = namespace.run(&["ip", "-o", "link", "show", link]).unwrap();
    let alias = shown.split_whitespace().find(|word| word.starts_with("eni-cni:1:")).unwrap();
    let group = ENDED_LINK_GROUP;
    namespace
        .ip(&format!("route del {address} table 20000\nlink set {link} group {group} alias \"ended {alias}\"\n"))
        .unwrap();

    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    let state = WorkerState::read(worker).await.unwrap();
    assert_eq!((state.links.len(), state.routes.len(), state.leases.len()), (1, 1, 2), "{state:#?}");
    for sandbox in &sandboxes {
        assert_eq!(worker.plugin(Verb::Del, sandbox).await.unwrap().failure(), None);
    }
    assert_eq!(WorkerState::read(worker).await.unwrap().leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_note_is_honoured_as_soon_as_it_is_there() {
    let cluster = ready_cluster(1, 4, &[]).await;
    let worker = &cluster.workers[0];
    let sandbox = Sandbox::new("noted", 1).unwrap();
    add(worker, &sandbox).await;
    let wire::PodKey { network, container_id, interface } = key(&sandbox);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap() + Duration::from_secs(1);
    let folder = worker.released_directory();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".half"), format!("eni-cni:1 {network} {container_id} {interface} {}\n", at.as_millis()))
        .unwrap();
    let begun = std::time::Instant::now();
    fs::rename(folder.join(".half"), folder.join("whole")).unwrap();

    until_leases(worker, 0).await;
    println!("a note was honoured after {:?}", begun.elapsed());
}
