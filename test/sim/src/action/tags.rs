//! Tags of everything that has an id.

use ipam_core::{EniId, InstanceId, SecurityGroupId, SubnetId, VpcId};

use crate::{
    Action, ApiError,
    world::{
        Filter, Page, Paging, State,
        filter::{self, Filterable},
        lookup,
        model::Tags,
    },
};

/// EC2's quota of tags for one thing.
const MOST_TAGS: usize = 50;

/// Sets tags on things.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateTags {
    /// Which things, at least one.
    pub resources: Vec<String>,
    /// The tags; others stay.
    pub tags: Tags,
}

impl Action for CreateTags {
    const NAME: &'static str = "CreateTags";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        for resource in &self.resources {
            check(tags_of(state, resource)?, &self.tags)?;
        }
        for resource in &self.resources {
            tags_of(state, resource)?.extend(self.tags.clone());
            touch(state, resource);
        }
        Ok(())
    }
}

/// Takes tags off things.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteTags {
    /// Which things, at least one.
    pub resources: Vec<String>,
    /// Key, and the value that it must have. Empty: all tags.
    pub tags: Vec<(String, Option<String>)>,
}

impl Action for DeleteTags {
    const NAME: &'static str = "DeleteTags";
    type Answer = ();

    fn apply(&self, state: &mut State) -> Result<(), ApiError> {
        for resource in &self.resources {
            tags_of(state, resource)?;
        }
        for resource in &self.resources {
            let tags = tags_of(state, resource)?;
            tags.retain(|key, value| {
                let named = |(k, v): &(String, Option<String>)| k == key && v.as_ref().is_none_or(|v| v == value);
                !self.tags.is_empty() && !self.tags.iter().any(named)
            });
            touch(state, resource);
        }
        Ok(())
    }
}

/// One tag of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagDescription {
    /// The thing.
    pub resource: String,
    /// Its kind, as `network-interface`.
    pub kind: &'static str,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Lists tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescribeTags {
    /// Only what passes: `resource-id`, `resource-type`, `key`, `value`.
    pub filters: Vec<Filter>,
    /// Which page.
    pub paging: Paging,
}

impl Action for DescribeTags {
    const NAME: &'static str = "DescribeTags";
    type Answer = Page<TagDescription>;

    fn apply(&self, state: &mut State) -> Result<Page<TagDescription>, ApiError> {
        self.paging.check(5..=1000, false)?;
        let mut found = Vec::new();
        let mut collect = |kind, resource: &str, tags: &Tags| {
            for (key, value) in tags {
                let (resource, key, value) = (resource.to_owned(), key.clone(), value.clone());
                found.push(TagDescription { resource, kind, key, value });
            }
        };
        state.enis.values().for_each(|eni| collect("network-interface", eni.id.as_str(), &eni.tags));
        state.instances.values().for_each(|instance| collect("instance", instance.id.as_str(), &instance.tags));
        state.groups.values().for_each(|group| collect("security-group", group.id.as_str(), &group.tags));
        state.subnets.values().for_each(|subnet| collect("subnet", subnet.id.as_str(), &subnet.tags));
        state.vpcs.values().for_each(|vpc| collect("vpc", vpc.id.as_str(), &vpc.tags));
        let mut passed = Vec::new();
        for tag in found {
            if filter::passes(&tag, &self.filters)? {
                passed.push(tag);
            }
        }
        passed.sort_by_key(TagDescription::place);
        Ok(self.paging.cut(passed, TagDescription::place))
    }
}

impl TagDescription {
    /// What the list is sorted by.
    fn place(&self) -> String {
        format!("{} {}", self.resource, self.key)
    }
}

impl Filterable for TagDescription {
    fn field(&self, name: &str) -> Option<Vec<String>> {
        Some(vec![match name {
            "resource-id" => self.resource.clone(),
            "resource-type" => self.kind.to_owned(),
            "key" => self.key.clone(),
            "value" => self.value.clone(),
            _ => return None,
        }])
    }

    fn tags(&self) -> &Tags {
        static NOTHING: Tags = Tags::new();
        &NOTHING
    }
}

/// Refuses tags that nobody may set, and more than a thing may have.
pub(super) fn check(present: &Tags, new: &Tags) -> Result<(), ApiError> {
    for (key, value) in new {
        if key.is_empty() || key.chars().count() > 127 {
            return Err(ApiError::invalid_value("Tag keys must have 1 to 127 characters"));
        }
        if key.starts_with("aws:") {
            return Err(ApiError::invalid_value("Tag keys starting with 'aws:' are reserved for internal use"));
        }
        if value.chars().count() > 255 {
            return Err(ApiError::invalid_value("Tag value exceeds the maximum length of 255 characters"));
        }
    }
    if present.len() + new.keys().filter(|key| !present.contains_key(*key)).count() > MOST_TAGS {
        return Err(ApiError::new("TagLimitExceeded", format!("More than {MOST_TAGS} tags specified")));
    }
    Ok(())
}

/// The tags of whatever has this id.
fn tags_of<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Tags, ApiError> {
    match id.split_once('-').map(|(prefix, _)| prefix) {
        Some("eni") => state.known_mut(id).map(|eni| &mut eni.tags),
        Some("i") => lookup::find_mut::<InstanceId, _>(&mut state.instances, id).map(|instance| &mut instance.tags),
        Some("sg") => lookup::find_mut::<SecurityGroupId, _>(&mut state.groups, id).map(|group| &mut group.tags),
        Some("subnet") => lookup::find_mut::<SubnetId, _>(&mut state.subnets, id).map(|subnet| &mut subnet.tags),
        Some("vpc") => lookup::find_mut::<VpcId, _>(&mut state.vpcs, id).map(|vpc| &mut vpc.tags),
        _ => Err(ApiError::new("InvalidID", format!("The ID '{id}' is not valid"))),
    }
}

fn touch(state: &mut State, id: &str) {
    if let Ok(eni) = id.parse::<EniId>() {
        state.touch(&eni);
    }
}
