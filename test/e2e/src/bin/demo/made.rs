//! What Terraform's `localstack/` made, from its output `lab`.

use std::{fs, path::Path};

use e2e::{Cloud, Cluster, ClusterPlan, Trouble};
use serde::Deserialize;

/// The output, as `terraform output -json lab` writes it.
#[derive(Debug, Deserialize)]
struct Lab {
    vpc: String,
    vpc_cidr: String,
    subnet: String,
    subnet_cidr: String,
    instances: Vec<String>,
    account: String,
    endpoint: String,
}

/// Nodes for the instances in the file.
///
/// # Errors
/// What of the file is not as it should be, and as [`Cluster::on`].
pub(crate) async fn cluster(file: &Path, plan: &ClusterPlan) -> Result<Cluster, Trouble> {
    let text = fs::read_to_string(file).map_err(Trouble::os(format!("read {}", file.display())))?;
    let unclear = |text: &str| Trouble::Answer { what: "Terraform's output", answer: text.to_owned() };
    let lab: Lab = serde_json::from_str(&text).map_err(|error| unclear(&error.to_string()))?;
    let address = lab.endpoint.trim_start_matches("http://").parse().map_err(|_| unclear(&lab.endpoint))?;
    let cloud = Cloud::running_localstack(address, &lab.account);
    let network = cloud.network([&lab.vpc, &lab.vpc_cidr], [&lab.subnet, &lab.subnet_cidr]).await?;
    let instances = lab.instances.iter().map(|id| id.parse().map_err(|_| unclear(id)));
    Cluster::on(cloud, plan, network, instances.collect::<Result<_, _>>()?).await
}
