//! Everything that is shown of the daemon at one moment, taken in one step of the loop, so that it fits together.

use ipam_core::{
    Lease, Limits, Moment, Policy,
    engine::{Engine, EngineStatus, PlanStatus, SubnetStatus},
    ports::{Interface, NodeIdentity},
};

/// The daemon at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) at: Moment,
    pub(crate) node: NodeIdentity,
    pub(crate) limits: Limits,
    /// What is wanted of the pool.
    pub(crate) policy: Policy,
    pub(crate) status: EngineStatus,
    pub(crate) plan: PlanStatus,
    pub(crate) subnets: Vec<SubnetStatus>,
    /// The ENIs as EC2 described them last, by id.
    pub(crate) interfaces: Vec<Interface>,
    /// The leases, by key.
    pub(crate) leases: Vec<Lease>,
}

impl View {
    /// Takes the view.
    pub(crate) fn of(engine: &Engine, node: &NodeIdentity, now: Moment) -> Self {
        Self {
            at: now,
            node: node.clone(),
            limits: engine.limits(),
            policy: engine.policy().clone(),
            status: engine.status(now),
            plan: engine.plan_status(now),
            subnets: engine.subnet_status(now),
            interfaces: engine.pool().enis().map(|eni| eni.interface.clone()).collect(),
            leases: engine.leases().cloned().collect(),
        }
    }

    /// Most ENIs that can be used on the default network card.
    pub(crate) fn most_enis(&self) -> u64 {
        self.policy.max_enis.map_or(self.limits.max_enis, |wanted| wanted.min(self.limits.max_enis)).into()
    }

    /// Most addresses for pods that these can have, each taken singly.
    pub(crate) fn most_addresses(&self) -> u64 {
        self.most_enis() * u64::from(self.limits.addresses_per_eni.saturating_sub(1))
    }
}
