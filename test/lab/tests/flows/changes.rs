//! Settings that change while packets flow: a connection keeps the way and the address that it began with.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use eni_datapath::Family;

use crate::{
    flow::{self, Setting},
    probe::{self, Answer, PATIENCE},
    proxy::Proxy,
    world::{Stack, World},
};

/// A connection that stays.
struct Session {
    name: String,
    socket: UdpSocket,
    began_with: Answer,
}

impl Session {
    fn begin(world: &World, from: &str, to: &str) -> Self {
        let (name, target) = (format!("{from} to {to}"), flow::target(to, Family::V4));
        let socket = world.place(from).inside(|| probe::session(target, PATIENCE).unwrap()).unwrap();
        let began_with = probe::ask_over(&socket).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, socket, began_with }
    }

    /// What is not as it was in the beginning.
    fn ask_again(&self) -> Option<String> {
        let now = probe::ask_over(&self.socket).map_err(|error| error.to_string());
        (now.as_ref() != Ok(&self.began_with)).then(|| format!("{}: {now:?} after {:?}", self.name, self.began_with))
    }
}

#[test]
fn an_established_connection_outlives_every_change_of_settings() {
    let mut world = World::new(Stack::V4);
    world.with_proxy(Proxy::Nftables);
    world.keep_nat_gateway();
    let mut wrong = Vec::new();
    for before in Setting::ALL {
        let sessions = world.within(before, |world| {
            let from_pods = ["peer", "internet", "imds", "far-eth1"].map(|to| [("a", to), ("b", to), ("d", to)]);
            let to_pods = [("peer", "b"), ("internet", "balancer-b"), ("internet", "node-1:30021"), ("client", "b")];
            let pairs = from_pods.into_iter().flatten().chain(to_pods);
            pairs.map(|(from, to)| Session::begin(world, from, to)).collect::<Vec<_>>()
        });
        for after in Setting::ALL {
            let found = world.within(after, |_| sessions.iter().filter_map(Session::ask_again).collect::<Vec<_>>());
            wrong.extend(found.into_iter().map(|what| format!("{} -> {}: {what}", before.title(), after.title())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.lab.drops().unwrap().to_string(), "none");
}

#[test]
fn a_connection_that_begins_during_a_change_is_judged_once() {
    let mut world = World::new(Stack::V4);
    world.keep_nat_gateway();
    let (from, to) = (["b", "d"], ["peer", "internet"]);
    let changing = AtomicBool::new(true);
    let failed: usize = thread::scope(|scope| {
        let world = &world;
        scope.spawn(|| {
            for setting in Setting::ALL.iter().cycle() {
                if !changing.load(Ordering::Relaxed) {
                    break;
                }
                world.prepare_hosts(*setting);
            }
        });
        let ask = |(from, to): (&str, &str)| {
            let target = flow::target(to, Family::V4);
            let lost = |_: &u32| probe::ask_udp(target, PATIENCE).is_err();
            world.place(from).inside(|| (0..500).filter(lost).count()).unwrap()
        };
        let failed = from.into_iter().flat_map(|from| to.map(|to| (from, to))).map(ask).sum();
        changing.store(false, Ordering::Relaxed);
        failed
    });
    assert_eq!((failed, world.lab.drops().unwrap().to_string().as_str()), (0, "none"));
}
