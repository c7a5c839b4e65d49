//! What a runtime asks of a pod that was taken over: CHECK, STATUS and GC.

use std::collections::BTreeSet;

use e2e::{Verb, WorkerState};
use serde_json::{Value, json};

use crate::{
    layout::{Placed, World, link},
    stage::PATIENCE,
};

/// More than one ENI has addresses for.
const PODS: usize = 20;

/// What the incumbent's ADD reported: no way out, the ENI's table in the place of a hardware address, and a link that never was.
fn reported(pod: &Placed) -> Value {
    let host = link(&pod.sandbox);
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [
            { "name": host },
            { "name": "eth0", "mac": (pod.device + 1).to_string(), "sandbox": pod.sandbox.netns },
            { "name": host.replacen("eni", "dummy", 1), "mac": "0", "sandbox": pod.device.to_string() },
        ],
        "ips": [{ "interface": 1, "address": format!("{}/32", pod.address) }],
        "dns": {},
    })
}

async fn failure(
    world: &World,
    verb: Verb,
    pod: &Placed,
    field: &str,
    value: Value,
) -> Option<e2e::plugin::CniFailure> {
    let mut configuration = world.worker.configuration();
    (configuration["cniVersion"], configuration[field]) = ("1.1.0".into(), value);
    world.worker.plugin_given(verb, &pod.sandbox, &configuration).await.unwrap().failure().cloned()
}

async fn gc(world: &World, valid: &[Placed]) {
    let attachment = |pod: &Placed| json!({ "containerID": pod.sandbox.container_id, "ifname": "eth0" });
    let valid: Vec<Value> = valid.iter().map(attachment).collect();
    assert_eq!(failure(world, Verb::Gc, &world.pods[0], "cni.dev/valid-attachments", valid.into()).await, None);
}

/// Each lease with its pod's link, as the database and the kernel say.
async fn kept(world: &World) -> WorkerState {
    WorkerState::read(&world.worker).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_taken_over_is_checked_kept_and_collected_as_one_of_ours() {
    let world = World::new(PODS, "iptables-nft").await;
    let (done, told, complaint) = world.migrate("import");
    assert!(done, "{told} {complaint}");
    world.worker.start_daemon().unwrap();
    world.worker.until_ready(0, PATIENCE).await.unwrap();
    let devices: BTreeSet<u8> = world.pods.iter().map(|pod| pod.device).collect();
    assert!(devices.len() > 1, "on the primary ENI and on another one: {devices:?}");

    assert_eq!(failure(&world, Verb::Status, &world.pods[0], "prevResult", Value::Null).await, None);
    for pod in &world.pods {
        let different = failure(&world, Verb::Check, pod, "prevResult", reported(pod)).await;
        assert_eq!(different, None, "{} of ENI {}", pod.sandbox.name, pod.device);
    }
    let all = kept(&world).await;
    assert_eq!((all.leases.len(), all.links.len(), all.routes.len()), (PODS, PODS, PODS), "{all:?}");
    gc(&world, &world.pods).await;
    assert_eq!(kept(&world).await, all, "all were listed");

    let (listed, gone) = world.pods.split_at(PODS - 2);
    gc(&world, listed).await;
    let left = kept(&world).await;
    assert_eq!(left.leases.keys().copied().collect::<Vec<_>>(), {
        let mut addresses: Vec<_> = listed.iter().map(|pod| pod.address).collect();
        addresses.sort();
        addresses
    });
    for pod in gone {
        let shown = world.shown().join("\n");
        assert!(!shown.contains(&pod.address.to_string()) && !shown.contains(&link(&pod.sandbox)), "{shown}");
        assert!(!pod.sandbox.pod.namespace().run(&["ip", "-o", "link"]).unwrap().contains("eth0"));
    }
    for pod in listed {
        assert_eq!(failure(&world, Verb::Check, pod, "prevResult", reported(pod)).await, None, "{}", pod.sandbox.name);
    }
}
