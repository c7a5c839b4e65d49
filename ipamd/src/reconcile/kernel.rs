//! The kernel side of ENIs: prepared until it succeeds, forgotten when they leave.

use std::{sync::Arc, time::Duration};

use ipam_core::{
    EniId, Event, SubnetId,
    ports::{Cidr4, Ec2, Interface},
};

use super::{Outside, Reconciler, chain};

/// How long the kernel side of an ENI rests after a failure before it is tried again.
const HOST_RETRY: Duration = Duration::from_secs(1);

impl<E: Ec2> Reconciler<E> {
    /// Prepares the kernel for an ENI; goes on trying until it succeeds or the ENI is given up.
    pub(super) fn prepare(&mut self, interface: Interface) {
        let (eni, attachment) = (interface.id.clone(), interface.attachment.clone());
        let (outside, handle) = (Arc::clone(&self.outside), self.handle.clone());
        let task = tokio::spawn(async move {
            while let Err(reason) = outside.prepare(&interface).await {
                tracing::warn!(eni = %interface.id, mac = %interface.mac, reason, "kernel is not ready for the interface yet");
                handle.tell(Event::HostFailed { eni: interface.id.clone(), reason });
                tokio::time::sleep(HOST_RETRY).await;
            }
            tracing::info!(eni = %interface.id, mac = %interface.mac, addresses = interface.secondary.len(), "interface is ready for pods");
            handle.tell(Event::HostReady { eni: interface.id });
        });
        if let Some((_, earlier)) = self.prepared.insert(eni, (attachment, task.abort_handle())) {
            earlier.abort();
        }
    }

    pub(super) fn forget(&mut self, eni: EniId) {
        let Some((attachment, task)) = self.prepared.remove(&eni) else { return };
        task.abort();
        let Some(attachment) = attachment else { return };
        let outside = Arc::clone(&self.outside);
        tokio::spawn(async move {
            if let Err(error) = outside.host.forget_eni(&attachment).await {
                tracing::warn!(%eni, error = %chain(&error), "interface could not be taken out of the kernel");
            }
        });
    }
}

impl<E: Ec2> Outside<E> {
    /// The network of a subnet. The node's own is known; EC2 is asked for others.
    async fn network_of(&self, subnet: &SubnetId) -> Result<Cidr4, String> {
        if *subnet == self.node.subnet {
            return Ok(self.node.subnet_cidr);
        }
        let subnets = self.ec2.subnets(&self.node.vpc, &self.node.zone).await.map_err(|error| error.to_string())?;
        let found = subnets.into_iter().find(|found| found.id == *subnet).map(|found| found.cidr);
        found.ok_or_else(|| format!("EC2 does not list {subnet} in zone {}", self.node.zone))
    }

    async fn prepare(&self, interface: &Interface) -> Result<(), String> {
        let primary = interface.id == self.node.primary_eni;
        if primary {
            return self.host.prepare_primary(&self.node, &self.settings, interface).await.map_err(|e| chain(&e));
        }
        let cidr = self.network_of(&interface.subnet).await?;
        self.host.prepare_eni(&self.settings, interface, cidr).await.map_err(|e| chain(&e))
    }
}
