//! DescribeInstanceTypes.

use crate::{
    Action, ApiError,
    world::{
        Filter, InstanceType, Page, Paging, State, catalogue,
        filter::{self, Filterable},
        model::Tags,
    },
};

/// Lists instance types and what they can carry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeInstanceTypes {
    /// Only these. Empty: all.
    pub names: Vec<String>,
    /// Only what passes: `instance-type`, `hypervisor`, `bare-metal`, `network-info.*`.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeInstanceTypes {
    const NAME: &'static str = "DescribeInstanceTypes";
    type Answer = Page<InstanceType>;

    fn apply(&self, _: &mut State) -> Result<Page<InstanceType>, ApiError> {
        self.paging.check(5..=100, !self.names.is_empty())?;
        let all = catalogue::all();
        if let Some(unknown) = self.names.iter().find(|name| !all.contains_key(name.as_str())) {
            let message = format!("The following supplied instance types do not exist: [{unknown}]");
            return Err(ApiError::new("InvalidInstanceType", message));
        }
        let mut found = Vec::new();
        for candidate in all.values().filter(|t| self.names.is_empty() || self.names.iter().any(|n| n == t.name)) {
            if filter::passes(candidate, &self.filters)? {
                found.push(candidate.clone());
            }
        }
        // EC2 pages by 100 even when it is not asked to.
        let paging = Paging { max_results: self.paging.max_results.or(Some(100)), ..self.paging.clone() };
        Ok(paging.cut(found, |t| t.name))
    }
}

impl Filterable for InstanceType {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(match name {
            "instance-type" => vec![self.name.to_owned()],
            "hypervisor" => self.hypervisor.iter().map(|&hypervisor| hypervisor.to_owned()).collect(),
            "network-info.maximum-network-cards" => vec![self.cards.len().to_string()],
            "network-info.ipv4-addresses-per-interface" => vec![self.addresses_per_eni.to_string()],
            "bare-metal" => vec![self.bare_metal.to_string()],
            _ => return None,
        })
    }

    fn tags(&self) -> &Tags {
        static NOTHING: Tags = Tags::new();
        &NOTHING
    }
}
