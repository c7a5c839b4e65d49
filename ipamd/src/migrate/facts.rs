//! Gathers what decisions depend on. Changes nothing.

use std::{fs, io, path::Path, time::UNIX_EPOCH};

use eni_datapath::{
    EniPlan, HostPlan,
    incumbent::{self, Incumbent},
};
use ipam_aws::AwsImds;
use ipam_core::{
    Lease, Moment,
    ports::{Cidr4, Imds, Interface, NodeIdentity},
};

use super::{
    MigrateError, Surroundings,
    checkpoint::{self, Found},
    judge::Facts,
    legacy::Legacy,
    record::Record,
};
use crate::{errors::chain, host, incumbent::running, settings::Settings};

/// The node and its ENIs, as the metadata service says.
pub(super) struct Node {
    pub(super) identity: NodeIdentity,
    pub(super) enis: Vec<(Interface, Cidr4)>,
}

impl Node {
    pub(super) async fn read() -> Result<Self, MigrateError> {
        let imds = AwsImds::new();
        let identity = imds.identity().await?;
        let enis = imds.interfaces(&identity).await?;
        Ok(Self { identity, enis })
    }

    /// How the base and each secondary ENI on the first card shall be.
    pub(super) fn plans(&self, settings: &Settings) -> Result<(HostPlan, Vec<EniPlan>), MigrateError> {
        let is_primary = |(eni, _): &&(Interface, Cidr4)| eni.mac == self.identity.primary_mac;
        let primary = self.enis.iter().find(is_primary).ok_or(host::KernelError::NotAttached)?;
        let host = host::host_plan(&self.identity, settings, &primary.0)?;
        let first_card = |(eni, _): &&(Interface, Cidr4)| eni.attachment.as_ref().is_some_and(|it| it.card == 0);
        let enis = self.enis.iter().filter(first_card);
        let enis = enis.map(|(eni, subnet)| host::eni_plan(settings, eni, *subnet)).collect::<Result<_, _>>()?;
        Ok((host, enis))
    }
}

/// What was gathered, and what of it will be needed again.
pub(super) struct Gathered {
    pub(super) facts: Facts,
    pub(super) seen: Incumbent,
    pub(super) legacy: Legacy,
    /// Its file as it was before it was barred.
    pub(super) original: String,
    pub(super) record: Option<Record>,
}

/// Looks at everything. `leases`: ours.
pub(super) fn gather(
    settings: &Settings,
    surroundings: &Surroundings,
    node: &Node,
    leases: Vec<Lease>,
) -> Result<Gathered, MigrateError> {
    let seen = Incumbent::observe(&settings.veth_prefix)?;
    let record = Record::read(&settings.database).map_err(super::files("reading the record of an earlier import"))?;
    let (legacy, unseen_chains) = match Legacy::observe() {
        Ok(legacy) => (legacy, None),
        Err(error) => (Legacy::default(), Some(error.to_string())),
    };
    let path = surroundings.checkpoint(settings);
    let (checkpoint, original) = match (checkpoint::read(path), &record) {
        (Ok(Found::Its(text, checkpoint)), _) => (Some(Ok(checkpoint)), text),
        (Ok(Found::Barred), Some(record)) => {
            let parsed = checkpoint::parse(path, &record.checkpoint).map_err(|error| chain(&error));
            (Some(parsed), record.checkpoint.clone())
        }
        (Ok(Found::Nothing | Found::Barred), _) => (None, String::new()),
        (Err(error), _) => (Some(Err(chain(&error))), String::new()),
    };
    let pods = seen.pods();
    let namespaces = incumbent::find_namespaces(&pods, &surroundings.namespaces).unwrap_or_default();
    let facts = Facts {
        running: running(path),
        checkpoint,
        written: written(path).ok(),
        pods,
        ours: incumbent::labelled(&seen),
        branches: seen.branches(),
        enis: node.enis.iter().map(|(eni, _)| eni.clone()).collect(),
        namespaces,
        leases,
        unseen_chains,
    };
    Ok(Gathered { facts, seen, legacy, original, record })
}

fn written(path: &Path) -> io::Result<Moment> {
    let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Moment::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}
