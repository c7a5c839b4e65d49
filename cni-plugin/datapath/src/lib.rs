//! The kernel side of eni-cni: plans links, addresses, routes, rules and nf_tables, and applies them over netlink.
//!
//! Three layers, and each knows only the one below: *plans* are pure ([`pod`], [`eni`], [`host`] turn what is wanted and what is
//! there into [`ops::Op`]s and an nf_tables transaction), [`apply`] carries them out and takes them back on failure, and a
//! small blocking netlink socket talks to the kernel. No `ip`, `nft` or `iptables` process is ever started.
//!
//! Everything works on the network namespace of the *calling thread*, and every call but [`watch::wait_for_link`] blocks: the
//! kernel does netlink work inside `sendmsg`, so an asynchronous caller gives these calls a thread of their own.

#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as eni_datapath;

pub mod apply;
mod attributes;
pub mod clean;
pub mod connections;
pub mod eni;
pub mod guard;
pub mod host;
pub mod incumbent;
mod net;
pub mod netns;
mod nft;
pub mod observe;
pub mod ops;
pub mod pod;
mod route;
mod socket;
mod sysctl;
pub mod watch;
pub mod way;

pub use clean::{clean_host, leftovers, pod_leftovers};
pub use connections::{ConnectionsError, forget_connections, translated};
pub use eni::{EniError, EniPlan, forget_eni, prepare_eni};
pub use guard::{Drift, Guard, Kind, Outcome, Repair, TOOK_SECONDS, Tally, Wrong, repair, verify};
pub use host::{HostError, HostPlan, SourcePorts, prepare_host};
pub use net::{Cidr, Family, InvalidNet, MacAddress};
pub use netns::{Netns, NetnsError};
pub use nft::{NftError, others::forward_drops};
pub use observe::{ObserveError, PodLink, PodState, impairment, labelled_pods, observe_pods};
pub use pod::{
    Difference, EndedLink, ExpectedEnd, ExpectedPod, PodWiring, WireError, Wired, add_branch_pod, add_pod,
    check_branch_pod, check_pod, del_branch_pod, del_pod, delete_ended, end_branch_pod, end_pod, find_pod,
    forget_address, forget_addresses, further_pods, is_branch_pod, is_replaced, prepare_branches, remove_ended,
    settled_branch_pods, sweep_branches,
};
pub use socket::{Refusal, lists_asked};
pub use sysctl::SysctlError;
pub use watch::{WatchError, wait_for_link};
pub use way::{Packet, links_by_mac, ways};
