use std::net::SocketAddr;

use ec2_sim::{
    Delays, SimCloud,
    action::{AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface},
    imds::{self, MetadataEffect, MetadataFault, MetadataFaults},
};
use ipam_core::InstanceId;

use super::{
    client::{ask, serve},
    cloud,
};

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

async fn service() -> (SimCloud, InstanceId, SocketAddr) {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let instance = cloud.run_instance("m5.xlarge", &subnet).unwrap();
    let create = CreateNetworkInterface { subnet: subnet.to_string(), secondary_count: Some(2), ..Default::default() };
    let interface = cloud.call(&create).unwrap().id.to_string();
    let attach = AttachNetworkInterface { interface, instance: instance.to_string(), card: 0, device_index: 1 };
    cloud.call(&attach).unwrap();
    let at = serve(imds::router(cloud.instance(&instance))).await;
    (cloud, instance, at)
}

async fn token(at: SocketAddr) -> String {
    ask(at, "PUT", "/latest/api/token", &[(TTL, "60")], "").await.unwrap().1
}

/// Status and text at a path below `/latest/`.
async fn get(at: SocketAddr, token: &str, path: &str) -> (u16, String) {
    ask(at, "GET", &format!("/latest/{path}"), &[("x-aws-ec2-metadata-token", token)], "").await.unwrap()
}

#[tokio::test]
async fn nothing_is_told_without_a_token() {
    let (_cloud, _, at) = service().await;
    let status = async |method, path, headers: &[(&str, &str)]| ask(at, method, path, headers, "").await.unwrap().0;
    assert_eq!(status("GET", "/latest/meta-data/mac", &[]).await, 401);
    assert_eq!(status("GET", "/latest/meta-data/mac", &[("x-aws-ec2-metadata-token", "no")]).await, 401);
    assert_eq!(status("PUT", "/latest/api/token", &[]).await, 400);
    assert_eq!(status("PUT", "/latest/api/token", &[(TTL, "21601")]).await, 400);
    assert_eq!(status("PUT", "/latest/api/token", &[(TTL, "60"), ("x-forwarded-for", "10.0.0.1")]).await, 403);
    assert_eq!(status("GET", "/latest/api/token", &[(TTL, "60")]).await, 405);
    assert_eq!(status("POST", "/latest/meta-data/mac", &[]).await, 405);
}

#[tokio::test]
async fn the_tree_shows_every_interface_that_is_plugged_in() {
    let (cloud, instance, at) = service().await;
    let token = token(at).await;
    let metadata = cloud.with(|world, _| world.metadata(&instance)).unwrap();
    let (primary, second) = (&metadata.interfaces[0], &metadata.interfaces[1]);
    let mut macs = [format!("{}/", primary.mac), format!("{}/", second.mac)];
    macs.sort();
    for path in ["meta-data/network/interfaces/macs/", "meta-data/network/interfaces/macs"] {
        assert_eq!(get(at, &token, path).await, (200, macs.join("\n")), "{path}");
    }
    let addresses: Vec<_> = second.local_ipv4s.iter().map(ToString::to_string).collect();
    #[rustfmt::skip]
    let table = [
        ("interface-id",           second.interface_id.clone()),
        ("device-number",          "1".to_owned()),
        ("network-card",           "0".to_owned()),
        ("subnet-id",              second.subnet_id.clone()),
        ("vpc-id",                 second.vpc_id.clone()),
        ("security-group-ids",     second.security_group_ids.join("\n")),
        ("local-ipv4s",            addresses.join("\n")),
        ("subnet-ipv4-cidr-block", "10.0.0.0/24".to_owned()),
        ("vpc-ipv4-cidr-blocks",   "10.0.0.0/16".to_owned()),
        ("mac",                    second.mac.to_string()),
    ];
    for (name, wanted) in table {
        let path = format!("meta-data/network/interfaces/macs/{}/{name}", second.mac);
        assert_eq!(get(at, &token, &path).await, (200, wanted), "{path}");
    }
}

#[tokio::test]
async fn the_instance_tells_who_and_where_it_is() {
    let (cloud, instance, at) = service().await;
    let token = token(at).await;
    let metadata = cloud.with(|world, _| world.metadata(&instance)).unwrap();
    #[rustfmt::skip]
    let table = [
        ("meta-data/instance-id",                 instance.to_string()),
        ("meta-data/instance-type",               "m5.xlarge".to_owned()),
        ("meta-data/local-ipv4",                  metadata.local_ipv4.to_string()),
        ("meta-data/mac",                         metadata.mac.to_string()),
        ("meta-data/placement/availability-zone", "us-east-1a".to_owned()),
        ("meta-data/placement/region",            "us-east-1".to_owned()),
        ("meta-data/placement/",                  "availability-zone\nregion".to_owned()),
        ("meta-data/iam/security-credentials/",   "simulated-node-role".to_owned()),
        ("",                                      "dynamic/\nmeta-data/".to_owned()),
    ];
    for (path, wanted) in table {
        assert_eq!(get(at, &token, path).await, (200, wanted), "{path}");
    }
    let document = get(at, &token, "dynamic/instance-identity/document").await.1;
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!((&document["instanceId"], &document["region"]), (&instance.as_str().into(), &"us-east-1".into()));
    let role = get(at, &token, "meta-data/iam/security-credentials/simulated-node-role").await.1;
    let role: serde_json::Value = serde_json::from_str(&role).unwrap();
    assert_eq!(role["Code"], "Success");
    assert_eq!(get(at, &token, "meta-data/public-ipv4").await.0, 404);
}

#[tokio::test]
async fn prefixes_are_listed_where_there_are_any() {
    let (cloud, instance, at) = service().await;
    let token = token(at).await;
    let second = cloud.with(|world, _| world.metadata(&instance)).unwrap().interfaces.remove(1);
    let path = format!("meta-data/network/interfaces/macs/{}/ipv4-prefix", second.mac);
    assert_eq!(get(at, &token, &path).await.0, 404);
    let (interface, prefix_count) = (second.interface_id, Some(2));
    let assign = AssignPrivateIpAddresses { interface, prefix_count, ..Default::default() };
    let prefixes: Vec<_> = cloud.call(&assign).unwrap().prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(get(at, &token, &path).await, (200, prefixes.join("\n")));
}

#[tokio::test]
async fn the_service_can_be_made_to_fail() {
    let (cloud, _, subnet) = cloud(Delays::NONE);
    let instance = cloud.run_instance("m5.xlarge", &subnet).unwrap();
    let faults = MetadataFaults::default();
    let at = serve(imds::router_with(cloud.instance(&instance), faults.clone())).await;
    let token = token(at).await;
    #[rustfmt::skip]
    let table = [
        (MetadataEffect::Status(429),           Some((429, String::new()))),
        (MetadataEffect::Text("x".to_owned()),  Some((200, "x".to_owned()))),
        (MetadataEffect::Half,                  Some((200, "m5.x".to_owned()))),
        (MetadataEffect::BrokenOff,             None),
    ];
    let ask =
        async || ask(at, "GET", "/latest/meta-data/instance-type", &[("x-aws-ec2-metadata-token", &token)], "").await;
    for (effect, wanted) in table {
        faults.inject(MetadataFault::new("/instance-type", 1, effect));
        assert_eq!(ask().await, wanted);
        assert_eq!(ask().await, Some((200, "m5.xlarge".to_owned())));
    }
    faults.be_rough(1000, 1);
    assert_ne!(ask().await, Some((200, "m5.xlarge".to_owned())));
    faults.clear();
    assert_eq!(ask().await, Some((200, "m5.xlarge".to_owned())));
}
