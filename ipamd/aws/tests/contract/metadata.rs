//! What the metadata port makes of a service that is right, wrong, or not there.

use std::time::{Duration, Instant};

use ec2_sim::imds::{self, InstanceMetadata, MetadataSource};
use ipam_aws::AwsImds;
use ipam_core::{Moment, ports::Imds};
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
        (|m| m.interfaces[0].vpc_ipv4_cidr_blocks.push("10.0.0.1/8".into()), format!("network/interfaces/macs/{mac}/vpc-ipv4-cidr-blocks"), "`10.0.0.1/8` cannot be right"),
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
        let began = Instant::now();
        let error = AwsImds::at(&endpoint).unwrap().identity().await.unwrap_err();
        assert_eq!(error.path, "/latest/meta-data/mac", "{error}");
        assert!(began.elapsed() < Duration::from_secs(4), "{endpoint} took {:?}", began.elapsed());
    }
    drop(listener);
}
