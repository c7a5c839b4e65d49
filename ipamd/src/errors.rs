//! Errors in words for people, and the one that every part may meet.

use crate::table::printable;

/// An error and all its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

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
