//! What can be chosen about a world before it begins.

use std::time::Duration;

use crate::{ApiError, world::faults::Weather};

/// A delay drawn by the world's seed: mostly evenly from `min..=max`, and once in a hundred times from `max..=worst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayRange {
    /// Shortest.
    pub min: Duration,
    /// Longest but for the hundredth time; not below `min`.
    pub max: Duration,
    /// Longest of all; not below `max`.
    pub worst: Duration,
}

impl DelayRange {
    /// No delay: the change has happened when the call returns.
    pub const ZERO: Self = Self::millis(0, 0);

    /// A delay between `min` and `max` milliseconds.
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        let max = Duration::from_millis(max);
        Self { min: Duration::from_millis(min), max, worst: max }
    }

    /// The same with a tail of one in a hundred up to `worst` milliseconds.
    #[must_use]
    pub const fn up_to(self, worst: u64) -> Self {
        Self { worst: Duration::from_millis(worst), ..self }
    }

    /// Whether there is never any delay.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.worst.is_zero()
    }
}

/// How long changes take after EC2 has accepted them. AWS publishes no numbers; the defaults are shorter than
/// what is seen there, so that demonstrations are quick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// ENI `pending` to `available`. Default 0.2 to 0.6 s.
    pub create: DelayRange,
    /// `attaching` to `attached`. Default 0.3 to 1 s.
    pub attach: DelayRange,
    /// `detaching` to detached. Default 0.3 to 1 s.
    pub detach: DelayRange,
    /// Accepted deletion to gone, until when the ENI is described and its addresses are not free. Default: none.
    pub delete: DelayRange,
    /// Instance `pending` to `running`. Default: none.
    pub launch: DelayRange,
    /// Instance `shutting-down` to `terminated`. Default 0.3 to 1 s.
    pub terminate: DelayRange,
}

impl Delays {
    /// Everything happens at once.
    pub const NONE: Self = Self {
        create: DelayRange::ZERO,
        attach: DelayRange::ZERO,
        detach: DelayRange::ZERO,
        delete: DelayRange::ZERO,
        launch: DelayRange::ZERO,
        terminate: DelayRange::ZERO,
    };

    /// What users of EC2 report: seconds, and now and then many.
    pub const REAL: Self = Self {
        create: DelayRange::millis(300, 1000),
        attach: DelayRange::millis(1000, 5000).up_to(15_000),
        detach: DelayRange::millis(1000, 10_000).up_to(30_000),
        delete: DelayRange::millis(300, 1000),
        launch: DelayRange::millis(5000, 20_000),
        terminate: DelayRange::millis(10_000, 60_000),
    };
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            create: DelayRange::millis(200, 600),
            attach: DelayRange::millis(300, 1000),
            detach: DelayRange::millis(300, 1000),
            terminate: DelayRange::millis(300, 1000),
            ..Self::NONE
        }
    }
}

/// How far what is told may lag behind what is. Each change of an ENI, and each free address, is told after a lag of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lags {
    /// What the API says of an ENI: one just made is not found, one just deleted still is, addresses and tags come later.
    pub describe: DelayRange,
    /// What the filters of descriptions go by; no filter finds an ENI before that.
    pub filters: DelayRange,
    /// What the metadata service shows of an ENI.
    pub metadata: DelayRange,
    /// How long the metadata service goes on listing the MAC of an ENI that has left, whose keys it does not have any more.
    pub ghost: DelayRange,
    /// How many addresses a subnet is said to have.
    pub available: DelayRange,
}

impl Lags {
    /// Everything is known at once.
    pub const NONE: Self = Self {
        describe: DelayRange::ZERO,
        filters: DelayRange::ZERO,
        metadata: DelayRange::ZERO,
        ghost: DelayRange::ZERO,
        available: DelayRange::ZERO,
    };

    /// What users of EC2 report.
    pub const REAL: Self = Self {
        describe: DelayRange::millis(0, 2000).up_to(10_000),
        filters: DelayRange::millis(0, 3000).up_to(15_000),
        metadata: DelayRange::millis(500, 5000).up_to(18_000),
        ghost: DelayRange::millis(0, 60_000).up_to(400_000),
        available: DelayRange::millis(0, 30_000),
    };
}

/// Which free address or block is given next. EC2's own order is not specified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Random,
    /// The lowest.
    Sequential,
    /// Single addresses where they break up a free block, as long as there is one: leaves no room for prefixes.
    Scattered,
}

/// How much of what an account may have in a region. Source: "Amazon VPC quotas", as of 2026-11; AWS raises them on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// ENIs in the region: 5,000.
    pub enis: usize,
    /// VPCs in the region: 5.
    pub vpcs: usize,
    /// Subnets of a VPC: 200.
    pub subnets_of_vpc: usize,
    /// IPv4 networks of a VPC: 5.
    pub cidrs_of_vpc: usize,
    /// Security groups of an ENI: 5.
    pub groups_of_eni: usize,
}

impl Quotas {
    /// Refuses one more than there may be.
    pub(crate) fn check(
        &self,
        code: &'static str,
        there: usize,
        quota: impl Fn(&Self) -> usize,
    ) -> Result<(), ApiError> {
        let most = quota(self);
        if there < most {
            return Ok(());
        }
        Err(ApiError::new(code, format!("The maximum number of {most} has been reached.")))
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self { enis: 5000, vpcs: 5, subnets_of_vpc: 200, cidrs_of_vpc: 5, groups_of_eni: 5 }
    }
}

/// Everything that decides how a world behaves: the same configuration and the same calls give the same answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldConfig {
    /// Seed of ids, addresses, MACs and delays.
    pub seed: u64,
    /// How long changes take.
    pub delays: Delays,
    /// How often calls go wrong by themselves. Default: never.
    pub weather: Weather,
    /// How far what is told lags behind. Default: not at all.
    pub lags: Lags,
    /// How much of EC2's documented request budgets the account has, in percent. Absent: no limit. Default: 100.
    pub budget_percent: Option<u32>,
    /// Which free addresses are given first. Default: any.
    pub order: Order,
    /// How long an address that was given back is not given again. EC2 promises nothing; default: not at all.
    pub reuse_after: Duration,
    /// How much the account may have.
    pub quotas: Quotas,
    /// Region; its zones are this and a letter.
    pub region: String,
    /// How many requests the log keeps.
    pub log_capacity: usize,
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            delays: Delays::default(),
            weather: Weather::default(),
            lags: Lags::NONE,
            budget_percent: Some(100),
            order: Order::Random,
            reuse_after: Duration::ZERO,
            quotas: Quotas::default(),
            region: "us-east-1".to_owned(),
            log_capacity: 4096,
        }
    }
}
