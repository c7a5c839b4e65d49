//! Instances: list, terminate.

use ipam_core::InstanceId;

use crate::{
    Action, ApiError,
    world::{
        Due, Filter, Page, Paging, State, View,
        filter::{self, Filterable},
        lookup,
        model::{Eni, Instance, InstanceState, Tags},
    },
};

/// An instance and its ENIs, sorted by card and device index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceDescription {
    /// The instance.
    pub instance: Instance,
    /// Its ENIs.
    pub interfaces: Vec<Eni>,
}

/// Instances with what is attached to them.
pub(super) fn describe(state: &State, ids: &[InstanceId]) -> Vec<InstanceDescription> {
    ids.iter().filter_map(|id| state.instances.get(id)).map(|instance| describe_one(state, instance)).collect()
}

fn describe_one(state: &State, instance: &Instance) -> InstanceDescription {
    let interfaces = instance.interfaces.values().filter_map(|eni| state.seen(View::Api, eni)).cloned().collect();
    InstanceDescription { instance: instance.clone(), interfaces }
}

/// Lists instances, also those that were terminated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeInstances {
    /// Only these. Empty: all.
    pub ids: Vec<String>,
    /// Only what passes.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeInstances {
    const NAME: &'static str = "DescribeInstances";
    type Answer = Page<InstanceDescription>;

    fn apply(&self, state: &mut State) -> Result<Page<InstanceDescription>, ApiError> {
        self.paging.check(5..=1000, !self.ids.is_empty())?;
        let candidates = super::select(&state.instances, &self.ids, &[])?;
        let mut found = Vec::new();
        for candidate in &candidates {
            let description = describe_one(state, candidate);
            if filter::passes(&description, &self.filters)? {
                found.push(description);
            }
        }
        Ok(self.paging.cut(found, |description| description.instance.id.clone()))
    }

    /// A list of ids counts as asking for all: EC2 does not say that it is a filter.
    fn is_unbounded(&self) -> bool {
        self.filters.is_empty() && self.paging.max_results.is_none()
    }
}

/// Ends instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TerminateInstances {
    /// Which, at least one.
    pub ids: Vec<String>,
}

/// How an instance's state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// Which instance.
    pub id: InstanceId,
    /// Before the call.
    pub previous: InstanceState,
    /// After the call.
    pub current: InstanceState,
}

impl Action for TerminateInstances {
    const NAME: &'static str = "TerminateInstances";
    type Answer = Vec<StateChange>;

    fn apply(&self, state: &mut State) -> Result<Vec<StateChange>, ApiError> {
        for id in &self.ids {
            lookup::find(&state.instances, id)?;
        }
        let mut changes = Vec::new();
        for id in &self.ids {
            let instance = lookup::find_mut(&mut state.instances, id)?;
            let (id, previous) = (instance.id.clone(), instance.state);
            let current = match previous {
                InstanceState::Pending | InstanceState::Running => InstanceState::ShuttingDown,
                InstanceState::ShuttingDown | InstanceState::Terminated => previous,
            };
            instance.state = current;
            if current != previous {
                state.version += 1;
                let delay = state.draw(state.config.delays.terminate);
                state.schedule(state.now.after(delay), Due::Terminated(id.clone()));
            }
            changes.push(StateChange { id, previous, current });
        }
        Ok(changes)
    }

    fn resources(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }
}

impl Filterable for Instance {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "instance-id" => self.id.to_string(),
            "instance-type" => self.instance_type.clone(),
            "instance-state-name" => self.state.name().to_owned(),
            "instance-state-code" => self.state.code().to_string(),
            "availability-zone" => self.availability_zone.clone(),
            "image-id" => self.image.clone(),
            "reservation-id" => self.reservation.clone(),
            "subnet-id" => self.subnet.to_string(),
            "vpc-id" => self.vpc.to_string(),
            "owner-id" => crate::ACCOUNT.to_owned(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Filterable for InstanceDescription {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "private-ip-address" => {
                Some(self.interfaces.iter().take(1).filter_map(|eni| Some(eni.primary?.to_string())).collect())
            }
            "network-interface.network-interface-id" => {
                Some(self.interfaces.iter().map(|eni| eni.id.to_string()).collect())
            }
            _ => self.instance.field(name),
        }
    }

    fn tags(&self) -> &Tags {
        &self.instance.tags
    }
}
