//! The EC2 port of `ipam-core`, answered by the world itself: no HTTP, no serialisation.

use std::{collections::BTreeSet, net::Ipv4Addr};

use eni_proto::numbers::TAG_INSTANCE;
use ipam_core::{
    AttachmentId, EniId, InstanceId, Limits, SecurityGroupId, VpcId,
    ports::{
        self as port, Amount, Attachment, Cidr4, Ec2, Ec2Error, Ec2Result, Holdings, Interface, InterfaceKind,
        NewInterface, Scope, Subnet,
    },
};

use crate::{
    Action, SimCloud,
    action::{
        AssignIpv6Addresses, AssignPrivateIpAddresses, AttachNetworkInterface, Change, CreateNetworkInterface,
        DeleteNetworkInterface, DescribeInstanceTypes, DescribeNetworkInterfaces, DescribeSubnets,
        DetachNetworkInterface, ModifyNetworkInterfaceAttribute, UnassignPrivateIpAddresses,
    },
    cloud::refusal,
    world::{
        Filter, InstanceType, Wanted6,
        model::{AttachmentState, Eni, EniKind},
    },
};

impl SimCloud {
    /// One call with the delay that a fault may want, in the port's words.
    async fn ask<A: Action>(&self, action: &A) -> Ec2Result<A::Answer> {
        let reply = self.reply(action);
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        reply.heard().map_err(|failure| refusal::to_port(A::NAME, failure))
    }
}

impl Ec2 for SimCloud {
    async fn interfaces(&self, instance: &InstanceId, scope: Scope) -> Ec2Result<Vec<Interface>> {
        let filter = match scope {
            Scope::Attached => Filter::new("attachment.instance-id", instance.as_str()),
            Scope::Tagged => Filter::new(&format!("tag:{TAG_INSTANCE}"), instance.as_str()),
        };
        let describe = DescribeNetworkInterfaces { filters: vec![filter], ..DescribeNetworkInterfaces::default() };
        Ok(self.ask(&describe).await?.items.into_iter().filter_map(to_port).collect())
    }

    async fn subnets(&self, vpc: &VpcId, zone: &str) -> Ec2Result<Vec<Subnet>> {
        let filters = vec![Filter::new("vpc-id", vpc.as_str()), Filter::new("availability-zone", zone)];
        let describe = DescribeSubnets { filters, ..DescribeSubnets::default() };
        let subnets = self.ask(&describe).await?.items.into_iter().map(|found| {
            let available_addresses = u32::try_from(found.available).unwrap_or(u32::MAX);
            Subnet { id: found.id, cidr: found.cidr, available_addresses, tags: found.tags }
        });
        Ok(subnets.collect())
    }

    async fn limits(&self, instance_type: &str) -> Ec2Result<Limits> {
        let names = vec![instance_type.to_owned()];
        let page = self.ask(&DescribeInstanceTypes { names, ..DescribeInstanceTypes::default() }).await?;
        let found = page.items.first().map(InstanceType::limits);
        found.ok_or(Ec2Error::Unknown { action: DescribeInstanceTypes::NAME, reason: "nothing was told".to_owned() })
    }

    async fn create_interface(&self, new: &NewInterface) -> Ec2Result<Interface> {
        let (secondary_count, prefix_count) = counts(new.amount);
        let create = CreateNetworkInterface {
            subnet: new.subnet.to_string(),
            description: new.description.clone(),
            groups: new.security_groups.iter().map(ToString::to_string).collect(),
            secondary_count: secondary_count.filter(|count| *count > 0),
            prefix_count: prefix_count.filter(|count| *count > 0),
            ipv6: Wanted6 {
                prefix_count: (new.prefix6 || new.amount == Amount::Prefix6).then_some(1),
                ..Wanted6::default()
            },
            tags: new.tags.clone(),
            client_token: Some(new.token.clone()),
            ..CreateNetworkInterface::default()
        };
        to_port(self.ask(&create).await?).ok_or(Ec2Error::Unknown {
            action: CreateNetworkInterface::NAME,
            reason: "the new ENI has no address".to_owned(),
        })
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

    async fn modify_interface(&self, eni: &EniId, change: &port::Change) -> Ec2Result<()> {
        let change = match change {
            port::Change::DeleteOnTermination(attachment) => {
                Change::DeleteOnTermination { attachment: attachment.to_string(), value: true }
            }
            port::Change::SecurityGroups(groups) => Change::Groups(groups.iter().map(ToString::to_string).collect()),
        };
        self.ask(&ModifyNetworkInterfaceAttribute { interface: eni.to_string(), change }).await
    }

    async fn assign(&self, eni: &EniId, amount: Amount) -> Ec2Result<Holdings> {
        let (interface, (count, prefix_count)) = (eni.to_string(), counts(amount));
        if amount == Amount::Prefix6 {
            let wanted = Wanted6 { prefix_count: Some(1), ..Wanted6::default() };
            let (_, new) = self.ask(&AssignIpv6Addresses { interface, wanted }).await?;
            let prefixes6 = new.prefixes.into_iter().map(cidr6).collect();
            return Ok(Holdings { prefixes6, ..Holdings::default() });
        }
        let assign = AssignPrivateIpAddresses { interface, count, prefix_count, ..Default::default() };
        let assigned = self.ask(&assign).await?;
        Ok(Holdings { addresses: assigned.addresses, prefixes: assigned.prefixes, prefixes6: vec![] })
    }

    async fn unassign(&self, eni: &EniId, holdings: &Holdings) -> Ec2Result<()> {
        let (addresses, prefixes) = (holdings.addresses.clone(), holdings.prefixes.clone());
        self.ask(&UnassignPrivateIpAddresses { interface: eni.to_string(), addresses, prefixes }).await
    }

    async fn detach_interface(&self, attachment: &AttachmentId) -> Ec2Result<()> {
        self.ask(&DetachNetworkInterface { attachment: attachment.to_string() }).await
    }

    async fn delete_interface(&self, eni: &EniId) -> Ec2Result<()> {
        self.ask(&DeleteNetworkInterface { interface: eni.to_string() }).await
    }
}

/// The numbers of addresses and prefixes, of which EC2 takes one.
fn counts(amount: Amount) -> (Option<u16>, Option<u16>) {
    match amount {
        Amount::Addresses(count) => (Some(count), None),
        Amount::Prefixes(count) => (None, Some(count)),
        Amount::Prefix6 => (None, None),
    }
}

fn cidr6(cidr: crate::world::Cidr6) -> port::Cidr6 {
    port::Cidr6 { network: cidr.network, prefix: cidr.prefix }
}

/// The ENI in the port's words. Absent: it has no address, so it is not for pods.
fn to_port(eni: Eni) -> Option<Interface> {
    let secondary: BTreeSet<Ipv4Addr> = eni.secondary.into_iter().collect();
    let prefixes: BTreeSet<Cidr4> = eni.prefixes.into_iter().collect();
    let groups: BTreeSet<SecurityGroupId> = eni.groups.into_iter().map(|group| group.id).collect();
    Some(Interface {
        id: eni.id,
        mac: eni.mac,
        subnet: eni.subnet,
        primary: eni.primary?,
        secondary: secondary.into_iter().collect(),
        prefixes: prefixes.into_iter().collect(),
        prefixes6: eni.ipv6.prefixes.into_iter().map(cidr6).collect::<BTreeSet<_>>().into_iter().collect(),
        kind: match eni.kind {
            EniKind::Interface => InterfaceKind::Plain,
            EniKind::Efa => InterfaceKind::Efa,
            EniKind::Trunk => InterfaceKind::Trunk,
            EniKind::EfaOnly | EniKind::Branch => InterfaceKind::Other,
        },
        security_groups: groups.into_iter().collect(),
        attachment: eni.attachment.map(|attachment| Attachment {
            id: attachment.id,
            instance: attachment.instance,
            device_index: attachment.device_index,
            card: attachment.card,
            attached: attachment.state == AttachmentState::Attached,
            delete_on_termination: attachment.delete_on_termination,
        }),
        tags: eni.tags,
    })
}
