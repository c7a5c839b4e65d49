//! What cannot be taken over is refused with its reason, and nothing is changed.

use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::{layout::World, stage::PATIENCE};

fn codes(told: &str) -> Vec<String> {
    let told: Value = serde_json::from_str(told).unwrap_or_else(|error| panic!("{error}: {told}"));
    let obstacles = told["obstacles"].as_array().unwrap().iter();
    obstacles.map(|it| it["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_cannot_be_taken_over_stays_as_it_is() {
    let world = World::new(2, "iptables-nft").await;
    let before = world.shown();
    let refused = |code: &str| {
        for verb in ["check", "import"] {
            let (done, told, complaint) = world.migrate(verb);
            assert!(!done && codes(&told).contains(&code.to_owned()), "{verb}: {code}: {told} {complaint}");
        }
        assert_eq!(world.shown(), before, "{code}");
    };
    let socket = UnixListener::bind(world.checkpoint().with_file_name("ipamd.sock")).unwrap();
    refused("IPAM-351");
    drop(socket);
    std::fs::remove_file(world.checkpoint().with_file_name("ipamd.sock")).unwrap();
    let former = world.node().listen("127.0.0.1:50051".parse().unwrap()).unwrap();
    refused("IPAM-351");
    drop(former);
    world.write(&json!({ "version": "vpc-cni-ipam/2", "allocations": [] }));
    refused("IPAM-352");
    world.write_checkpoint();
    world.worker.set("AWS_VPC_K8S_CNI_BACKING_STORE", world.checkpoint().to_str().unwrap());
    let socket = UnixListener::bind(world.checkpoint().with_file_name("ipamd.sock")).unwrap();
    world.worker.start_daemon().unwrap();
    world.until_said("IPAM-351 amazon-vpc-cni-k8s runs on this node too").await;
    assert!(world.worker.stop_daemon(PATIENCE).await.unwrap());
    drop(socket);
    world.worker.start_daemon().unwrap();
    world.worker.until_ready(0, PATIENCE).await.unwrap();
    world.until_said("IPAM-360 pods of amazon-vpc-cni-k8s live here").await;
    let (done, _, complaint) = world.migrate("import");
    assert!(!done && complaint.contains("IPAM-310"), "{complaint}");
}
