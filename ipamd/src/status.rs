//! How the pool stands, for the Status call.

use eni_proto::wire;
use ipam_core::engine::EngineStatus;

/// Whether the pool works. A full node is ready: it works, and telling the runtime otherwise would make Kubernetes move its pods away.
pub(crate) const fn is_ready(status: &EngineStatus) -> bool {
    status.free + status.in_flight + status.leased + status.cooling > 0
}

/// The answer to a Status call.
pub(crate) fn reply(status: &EngineStatus) -> wire::StatusReply {
    wire::StatusReply {
        ready: is_ready(status),
        waiting_for: status.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        free: status.free,
        leased: status.leased,
        cooling: status.cooling,
    }
}
