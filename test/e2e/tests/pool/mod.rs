//! The pool as EC2 and the daemon see it.

use e2e::{Cluster, Worker};
use eni_proto::numbers;

/// Whether what EC2 has given to the worker's instance is what its daemon counts, `free` of it free, and nothing is loose.
///
/// # Errors
/// What is not so, for the next look.
pub(crate) async fn steady(cluster: &Cluster, worker: &Worker, free: u32) -> Result<(), String> {
    let status = worker.status().await?;
    let instance = worker.node().instance();
    let (given, loose) = cluster.cloud.sim().unwrap().with(|world, _| {
        let made_for = |eni: &ec2_sim::world::model::Eni| {
            eni.attachment.is_none() && eni.tags.get(numbers::TAG_INSTANCE).is_some_and(|id| id == instance.as_str())
        };
        let ours = |eni: &ec2_sim::world::model::Eni| eni.attachment.as_ref().is_some_and(|a| a.instance == *instance);
        let given: usize = world.enis().filter(|eni| ours(eni)).map(|eni| eni.secondary.len()).sum();
        let tied = world.enis().filter_map(|eni| eni.attachment.as_ref()).filter(|a| a.instance == *instance);
        let untied = tied.filter(|attachment| !attachment.delete_on_termination).count();
        (given, world.enis().filter(|eni| made_for(eni)).count() + untied)
    });
    let counted = status.free + status.leased + status.cooling;
    if loose == 0 && usize::try_from(counted) == Ok(given) && status.free == free {
        Ok(())
    } else {
        Err(format!("EC2 has given {given} addresses, {loose} ENI(s) are loose, the daemon says {status:?}"))
    }
}
