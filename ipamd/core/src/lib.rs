//! Decides without doing: which address a pod gets, how the pool should change, what a restart may believe.
//!
//! Values in, values out. Nothing here does I/O, reads a clock, an environment variable or a hash map's order; time is
//! an argument ([`Moment`]). The same input gives the same output, which is what makes the rest testable.

#![forbid(unsafe_code)]

pub mod ids;
pub mod moment;
pub mod ports;

pub use ids::{AttachmentId, EniId, InstanceId, MacAddress, SecurityGroupId, SubnetId, VpcId};
pub use moment::Moment;
