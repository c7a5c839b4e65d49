//! ENIs: make, list, delete.

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipam_core::{EniId, InstanceId, SubnetId, VpcId};

use crate::{
    Action, ApiError,
    action::{groups, tags},
    world::{
        Due, Filter, Page, Paging, State, catalogue,
        filter::{self, Filterable},
        lookup,
        model::{Eni, GroupName, Tags},
    },
};

/// Makes an ENI that is attached to nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateNetworkInterface {
    /// Where it lives.
    pub subnet: String,
    /// Its description.
    pub description: String,
    /// Its groups. Empty: the VPC's default.
    pub groups: Vec<String>,
    /// Its primary address. Absent: any.
    pub primary: Option<Ipv4Addr>,
    /// Secondary addresses by name.
    pub secondary: Vec<Ipv4Addr>,
    /// Secondary addresses by number; not together with names.
    pub secondary_count: Option<u16>,
    /// Its tags.
    pub tags: Tags,
    /// The same token gives the same ENI.
    pub client_token: Option<String>,
}

impl Action for CreateNetworkInterface {
    const NAME: &'static str = "CreateNetworkInterface";
    type Answer = Eni;

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
        let plan = AddressPlan {
            primary: self.primary,
            secondary: &self.secondary,
            count: self.secondary_count,
            limit: catalogue::most_addresses(),
        };
        let addresses = plan.pick(state, &subnet)?;
        let delay = state.draw(state.config.delays.create);
        let ready_at = state.now.after(delay);
        let birth = Birth { subnet, vpc, groups, addresses, ready_at, ready: false };
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

/// Which addresses a new ENI asks for.
pub(super) struct AddressPlan<'a> {
    pub(super) primary: Option<Ipv4Addr>,
    pub(super) secondary: &'a [Ipv4Addr],
    pub(super) count: Option<u16>,
    pub(super) limit: u16,
}

impl AddressPlan<'_> {
    /// Finds them, the primary first, without taking them.
    pub(super) fn pick(&self, state: &mut State, subnet: &SubnetId) -> Result<Vec<Ipv4Addr>, ApiError> {
        if self.count.is_some() && !self.secondary.is_empty() {
            return Err(ApiError::invalid_combination(
                "Secondary addresses may be given by number or by name, but not both",
            ));
        }
        let named: Vec<Ipv4Addr> = self.primary.iter().chain(self.secondary).copied().collect();
        let wanted = 1 + self.secondary.len() + usize::from(self.count.unwrap_or(0));
        if wanted > usize::from(self.limit) {
            return Err(super::addresses::limit_exceeded());
        }
        let home = lookup::find(&state.subnets, subnet.as_str())?;
        for (nth, address) in named.iter().enumerate() {
            home.check_usable(*address)?;
            if home.used.contains_key(address) || named[..nth].contains(address) {
                return Err(ApiError::new("InvalidIPAddress.InUse", format!("Address {address} is in use.")));
            }
        }
        let mut picked = home.pick(wanted - named.len(), &named, &mut state.rng)?;
        let primary = self.primary.or_else(|| picked.pop());
        Ok(primary.into_iter().chain(self.secondary.iter().copied()).chain(picked).collect())
    }
}

/// All that a new ENI needs; nothing can be refused any more.
pub(super) struct Birth {
    pub(super) subnet: SubnetId,
    pub(super) vpc: VpcId,
    pub(super) groups: Vec<GroupName>,
    /// The primary first.
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) ready: bool,
    pub(super) ready_at: ipam_core::Moment,
}

impl Birth {
    /// Puts the ENI into the world.
    pub(super) fn bear(self, state: &mut State, description: String, tags: Tags) -> EniId {
        let id: EniId = state.new_id();
        let mac = state.new_mac();
        let mut availability_zone = String::new();
        if let Some(subnet) = state.subnets.get_mut(&self.subnet) {
            subnet.used.extend(self.addresses.iter().map(|address| (*address, id.clone())));
            availability_zone.clone_from(&subnet.availability_zone);
        }
        let mut addresses = self.addresses.into_iter();
        let eni = Eni {
            id: id.clone(),
            mac,
            subnet: self.subnet,
            vpc: self.vpc,
            availability_zone,
            description,
            groups: self.groups,
            primary: addresses.next().unwrap_or(Ipv4Addr::UNSPECIFIED),
            secondary: addresses.collect(),
            attachment: None,
            ready: self.ready,
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
        let eni = lookup::find(&state.enis, &self.interface)?;
        if eni.attachment.is_some() {
            let message = format!("Network interface '{}' is currently in use.", eni.id);
            return Err(ApiError::new("InvalidNetworkInterface.InUse", message));
        }
        let id = eni.id.clone();
        state.remove_eni(&id);
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
        let found = match filter::exact(&self.filters, "attachment.instance-id") {
            Some(instances) if self.ids.is_empty() => self.of_instances(state, instances)?,
            Some(_) | None => super::select(&state.enis, &self.ids, &self.filters)?,
        };
        Ok(self.paging.cut(found, |eni| eni.id.clone()))
    }
}

impl DescribeNetworkInterfaces {
    /// The usual question, answered without looking at every ENI of the account.
    fn of_instances(&self, state: &State, instances: &[String]) -> Result<Vec<Eni>, ApiError> {
        let mut found = BTreeMap::new();
        let instances = instances.iter().filter_map(|id| state.instances.get(&id.parse::<InstanceId>().ok()?));
        for id in instances.flat_map(|instance| instance.interfaces.values()) {
            if let Some(eni) = state.enis.get(id)
                && filter::passes(eni, &self.filters)?
            {
                found.insert(id.clone(), eni.clone());
            }
        }
        Ok(found.into_values().collect())
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
            "group-id" => self.groups.iter().map(|group| group.id.to_string()).collect(),
            "group-name" => self.groups.iter().map(|group| group.name.clone()).collect(),
            "interface-type" => vec!["interface".to_owned()],
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
