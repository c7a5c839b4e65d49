//! What the plugin tells of its calls: into the log, the metrics and the journal.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use eni_proto::{Pod, PodKey, policy::Outcome, wire::Report};
use tokio::net::UnixDatagram;

use crate::{journal::JOURNAL, metrics::METRICS};

/// Largest report that is read, in bytes; the plugin's are smaller.
const LARGEST: usize = 16 * 1024;

/// Listens beside the daemon's socket for as long as the runtime lives. Without it pods are served all the same.
pub(crate) async fn follow(socket: PathBuf) {
    let mut path = socket.into_os_string();
    path.push(Report::SOCKET_SUFFIX);
    let path = PathBuf::from(path);
    // What lies there is of a former daemon: the lock on the database shows that it is dead.
    let _ = std::fs::remove_file(&path);
    let bound = UnixDatagram::bind(&path)
        .and_then(|socket| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map(|()| socket));
    let socket = match bound {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "reports of the plugin cannot be heard; its times are missing in metrics and log");
            return;
        }
    };
    let mut buffer = vec![0; LARGEST];
    while let Ok(length) = socket.recv(&mut buffer).await {
        match buffer.get(..length).and_then(Report::from_datagram) {
            Some(report) => hear(report),
            None => tracing::debug!(length, "something came that is no report of the plugin"),
        }
    }
}

fn hear(report: Report) {
    let verb = match report.verb.as_str() {
        "ADD" => "ADD",
        "DEL" => "DEL",
        "CHECK" => "CHECK",
        "GC" => "GC",
        _ => return,
    };
    let (wiring, total) =
        (Duration::from_micros(report.wiring_microseconds), Duration::from_micros(report.total_microseconds));
    let key: Option<PodKey> = report.key.and_then(|key| key.try_into().ok());
    let pod: Pod = report.pod.unwrap_or_default().into();
    let key_text = key.as_ref().map(ToString::to_string).unwrap_or_default();
    let took_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
    let policy = Outcome::read(&report.policy_outcome);
    if let Some(outcome) = policy {
        METRICS.policy_calls(verb).add(outcome.as_str());
        if outcome != Outcome::Done {
            tracing::warn!(verb, key = key_text, %pod, outcome = outcome.as_str(), error = report.policy_error, "the network-policy agent was called in vain");
        }
    }
    if report.error_code != 0 {
        METRICS.plugin_failures.add(verb);
        tracing::warn!(verb, key = key_text, %pod, code = report.error_code, error = report.error, took_ms, "the plugin failed");
        return;
    }
    tracing::debug!(verb, key = key_text, %pod, took_ms, wiring_us = report.wiring_microseconds, "the plugin is done");
    let seconds = match verb {
        "ADD" => &METRICS.add_seconds,
        "DEL" => &METRICS.del_seconds,
        _ => return,
    };
    seconds.add("wiring", wiring);
    seconds.add("plugin", total);
    if policy.is_some() {
        seconds.add("policy", Duration::from_micros(report.policy_microseconds));
    }
    if let Some(key) = key.filter(|_| verb == "ADD") {
        JOURNAL.reported(&key, wiring, total);
    }
}
