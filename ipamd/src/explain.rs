//! `ipamd explain`: the way of a pod's packets in words and as a small drawing, from what the sources say right now; and of an address
//! that no pod has, what it is.

mod nobody;
#[cfg(test)]
mod tests;
mod way;

use std::{net::IpAddr, process::ExitCode};

use ipam_core::Lease;

use crate::{ask, errors::complain, inspect, settings::Settings, store, table, tenure::Question};
use nobody::Known;
use way::Way;

/// Finds the leases of a pod or an address and explains each.
pub(crate) async fn show(settings: &Settings, subject: &str, as_json: bool) -> ExitCode {
    let sources = inspect::sources(settings, true).await;
    let leases = match &sources.leases {
        Ok(leases) => leases,
        Err(reason) => {
            complain(&format!(
                "the leases cannot be read: {reason}. Is `ipamd serve` at work here, and is --database right?"
            ));
            return ExitCode::FAILURE;
        }
    };
    let wanted: Vec<&Lease> = leases.iter().filter(|lease| is_meant(subject, lease)).collect();
    if wanted.is_empty() {
        complain(&nobody::text(subject, &known(settings, subject, leases.len()).await));
        return ExitCode::FAILURE;
    }
    let adds = adds(settings).await;
    for lease in wanted {
        let way = Way::of(lease, &sources, settings, &adds);
        table::show(&if as_json { format!("{}\n", way.object()) } else { way.text() }, as_json);
    }
    ExitCode::SUCCESS
}

/// A pod may be given without its namespace: there are few on a node.
fn is_meant(subject: &str, lease: &Lease) -> bool {
    match subject.parse::<IpAddr>() {
        Ok(address) => lease.addresses.has(address),
        Err(_) if subject.is_empty() => false,
        Err(_) => lease.pod.to_string() == subject || lease.pod.name == subject,
    }
}

/// The last ADDs, as the daemon remembers them, newest first; none when it does not answer.
async fn adds(settings: &Settings) -> Vec<serde_json::Value> {
    match tokio::time::timeout(inspect::PATIENCE, ask::document(&settings.socket, "overview")).await {
        Ok(Ok(overview)) => overview.get("adds").and_then(|adds| adds.as_array()).cloned().unwrap_or_default(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn known(settings: &Settings, subject: &str, leases: usize) -> Known {
    let ip = subject.parse().ok();
    let pod = subject.split_once('/').map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let tenures = match (ip, &pod) {
        (None, None) => Vec::new(),
        _ => store::tenures(&settings.database, &Question { ip, pod, at: None }).await.unwrap_or_default(),
    };
    let cloud = store::known(&settings.database).await.unwrap_or_default();
    let pool = tokio::time::timeout(inspect::PATIENCE, ask::document(&settings.socket, "pool")).await;
    Known {
        leases,
        tenures,
        interfaces: cloud.interfaces,
        vpc: cloud.node.map(|node| node.vpc_cidrs).unwrap_or_default(),
        pool: pool.ok().and_then(Result::ok),
        external_snat: settings.external_snat,
        excluded: settings.exclude_snat.clone(),
        external_services: settings.external_services.clone(),
        with_branches: settings.branches.is_some(),
    }
}
