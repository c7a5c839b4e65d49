//! A pod's hold on an address.

use std::net::IpAddr;

use eni_proto::{EniMark, Pod, PodAddresses, PodKey};

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
    /// The addresses.
    pub addresses: PodAddresses,
    /// The ENI that owns the addresses.
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
    pub address: IpAddr,
    /// From this moment on it may be given out again.
    pub until: Moment,
}
