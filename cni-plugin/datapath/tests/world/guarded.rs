//! A node that a guard keeps right.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use eni_datapath::{Guard, Netns, PodWiring, Repair, add_pod};
use eni_proto::{EniMark, VethPrefix};

use super::{MARK, World, eni_plan, host_plan, ip, snapshot, wiring};

pub const PATIENCE: Duration = Duration::from_secs(20);

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
        let netns = [(); 2].map(|()| Netns::fresh().unwrap());
        let repairs = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&repairs);
        let pods = [
            wiring("c1", "web-1", [10, 0, 1, 1], EniMark::PRIMARY, &netns[0]),
            wiring("c2", "web-2", [10, 0, 1, 2], MARK, &netns[1]),
        ];
        let guard = world.on_node(|| {
            let report = move |repair: &Repair| told.lock().unwrap().push(repair.clone());
            let guard = Guard::start(&VethPrefix::default(), report).unwrap();
            guard.prepare_host(&host_plan()).unwrap();
            guard.prepare_eni(&eni_plan()).unwrap();
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
                ip("rule add priority 777 lookup 77");
                ip("rule del priority 777");
            }
        });
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
