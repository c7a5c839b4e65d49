//! All that the plugin needs to wire one interface of one pod.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{VethPrefix, numbers::ENI_MARK_MASK};

/// Value of the firewall mark that selects an ENI's route table: 1 + device index, or 0 for the primary ENI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EniMark(u32);

impl EniMark {
    /// The primary ENI, whose packets need no mark.
    pub const PRIMARY: Self = Self(0);

    /// Returns the mark with this value, or nothing when it does not fit into the mask.
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= ENI_MARK_MASK { Some(Self(value)) } else { None }
    }

    /// Returns the mark of the ENI at `device_index` of network card 0, which EC2 keeps below 100.
    #[must_use]
    pub const fn of_device(device_index: u8) -> Self {
        if device_index == 0 { Self::PRIMARY } else { Self((1 + device_index as u32) & ENI_MARK_MASK) }
    }

    /// The mark's value, at most 0x7f.
    #[must_use]
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Tells whether packets of this ENI need a mark at all.
    #[must_use]
    pub const fn is_primary(self) -> bool {
        self.0 == 0
    }
}

/// All that the plugin needs to wire one interface of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetwork {
    /// The pod's address; its prefix in the pod is /32.
    pub ipv4: Ipv4Addr,
    /// The pod's IPv6 address, of the same ENI; its prefix in the pod is /128.
    pub ipv6: Option<Ipv6Addr>,
    /// The ENI that owns the addresses.
    pub eni: String,
    /// The ENI's mark.
    pub eni_mark: EniMark,
    /// MTU of both veth ends, in bytes.
    pub mtu: u16,
    /// Prefix of the host interface's name.
    pub veth_prefix: VethPrefix,
}

/// A `PodNetwork` from the wire that cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNetwork {
    /// `ipv4` is no address.
    #[error("ipv4 `{0}` is not an IPv4 address")]
    Ipv4(String),
    /// `ipv6` is neither empty nor an address.
    #[error("ipv6 `{0}` is not an IPv6 address")]
    Ipv6(String),
    /// `eni_mark` has bits that are not ours.
    #[error("eni_mark {0:#x} does not fit into the mask 0x7f")]
    Mark(u32),
    /// `mtu` is out of range.
    #[error("mtu {0} is outside 576..=9001")]
    Mtu(u32),
    /// `veth_prefix` cannot begin a name.
    #[error("veth_prefix {0}")]
    Prefix(String),
}
