//! What somebody else does to the node's ENIs: makes them, closes them for us, changes the primary one.

use std::sync::Arc;

use e2e::{Binaries, Cloud, CloudKind, Cluster, ClusterPlan, Sandbox, Verb, flight};
use ec2_sim::{
    action::{
        AssignPrivateIpAddresses, Change, CreateNetworkInterface, CreateSecurityGroup, ModifyNetworkInterfaceAttribute,
    },
    world::model::{Eni, EniKind, Tags},
};
use ipam_core::SecurityGroupId;

use crate::{
    scene::{add_pods, addresses, attach, calls, enis, make_eni, sim, until_enis, until_status, worker},
    stage::{PATIENCE, cluster, ready_cluster},
};

const NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_must_not_ask_ec2_serves_what_the_metadata_service_shows() {
    let cluster = cluster(1, &[("ENABLE_IMDS_ONLY_MODE", "true"), ("IPAMD_METADATA_SECONDS", "1")]).await;
    let subnet = cluster.network.subnet.clone();
    attach(&cluster, &make_eni(&cluster, &subnet, 10, Tags::new()), 1).await;
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(10, PATIENCE).await.unwrap();
    let _pods = add_pods(&cluster, 10).await;

    // The next pod waits until somebody has given the node more.
    let (waiting, late) = (Arc::clone(worker(&cluster)), Arc::new(Sandbox::new("late", 99).unwrap()));
    let sandbox = Arc::clone(&late);
    let add = tokio::spawn(async move { waiting.plugin(Verb::Add, &sandbox).await });
    let primary = enis(&cluster)[0].id.to_string();
    let give = AssignPrivateIpAddresses { interface: primary, count: Some(3), ..AssignPrivateIpAddresses::default() };
    sim(&cluster).arrange(&give).unwrap();
    let run = add.await.unwrap().unwrap();
    assert!(run.address().is_some(), "{run:?}\n{}", worker(&cluster).daemon_log());
    until_status(&cluster, "the new addresses", |status| status.leased == 11 && status.free == 2).await;
    assert!(worker(&cluster).ec2_calls().is_empty(), "{:?}", worker(&cluster).ec2_calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_not_change_anything_serves_what_others_attach() {
    let cluster = cluster(1, &[("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")]).await;
    let subnet = cluster.network.subnet.clone();
    attach(&cluster, &make_eni(&cluster, &subnet, 10, Tags::new()), 1).await;
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(10, PATIENCE).await.unwrap();
    let pods = add_pods(&cluster, 10).await;
    flight::delete(&cluster, &pods).await.unwrap();

    let asked = worker(&cluster).ec2_calls();
    assert!(asked.keys().all(|action| action.starts_with("Describe")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interfaces_that_are_not_for_pods_are_left_alone() {
    let cluster = cluster(1, &[("WARM_IP_TARGET", "14"), ("IP_COOLDOWN_PERIOD", "5")]).await;
    let subnet = cluster.network.subnet.clone();
    let closed = make_eni(&cluster, &subnet, 6, [(NO_MANAGE.to_owned(), "true".to_owned())].into());
    attach(&cluster, &closed, 1).await;
    let kind = EniKind::Trunk;
    let trunk = CreateNetworkInterface { subnet: subnet.to_string(), kind, ..CreateNetworkInterface::default() };
    let trunk = sim(&cluster).arrange(&trunk).unwrap().id;
    attach(&cluster, &trunk, 2).await;
    let before: Vec<_> = enis(&cluster).into_iter().filter(|eni| eni.id == closed || eni.id == trunk).collect();
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(14, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 28).await;
    let closed_addresses = &before[0].secondary;
    assert!(addresses(&pods).iter().all(|address| !closed_addresses.contains(address)));
    flight::delete(&cluster, &pods).await.unwrap();
    worker(&cluster).set("WARM_IP_TARGET", "1");
    worker(&cluster).start_daemon().unwrap();
    until_enis(&cluster, "the surplus given back", |enis| enis.len() == 3).await;

    let after: Vec<_> = enis(&cluster).into_iter().filter(|eni| eni.id == closed || eni.id == trunk).collect();
    assert_eq!(after, before);
    assert_eq!(calls(&cluster, "CreateNetworkInterface"), 1, "an m5.xlarge has four places, of which two are taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn fabric_adapters_and_other_network_cards_are_left_alone() {
    let launch = vec![
        ("NetworkInterface.1.DeviceIndex", "0"),
        ("NetworkInterface.2.DeviceIndex", "1"),
        ("NetworkInterface.2.InterfaceType", "efa"),
        ("NetworkInterface.2.SecondaryPrivateIpAddressCount", "4"),
        ("NetworkInterface.3.DeviceIndex", "1"),
        ("NetworkInterface.3.NetworkCardIndex", "1"),
        ("NetworkInterface.3.SecondaryPrivateIpAddressCount", "4"),
    ];
    let instance_type = "p4d.24xlarge".to_owned();
    // More than the primary ENI carries.
    let settings = vec![("WARM_IP_TARGET".to_owned(), "52".to_owned())];
    let binaries = Binaries::from_environment().unwrap();
    let plan = ClusterPlan { instance_type, launch, settings, ..ClusterPlan::small(binaries) };
    let cluster = Cluster::start(Cloud::start(CloudKind::Sim).await.unwrap(), &plan).await.unwrap();
    let theirs = |cluster: &Cluster| enis(cluster).into_iter().filter(|eni| is_at(eni, 0, 1) || is_at(eni, 1, 1));
    let before: Vec<_> = theirs(&cluster).collect();
    assert_eq!(before.iter().map(|eni| eni.secondary.len()).collect::<Vec<_>>(), [4, 4]);
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(52, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 10).await;
    assert!(before.iter().flat_map(|eni| &eni.secondary).all(|address| !addresses(&pods).contains(address)));
    assert_eq!(theirs(&cluster).collect::<Vec<_>>(), before);
    assert!(enis(&cluster).iter().any(|eni| is_at(eni, 0, 2)), "{:?}", enis(&cluster));
}

fn is_at(eni: &Eni, card: u8, device_index: u8) -> bool {
    eni.attachment.as_ref().is_some_and(|at| (at.card, at.device_index) == (card, device_index))
}

#[tokio::test(flavor = "multi_thread")]
async fn our_interfaces_follow_the_security_groups_of_the_primary_one() {
    let cluster = ready_cluster(1, 20, &[("WARM_IP_TARGET", "20"), ("IPAMD_METADATA_SECONDS", "1")]).await;
    let vpc = Some(cluster.network.vpc.to_string());
    let create = |name: &str| {
        let (name, description, vpc) = (name.to_owned(), "a new one".to_owned(), vpc.clone());
        sim(&cluster)
            .arrange(&CreateSecurityGroup { name, description, vpc, ..CreateSecurityGroup::default() })
            .unwrap()
    };
    let mut wanted: Vec<SecurityGroupId> = vec![create("one"), create("two")];
    wanted.sort();
    let interface = enis(&cluster)[0].id.to_string();
    let change = Change::Groups(wanted.iter().map(ToString::to_string).collect());
    sim(&cluster).arrange(&ModifyNetworkInterfaceAttribute { interface, change }).unwrap();

    until_enis(&cluster, "the new groups on every ENI", |enis| {
        let groups = |eni: &Eni| {
            let mut groups: Vec<_> = eni.groups.iter().map(|group| group.id.clone()).collect();
            groups.sort();
            groups
        };
        enis.len() == 2 && enis.iter().all(|eni| groups(eni) == wanted)
    })
    .await;
}
