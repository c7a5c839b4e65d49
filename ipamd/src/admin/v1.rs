//! What the AWS CNI's introspection answers, in its shape, for scripts that read it.

use std::net::{IpAddr, Ipv4Addr};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use eni_proto::numbers::eni_table;
use ipam_core::{
    Lease, Placement, Policy,
    engine::{AddressState, EniStatus},
    ports::{Interface, InterfaceKind},
};
use serde_json::{Map, Value, json};

use super::Shared;
use crate::{clock::rfc3339, settings::Settings, view::View};

/// The paths that are answered.
pub(super) const PATHS: [&str; 4] =
    ["/v1/enis", "/v1/eni-configs", "/v1/networkutils-env-settings", "/v1/ipamd-env-settings"];

/// A time that was never, as Go writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) async fn show(State(shared): State<Shared>, request: Request) -> Response {
    let settings = &shared.settings;
    match request.uri().path() {
        "/v1/enis" => match shared.view().await {
            Ok(view) => Json(enis(&view)).into_response(),
            Err(why) => super::unavailable(&why),
        },
        "/v1/networkutils-env-settings" => Json(network_settings(settings)).into_response(),
        // They may have changed since the start; until it is complete they have not.
        path => {
            let policy = shared.view().await.map_or_else(|_| settings.policy.clone(), |view| view.policy);
            Json(if path == "/v1/eni-configs" { eni_config(&policy) } else { pool_settings(&policy) }).into_response()
        }
    }
}

/// The ENIs that carry pods, by network card.
fn enis(view: &View) -> Value {
    let mut cards = Map::new();
    for eni in view.status.enis.iter().filter(|eni| eni.managed) {
        let Some(interface) = view.interfaces.iter().find(|interface| interface.id == eni.id) else { continue };
        let card =
            cards.entry(eni.card.to_string()).or_insert_with(|| json!({ "TotalIPs": 0, "AssignedIPs": 0, "ENIs": {} }));
        let assigned = eni.addresses.iter().filter(|(_, state)| matches!(state, AddressState::Leased(_))).count();
        let add = |value: &Value, more: usize| json!(value.as_u64().unwrap_or(0) + u64::try_from(more).unwrap_or(0));
        card["TotalIPs"] = add(&card["TotalIPs"], eni.addresses.len());
        card["AssignedIPs"] = add(&card["AssignedIPs"], assigned);
        card["ENIs"][eni.id.as_str()] = interface_object(eni, interface, view);
    }
    cards.into()
}

fn interface_object(eni: &EniStatus, interface: &Interface, view: &View) -> Value {
    let mut networks = Map::new();
    for address in &interface.secondary {
        networks.insert(format!("{address}/32"), network(*address, "/////w==", false, eni, view));
    }
    for prefix in &interface.prefixes {
        networks.insert(prefix.to_string(), network(prefix.network, "////8A==", true, eni, view));
    }
    let mut networks6 = Map::new();
    for prefix in &interface.prefixes6 {
        let within = |address: &IpAddr| matches!(address, IpAddr::V6(address) if prefix.contains(*address));
        let cidr = (IpAddr::V6(prefix.network), "/////////////wAAAAAAAA==");
        networks6.insert(prefix.to_string(), object(cidr, true, addresses(within, eni, view)));
    }
    let device = eni.device_index.unwrap_or_default();
    json!({
        "ID": eni.id.as_str(),
        "IsPrimary": device == 0,
        "IsTrunk": interface.kind == InterfaceKind::Trunk,
        "IsEFA": interface.kind == InterfaceKind::Efa,
        "DeviceNumber": device,
        "AvailableIPv4Cidrs": networks,
        "IPv6Cidrs": networks6,
        "IsExcludedForPodIPs": !eni.carries_pods,
        "RouteTableID": eni_table(eni.card, device),
        "SubnetID": interface.subnet.as_str(),
    })
}

/// One address, or one prefix of 16: `mask` is the Go form of its mask.
fn network(first: Ipv4Addr, mask: &str, is_prefix: bool, eni: &EniStatus, view: &View) -> Value {
    let size = if is_prefix { 16 } else { 1 };
    let near = |address: Ipv4Addr| address.to_bits().wrapping_sub(first.to_bits()) < size;
    let within = |address: &IpAddr| matches!(address, IpAddr::V4(address) if near(*address));
    object((first.into(), mask), is_prefix, addresses(within, eni, view))
}

/// The addresses of an ENI that pods hold, of those that are `within` a network.
fn addresses(within: impl Fn(&IpAddr) -> bool, eni: &EniStatus, view: &View) -> Map<String, Value> {
    let mut addresses = Map::new();
    for (address, state) in eni.addresses.iter().filter(|(address, _)| within(address)) {
        let lease = match state {
            AddressState::Leased(key) => view.leases.iter().find(|lease| lease.key == *key),
            AddressState::Free | AddressState::Cooling(_) | AddressState::Reserved => None,
        };
        if let Some(lease) = lease {
            addresses.insert(address.to_string(), assignment(*address, lease));
        }
    }
    addresses
}

fn object((first, mask): (IpAddr, &str), is_prefix: bool, addresses: Map<String, Value>) -> Value {
    json!({
        "Cidr": { "IP": first.to_string(), "Mask": mask },
        "IPAddresses": addresses,
        "IsPrefix": is_prefix,
        "AddressFamily": if first.is_ipv4() { "4" } else { "6" },
    })
}

/// As the AWS CNI since 1.23, without container id and interface name.
fn assignment(address: IpAddr, lease: &Lease) -> Value {
    json!({
        "Address": address.to_string(),
        "IPAMKey": { "networkName": lease.key.network(), "containerID": "", "ifName": "" },
        "IPAMMetadata": {
            "k8sPodNamespace": lease.pod.namespace,
            "k8sPodName": lease.pod.name,
            "interfacesCount": 1,
        },
        "AssignedTime": rfc3339(lease.since),
        "UnassignedTime": NEVER,
    })
}

fn eni_config(policy: &Policy) -> Value {
    match &policy.placement {
        Placement::Custom(network) => json!(network.subnet.as_str()),
        Placement::Discover | Placement::NodeSubnet => json!("default"),
    }
}

fn texts(cidrs: &[ipam_core::ports::Cidr4]) -> Vec<String> {
    cidrs.iter().map(ToString::to_string).collect()
}

fn network_settings(settings: &Settings) -> Value {
    let ports = match settings.source_ports {
        eni_datapath::SourcePorts::Random => 2,
        eni_datapath::SourcePorts::Hashed => 1,
        eni_datapath::SourcePorts::Kept => 0,
    };
    json!({
        "AWS_VPC_K8S_CNI_CONNMARK": 0x80,
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": texts(&settings.exclude_snat),
        "AWS_EXTERNAL_SERVICE_CIDRS": texts(&settings.external_services),
        "AWS_VPC_K8S_CNI_EXTERNALSNAT": settings.external_snat,
        "AWS_VPC_ENI_MTU": settings.mtu,
        "AWS_VPC_K8S_CNI_VETHPREFIX": settings.veth_prefix.as_str(),
        "AWS_VPC_CNI_NODE_PORT_SUPPORT": settings.node_ports,
        "POD_MTU": settings.pod_mtu,
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT": ports,
    })
}

fn pool_settings(policy: &Policy) -> Value {
    json!({
        "WARM_IP_TARGET": policy.warm_addresses,
        "WARM_ENI_TARGET": policy.warm_enis,
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": matches!(policy.placement, Placement::Custom(_)),
        "AWS_MANAGE_ENIS_NON_SCHEDULABLE": true,
        "ENABLE_SUBNET_DISCOVERY": policy.placement == Placement::Discover,
    })
}
