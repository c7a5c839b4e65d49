//! The gRPC messages and service, and the only conversions between them and the checked types.

generated!("eni_cni.ipam.v1");

use std::str::FromStr;

use crate::{EniMark, InvalidBranch, InvalidKey, InvalidNetwork, PodAddresses, numbers};

/// An address that may be absent, as the messages have it.
pub fn text(address: Option<impl ToString>) -> String {
    address.map_or_else(String::new, |address| address.to_string())
}

fn optional<T: FromStr>(text: &str) -> Result<Option<T>, ()> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(drop) }
}

impl From<&crate::PodKey> for PodKey {
    fn from(key: &crate::PodKey) -> Self {
        Self {
            network: key.network().to_owned(),
            container_id: key.container_id().to_owned(),
            interface: key.interface().to_owned(),
        }
    }
}

impl TryFrom<PodKey> for crate::PodKey {
    type Error = InvalidKey;

    fn try_from(key: PodKey) -> Result<Self, InvalidKey> {
        Self::new(&key.network, &key.container_id, &key.interface)
    }
}

impl From<Pod> for crate::Pod {
    fn from(pod: Pod) -> Self {
        Self { namespace: pod.namespace, name: pod.name, uid: pod.uid }
    }
}

impl From<crate::Pod> for Pod {
    fn from(pod: crate::Pod) -> Self {
        Self { namespace: pod.namespace, name: pod.name, uid: pod.uid }
    }
}

impl From<crate::PodNetwork> for PodNetwork {
    fn from(network: crate::PodNetwork) -> Self {
        Self {
            ipv4: text(network.addresses.v4()),
            ipv6: text(network.addresses.v6()),
            eni: network.eni,
            eni_mark: network.eni_mark.value(),
            mtu: network.mtu.into(),
            veth_prefix: network.veth_prefix.as_str().to_owned(),
        }
    }
}

impl TryFrom<PodNetwork> for crate::PodNetwork {
    type Error = InvalidNetwork;

    fn try_from(network: PodNetwork) -> Result<Self, InvalidNetwork> {
        let mtu = u16::try_from(network.mtu).ok();
        let ipv4 = optional(&network.ipv4).map_err(|()| InvalidNetwork::Ipv4(network.ipv4.clone()))?;
        let ipv6 = optional(&network.ipv6).map_err(|()| InvalidNetwork::Ipv6(network.ipv6.clone()))?;
        Ok(Self {
            addresses: PodAddresses::new(ipv4, ipv6).ok_or(InvalidNetwork::NoAddress)?,
            eni: network.eni,
            eni_mark: EniMark::new(network.eni_mark).ok_or(InvalidNetwork::Mark(network.eni_mark))?,
            mtu: mtu
                .filter(|mtu| (numbers::MIN_MTU..=numbers::DEFAULT_MTU).contains(mtu))
                .ok_or(InvalidNetwork::Mtu(network.mtu))?,
            veth_prefix: network.veth_prefix.parse().map_err(InvalidNetwork::Prefix)?,
        })
    }
}

impl From<crate::BranchEni> for BranchEni {
    fn from(branch: crate::BranchEni) -> Self {
        Self {
            vlan: branch.vlan().into(),
            mac: branch.mac().to_vec(),
            trunk: branch.trunk().to_vec(),
            router: branch.router().map_or_else(String::new, |router| router.to_string()),
            standard: branch.enforcing() == crate::Enforcing::Standard,
        }
    }
}

impl TryFrom<BranchEni> for crate::BranchEni {
    type Error = InvalidBranch;

    fn try_from(branch: BranchEni) -> Result<Self, InvalidBranch> {
        let router = match branch.router.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| InvalidBranch::Router(text.to_owned()))?),
        };
        let enforcing = if branch.standard { crate::Enforcing::Standard } else { crate::Enforcing::Strict };
        Self::new(branch.vlan, &branch.mac, &branch.trunk, router, enforcing)
    }
}

impl From<crate::Refusal> for Refusal {
    fn from(refusal: crate::Refusal) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message,
            advice: refusal.advice,
            try_again: refusal.try_again,
        }
    }
}

impl Report {
    /// End of the socket's name, behind that of the daemon's.
    pub const SOCKET_SUFFIX: &'static str = ".report";

    /// The report as one datagram.
    #[must_use]
    pub fn to_datagram(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(self)
    }

    /// Reads a datagram. Absent: it is none of ours.
    #[must_use]
    pub fn from_datagram(bytes: &[u8]) -> Option<Self> {
        prost::Message::decode(bytes).ok()
    }
}
