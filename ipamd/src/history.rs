//! Who held which address when: what is asked of the history, and how it is shown.

use std::{net::IpAddr, path::Path, process::ExitCode, time::SystemTime};

use ipam_core::Moment;
use serde_json::json;

use crate::{
    clock::{self, rfc3339},
    complain,
    reconcile::chain,
    store::{self, StoreError},
    table::{self, lay_out},
};

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

/// Answers from the database at `path`, whether a daemon uses it or not.
pub(crate) async fn show(path: &Path, question: &Question, as_json: bool) -> ExitCode {
    match store::tenures(path, question).await {
        Ok(tenures) => {
            table::show(&if as_json { lines_of_json(&tenures) } else { as_table(&tenures) }, as_json);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{}{}", chain(&error), advice(&error)));
            ExitCode::FAILURE
        }
    }
}

/// All that is known, as JSON; in words why nothing is.
pub(crate) async fn recent(path: &Path) -> String {
    match store::tenures(path, &Question::default()).await {
        Ok(tenures) => lines_of_json(&tenures),
        Err(error) => format!("{}\n", chain(&error)),
    }
}

const fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::Open { .. } => ". Has `ipamd serve` ever run here? --database names another file.",
        StoreError::Damaged { .. } => ". A daemon of this version makes the history's table when it starts.",
        StoreError::Newer { .. } | StoreError::Write(_) | StoreError::Stopped => "",
    }
}

/// One object a line. `interface-id`, `pkt-srcaddr`, `start` and `end` have names and units of VPC flow logs: a record belongs to
/// the line with the same interface and address whose times overlap. `end` is null while the lease runs.
fn lines_of_json(tenures: &[Tenure]) -> String {
    tenures.iter().map(|tenure| format!("{}\n", object(tenure))).collect()
}

fn object(tenure: &Tenure) -> serde_json::Value {
    json!({
        "interface-id": tenure.eni,
        "pkt-srcaddr": tenure.address,
        "start": tenure.since.as_millis() / 1000,
        "end": tenure.ended.as_ref().map(|(at, _)| at.as_millis().div_ceil(1000)),
        "namespace": tenure.namespace,
        "pod": tenure.pod,
        "uid": tenure.uid,
        "network": tenure.network,
        "container-id": tenure.container_id,
        "interface": tenure.interface,
        "ended-by": tenure.ended.as_ref().map(|(_, why)| why),
    })
}

fn as_table(tenures: &[Tenure]) -> String {
    let heading = ["ADDRESS", "ENI", "POD", "SINCE", "UNTIL", "ENDED BY", "SANDBOX"];
    lay_out(heading, tenures.iter().map(row), table::columns())
}

fn row(tenure: &Tenure) -> [String; 7] {
    let (until, by) = match &tenure.ended {
        Some((at, why)) => (rfc3339(*at), why.clone()),
        None => ("now".to_owned(), "-".to_owned()),
    };
    let sandbox: String = tenure.container_id.chars().take(12).collect();
    [
        tenure.address.clone(),
        tenure.eni.clone(),
        format!("{}/{}", tenure.namespace, tenure.pod),
        clock::rfc3339(tenure.since),
        until,
        by,
        format!("{sandbox}/{}", tenure.interface),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenure(ended: Option<(Moment, String)>) -> Tenure {
        Tenure {
            address: "10.0.3.7".to_owned(),
            eni: "eni-0a1b".to_owned(),
            namespace: "web".to_owned(),
            pod: "shop-7d9f".to_owned(),
            uid: "u1".to_owned(),
            network: "pods".to_owned(),
            container_id: "0123456789abcdef".to_owned(),
            interface: "eth0".to_owned(),
            since: Moment::from_millis(1_795_270_927_001),
            ended,
        }
    }

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

    #[test]
    fn json_has_the_names_and_units_of_flow_logs_and_covers_the_whole_time() {
        let ended = Some((Moment::from_millis(1_795_270_930_001), "gc".to_owned()));
        let lines = lines_of_json(&[tenure(ended), tenure(None)]);
        let [first, second] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        assert_eq!(
            first,
            r#"{"interface-id":"eni-0a1b","pkt-srcaddr":"10.0.3.7","start":1795270927,"end":1795270931,"namespace":"web","pod":"shop-7d9f","uid":"u1","network":"pods","container-id":"0123456789abcdef","interface":"eth0","ended-by":"gc"}"#
        );
        assert!(second.contains(r#""end":null"#), "{second}");
    }

    #[test]
    fn the_table_is_for_people() {
        assert_eq!(
            as_table(&[tenure(None)]),
            "ADDRESS   ENI       POD            SINCE                 UNTIL  ENDED BY  SANDBOX\n\
             10.0.3.7  eni-0a1b  web/shop-7d9f  2026-11-21T14:22:07Z  now    -         0123456789ab/eth0\n"
        );
    }
}
