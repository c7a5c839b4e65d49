//! What the operator wants and what the instance allows.

use std::time::Duration;

use eni_proto::numbers;

/// How large the pool should be. The settings have the AWS CNI's names and meanings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `WARM_ENI_TARGET`: whole ENIs to keep free. Ignored when one of the two address targets is above 0.
    pub warm_enis: u8,
    /// `WARM_IP_TARGET`: free addresses to keep. 0: not set.
    pub warm_addresses: u16,
    /// `MINIMUM_IP_TARGET`: addresses to hold at least, free or not. 0: not set.
    pub minimum_addresses: u16,
    /// `MAX_ENI`: never more ENIs than this, the primary included. Absent: what the instance type allows.
    pub max_enis: Option<u8>,
    /// `IP_COOLDOWN_PERIOD`: how long a released address rests.
    pub cool_down: Duration,
}

impl Default for Policy {
    /// What holds when nothing is set.
    fn default() -> Self {
        Self {
            warm_enis: 1,
            warm_addresses: 0,
            minimum_addresses: 0,
            max_enis: None,
            cool_down: Duration::from_secs(numbers::DEFAULT_COOL_DOWN_SECONDS.into()),
        }
    }
}

/// What one instance can carry. Source: EC2 `DescribeInstanceTypes`, `NetworkInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// ENIs on the default network card, the primary included.
    pub max_enis: u8,
    /// IPv4 addresses of one ENI, its primary included.
    pub addresses_per_eni: u16,
}
