//! RunInstances.

use ipam_core::{InstanceId, SubnetId, VpcId};
use rand_chacha::ChaCha8Rng;

use crate::{
    Action, ApiError,
    action::{
        attachments::{self, Slot},
        groups,
        instances::{InstanceDescription, describe},
        interfaces::{self, Birth, Picked},
        tags,
    },
    world::{
        Due, InstanceType, State, View, catalogue, lookup,
        model::{AttachmentState, EniKind, Instance, InstanceState, Tags},
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
    /// ENIs that each instance has besides its primary one, with the same subnet and groups.
    pub more: Vec<LaunchInterface>,
    /// Tags of the instances.
    pub tags: Tags,
    /// Tags of the ENIs.
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
            more: Vec::new(),
            tags: Tags::new(),
            interface_tags: Tags::new(),
            client_token: None,
        }
    }
}

/// One more ENI of a new instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchInterface {
    /// What it is for; EFA comes only this way.
    pub kind: EniKind,
    /// Network card.
    pub card: u8,
    /// Slot on the card.
    pub device_index: u8,
    /// Its secondary addresses.
    pub secondary_count: u16,
    /// Its prefixes; not together with secondary addresses.
    pub prefix_count: u16,
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
        let interfaces = self.interfaces();
        self.check_slots(&interfaces, limits)?;
        interfaces.iter().try_for_each(|interface| interface.check(limits))?;
        let picked = self.pick(state, &subnet, &interfaces)?;
        let reservation = format!("r-0{:016x}", state.next_number());
        let mut ids = Vec::new();
        for picked in picked {
            let births = interfaces.iter().zip(picked).map(|(interface, picked)| {
                let (kind, subnet, vpc, groups) = (interface.kind, subnet.clone(), vpc.clone(), groups.clone());
                (interface, Birth { kind, subnet, vpc, groups, picked, ready: true, ready_at: state.now })
            });
            let births = births.collect();
            ids.push(self.launch(state, (&subnet, &vpc), births, &reservation));
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
    /// All ENIs of one instance, the primary first.
    fn interfaces(&self) -> Vec<LaunchInterface> {
        let (secondary_count, prefix_count) = (self.secondary_count, self.prefix_count);
        let primary = LaunchInterface { secondary_count, prefix_count, ..LaunchInterface::default() };
        [primary].into_iter().chain(self.more.iter().cloned()).collect()
    }

    fn check_slots(&self, interfaces: &[LaunchInterface], limits: &InstanceType) -> Result<(), ApiError> {
        for (card, most) in &limits.cards {
            if interfaces.iter().filter(|interface| interface.card == *card).count() > usize::from(*most) {
                let message = format!("Interface count exceeds the limit for {} on card {card}", limits.name);
                return Err(ApiError::new("AttachmentLimitExceeded", message));
            }
        }
        for (nth, interface) in interfaces.iter().enumerate() {
            let slot = |other: &LaunchInterface| (other.card, other.device_index);
            let taken = interfaces[..nth].iter().any(|other| slot(other) == slot(interface));
            if taken || !limits.cards.contains_key(&interface.card) {
                let message = format!("Network card {} has no free index {}", interface.card, interface.device_index);
                return Err(ApiError::invalid_value(message));
            }
        }
        Ok(())
    }

    /// The addresses of all ENIs of all instances.
    fn pick(
        &self,
        state: &mut State,
        subnet: &SubnetId,
        interfaces: &[LaunchInterface],
    ) -> Result<Vec<Vec<Picked>>, ApiError> {
        let space = state.spaces.get(subnet).ok_or_else(|| lookup::not_found::<SubnetId>(subnet.as_str()))?;
        let mut choice = Choice::new(space, state.config.order);
        let rng = &mut state.rng;
        let mut one = |interface: &LaunchInterface| interface.pick(&mut choice, rng);
        (0..self.count).map(|_| interfaces.iter().map(&mut one).collect()).collect()
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

    /// Makes one instance with its ENIs, which are there from the beginning.
    fn launch(
        &self,
        state: &mut State,
        (subnet, vpc): (&SubnetId, &VpcId),
        births: Vec<(&LaunchInterface, Birth)>,
        reservation: &str,
    ) -> InstanceId {
        let id: InstanceId = state.new_id();
        let zone = state.subnets.get(subnet).map(|subnet| subnet.availability_zone.clone());
        let instance = Instance {
            id: id.clone(),
            instance_type: self.instance_type.clone(),
            image: self.image.clone(),
            reservation: reservation.to_owned(),
            state: InstanceState::Pending,
            launched_at: state.now,
            availability_zone: zone.unwrap_or_default(),
            vpc: vpc.clone(),
            subnet: subnet.clone(),
            tags: self.tags.clone(),
            interfaces: Default::default(),
        };
        state.instances.insert(id.clone(), instance);
        for (interface, birth) in births {
            let eni = birth.bear(state, String::new(), self.interface_tags.clone());
            let (instance, card, device_index) = (id.clone(), interface.card, interface.device_index);
            attachments::plug(state, &eni, Slot { instance, card, device_index }, true);
            if let Some(attachment) = state.enis.get_mut(&eni).and_then(|eni| eni.attachment.as_mut()) {
                attachment.state = AttachmentState::Attached;
            }
            // A new machine knows what it was made with.
            state.see(View::Metadata, &eni);
        }
        let delay = state.draw(state.config.delays.launch);
        state.schedule(state.now.after(delay), Due::Running(id.clone()));
        id
    }
}

impl LaunchInterface {
    fn check(&self, limits: &InstanceType) -> Result<(), ApiError> {
        if self.secondary_count > 0 && self.prefix_count > 0 {
            return Err(ApiError::invalid_combination("Secondary addresses or prefixes may be given, but not both"));
        }
        if self.prefix_count > 0 && !limits.has_prefixes() {
            return Err(super::addresses::no_prefixes_on(limits.name));
        }
        if self.kind == EniKind::Branch
            || (self.kind == EniKind::EfaOnly && self.secondary_count + self.prefix_count > 0)
        {
            return Err(ApiError::invalid_combination(format!(
                "No such launch of a network interface of type {}",
                self.kind.name()
            )));
        }
        if 1 + self.secondary_count + self.prefix_count > limits.addresses_per_eni {
            let message = "Number of private addresses exceeds the limit of the instance type.";
            return Err(ApiError::new("InvalidInterface.IpAddressLimitExceeded", message));
        }
        Ok(())
    }

    fn pick(&self, choice: &mut Choice<'_>, rng: &mut ChaCha8Rng) -> Result<Picked, ApiError> {
        if self.kind == EniKind::EfaOnly {
            return Ok(Picked::default());
        }
        let prefixes = choice.prefixes(self.prefix_count.into(), rng)?;
        let mut secondary = choice.addresses(1 + usize::from(self.secondary_count), rng)?;
        Ok(Picked { primary: Some(secondary.remove(0)), secondary, prefixes, ..Picked::default() })
    }
}
