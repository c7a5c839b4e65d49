//! What the metadata port makes of a service that is right, wrong, or not there.

use std::time::Duration;

use ec2_sim::imds::{self, InstanceMetadata, InterfaceMetadata, MetadataSource};
use ipam_aws::AwsImds;
use ipam_core::{
    Moment,
    ports::{Amount, Ec2, Imds, Scope},
};
use tokio::net::TcpListener;

use crate::clouds::World;

/// Makes one value wrong.
type Change = fn(&mut InstanceMetadata);

struct Fixed(InstanceMetadata);

impl MetadataSource for Fixed {
    fn metadata(&self, _now: Moment) -> Option<InstanceMetadata> {
        Some(self.0.clone())
    }
}

async fn service(source: impl MetadataSource) -> AwsImds {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(imds::serve(listener, imds::router(source)));
    AwsImds::at(&endpoint).unwrap()
}

#[tokio::test]
async fn a_node_learns_who_it_is() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let seen = service(sim.instance(&world.instance)).await.identity().await.unwrap();
    assert_eq!(Ok(seen), sim.instance(&world.instance).identity().await);
}

#[tokio::test]
async fn it_shows_the_same_interfaces_as_ec2_but_for_what_it_cannot_know() {
    let world = World::simulated().await.unwrap();
    let sim = world.sim.as_ref().unwrap();
    let eni = world.ec2.interfaces(&world.instance, Scope::Attached).await.unwrap().remove(0).id;
    world.ec2.assign(&eni, Amount::Addresses(3)).await.unwrap();
    let imds = service(sim.instance(&world.instance)).await;
    let node = imds.identity().await.unwrap();

    let seen = imds.interfaces(&node).await.unwrap();
    let mut described = world.ec2.interfaces(&world.instance, Scope::Attached).await.unwrap();
    for eni in &mut described {
        let attachment = eni.attachment.as_mut().unwrap();
        attachment.id = "eni-attach-unseen".parse().unwrap();
        eni.tags.clear();
    }
    assert_eq!(described[0].secondary.len(), 3);
    assert_eq!(seen, described.into_iter().map(|eni| (eni, node.subnet_cidr)).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_interface_that_has_left_or_has_no_address_is_left_out_and_half_of_one_is_an_error() {
    let world = World::simulated().await.unwrap();
    let right = world.sim.as_ref().unwrap().with(|cloud, _| cloud.metadata(&world.instance)).unwrap();
    let node = service(Fixed(right.clone())).await.identity().await.unwrap();
    let mut odd = right.clone();
    odd.ghosts = vec!["02:00:00:00:00:99".parse().unwrap()];
    let efa = InterfaceMetadata { mac: "02:00:00:00:00:98".parse().unwrap(), ..right.interfaces[0].clone() };
    odd.interfaces.push(InterfaceMetadata { local_ipv4s: vec![], device_number: 1, ..efa });
    assert_eq!(service(Fixed(odd)).await.interfaces(&node).await.unwrap().len(), 1);

    let mut twice = right.clone();
    let copy = InterfaceMetadata { mac: "02:00:00:00:00:97".parse().unwrap(), ..right.interfaces[0].clone() };
    twice.interfaces.push(InterfaceMetadata { interface_id: "eni-0123456789abcdef0".into(), device_number: 1, ..copy });
    let error = service(Fixed(twice)).await.interfaces(&node).await.unwrap_err().to_string();
    assert!(error.contains("and on eni-") && error.ends_with("; expected one ENI for each address"), "{error}");

    let mut half = right;
    half.interfaces[0].ipv4_prefixes = vec!["10.0.0.0/24".to_owned()];
    let error = service(Fixed(half)).await.interfaces(&node).await.unwrap_err();
    assert!(
        error.to_string().ends_with("ipv4-prefix: `10.0.0.0/24` cannot be right; expected networks of /28"),
        "{error}"
    );
}

#[tokio::test]
async fn a_value_that_cannot_be_right_is_named_by_its_path() {
    let world = World::simulated().await.unwrap();
    let right = world.sim.as_ref().unwrap().with(|cloud, _| cloud.metadata(&world.instance)).unwrap();
    let mac = right.mac;
    #[rustfmt::skip]
    let table: [(Change, String, &str); 6] = [
        (|m| m.instance_id = "x-1".into(),                     "instance-id".into(),      "`x-1` is not an id of the form `i-0123abcd`"),
        (|m| m.instance_type = "<html>".into(),                "instance-type".into(),    "`<html>` is not a name"),
        (|m| m.region = " ".into(),                            "placement/region".into(), "is empty"),
        (|m| m.interfaces.clear(),                             format!("network/interfaces/macs/{mac}/interface-id"), "HTTP status 404"),
        (|m| m.interfaces[0].vpc_ipv4_cidr_blocks.push("10.0.0.1/8".into()), format!("network/interfaces/macs/{mac}/vpc-ipv4-cidr-blocks"), "`10.0.0.1/8` cannot be right; expected a network as 10.0.0.0/16 without host bits"),
        (|m| m.interfaces[0].security_group_ids.clear(),       format!("network/interfaces/macs/{mac}/security-group-ids"), "is empty"),
    ];
    for (change, path, reason) in table {
        let mut wrong = right.clone();
        change(&mut wrong);
        let error = service(Fixed(wrong)).await.identity().await.unwrap_err();
        assert_eq!(error.to_string(), format!("metadata service: /latest/meta-data/{path}: {reason}"));
    }
}

#[tokio::test]
async fn a_service_that_is_silent_or_not_there_costs_seconds_at_most() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for endpoint in [silent, nobody] {
        let imds = AwsImds::at(&endpoint).unwrap();
        // Two seconds where nothing else runs.
        let ended = tokio::time::timeout(Duration::from_secs(30), imds.identity()).await.expect(&endpoint);
        assert_eq!(ended.unwrap_err().path, "/latest/meta-data/mac");
    }
    drop(listener);
}
