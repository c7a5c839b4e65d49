//! How large the pool is: the warm targets, and instance types that no table has.

use e2e::flight;

use crate::{
    scene::{add_pods, addresses, calls, enis, until_enis, until_status, worker},
    stage::{PATIENCE, ready_cluster, ready_cluster_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn warm_and_minimum_targets_hold_while_pods_come_and_go() {
    let settings = [("WARM_IP_TARGET", "3"), ("MINIMUM_IP_TARGET", "10"), ("IP_COOLDOWN_PERIOD", "5")];
    let cluster = ready_cluster(1, 10, &settings).await;
    until_status(&cluster, "the minimum", |status| status.free == 10).await;

    let pods = add_pods(&cluster, 9).await;
    until_status(&cluster, "three beyond nine pods", |status| status.leased == 9 && status.free == 3).await;
    assert_eq!(enis(&cluster).iter().map(|eni| eni.secondary.len()).sum::<usize>(), 12);

    flight::delete(&cluster, &pods).await.unwrap();
    until_status(&cluster, "all free again", |status| status.leased + status.cooling == 0 && status.free >= 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_interface_is_kept_warm_and_never_more_than_allowed() {
    let cluster = ready_cluster(1, 14, &[("WARM_ENI_TARGET", "1"), ("MAX_ENI", "2")]).await;
    add_pods(&cluster, 20).await;
    until_enis(&cluster, "two full ENIs", |enis| enis.iter().map(|eni| eni.secondary.len()).eq([14, 14])).await;
    assert_eq!(calls(&cluster, "CreateNetworkInterface"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_instance_type_is_asked_for_once_and_remembered() {
    let cluster = ready_cluster_of("x99.4xlarge", 14, &[]).await;
    let pods = add_pods(&cluster, 20).await;
    assert_eq!(calls(&cluster, "DescribeInstanceTypes"), 1);
    assert_eq!(enis(&cluster).len(), addresses(&pods).len().div_ceil(14) + 1, "one ENI is kept warm");

    worker(&cluster).kill_daemon().unwrap();
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(1, PATIENCE).await.unwrap();
    assert_eq!(calls(&cluster, "DescribeInstanceTypes"), 1);
}
