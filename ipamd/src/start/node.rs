//! Who this node is, what its instance type can carry, and what an earlier run knew of it.

use std::time::Duration;

use ipam_core::{
    Access, Limits,
    ports::{Ec2, Imds, NodeIdentity},
};
use tokio::sync::watch;

use crate::{
    clock,
    errors::chain,
    handle::Stage,
    store::{KnownCloud, Recorded, Store},
    waits::Waits,
};

/// Waits between two tries of something that the start cannot do without.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Says what the start waits for, and waits: longer each time, and not in step with other nodes.
pub(super) struct Waiting<'a> {
    stage: &'a watch::Sender<Stage>,
    wait: Duration,
}

impl<'a> Waiting<'a> {
    /// Nothing was waited for yet.
    pub(super) const fn new(stage: &'a watch::Sender<Stage>) -> Self {
        Self { stage, wait: FIRST_RETRY }
    }

    /// Waits after a failure; `reason` begins with its code.
    pub(super) async fn after(&mut self, reason: String) {
        tracing::warn!(reason, "the start waits and tries again");
        self.stage.send_replace(Stage::Starting(reason));
        let jitter = u32::try_from(clock::now().as_millis() % 256).unwrap_or(0);
        tokio::time::sleep(self.wait - self.wait * jitter / 1024).await;
        self.wait = (self.wait * 2).min(LAST_RETRY);
    }
}

/// Asks the metadata service who this node is, until it answers. An earlier run of the same boot knows it too.
pub(super) async fn identity(imds: &impl Imds, recorded: &Recorded, stage: &watch::Sender<Stage>) -> NodeIdentity {
    let before = recorded.cloud.node.as_ref().filter(|_| recorded.same_boot);
    let mut waiting = Waiting::new(stage);
    loop {
        let asked = Waits::begin("the metadata service");
        let answer = imds.identity().await;
        drop(asked);
        match (answer, before) {
            (Ok(node), _) => return node,
            (Err(error), Some(before)) => {
                tracing::warn!(error = %chain(&error), instance = %before.instance, "IPAM-307 the metadata service does not answer; going on as the instance that this was since it booted");
                return before.clone();
            }
            (Err(error), None) => waiting.after(format!("IPAM-307 {}", chain(&error))).await,
        }
    }
}

/// Returns what the instance type can carry: from the table, from an earlier answer, or from EC2, until it answers.
pub(super) async fn limits(
    ec2: &impl Ec2,
    node: &NodeIdentity,
    access: Access,
    (store, known): (&Store, &KnownCloud),
    stage: &watch::Sender<Stage>,
) -> Limits {
    if let Some(limits) = Limits::of(&node.instance_type).or(known.limits) {
        return limits;
    }
    if access == Access::MetadataOnly {
        // Nothing is planned then, so that nothing depends on them.
        return Limits::default();
    }
    let mut waiting = Waiting::new(stage);
    loop {
        let asked = Waits::begin("EC2 to describe the instance type");
        let answer = ec2.limits(&node.instance_type).await;
        drop(asked);
        match answer {
            Ok(limits) => {
                tracing::info!(instance_type = node.instance_type, ?limits, "limits learnt from EC2");
                if let Err(error) = store.remember_limits(limits).await {
                    tracing::error!(error = %chain(&error), "limits of the instance type could not be stored");
                }
                return limits;
            }
            Err(error) => {
                let kind = &node.instance_type;
                let reason =
                    format!("IPAM-306 the limits of instance type {kind} are in no table of ours, and {error}");
                waiting.after(reason).await;
            }
        }
    }
}

/// Returns what an earlier run knew of the cloud, if it ran on this instance: images of nodes carry their database along.
pub(super) async fn known_cloud(store: &Store, node: &NodeIdentity, known: KnownCloud) -> KnownCloud {
    let elsewhere = known.node.as_ref().is_some_and(|before| before.instance != node.instance);
    let written = if elsewhere {
        tracing::warn!(instance = %node.instance, "the database was written on another instance; what it knows of EC2 is forgotten");
        store.forget_cloud().await
    } else {
        Ok(())
    };
    let written = match written {
        // As it is on record already: every write waits for the disk.
        Ok(()) if known.node.as_ref() == Some(node) => Ok(()),
        Ok(()) => store.remember_node(node).await,
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::error!(error = %chain(&error), "who this node is could not be stored");
    }
    if elsewhere { KnownCloud::default() } else { known }
}
