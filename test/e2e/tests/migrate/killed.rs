//! `kill -9` at any time of an import or of a way back; the same command again finishes it.

use std::time::Duration;

use lab::wait;

use crate::{layout::World, traffic::Traffic};

/// Instants at which each command is killed, for a few of all there are.
const TIMES: u32 = 6;

/// Starts a command and kills it this long after; it may have finished by then.
async fn killed(world: &World, verb: &str, after: Duration) {
    let environment = world.worker.daemon_environment();
    let mut daemon = world.worker.node().daemon("migrate", &world.command(verb), &environment).unwrap();
    let _ = wait::until(after, "its end", || {
        std::future::ready(match daemon.ended() {
            Ok(Some(_)) => Ok(()),
            Ok(None) | Err(_) => Err("it runs"),
        })
    })
    .await;
    let _ = daemon.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_on_the_way_is_finished_by_the_next_and_no_packet_is_lost() {
    let world = World::new(20, "iptables-nft").await;
    let traffic = Traffic::start(&world);
    traffic.until(1).await;
    let before = world.shown();
    let started = std::time::Instant::now();
    assert!(world.migrate("import").0);
    let length = started.elapsed();
    assert!(world.migrate("back").0);
    assert_eq!(world.shown(), before);
    for time in 1..=TIMES {
        let after = length * time / TIMES;
        for verb in ["import", "back"] {
            killed(&world, verb, after).await;
            let (done, told, complaint) = world.migrate(verb);
            assert!(done, "{verb} after {after:?}: {told} {complaint}");
            traffic.until(1).await;
        }
        assert_eq!(world.shown(), before, "after {after:?}");
        assert_eq!(world.node().inside(eni_datapath::leftovers).unwrap().unwrap(), [""; 0]);
    }
    let (_, lost) = traffic.end();
    assert_eq!(lost, [""; 0]);
}
