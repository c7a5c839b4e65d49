//! What each instance type can carry, from a table that EC2 publishes.

use eni_proto::numbers::ENIS_PER_FURTHER_CARD;

use crate::{Limits, policy::MAX_CARDS};

/// One row for each instance type. Source: EC2 `DescribeInstanceTypes`; its header names the columns.
const TABLE: &str = include_str!("../data/instance-limits.tsv");

impl Limits {
    /// Returns the limits of `instance_type` (as `m5.xlarge`), or nothing when the type is not in the table.
    #[must_use]
    pub fn of(instance_type: &str) -> Option<Self> {
        rows().find(|(name, _)| *name == instance_type).and_then(|(_, limits)| limits)
    }

    /// Places of one ENI for what pods can have, each a single address or a prefix: all but its primary address.
    #[must_use]
    pub fn capacity(self) -> usize {
        usize::from(self.addresses_per_eni.saturating_sub(1))
    }

    /// How many ENIs a network card carries for us: on a further one no more than have a mark.
    #[must_use]
    pub fn enis_on(self, card: u8) -> u8 {
        match card {
            0 => self.max_enis,
            card => self.other_cards.get(usize::from(card)).map_or(0, |most| ENIS_PER_FURTHER_CARD.min(*most)),
        }
    }

    /// Whether such an instance can have a trunk. Where that is not sure, as with a few of the smallest types, yes: a place that stays
    /// empty costs less than pods without their branch. Source: EKS user guide, security groups for pods.
    #[must_use]
    pub fn may_have_trunk(self, instance_type: &str) -> bool {
        let burstable =
            instance_type.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        // What can have prefixes is Nitro or bare metal.
        self.prefixes && !burstable
    }

    /// The network cards above 0 that the instance type has.
    pub fn further_cards(self) -> impl Iterator<Item = u8> {
        (1..).zip(self.other_cards.into_iter().skip(1)).filter(|(_, most)| *most > 0).map(|(card, _)| card)
    }
}

fn rows() -> impl Iterator<Item = (&'static str, Option<Limits>)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        (fields.next().unwrap_or_default(), read(fields))
    })
}

/// Reads the columns after the name.
fn read<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<Limits> {
    let max_enis = fields.next()?.parse().ok()?;
    let addresses_per_eni = fields.next()?.parse().ok()?;
    let nitro = fields.next()? == "nitro";
    let bare_metal = fields.next()? == "true";
    let default_card: usize = fields.next()?.parse().ok()?;
    let mut other_cards = [0; MAX_CARDS];
    for card in fields.next()?.split(',') {
        let (index, most) = card.split_once(':')?;
        *other_cards.get_mut(index.parse::<usize>().ok()?)? = most.parse().ok()?;
    }
    *other_cards.get_mut(default_card)? = 0;
    Some(Limits { max_enis, addresses_per_eni, prefixes: nitro || bare_metal, other_cards })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_can_be_read() {
        assert!(rows().count() > 1000);
        for (name, limits) in rows() {
            let limits = limits.unwrap_or_else(|| panic!("{name}"));
            assert!((1..=100).contains(&limits.max_enis) && (2..=100).contains(&limits.addresses_per_eni), "{name}");
        }
    }

    #[test]
    fn nitro_and_bare_metal_may_have_a_trunk_unless_they_are_burstable() {
        let may = |name| Limits::of(name).unwrap().may_have_trunk(name);
        assert!(["m5.large", "c5.metal", "trn1.2xlarge"].into_iter().all(may));
        assert!(!["t3.large", "t4g.nano", "m4.large", "p3.2xlarge"].into_iter().any(may));
    }

    #[test]
    fn known_types_have_known_limits_and_unknown_ones_none() {
        let small = Limits { max_enis: 3, addresses_per_eni: 4, ..Limits::default() };
        assert_eq!(Limits::of("t3.small"), Some(small));
        assert_eq!(Limits::of("m4.large").map(|limits| limits.prefixes), Some(false));
        let p4d = Limits::of("p4d.24xlarge").map(|limits| (limits.max_enis, limits.other_cards[..5].to_vec()));
        assert_eq!(p4d, Some((15, vec![0, 15, 15, 15, 0])));
        assert_eq!(Limits::of("m99.huge"), None);
    }
}
