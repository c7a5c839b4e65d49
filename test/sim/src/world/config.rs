//! What can be chosen about a world before it begins.

use std::time::Duration;

/// A delay drawn evenly from `min..=max` by the world's seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayRange {
    /// Shortest.
    pub min: Duration,
    /// Longest; not below `min`.
    pub max: Duration,
}

impl DelayRange {
    /// No delay: the change has happened when the call returns.
    pub const ZERO: Self = Self::millis(0, 0);

    /// A delay between `min` and `max` milliseconds.
    #[must_use]
    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
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
        launch: DelayRange::ZERO,
        terminate: DelayRange::ZERO,
    };
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            create: DelayRange::millis(200, 600),
            attach: DelayRange::millis(300, 1000),
            detach: DelayRange::millis(300, 1000),
            launch: DelayRange::ZERO,
            terminate: DelayRange::millis(300, 1000),
        }
    }
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

/// Everything that decides how a world behaves: the same configuration and the same calls give the same answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorldConfig {
    /// Seed of ids, addresses, MACs and delays.
    pub seed: u64,
    /// How long changes take.
    pub delays: Delays,
    /// How much of EC2's documented request budgets the account has, in percent. Absent: no limit. Default: 100.
    pub budget_percent: Option<u32>,
    /// Which free addresses are given first. Default: any.
    pub order: Order,
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
            budget_percent: Some(100),
            order: Order::Random,
            region: "us-east-1".to_owned(),
            log_capacity: 4096,
        }
    }
}
