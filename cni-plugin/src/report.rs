//! Tells the daemon what this call took and how it ended, when nobody waits any more. Nothing depends on it: it is one datagram that
//! is never waited for, and lost when no daemon listens.

use std::{
    os::unix::net::UnixDatagram,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use eni_proto::{policy::Outcome, wire::Report};

use crate::{
    error::CniError,
    request::{Attachment, Request, Task},
};

/// Longest text that is told, in bytes: a datagram has to fit into the socket's buffer.
const LONGEST: usize = 4096;

/// What the kernel took of this call; a process serves one.
static WIRING_MICROSECONDS: AtomicU64 = AtomicU64::new(0);

/// How the call to the network-policy agent ended, why, and what it took.
static POLICY: OnceLock<(Outcome, String, Duration)> = OnceLock::new();

/// Keeps how the one call to the network-policy agent ended.
pub(crate) fn policy(outcome: Outcome, trouble: &str, took: Duration) {
    // Set once: a process makes one such call.
    let _ = POLICY.set((outcome, bounded(trouble), took));
}

/// Does work in the kernel and counts its time.
pub(crate) fn wiring<T>(work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let outcome = work();
    WIRING_MICROSECONDS.fetch_add(micros(begun.elapsed()), Ordering::Relaxed);
    outcome
}

/// Sends the report.
pub(crate) fn send(request: &Request, error: Option<&CniError>, took: Duration) {
    let (verb, attachment): (_, Option<&Attachment>) = match &request.task {
        Task::Add(attachment) => ("ADD", Some(attachment)),
        Task::Del(attachment) => ("DEL", Some(attachment)),
        Task::Check(attachment, _) => ("CHECK", Some(attachment)),
        Task::Gc(_) => ("GC", None),
        // Polled every few seconds, and of no interest when it went well.
        Task::Status => return,
    };
    let policy = POLICY.get();
    let report = Report {
        verb: verb.to_owned(),
        key: attachment.map(|attachment| (&attachment.key).into()),
        pod: attachment.map(|attachment| attachment.pod.clone().into()),
        error_code: error.map_or(0, |error| error.code),
        error: error.map(|error| bounded(&error.msg)).unwrap_or_default(),
        total_microseconds: micros(took),
        wiring_microseconds: WIRING_MICROSECONDS.load(Ordering::Relaxed),
        policy_outcome: policy.map(|(outcome, ..)| outcome.as_str().to_owned()).unwrap_or_default(),
        policy_error: policy.map(|(_, trouble, _)| trouble.clone()).unwrap_or_default(),
        policy_microseconds: policy.map_or(0, |(.., took)| micros(*took)),
    };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    if socket.set_nonblocking(true).is_ok() {
        // Nobody listens, or is busy: then nobody hears of it.
        let _ = socket.send_to(&report.to_datagram(), format!("{}{}", request.config.socket, Report::SOCKET_SUFFIX));
    }
}

fn bounded(text: &str) -> String {
    let end = text.floor_char_boundary(LONGEST);
    text.get(..end).unwrap_or_default().to_owned()
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
