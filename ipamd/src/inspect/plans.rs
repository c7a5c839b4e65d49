//! How node and ENIs should be, by what the daemon wrote down of them.

use std::collections::BTreeMap;

use eni_datapath::{EniPlan, HostPlan};
use ipam_core::{EniId, ports::Cidr4};

use crate::{host, settings::Settings, store::KnownCloud};

/// What the node was prepared with, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plans {
    /// Absent: no daemon has ever known which node this is.
    pub(crate) host: Option<HostPlan>,
    /// The ENIs that are ready for pods.
    pub(crate) enis: BTreeMap<EniId, EniPlan>,
    /// Destinations that pods reach untranslated. Empty: unknown.
    pub(crate) direct: Vec<Cidr4>,
}

impl Plans {
    /// `is_prepared` tells by its id whether an ENI carries pods, or might at once.
    pub(crate) fn of(known: &KnownCloud, settings: &Settings, is_prepared: impl Fn(&str) -> bool) -> Self {
        let Some(node) = &known.node else { return Self::default() };
        let primary = known.interfaces.iter().find(|eni| eni.id == node.primary_eni);
        let host = primary.and_then(|primary| host::host_plan(node, settings, primary).ok());
        let prepared = known.interfaces.iter().filter(|eni| is_prepared(eni.id.as_str()));
        let enis = prepared.filter_map(|eni| {
            let own = (eni.subnet == node.subnet).then_some(node.subnet_cidr);
            let subnet = own.or_else(|| known.networks.get(&eni.subnet).copied())?;
            Some((eni.id.clone(), host::eni_plan(settings, eni, subnet).ok()?))
        });
        let by_main =
            |network: &&Cidr4| !settings.external_services.iter().any(|other| other.contains(network.network));
        let direct = node.vpc_cidrs.iter().filter(by_main).copied().collect();
        Self { enis: enis.collect(), host, direct }
    }

    /// The secondary ENIs; the primary one is the host's.
    pub(crate) fn enis(&self) -> Vec<EniPlan> {
        self.enis.values().filter(|plan| !plan.mark.is_primary()).cloned().collect()
    }
}
