//! What the plugin says when it cannot do what was asked: the CNI specification's error object.

use std::{borrow::Cow, time::Duration};

use eni_datapath::{NetnsError, NftError, WireError};
pub(crate) use eni_proto::chain;
use eni_proto::{Pod, PodKey, numbers::TABLE_PODS};
use serde_json::json;

/// Codes of the CNI specification 1.1.0, and our own from 100 on, which are the number behind `IPAM-`.
pub(crate) mod code {
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    pub(crate) const UNSUPPORTED_FIELD: u32 = 2;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const UNDECODABLE: u32 = 6;
    pub(crate) const INVALID_CONFIG: u32 = 7;
    pub(crate) const INVALID_NETNS: u32 = 8;
    pub(crate) const TRY_AGAIN: u32 = 11;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    pub(crate) const PODS_IMPAIRED: u32 = 51;
    pub(crate) const WIRING: u32 = 102;
    pub(crate) const INTERFACE_IN_USE: u32 = 104;
    pub(crate) const DAEMON_TROUBLE: u32 = 105;
    pub(crate) const NOT_RELEASED: u32 = 107;
    pub(crate) const DIFFERENT: u32 = 108;
    pub(crate) const NO_VLAN: u32 = 111;
}

/// One error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    /// What happened, for whom.
    pub(crate) msg: String,
    /// What happens next and what the reader can do. May be empty.
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// The object as the runtime reads it.
    pub(crate) fn to_json(&self, cni_version: &str) -> String {
        let mut object = json!({ "cniVersion": cni_version, "code": self.code, "msg": self.msg });
        if !self.details.is_empty() {
            object["details"] = self.details.as_str().into();
        }
        object.to_string()
    }
}

/// No daemon answered in time.
pub(crate) fn daemon_away(socket: &str, reason: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN,
        format!("IPAM-101 ipamd does not answer on {socket}: {reason}"),
        "Nothing was changed. The runtime will try again; if this lasts, look whether the ipamd pod of this node runs.",
    )
}

/// A daemon took the call, and nothing came back.
pub(crate) fn daemon_silent(socket: &str, waited: Duration) -> CniError {
    CniError::new(
        code::TRY_AGAIN,
        format!("IPAM-101 ipamd took the call on {socket}, but gave no answer within {} s", waited.as_secs()),
        "The pod was not wired. The runtime will try again; if this lasts, the log of ipamd says what holds it up.",
    )
}

/// The daemon answered, but could not process the call.
pub(crate) fn daemon_trouble(reason: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN,
        format!("IPAM-105 ipamd could not process the call: {reason}"),
        "The pod was not wired. The runtime will try again; the log of ipamd says more.",
    )
}

/// The kernel side of a pod could not be made.
pub(crate) fn wiring(error: &WireError) -> CniError {
    let facts = chain(error);
    if let WireError::Netns(error) = error {
        return netns(error);
    }
    if let WireError::InterfaceExists { .. } = error {
        return CniError::new(
            code::INTERFACE_IN_USE,
            format!("IPAM-104 the interface name is in use in the sandbox: {facts}"),
            "Nothing was changed. Choose another CNI_IFNAME, or remove the interface that is there.",
        );
    }
    if let WireError::NoVlan = error {
        return CniError::new(
            code::NO_VLAN,
            format!("IPAM-111 the pod is to have a branch ENI, which this node cannot give it: {facts}"),
            "What was begun was undone. Load the module 8021q, or let such pods run on nodes whose kernel has VLANs.",
        );
    }
    CniError::new(
        code::WIRING,
        format!("IPAM-102 the pod's network could not be changed: {facts}"),
        format!("What was begun was undone. {}", to_do(error)),
    )
}

/// What the reader can do about a pod that could not be wired.
fn to_do(error: &WireError) -> Cow<'static, str> {
    match error {
        WireError::ForeignLink { link } => {
            format!("Rename or remove that link; `ip -details link show {link}` says what it is.").into()
        }
        WireError::AddressOfHost { address } => {
            let look = format!("see `ip address show to {address}`");
            format!("Take the address off the host's interface, and keep off what put it there; {look}.").into()
        }
        WireError::AddressInUse { address } => {
            let look = format!("see `ip route show table {TABLE_PODS} {address}`");
            format!("ipamd removes what leads to an address that is returned; {look}.").into()
        }
        WireError::NoIpv6 { .. } => {
            "Switch it on, see `sysctl net.ipv6.conf.default.disable_ipv6`, or let this node's pods do without.".into()
        }
        WireError::LinkTaken { .. } => {
            "The runtime will try again; if this lasts, look for what renames links, as udev does by `.link` files."
                .into()
        }
        WireError::Nft(NftError::NotPrepared { .. }) => {
            "ipamd makes the table at its start, and again when it is gone; `ipamd status` shows whether it runs."
                .into()
        }
        WireError::Nft(NftError::Unsupported) => {
            "Load the module nf_tables, or give the node a kernel that has it.".into()
        }
        WireError::NoTrunk { .. } => {
            "The runtime will try again; if this lasts, look at the node's trunk ENI and the VPC resource controller."
                .into()
        }
        WireError::Netns(_)
        | WireError::InterfaceExists { .. }
        | WireError::NoVlan
        | WireError::Refused { .. }
        | WireError::InPod(_)
        | WireError::Nft(_)
        | WireError::Sysctl(_)
        | WireError::Observe(_)
        | WireError::Socket(_) => "`ipamd status` shows whether this node is ready.".into(),
    }
}

/// The network-policy agent has not taken a pod that may do nothing without it.
pub(crate) fn no_policy(pod: &Pod, trouble: &str) -> CniError {
    CniError::new(
        code::TRY_AGAIN,
        format!(
            "IPAM-110 the network-policy agent has not taken pod {pod}, which may not start without in strict mode: {trouble}"
        ),
        "What was begun was undone. The runtime will try again; if this lasts, look at the network-policy agent of this node.",
    )
}

/// The kernel side of a pod could not be removed.
pub(crate) fn not_removed(error: &WireError) -> CniError {
    CniError::new(
        code::WIRING,
        format!("IPAM-102 the pod's network could not be removed: {}", chain(error)),
        "Its address stays held, because the kernel still leads to it. The runtime will try again.",
    )
}

/// The kernel could not be looked at.
pub(crate) fn unseen(error: &dyn std::error::Error) -> CniError {
    CniError::new(
        code::WIRING,
        format!("IPAM-102 the pods' network could not be looked at: {}", chain(error)),
        "Nothing was changed. The runtime will try again.",
    )
}

/// CHECK could not look at the pod's interface.
pub(crate) fn not_checked(error: &WireError) -> CniError {
    if let WireError::Netns(error) = error { netns(error) } else { unseen(error) }
}

/// CHECK found something that is not as ADD reported it.
pub(crate) fn different(key: &PodKey, differences: &[String]) -> CniError {
    CniError::new(
        code::DIFFERENT,
        format!("IPAM-108 {key} is not as ADD reported it: {}", differences.join("; ")),
        "Nothing was changed. ipamd mends the host's side by itself; a pod that lost its interface has to be made anew.",
    )
}

/// All pods of the node are cut off.
pub(crate) fn impaired(what: &str) -> CniError {
    CniError::new(
        code::PODS_IMPAIRED,
        format!("IPAM-109 the pods of this node are cut off: {what}"),
        "ipamd mends this when it runs: look whether the ipamd pod of this node does, and what its log says.",
    )
}

/// The sandbox's network namespace is not usable.
pub(crate) fn netns(error: &NetnsError) -> CniError {
    CniError::new(
        code::INVALID_NETNS,
        format!("IPAM-103 CNI_NETNS is not usable: {}", chain(error)),
        "Nothing was changed. The runtime has to name the network namespace of a sandbox that runs.",
    )
}
