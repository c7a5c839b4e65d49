//! The link of an ENI that was attached is noticed when it comes, whatever else changes at the time.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod world;

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use eni_datapath::{MacAddress, WatchError, wait_for_link};
use tokio::{join, runtime, task::yield_now};
use world::{World, ip, ip_json};

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x77]);
const PATIENCE: Duration = Duration::from_secs(20);

fn blocking<T>(work: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_hot_plugged_link_is_noticed_and_one_that_never_comes_is_given_up() {
    let world = World::new();
    let wait = |at_most| world.on_node(|| blocking(wait_for_link(MAC, at_most)));
    let error = wait(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, WatchError::Late { .. }), "{error:?}");

    let index = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| wait(PATIENCE));
        world.plug("eth7", MAC, "f7");
        waiting.join().unwrap().unwrap()
    });
    assert_eq!(world.on_node(|| ip_json("link show eth7"))[0]["ifindex"], index);
    assert_eq!(wait(PATIENCE).unwrap(), index);
}

/// More than the socket holds, while nobody reads; the link comes last.
#[test]
fn a_link_whose_notification_was_lost_is_noticed_all_the_same() {
    let world = World::new();
    let change = |number| format!("link set foreign mtu {}\n", 1400 + number % 10);
    let changes: String = (0..1000).map(change).collect();
    world.on_node(|| ip("link add foreign type veth peer name foreign2"));
    let others = async {
        // Until the other waits.
        for _ in 0..1000 {
            yield_now().await;
        }
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(changes.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
        world.plug("eth7", MAC, "f7");
    };
    let (index, ()) = world.on_node(|| blocking(async { join!(wait_for_link(MAC, PATIENCE), others) }));
    assert_eq!(world.on_node(|| ip_json("link show eth7"))[0]["ifindex"], index.unwrap());
}
