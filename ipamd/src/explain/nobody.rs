//! What a name or an address is that no pod of this node has.

use std::net::{IpAddr, Ipv4Addr};

use eni_proto::is_for_egress;
use ipam_core::ports::{Cidr4, Interface};
use serde_json::Value;

use crate::{clock::rfc3339, table, tenure::Tenure};

/// What there is to tell of it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// How many leases there are on this node.
    pub(super) leases: usize,
    /// Who held it before, oldest first.
    pub(super) tenures: Vec<Tenure>,
    /// The node's ENIs.
    pub(super) interfaces: Vec<Interface>,
    /// The VPC's networks. Empty: unknown.
    pub(super) vpc: Vec<Cidr4>,
    /// The pool, as the running daemon shows it.
    pub(super) pool: Option<Value>,
    pub(super) external_snat: bool,
    pub(super) excluded: Vec<Cidr4>,
    pub(super) external_services: Vec<Cidr4>,
    /// Whether pods may have branch ENIs here.
    pub(super) with_branches: bool,
}

/// Says that nobody here has it, and what it is; one thing a line.
pub(super) fn text(subject: &str, known: &Known) -> String {
    let mut lines = vec![format!("{} has no lease on this node ({} have)", table::name(subject), known.leases)];
    match subject.parse::<IpAddr>() {
        Ok(address) => lines.extend(what_it_is(address, known)),
        Err(_) if !subject.contains('/') => lines.push("give NAMESPACE/NAME of a pod, or an address".to_owned()),
        Err(_) => {}
    }
    lines.extend(known.tenures.last().and_then(|tenure| {
        let (until, by) = tenure.ended.as_ref()?;
        let pod = match tenure.pod.as_str() {
            "" => format!("sandbox {}", tenure.container_id),
            name => format!("pod {}/{name}", tenure.namespace),
        };
        let (address, since, until) = (&tenure.address, rfc3339(tenure.since), rfc3339(*until));
        Some(format!(
            "{pod} held {address} of {} from {since} to {until} (ended by: {by}); `ipamd history` has all",
            tenure.eni
        ))
    }));
    if known.with_branches && subject.parse::<IpAddr>().is_err() {
        lines.push(
            "a pod with security groups of its own has a branch ENI and no lease: `kubectl describe pod` shows it in the annotation \
             vpc.amazonaws.com/pod-eni"
                .to_owned(),
        );
    }
    lines.join("\n  ")
}

fn what_it_is(address: IpAddr, known: &Known) -> Option<String> {
    if is_for_egress(address) {
        return Some("such an address leads a pod out of its node as the node, and means nothing elsewhere".to_owned());
    }
    if let Some(eni) = known.interfaces.iter().find(|eni| IpAddr::V4(eni.primary) == address) {
        return Some(format!("it is the node's own address on {}, and never a pod's", eni.id));
    }
    if let Some(eni) = known.interfaces.iter().find(|eni| eni.owns(address)) {
        return Some(format!("it is of {}, and {}", eni.id, state(address, known)));
    }
    match address {
        IpAddr::V4(address) => in_words(address, known),
        IpAddr::V6(_) => {
            Some("it is of none of this node's ENIs; pods reach it by their own ENI, untranslated".to_owned())
        }
    }
}

/// How an address of ours stands in the pool.
fn state(address: IpAddr, known: &Known) -> String {
    let Some(pool) = &known.pool else { return "no pod holds it; the daemon does not say more".to_owned() };
    let enis = pool.get("enis").and_then(Value::as_array).into_iter().flatten();
    let mut addresses = enis.filter_map(|eni| eni.get("addresses")?.as_array()).flatten();
    let text = |one: &Value, name| one.get(name).and_then(Value::as_str).map(str::to_owned);
    let found = addresses.find(|one| text(one, "address") == Some(address.to_string()));
    let Some(found) = found else { return "no pod holds it: it is free".to_owned() };
    match (text(found, "state").as_deref(), text(found, "until")) {
        (Some("cooling"), Some(until)) => {
            format!("rests until {until} after its last pod, so that nobody is met by another's connections")
        }
        (Some("free"), _) => "no pod holds it: it is free".to_owned(),
        (Some("in_flight"), _) => "it is free once its ENI is ready".to_owned(),
        _ => "it is not given out: it is about to be given back, or the kernel has it for a pod that nobody knows"
            .to_owned(),
    }
}

fn in_words(address: Ipv4Addr, known: &Known) -> Option<String> {
    let has = |networks: &[Cidr4]| networks.iter().find(|network| network.contains(address)).map(ToString::to_string);
    if let Some(network) = has(&known.external_services) {
        return Some(format!(
            "it is in {network} (AWS_EXTERNAL_SERVICE_CIDRS): pods reach it by the node's main routes"
        ));
    }
    if let Some(network) = has(&known.vpc) {
        return Some(format!(
            "it is in the VPC ({network}), on none of this node's ENIs: another node's, or something else's; pods reach it by their own \
             ENI with their own address"
        ));
    }
    if known.vpc.is_empty() {
        return None;
    }
    let vpc: Vec<String> = known.vpc.iter().map(ToString::to_string).collect();
    let way = match has(&known.excluded) {
        Some(network) => format!("by their own ENI with their own address, because {network} is excluded from SNAT"),
        None if known.external_snat => "by their own ENI with their own address (external SNAT)".to_owned(),
        None => "by the primary ENI, as the node".to_owned(),
    };
    Some(format!("it is outside the VPC ({}): pods reach it {way}", vpc.join(", ")))
}
