//! What an instance's metadata service shows of the world.

use ipam_core::InstanceId;

use crate::{
    imds::{InstanceMetadata, InterfaceMetadata, Ipv6Metadata},
    world::{
        Cidr6, cidr,
        model::{Attachment, Eni, InstanceState},
        state::State,
    },
};

impl State {
    /// The metadata of a running instance: its identity, and each ENI that is plugged in.
    pub(crate) fn metadata(&self, id: &InstanceId) -> Option<InstanceMetadata> {
        let instance = self.instances.get(id).filter(|instance| instance.state == InstanceState::Running)?;
        let primary = self.enis.get(instance.interfaces.get(&(0, 0))?)?;
        let ghosts = self.views.ghosts.get(id).into_iter().flatten().filter(|(_, until)| *until > self.now);
        Some(InstanceMetadata {
            instance_id: id.to_string(),
            instance_type: instance.instance_type.clone(),
            image_id: instance.image.clone(),
            account: crate::ACCOUNT.to_owned(),
            region: self.config.region.clone(),
            availability_zone: instance.availability_zone.clone(),
            local_ipv4: primary.primary?,
            mac: primary.mac,
            ghosts: ghosts.map(|(mac, _)| *mac).collect(),
            interfaces: self
                .in_metadata(id)
                .filter_map(|eni| self.interface_metadata(eni, eni.attachment.as_ref()?))
                .collect(),
        })
    }

    fn interface_metadata(&self, eni: &Eni, attachment: &Attachment) -> Option<InterfaceMetadata> {
        let (subnet, vpc) = (self.subnets.get(&eni.subnet)?, self.vpcs.get(&eni.vpc)?);
        let texts = |cidrs: &[Cidr6]| cidrs.iter().map(ToString::to_string).collect();
        let ipv6 = Ipv6Metadata {
            ipv6s: eni.ipv6.addresses.iter().map(ToString::to_string).collect(),
            prefixes: texts(&eni.ipv6.prefixes),
            subnet_cidr_blocks: texts(subnet.cidr6.as_slice()),
            vpc_cidr_blocks: texts(vpc.cidr6.as_slice()),
        };
        Some(InterfaceMetadata {
            mac: eni.mac,
            interface_id: eni.id.to_string(),
            device_number: attachment.device_index,
            network_card: attachment.card,
            subnet_id: eni.subnet.to_string(),
            vpc_id: eni.vpc.to_string(),
            owner_id: crate::ACCOUNT.to_owned(),
            security_group_ids: eni.groups.iter().map(|group| group.id.to_string()).collect(),
            security_groups: eni.groups.iter().map(|group| group.name.clone()).collect(),
            local_ipv4s: eni.addresses().collect(),
            ipv4_prefixes: eni.prefixes.iter().copied().map(cidr::text).collect(),
            subnet_ipv4_cidr_block: cidr::text(subnet.cidr),
            vpc_ipv4_cidr_blocks: vpc.cidrs.iter().copied().map(cidr::text).collect(),
            ipv6,
        })
    }
}
