//! A cluster: a cloud, a lab that follows it, and workers.

use std::sync::Arc;

use ipam_core::InstanceId;
use lab::{Follower, Lab};

use crate::{Binaries, Cloud, Network, Trouble, Worker, cloud::blocking, worker::WorkerPlan};

/// What a cluster should be.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// How many workers.
    pub workers: usize,
    /// Instance type of each.
    pub instance_type: String,
    /// Further parameters of each RunInstances.
    pub launch: Vec<(&'static str, &'static str)>,
    /// Network of the VPC.
    pub vpc: String,
    /// Network of its only subnet.
    pub subnet: String,
    /// The programs under test.
    pub binaries: Binaries,
    /// The daemons' settings, as (`WARM_IP_TARGET`, `5`).
    pub settings: Vec<(String, String)>,
}

impl ClusterPlan {
    /// One m5.xlarge in a /22 with default settings.
    #[must_use]
    pub fn small(binaries: Binaries) -> Self {
        Self {
            workers: 1,
            instance_type: "m5.xlarge".to_owned(),
            launch: Vec::new(),
            vpc: "10.0.0.0/16".to_owned(),
            subnet: "10.0.0.0/22".to_owned(),
            binaries,
            settings: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it ends its daemons and removes its networks.
// Fields are dropped in this order: first who uses, then what is used.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes.
    pub workers: Vec<Arc<Worker>>,
    /// What keeps the lab as the cloud is.
    pub follower: Arc<Follower>,
    /// The cloud.
    pub cloud: Cloud,
    /// The networks.
    pub lab: Arc<Lab>,
    /// The VPC and subnet.
    pub network: Network,
}

impl Cluster {
    /// Makes networks and instances in `cloud`, and nodes for them. No daemon runs yet.
    ///
    /// # Errors
    /// What the cloud or the lab could not do.
    pub async fn start(cloud: Cloud, plan: &ClusterPlan) -> Result<Self, Trouble> {
        let network = cloud.make_network(&plan.vpc, &plan.subnet).await?;
        let mut instances = Vec::new();
        for _ in 0..plan.workers {
            instances.push(cloud.run_instance(&plan.instance_type, &plan.launch, &network).await?);
        }
        Self::on(cloud, plan, network, instances).await
    }

    /// Makes nodes for instances that are there already, as Terraform made them. No daemon runs yet.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn on(
        mut cloud: Cloud,
        plan: &ClusterPlan,
        network: Network,
        instances: Vec<InstanceId>,
    ) -> Result<Self, Trouble> {
        let lab = Arc::new(Lab::new()?);
        lab.add_subnet(network.subnet.clone(), network.subnet_cidr);
        let mut nodes = Vec::new();
        for (number, instance) in (1..).zip(instances) {
            nodes.push(lab.add_node(instance, &format!("node-{number}"))?);
        }
        let follower = Arc::new(cloud.follow(&lab).await?);
        let mut workers = Vec::new();
        for node in nodes {
            cloud.serve_metadata(node.listen_imds()?, node.instance(), &network, &lab).await?;
            let plan = WorkerPlan {
                node,
                binaries: plan.binaries.clone(),
                settings: plan.settings.clone(),
                endpoint: cloud.endpoint_for_nodes().clone(),
            };
            workers.push(Arc::new(Worker::new(plan)?));
        }
        let cluster = Self { workers, follower, cloud, lab, network };
        cluster.settle().await?;
        Ok(cluster)
    }

    /// Returns when the lab is as the cloud is now.
    ///
    /// # Errors
    /// Why the cloud could not be followed.
    pub async fn settle(&self) -> Result<(), Trouble> {
        let follower = Arc::clone(&self.follower);
        blocking(move || follower.settle()).await?;
        match self.follower.trouble() {
            Some(trouble) => Err(Trouble::Broken(format!("the lab could not follow the cloud: {trouble}"))),
            None => Ok(()),
        }
    }
}
