//! What can change while the instance runs is read again from the metadata service now and then: the primary ENI's security
//! groups, which ours follow, and the VPC's networks, which pods reach untranslated.
//!
//! The service is on the same machine and costs nothing of the account's budget. It is a hint: what it says here adds
//! to nothing and removes no address.

use std::{sync::Arc, time::Duration};

use ipam_aws::AwsImds;
use ipam_core::{
    Access,
    ports::{Cidr4, Ec2, Ec2Error, Ec2Result, Imds, Interface, NodeIdentity, Scope},
};

use crate::{clock, errors::chain, handle::Handle};

/// What is new must be there a moment later too: half a list of security groups would cut pods off.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// Reads the metadata about every `period`, not in step with other nodes, for as long as the daemon runs, and tells of what
/// differs from `known`.
pub(crate) async fn follow(imds: Arc<impl Imds>, handle: Handle, period: Duration, mut known: NodeIdentity) {
    let mut away = false;
    loop {
        let jitter = u32::try_from(clock::now().as_millis() % 256).unwrap_or(0);
        tokio::time::sleep(period - period * jitter / 1024).await;
        match imds.identity().await {
            Ok(node) => {
                away = false;
                if node == known {
                    continue;
                }
                tokio::time::sleep(SECOND_LOOK).await;
                if imds.identity().await.as_ref() == Ok(&node) {
                    handle.metadata(node.clone());
                    known = node;
                }
            }
            // Once, not each minute of an outage.
            Err(error) if !away => {
                away = true;
                tracing::warn!(error = %chain(&error), "IPAM-307 the metadata service does not answer; what it said before stands");
            }
            Err(_) => {}
        }
    }
}

/// Who describes this node's ENIs: EC2, or the metadata service where EC2 must not be asked.
pub(crate) struct Descriptions<'a, E> {
    pub(crate) access: Access,
    pub(crate) ec2: &'a E,
    pub(crate) imds: &'a AwsImds,
    pub(crate) node: &'a NodeIdentity,
}

impl<E: Ec2> Descriptions<'_, E> {
    /// Returns the ENIs, each with the network of its subnet where that is told along.
    ///
    /// # Errors
    /// When nothing usable was answered.
    pub(crate) async fn interfaces(&self, scope: Scope) -> Ec2Result<Vec<(Interface, Option<Cidr4>)>> {
        match (self.access, scope) {
            (Access::Full | Access::ReadOnly, _) => {
                let interfaces = self.ec2.interfaces(&self.node.instance, scope).await?;
                Ok(interfaces.into_iter().map(|interface| (interface, None)).collect())
            }
            (Access::MetadataOnly, Scope::Attached) => {
                let failed =
                    |error| Ec2Error::Unknown { action: "look at the metadata service", reason: chain(&error) };
                let interfaces = self.imds.interfaces(self.node).await.map_err(failed)?;
                Ok(interfaces.into_iter().map(|(interface, network)| (interface, Some(network))).collect())
            }
            // It shows only what is attached.
            (Access::MetadataOnly, Scope::Tagged) => Ok(Vec::new()),
        }
    }
}
