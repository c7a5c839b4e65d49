//! Takes away what pods on branch ENIs left that ended without a DEL, as when the node lost its runtime for a while.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::{errors::chain, host::HostNet};

/// How often is looked. The kernel side of such a pod does no harm; only the next pod with its VLAN cares, and that one clears it away.
const PERIOD: Duration = Duration::from_secs(60);

/// Looks at the start and now and then, for ever.
pub(crate) async fn sweep(host: HostNet) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        period.tick().await;
        match host.sweep_branches().await {
            Ok(swept) => swept.iter().for_each(|key| {
                tracing::warn!(%key, "a pod on a branch ENI went without a DEL; what it left was removed");
            }),
            Err(error) => tracing::warn!(error = %chain(&error), "what pods on branch ENIs left could not be removed"),
        }
    }
}
