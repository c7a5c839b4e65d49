//! What the tests of the modes share: pods, and the node's ENIs as EC2 has them.

use std::{net::Ipv4Addr, sync::Arc};

use e2e::{Cluster, Worker, flight, flight::Placed, pings};
use ec2_sim::{
    SimCloud,
    action::{AttachNetworkInterface, CreateNetworkInterface, CreateSubnet},
    world::model::{AttachmentState, Eni, Subnet, Tags},
};
use eni_proto::wire::StatusReply;
use ipam_core::{EniId, SubnetId};
use lab::wait;

use crate::stage::PATIENCE;

pub(crate) fn sim(cluster: &Cluster) -> &SimCloud {
    cluster.cloud.sim().unwrap()
}

/// The only worker.
pub(crate) fn worker(cluster: &Cluster) -> &Arc<Worker> {
    &cluster.workers[0]
}

/// ENIs attached to the only worker, by device index.
pub(crate) fn enis(cluster: &Cluster) -> Vec<Eni> {
    let instance = worker(cluster).node().instance();
    let here = |eni: &&Eni| eni.attachment.as_ref().is_some_and(|attachment| attachment.instance == *instance);
    let mut enis: Vec<Eni> = sim(cluster).with(|world, _| world.enis().filter(here).cloned().collect());
    enis.sort_by_key(|eni| eni.attachment.as_ref().map(|attachment| attachment.device_index));
    enis
}

/// Adds so many pods, pings between them and to the internet, and checks that all answered and nothing was dropped.
pub(crate) async fn add_pods(cluster: &Cluster, count: usize) -> Vec<Arc<Placed>> {
    let sandboxes = flight::sandboxes(count).unwrap();
    let added = flight::add(cluster, &sandboxes).await;
    let pods = added.unwrap_or_else(|trouble| panic!("{}\n{}", trouble.chain(), worker(cluster).daemon_log()));
    for (way, tally) in pings::send_all(cluster, &pods).await.unwrap() {
        assert_eq!(tally.answered, tally.sent, "{way}: no answer {:?}", tally.lost);
    }
    assert_eq!(cluster.lab.drops().unwrap().total(), 0);
    pods
}

pub(crate) fn addresses(pods: &[Arc<Placed>]) -> Vec<Ipv4Addr> {
    pods.iter().map(|pod| pod.place.address).collect()
}

/// Waits until the only worker's daemon stands as it should.
pub(crate) async fn until_status(cluster: &Cluster, what: &str, is: impl Fn(&StatusReply) -> bool) {
    let look = || async {
        match worker(cluster).status().await {
            Ok(status) if is(&status) => Ok(()),
            Ok(status) => Err(format!("{status:?}")),
            Err(reason) => Err(reason),
        }
    };
    let outcome = wait::until(PATIENCE, what, look).await;
    outcome.unwrap_or_else(|late| panic!("{late}\n{}", worker(cluster).daemon_log()));
}

/// Waits until EC2 has the worker's ENIs as they should be.
pub(crate) async fn until_enis(cluster: &Cluster, what: &str, are: impl Fn(&[Eni]) -> bool) {
    let look = || async {
        let enis = enis(cluster);
        if are(&enis) { Ok(()) } else { Err(format!("{enis:?}")) }
    };
    let outcome = wait::until(PATIENCE, what, look).await;
    outcome.unwrap_or_else(|late| panic!("{late}\n{}", worker(cluster).daemon_log()));
}

/// Makes one more subnet, which the lab knows too.
pub(crate) fn make_subnet(cluster: &Cluster, cidr: &str, tags: &[(&str, &str)]) -> Subnet {
    let (vpc, cidr) = (cluster.network.vpc.to_string(), cidr.to_owned());
    let tags = tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let subnet = sim(cluster).arrange(&CreateSubnet { vpc, cidr, tags, ..CreateSubnet::default() }).unwrap();
    cluster.lab.add_subnet(subnet.id.clone(), subnet.cidr);
    subnet
}

/// Somebody else makes an ENI.
pub(crate) fn make_eni(cluster: &Cluster, subnet: &SubnetId, addresses: u16, tags: Tags) -> EniId {
    let subnet = subnet.to_string();
    let create =
        CreateNetworkInterface { subnet, secondary_count: Some(addresses), tags, ..CreateNetworkInterface::default() };
    sim(cluster).arrange(&create).unwrap().id
}

/// Somebody else attaches an ENI to the only worker. Returns when it is attached.
pub(crate) async fn attach(cluster: &Cluster, eni: &EniId, device_index: u8) {
    let instance = worker(cluster).node().instance().to_string();
    let attach = AttachNetworkInterface {
        interface: eni.to_string(),
        instance,
        device_index,
        ..AttachNetworkInterface::default()
    };
    sim(cluster).arrange(&attach).unwrap();
    until_enis(cluster, "an attached ENI", |enis| {
        let attached = |eni: &Eni| eni.attachment.as_ref().is_some_and(|at| at.state == AttachmentState::Attached);
        enis.iter().any(|other| other.id == *eni && attached(other))
    })
    .await;
    cluster.settle().await.unwrap();
}

/// How often the only worker asked for an action.
pub(crate) fn calls(cluster: &Cluster, action: &str) -> u64 {
    worker(cluster).ec2_calls().get(action).copied().unwrap_or(0)
}
