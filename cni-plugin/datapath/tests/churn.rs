//! Pods come and go while others change links all the time: none fails, none asks for a list, and nothing is left.
//!
//! Most pods end as with a daemon: the plugin cuts them off, and the links of all that ended meanwhile are deleted together. The others
//! end as without one. `WIRINGS=100000` makes it long.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use eni_datapath::{
    Guard, Netns, Outcome, Repair, add_pod, del_pod, delete_ended, end_pod, forget_addresses, lists_asked,
    pod_leftovers,
};
use eni_proto::{EniMark, VethPrefix};
use world::{MARK, World, eni_plan, host_plan, ip, wiring};

/// Wirings in the short form: about 50 s on two busy cores.
const FEW: u64 = 10_000;
const AT_ONCE: u8 = 8;
/// Pods that are there or not quite gone.
const NAMESPACES: usize = 200;
/// Of so many pods one ends without a daemon.
const ALONE: u64 = 10;
/// Ten events each: 500 a second.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the daemon gathers links of ended pods.
const GATHERING: Duration = Duration::from_millis(50);

/// Changes a link that is nobody's until `over`, and returns how often.
fn disturb(over: &AtomicBool) -> u64 {
    ip("link add foreign type veth peer name foreign2");
    let mut changer = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = changer.stdin.take().unwrap();
    let (_never, pause) = mpsc::channel::<()>();
    let mut events = 0;
    while !over.load(Ordering::Relaxed) {
        for mtu in 1400..1410 {
            writeln!(lines, "link set foreign mtu {mtu}").unwrap();
        }
        events += 10;
        let _ = pause.recv_timeout(PAUSE);
    }
    drop(lines);
    assert!(changer.wait().unwrap().success());
    ip("link del foreign");
    events
}

/// A pod that was cut off, and the namespace that the next one gets when its link is gone.
struct Ended(IpAddr, Netns);

/// Wires and takes back one pod after the other, until all are done; returns how many lists the ADDs asked for.
fn churn(worker: u8, left: &AtomicU64, empty: &Mutex<mpsc::Receiver<Netns>>, ended: &mpsc::Sender<Ended>) -> u64 {
    let mut lists = 0;
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        let mark = if number % 2 == 0 { MARK } else { EniMark::PRIMARY };
        let netns = empty.lock().unwrap().recv().unwrap();
        // The daemon gives an address again only when it has forgotten the last pod's.
        let [.., high, low] = number.to_be_bytes();
        let pod = wiring(&format!("c{number}"), &format!("web-{number}"), [10, worker, high, low], mark, &netns);
        let before = lists_asked();
        add_pod(&pod).unwrap_or_else(|error| panic!("{number}: {error:?}"));
        lists += lists_asked() - before;
        if number % ALONE == 0 {
            del_pod(&VethPrefix::default(), &pod.key, &pod.pod, None).unwrap();
        } else {
            assert!(end_pod(&VethPrefix::default(), &pod.key, &pod.pod).unwrap().is_some(), "{number}");
        }
        ended.send(Ended(world::address(&pod), netns)).unwrap();
    }
    lists
}

/// What the daemon does after its answers, until nobody is left to ask.
fn clear_up(ended: &mpsc::Receiver<Ended>, empty: &mpsc::Sender<Netns>) {
    while let Ok(first) = ended.recv() {
        let (_never, pause) = mpsc::channel::<()>();
        let _ = pause.recv_timeout(GATHERING);
        let all: Vec<Ended> = std::iter::once(first).chain(ended.try_iter()).collect();
        forget_addresses(&all.iter().map(|Ended(address, _)| *address).collect()).unwrap();
        delete_ended().unwrap();
        // In the end nobody wants them any more.
        all.into_iter().for_each(|Ended(_, netns)| drop(empty.send(netns)));
    }
}

#[allow(clippy::print_stdout, reason = "figures are for people")]
#[test]
fn pods_come_and_go_while_others_change_links_all_the_time() {
    let wirings = std::env::var("WIRINGS").map_or(FEW, |text| text.parse().unwrap());
    let world = World::new();
    let repairs: Arc<Mutex<Vec<Repair>>> = Arc::default();
    let told = Arc::clone(&repairs);
    let guard = world.on_node(|| {
        let guard = Guard::start(&VethPrefix::default(), move |repair| told.lock().unwrap().push(repair.clone()));
        let guard = guard.unwrap();
        guard.prepare_host(&host_plan()).unwrap();
        guard.prepare_eni(&eni_plan()).unwrap();
        guard
    });
    let (left, over) = (AtomicU64::new(wirings), AtomicBool::new(false));
    let (give, empty) = mpsc::channel();
    (0..NAMESPACES).for_each(|_| give.send(Netns::fresh().unwrap()).unwrap());
    let empty = &Mutex::new(empty);
    let (lists, events) = thread::scope(|scope| {
        let disturbing = scope.spawn(|| world.on_node(|| disturb(&over)));
        let (tell, ended) = mpsc::channel();
        let daemon = scope.spawn(|| world.on_node(move || clear_up(&ended, &give)));
        let workers: Vec<_> = (1..=AT_ONCE)
            .map(|worker| {
                let (world, left, tell) = (&world, &left, tell.clone());
                scope.spawn(move || world.on_node(|| churn(worker, left, empty, &tell)))
            })
            .collect();
        drop(tell);
        let lists: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        daemon.join().unwrap();
        over.store(true, Ordering::Relaxed);
        (lists, disturbing.join().unwrap())
    });
    let drift = guard.drift();
    drop(guard);
    let repairs = repairs.lock().unwrap();
    println!(
        "{wirings} wirings beside {events} foreign link events: 0 failed, {lists} lists asked, {} repairs; {} looks of the \
         guard, {} of them in vain",
        repairs.len(),
        drift.looks,
        drift.failed_looks
    );
    // A list that changes while it is told is begun anew; that must not keep the guard blind.
    assert!(drift.failed_looks * 10 <= drift.looks, "{drift:#?}");
    assert_eq!(lists, 0);
    assert_eq!(world.on_node(|| pod_leftovers().unwrap()), Vec::<String>::new());
    let given_up: Vec<_> = repairs.iter().filter(|repair| matches!(repair.outcome, Outcome::LeftAlone(_))).collect();
    assert!(given_up.is_empty(), "{given_up:#?}");
}
