//! How the pool stands, for the Status call.

use eni_proto::wire;
use ipam_core::engine::EngineStatus;

/// The answer to a Status call.
pub(crate) fn reply(status: &EngineStatus) -> wire::StatusReply {
    wire::StatusReply {
        ready: status.serves,
        waiting_for: status.waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        free: status.free,
        leased: status.leased,
        cooling: status.cooling,
    }
}
