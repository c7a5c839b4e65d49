//! Pods with security groups of their own: the VPC resource controller gives each a branch ENI and says so in an annotation, which is
//! read when the pod's ADD comes. There is no lease: the annotation says the same each time, and the controller takes the ENI back.

mod sweep;

use std::net::{Ipv4Addr, Ipv6Addr};

use eni_proto::{BranchEni, Enforcing, Pod, PodAddresses, Refusal, RefusalCode, wire};
use ipam_core::{EniId, MacAddress};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    handle::{Handle, Stopped},
    kube::{KubeNode, api::ApiError},
    settings::{Settings, parse_cidr},
};

pub(crate) use sweep::sweep;

/// What a container asks for, by a limit, so that the pod gets a branch ENI; further words may follow.
const RESOURCE: &str = "vpc.amazonaws.com/pod-eni";
/// Where the controller says which.
const ANNOTATION: &str = "vpc.amazonaws.com/pod-eni";
/// Longer than any that the controller writes, in bytes.
const LONGEST: usize = 16 << 10;

/// A branch ENI as the annotation has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    pub(crate) eni: EniId,
    pub(crate) mac: MacAddress,
    pub(crate) addresses: PodAddresses,
    pub(crate) vlan: u16,
    /// The subnet's, for IPv4.
    pub(crate) router: Option<Ipv4Addr>,
}

/// Why a pod that is to have a branch ENI has none that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoBranch {
    /// The controller has not written the annotation.
    #[error("it has no annotation {ANNOTATION} yet")]
    NotYet,
    /// The annotation makes no sense.
    #[error("the annotation cannot be used: {0}")]
    Illegible(String),
    /// The pod could not be read.
    #[error("the API server did not show it")]
    Api(#[from] ApiError),
    /// We do not know the API server.
    #[error("the API server is not known: MY_NODE_NAME is not set")]
    NoApi,
    /// The runtime did not say which pod it is.
    #[error("the runtime did not say which pod it is")]
    Nameless,
    /// The node has no trunk.
    #[error("the node has no trunk ENI")]
    NoTrunk,
}

/// One entry of the annotation. Source: the VPC resource controller; `vlanID` is how some of its versions spell it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    eni_id: String,
    if_address: String,
    #[serde(default)]
    private_ip: String,
    #[serde(default)]
    ipv6_addr: String,
    #[serde(alias = "vlanID")]
    vlan_id: u64,
    #[serde(default)]
    subnet_cidr: String,
}

/// Which branch ENI the pod has. Nothing: it asks for none.
///
/// # Errors
/// [`NoBranch::NotYet`], [`NoBranch::Illegible`].
pub(crate) fn assigned(pod: &Value) -> Result<Option<Assigned>, NoBranch> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut limits = containers.filter_map(|container| container["resources"]["limits"].as_object());
    if !limits.any(|limits| limits.keys().any(|name| name.starts_with(RESOURCE))) {
        return Ok(None);
    }
    let text = pod["metadata"]["annotations"][ANNOTATION].as_str().ok_or(NoBranch::NotYet)?;
    read(text).map(Some).map_err(NoBranch::Illegible)
}

/// Reads the annotation: a list, of which the first entry counts.
fn read(text: &str) -> Result<Assigned, String> {
    if text.len() > LONGEST {
        return Err(format!("it has {} bytes, more than {LONGEST}", text.len()));
    }
    let entries: Vec<Entry> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let entry = entries.into_iter().next().ok_or("it lists no ENI")?;
    let vlan = u16::try_from(entry.vlan_id).ok().filter(|vlan| (1..=4094).contains(vlan));
    let v4 = optional::<Ipv4Addr>("privateIp", &entry.private_ip)?;
    let v6 = optional::<Ipv6Addr>("ipv6Addr", &entry.ipv6_addr)?;
    let subnet = Some(entry.subnet_cidr.as_str()).filter(|_| v4.is_some());
    let subnet = subnet.map(|text| parse_cidr(text).ok_or_else(|| format!("subnetCidr `{text}` is no IPv4 network")));
    let subnet = subnet.transpose()?;
    if let (Some(address), Some(subnet)) = (v4, subnet)
        && !subnet.contains(address)
    {
        return Err(format!("privateIp {address} is not in subnetCidr {subnet}"));
    }
    Ok(Assigned {
        eni: entry.eni_id.parse().map_err(|error| format!("eniId: {error}"))?,
        mac: entry.if_address.parse().map_err(|error| format!("ifAddress: {error}"))?,
        addresses: PodAddresses::new(v4, v6).ok_or("it has neither privateIp nor ipv6Addr")?,
        vlan: vlan.ok_or_else(|| format!("vlanId {} is outside 1..=4094", entry.vlan_id))?,
        // Source: Amazon VPC, subnet sizing: the second address of a subnet is its router's.
        router: subnet.map(|subnet| Ipv4Addr::from_bits(subnet.network.to_bits() | 1)),
    })
}

fn optional<T: std::str::FromStr>(name: &str, text: &str) -> Result<Option<T>, String> {
    match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("{name} `{text}` is no such address")),
    }
}

/// The answer to the ADD of a pod that has a branch ENI. Nothing: it asks for none, and is as any other.
///
/// # Errors
/// [`Stopped`]; inside, the refusal of a pod that is to have one and cannot.
pub(crate) async fn add(
    handle: &Handle,
    settings: &Settings,
    enforcing: Enforcing,
    pod: &Pod,
) -> Result<Result<Option<wire::AddReply>, Refusal>, Stopped> {
    match look(handle.kube.as_ref(), pod).await {
        Ok(None) => Ok(Ok(None)),
        Ok(Some(assigned)) => {
            let trunk = handle.trunk().await?.ok_or(NoBranch::NoTrunk);
            Ok(trunk
                .and_then(|trunk| reply(assigned, trunk, settings, enforcing))
                .map(Some)
                .map_err(|why| refusal(pod, &why)))
        }
        Err(why) => Ok(Err(refusal(pod, &why))),
    }
}

async fn look(kube: Option<&KubeNode>, pod: &Pod) -> Result<Option<Assigned>, NoBranch> {
    if pod.namespace.is_empty() || pod.name.is_empty() {
        return Err(NoBranch::Nameless);
    }
    assigned(&kube.ok_or(NoBranch::NoApi)?.pod(pod).await?)
}

fn reply(
    assigned: Assigned,
    trunk: MacAddress,
    settings: &Settings,
    enforcing: Enforcing,
) -> Result<wire::AddReply, NoBranch> {
    let Assigned { eni, mac, addresses, vlan, router } = assigned;
    let branch = BranchEni::new(vlan.into(), &mac.0, &trunk.0, router, enforcing);
    let branch = branch.map_err(|error| NoBranch::Illegible(error.to_string()))?;
    let network = eni_proto::PodNetwork {
        addresses,
        eni: eni.to_string(),
        eni_mark: eni_proto::EniMark::PRIMARY,
        mtu: settings.pod_mtu,
        veth_prefix: settings.veth_prefix.clone(),
    };
    let outcome = Some(wire::add_reply::Outcome::Network(network.into()));
    Ok(wire::AddReply { outcome, further: vec![], branch: Some(branch.into()) })
}

fn refusal(pod: &Pod, why: &NoBranch) -> Refusal {
    Refusal {
        code: RefusalCode::NoBranch,
        message: format!("pod {pod} gets no address: with ENABLE_POD_ENI its branch ENI has to be known, and {}", crate::errors::chain(why)),
        advice: "Nothing was given. Kubernetes will try again; if this lasts, look at the pod's events and at the VPC resource controller."
            .to_owned(),
        try_again: true,
    }
}

#[cfg(test)]
mod tests;
