//! What the CNI plugin, the daemon and the kernel side agree on: keys, names, numbers and the gRPC messages.
//!
//! Everything here is a value that is right once it exists: text from outside becomes one of these types or an
//! error that says what is wrong with it. There is no I/O.

#![forbid(unsafe_code)]

mod addresses;
mod branch;
#[cfg(feature = "cri")]
pub mod cri;
mod key;
mod link;
mod network;
mod note;
pub mod numbers;
#[cfg(feature = "wire")]
pub mod policy;
mod refusal;
#[cfg(feature = "wire")]
pub mod wire;

pub use addresses::{PodAddresses, is_for_egress};
pub use branch::{BranchEni, Enforcing, InvalidBranch};
pub use key::{InvalidKey, Pod, PodKey};
pub use link::{InvalidAlias, LinkAlias, LinkName, VethPrefix, host_link_name};
pub use network::{EniMark, InvalidNetwork, PodNetwork};
pub use note::{InvalidNote, ReleaseNote};
pub use refusal::{Refusal, RefusalCode};
