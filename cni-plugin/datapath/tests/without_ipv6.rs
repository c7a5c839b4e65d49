//! A kernel without IPv6, as far as one can be had: its settings are not there, by which we know whether it has any.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{fs, thread, time::Instant};

use eni_datapath::{Guard, HostError, Netns, add_pod, clean_host, del_pod, leftovers, observe_pods};
use eni_proto::{PodAddresses, VethPrefix};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use world::{MARK, World, eni_plan, host_plan, ip, snapshot, wiring};

/// Runs `work` on the node, where nobody finds settings of IPv6.
fn without_ipv6(world: &World, work: impl FnOnce() + Send) {
    const NOTHING: Option<&str> = None;
    thread::scope(|scope| {
        let run = || {
            world.on_node(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(NOTHING, "/", NOTHING, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NOTHING).unwrap();
                // A folder without `ipv6` in the place of the one that has it.
                mount(Some("none"), "/tmp", Some("tmpfs"), MsFlags::empty(), NOTHING).unwrap();
                fs::create_dir_all("/tmp/net/ipv4").unwrap();
                let bind = |from, to| {
                    mount(Some(from), to, NOTHING, MsFlags::MS_BIND | MsFlags::MS_REC, NOTHING).unwrap();
                };
                bind("/proc/sys/net/ipv4", "/tmp/net/ipv4");
                bind("/tmp/net", "/proc/sys/net");
                work();
            });
        };
        scope.spawn(run).join().unwrap();
    });
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + world::guarded::PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}\n{}", snapshot());
    }
}

#[test]
fn pods_with_ipv4_live_as_anywhere_and_the_others_are_refused() {
    let world = World::new();
    without_ipv6(&world, || {
        assert!(!fs::exists("/proc/sys/net/ipv6").unwrap());
        let before = snapshot();
        let guard = Guard::start(&VethPrefix::default(), |_| {}).unwrap();
        let mut both = host_plan();
        both.ipv6 = true;
        let refused = guard.prepare_host(&both).unwrap_err();
        assert!(matches!(refused, HostError::Sysctl(_)), "{refused:?}");
        assert!(refused.to_string().contains("ipv6"), "{refused}");
        assert_eq!(snapshot(), before, "nothing was begun");

        guard.prepare_host(&host_plan()).unwrap();
        guard.prepare_eni(&eni_plan()).unwrap();
        let pod = Netns::fresh().unwrap();
        let four = wiring("c1", "web-0", [10, 0, 1, 7], MARK, &pod);
        let prepared = snapshot();
        let mut dual = four.clone();
        dual.network.addresses = PodAddresses::Dual([10, 0, 1, 7].into(), "2600:1f00::7".parse().unwrap());
        assert!(add_pod(&dual).is_err());
        // Where the ADD was slow the guard has taken what it lacked yet for damage; it takes that back.
        until("undone whole", || snapshot() == prepared);

        add_pod(&four).unwrap();
        assert_eq!(observe_pods(&VethPrefix::default()).unwrap().links.len(), 1);
        ip("rule del priority 512");
        until("the rule is back", || ip("rule").contains("512:"));
        assert!(del_pod(&VethPrefix::default(), &four.key, &four.pod, None).unwrap().is_some());
        drop(guard);
        clean_host().unwrap();
        assert_eq!(leftovers().unwrap(), Vec::<String>::new());
    });
}
