//! `ENABLE_PREFIX_DELEGATION`.

use e2e::{Binaries, Cloud, Cluster, ClusterPlan};
use ec2_sim::{Order, WorldConfig};

use crate::{
    scene::{add_pods, calls, enis, make_eni, until_status, worker},
    stage::{PATIENCE, ready_cluster},
};

#[tokio::test(flavor = "multi_thread")]
async fn forty_pods_live_in_prefixes_which_cost_few_calls() {
    let settings = [("ENABLE_PREFIX_DELEGATION", "true"), ("MINIMUM_IP_TARGET", "48"), ("WARM_IP_TARGET", "1")];
    let cluster = ready_cluster(1, 40, &settings).await;
    let pods = add_pods(&cluster, 40).await;

    let enis = enis(&cluster);
    assert!(enis.iter().all(|eni| eni.secondary.is_empty()), "{enis:?}");
    let in_prefix = |address| enis.iter().flat_map(|eni| &eni.prefixes).any(|prefix| prefix.contains(address));
    assert!(pods.iter().all(|pod| in_prefix(pod.place.address)), "{enis:?}");
    let changes: u64 =
        worker(&cluster).ec2_calls().iter().filter(|(a, _)| !a.starts_with("Describe")).map(|(_, n)| n).sum();
    assert!(changes <= 2, "{:?}", worker(&cluster).ec2_calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragmented_subnet_gives_single_addresses_instead() {
    let binaries = Binaries::from_environment().unwrap();
    // The lowest free address of another block each time: a few of them leave no room for any prefix.
    let world = WorldConfig { order: Order::Scattered, ..WorldConfig::default() };
    let settings = [("ENABLE_PREFIX_DELEGATION", "true"), ("WARM_IP_TARGET", "5")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let plan = ClusterPlan { subnet: "10.0.0.0/24".to_owned(), settings, ..ClusterPlan::small(binaries) };
    let cluster = Cluster::start(Cloud::simulate(world).await.unwrap(), &plan).await.unwrap();
    make_eni(&cluster, &cluster.network.subnet, 16, [].into());
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(5, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 20).await;
    let enis = enis(&cluster);
    assert!(enis.iter().all(|eni| eni.prefixes.is_empty()), "{enis:?}");
    assert_eq!(pods.len(), 20);
    until_status(&cluster, "five free again", |status| status.free >= 5).await;
    // Asked for one /28 each time would be a storm: after the refusal single addresses are asked for.
    assert!(calls(&cluster, "AssignPrivateIpAddresses") <= 16, "{:?}", worker(&cluster).ec2_calls());
}
