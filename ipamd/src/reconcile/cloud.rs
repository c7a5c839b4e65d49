//! The loop's dealings with EC2: describing, and carrying out intents.

use std::{net::IpAddr, sync::Arc, time::Duration};

use eni_proto::numbers;
use ipam_core::{
    Action, Done, Event, InstanceId, IntentId, Lease, SecurityGroupId, SubnetId,
    pool::Phase,
    ports::{Amount, Change, Ec2, Ec2Error, Ec2Result, Interface, NewInterface, Scope},
    retry,
};

use tokio::task::JoinSet;

use super::{Open, Outside, Reconciler};
use crate::{clock, errors::chain, kube::News, metadata::Descriptions, store::KnownCloud};

/// This node's part of a time over which all nodes are to be spread.
pub(super) fn part_of(time: Duration, instance: &InstanceId) -> Duration {
    // Ids may differ in their last digits only: the multiplication carries those to the first bits.
    let spread = retry::seed(instance.as_str()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    time * u32::try_from(spread).unwrap_or(0) / 1024
}

impl<E: Ec2> Reconciler<E> {
    pub(super) fn observe(&self, scope: Scope) {
        let (outside, handle, quiet_until) = (Arc::clone(&self.outside), self.handle.clone(), self.quiet_until);
        tokio::spawn(async move {
            tokio::time::sleep_until(quiet_until).await;
            let asked_at = clock::now();
            handle.tell(match outside.interfaces(scope).await {
                Ok(interfaces) => {
                    tracing::debug!(?scope, interfaces = interfaces.len(), "EC2 described this node's interfaces");
                    Event::Observed { asked_at, scope, interfaces }
                }
                Err(error) => {
                    tracing::warn!(error = %error, "EC2 did not describe this node's interfaces");
                    Event::ObserveFailed { error }
                }
            });
        });
    }

    pub(super) fn describe_subnets(&self) {
        let (outside, handle) = (Arc::clone(&self.outside), self.handle.clone());
        tokio::spawn(async move {
            let outcome = outside.ec2.subnets(&outside.node.vpc, &outside.node.zone).await;
            match &outcome {
                Ok(subnets) => outside.learn(subnets.iter().map(|subnet| (subnet.id.clone(), subnet.cidr))).await,
                Err(error) => tracing::warn!(error = %error, "EC2 did not describe the zone's subnets"),
            }
            handle.tell(Event::Subnets { outcome });
        });
    }

    pub(super) fn observe_kernel(&self) {
        let (outside, handle) = (Arc::clone(&self.outside), self.handle.clone());
        tokio::spawn(async move {
            let asked_at = clock::now();
            let pods = outside.host.observe(&outside.settings.veth_prefix).await;
            let holds = pods.map(|pods| pods.into_iter().flat_map(|pod| pod.alias.addresses.all()).collect());
            handle.tell(Event::Kernel { asked_at, holds: holds.map_err(|error| chain(&error)) });
        });
    }

    /// Writes the intent down, then carries it out.
    pub(super) fn start(&mut self, intent: IntentId, action: Action) {
        self.open.insert(intent.clone(), Open { action: action.clone(), outcome: None });
        let (outside, handle) = (Arc::clone(&self.outside), self.handle.clone());
        tokio::spawn(async move {
            let outcome = match outside.store.begin(&intent, &action, clock::now()).await {
                Ok(()) => outside.execute(&intent, &action).await,
                // Not written down, so not done (durable before visible).
                Err(error) => Err(Ec2Error::Refused {
                    action: "none",
                    class: ipam_core::ports::RefusalClass::TryLater,
                    code: "IPAM-206".to_owned(),
                    message: chain(&error),
                }),
            };
            match &outcome {
                Ok(_) => tracing::info!(%intent, ?action, "EC2 change done"),
                Err(error) => tracing::warn!(%intent, ?action, error = %error, "EC2 change failed"),
            }
            handle.tell(Event::Settled { intent, outcome });
        });
    }

    /// Takes up what an earlier run knew and left undone.
    pub(super) fn take_up(&mut self, known: KnownCloud) {
        self.kept.clone_from(&known.interfaces);
        self.feed(Event::Remembered { interfaces: known.interfaces });
        for (intent, action) in known.open {
            tracing::warn!(%intent, ?action, "an earlier run ended before EC2 answered; what became of it is looked at first");
            let outcome = Some("ipamd ended before the answer; EC2 was looked at".to_owned());
            self.open.insert(intent, Open { action: action.clone(), outcome });
            self.feed(Event::LeftOpen { action });
        }
    }

    /// Notes how an intent ended; it stays open in the database until EC2 shows it.
    pub(super) fn answered(&mut self, intent: &IntentId, outcome: &Result<Done, Ec2Error>) {
        if let Some(open) = self.open.get_mut(intent) {
            open.outcome = Some(outcome.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned()));
        }
    }

    /// Keeps the ENIs for the next start, and settles the intents about which nothing is left to ask: both in one step, so
    /// that a start knows either the outcome or that it has to look.
    pub(super) fn write_down(&mut self) {
        let interfaces = self.interfaces_now();
        let settled = self.open.extract_if(.., |_, open| open.outcome.is_some() && !self.engine.doubts(&open.action));
        let mut writes = JoinSet::new();
        for (intent, open) in settled {
            let outcome = open.outcome.unwrap_or_default();
            writes.spawn(self.outside.store.settle(&intent, outcome, clock::now(), interfaces.clone()));
        }
        if writes.is_empty() && interfaces != self.kept {
            writes.spawn(self.outside.store.remember(interfaces.clone()));
        }
        self.kept = interfaces;
        if writes.is_empty() {
            return;
        }
        tokio::spawn(async move {
            for outcome in writes.join_all().await {
                if let Err(error) = outcome {
                    tracing::error!(error = %chain(&error), "what became of an EC2 change could not be stored");
                }
            }
        });
    }

    /// Tells of each pod whose address EC2 does not list any more, once.
    pub(super) fn tell_of_lost_addresses(&mut self) {
        let pool = self.engine.pool();
        let owns = |address: &IpAddr| pool.enis().any(|eni| eni.interface.owns(*address));
        let lost = |lease: &Lease| lease.addresses.of_vpc().find(|address| !owns(address));
        let lost: Vec<_> = pool.leases().filter_map(|lease| Some((lease, lost(lease)?))).collect();
        for (lease, address) in lost.iter().filter(|(_, address)| !self.lost.contains(address)) {
            let message = format!(
                "IPAM-313 the pod's address {address} is on no interface of this node any more: nobody reaches it by that; delete the \
                 pod, so that its successor gets another one",
            );
            self.outside.newsroom.tell(|| News::Lost { pod: lease.pod.clone(), message });
            tracing::error!(
                key = %lease.key, pod = %lease.pod, %address, eni = %lease.eni,
                "IPAM-313 no interface of this node has the pod's address any more; it is kept and given to nobody else"
            );
        }
        self.lost = lost.iter().map(|(_, address)| *address).collect();
    }

    /// The ENIs as a start may believe them: one that is leaving serves nobody.
    fn interfaces_now(&self) -> Vec<Interface> {
        let enis = self.engine.pool().enis().map(|eni| {
            let mut interface = eni.interface.clone();
            if let Some(attachment) = &mut interface.attachment {
                attachment.attached &= eni.phase != Phase::Leaving;
            }
            interface
        });
        enis.collect()
    }
}

impl<E: Ec2> Outside<E> {
    async fn execute(&self, intent: &IntentId, action: &Action) -> Result<Done, Ec2Error> {
        match action {
            Action::Create { subnet, security_groups, amount, prefix6 } => {
                let new =
                    NewInterface { prefix6: *prefix6, ..self.new_interface(intent, subnet, security_groups, *amount) };
                self.ec2.create_interface(&new).await.map(Done::Created)
            }
            Action::Attach { eni, card, device_index } => {
                self.ec2.attach_interface(eni, &self.node.instance, *card, *device_index).await.map(Done::Attached)
            }
            Action::DeleteOnTermination { eni, attachment } => {
                let change = Change::DeleteOnTermination(attachment.clone());
                self.ec2.modify_interface(eni, &change).await.map(|()| Done::Plain)
            }
            Action::SecurityGroups { eni, security_groups } => {
                let change = Change::SecurityGroups(security_groups.clone());
                self.ec2.modify_interface(eni, &change).await.map(|()| Done::Plain)
            }
            Action::Assign { eni, amount } => self.ec2.assign(eni, *amount).await.map(Done::Assigned),
            Action::Unassign { eni, holdings } => self.ec2.unassign(eni, holdings).await.map(|()| Done::Plain),
            Action::Detach { attachment, .. } => self.ec2.detach_interface(attachment).await.map(|()| Done::Plain),
            Action::Delete { eni } => self.ec2.delete_interface(eni).await.map(|()| Done::Plain),
        }
    }

    fn new_interface(
        &self,
        intent: &IntentId,
        subnet: &SubnetId,
        security_groups: &[SecurityGroupId],
        amount: Amount,
    ) -> NewInterface {
        let mut tags = self.settings.eni_tags.clone();
        tags.insert(numbers::TAG_INSTANCE.to_owned(), self.node.instance.to_string());
        tags.insert(numbers::TAG_CREATED_AT.to_owned(), clock::rfc3339(clock::now()));
        if let Some(cluster) = &self.settings.cluster {
            tags.insert(numbers::TAG_CLUSTER.to_owned(), cluster.clone());
        }
        NewInterface {
            token: intent.0.clone(),
            subnet: subnet.clone(),
            security_groups: security_groups.to_vec(),
            amount,
            prefix6: false,
            description: format!("eni-cni for {}", self.node.instance),
            tags,
        }
    }

    async fn interfaces(&self, scope: Scope) -> Ec2Result<Vec<Interface>> {
        let (access, node) = (self.settings.policy.access, &self.node);
        let descriptions = Descriptions { access, ec2: &*self.ec2, imds: &self.imds, node };
        let found = descriptions.interfaces(scope).await?;
        self.learn(found.iter().filter_map(|(eni, network)| Some((eni.subnet.clone(), (*network)?)))).await;
        Ok(found.into_iter().map(|(eni, _)| eni).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::part_of;

    #[test]
    fn nodes_are_spread_over_the_whole_time() {
        let minute = Duration::from_secs(60);
        let instance = |number: u32| format!("i-0{number:016x}").parse().unwrap();
        let parts: Vec<_> = (0..600).map(|number| part_of(minute, &instance(number))).collect();
        assert!(parts.iter().all(|part| *part < minute));
        for second in 0..10 {
            let there = parts.iter().filter(|part| part.as_secs() / 6 == second).count();
            assert!((30..=90).contains(&there), "{there} of 600 nodes in the {second}th tenth");
        }
    }
}
