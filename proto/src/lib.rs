//! What the CNI plugin, the daemon and the kernel side agree on: keys, names, numbers and the gRPC messages.
//!
//! Everything here is a value that is right once it exists: text from outside becomes one of these types or an
//! error that says what is wrong with it. There is no I/O but the questions to the network-policy agent, behind a feature.

#![forbid(unsafe_code)]

/// What the build made of a `.proto` file's package, as part of the module that says this.
#[cfg(any(feature = "cri", feature = "wire"))]
macro_rules! generated {
    ($package:tt) => {
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
            tonic::include_proto!($package);
        }

        pub use generated::*;
    };
}

mod addresses;
mod branch;
mod chain;
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
pub use chain::chain;
pub use key::{InvalidKey, Pod, PodKey};
pub use link::{InvalidAlias, LinkAlias, LinkName, VethPrefix, host_link_name};
pub use network::{EniMark, InvalidNetwork, PodNetwork};
pub use note::{InvalidNote, ReleaseNote};
pub use refusal::{Refusal, RefusalCode};
