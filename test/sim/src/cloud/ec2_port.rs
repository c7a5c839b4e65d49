//! The EC2 port of `ipam-core`, answered by the world itself: no HTTP, no serialisation.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    AttachmentId, EniId, InstanceId, SubnetId,
    ports::{Attachment, Ec2, Ec2Error, Ec2Result, Interface, NewInterface, Subnet},
};

use crate::{
    Action, SimCloud,
    action::{
        AssignPrivateIpAddresses, AttachNetworkInterface, Change, CreateNetworkInterface, DeleteNetworkInterface,
        DescribeNetworkInterfaces, DescribeSubnets, DetachNetworkInterface, ModifyNetworkInterfaceAttribute,
        UnassignPrivateIpAddresses,
    },
    cloud::refusal,
    world::{
        Filter,
        model::{AttachmentState, Eni},
    },
};

impl SimCloud {
    /// One call with the delay that a fault may want, in the port's words.
    async fn ask<A: Action>(&self, action: &A) -> Ec2Result<A::Answer> {
        let reply = self.reply(action);
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        reply.outcome.map_err(|failure| refusal::to_port(A::NAME, failure))
    }

    async fn described(&self, filter: Filter) -> Ec2Result<Vec<Eni>> {
        let describe = DescribeNetworkInterfaces { filters: vec![filter], ..DescribeNetworkInterfaces::default() };
        Ok(self.ask(&describe).await?.items)
    }
}

impl Ec2 for SimCloud {
    async fn interfaces(&self, instance: &InstanceId) -> Ec2Result<Vec<Interface>> {
        let attached = self.described(Filter::new("attachment.instance-id", instance.as_str())).await?;
        let tagged = self.described(Filter::new(&format!("tag:{TAG_INSTANCE}"), instance.as_str())).await?;
        let found: BTreeMap<EniId, Eni> = tagged.into_iter().chain(attached).map(|eni| (eni.id.clone(), eni)).collect();
        Ok(found.into_values().map(to_port).collect())
    }

    async fn subnet(&self, subnet: &SubnetId) -> Ec2Result<Subnet> {
        let describe = DescribeSubnets { ids: vec![subnet.to_string()], ..DescribeSubnets::default() };
        let found = self.ask(&describe).await?.items.pop();
        let found =
            found.ok_or(Ec2Error::Unknown { action: DescribeSubnets::NAME, reason: "empty answer".to_owned() })?;
        let available_addresses = u32::try_from(found.available()).unwrap_or(u32::MAX);
        Ok(Subnet { id: found.id, cidr: found.cidr, available_addresses })
    }

    async fn create_interface(&self, new: &NewInterface) -> Ec2Result<Interface> {
        let create = CreateNetworkInterface {
            subnet: new.subnet.to_string(),
            description: new.description.clone(),
            groups: new.security_groups.iter().map(ToString::to_string).collect(),
            secondary_count: (new.secondary_count > 0).then_some(new.secondary_count),
            tags: new.tags.clone(),
            client_token: Some(new.token.clone()),
            ..CreateNetworkInterface::default()
        };
        Ok(to_port(self.ask(&create).await?))
    }

    async fn attach_interface(
        &self,
        eni: &EniId,
        instance: &InstanceId,
        card: u8,
        device_index: u8,
    ) -> Ec2Result<AttachmentId> {
        let (interface, instance) = (eni.to_string(), instance.to_string());
        self.ask(&AttachNetworkInterface { interface, instance, card, device_index }).await
    }

    async fn delete_on_termination(&self, eni: &EniId, attachment: &AttachmentId) -> Ec2Result<()> {
        let change = Change::DeleteOnTermination { attachment: attachment.to_string(), value: true };
        self.ask(&ModifyNetworkInterfaceAttribute { interface: eni.to_string(), change }).await
    }

    async fn assign_addresses(&self, eni: &EniId, count: u16) -> Ec2Result<()> {
        let interface = eni.to_string();
        let assign = AssignPrivateIpAddresses { interface, count: Some(count), ..AssignPrivateIpAddresses::default() };
        self.ask(&assign).await.map(drop)
    }

    async fn unassign_addresses(&self, eni: &EniId, addresses: &[Ipv4Addr]) -> Ec2Result<()> {
        self.ask(&UnassignPrivateIpAddresses { interface: eni.to_string(), addresses: addresses.to_vec() }).await
    }

    async fn detach_interface(&self, attachment: &AttachmentId) -> Ec2Result<()> {
        self.ask(&DetachNetworkInterface { attachment: attachment.to_string() }).await
    }

    async fn delete_interface(&self, eni: &EniId) -> Ec2Result<()> {
        self.ask(&DeleteNetworkInterface { interface: eni.to_string() }).await
    }
}

fn to_port(eni: Eni) -> Interface {
    let secondary: BTreeSet<Ipv4Addr> = eni.secondary.into_iter().collect();
    Interface {
        id: eni.id,
        mac: eni.mac,
        subnet: eni.subnet,
        primary: eni.primary,
        secondary: secondary.into_iter().collect(),
        attachment: eni.attachment.map(|attachment| Attachment {
            id: attachment.id,
            instance: attachment.instance,
            device_index: attachment.device_index,
            card: attachment.card,
            attached: attachment.state == AttachmentState::Attached,
            delete_on_termination: attachment.delete_on_termination,
        }),
        tags: eni.tags,
    }
}
