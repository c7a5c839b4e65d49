//! The container runtime interface, as far as sandboxes go.

#[allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::missing_errors_doc,
    reason = "generated"
)]
mod generated {
    tonic::include_proto!("runtime.v1");
}

pub use generated::*;
