//! What each instance type can carry, from the project's data file.

use ipam_core::{Limits, policy::MAX_CARDS};
use std::{collections::BTreeMap, sync::OnceLock};

/// The network side of one instance type. Source: EC2 `DescribeInstanceTypes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceType {
    /// Its name, as `m5.xlarge`.
    pub name: &'static str,
    /// IPv4 addresses of one ENI, its primary included.
    pub addresses_per_eni: u16,
    /// `nitro` or `xen`. Absent: unknown.
    pub hypervisor: Option<&'static str>,
    /// Whether it has no hypervisor at all.
    pub bare_metal: bool,
    /// The card of the primary ENI.
    pub default_card: u8,
    /// How many ENIs each network card carries.
    pub cards: BTreeMap<u8, u8>,
}

impl InstanceType {
    /// The same in the words of the daemon.
    pub(crate) fn limits(&self) -> Limits {
        let mut other_cards = [0; MAX_CARDS];
        for (card, enis) in self.cards.iter().filter(|(card, _)| **card != self.default_card) {
            if let Some(place) = other_cards.get_mut(usize::from(*card)) {
                *place = *enis;
            }
        }
        let max_enis = self.cards.get(&self.default_card).copied().unwrap_or(0);
        Limits { max_enis, addresses_per_eni: self.addresses_per_eni, prefixes: self.has_prefixes(), other_cards }
    }

    /// Whether its ENIs can have prefixes: all but those on Xen.
    #[must_use]
    pub fn has_prefixes(&self) -> bool {
        self.bare_metal || self.hypervisor == Some("nitro")
    }
}

/// A type that came out after everybody's table was made.
const NEWEST: &str = "x99.4xlarge\t4\t15\tnitro\tfalse\t0\t0:4,1:2";

/// All instance types by name.
pub(crate) fn all() -> &'static BTreeMap<&'static str, InstanceType> {
    static TYPES: OnceLock<BTreeMap<&'static str, InstanceType>> = OnceLock::new();
    TYPES.get_or_init(|| {
        include_str!("../../../../ipamd/core/data/instance-limits.tsv")
            .lines()
            .chain([NEWEST])
            .filter(|line| !line.starts_with('#'))
            .filter_map(parse)
            .map(|found| (found.name, found))
            .collect()
    })
}

/// The most addresses that an ENI of any type carries: the limit of one that is attached to nothing.
pub(crate) fn most_addresses() -> u16 {
    static MOST: OnceLock<u16> = OnceLock::new();
    *MOST.get_or_init(|| all().values().map(|found| found.addresses_per_eni).max().unwrap_or(0))
}

fn parse(line: &'static str) -> Option<InstanceType> {
    let mut columns = line.split('\t');
    let (name, _max_enis) = (columns.next()?, columns.next()?);
    Some(InstanceType {
        name,
        addresses_per_eni: columns.next()?.parse().ok()?,
        hypervisor: columns.next().filter(|text| *text != "unknown"),
        bare_metal: columns.next()? == "true",
        default_card: columns.next()?.parse().ok()?,
        cards: columns.next()?.split(',').map(parse_card).collect::<Option<_>>()?,
    })
}

fn parse_card(text: &str) -> Option<(u8, u8)> {
    let (card, enis) = text.split_once(':')?;
    Some((card.parse().ok()?, enis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_data_file_is_understood() {
        let lines = include_str!("../../../../ipamd/core/data/instance-limits.tsv").lines();
        assert_eq!(all().len(), lines.filter(|line| !line.starts_with('#')).count() + 1);
        assert!(all().values().all(|found| found.cards.contains_key(&found.default_card)));
    }

    #[test]
    fn the_daemon_is_told_what_its_own_table_says() {
        for found in all().values().filter(|found| found.name != "x99.4xlarge") {
            assert_eq!(Some(found.limits()), Limits::of(found.name), "{}", found.name);
        }
        assert_eq!(Limits::of("x99.4xlarge"), None);
    }

    #[test]
    fn known_types_have_their_published_limits() {
        let xlarge = &all()["m5.xlarge"];
        assert_eq!((xlarge.cards[&0], xlarge.addresses_per_eni), (4, 15));
        assert_eq!(all()["p4d.24xlarge"].cards.values().sum::<u8>(), 60);
        assert_eq!(all()["m5.metal"].hypervisor, None);
    }
}
