//! All that the plugin needs to wire one interface of one pod.

use crate::{
    PodAddresses, VethPrefix,
    numbers::{ENI_MARK_MASK, ENIS_PER_FURTHER_CARD},
};

/// Value of the mark of card 1, device index 0.
const FIRST_OF_FURTHER_CARDS: u8 = 32;

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

    /// Returns the mark of the ENI at `device_index` of network card `card`; nothing where the mask has no room for it.
    ///
    /// Card 0 has the values below 32, each further card three: for its device indexes 0, 1 and 2.
    #[must_use]
    pub const fn of_slot(card: u8, device_index: u8) -> Option<Self> {
        match (card, device_index) {
            (0, 0..31) => Some(Self::of_device(device_index)),
            (1..32, 0..ENIS_PER_FURTHER_CARD) => {
                let before = FIRST_OF_FURTHER_CARDS + ENIS_PER_FURTHER_CARD * (card - 1);
                Some(Self((before + device_index) as u32))
            }
            _ => None,
        }
    }

    /// Returns the network card and the device index that the mark is of.
    #[must_use]
    pub const fn slot(self) -> (u8, u8) {
        let [value, ..] = self.0.to_le_bytes();
        match value.checked_sub(FIRST_OF_FURTHER_CARDS) {
            None => (0, value.saturating_sub(1)),
            Some(further) => (1 + further / ENIS_PER_FURTHER_CARD, further % ENIS_PER_FURTHER_CARD),
        }
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
    /// The pod's addresses; in the pod each is alone in its network, /32 or /128.
    pub addresses: PodAddresses,
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
    /// Neither `ipv4` nor `ipv6` is there.
    #[error("there is neither an IPv4 nor an IPv6 address")]
    NoAddress,
    /// `ipv4` is neither empty nor an address.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_slot_with_a_mark_has_one_of_its_own() {
        let slots = (0..=u8::MAX).flat_map(|card| (0..=u8::MAX).map(move |index| (card, index)));
        let marks: Vec<_> = slots.filter_map(|(card, index)| EniMark::of_slot(card, index)).collect();
        let different: BTreeSet<_> = marks.iter().map(|mark| mark.value()).collect();
        assert_eq!(different.len(), marks.len());
        assert!(different.iter().all(|value| *value <= ENI_MARK_MASK));
        assert_eq!(marks.len(), 31 + 31 * usize::from(ENIS_PER_FURTHER_CARD));
        for (card, index) in [(0, 0), (0, 1), (0, 30), (1, 0), (1, 2), (17, 1), (31, 2)] {
            assert_eq!(EniMark::of_slot(card, index).map(EniMark::slot), Some((card, index)));
        }
        assert_eq!(EniMark::of_slot(0, 2), Some(EniMark::of_device(2)));
    }
}
