//! Decides without doing: which address a pod gets, how the pool should change, what a restart may believe.
//!
//! Values in, values out. Nothing here does I/O, reads a clock, an environment variable or a hash map's order; time is
//! an argument ([`Moment`]). The same input gives the same output, which is what makes the rest testable.

#![forbid(unsafe_code)]

// Tests inside share the small node of those outside, which name the crate.
#[cfg(test)]
extern crate self as ipam_core;

pub mod command;
pub mod engine;
pub mod forecast;
pub mod ids;
pub mod lease;
mod limits;
pub mod moment;
pub mod plan;
pub mod policy;
pub mod pool;
pub mod ports;
pub mod recover;
pub mod retry;
pub mod subnets;

pub use command::{Action, Command, Done, Event, IntentId, Ticket};
pub use ids::{AttachmentId, EniId, InstanceId, MacAddress, SecurityGroupId, SubnetId, VpcId};
pub use lease::{CoolDown, Lease};
pub use moment::Moment;
pub use policy::{Access, CustomNetwork, Families, Limits, Mode, Placement, Policy};
