//! A pod's hold on an address.

use std::net::Ipv4Addr;

use eni_proto::{EniMark, Pod, PodKey};

use crate::{EniId, Moment};

/// An address that belongs to one attachment of one pod until it is released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub key: PodKey,
    /// Who the pod is, for people.
    pub pod: Pod,
    /// Path of the sandbox's network namespace, as the runtime gave it.
    pub netns: String,
    /// The address.
    pub address: Ipv4Addr,
    /// The ENI that owns the address.
    pub eni: EniId,
    /// That ENI's mark.
    pub eni_mark: EniMark,
    /// When it was given.
    pub since: Moment,
}

/// A released address that may not be reused yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoolDown {
    /// The address.
    pub address: Ipv4Addr,
    /// From this moment on it may be given out again.
    pub until: Moment,
}
