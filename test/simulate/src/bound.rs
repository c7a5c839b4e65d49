//! What no address manager can beat: the fewest calls that a start needs, divided by what the account allows.

use std::time::Duration;

use crate::account::Api;

/// Time until `counts` calls have passed their buckets, when none is ever wasted.
#[must_use]
pub fn drain(counts: &[(Api, u64)]) -> Duration {
    let times = counts.iter().map(|(api, count)| {
        let (burst, per_second) = api.bucket();
        Duration::from_millis(count.saturating_sub(burst.into()) * 1000 / u64::from(per_second))
    });
    times.max().unwrap_or_default()
}

/// The bounds for nodes that start at once and each need `enis` ENIs' worth of addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Every node takes the way with the fewest calls: one description, one `AssignPrivateIpAddresses` on the primary
    /// ENI, and `CreateNetworkInterface` and `AttachNetworkInterface` for each further one.
    pub fewest_calls: Duration,
    /// Some nodes leave their primary ENI alone and make one more ENI instead, as many as empties all buckets at the same
    /// time. Buckets are separate, so this is quicker although it takes more calls.
    pub any_way: Duration,
}

/// Returns the bounds for `nodes` nodes that need the addresses of `enis` ENIs each, at least 1.
#[must_use]
pub fn bounds(nodes: u64, enis: u64) -> Bounds {
    let time = |by_new_eni: u64| {
        let new = nodes * (enis - 1) + by_new_eni;
        drain(&[
            (Api::DescribeNetworkInterfaces, nodes),
            (Api::AssignPrivateIpAddresses, nodes - by_new_eni),
            (Api::CreateNetworkInterface, new),
            (Api::AttachNetworkInterface, new),
        ])
    };
    Bounds { fewest_calls: time(0), any_way: (0..=nodes).map(time).min().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_nodes_wait_for_the_bucket_of_assign() {
        let bounds = bounds(10_000, 1);
        assert_eq!(bounds.fewest_calls, Duration::from_secs((10_000 - 100) / 5));
        // (10,000 - 150) / 10: half of the nodes assign, half attach.
        assert_eq!(bounds.any_way, Duration::from_secs(985));
    }

    #[test]
    fn a_small_cluster_needs_no_time() {
        assert_eq!(bounds(50, 1).fewest_calls, Duration::ZERO);
    }
}
