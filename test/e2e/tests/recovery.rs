//! What a start makes of a node on which somebody else has been at work.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use e2e::{WorkerState, flight};
use lab::wait;

mod stage;

use stage::{PATIENCE, ready_cluster};

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_lost_link_or_address_are_told_of_and_keep_their_addresses() {
    let cluster = ready_cluster(1, 10, &[("WARM_IP_TARGET", "12")]).await;
    let worker = &cluster.workers[0];
    let pods = flight::add(&cluster, &flight::sandboxes(3).unwrap()).await.unwrap();
    worker.kill_daemon().unwrap();
    let [well, unplugged, unassigned] = [0, 1, 2].map(|n| pods[n].place.address);
    let state = WorkerState::read(worker).await.unwrap();
    worker.node().namespace().ip(&format!("link del {}\n", state.routes[&unplugged])).unwrap();
    let eni = pods[2].place.eni.to_string();
    let parameters = [("NetworkInterfaceId", eni.as_str()), ("PrivateIpAddress.1", &unassigned.to_string())];
    cluster.cloud.call("UnassignPrivateIpAddresses", &parameters).await.unwrap();

    worker.start_daemon().unwrap();
    worker.until_ready(1, PATIENCE).await.unwrap();
    for (code, address) in [("IPAM-312", unplugged), ("IPAM-313", unassigned)] {
        let told = || async {
            let log = worker.daemon_log();
            let line = log.lines().find(|line| line.contains(code) && line.contains(&address.to_string()));
            line.map(|_| ()).ok_or(log)
        };
        wait::until(PATIENCE, code, told).await.unwrap();
    }
    assert!(!worker.daemon_log().lines().any(|line| line.contains("IPAM-31") && line.contains(&well.to_string())));

    let more: Vec<_> = flight::sandboxes(11).unwrap().drain(3..).collect();
    let others = flight::add(&cluster, &more).await.unwrap();
    let kept = [well, unplugged, unassigned];
    assert!(!others.iter().any(|pod| kept.contains(&pod.place.address)), "an address was given twice");
    let leases = e2e::observe::leases(worker).await.unwrap();
    assert!(kept.iter().all(|address| leases.contains_key(address)), "{leases:?}");
}
