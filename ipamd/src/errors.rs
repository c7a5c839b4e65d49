//! Errors in words for people, and the one that every part may meet.

pub(crate) use eni_proto::chain;

use crate::table::printable;

/// Says on stderr why nothing was done.
#[allow(clippy::print_stderr, reason = "the program's last words go where people look")]
pub(crate) fn complain(text: &str) {
    let lines: Vec<String> = text.lines().map(printable).collect();
    eprintln!("ipamd: {}", lines.join("\n"));
}

/// The system refused something that every start needs.
#[derive(Debug, thiserror::Error)]
#[error("IPAM-311 the system refused {what}")]
pub(crate) struct SystemError {
    /// What was asked.
    pub(crate) what: &'static str,
    /// The system's reason.
    pub(crate) source: std::io::Error,
}
