//! podman as the plugin's client. Unlike containerd it asks for VERSION first, names interfaces freely, and attaches one container to
//! several networks.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{net::Ipv4Addr, sync::Arc};

use e2e::{
    Cluster, Worker, WorkerState,
    runtime::{Podman, SETTINGS, Site},
};
use lab::wait;

mod stage;

use stage::{PATIENCE, cluster};

/// A worker that runs ipamd, with podman on it. Fields are dropped in this order.
struct Stage {
    podman: Podman,
    cluster: Cluster,
}

impl Stage {
    async fn new() -> Self {
        Self::with_workers(1).await
    }

    /// Only the first worker runs anything.
    async fn with_workers(workers: usize) -> Self {
        let cluster = cluster(workers, &SETTINGS).await;
        let worker = &cluster.workers[0];
        let site = Site::prepare(worker, &["podman", "conmon", "runc"]).await;
        let site = Arc::new(site.unwrap_or_else(|trouble| panic!("{}", trouble.chain())));
        worker.start_daemon().unwrap();
        let podman = Podman::start(&site).unwrap_or_else(|trouble| panic!("{}", trouble.chain()));
        site.add_network("storage", PATIENCE).await.unwrap();
        worker.until_ready(4, PATIENCE).await.unwrap();
        Self { podman, cluster }
    }

    fn worker(&self) -> &Arc<Worker> {
        &self.cluster.workers[0]
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.podman.run(arguments).unwrap_or_else(|trouble| panic!("{trouble}"))
    }

    fn start(&self, name: &str, networks: &[&str]) -> String {
        let options: Vec<String> = networks.iter().map(|network| format!("--network={network}")).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.podman.start_container(name, &options, &[]).unwrap_or_else(|trouble| panic!("{trouble}"))
    }

    /// A container's address on a network.
    fn address(&self, container: &str, network: &str) -> Ipv4Addr {
        let described = self.podman.inspect(container).unwrap();
        let address = &described["NetworkSettings"]["Networks"][network]["IPAddress"];
        address.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{described:#}"))
    }

    /// Verbs of the calls so far, each with its interface, without VERSION, which has to come before each of them.
    fn verbs_after_version(&self) -> Vec<String> {
        let calls = self.podman.site().calls();
        for (index, call) in calls.iter().enumerate().filter(|(_, call)| call.verb != "VERSION") {
            assert_eq!(calls[index - 1].verb, "VERSION", "{call:?} was not asked for");
        }
        let others = calls.into_iter().filter(|call| call.verb != "VERSION");
        others.map(|call| format!("{} {}", call.verb, call.interface)).collect()
    }

    /// The primary address of the first worker.
    fn node_address(&self) -> Ipv4Addr {
        let instance = self.worker().node().instance();
        let primary = |eni: &ipam_core::ports::Interface| {
            eni.attachment.as_ref().is_some_and(|slot| slot.instance == *instance && slot.device_index == 0)
        };
        self.cluster.lab.described().into_iter().find(primary).unwrap().primary
    }

    fn assert_answers(&self, address: Ipv4Addr) {
        let ping = self.worker().node().namespace().ping(address, PATIENCE).unwrap();
        assert!(ping.answered, "{}", ping.transcript);
    }

    /// Waits until exactly these addresses are held, in the kernel and in SQLite, all by the container.
    async fn until_only(&self, container: &str, addresses: &[Ipv4Addr]) {
        let only = || async {
            let state = WorkerState::read(self.worker()).await.map_err(|trouble| trouble.chain())?;
            let held = |address| state.leases.get(address).is_some_and(|holder| holder == container);
            let right = addresses.iter().all(|address| held(address) && state.routes.contains_key(address))
                && [state.leases.len(), state.routes.len(), state.links.len()] == [addresses.len(); 3];
            if right { Ok(()) } else { Err(format!("wanted {addresses:?} of {container}; {state:#?}")) }
        };
        wait::until(PATIENCE, "exactly these addresses", only).await.unwrap();
        if addresses.is_empty() {
            assert_eq!(WorkerState::read(self.worker()).await.unwrap().leftovers(), [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_asks_for_the_version_first() {
    let stage = Stage::new().await;
    let id = stage.start("one", &["eni-cni"]);
    let address = stage.address("one", "eni-cni");

    assert_eq!(stage.verbs_after_version(), ["ADD eth0"]);
    stage.until_only(&id, &[address]).await;
    stage.assert_answers(address);

    stage.run(&["rm", "--force", "--time", "0", "one"]);
    assert_eq!(stage.verbs_after_version(), ["ADD eth0", "DEL eth0"]);
    let calls = stage.podman.site().calls();
    assert!(calls.last().unwrap().with_result, "podman hands the cached result back: {calls:?}");
    stage.until_only(&id, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_container_is_on_several_networks_with_interfaces_of_any_name() {
    let stage = Stage::new().await;
    let id = stage.start("one", &["eni-cni:interface_name=front", "storage:interface_name=a.longer_name-1"]);
    let addresses = [stage.address("one", "eni-cni"), stage.address("one", "storage")];

    stage.until_only(&id, &addresses).await;
    for address in addresses {
        stage.assert_answers(address);
    }
    let pid = stage.podman.inspect("one").unwrap()["State"]["Pid"].to_string();
    let links = stage.podman.site().run(&["nsenter", "-t", &pid, "--net", "ip", "-4", "-o", "addr", "show"]).unwrap();
    assert!(links.contains(&format!("front    inet {}/32", addresses[0])), "{links}");
    assert!(links.contains(&format!("a.longer_name-1    inet {}/32", addresses[1])), "{links}");

    stage.run(&["rm", "--force", "--time", "0", "one"]);
    stage.until_only(&id, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_leaves_one_network_and_stays_on_the_other() {
    let stage = Stage::new().await;
    let id = stage.start("one", &["eni-cni", "storage"]);
    let (stays, goes) = (stage.address("one", "eni-cni"), stage.address("one", "storage"));

    stage.run(&["network", "disconnect", "storage", "one"]);
    stage.until_only(&id, &[stays]).await;
    stage.assert_answers(stays);

    stage.run(&["network", "connect", "storage", "one"]);
    let again = stage.address("one", "storage");
    assert_ne!(again, goes, "an address rests after its pod");
    stage.until_only(&id, &[stays, again]).await;
    stage.assert_answers(again);
    stage.run(&["rm", "--force", "--time", "0", "one"]);
    stage.until_only(&id, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_dies_and_starts_again_keeps_its_id_and_gets_a_network() {
    let stage = Stage::new().await;
    let id = stage.start("one", &["eni-cni"]);
    let first = stage.address("one", "eni-cni");

    stage.run(&["kill", "one"]);
    // Nobody waits for the container: podman's own monitor cleans up.
    stage.until_only(&id, &[]).await;
    stage.run(&["start", "one"]);
    let second = stage.address("one", "eni-cni");
    assert_ne!(second, first, "an address rests after its pod");
    stage.until_only(&id, &[second]).await;
    stage.assert_answers(second);

    stage.run(&["rm", "--force", "--time", "0", "one"]);
    stage.until_only(&id, &[]).await;
}

/// portmap is the next plugin of the list. It finds the pod and its host interface in our result.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_node_leads_to_the_container() {
    let stage = Stage::with_workers(2).await;
    let serve = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    let started = stage.podman.start_container("web", &["--network=eni-cni", "--publish=18080:80"], &serve);
    let id = started.unwrap_or_else(|trouble| panic!("{trouble}"));
    stage.until_only(&id, &[stage.address("web", "eni-cni")]).await;

    let neighbour = stage.cluster.workers[1].node().namespace();
    let url = format!("http://{}:18080/hostname", stage.node_address());
    let answer = neighbour.run(&["curl", "-sf", "--retry", "5", "--retry-connrefused", "-m", "10", &url]).unwrap();
    assert_eq!(answer.trim(), &id[..12], "podman names a container after its id");

    stage.run(&["rm", "--force", "--time", "0", "web"]);
    stage.until_only(&id, &[]).await;
    neighbour.run(&["curl", "-sf", "-m", "2", &url]).unwrap_err();
}
