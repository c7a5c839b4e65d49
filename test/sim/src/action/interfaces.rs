//! ENIs: make, list, delete.

use std::net::Ipv4Addr;

use ipam_core::{EniId, SubnetId, VpcId, ports::Cidr4};
use rand_chacha::ChaCha8Rng;

use crate::{
    Action, ApiError,
    action::{groups, ipv6, tags},
    world::{
        Due, Filter, Held6, Page, Paging, State, Wanted6, catalogue,
        filter::Filterable,
        lookup,
        model::{Eni, EniKind, GroupName, Tags},
        space::Choice,
    },
};

/// Makes an ENI that is attached to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateNetworkInterface {
    /// Where it lives.
    pub subnet: String,
    /// Its description.
    pub description: String,
    /// What it is for.
    pub kind: EniKind,
    /// Its groups. Empty: the VPC's default.
    pub groups: Vec<String>,
    /// Its primary address. Absent: any.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses by name.
    pub secondary: Vec<Ipv4Addr>,
    /// Secondary addresses by number; not together with names.
    pub secondary_count: Option<u16>,
    /// Prefixes by name, each a /28; not together with secondary addresses.
    pub prefixes: Vec<Cidr4>,
    /// Prefixes by number; not together with names or secondary addresses.
    pub prefix_count: Option<u16>,
    /// What of IPv6 it is to have.
    pub ipv6: Wanted6,
    /// Its tags.
    pub tags: Tags,
    /// The same token gives the same ENI.
    pub client_token: Option<String>,
}

impl Action for CreateNetworkInterface {
    const NAME: &'static str = "CreateNetworkInterface";
    type Answer = Eni;

    fn makes_with_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    fn apply(&self, state: &mut State) -> Result<Eni, ApiError> {
        if let Some((request, eni)) = self.client_token.as_ref().and_then(|token| state.create_tokens.get(token)) {
            return if request == self {
                state.enis.get(eni).cloned().ok_or_else(|| lookup::not_found::<EniId>(eni.as_str()))
            } else {
                Err(token_mismatch())
            };
        }
        let subnet = lookup::find(&state.subnets, &self.subnet)?;
        let (subnet, vpc) = (subnet.id.clone(), subnet.vpc.clone());
        let groups = groups::resolve(state, &vpc, &self.groups)?;
        tags::check(&Tags::new(), &self.tags)?;
        let wanted = Wanted {
            secondary: &self.secondary,
            count: self.secondary_count,
            prefixes: &self.prefixes,
            prefix_count: self.prefix_count,
        };
        state.config.quotas.check("NetworkInterfaceLimitExceeded", state.enis.len(), |quotas| quotas.enis)?;
        let mut picked = self.pick(state, &subnet, &wanted)?;
        if self.ipv6.check()? > usize::from(catalogue::most_addresses()) {
            return Err(super::addresses::limit_exceeded());
        }
        picked.ipv6 = ipv6::choose(state, &subnet, &self.ipv6)?;
        let delay = state.draw(state.config.delays.create);
        let ready_at = state.now.after(delay);
        let birth = Birth { kind: self.kind, subnet, vpc, groups, picked, ready_at, ready: false };
        let id = birth.bear(state, self.description.clone(), self.tags.clone());
        state.schedule(ready_at, Due::Ready(id.clone()));
        if let Some(token) = &self.client_token {
            state.create_tokens.insert(token.clone(), (self.clone(), id.clone()));
        }
        state.enis.get(&id).cloned().ok_or_else(|| lookup::not_found::<EniId>(id.as_str()))
    }
}

/// The refusal of a client token that was used for another request.
pub(super) fn token_mismatch() -> ApiError {
    ApiError::new("IdempotentParameterMismatch", "The client token was used before with other parameters")
}

impl CreateNetworkInterface {
    fn pick(&self, state: &mut State, subnet: &SubnetId, wanted: &Wanted<'_>) -> Result<Picked, ApiError> {
        wanted.check()?;
        if 1 + wanted.slots() > usize::from(catalogue::most_addresses()) {
            return Err(super::addresses::limit_exceeded());
        }
        if self.kind == EniKind::EfaOnly {
            return if self.primary.is_none() && wanted.slots() == 0 {
                Ok(Picked::default())
            } else {
                Err(ApiError::invalid_combination("An EFA-only network interface has no addresses"))
            };
        }
        let space = state.spaces.get(subnet).ok_or_else(|| lookup::not_found::<SubnetId>(subnet.as_str()))?;
        let mut choice = Choice::new(space, state.config.order);
        for address in self.primary.iter().chain(&self.secondary) {
            choice.name(*address)?;
        }
        let (mut addresses, prefixes) =
            wanted.choose(&mut choice, usize::from(self.primary.is_none()), &mut state.rng)?;
        let primary = self.primary.or_else(|| addresses.pop());
        addresses.splice(0..0, self.secondary.iter().copied());
        Ok(Picked { primary, secondary: addresses, prefixes, ..Picked::default() })
    }
}

/// What an ENI is to have besides its primary address.
pub(super) struct Wanted<'a> {
    pub(super) secondary: &'a [Ipv4Addr],
    pub(super) count: Option<u16>,
    pub(super) prefixes: &'a [Cidr4],
    pub(super) prefix_count: Option<u16>,
}

impl Wanted<'_> {
    /// Refuses more than one way to say what is wanted.
    pub(super) fn check(&self) -> Result<(), ApiError> {
        let ways =
            [!self.secondary.is_empty(), self.count.is_some(), !self.prefixes.is_empty(), self.prefix_count.is_some()];
        if ways.into_iter().filter(|used| *used).count() > 1 {
            return Err(ApiError::invalid_combination(
                "Only one of secondary addresses or prefixes, by number or by name, may be given",
            ));
        }
        Ok(())
    }

    /// How many slots of the ENI that takes.
    pub(super) fn slots(&self) -> usize {
        let counts = usize::from(self.count.unwrap_or(0)) + usize::from(self.prefix_count.unwrap_or(0));
        self.secondary.len() + self.prefixes.len() + counts
    }

    /// Chooses what is wanted by number, `more` addresses with it, and the named prefixes.
    pub(super) fn choose(
        &self,
        choice: &mut Choice<'_>,
        more: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<(Vec<Ipv4Addr>, Vec<Cidr4>), ApiError> {
        for prefix in self.prefixes {
            choice.name_prefix(*prefix)?;
        }
        let mut prefixes = self.prefixes.to_vec();
        prefixes.extend(choice.prefixes(self.prefix_count.unwrap_or(0).into(), rng)?);
        Ok((choice.addresses(more + usize::from(self.count.unwrap_or(0)), rng)?, prefixes))
    }
}

/// The addresses of a new ENI: free until it is born.
#[derive(Default)]
pub(super) struct Picked {
    pub(super) primary: Option<Ipv4Addr>,
    pub(super) secondary: Vec<Ipv4Addr>,
    pub(super) prefixes: Vec<Cidr4>,
    pub(super) ipv6: Held6,
}

/// All that a new ENI needs; nothing can be refused any more.
pub(super) struct Birth {
    pub(super) kind: EniKind,
    pub(super) subnet: SubnetId,
    pub(super) vpc: VpcId,
    pub(super) groups: Vec<GroupName>,
    pub(super) picked: Picked,
    pub(super) ready: bool,
    pub(super) ready_at: ipam_core::Moment,
}

impl Birth {
    /// Puts the ENI into the world.
    pub(super) fn bear(self, state: &mut State, description: String, tags: Tags) -> EniId {
        let id: EniId = state.new_id();
        let mac = state.new_mac();
        let Picked { primary, secondary, prefixes, ipv6 } = self.picked;
        ipv6::book(state, &self.subnet, &ipv6, &id);
        state.in_space(&self.subnet, |space| {
            for address in secondary.iter().chain(&primary) {
                space.take(*address, &id);
            }
            prefixes.iter().for_each(|prefix| space.take_prefix(*prefix, &id));
        });
        let zone = state.subnets.get(&self.subnet).map(|subnet| subnet.availability_zone.clone());
        let eni = Eni {
            id: id.clone(),
            mac,
            subnet: self.subnet,
            vpc: self.vpc,
            availability_zone: zone.unwrap_or_default(),
            description,
            groups: self.groups,
            kind: self.kind,
            primary,
            secondary,
            prefixes,
            ipv6,
            attachment: None,
            ready: self.ready,
            deleting: false,
            ready_at: self.ready_at,
            source_dest_check: true,
            tags,
        };
        state.enis.insert(id.clone(), eni);
        state.touch(&id);
        id
    }
}

/// Deletes an ENI that is attached to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteNetworkInterface {
    /// Which.
    pub interface: String,
}

impl Action for DeleteNetworkInterface {
    const NAME: &'static str = "DeleteNetworkInterface";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        let eni = state.known_mut(&self.interface)?;
        if eni.attachment.is_some() {
            let message = format!("Network interface '{}' is currently in use.", eni.id);
            return Err(ApiError::new("InvalidNetworkInterface.InUse", message));
        }
        eni.deleting = true;
        let id = eni.id.clone();
        let delay = state.draw(state.config.delays.delete);
        state.schedule(state.now.after(delay), Due::Deleted(id.clone()));
        state.touch(&id);
        Ok(())
    }
}

/// Lists ENIs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeNetworkInterfaces {
    /// Only these. Empty: all.
    pub ids: Vec<String>,
    /// Only what passes.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeNetworkInterfaces {
    const NAME: &'static str = "DescribeNetworkInterfaces";
    type Answer = Page<Eni>;

    fn apply(&self, state: &mut State) -> Result<Page<Eni>, ApiError> {
        self.paging.check(5..=1000, !self.ids.is_empty())?;
        let found = state.describe_enis(&self.ids, &self.filters)?;
        // EC2 pages by 1,000 even when it is not asked to.
        let max_results = self.paging.max_results.or(self.ids.is_empty().then_some(1000));
        let paging = Paging { max_results, next_token: self.paging.next_token.clone() };
        Ok(paging.cut(found, |eni| eni.id.clone()))
    }

    /// A list of ids counts as asking for all: EC2 does not say that it is a filter.
    fn is_unbounded(&self) -> bool {
        self.filters.is_empty() && self.paging.max_results.is_none()
    }
}

impl Filterable for Eni {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        if let Some(name) = name.strip_prefix("attachment.") {
            return self.attachment_field(name);
        }
        Some(match name {
            "network-interface-id" => vec![self.id.to_string()],
            "subnet-id" => vec![self.subnet.to_string()],
            "vpc-id" => vec![self.vpc.to_string()],
            "availability-zone" => vec![self.availability_zone.clone()],
            "status" => vec![self.status().to_owned()],
            "description" => vec![self.description.clone()],
            "mac-address" => vec![self.mac.to_string()],
            "private-ip-address" | "addresses.private-ip-address" => {
                self.addresses().map(|address| address.to_string()).collect()
            }
            "ipv6-addresses.ipv6-address" => self.ipv6.addresses.iter().map(ToString::to_string).collect(),
            "group-id" => self.groups.iter().map(|group| group.id.to_string()).collect(),
            "group-name" => self.groups.iter().map(|group| group.name.clone()).collect(),
            "interface-type" => vec![self.kind.name().to_owned()],
            "source-dest-check" => vec![self.source_dest_check.to_string()],
            "requester-managed" => vec!["false".to_owned()],
            "owner-id" => vec![crate::ACCOUNT.to_owned()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        &self.tags
    }
}

impl Eni {
    fn attachment_field(&self, name: &str) -> Option<Vec<String>> {
        let known = [
            "attachment-id",
            "instance-id",
            "instance-owner-id",
            "device-index",
            "network-card-index",
            "status",
            "delete-on-termination",
            "attach-time",
        ];
        let Some(attachment) = &self.attachment else { return known.contains(&name).then(Vec::new) };
        Some(vec![match name {
            "attachment-id" => attachment.id.to_string(),
            "instance-id" => attachment.instance.to_string(),
            "instance-owner-id" => crate::ACCOUNT.to_owned(),
            "device-index" => attachment.device_index.to_string(),
            "network-card-index" => attachment.card.to_string(),
            "status" => attachment.state.name().to_owned(),
            "delete-on-termination" => attachment.delete_on_termination.to_string(),
            "attach-time" => crate::clock::rfc3339(attachment.attach_time),
            _ => return None,
        }])
    }
}
