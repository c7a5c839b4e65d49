//! `ipamd doctor`: holds the node and every lease against database, kernel and EC2, and says what is wrong, why it matters, how to mend
//! it.

mod mend;
mod node;

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, process::ExitCode, time::Duration};

use ipam_core::Lease;
use serde_json::json;

use crate::{
    inspect::{self, Sources, Wiring},
    settings::Settings,
    table::{self, Colour, paint, printable},
};

/// Exit code when nothing wrong was found, but a source could not be asked.
const NOT_ALL_CHECKED: u8 = 3;

/// How long after the first look the second comes: an ADD takes milliseconds, and the daemon mends within 200.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// Pods lose packets, or may.
    Error,
    /// Nothing is lost, but it is not as it should be.
    Warning,
    /// It could not be found out.
    NotChecked,
}

impl Severity {
    const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::NotChecked => "not checked",
        }
    }

    const fn colour(self) -> Colour {
        match self {
            Self::Error => Colour::Bad,
            Self::Warning | Self::NotChecked => Colour::Odd,
        }
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    severity: Severity,
    what: String,
    why: &'static str,
    mend: &'static str,
}

impl Finding {
    /// Whether it may be over in a moment by itself.
    const fn may_pass(&self) -> bool {
        matches!(self.severity, Severity::Error | Severity::Warning)
    }
}

/// Asks, judges and prints. With `repair` mends what is ours in between.
pub(crate) async fn show(settings: &Settings, with_ec2: bool, repair: bool, as_json: bool) -> ExitCode {
    let (mut sources, mut findings) = examine(settings, with_ec2).await;
    let mended = if repair { Some(mend::all(settings, &sources)) } else { None };
    if mended.as_ref().is_some_and(|mended| !mended.is_empty()) {
        (sources, findings) = examine(settings, with_ec2).await;
    }
    let report =
        Report { leases: sources.leases.as_ref().map_or(0, Vec::len), mended: mended.unwrap_or_default(), findings };
    table::show(&if as_json { report.object() } else { report.text(table::colours()) }, as_json);
    match report.findings.iter().map(|finding| finding.severity).min() {
        None => ExitCode::SUCCESS,
        Some(Severity::NotChecked) => ExitCode::from(NOT_ALL_CHECKED),
        Some(Severity::Error | Severity::Warning) => ExitCode::FAILURE,
    }
}

/// The report without EC2, as JSON.
pub(crate) async fn report(settings: &Settings) -> String {
    let (sources, findings) = examine(settings, false).await;
    Report { leases: sources.leases.as_ref().map_or(0, Vec::len), mended: Vec::new(), findings }.object()
}

/// Asks and judges. What is wrong has to be wrong a moment later too: an ADD or DEL may be at work, and the daemon mends.
async fn examine(settings: &Settings, with_ec2: bool) -> (Sources, Vec<Finding>) {
    let first = inspect::sources(settings, with_ec2).await;
    let findings = judge(&first);
    if !findings.iter().any(Finding::may_pass) {
        return (first, findings);
    }
    tokio::time::sleep(SECOND_LOOK).await;
    let second = inspect::local(settings, first.interfaces).await;
    let again = judge(&second);
    let lasting = again.into_iter().filter(|finding| !finding.may_pass() || findings.contains(finding));
    let lasting = lasting.collect();
    (second, lasting)
}

/// Compares the sources; worst first.
fn judge(sources: &Sources) -> Vec<Finding> {
    let mut findings = silent(sources);
    findings.extend(node::judge(sources));
    for lease in sources.leases.iter().flatten() {
        findings.extend(wiring(sources, lease));
        findings.extend(owner(sources, lease));
    }
    findings.extend(nobodys(sources));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// Sources that say nothing.
fn silent(sources: &Sources) -> Vec<Finding> {
    let words = [
        ("database", sources.leases.as_ref().err(), "is `ipamd serve` at work here, and is --database right?"),
        ("kernel", sources.pods.as_ref().err(), "run this on the node, as root"),
        (
            "leftovers",
            sources.leftovers.as_ref().err(),
            "run this on the node, as root, where iptables-legacy-save is to be had",
        ),
        ("kernel", sources.base.as_ref().err(), "run this on the node, as root"),
        ("kernel", sources.astray.as_ref().err(), "run this on the node, as root"),
        ("connections", sources.translated.as_ref().err(), "run this on the node, as root"),
        (
            "firewall",
            sources.walls.as_ref().err(),
            "run this on the node, as root, where iptables-legacy-save is to be had",
        ),
        ("EC2", sources.interfaces.as_ref().err(), "credentials and region are taken as by the daemon"),
    ];
    let silent = words.into_iter().filter_map(|(source, reason, mend)| Some((source, reason?, mend)));
    silent
        .map(|(source, reason, mend)| Finding {
            severity: Severity::NotChecked,
            what: format!("{source}: {reason}"),
            why: "what this source knows was held against nothing",
            mend,
        })
        .collect()
}

/// A pod's interface against its lease.
fn wiring(sources: &Sources, lease: &Lease) -> Vec<Finding> {
    let who = subject(lease);
    match sources.wiring.get(&lease.key) {
        None => Vec::new(),
        Some(Err(reason)) => vec![Finding {
            severity: Severity::NotChecked,
            what: format!("{who}: {reason}"),
            why: "how this pod is wired was not looked at",
            mend: "run this on the node, as root",
        }],
        Some(Ok(Wiring::NoSandbox)) => vec![Finding {
            severity: Severity::Warning,
            what: format!("{who}: its network namespace {} is gone", lease.netns),
            why: "nobody uses the address, and nobody else can have it",
            mend: "nothing, if this is seconds old: ipamd notices and releases the address; else look at its log",
        }],
        Some(Ok(Wiring::Differs(differences))) => differences
            .iter()
            .map(|difference| Finding {
                severity: Severity::Error,
                what: format!("{who}: {difference}"),
                why: "the pod's packets do not take the way that its address needs",
                mend: "delete the pod, so that it is wired anew; then find out who changed it",
            })
            .collect(),
    }
}

/// The lease against EC2.
fn owner(sources: &Sources, lease: &Lease) -> Option<Finding> {
    sources.interfaces.as_ref().ok()?;
    let strange = |address: &IpAddr| sources.owner(*address).is_none_or(|owner| owner.id != lease.eni);
    let address = lease.addresses.of_vpc().find(strange)?;
    let what = match sources.owner(address) {
        Some(owner) => format!("{}: EC2 says that {} owns the address", subject(lease), owner.id),
        None => format!("{}: EC2 lists the address on no interface of this node", subject(lease)),
    };
    Some(Finding {
        severity: Severity::Error,
        what,
        why: "the VPC delivers packets for the address elsewhere or nowhere, and drops the pod's",
        mend: "delete the pod; ipamd does not give the address out again until EC2 lists it. Somebody changed the interface by hand, or two agents manage it",
    })
}

/// What the kernel has of pods that nobody has a lease for.
fn nobodys(sources: &Sources) -> Vec<Finding> {
    let (Ok(leases), Ok(pods)) = (&sources.leases, &sources.pods) else { return Vec::new() };
    let leased: BTreeSet<IpAddr> = leases.iter().flat_map(|lease| lease.addresses.all()).collect();
    let nobodys = |what: String| Finding {
        severity: Severity::Warning,
        what: format!("{what}, but no lease is on record"),
        why: "a later pod with this address would share it or be shadowed by what is left",
        mend: "nothing, if a pod is being made or deleted just now; else restart ipamd, which adopts what lives and removes what does not",
    };
    let aliases = pods.links.iter().filter_map(|link| Some((&link.name, link.alias.as_ref()?)));
    let links = aliases
        .filter(|(_, alias)| !leases.iter().any(|lease| lease.key == alias.key))
        .map(|(name, alias)| nobodys(format!("link {name} of {} has {}", alias.key, alias.addresses)));
    let routes = pods.routes.keys().filter(|address| !leased.contains(address));
    let routes = routes.map(|address| nobodys(format!("the pods' table has a route to {address}")));
    let marks = pods.marks.keys().filter(|address| !leased.contains(address));
    let marks = marks.map(|address| nobodys(format!("the nf_tables map has an element for {address}")));
    links.chain(routes).chain(marks).collect()
}

fn subject(lease: &Lease) -> String {
    match lease.pod.name.as_str() {
        "" => format!("{} of {}", lease.addresses, lease.key),
        _ => format!("{} of pod {}", lease.addresses, table::name(&lease.pod.to_string())),
    }
}

/// What was found, and done.
struct Report {
    leases: usize,
    /// What `--repair` did, or could not do.
    mended: Vec<String>,
    findings: Vec<Finding>,
}

impl Report {
    fn text(&self, colours: bool) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        for what in &self.mended {
            let _ = writeln!(text, "{}", printable(what));
        }
        for finding in &self.findings {
            let _ = writeln!(
                text,
                "{}: {}\n  matters because {}\n  to mend it: {}",
                paint(finding.severity.word(), finding.severity.colour(), colours),
                printable(&finding.what),
                finding.why,
                finding.mend
            );
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let (errors, warnings, unknown) =
            (count(Severity::Error), count(Severity::Warning), count(Severity::NotChecked));
        let leases = self.leases;
        let _ = writeln!(text, "{leases} leases checked: {errors} errors, {warnings} warnings, {unknown} not checked");
        text
    }

    fn object(&self) -> String {
        let findings: Vec<_> = self
            .findings
            .iter()
            .map(|finding| {
                json!({
                    "severity": finding.severity.word(),
                    "what": finding.what,
                    "why": finding.why,
                    "mend": finding.mend,
                })
            })
            .collect();
        format!("{}\n", json!({ "leases": self.leases, "mended": self.mended, "findings": findings }))
    }
}

#[cfg(test)]
mod tests;
