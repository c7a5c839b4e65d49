//! Pods come and go while others change links all the time: none fails, none asks for a list, and nothing is left.
//!
//! `WIRINGS=100000` makes it long.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use eni_datapath::{Guard, Netns, Outcome, Repair, add_pod, del_pod, lists_asked, pod_leftovers};
use eni_proto::{EniMark, VethPrefix};
use world::{MARK, World, eni_plan, host_plan, ip, wiring};

/// Wirings in the short form.
const FEW: u64 = 400;
const AT_ONCE: u8 = 8;
/// Ten events each: 500 a second.
const PAUSE: Duration = Duration::from_millis(20);

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

/// Wires and takes back one pod after the other, until all are done; returns how many lists the ADDs asked for.
fn churn(worker: u8, left: &AtomicU64) -> u64 {
    let netns = Netns::fresh().unwrap();
    let mut lists = 0;
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        let mark = if number % 2 == 0 { MARK } else { EniMark::PRIMARY };
        let last = u8::try_from(number % 250).unwrap();
        let pod = wiring(&format!("c{number}"), &format!("web-{worker}"), [10, 0, worker, last], mark, &netns);
        let before = lists_asked();
        add_pod(&pod).unwrap_or_else(|error| panic!("{number}: {error:?}"));
        lists += lists_asked() - before;
        del_pod(&VethPrefix::default(), &pod.key, &pod.pod, None).unwrap();
    }
    lists
}

#[test]
#[allow(clippy::print_stdout, reason = "figures are for people")]
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
    let (lists, events) = thread::scope(|scope| {
        let disturbing = scope.spawn(|| world.on_node(|| disturb(&over)));
        let workers: Vec<_> = (1..=AT_ONCE)
            .map(|worker| {
                let (world, left) = (&world, &left);
                scope.spawn(move || world.on_node(|| churn(worker, left)))
            })
            .collect();
        let lists: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        over.store(true, Ordering::Relaxed);
        (lists, disturbing.join().unwrap())
    });
    drop(guard);
    let repairs = repairs.lock().unwrap();
    println!(
        "{wirings} wirings beside {events} foreign link events: 0 failed, {lists} lists asked, {} repairs",
        repairs.len()
    );
    assert_eq!(lists, 0);
    assert_eq!(world.on_node(|| pod_leftovers().unwrap()), Vec::<String>::new());
    let given_up: Vec<_> = repairs.iter().filter(|repair| matches!(repair.outcome, Outcome::LeftAlone(_))).collect();
    assert!(given_up.is_empty(), "{given_up:#?}");
}
