//! Instances: launch, list, terminate.

use ipam_core::{InstanceId, SubnetId};

use crate::{
    Action, ApiError,
    action::{
        attachments::{self, Slot},
        groups,
        interfaces::{self, Birth, Picked},
        tags,
    },
    world::{
        Due, Filter, InstanceType, Page, Paging, State, catalogue,
        filter::{self, Filterable},
        lookup,
        model::{AttachmentState, Eni, Instance, InstanceState, Tags},
        space::Choice,
    },
};

/// Starts instances, each with a primary ENI that goes away with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstances {
    /// Their type.
    pub instance_type: String,
    /// Image; not interpreted.
    pub image: String,
    /// How many, at least 1.
    pub count: u16,
    /// Subnet of the primary ENIs. Absent: the default VPC's first.
    pub subnet: Option<String>,
    /// Groups of the primary ENIs. Empty: the VPC's default.
    pub groups: Vec<String>,
    /// Secondary addresses of each primary ENI.
    pub secondary_count: u16,
    /// Prefixes of each primary ENI; not together with secondary addresses.
    pub prefix_count: u16,
    /// Tags of the instances.
    pub tags: Tags,
    /// Tags of the primary ENIs.
    pub interface_tags: Tags,
    /// The same token gives the same instances.
    pub client_token: Option<String>,
}

impl Default for RunInstances {
    fn default() -> Self {
        Self {
            instance_type: "m5.xlarge".to_owned(),
            image: "ami-00000000000000000".to_owned(),
            count: 1,
            subnet: None,
            groups: Vec::new(),
            secondary_count: 0,
            prefix_count: 0,
            tags: Tags::new(),
            interface_tags: Tags::new(),
            client_token: None,
        }
    }
}

/// An instance and its ENIs, sorted by card and device index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceDescription {
    /// The instance.
    pub instance: Instance,
    /// Its ENIs.
    pub interfaces: Vec<Eni>,
}

impl Action for RunInstances {
    const NAME: &'static str = "RunInstances";
    /// Sorted by id.
    type Answer = Vec<InstanceDescription>;

    fn apply(&self, state: &mut State) -> Result<Vec<InstanceDescription>, ApiError> {
        if let Some((request, ids)) = self.client_token.as_ref().and_then(|token| state.run_tokens.get(token)) {
            return if request == self { Ok(describe(state, ids)) } else { Err(interfaces::token_mismatch()) };
        }
        let limits = catalogue::all().get(self.instance_type.as_str()).ok_or_else(|| {
            ApiError::invalid_value(format!("Invalid value '{}' for InstanceType.", self.instance_type))
        })?;
        let subnet = self.subnet_in(state)?;
        let vpc = lookup::find(&state.subnets, subnet.as_str())?.vpc.clone();
        let groups = groups::resolve(state, &vpc, &self.groups)?;
        tags::check(&Tags::new(), &self.tags)?;
        tags::check(&Tags::new(), &self.interface_tags)?;
        self.check_addresses(limits)?;
        let picked = self.pick(state, &subnet)?;
        let reservation = format!("r-0{:016x}", state.next_number());
        let mut ids = Vec::new();
        for picked in picked {
            let (subnet, vpc, groups) = (subnet.clone(), vpc.clone(), groups.clone());
            let birth = Birth { subnet, vpc, groups, picked, ready: true, ready_at: state.now };
            ids.push(self.launch(state, birth, &reservation));
        }
        ids.sort();
        if let Some(token) = &self.client_token {
            state.run_tokens.insert(token.clone(), (self.clone(), ids.clone()));
        }
        Ok(describe(state, &ids))
    }

    fn resources(&self) -> u32 {
        self.count.into()
    }
}

impl RunInstances {
    fn check_addresses(&self, limits: &InstanceType) -> Result<(), ApiError> {
        if self.secondary_count > 0 && self.prefix_count > 0 {
            return Err(ApiError::invalid_combination("Secondary addresses or prefixes may be given, but not both"));
        }
        if self.prefix_count > 0 && !limits.has_prefixes() {
            return Err(super::addresses::no_prefixes_on(limits.name));
        }
        if 1 + self.secondary_count + self.prefix_count > limits.addresses_per_eni {
            let message = "Number of private addresses exceeds the limit of the instance type.";
            return Err(ApiError::new("InvalidInterface.IpAddressLimitExceeded", message));
        }
        Ok(())
    }

    /// The addresses of all primary ENIs.
    fn pick(&self, state: &mut State, subnet: &SubnetId) -> Result<Vec<Picked>, ApiError> {
        let space = state.spaces.get(subnet).ok_or_else(|| lookup::not_found::<SubnetId>(subnet.as_str()))?;
        let mut choice = Choice::new(space, state.config.order);
        let picked = (0..self.count).map(|_| {
            let prefixes = choice.prefixes(self.prefix_count.into(), &mut state.rng)?;
            let mut secondary = choice.addresses(1 + usize::from(self.secondary_count), &mut state.rng)?;
            Ok(Picked { primary: secondary.remove(0), secondary, prefixes })
        });
        picked.collect()
    }

    fn subnet_in(&self, state: &State) -> Result<SubnetId, ApiError> {
        if let Some(subnet) = &self.subnet {
            return Ok(lookup::find(&state.subnets, subnet)?.id.clone());
        }
        let vpc = state.vpcs.values().find(|vpc| vpc.is_default).ok_or_else(groups::no_default_vpc)?;
        let subnet = state.subnets.values().find(|subnet| subnet.vpc == vpc.id);
        subnet
            .map(|subnet| subnet.id.clone())
            .ok_or_else(|| ApiError::new("MissingInput", "The default VPC has no subnet"))
    }

    /// Makes one instance with its primary ENI, which is there from the beginning.
    fn launch(&self, state: &mut State, birth: Birth, reservation: &str) -> InstanceId {
        let id: InstanceId = state.new_id();
        let zone = state.subnets.get(&birth.subnet).map(|subnet| subnet.availability_zone.clone());
        let instance = Instance {
            id: id.clone(),
            instance_type: self.instance_type.clone(),
            image: self.image.clone(),
            reservation: reservation.to_owned(),
            state: InstanceState::Pending,
            launched_at: state.now,
            availability_zone: zone.unwrap_or_default(),
            vpc: birth.vpc.clone(),
            subnet: birth.subnet.clone(),
            tags: self.tags.clone(),
            interfaces: Default::default(),
        };
        state.instances.insert(id.clone(), instance);
        let eni = birth.bear(state, String::new(), self.interface_tags.clone());
        attachments::plug(state, &eni, Slot { instance: id.clone(), card: 0, device_index: 0 }, true);
        if let Some(attachment) = state.enis.get_mut(&eni).and_then(|eni| eni.attachment.as_mut()) {
            attachment.state = AttachmentState::Attached;
        }
        let delay = state.draw(state.config.delays.launch);
        state.schedule(state.now.after(delay), Due::Running(id.clone()));
        id
    }
}

fn describe(state: &State, ids: &[InstanceId]) -> Vec<InstanceDescription> {
    ids.iter().filter_map(|id| state.instances.get(id)).map(|instance| describe_one(state, instance)).collect()
}

fn describe_one(state: &State, instance: &Instance) -> InstanceDescription {
    let interfaces = instance.interfaces.values().filter_map(|eni| state.enis.get(eni)).cloned().collect();
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
            "private-ip-address" => Some(self.interfaces.iter().take(1).map(|eni| eni.primary.to_string()).collect()),
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
