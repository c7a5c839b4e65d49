//! `ipamd doctor`: holds every lease against database, kernel and EC2, and says what is wrong, why it matters, how to mend it.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr, process::ExitCode};

use ipam_core::Lease;
use serde_json::json;

use crate::{
    inspect::{self, Sources, Wiring},
    settings::Settings,
    table::{self, Colour, paint, printable},
};

/// Exit code when nothing wrong was found, but a source could not be asked.
const NOT_ALL_CHECKED: u8 = 3;

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

/// Asks, judges and prints.
pub(crate) async fn show(settings: &Settings, with_ec2: bool, as_json: bool) -> ExitCode {
    let sources = inspect::sources(settings, with_ec2).await;
    let findings = judge(&sources);
    let leases = sources.leases.as_ref().map_or(0, Vec::len);
    let text = if as_json { as_objects(&findings, leases) } else { as_text(&findings, leases, table::colours()) };
    table::show(&text, as_json);
    match findings.iter().map(|finding| finding.severity).min() {
        None => ExitCode::SUCCESS,
        Some(Severity::NotChecked) => ExitCode::from(NOT_ALL_CHECKED),
        Some(Severity::Error | Severity::Warning) => ExitCode::FAILURE,
    }
}

/// The report without EC2, as JSON.
pub(crate) async fn report(settings: &Settings) -> String {
    let sources = inspect::sources(settings, false).await;
    as_objects(&judge(&sources), sources.leases.as_ref().map_or(0, Vec::len))
}

/// Compares the sources; worst first.
fn judge(sources: &Sources) -> Vec<Finding> {
    let mut findings = silent(sources);
    findings.extend(node(sources));
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
        ("kernel", sources.impairment.as_ref().err(), "run this on the node, as root"),
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

/// What concerns all pods.
fn node(sources: &Sources) -> Vec<Finding> {
    let impairment = sources.impairment.iter().flatten().map(|what| Finding {
        severity: Severity::Error,
        what: what.clone(),
        why: "no pod of this node can be reached",
        mend: "restart ipamd, which prepares the node anew; then find out who removed it (networkd, another agent)",
    });
    let settings = sources.settings.iter().map(|setting| Finding {
        severity: Severity::Error,
        what: format!("kernel setting net/{} is {} instead of {}", setting.name, setting.found, setting.wanted),
        why: setting.why,
        mend: "set it with sysctl, and find out who changed it (a file in /etc/sysctl.d, another agent)",
    });
    let leftovers = sources.leftovers.iter().flatten().map(|what| Finding {
        severity: Severity::Warning,
        what: format!("left on this node: {what}"),
        why: "another CNI, or an older version of this one, put it there; while nobody needs it, it costs time or misleads packets",
        mend: "nothing, if ipamd is about to start: it removes what is left once it serves. Pods of another CNI: `ipamd migrate check`",
    });
    impairment.chain(settings).chain(leftovers).collect()
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

fn as_text(findings: &[Finding], leases: usize, colours: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{}: {}\n  matters because {}\n  to mend it: {}",
            paint(finding.severity.word(), finding.severity.colour(), colours),
            printable(&finding.what),
            finding.why,
            finding.mend
        );
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings, unknown) = (count(Severity::Error), count(Severity::Warning), count(Severity::NotChecked));
    let _ = writeln!(text, "{leases} leases checked: {errors} errors, {warnings} warnings, {unknown} not checked");
    text
}

fn as_objects(findings: &[Finding], leases: usize) -> String {
    let findings: Vec<_> = findings
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
    format!("{}\n", json!({ "leases": leases, "findings": findings }))
}

#[cfg(test)]
mod tests;
