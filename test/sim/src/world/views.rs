//! What is told of ENIs, which may lag behind what is: EC2 and the metadata service promise to be right in the end, not at once.
//!
//! Each view is a copy that catches up with a change once its own lag is over. A view without a lag is not kept: the truth is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use ipam_core::{EniId, InstanceId, MacAddress, Moment};

use crate::{
    ApiError,
    world::{
        Filter,
        config::{DelayRange, Lags},
        filter,
        lookup::{self, not_found},
        model::Eni,
        state::State,
        timeline::Due,
    },
};

/// Who tells of ENIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum View {
    /// What the API says of an ENI, and whether it knows it.
    Api,
    /// What the API's filters go by.
    Filters,
    /// What the metadata service shows.
    Metadata,
}

impl View {
    const ALL: [Self; 3] = [Self::Api, Self::Filters, Self::Metadata];

    fn lag(self, lags: &Lags) -> DelayRange {
        match self {
            Self::Api => lags.describe,
            Self::Filters => lags.filters,
            Self::Metadata => lags.metadata,
        }
    }
}

/// The copies, and a directory of who may be found where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Views {
    copies: BTreeMap<View, BTreeMap<EniId, Eni>>,
    /// ENIs that have, or once had, a value in a field that is often asked for: every answer is checked again.
    directory: BTreeMap<String, BTreeMap<String, BTreeSet<EniId>>>,
    /// Directories of detached ENIs that an instance's metadata still lists, and until when.
    pub(crate) ghosts: BTreeMap<InstanceId, Vec<(MacAddress, Moment)>>,
}

const BY_INSTANCE: &str = "attachment.instance-id";

impl State {
    /// Notes that an ENI has changed, or is gone: all views will hear of it.
    pub(crate) fn touch(&mut self, id: &EniId) {
        self.version += 1;
        self.touched.insert(id.clone());
        self.enter(id);
        for view in View::ALL {
            let lag = view.lag(&self.config.lags);
            if !lag.is_zero() {
                let at = self.now.after(self.draw(lag));
                self.schedule(at, Due::Seen(view, id.clone()));
            }
        }
    }

    fn enter(&mut self, id: &EniId) {
        let Some(eni) = self.enis.get(id) else { return };
        let directory = &mut self.views.directory;
        if let Some(attachment) = &eni.attachment {
            note(directory, BY_INSTANCE, attachment.instance.as_str(), id);
        }
        for (key, value) in &eni.tags {
            note(directory, key, value, id);
        }
    }

    /// Forgets where a deleted ENI may be found. Where it was attached long ago it stays noted, which costs a look.
    pub(crate) fn forget(&mut self, eni: &Eni) {
        for (key, value) in &eni.tags {
            if let Some(ids) = self.views.directory.get_mut(key).and_then(|values| values.get_mut(value)) {
                ids.remove(&eni.id);
            }
        }
    }

    /// Lets a view catch up with an ENI.
    pub(crate) fn see(&mut self, view: View, id: &EniId) {
        if view.lag(&self.config.lags).is_zero() {
            return;
        }
        let copies = self.views.copies.entry(view).or_default();
        match self.enis.get(id) {
            Some(eni) => drop(copies.insert(id.clone(), eni.clone())),
            None => drop(copies.remove(id)),
        }
        self.version += 1;
    }

    /// An ENI as a view shows it. Absent: the view does not know it yet, or not any more.
    pub(crate) fn seen(&self, view: View, id: &EniId) -> Option<&Eni> {
        if view.lag(&self.config.lags).is_zero() { self.enis.get(id) } else { self.views.copies.get(&view)?.get(id) }
    }

    /// The ENI with this id, for a request that is about it: one that the API does not know yet is not found.
    pub(crate) fn known(&self, text: &str) -> Result<&Eni, ApiError> {
        let eni = lookup::find(&self.enis, text)?;
        let known = !eni.deleting && self.seen(View::Api, &eni.id).is_some();
        if known { Ok(eni) } else { Err(not_found::<EniId>(text)) }
    }

    /// The same, to be changed.
    pub(crate) fn known_mut(&mut self, text: &str) -> Result<&mut Eni, ApiError> {
        self.known(text)?;
        lookup::find_mut(&mut self.enis, text)
    }

    /// What the API tells of ENIs: those with these ids (all without ids) that pass the filters, sorted by id.
    pub(crate) fn describe_enis(&self, ids: &[String], filters: &[Filter]) -> Result<Vec<Eni>, ApiError> {
        let mut found = Vec::new();
        if !ids.is_empty() {
            let mut named = BTreeSet::new();
            for text in ids {
                let id = lookup::parse::<EniId>(text)?;
                self.seen(View::Api, &id).ok_or_else(|| not_found::<EniId>(text))?;
                named.insert(id);
            }
            self.filtered(named.iter(), filters, &mut found)?;
        } else if let Some(candidates) = self.candidates(filters) {
            self.filtered(candidates.into_iter(), filters, &mut found)?;
        } else if self.config.lags.describe.is_zero() {
            self.filtered(self.enis.keys(), filters, &mut found)?;
        } else {
            let copies = self.views.copies.get(&View::Api);
            self.filtered(copies.into_iter().flat_map(BTreeMap::keys), filters, &mut found)?;
        }
        Ok(found)
    }

    fn filtered<'a>(
        &self,
        ids: impl Iterator<Item = &'a EniId>,
        filters: &[Filter],
        found: &mut Vec<Eni>,
    ) -> Result<(), ApiError> {
        for id in ids {
            let Some(eni) = self.seen(View::Api, id) else { continue };
            let Some(filtered) = (if filters.is_empty() { Some(eni) } else { self.seen(View::Filters, id) }) else {
                continue;
            };
            if filter::passes(filtered, filters)? {
                found.push(eni.clone());
            }
        }
        Ok(())
    }

    /// ENIs among which the answer must be, found without a look at all. Absent: look at all.
    fn candidates(&self, filters: &[Filter]) -> Option<BTreeSet<&EniId>> {
        filters.iter().find_map(|one| {
            let field = if one.name == BY_INSTANCE { BY_INSTANCE } else { one.name.strip_prefix("tag:")? };
            let wanted = filter::exact(filters, &one.name)?;
            let values = self.views.directory.get(field);
            Some(wanted.iter().filter_map(|value| values?.get(value)).flatten().collect())
        })
    }

    /// The ENIs that an instance's metadata shows, by card and device index.
    pub(crate) fn in_metadata(&self, instance: &InstanceId) -> impl Iterator<Item = &Eni> {
        let noted = self.views.directory.get(BY_INSTANCE).and_then(|values| values.get(instance.as_str()));
        let seen = noted.into_iter().flatten().filter_map(|id| self.seen(View::Metadata, id));
        let here = |eni: &&Eni| eni.attachment.as_ref().is_some_and(|attachment| attachment.instance == *instance);
        let mut here: Vec<_> = seen.filter(here).filter(|eni| eni.is_plugged_in()).collect();
        here.sort_by_key(|eni| eni.attachment.as_ref().map(|attachment| (attachment.card, attachment.device_index)));
        here.into_iter()
    }

    /// Leaves an empty directory behind in the metadata of the instance that an ENI has left.
    pub(crate) fn leave_ghost(&mut self, instance: &InstanceId, mac: MacAddress) {
        let wait = self.draw(self.config.lags.ghost);
        if wait > Duration::ZERO {
            let (now, until) = (self.now, self.now.after(wait));
            let ghosts = self.views.ghosts.entry(instance.clone()).or_default();
            ghosts.retain(|(_, until)| *until > now);
            ghosts.push((mac, until));
        }
    }
}

fn note(directory: &mut BTreeMap<String, BTreeMap<String, BTreeSet<EniId>>>, field: &str, value: &str, id: &EniId) {
    if !directory.contains_key(field) {
        directory.insert(field.to_owned(), BTreeMap::new());
    }
    let Some(values) = directory.get_mut(field) else { return };
    match values.get_mut(value) {
        Some(ids) if ids.contains(id) => {}
        Some(ids) => drop(ids.insert(id.clone())),
        None => drop(values.insert(value.to_owned(), BTreeSet::from([id.clone()]))),
    }
}
