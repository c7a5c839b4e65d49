//! Where new ENIs live: subnets found by their tag, and custom networking.

use ec2_sim::{
    action::{CreateSecurityGroup, CreateTags},
    world::model::Eni,
};

use crate::{
    scene::{add_pods, addresses, calls, enis, make_subnet, sim, until_enis, worker},
    stage::{PATIENCE, cluster},
};

const ROLE: &str = "kubernetes.io/role/cni";

#[tokio::test(flavor = "multi_thread")]
async fn new_interfaces_live_in_the_tagged_subnet_with_most_room() {
    let cluster = cluster(1, &[("WARM_IP_TARGET", "20")]).await;
    make_subnet(&cluster, "10.0.8.0/26", &[(ROLE, "1")]);
    let roomy = make_subnet(&cluster, "10.0.16.0/21", &[(ROLE, "1")]);
    make_subnet(&cluster, "10.0.32.0/20", &[]);
    make_subnet(&cluster, "10.0.48.0/20", &[(ROLE, "0")]);
    make_subnet(&cluster, "10.0.64.0/20", &[(ROLE, "1"), ("cni.networking.k8s.aws/cluster/other", "shared")]);
    worker(&cluster).set("CLUSTER_NAME", "ours");
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(20, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 20).await;
    let enis = enis(&cluster);
    assert!(enis.iter().skip(1).all(|eni| eni.subnet == roomy.id), "{enis:?}");
    assert!(addresses(&pods).iter().any(|address| roomy.cidr.contains(*address)), "{pods:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_subnets_are_known_a_closed_one_carries_no_new_pods() {
    let cluster = cluster(1, &[("WARM_IP_TARGET", "20")]).await;
    let own = cluster.network.subnet.to_string();
    let tags = [(ROLE.to_owned(), "0".to_owned())].into();
    sim(&cluster).arrange(&CreateTags { resources: vec![own], tags }).unwrap();
    let other = make_subnet(&cluster, "10.0.8.0/24", &[(ROLE, "1")]);
    worker(&cluster).start_daemon().unwrap();
    // More than the primary ENI carries, so that another subnet is looked for.
    let in_other = |enis: &[Eni]| enis.iter().skip(1).map(|eni| eni.secondary.len()).sum::<usize>() >= 20;
    until_enis(&cluster, "twenty addresses in the other subnet", in_other).await;
    worker(&cluster).until_ready(20, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 5).await;
    assert!(addresses(&pods).iter().all(|address| other.cidr.contains(*address)), "{pods:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_networking_puts_all_pods_into_the_given_subnet_and_groups() {
    let settings = [("WARM_IP_TARGET", "5"), ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true")];
    let cluster = cluster(1, &settings).await;
    let pods_subnet = make_subnet(&cluster, "10.0.128.0/20", &[]);
    let (vpc, name) = (Some(cluster.network.vpc.to_string()), "pods".to_owned());
    let group = sim(&cluster)
        .arrange(&CreateSecurityGroup {
            name,
            description: "of pods".to_owned(),
            vpc,
            ..CreateSecurityGroup::default()
        })
        .unwrap();
    worker(&cluster).set("ENI_CONFIG_SUBNET", pods_subnet.id.as_str());
    worker(&cluster).set("ENI_CONFIG_SECURITY_GROUPS", group.as_str());
    worker(&cluster).start_daemon().unwrap();
    worker(&cluster).until_ready(5, PATIENCE).await.unwrap();

    let pods = add_pods(&cluster, 20).await;
    assert!(addresses(&pods).iter().all(|address| pods_subnet.cidr.contains(*address)), "{pods:?}");
    let enis = enis(&cluster);
    assert!(enis[0].secondary.is_empty(), "{enis:?}");
    let wanted = |eni: &Eni| eni.groups.iter().map(|group| &group.id).eq([&group]);
    assert!(enis.iter().skip(1).all(wanted), "{enis:?}");
    assert_eq!(calls(&cluster, "DescribeSubnets"), 0, "the metadata service knows the network of an attached ENI");
    until_enis(&cluster, "ENIs that end with the node", |enis| {
        enis.iter().filter_map(|eni| eni.attachment.as_ref()).all(|at| at.delete_on_termination)
    })
    .await;
}
