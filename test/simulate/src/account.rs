//! One account's budget of API calls in one region: a token bucket for each action, shared by all nodes.

use ipam_core::Moment;

/// The API actions that nodes call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// `DescribeNetworkInterfaces`, filtered or by id.
    DescribeNetworkInterfaces,
    /// `DescribeSubnets`.
    DescribeSubnets,
    /// `DescribeInstances`, filtered or by id.
    DescribeInstances,
    /// `CreateNetworkInterface`.
    CreateNetworkInterface,
    /// `AttachNetworkInterface`.
    AttachNetworkInterface,
    /// `ModifyNetworkInterfaceAttribute`.
    ModifyNetworkInterfaceAttribute,
    /// `AssignPrivateIpAddresses`.
    AssignPrivateIpAddresses,
    /// `UnassignPrivateIpAddresses`.
    UnassignPrivateIpAddresses,
    /// `DetachNetworkInterface`.
    DetachNetworkInterface,
    /// `DeleteNetworkInterface`.
    DeleteNetworkInterface,
    /// `CreateTags`.
    CreateTags,
}

impl Api {
    /// All of them, in the order of the variants.
    pub const ALL: [Self; 11] = [
        Self::DescribeNetworkInterfaces,
        Self::DescribeSubnets,
        Self::DescribeInstances,
        Self::CreateNetworkInterface,
        Self::AttachNetworkInterface,
        Self::ModifyNetworkInterfaceAttribute,
        Self::AssignPrivateIpAddresses,
        Self::UnassignPrivateIpAddresses,
        Self::DetachNetworkInterface,
        Self::DeleteNetworkInterface,
        Self::CreateTags,
    ];

    /// EC2's name of it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSubnets => "DescribeSubnets",
            Self::DescribeInstances => "DescribeInstances",
            Self::CreateNetworkInterface => "CreateNetworkInterface",
            Self::AttachNetworkInterface => "AttachNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses => "UnassignPrivateIpAddresses",
            Self::DetachNetworkInterface => "DetachNetworkInterface",
            Self::DeleteNetworkInterface => "DeleteNetworkInterface",
            Self::CreateTags => "CreateTags",
        }
    }

    /// The documented bucket: how many calls at once, and how many a second after that.
    ///
    /// Source: EC2 API throttling, <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html>, 2026-11.
    #[must_use]
    pub const fn bucket(self) -> (u32, u32) {
        match self {
            Self::DescribeNetworkInterfaces | Self::DescribeSubnets | Self::DescribeInstances => (100, 20),
            Self::AttachNetworkInterface | Self::DetachNetworkInterface => (50, 5),
            Self::CreateTags => (100, 10),
            Self::CreateNetworkInterface
            | Self::ModifyNetworkInterfaceAttribute
            | Self::AssignPrivateIpAddresses
            | Self::UnassignPrivateIpAddresses
            | Self::DeleteNetworkInterface => (100, 5),
        }
    }
}

/// What became of the calls of one action.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls that passed the bucket.
    pub passed: u64,
    /// Calls that the bucket refused; they cost nothing there.
    pub throttled: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// In thousandths of a call, so that a millisecond adds a whole number.
    tokens: u64,
    at: Moment,
    calls: Calls,
}

/// The buckets of all actions.
#[derive(Debug, Clone)]
pub struct Account {
    buckets: [Bucket; Api::ALL.len()],
}

impl Account {
    /// All buckets full as of `now`.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        let full = |api: Api| Bucket { tokens: u64::from(api.bucket().0) * 1000, at: now, calls: Calls::default() };
        Self { buckets: Api::ALL.map(full) }
    }

    /// Takes one token. False: there is none, and EC2 answers `RequestLimitExceeded`.
    pub fn take(&mut self, api: Api, now: Moment) -> bool {
        let (most, per_second) = api.bucket();
        let Some(bucket) = self.buckets.get_mut(api as usize) else { return false };
        let passed = u64::try_from(now.since(bucket.at).as_millis()).unwrap_or(u64::MAX);
        bucket.tokens = bucket.tokens.saturating_add(passed.saturating_mul(per_second.into()));
        bucket.tokens = bucket.tokens.min(u64::from(most) * 1000);
        bucket.at = bucket.at.max(now);
        let served = bucket.tokens >= 1000;
        if served {
            bucket.tokens -= 1000;
            bucket.calls.passed += 1;
        } else {
            bucket.calls.throttled += 1;
        }
        served
    }

    /// What became of the calls of `api` so far.
    #[must_use]
    pub fn calls(&self, api: Api) -> Calls {
        self.buckets.get(api as usize).map_or(Calls::default(), |bucket| bucket.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_serves_its_burst_and_then_its_rate_and_never_saves_up_more() {
        let mut account = Account::new(Moment::from_millis(0));
        let api = Api::AssignPrivateIpAddresses;
        let mut served =
            |from: u64, to: u64| (from..to).filter(|now| account.take(api, Moment::from_millis(*now))).count();
        assert_eq!(served(0, 1), 1);
        assert_eq!(served(1, 10_001), 99 + 50);
        assert_eq!(served(3_600_000, 3_600_100), 100);
    }

    #[test]
    fn actions_do_not_share_a_bucket() {
        let mut account = Account::new(Moment::from_millis(0));
        while account.take(Api::CreateNetworkInterface, Moment::from_millis(0)) {}
        assert!(Api::ALL.iter().skip(4).all(|api| account.take(*api, Moment::from_millis(0))));
        assert!(Api::ALL.iter().enumerate().all(|(index, api)| *api as usize == index));
    }
}
