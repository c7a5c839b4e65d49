//! The page of metrics: what was counted, and how the pool stands now.

use eni_datapath::{Kind as DriftKind, TOOK_SECONDS};
use eni_proto::{RefusalCode, policy::Outcome};
use ipam_core::{
    engine::{AddressState, EniStatus, WaitingFor},
    pool::Phase,
};

use super::{
    METRICS, ec2, open, process,
    text::{Kind, Page},
};
use crate::{tenure::Ended, view::View};

const PHASES: [&str; 5] = ["queue", "lease", "wiring", "policy", "plugin"];

/// Renders all metrics. `view` is absent while the daemon starts.
pub(crate) fn render(view: Option<&View>) -> String {
    let mut page = Page::default();
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.metric("awscni_build_info", Kind::Gauge, "Always 1; says which version runs.").count(&version, 1);
    page.metric("ipamd_serving", Kind::Gauge, "1 once the start is complete and pods can be served.")
        .count(&[], view.is_some().into());
    if let Some(served_after) = METRICS.served_after.get() {
        page.metric(
            "ipamd_start_duration_seconds",
            Kind::Gauge,
            "Time from the start of the process until it could serve.",
        )
        .sample(&[], served_after.as_secs_f64());
    }
    pods(&mut page);
    cloud(&mut page);
    drift(&mut page);
    if let Some(view) = view {
        pool(&mut page, view);
        interfaces(&mut page, view);
        subnets(&mut page, view);
    }
    page.metric("ipamd_config_reload_failures_total", Kind::Counter, "Changes of the settings file that were refused.")
        .count(&[], METRICS.bad_reloads.get());
    process::write(&mut page);
    page.into_text()
}

fn pods(page: &mut Page) {
    page.metric("awscni_add_ip_req_count", Kind::Counter, "ADDs that came.").count(&[], METRICS.adds.get());
    let ends = METRICS.ends.get(&Ended::ALL.map(Ended::as_str));
    page.metric("awscni_del_ip_req_count", Kind::Counter, "Leases that ended, by a DEL or without one.")
        .count(&[("reason", "PodDeleted")], ends.values().sum());
    let refusals = METRICS.refusals.get(&RefusalCode::ALL.map(RefusalCode::as_str));
    let no_address = [RefusalCode::NodeFull, RefusalCode::Late, RefusalCode::SubnetFull, RefusalCode::CloudRefuses];
    let none = no_address.iter().filter_map(|code| refusals.get(code.as_str())).sum();
    page.metric("awscni_no_available_ip_addresses", Kind::Counter, "ADDs refused because there was no address.")
        .count(&[], none);
    let mut metric = page.metric("ipamd_adds_total", Kind::Counter, "How ADDs ended.");
    for (result, count) in METRICS.add_results.get(&["given", "repeated", "refused", "unstored", "abandoned"]) {
        metric.count(&[("result", result)], count);
    }
    let mut metric = page.metric("ipamd_refusals_total", Kind::Counter, "Refused ADDs by code of TROUBLESHOOTING.md.");
    for (code, count) in refusals {
        metric.count(&[("code", code)], count);
    }
    let mut metric = page.metric("ipamd_leases_ended_total", Kind::Counter, "Leases that ended, by how.");
    for (why, count) in ends {
        metric.count(&[("why", why)], count);
    }
    let mut metric = page.metric("ipamd_plugin_failures_total", Kind::Counter, "Calls of the plugin that failed.");
    for (verb, count) in METRICS.plugin_failures.get(&["ADD", "DEL", "CHECK", "GC", "STATUS"]) {
        metric.count(&[("verb", verb)], count);
    }
    let mut metric = page.metric(
        "ipamd_policy_agent_calls_total",
        Kind::Counter,
        "Calls to the network-policy agent, by how they ended. GC: for pods that ended without a DEL.",
    );
    for verb in ["ADD", "DEL", "GC"] {
        for (outcome, count) in METRICS.policy_calls(verb).get(&Outcome::ALL.map(Outcome::as_str)) {
            metric.count(&[("verb", verb), ("outcome", outcome)], count);
        }
    }
    let verbs = [
        ("ipamd_add_duration_seconds", "Time of ADDs by phase.", &METRICS.add_seconds),
        ("ipamd_del_duration_seconds", "Time of DELs by phase.", &METRICS.del_seconds),
    ];
    for (name, help, histograms) in verbs {
        let mut metric = page.metric(name, Kind::Histogram, help);
        let times = histograms.get();
        for phase in PHASES {
            metric.times(&[("phase", phase)], &times.get(phase).cloned().unwrap_or_default());
        }
    }
}

fn cloud(page: &mut Page) {
    let calls = open(&METRICS.ec2).clone();
    let mut metric = page.metric("awscni_ec2api_req_count", Kind::Counter, "Calls to EC2.");
    for (action, calls) in &calls {
        metric.count(&[("fn", action)], calls.outcomes.values().sum());
    }
    let mut metric = page.metric("awscni_ec2api_error_count", Kind::Counter, "Calls to EC2 that did not end well.");
    for (action, calls) in &calls {
        let failed = calls.outcomes.iter().filter(|(outcome, _)| **outcome != "done").map(|(_, count)| count);
        metric.count(&[("fn", action)], failed.sum());
    }
    let mut metric = page.metric("ipamd_ec2_calls_total", Kind::Counter, "Calls to EC2 by how they ended.");
    for (action, calls) in &calls {
        for outcome in ec2::OUTCOMES {
            let count = calls.outcomes.get(outcome).copied().unwrap_or_default();
            metric.count(&[("action", action), ("outcome", outcome)], count);
        }
    }
    let mut metric = page.metric(
        "ipamd_ec2_call_duration_seconds",
        Kind::Histogram,
        "Time of calls to EC2, waiting for the limiter included.",
    );
    for (action, calls) in &calls {
        metric.times(&[("action", action)], &calls.times);
    }
    let Some(limiter) = METRICS.limiter.get() else { return };
    let uses = limiter();
    let mut metric = page.metric(
        "ipamd_ec2_limiter_wait_seconds",
        Kind::Summary,
        "Time that calls to EC2 waited for our own limiter.",
    );
    for one in &uses {
        metric.totals(&[("action", one.action)], one.waited.as_secs_f64(), one.calls);
    }
    let mut metric = page.metric(
        "ipamd_ec2_limiter_resting",
        Kind::Gauge,
        "1 while an action rests because EC2 said that there were too many calls.",
    );
    for one in &uses {
        metric.count(&[("action", one.action)], (!one.rests_for.is_zero()).into());
    }
}

fn drift(page: &mut Page) {
    let Some(drift) = METRICS.drift.get() else { return };
    let drift = drift();
    let tally = |kind: &DriftKind| drift.kinds.get(kind).copied().unwrap_or_default();
    let mut metric = page.metric(
        "ipamd_drift_total",
        Kind::Counter,
        "What somebody else changed in the node's network, by kind and what became of it.",
    );
    for kind in DriftKind::ALL {
        let tally = tally(&kind);
        let outcomes = [
            ("mended", tally.mended),
            ("refused", tally.refused),
            ("left_alone", tally.left_alone),
            ("taken", tally.taken),
        ];
        for (outcome, count) in outcomes {
            metric.count(&[("kind", kind.name()), ("outcome", outcome)], count);
        }
    }
    let mut metric = page.metric("ipamd_drift_resting", Kind::Gauge, "What is wrong now and left alone for a while.");
    for kind in DriftKind::ALL {
        metric.count(&[("kind", kind.name())], tally(&kind).resting);
    }
    let mut metric = page.metric(
        "ipamd_drift_mend_duration_seconds",
        Kind::Histogram,
        "Time from noticing a change to having mended it.",
    );
    for kind in DriftKind::ALL {
        let (labels, tally) = ([("kind", kind.name())], tally(&kind));
        for (bound, count) in TOOK_SECONDS.iter().zip(tally.within) {
            metric.bucket(&labels, &bound.to_string(), count);
        }
        metric.bucket(&labels, "+Inf", tally.mended);
        metric.totals(&labels, tally.took.as_secs_f64(), tally.mended);
    }
    page.metric(
        "ipamd_drift_looks_total",
        Kind::Counter,
        "How often the node's network was compared with what is wanted.",
    )
    .count(&[], drift.looks);
}

fn pool(page: &mut Page, view: &View) {
    let status = &view.status;
    let mut metric = page.metric("ipamd_addresses", Kind::Gauge, "Addresses of the pool by state.");
    let states = [
        ("free", status.free),
        ("leased", status.leased),
        ("cooling", status.cooling),
        ("in_flight", status.in_flight),
    ];
    for (state, count) in states {
        metric.count(&[("state", state)], count.into());
    }
    page.metric("ipamd_pods_waiting", Kind::Gauge, "ADDs that wait for an address.").count(&[], status.queued.into());
    let mut metric = page.metric("ipamd_waiting", Kind::Gauge, "What the planner waits for, by kind.");
    for kind in WaitingFor::ALL {
        let count = status.waiting.iter().filter(|waiting| waiting.kind == kind).count();
        metric.count(&[("reason", kind.as_str())], u64::try_from(count).unwrap_or(u64::MAX));
    }
    let managed = status.enis.iter().filter(|eni| eni.managed);
    let (enis, addresses) = managed.fold((0, 0), |(enis, all), eni| (enis + 1, all + eni.addresses.len()));
    page.metric("awscni_eni_allocated", Kind::Gauge, "ENIs that are used.").count(&[], enis);
    page.metric("awscni_total_ip_addresses", Kind::Gauge, "Addresses for pods on these ENIs.")
        .count(&[], u64::try_from(addresses).unwrap_or(u64::MAX));
    page.metric("awscni_assigned_ip_addresses", Kind::Gauge, "Addresses that pods have.")
        .count(&[], status.leased.into());
    let prefixes: usize = view.interfaces.iter().map(|eni| eni.prefixes.len()).sum();
    page.metric("awscni_total_ipv4_prefixes", Kind::Gauge, "Prefixes on the node's ENIs.")
        .count(&[], u64::try_from(prefixes).unwrap_or(u64::MAX));
    page.metric("awscni_eni_max", Kind::Gauge, "Most ENIs that can be used.").count(&[], view.most_enis());
    page.metric("awscni_ip_max", Kind::Gauge, "Most addresses for pods that these can have.")
        .count(&[], view.most_addresses());
}

fn interfaces(page: &mut Page, view: &View) {
    let is_leased = |state: &AddressState| matches!(state, AddressState::Leased(_));
    let mut metric = page.metric("awscni_assigned_ip_per_eni", Kind::Gauge, "Addresses of an ENI that pods have.");
    for eni in &view.status.enis {
        let count = eni.addresses.iter().filter(|(_, state)| is_leased(state)).count();
        metric.count(&[("eni", eni.id.as_str())], u64::try_from(count).unwrap_or(u64::MAX));
    }
    let mut metric = page.metric("ipamd_eni_addresses", Kind::Gauge, "Addresses of attached ENIs by place and state.");
    for eni in view.status.enis.iter().filter(|eni| eni.device_index.is_some()) {
        let (card, device) = (eni.card.to_string(), eni.device_index.unwrap_or_default().to_string());
        for state in ["free", "leased", "cooling", "reserved", "in_flight"] {
            let count = eni.addresses.iter().filter(|(_, address)| word(eni, address) == state).count();
            let labels = [("card", card.as_str()), ("device", device.as_str()), ("state", state)];
            metric.count(&labels, u64::try_from(count).unwrap_or(u64::MAX));
        }
    }
}

/// The state of an address in one word, as metrics, page and JSON have it.
pub(crate) const fn word(eni: &EniStatus, state: &AddressState) -> &'static str {
    match state {
        AddressState::Leased(_) => "leased",
        AddressState::Cooling(_) => "cooling",
        AddressState::Free if !eni.carries_pods || matches!(eni.phase, Phase::Leaving) => "reserved",
        AddressState::Free if !matches!(eni.phase, Phase::Ready) => "in_flight",
        AddressState::Free => "free",
        AddressState::Reserved => "reserved",
    }
}

fn subnets(page: &mut Page, view: &View) {
    let mut metric = page.metric(
        "ipamd_subnet_free_addresses",
        Kind::Gauge,
        "Free addresses of the zone's subnets when EC2 described them last.",
    );
    for subnet in &view.subnets {
        metric.count(&[("subnet", subnet.id.as_str())], subnet.available_addresses.into());
    }
    let mut metric =
        page.metric("ipamd_subnet_full", Kind::Gauge, "1 while a subnet rests because it had no address left.");
    for subnet in &view.subnets {
        metric.count(&[("subnet", subnet.id.as_str())], subnet.full.into());
    }
}
