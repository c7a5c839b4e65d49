//! A node that a guard keeps right.

use std::{
    net::Ipv6Addr,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use eni_datapath::{EniPlan, Guard, HostPlan, Netns, PodWiring, Repair, add_pod, observe_pods};
use eni_proto::{EniMark, PodAddresses, VethPrefix};

use super::{MARK, World, eni_plan, host_plan, ip, snapshot, wiring};

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Of the pod of the secondary ENI, in [`Guarded::dual`].
pub const POD_V6: &str = "2600:1f00::b:0:0:1";

/// A node with two pods that a guard keeps right.
pub struct Guarded {
    pub guard: Guard,
    pub repairs: Arc<Mutex<Vec<Repair>>>,
    pub pods: [PodWiring; 2],
    pub world: World,
    pub _netns: [Netns; 2],
}

impl Guarded {
    pub fn new() -> Self {
        Self::on(World::new())
    }

    pub fn on(world: World) -> Self {
        Self::with(world, &host_plan(), &eni_plan(), [None; 2])
    }

    /// Whose pods have addresses of both families.
    pub fn dual() -> Self {
        let world = World::new();
        world.on_node(|| {
            ip("link set eth1 up");
            ip("address add 2600:1f00::10/64 dev eth0 nodad");
            ip("-6 route add default via fe80:ec2::1 dev eth0");
        });
        let host = HostPlan { ipv6: true, ..host_plan() };
        let eni = EniPlan { ipv6: true, primary_v6: "2600:1f00:0:0:b::".parse().ok(), ..eni_plan() };
        Self::with(world, &host, &eni, ["2600:1f00::a:0:0:1", POD_V6].map(|address| address.parse().ok()))
    }

    fn with(world: World, host: &HostPlan, eni: &EniPlan, v6: [Option<Ipv6Addr>; 2]) -> Self {
        let netns = [(); 2].map(|()| Netns::fresh().unwrap());
        let repairs = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&repairs);
        let mut pods = [
            wiring("c1", "web-1", [10, 0, 1, 1], EniMark::PRIMARY, &netns[0]),
            wiring("c2", "web-2", [10, 0, 1, 2], MARK, &netns[1]),
        ];
        for (pod, v6) in pods.iter_mut().zip(v6) {
            pod.network.addresses = PodAddresses::new(pod.network.addresses.v4(), v6).unwrap();
        }
        let guard = world.on_node(|| {
            let report = move |repair: &Repair| told.lock().unwrap().push(repair.clone());
            let guard = Guard::start(&VethPrefix::default(), report).unwrap();
            guard.prepare_host(host).unwrap();
            guard.prepare_eni(eni).unwrap();
            for pod in &pods {
                add_pod(pod).unwrap();
            }
            guard
        });
        let node = Self { guard, repairs, pods, world, _netns: netns };
        // Where an ADD was slow the guard has taken what it lacked yet for damage.
        node.look_again();
        node.repairs.lock().unwrap().clear();
        node
    }

    /// Waits until the guard has told of all that it had seen before, and has looked once more.
    pub fn look_again(&self) {
        let looks = self.guard.drift().looks;
        let deadline = Instant::now() + PATIENCE;
        self.world.on_node(|| {
            // The first of the two may have begun before.
            while self.guard.drift().looks < looks + 2 {
                assert!(Instant::now() < deadline, "{:#?}", self.guard.drift());
                ip("rule add priority 40000 lookup 77");
                ip("rule del priority 40000");
            }
        });
    }

    /// Name of the link of the secondary ENI's pod.
    pub fn pod_link(&self) -> String {
        let links = self.world.on_node(|| observe_pods(&VethPrefix::default()).unwrap().links);
        links.into_iter().find(|link| link.alias.as_ref().is_some_and(|alias| alias.eni_mark == MARK)).unwrap().name
    }

    pub fn repairs(&self) -> Vec<Repair> {
        self.repairs.lock().unwrap().clone()
    }

    /// Waits until the node is as it was, in any order.
    pub fn wait_for(&self, wanted: &str, after: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.world.on_node(settled);
            if found == wanted {
                return;
            }
            let repairs = self.repairs();
            assert!(Instant::now() < deadline, "after {after}: {repairs:#?}\nfound {found}\nwanted {wanted}");
            thread::yield_now();
        }
    }
}

/// Waits until nobody owns the last gate: a program that another test is about to start holds our sockets for a moment.
pub fn until_gate_is_free() {
    let deadline = Instant::now() + PATIENCE;
    while super::tables("list table ip eni_cni_stay").contains("flags owner") {
        assert!(Instant::now() < deadline, "the last gate is still owned");
    }
}

/// The node's state; in which order the kernel tells it does not matter.
pub fn settled() -> String {
    let mut lines: Vec<String> = snapshot().lines().map(str::to_owned).collect();
    let names: Vec<String> = super::ip_json("link")
        .as_array()
        .unwrap()
        .iter()
        .map(|link| link["ifname"].as_str().unwrap().to_owned())
        .collect();
    let settings = names.iter().map(|name| format!("ipv4/conf/{name}/rp_filter"));
    for setting in settings.chain(["ipv4/ip_forward".to_owned(), "ipv4/conf/all/rp_filter".to_owned()]) {
        // While the guard gives a link its name back there is none of the one that was listed.
        let value = std::fs::read_to_string(format!("/proc/sys/net/{setting}")).unwrap_or_default();
        lines.push(format!("{setting} = {value}"));
    }
    lines.sort();
    lines.join("\n")
}
