//! A pod's hold on an address from its begin to its end, and what can be asked of those that were.

use std::{net::IpAddr, time::SystemTime};

use ipam_core::Moment;

/// Why a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The runtime said so.
    Del,
    /// The runtime did not list it as valid.
    Gc,
    /// Its network namespace went without a DEL.
    NamespaceGone,
    /// The runtime does not know its sandbox, and nobody lives in it.
    SandboxUnknown,
    /// The node was started anew, and no sandbox survives that.
    Reboot,
}

impl Ended {
    /// Every way.
    pub(crate) const ALL: [Self; 5] = [Self::Del, Self::Gc, Self::NamespaceGone, Self::SandboxUnknown, Self::Reboot];

    /// The word in the database and in logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Del => "del",
            Self::Gc => "gc",
            Self::NamespaceGone => "namespace-gone",
            Self::SandboxUnknown => "sandbox-unknown",
            Self::Reboot => "reboot",
        }
    }
}

/// One pod's hold on an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tenure {
    pub(crate) address: String,
    pub(crate) eni: String,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) network: String,
    pub(crate) container_id: String,
    pub(crate) interface: String,
    pub(crate) since: Moment,
    /// When it ended, and why. Absent: it still runs.
    pub(crate) ended: Option<(Moment, String)>,
}

/// What is asked. Everything that is given must hold; nothing given: all that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Question {
    /// Who held this address?
    #[arg(long)]
    pub(crate) ip: Option<IpAddr>,
    /// Which addresses did this pod have? As NAMESPACE/NAME.
    #[arg(long, value_parser = pod)]
    pub(crate) pod: Option<(String, String)>,
    /// Only what held then: a minute as 2026-11-20T14:02Z, or a second as 2026-11-20T14:02:07Z.
    #[arg(long, value_parser = span)]
    pub(crate) at: Option<Span>,
}

/// A time from its first to its last millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: Moment,
    pub(crate) last: Moment,
}

fn pod(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("give NAMESPACE/NAME, as web/shop-7d9f".to_owned()),
    }
}

fn span(text: &str) -> Result<Span, String> {
    let date = text.strip_suffix('Z').ok_or("give a time in UTC, with a Z at its end")?;
    let minute = date.matches(':').count() == 1;
    let full = if minute { format!("{date}:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339(&full)
        .map_err(|error| format!("{error}; give 2026-11-20T14:02Z or 2026-11-20T14:02:07Z"))?;
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| "that is before 1970")?;
    let first = Moment::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
    let milliseconds = if minute { 59_999 } else { 999 };
    Ok(Span { first, last: first.after(std::time::Duration::from_millis(milliseconds)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_and_a_second_are_spans_and_everything_else_is_refused() {
        let millis = |text| span(text).map(|span| (span.first.as_millis(), span.last.as_millis()));
        assert_eq!(millis("2026-11-21T14:22Z"), Ok((1_795_270_920_000, 1_795_270_979_999)));
        assert_eq!(millis("2026-11-21T14:22:07Z"), Ok((1_795_270_927_000, 1_795_270_927_999)));
        for bad in [
            "",
            "Z",
            "yesterday",
            "2026-11-21T14:22",
            "2026-11-21T14:22+01:00",
            "1969-01-01T00:00Z",
            "2026-13-01T00:00Z",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pod_has_a_namespace_and_a_name() {
        assert_eq!(pod("web/shop"), Ok(("web".to_owned(), "shop".to_owned())));
        for bad in ["", "shop", "/shop", "web/", "a/b/c"] {
            assert!(pod(bad).is_err(), "{bad}");
        }
    }
}
