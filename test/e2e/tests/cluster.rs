//! The stage itself, without the programs under test: a node sees its cloud as an instance does.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{path::PathBuf, time::Duration};

use e2e::{Binaries, Cloud, CloudKind, Cluster, ClusterPlan};
use lab::wait;

const PATIENCE: Duration = Duration::from_secs(10);

async fn cluster(workers: usize) -> Cluster {
    let none = || PathBuf::from("/bin/false");
    let plan = ClusterPlan { workers, ..ClusterPlan::small(Binaries { ipamd: none(), plugin: none() }) };
    Cluster::start(Cloud::start(CloudKind::Sim).await.unwrap(), &plan).await.unwrap()
}

/// One HTTP request from inside the node; the answer's last line.
fn curl(cluster: &Cluster, worker: usize, arguments: &str) -> String {
    let line: Vec<&str> = ["curl", "-sf", "-m", "5"].into_iter().chain(arguments.split(' ')).collect();
    cluster.workers[worker].node().namespace().run(&line).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_node_has_the_metadata_of_its_own_instance() {
    let cluster = cluster(2).await;
    for (index, worker) in cluster.workers.iter().enumerate() {
        let ttl = "X-aws-ec2-metadata-token-ttl-seconds:60";
        let token = curl(&cluster, index, &format!("-X PUT -H {ttl} http://169.254.169.254/latest/api/token"));
        let header = format!("X-aws-ec2-metadata-token:{token}");
        let read = |path: &str| curl(&cluster, index, &format!("-H {header} http://169.254.169.254/latest/{path}"));

        assert_eq!(read("meta-data/instance-id"), worker.node().instance().as_str());
        let mac = read("meta-data/mac");
        assert!(worker.node().namespace().run(&["ip", "link", "show", "eth0"]).unwrap().contains(&mac));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_node_does_at_ec2_shows_in_its_links_and_is_counted() {
    let cluster = cluster(1).await;
    let worker = &cluster.workers[0];
    let subnet = cluster.network.subnet.as_str();
    let ec2 = |query: String| curl(&cluster, 0, &format!("http://169.254.170.100:4566/ -d {query}&Version=2016-11-15"));

    let made = ec2(format!("Action=CreateNetworkInterface&SubnetId={subnet}&SecondaryPrivateIpAddressCount=5"));
    let eni = lab::Element::parse(&made).unwrap().text_at("networkInterface/networkInterfaceId").to_owned();
    let available = || async {
        let answer = cluster.cloud.call("DescribeNetworkInterfaces", &[("NetworkInterfaceId.1", &eni)]).await.unwrap();
        let status = answer.list_at("networkInterfaceSet")[0].text_at("status").to_owned();
        if status == "available" { Ok(()) } else { Err(status) }
    };
    wait::until(PATIENCE, "the ENI to be available", available).await.unwrap();
    let instance = worker.node().instance();
    ec2(format!("Action=AttachNetworkInterface&NetworkInterfaceId={eni}&InstanceId={instance}&DeviceIndex=1"));

    let link =
        || async { worker.node().namespace().run(&["ip", "link", "show", "eth1"]).map_err(|error| error.to_string()) };
    wait::until(PATIENCE, "the link of the attached ENI", link).await.unwrap();
    let owned: Vec<_> = cluster.lab.described().into_iter().filter(|described| described.id.as_str() == eni).collect();
    assert_eq!(owned[0].secondary.len(), 5);
    assert!(owned[0].secondary.iter().all(|address| cluster.lab.owner(*address).is_some()));
    let calls: Vec<(String, u64)> = worker.ec2_calls().into_iter().collect();
    assert_eq!(calls, [("AttachNetworkInterface".to_owned(), 1), ("CreateNetworkInterface".to_owned(), 1)]);
}
