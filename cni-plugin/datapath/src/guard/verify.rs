//! One look for people, and one mending where no guard is at work: the same comparison as the guard's, with nothing known from before.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use eni_proto::{PodKey, VethPrefix, chain, numbers::eni_table};

use super::{
    Kind, LOOK_INTERVAL, Outcome, Repair, Wanted,
    compare::{self, Element, Remedy, primary},
    keeper::{Keeper, deviations},
    taken::taken,
};
use crate::{
    EniPlan, Family, HostError, HostPlan,
    eni::{self, families},
    host,
    nft::{Nft, stay, table},
    observe::HostState,
    ops::{Neighbour, Object, Op, Setting},
    route::Link,
    sysctl,
};

/// How long a repair may go on: what one mending uncovers is mended by the next.
const REPAIR_TIME: Duration = Duration::from_secs(5);

/// Something that is not as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// What kind of thing it is.
    pub kind: Kind,
    /// What is wrong, or what mends it, as `add rule 512: lookup 20000`. Links have their names.
    pub what: String,
    /// The attachment whose interface, route or element it is. Absent: it concerns more than one pod.
    pub pod: Option<PodKey>,
    /// Something of somebody else's is in the place of ours.
    pub taken: bool,
}

/// Returns everything about the node that is not as `host`, `enis` and pods' own links say. Changes nothing.
///
/// An ADD or DEL that is at work shows too, for a few milliseconds: who wants to be sure looks again. Without `host` only pods'
/// links, routes and elements are compared.
///
/// # Errors
/// [`HostError`] when the kernel cannot be looked at; then nothing may be concluded.
pub fn verify(host: Option<&HostPlan>, enis: &[EniPlan], prefix: &VethPrefix) -> Result<Vec<Wrong>, HostError> {
    let mut keeper = Keeper::new(prefix, Box::new(|_: &Repair| {}), Arc::default())?;
    let mut wanted = wanted(host, enis);
    let (state, seen, routes) = keeper.look(&wanted)?;
    let absent = absent(host, enis, &state);
    wanted.pictures.clone_from(&seen.pictures);
    known_links(&mut wanted, &state);
    let tables = strange_tables(&mut keeper.hands.nft, &wanted, &state)?;
    let taken = taken(&state, &routes).into_iter().map(|taken| Wrong {
        kind: taken.kind(),
        what: with_names(&taken.to_string(), &state.links),
        pod: None,
        taken: true,
    });
    let found = deviations(&wanted, &state, &seen, prefix).into_iter().map(|found| found.remedy);
    let found = found.chain(tables).flat_map(|remedy| wrongs(remedy, &wanted, &state));
    Ok(absent.into_iter().chain(found).chain(taken).collect())
}

/// Makes right what [`verify`] finds, as far as it is ours to do; returns what was done, and what the kernel refused.
///
/// Right beside a guard, too: what was written twice is the same.
///
/// # Errors
/// [`HostError`] when the kernel cannot be looked at.
pub fn repair(host: Option<&HostPlan>, enis: &[EniPlan], prefix: &VethPrefix) -> Result<Vec<Repair>, HostError> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let report = Arc::clone(&told);
    let push = move |repair: &Repair| {
        if let Ok(mut told) = report.lock() {
            told.push(repair.clone());
        }
    };
    let mut keeper = Keeper::new(prefix, Box::new(push), Arc::default())?;
    let mut wanted = wanted(host, enis);
    let (state, seen, _) = keeper.look(&wanted)?;
    wanted.pictures.clone_from(&seen.pictures);
    known_links(&mut wanted, &state);
    let begun = Instant::now();
    let mut first = Vec::new();
    for remedy in strange_tables(&mut keeper.hands.nft, &wanted, &state)? {
        let outcome = write_tables(&wanted);
        let outcome = outcome.err().map_or(Outcome::Mended, |error| Outcome::Refused(chain(&error)));
        first.push(Repair { kind: remedy.kind(), what: remedy.to_string(), outcome, took: begun.elapsed() });
    }
    wanted.pictures = Nft::open()?.pictures()?;
    loop {
        let next = keeper.round(&mut wanted, begun);
        if next >= LOOK_INTERVAL || begun.elapsed() > REPAIR_TIME {
            break;
        }
        thread::park_timeout(next);
    }
    let told = told.lock().map(|told| told.clone()).unwrap_or_default();
    let mut all: Vec<Repair> = first.into_iter().chain(told).filter(|one| one.outcome != Outcome::Taken).collect();
    let mut known = BTreeSet::new();
    all.retain(|one| known.insert(one.what.clone()));
    all.iter_mut().for_each(|one| one.what = with_names(&one.what, &state.links));
    Ok(all)
}

fn wanted(host: Option<&HostPlan>, enis: &[EniPlan]) -> Wanted {
    Wanted {
        host: host.map(|plan| (plan.clone(), 0)),
        enis: enis.iter().map(|plan| (plan.mac, (plan.clone(), 0))).collect(),
        ..Wanted::default()
    }
}

/// What is only known by its hardware address gets its index and name.
fn known_links(wanted: &mut Wanted, state: &HostState) {
    if let Some((plan, index)) = &mut wanted.host
        && let Some(link) = state.link_of(plan.primary_mac)
    {
        *index = link.index;
        wanted.names = [(); 2].map(|()| link.name.clone());
    }
    for (mac, (_, index)) in &mut wanted.enis {
        *index = state.link_of(*mac).map_or(0, |link| link.index);
    }
}

fn absent(host: Option<&HostPlan>, enis: &[EniPlan], state: &HostState) -> Vec<Wrong> {
    let primary = host.map(|plan| ("primary ENI".to_owned(), plan.primary_mac));
    let others = enis.iter().filter(|plan| !plan.mark.is_primary());
    let others = others.map(|plan| {
        (format!("ENI with {}, table {}", plan.primary, eni_table(plan.card, plan.device_index)), plan.mac)
    });
    let all: BTreeMap<_, _> = primary.into_iter().chain(others).map(|(what, mac)| (mac, what)).collect();
    let missing = all.into_iter().filter(|(mac, _)| state.link_of(*mac).is_none());
    let wrong = |(mac, what)| {
        let what = format!("no link has the hardware address {mac} of the {what}");
        Wrong { kind: Kind::Link, what, pod: None, taken: false }
    };
    missing.map(wrong).collect()
}

/// Tables that are there, but not as we write them; that one is not there shows in its picture.
fn strange_tables(nft: &mut Nft, wanted: &Wanted, state: &HostState) -> Result<Vec<Remedy>, HostError> {
    let Some((plan, link)) = primary(wanted, state) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for family in families(plan.ipv6) {
        let shape = host::shape(plan, link, *family);
        let mut right = table::is_right(nft, &shape)? && stay::is_right(nft, &shape)?;
        for (eni, _) in
            wanted.enis.values().filter(|(eni, _)| !eni.mark.is_primary() && (*family == Family::V4 || eni.ipv6))
        {
            right = right && nft.has_eni(*family, eni.mark)?;
        }
        if !right {
            found.push(Remedy::Table(*family));
        }
    }
    Ok(found)
}

fn write_tables(wanted: &Wanted) -> Result<(), HostError> {
    let Some((plan, _)) = &wanted.host else { return Ok(()) };
    host::prepare(plan, None)?;
    for (eni, _) in wanted.enis.values().filter(|(eni, _)| !eni.mark.is_primary()) {
        for family in families(eni.ipv6) {
            Nft::open()?.commit(&table::add_eni(*family, eni.mark))?;
        }
    }
    Ok(())
}

fn wrongs(remedy: Remedy, wanted: &Wanted, state: &HostState) -> Vec<Wrong> {
    let one = |what: String| Wrong { kind: remedy.kind(), what, pod: pod(remedy, state), taken: false };
    let settings = |all: Vec<(String, u32)>| {
        let differs = |(name, value): (String, u32)| {
            let found = sysctl::read(&name).filter(|found| *found != value)?;
            Some(one(format!("kernel setting net/{name} is {found} instead of {value}")))
        };
        all.into_iter().filter_map(differs).collect()
    };
    match remedy {
        Remedy::Settings => {
            primary(wanted, state).map_or_else(Vec::new, |(plan, link)| settings(host::settings(plan, &link.name)))
        }
        Remedy::EniSettings(index) => {
            let own = compare::enis(wanted, state).find(|(_, link)| link.index == index);
            own.map_or_else(Vec::new, |(plan, link)| settings(eni::settings(plan, &link.name)))
        }
        Remedy::ReversePathOfAll => {
            vec![one("kernel setting net/ipv4/conf/all/rp_filter is 2 instead of 0 or 1".to_owned())]
        }
        Remedy::Op(Op::Set { link, from: _, to: Setting::Ipv4(setting, value) }) => {
            let Some(link) = state.links.iter().find(|one| one.index == link) else { return Vec::new() };
            let (name, found) = (setting.name(), link.ipv4(setting));
            vec![one(format!("kernel setting net/ipv4/conf/{}/{name} is {found} instead of {value}", link.name))]
        }
        Remedy::Table(family) => {
            let name = if family == Family::V4 { "ip" } else { "ip6" };
            vec![one(format!("the nf_tables tables {name} eni_cni and eni_cni_stay are not as ipamd writes them"))]
        }
        Remedy::Op(_) | Remedy::Pod(_) | Remedy::Name(_) | Remedy::Label(_) => {
            vec![one(with_names(&remedy.to_string(), &state.links))]
        }
    }
}

/// Whose it is.
fn pod(remedy: Remedy, state: &HostState) -> Option<PodKey> {
    let by_link = |index| state.labelled().find(|(link, _)| link.index == index).map(|(_, alias)| alias.key);
    match remedy {
        Remedy::Op(Op::Set { link, .. } | Op::Add(Object::Neighbour(Neighbour { link, .. })))
        | Remedy::Name(link)
        | Remedy::Label(link) => by_link(link),
        Remedy::Op(Op::Add(Object::Route(route))) => by_link(route.link),
        Remedy::Pod(Element { address, .. }) => {
            state.labelled().find(|(_, alias)| alias.addresses.has(address)).map(|(_, alias)| alias.key)
        }
        Remedy::Op(_) | Remedy::Table(_) | Remedy::Settings | Remedy::EniSettings(_) | Remedy::ReversePathOfAll => None,
    }
}

/// The text with the names of links instead of their indexes.
fn with_names(text: &str, links: &[Link]) -> String {
    let mut words: Vec<&str> = text.split(' ').collect();
    for at in 1..words.len() {
        let index = words[at].parse().ok().filter(|_| words[at - 1] == "link");
        if let Some(link) = index.and_then(|index: u32| links.iter().find(|link| link.index == index)) {
            words[at] = &link.name;
        }
    }
    words.join(" ")
}
