//! The metadata service of one instance, as a port and as a source for the HTTP one.

use std::str::FromStr;

use ipam_core::{
    InstanceId, Moment,
    ports::{Imds, ImdsError, NodeIdentity},
};

use crate::{
    SimCloud,
    imds::{InstanceMetadata, MetadataSource},
    world::cidr,
};

/// One instance of a [`SimCloud`].
#[derive(Debug, Clone)]
pub struct SimInstance {
    cloud: SimCloud,
    id: InstanceId,
}

impl SimInstance {
    pub(super) fn new(cloud: SimCloud, id: InstanceId) -> Self {
        Self { cloud, id }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &InstanceId {
        &self.id
    }
}

impl MetadataSource for SimInstance {
    /// Follows the cloud's own clock.
    fn metadata(&self, _: Moment) -> Option<InstanceMetadata> {
        self.cloud.with(|world, _| world.metadata(&self.id))
    }
}

impl Imds for SimInstance {
    async fn identity(&self) -> Result<NodeIdentity, ImdsError> {
        let metadata = self.cloud.with(|world, _| world.metadata(&self.id));
        let metadata = metadata.ok_or_else(|| failed("instance-id", "the instance is not running"))?;
        let primary = metadata.interfaces.into_iter().find(|interface| interface.mac == metadata.mac);
        let primary = primary.ok_or_else(|| failed("network/interfaces/macs/", "the primary ENI is missing"))?;
        let mut vpc_cidrs: Vec<_> = primary.vpc_ipv4_cidr_blocks.iter().filter_map(|text| cidr::parse(text)).collect();
        vpc_cidrs.sort();
        let groups = primary.security_group_ids.iter().map(|text| read("security-group-ids", text));
        let mut security_groups: Vec<_> = groups.collect::<Result<_, _>>()?;
        security_groups.sort();
        Ok(NodeIdentity {
            instance: self.id.clone(),
            instance_type: metadata.instance_type,
            region: metadata.region,
            primary_mac: metadata.mac,
            primary_eni: read("interface-id", &primary.interface_id)?,
            subnet: read("subnet-id", &primary.subnet_id)?,
            subnet_cidr: cidr::parse(&primary.subnet_ipv4_cidr_block)
                .ok_or_else(|| failed("subnet-ipv4-cidr-block", "is no network"))?,
            zone: metadata.availability_zone,
            vpc: read("vpc-id", &primary.vpc_id)?,
            vpc_cidrs,
            security_groups,
        })
    }
}

fn read<T: FromStr<Err: ToString>>(path: &str, text: &str) -> Result<T, ImdsError> {
    text.parse().map_err(|error: T::Err| failed(path, &error.to_string()))
}

fn failed(path: &str, reason: &str) -> ImdsError {
    ImdsError { path: path.to_owned(), reason: reason.to_owned() }
}
