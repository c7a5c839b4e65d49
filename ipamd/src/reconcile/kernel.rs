//! The kernel side of ENIs: prepared until it succeeds, forgotten when they leave.

use std::sync::{Arc, PoisonError};

use ipam_core::{
    Access, EniId, Event, SubnetId,
    ports::{Cidr4, Ec2, Interface, NodeIdentity},
    retry::{Backoff, seed},
};

use super::{Outside, Reconciler};
use crate::errors::chain;

impl<E: Ec2> Reconciler<E> {
    /// Prepares the kernel for an ENI; goes on trying until it succeeds or the ENI is given up.
    pub(super) fn prepare(&mut self, interface: Interface) {
        let (eni, attachment) = (interface.id.clone(), interface.attachment.clone());
        let (outside, handle, node) = (Arc::clone(&self.outside), self.handle.clone(), self.node.clone());
        let task = tokio::spawn(async move {
            let mut backoff = Backoff::new(seed(interface.id.as_str()));
            while let Err(reason) = outside.prepare(&node, &interface).await {
                tracing::warn!(eni = %interface.id, mac = %interface.mac, reason, "kernel is not ready for the interface yet");
                handle.tell(Event::HostFailed { eni: interface.id.clone(), reason });
                tokio::time::sleep(backoff.next_wait()).await;
            }
            tracing::info!(eni = %interface.id, mac = %interface.mac, addresses = interface.secondary.len(), "interface is ready for pods");
            handle.tell(Event::HostReady { eni: interface.id });
        });
        if let Some((_, earlier)) = self.prepared.insert(eni, (attachment, task.abort_handle())) {
            earlier.abort();
        }
    }

    /// Takes over what the metadata service shows now: of the node's identity only what can change while it runs.
    pub(super) fn refresh(&mut self, shown: NodeIdentity) {
        let same_eni = shown.instance == self.node.instance && shown.primary_eni == self.node.primary_eni;
        if !same_eni || (shown.security_groups.is_empty() || shown.vpc_cidrs.is_empty()) {
            tracing::warn!(instance = %shown.instance, eni = %shown.primary_eni, "the metadata service shows another node or half of one; nothing is changed");
            return;
        }
        let new_groups = shown.security_groups != self.node.security_groups;
        let new_cidrs = shown.vpc_cidrs != self.node.vpc_cidrs;
        if !new_groups && !new_cidrs {
            return;
        }
        tracing::info!(security_groups = ?shown.security_groups, vpc_cidrs = ?shown.vpc_cidrs, "the metadata service shows something new");
        self.node.vpc_cidrs.clone_from(&shown.vpc_cidrs);
        self.node.security_groups.clone_from(&shown.security_groups);
        let primary = self.engine.pool().eni(&self.node.primary_eni).map(|eni| eni.interface.clone());
        if let Some(primary) = primary.filter(|_| new_cidrs) {
            self.prepare(primary);
        }
        if new_groups {
            self.feed(Event::SecurityGroups { security_groups: shown.security_groups });
        }
        let stored = self.outside.store.remember_node(&self.node);
        tokio::spawn(async move {
            if let Err(error) = stored.await {
                tracing::warn!(error = %chain(&error), "what the metadata service shows could not be stored");
            }
        });
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
    /// The network of an ENI's subnet. The node's own is known; for others the metadata service is asked, and EC2 if that does
    /// not show the ENI yet.
    async fn network_of(&self, Interface { mac, subnet, primary, .. }: &Interface) -> Result<Cidr4, String> {
        if *subnet == self.node.subnet {
            return Ok(self.node.subnet_cidr);
        }
        if let Some(known) = self.networks.lock().unwrap_or_else(PoisonError::into_inner).get(subnet) {
            return Ok(*known);
        }
        if let Ok(network) = self.imds.network_of(*mac).await
            && network.contains(*primary)
        {
            self.learn([(subnet.clone(), network)].into_iter()).await;
            return Ok(network);
        }
        if self.settings.policy.access == Access::MetadataOnly {
            return Err(format!("the metadata service does not show the network of {subnet}"));
        }
        let subnets = self.ec2.subnets(&self.node.vpc, &self.node.zone).await.map_err(|error| error.to_string())?;
        self.learn(subnets.iter().map(|subnet| (subnet.id.clone(), subnet.cidr))).await;
        let found = subnets.into_iter().find(|found| found.id == *subnet).map(|found| found.cidr);
        found.ok_or_else(|| format!("EC2 does not list {subnet} in zone {}", self.node.zone))
    }

    /// Keeps the networks of subnets, for this run and the next: an ENI in one of them must not wait for EC2.
    pub(super) async fn learn(&self, networks: impl Iterator<Item = (SubnetId, Cidr4)>) {
        let (known, is_new) = {
            let mut known = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.len();
            // A subnet never changes its network.
            known.extend(networks);
            (known.clone(), known.len() > before)
        };
        if is_new && let Err(error) = self.store.remember_networks(&known).await {
            tracing::warn!(error = %chain(&error), "the networks of subnets could not be stored");
        }
    }

    async fn prepare(&self, node: &NodeIdentity, interface: &Interface) -> Result<(), String> {
        let primary = interface.id == node.primary_eni;
        if primary {
            return self.host.prepare_primary(node, &self.settings, interface).await.map_err(|e| chain(&e));
        }
        self.host.until_link(interface).await.map_err(|e| chain(&e))?;
        let cidr = self.network_of(interface).await?;
        self.host.prepare_eni(&self.settings, interface, cidr).await.map_err(|e| chain(&e))
    }
}
