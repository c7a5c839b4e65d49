//! One look after another: what is wrong, and what of it may be mended now.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use eni_proto::VethPrefix;

use super::{
    Drift, LOOK_INTERVAL, Outcome, Repair, Wanted,
    compare::{self, Deviation, Element, Remedy, primary},
    known::Known,
    listen::Interest,
    mend::{Hands, NotDone, Seen, at},
    patience::Patience,
    settings::{LinkSetting, Watches},
    taken::{self, Taken},
};
use crate::{
    EniPlan, Family, HostError,
    eni::{self, families},
    host,
    observe::{HostState, foreign_routes, observe_host},
    ops::{Ipv4Setting, Op, Route, Setting},
    route::Link,
    sysctl,
};

/// For how long a pod's things must be wrong: an ADD or DEL takes a few milliseconds.
const CONFIRMATION: Duration = Duration::from_millis(50);
/// After a failed look, and after a repair, which may have uncovered more.
const AGAIN: Duration = Duration::from_millis(20);

type Report = Box<dyn Fn(&Repair) + Send>;

pub(super) struct Keeper {
    pub(super) hands: Hands,
    interest: Arc<Mutex<Interest>>,
    drift: Arc<Mutex<Drift>>,
    report: Report,
    /// What of somebody else's was told already.
    told: BTreeSet<Taken>,
    /// Of each thing that was mended lately.
    patience: BTreeMap<Remedy, Patience>,
    /// Things that an ADD or DEL may be at work on, and since when they are wrong.
    pending: BTreeMap<Remedy, Instant>,
    seen: Option<Seen>,
    known: Known,
    /// Things of which it is told already that the kernel refuses to mend them.
    refused: BTreeSet<Remedy>,
    watches: Option<Watches>,
}

impl Keeper {
    pub(super) fn new(prefix: &VethPrefix, report: Report, drift: Arc<Mutex<Drift>>) -> io::Result<Self> {
        let interest = Interest { prefix: prefix.as_str().to_owned(), ..Interest::default() };
        Ok(Self {
            hands: Hands::open(prefix)?,
            interest: Arc::new(Mutex::new(interest)),
            drift,
            report,
            told: BTreeSet::new(),
            patience: BTreeMap::new(),
            pending: BTreeMap::new(),
            seen: None,
            known: Known::default(),
            refused: BTreeSet::new(),
            watches: None,
        })
    }

    pub(super) fn watch_settings(&mut self, watches: Option<Watches>) {
        self.watches = watches;
    }

    pub(super) const fn interest(&self) -> &Arc<Mutex<Interest>> {
        &self.interest
    }

    /// Compares everything and mends what may be mended now. Returns when to look again at the latest.
    pub(super) fn round(&mut self, wanted: &mut Wanted, noticed: Instant) -> Duration {
        if wanted.host.is_none() {
            return LOOK_INTERVAL;
        }
        let now = Instant::now();
        let looked = self.look(wanted);
        self.count_look(now.elapsed(), looked.is_ok());
        let Ok((mut state, seen, routes)) = looked else { return AGAIN };
        let taken_from_links = self.known.compare(&mut state);
        self.note_links(wanted, &state);
        self.tell_taken(taken::taken(&state, &routes), noticed);
        let now = Instant::now();
        let mut found = deviations(wanted, &state, &seen, &self.hands.prefix);
        found.extend(taken_from_links);
        let (due, next) = self.due(&found, now, noticed);
        self.count_resting(&found);
        if due.is_empty() {
            return next;
        }
        // Who ends after a removal keeps nf_tables to himself until no packet uses what is gone, on a busy machine for a second and
        // more (`nft_rcv_nl_event`). What lies elsewhere must not wait for that.
        let (last, first): (Vec<_>, Vec<_>) = due.into_iter().partition(|remedy| remedy.is_in_nf_tables());
        for part in [first, last] {
            let refused = self.hands.mend(&part, wanted, &state, &seen);
            self.settle(part, &refused, noticed);
        }
        AGAIN
    }

    fn settle(&mut self, due: Vec<Remedy>, refused: &BTreeMap<Remedy, NotDone>, noticed: Instant) {
        for remedy in due.into_iter().filter(|remedy| refused.get(remedy) != Some(&NotDone::Meanwhile)) {
            self.patience.entry(remedy).or_insert_with(Patience::new).mended(Instant::now());
            let (outcome, known) = match refused.get(&remedy) {
                Some(NotDone::Refused(why)) => (Outcome::Refused(why.clone()), !self.refused.insert(remedy)),
                Some(NotDone::Meanwhile) | None => (Outcome::Mended, false),
            };
            if outcome == Outcome::Mended {
                self.refused.remove(&remedy);
            }
            self.tell(remedy, outcome, noticed, known);
        }
    }

    /// What is `known` is only counted.
    fn tell(&self, remedy: Remedy, outcome: Outcome, noticed: Instant, known: bool) {
        let repair = Repair { kind: remedy.kind(), what: remedy.to_string(), outcome, took: noticed.elapsed() };
        if known {
            self.drift().count(&repair);
        } else {
            self.pass_on(&repair);
        }
    }

    fn pass_on(&self, repair: &Repair) {
        self.drift().count(repair);
        (self.report)(repair);
    }

    fn tell_taken(&mut self, taken: BTreeSet<Taken>, noticed: Instant) {
        for new in taken.difference(&self.told) {
            let (what, took) = (new.to_string(), noticed.elapsed());
            self.pass_on(&Repair { kind: new.kind(), what, outcome: Outcome::Taken, took });
        }
        self.told = taken;
    }

    fn drift(&self) -> MutexGuard<'_, Drift> {
        self.drift.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count_look(&self, took: Duration, done: bool) {
        let mut drift = self.drift();
        drift.looks += 1;
        drift.failed_looks += u64::from(!done);
        drift.looking += took;
    }

    fn count_resting(&self, found: &[Deviation]) {
        let rests = |it: &&Deviation| self.patience.get(&it.remedy).is_some_and(Patience::is_waiting);
        self.drift().rest(found.iter().filter(rests).map(|it| it.remedy.kind()));
    }

    /// The number of the last transaction is read first: what is changed on this view is refused when anybody changed it since.
    pub(super) fn look(&mut self, wanted: &Wanted) -> Result<(HostState, Seen, Vec<Route>), HostError> {
        let generation = self.hands.nft.generation()?;
        let state = observe_host(&mut self.hands.socket)?;
        let mut routes = Vec::new();
        for (family, table) in taken::tables(wanted) {
            routes.extend(foreign_routes(&mut self.hands.socket, family, table)?);
        }
        let seen = match self.seen.take().filter(|seen| seen.generation == generation) {
            Some(seen) => seen,
            None => Seen {
                generation,
                map: self.hands.nft.pods()?.unwrap_or_default(),
                pictures: self.hands.nft.pictures()?,
            },
        };
        self.seen = Some(seen.clone());
        Ok((state, seen, routes))
    }

    fn note_links(&mut self, wanted: &Wanted, state: &HostState) {
        let host = wanted.host.iter();
        let enis = wanted.enis.values().map(|(_, index)| *index).chain(host.clone().map(|(_, index)| *index));
        let macs = wanted.enis.keys().copied().chain(host.map(|(plan, _)| plan.primary_mac)).collect();
        let pods: BTreeSet<u32> = state.labelled().map(|(link, _)| link.index).collect();
        let links = enis.chain(pods.iter().copied()).collect();
        let mut interest = self.interest.lock().unwrap_or_else(PoisonError::into_inner);
        (interest.links, interest.pods, interest.enis) = (links, pods, macs);
        drop(interest);
        if let Some(watches) = &mut self.watches {
            watches.follow(silent_settings(wanted, state));
        }
    }

    /// What is to be mended now, and how long the rest can wait.
    fn due(&mut self, found: &[Deviation], now: Instant, noticed: Instant) -> (Vec<Remedy>, Duration) {
        let mut next = LOOK_INTERVAL;
        let mut due = Vec::new();
        let pending = std::mem::take(&mut self.pending);
        self.patience.retain(|_, patience| !patience.is_fresh(now));
        self.refused.retain(|remedy| self.patience.contains_key(remedy));
        for Deviation { remedy, passing } in found {
            if *passing {
                let since = *self.pending.entry(*remedy).or_insert(pending.get(remedy).copied().unwrap_or(now));
                let rest = (since + CONFIRMATION).saturating_duration_since(now);
                if !rest.is_zero() {
                    next = next.min(rest);
                    continue;
                }
            }
            let patience = self.patience.entry(*remedy).or_insert_with(Patience::new);
            let (known, at) = (patience.is_waiting(), patience.may_mend(now));
            let pause = at.saturating_duration_since(now);
            if pause.is_zero() {
                due.push(*remedy);
                continue;
            }
            next = next.min(pause);
            if !known {
                // What the kernel refuses is no fight; it is told again with the next try.
                let refused = self.refused.remove(remedy);
                self.tell(*remedy, Outcome::LeftAlone(pause), noticed, refused);
            }
        }
        (due, next)
    }
}

/// What we compare and nobody tells of when it changes.
fn silent_settings(wanted: &Wanted, state: &HostState) -> BTreeSet<LinkSetting> {
    let secondary = compare::enis(wanted, state).filter(|(plan, _)| !plan.mark.is_primary());
    let of_eni = |(plan, link): (&EniPlan, &Link)| {
        let of_arp = ["arp_ignore", "arp_announce"].map(|name| format!("ipv4/conf/{}/{name}", link.name));
        let of_ipv6 = eni::settings(plan, &link.name).into_iter().map(|(name, _)| name);
        let index = link.index;
        of_arp.into_iter().chain(of_ipv6).map(move |name| (index, name)).collect::<Vec<_>>()
    };
    let of_primary = primary(wanted, state).map(|(_, link)| (link.index, format!("ipv6/conf/{}/accept_ra", link.name)));
    secondary.flat_map(of_eni).chain(of_primary).collect()
}

pub(super) fn deviations(wanted: &Wanted, state: &HostState, seen: &Seen, prefix: &VethPrefix) -> Vec<Deviation> {
    let mut found = Vec::new();
    let mut at_once = |wrong: bool, remedy| {
        if wrong {
            found.push(Deviation { remedy, passing: false });
        }
    };
    if let Some((plan, link)) = primary(wanted, state) {
        let differs = |(name, value): &(String, u32)| sysctl::read(name) != Some(*value);
        at_once(host::settings(plan, &link.name).iter().any(differs), Remedy::Settings);
        for family in families(plan.ipv6) {
            let renamed = link.name != wanted.names[at(*family)];
            at_once(renamed || seen.pictures[at(*family)] != wanted.pictures[at(*family)], Remedy::Table(*family));
        }
    }
    for (plan, link) in compare::enis(wanted, state) {
        at_once(eni::settings(plan, &link.name).iter().any(eni::differs), Remedy::EniSettings(link.index));
    }
    at_once(sysctl::read("ipv4/conf/all/rp_filter") == Some(2), Remedy::ReversePathOfAll);
    let others = compare::deviations(wanted, state, &seen.map, prefix);
    // A table that is made anew has all pods, and a node that is let forward does it on all links.
    let there = |address| !seen.pictures[at(Family::of(address))].is_empty();
    let forwards = !found.iter().any(|deviation| deviation.remedy == Remedy::Settings);
    found.extend(others.into_iter().filter(|found| match found.remedy {
        Remedy::Pod(Element { address, .. }) => there(address),
        Remedy::Op(Op::Set { to: Setting::Ipv4(Ipv4Setting::Forwarding, _), .. }) => forwards,
        Remedy::Op(_)
        | Remedy::Name(_)
        | Remedy::Label(_)
        | Remedy::Table(_)
        | Remedy::Settings
        | Remedy::EniSettings(_)
        | Remedy::ReversePathOfAll => true,
    }));
    found
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}
