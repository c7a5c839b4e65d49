//! What each instance type can carry, from a table that EC2 publishes.

use crate::Limits;

/// One row for each instance type. Source: EC2 `DescribeInstanceTypes`; its header names the columns.
const TABLE: &str = include_str!("../data/instance-limits.tsv");

impl Limits {
    /// Returns the limits of `instance_type` (as `m5.xlarge`), or nothing when the type is not in the table.
    #[must_use]
    pub fn of(instance_type: &str) -> Option<Self> {
        rows().find(|(name, _)| *name == instance_type).and_then(|(_, limits)| limits)
    }

    /// Addresses of one ENI that pods can have: all but its primary.
    #[must_use]
    pub fn capacity(self) -> usize {
        usize::from(self.addresses_per_eni.saturating_sub(1))
    }
}

fn rows() -> impl Iterator<Item = (&'static str, Option<Limits>)> {
    TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut fields = line.split('\t');
        let name = fields.next().unwrap_or_default();
        let mut number = || fields.next()?.parse().ok();
        let limits = number().and_then(|max_enis: u16| {
            Some(Limits { max_enis: u8::try_from(max_enis).ok()?, addresses_per_eni: number()? })
        });
        (name, limits)
    })
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
    fn known_types_have_known_limits_and_unknown_ones_none() {
        assert_eq!(Limits::of("m5.xlarge"), Some(Limits { max_enis: 4, addresses_per_eni: 15 }));
        assert_eq!(Limits::of("t3.small"), Some(Limits { max_enis: 3, addresses_per_eni: 4 }));
        assert_eq!(Limits::of("m99.huge"), None);
    }
}
