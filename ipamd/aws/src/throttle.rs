//! A rate limit for each API action, so that one node never spends what all nodes of the account share.

use std::num::NonZeroU32;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// An API action and this node's share of its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Name of the action.
    pub action: &'static str,
    /// Calls that may be sent at once.
    pub burst: u32,
    /// Calls a second after that.
    pub per_second: u32,
}

/// Each action's share. EC2's documented default for a whole account and region is a burst of 50 to 100 and 5 a second for
/// changes, 100 and 20 a second for descriptions; a node needs a handful of each to grow from nothing to full.
pub const BUDGETS: &[Budget] = &[
    Budget { action: "DescribeNetworkInterfaces", burst: 20, per_second: 4 },
    Budget { action: "DescribeSubnets", burst: 10, per_second: 2 },
    Budget { action: "DescribeInstanceTypes", burst: 5, per_second: 1 },
    Budget { action: "CreateNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "AttachNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "ModifyNetworkInterfaceAttribute", burst: 8, per_second: 1 },
    Budget { action: "AssignPrivateIpAddresses", burst: 10, per_second: 2 },
    Budget { action: "UnassignPrivateIpAddresses", burst: 8, per_second: 1 },
    Budget { action: "DetachNetworkInterface", burst: 8, per_second: 1 },
    Budget { action: "DeleteNetworkInterface", burst: 8, per_second: 1 },
];

/// One limiter for each action of [`BUDGETS`].
#[derive(Debug)]
pub struct Throttle {
    limiters: Vec<(&'static str, DefaultDirectRateLimiter)>,
}

impl Throttle {
    /// All buckets full.
    #[must_use]
    pub fn new() -> Self {
        let limiter = |budget: &Budget| {
            let burst = NonZeroU32::new(budget.burst).unwrap_or(NonZeroU32::MIN);
            let per_second = NonZeroU32::new(budget.per_second).unwrap_or(NonZeroU32::MIN);
            (budget.action, RateLimiter::direct(Quota::per_second(per_second).allow_burst(burst)))
        };
        Self { limiters: BUDGETS.iter().map(limiter).collect() }
    }

    /// Waits until `action` may be called. An action without a budget is not held back.
    pub async fn wait(&self, action: &str) {
        if let Some((_, limiter)) = self.limiters.iter().find(|(known, _)| *known == action) {
            limiter.until_ready().await;
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_call_has_to_wait() {
        let throttle = Throttle::new();
        for budget in BUDGETS {
            let (_, limiter) = throttle.limiters.iter().find(|(action, _)| *action == budget.action).unwrap();
            let passed = (0..budget.burst).filter(|_| limiter.check().is_ok()).count();
            assert_eq!(passed, usize::try_from(budget.burst).unwrap(), "{}", budget.action);
            assert!(limiter.check().is_err(), "{}", budget.action);
        }
    }
}
