//! How many requests the account may send: a token bucket for each action, as EC2 documents them.

use std::collections::BTreeMap;

use ipam_core::Moment;

use crate::ApiError;

/// A token bucket: full at first, refilled steadily, one token for each request (or for each resource).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Tokens when it is full: requests that may come at once.
    pub burst: u32,
    /// Tokens that come back in a second.
    pub per_second: u32,
}

/// What a request is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Charge {
    /// The action's requests.
    Requests,
    /// The action's requests with neither a filter nor a page size, where EC2 counts them apart.
    Unbounded,
    /// What the action starts or ends: one token for each.
    Resources,
}

/// Action or its beginning (with `*`), charge, burst, tokens a second; the first row that fits counts.
///
/// Source: "Request throttling for the Amazon EC2 API", default limits of an account in a region, as of 2026-11.
#[rustfmt::skip]
const TABLE: &[(&str, Charge, u32, u32)] = &[
    ("RunInstances",                     Charge::Requests,     5,  2),
    ("RunInstances",                     Charge::Resources, 1000,  2),
    ("TerminateInstances",               Charge::Requests,   100,  5),
    ("TerminateInstances",               Charge::Resources, 1000, 20),
    ("CreateNetworkInterface",           Charge::Requests,   100,  5),
    ("DeleteNetworkInterface",           Charge::Requests,   100,  5),
    ("ModifyNetworkInterfaceAttribute",  Charge::Requests,   100,  5),
    ("AssignPrivateIpAddresses",         Charge::Requests,   100,  5),
    ("UnassignPrivateIpAddresses",       Charge::Requests,   100,  5),
    ("AssignIpv6Addresses",              Charge::Requests,   100,  5),
    ("CreateTags",                       Charge::Requests,   100, 10),
    ("DeleteTags",                       Charge::Requests,   100, 10),
    ("CreateSubnetCidrReservation",      Charge::Requests,     5,  1),
    ("DescribeInstances",                Charge::Unbounded,   50, 10),
    ("DescribeNetworkInterfaces",        Charge::Unbounded,   50, 10),
    ("DescribeSecurityGroups",           Charge::Unbounded,   50, 10),
    ("Describe*",                        Charge::Requests,   100, 20),
    ("Get*",                             Charge::Requests,   100, 20),
    // All other changes, attach and detach among them.
    ("*",                                Charge::Requests,    50,  5),
];

impl Budget {
    /// The default budget of an account in a region. Absent: such a charge does not exist for the action.
    #[must_use]
    pub fn documented(action: &str, charge: Charge) -> Option<Self> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(beginning) => action.starts_with(beginning),
            None => action == pattern,
        };
        let row = TABLE.iter().find(|(pattern, kind, ..)| *kind == charge && fits(pattern));
        row.map(|&(_, _, burst, per_second)| Self { burst, per_second })
    }
}

/// One token in the unit that buckets count in, so that any percentage of any rate is whole for a millisecond.
const TOKEN: u64 = 100_000;

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    /// When the level was right.
    at: Moment,
}

/// All buckets of an account.
#[derive(Debug, Clone)]
pub(crate) struct Budgets {
    percent: Option<u32>,
    buckets: BTreeMap<(&'static str, Charge), Bucket>,
}

impl Budgets {
    pub(crate) fn new(percent: Option<u32>) -> Self {
        Self { percent, buckets: BTreeMap::new() }
    }

    /// Takes the tokens for one request, from all its buckets or from none. Returns the whole tokens left in the fullest-used one.
    pub(crate) fn spend(
        &mut self,
        action: &'static str,
        charges: &[(Charge, u32)],
        now: Moment,
    ) -> Result<Option<u64>, ApiError> {
        let Some(percent) = self.percent else { return Ok(None) };
        let mut after = Vec::new();
        for (charge, tokens) in charges {
            let Some((key, level)) = self.level(action, *charge, percent, now) else { continue };
            let left = level.checked_sub(u64::from(*tokens) * TOKEN).ok_or_else(limit_exceeded)?;
            after.push((key, left));
        }
        let least = after.iter().map(|(_, left)| left / TOKEN).min();
        self.buckets.extend(after.into_iter().map(|(key, level)| (key, Bucket { level, at: now })));
        Ok(least)
    }

    /// What a bucket holds. An action without unbounded requests of its own has one bucket for all.
    fn level(
        &self,
        action: &'static str,
        charge: Charge,
        percent: u32,
        now: Moment,
    ) -> Option<((&'static str, Charge), u64)> {
        let own = Budget::documented(action, charge).map(|budget| (charge, budget));
        let shared = || Some((Charge::Requests, Budget::documented(action, Charge::Requests)?));
        let (charge, budget) = if charge == Charge::Unbounded { own.or_else(shared)? } else { own? };
        let full = u64::from(budget.burst) * u64::from(percent) * (TOKEN / 100);
        // Tokens a second and units a millisecond differ by a thousand.
        let per_millisecond = u64::from(budget.per_second) * u64::from(percent) * (TOKEN / 100 / 1000);
        let level = self.buckets.get(&(action, charge)).map_or(full, |bucket| {
            let waited = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
            bucket.level.saturating_add(waited.saturating_mul(per_millisecond)).min(full)
        });
        Some(((action, charge), level))
    }
}

fn limit_exceeded() -> ApiError {
    ApiError { status: 503, ..ApiError::new("RequestLimitExceeded", "Request limit exceeded.") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    /// How many requests pass at a moment, of 2,000.
    fn passing(budgets: &mut Budgets, action: &'static str, charge: Charge, now: Moment) -> usize {
        (0..2000).filter(|_| budgets.spend(action, &[(charge, 1)], now).is_ok()).count()
    }

    #[test]
    fn every_action_has_its_documented_bucket() {
        #[rustfmt::skip]
        let table = [
            ("CreateNetworkInterface",    Charge::Requests,  100, 5),
            ("AttachNetworkInterface",    Charge::Requests,   50, 5),
            ("DetachNetworkInterface",    Charge::Requests,   50, 5),
            ("CreateTags",                Charge::Requests,  100, 10),
            ("DescribeSubnets",           Charge::Requests,  100, 20),
            ("DescribeSubnets",           Charge::Unbounded, 100, 20),
            ("DescribeNetworkInterfaces", Charge::Requests,  100, 20),
            ("DescribeNetworkInterfaces", Charge::Unbounded,  50, 10),
            ("RunInstances",              Charge::Requests,    5, 2),
            ("RunInstances",              Charge::Resources, 1000, 2),
        ];
        for (action, charge, burst, per_second) in table {
            let mut budgets = Budgets::new(Some(100));
            assert_eq!(passing(&mut budgets, action, charge, at(0)), burst, "{action}");
            assert_eq!(passing(&mut budgets, action, charge, at(1000)), per_second, "{action} a second later");
            assert_eq!(passing(&mut budgets, action, charge, at(1_000_000_000)), burst, "{action} at last");
        }
    }

    #[test]
    fn actions_do_not_share_their_buckets() {
        let mut budgets = Budgets::new(Some(100));
        passing(&mut budgets, "CreateNetworkInterface", Charge::Requests, at(0));
        assert_eq!(passing(&mut budgets, "DeleteNetworkInterface", Charge::Requests, at(0)), 100);
        passing(&mut budgets, "DescribeInstances", Charge::Unbounded, at(0));
        assert_eq!(passing(&mut budgets, "DescribeInstances", Charge::Requests, at(0)), 100);
    }

    #[test]
    fn budgets_are_scaled_in_burst_and_rate() {
        let mut budgets = Budgets::new(Some(10));
        assert_eq!(passing(&mut budgets, "AttachNetworkInterface", Charge::Requests, at(0)), 5);
        assert_eq!(passing(&mut budgets, "AttachNetworkInterface", Charge::Requests, at(1999)), 0);
        assert_eq!(passing(&mut budgets, "AttachNetworkInterface", Charge::Requests, at(2000)), 1);
        let mut unlimited = Budgets::new(None);
        assert_eq!(passing(&mut unlimited, "AttachNetworkInterface", Charge::Requests, at(0)), 2000);
    }

    #[test]
    fn a_request_takes_all_its_tokens_or_none() {
        let mut budgets = Budgets::new(Some(100));
        let run = |instances| [(Charge::Requests, 1), (Charge::Resources, instances)];
        assert_eq!(budgets.spend("RunInstances", &run(999), at(0)), Ok(Some(1)));
        assert!(budgets.spend("RunInstances", &run(2), at(0)).is_err());
        assert_eq!(budgets.spend("RunInstances", &run(1), at(0)), Ok(Some(0)));
        assert!(budgets.spend("RunInstances", &run(1), at(499)).is_err());
        assert!(budgets.spend("RunInstances", &run(1), at(500)).is_ok());
    }
}
