//! Our own JSON documents: the same over HTTP (`/v2/NAME`), on the socket, and for `--output json`.

use std::{collections::BTreeMap, time::Instant};

use eni_proto::PodKey;
use ipam_core::{
    Lease,
    engine::{AddressState, EniStatus, Waiting},
    pool::Phase,
};
use serde_json::{Value, json};

use crate::{
    clock::rfc3339,
    journal::JOURNAL,
    metrics::{METRICS, open, word},
    view::View,
};

/// The documents that there are.
pub(crate) const NAMES: [&str; 4] = ["pool", "plan", "leases", "overview"];

/// The document of a name; nothing when there is none.
pub(crate) fn document(name: &str, view: &View) -> Option<Value> {
    match name {
        "pool" => Some(pool(view)),
        "plan" => Some(plan(view)),
        "leases" => Some(leases(view)),
        "overview" => Some(json!({
            "pool": pool(view),
            "plan": plan(view),
            "adds": adds(),
            "samples": samples(),
        })),
        _ => None,
    }
}

fn pool(view: &View) -> Value {
    let leases: BTreeMap<&PodKey, &Lease> = view.leases.iter().map(|lease| (&lease.key, lease)).collect();
    let status = &view.status;
    let subnets: Vec<_> = view
        .subnets
        .iter()
        .map(|subnet| {
            json!({
                "id": subnet.id.as_str(),
                "free_addresses": subnet.available_addresses,
                "full": subnet.full,
                "fragmented": subnet.fragmented,
            })
        })
        .collect();
    json!({
        "at": rfc3339(view.at),
        "version": env!("CARGO_PKG_VERSION"),
        "node": {
            "instance": view.node.instance.as_str(),
            "type": view.node.instance_type,
            "zone": view.node.zone,
            "subnet": view.node.subnet.as_str(),
            "vpc_networks": view.node.vpc_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(),
        },
        "ready": status.serves,
        "addresses": {
            "free": status.free,
            "leased": status.leased,
            "cooling": status.cooling,
            "in_flight": status.in_flight,
        },
        "pods_waiting": status.queued,
        "most_enis": view.most_enis(),
        "most_addresses": view.most_addresses(),
        "enis": status.enis.iter().map(|eni| interface(eni, view, &leases)).collect::<Vec<_>>(),
        "subnets": subnets,
        "waiting": waiting(&status.waiting),
        "last_error": status.last_error,
    })
}

fn interface(eni: &EniStatus, view: &View, leases: &BTreeMap<&PodKey, &Lease>) -> Value {
    let described = view.interfaces.iter().find(|interface| interface.id == eni.id);
    let addresses: Vec<_> = eni
        .addresses
        .iter()
        .map(|(address, state)| {
            let lease = match state {
                AddressState::Leased(key) => leases.get(key),
                AddressState::Free | AddressState::Cooling(_) | AddressState::Reserved => None,
            };
            let until = match state {
                AddressState::Cooling(until) => Some(rfc3339(*until)),
                AddressState::Free | AddressState::Leased(_) | AddressState::Reserved => None,
            };
            json!({
                "address": address.to_string(),
                "state": word(eni, state),
                "pod": lease.map(|lease| lease.pod.to_string()),
                "since": lease.map(|lease| rfc3339(lease.since)),
                "until": until,
            })
        })
        .collect();
    json!({
        "id": eni.id.as_str(),
        "card": eni.card,
        "device": eni.device_index,
        "phase": phase(eni.phase),
        "managed": eni.managed,
        "carries_pods": eni.carries_pods,
        "primary": eni.primary.to_string(),
        "subnet": described.map(|interface| interface.subnet.as_str()),
        "mac": described.map(|interface| interface.mac.to_string()),
        "prefixes": described.map(|interface| interface.prefixes.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "addresses": addresses,
    })
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unattached => "unattached",
        Phase::Attaching => "attaching",
        Phase::Preparing => "preparing",
        Phase::Ready => "ready",
        Phase::Leaving => "leaving",
    }
}

fn waiting(waiting: &[Waiting]) -> Vec<Value> {
    waiting.iter().map(|one| json!({ "kind": one.kind.as_str(), "text": one.text })).collect()
}

fn plan(view: &View) -> Value {
    let plan = &view.plan;
    json!({
        "at": rfc3339(view.at),
        "demand": plan.demand,
        "wanted": plan.wanted,
        "under_way": plan.under_way.iter().map(|(id, what)| json!({ "id": id, "what": what })).collect::<Vec<_>>(),
        "waiting": waiting(&plan.waiting),
        "gather_until": plan.gather_until.map(rfc3339),
        "surplus": plan.surplus,
        "next_look": plan.next_wake.map(rfc3339),
        "ec2": budget(),
    })
}

/// How this node's share of EC2's budget is used, by action.
fn budget() -> Vec<Value> {
    let uses = METRICS.limiter.get().map(|uses| uses()).unwrap_or_default();
    let calls = open(&METRICS.ec2).clone();
    let now = Instant::now();
    uses.iter()
        .map(|one| {
            let calls = calls.get(one.action).cloned().unwrap_or_default();
            let failed = calls.outcomes.iter().filter(|(outcome, _)| **outcome != "done").map(|(_, count)| count);
            json!({
                "action": one.action,
                "burst": one.burst,
                "per_second": one.per_second,
                "calls": one.calls,
                "failed": failed.sum::<u64>(),
                "in_last_minute": calls.in_last_minute(now),
                "waited_ms": u64::try_from(one.waited.as_millis()).unwrap_or(u64::MAX),
                "rests_ms": u64::try_from(one.rests_for.as_millis()).unwrap_or(u64::MAX),
            })
        })
        .collect()
}

fn leases(view: &View) -> Value {
    let leases: Vec<_> = view
        .leases
        .iter()
        .map(|lease| {
            json!({
                "address": lease.addresses.to_string(),
                "eni": lease.eni.as_str(),
                "namespace": lease.pod.namespace,
                "pod": lease.pod.name,
                "network": lease.key.network(),
                "container_id": lease.key.container_id(),
                "interface": lease.key.interface(),
                "netns": lease.netns,
                "since": rfc3339(lease.since),
            })
        })
        .collect();
    json!({ "at": rfc3339(view.at), "leases": leases })
}

/// The last ADDs, newest first; times in microseconds.
fn adds() -> Vec<Value> {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let of = |flight: crate::journal::Flight| {
        json!({
            "at": rfc3339(flight.at),
            "pod": flight.pod,
            "address": flight.given.as_ref().map(|(address, _)| address),
            "eni": flight.given.as_ref().map(|(_, eni)| eni),
            "outcome": flight.outcome,
            "queue_us": micros(flight.queue),
            "lease_us": micros(flight.lease),
            "wiring_us": flight.plugin.map(|(wiring, _)| micros(wiring)),
            "plugin_us": flight.plugin.map(|(_, plugin)| micros(plugin)),
        })
    };
    JOURNAL.flights().into_iter().rev().map(of).collect()
}

/// How the pool went: milliseconds since 1970, then free, leased, cooling, in flight, pods that wait.
fn samples() -> Vec<Value> {
    let of = |one: crate::journal::Sample| {
        json!([one.at.as_millis(), one.free, one.leased, one.cooling, one.in_flight, one.queued])
    };
    JOURNAL.samples().into_iter().map(of).collect()
}
