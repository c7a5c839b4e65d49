//! How much drift there was, in figures for whoever shows them.

use std::{collections::BTreeMap, time::Duration};

use super::{Outcome, Repair};

/// What kind of thing was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A link that is down, or has another MTU, hardware address or name.
    Link,
    /// An ENI's address.
    Address,
    /// A pod's permanent neighbour.
    Neighbour,
    /// A route to a pod, or one of an ENI's table.
    Route,
    /// A rule.
    Rule,
    /// A kernel setting, as forwarding or `rp_filter`.
    Setting,
    /// The nf_tables table of a family, but its map.
    Table,
    /// A pod's element in the nf_tables map.
    Element,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Link,
        Self::Address,
        Self::Neighbour,
        Self::Route,
        Self::Rule,
        Self::Setting,
        Self::Table,
        Self::Element,
    ];

    /// One word in lower case, which never changes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Neighbour => "neighbour",
            Self::Route => "route",
            Self::Rule => "rule",
            Self::Setting => "setting",
            Self::Table => "table",
            Self::Element => "element",
        }
    }
}

/// Upper bounds of [`Tally::within`], in seconds.
pub const TOOK_SECONDS: [f64; 9] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0];

/// What became of the things of one kind. All but `resting` only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// How many were made right.
    pub mended: u64,
    /// How often the kernel refused to make one right.
    pub refused: u64,
    /// How often one was left alone for a while, because somebody breaks it again and again.
    pub left_alone: u64,
    /// How often something of somebody else's was found in the place of ours.
    pub taken: u64,
    /// How many are wrong now and left alone.
    pub resting: u64,
    /// Of what was made right, how many within each of [`TOOK_SECONDS`] after it was noticed; a larger bound counts the smaller ones too.
    pub within: [u64; TOOK_SECONDS.len()],
    /// The sum of these times.
    pub took: Duration,
}

/// All figures of a guard since it started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Drift {
    /// Only kinds of which there was something to tell.
    pub kinds: BTreeMap<Kind, Tally>,
    /// How often everything was compared.
    pub looks: u64,
    /// How often that failed, as when lists change all the time; it is repeated soon after.
    pub failed_looks: u64,
    /// The time that it took.
    pub looking: Duration,
    /// How often the kernel had more to tell than we heard (ENOBUFS); everything is compared then.
    pub overruns: u64,
}

impl Drift {
    pub(super) fn count(&mut self, repair: &Repair) {
        let tally = self.kinds.entry(repair.kind).or_default();
        match repair.outcome {
            Outcome::Mended => {
                tally.mended += 1;
                tally.took += repair.took;
                let took = repair.took.as_secs_f64();
                let within = tally.within.iter_mut().zip(TOOK_SECONDS).filter(|(_, bound)| took <= *bound);
                within.for_each(|(count, _)| *count += 1);
            }
            Outcome::Refused(_) => tally.refused += 1,
            Outcome::LeftAlone(_) => tally.left_alone += 1,
            Outcome::Taken => tally.taken += 1,
        }
    }

    pub(super) fn rest(&mut self, kinds: impl Iterator<Item = Kind>) {
        self.kinds.values_mut().for_each(|tally| tally.resting = 0);
        kinds.for_each(|kind| self.kinds.entry(kind).or_default().resting += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: Kind, outcome: Outcome, milliseconds: u64) -> Repair {
        Repair { kind, what: String::new(), outcome, took: Duration::from_millis(milliseconds) }
    }

    #[test]
    fn each_kind_is_counted_for_itself_with_its_times() {
        let mut drift = Drift::default();
        drift.count(&told(Kind::Rule, Outcome::Mended, 15));
        drift.count(&told(Kind::Rule, Outcome::Mended, 300));
        drift.count(&told(Kind::Rule, Outcome::LeftAlone(Duration::from_secs(1)), 0));
        drift.count(&told(Kind::Route, Outcome::Refused("no".to_owned()), 0));
        drift.rest([Kind::Rule].into_iter());
        let rule = drift.kinds[&Kind::Rule];
        assert_eq!((rule.mended, rule.left_alone, rule.resting, rule.took), (2, 1, 1, Duration::from_millis(315)));
        assert_eq!(rule.within, [0, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert_eq!((drift.kinds[&Kind::Route].refused, drift.kinds.len()), (1, 2));
        drift.rest([].into_iter());
        assert_eq!(drift.kinds[&Kind::Rule].resting, 0);
    }

    #[test]
    fn every_kind_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
    }
}
