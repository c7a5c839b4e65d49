//! A VPC of network namespaces on the real kernel.
//!
//! A [`Lab`] holds one *fabric* (the VPC), any number of [`Node`]s and an internet host. The fabric has a veth for every
//! attached ENI and does to packets what a VPC does: it delivers an address to the ENI that owns it, drops and counts what
//! leaves an ENI with a source that this ENI does not own, and lets only addresses with a public mapping out to the internet. So a
//! routing mistake is a failed test, not an opinion.
//!
//! What is attached is told by the cloud: [`Lab::sync`] takes the ENIs as EC2 describes them, and a [`Follower`] asks any EC2
//! endpoint, whether a simulator or an emulator. Attaching an ENI makes its link appear in the node, as hot-plug does.
//!
//! Everything happens in namespaces without a name that end with the process; the machine's own network is never changed.
//! The kernel is told by `ip` and `nft`: this is a test tool, and its independence of the code under test is a virtue.

#![forbid(unsafe_code)]

mod daemon;
pub mod ec2;
mod entry;
mod error;
mod fabric;
mod follow;
mod forward;
mod internet;
mod machine;
mod namespace;
mod node;
mod pod;
mod vpc;
pub mod wait;
mod xml;

pub use daemon::Daemon;
pub use entry::enter_user_namespace_if_not_root;
pub use error::LabError;
pub use fabric::{Carried, Direction, Drops, NAT_GATEWAY, WrongSource};
pub use follow::{Follower, Nudge};
pub use forward::Ec2Gate;
pub use internet::{INTERNET_HOST, INTERNET_HOST_V6};
pub use machine::Machine;
pub use namespace::Namespace;
pub use node::{EC2_ADDRESS, IMDS_ADDRESS, Node};
pub use pod::{Ping, Pod};
pub use vpc::Lab;
pub use xml::Element;
