//! What concerns the node: daemon, database, what the kernel was prepared with, and what others have put in the way.

use eni_datapath::{Kind, Wrong};

use super::{Finding, Severity};
use crate::inspect::{Astray, Daemon, Sources, Wiring};

const FIRST_MEND: &str = "`ipamd doctor --repair`, or a running ipamd within a second; if it comes back, its log (`drift`) says how often, and \
                          networkd, udev or another agent does it (TROUBLESHOOTING.md, \"Somebody changes the node's network\")";
const LINK_MEND: &str = "is it still attached, by EC2? If it is, something gave its link another address (udev's MACAddressPolicy, networkd): `ip link`, \
                         and give it back with `ip link set LINK address`. If it is not, delete its pods";
/// How a leftover of our own is told.
const OF_OURS: &str = "an older version made";
const TAKEN_MEND: &str = "it is not ours to remove: find out who made it (another CNI, a VPN, ec2-net-utils), and give it another priority or table";

pub(super) fn judge(sources: &Sources) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(daemon(sources));
    findings.extend(sources.file.iter().map(|what| Finding {
        severity: Severity::Error,
        what: what.clone(),
        why: "a lease is stored before its pod hears of it, so no pod can start, and none can give its address back",
        mend: "give it a writable local disk with space; a damaged file is set aside when ipamd starts, and leases are read back from the kernel (IPAM-304, IPAM-305)",
    }));
    findings.extend(base(sources));
    findings.extend(astray(sources));
    findings.extend(sources.walls.iter().flatten().map(|chain| Finding {
        severity: Severity::Warning,
        what: format!("the chain {chain} drops all packets that none of its rules accepts"),
        why: "every packet of a pod is forwarded: unless a rule there accepts it, it is lost",
        mend: "set the policy back (`iptables -P FORWARD ACCEPT`, or iptables-legacy), or accept what comes from and goes to pods' interfaces; docker, ufw and firewalld set such a policy",
    }));
    findings.extend(translated(sources));
    // While ours is not in place, a rule of it may look as if it belonged to nothing.
    let is_known = ours_is_right(sources);
    let leftovers = sources.leftovers.iter().flatten().filter(|what| is_known || !what.ends_with(OF_OURS));
    findings.extend(leftovers.map(|what| Finding {
        severity: Severity::Warning,
        what: format!("left on this node: {what}"),
        why: "another CNI, or an older version of this one, put it there; while nobody needs it, it costs time or misleads packets",
        mend: "nothing, if ipamd is about to start: it removes what is left once it serves. Pods of another CNI: `ipamd migrate check`",
    }));
    findings
}

fn daemon(sources: &Sources) -> Option<Finding> {
    let (what, mend) = match &sources.daemon {
        Daemon::Serves(_) => return None,
        Daemon::Starts(why) => {
            (why, "the code in it has a section in TROUBLESHOOTING.md; ipamd goes on by itself once that is mended")
        }
        Daemon::Away(why) => (
            why,
            "start ipamd (`kubectl -n kube-system get pods -l app.kubernetes.io/name=eni-cni -o wide`); the end of its former log says why it is away. --socket names another socket",
        ),
    };
    Some(Finding {
        severity: Severity::Error,
        what: what.clone(),
        why: "pods that run go on, but none can start, and what somebody breaks on this node is not mended",
        mend,
    })
}

/// What is not as it was prepared; of pods only what their leases do not tell already.
fn base(sources: &Sources) -> Vec<Finding> {
    let told = |wrong: &Wrong| match (&wrong.pod, wrong.kind) {
        (Some(pod), Kind::Link | Kind::Route | Kind::Element) => differs(sources, pod),
        (None, Kind::Element) => sources.leases.is_ok(),
        _ => false,
    };
    let finding = |wrong: &Wrong| Finding {
        severity: Severity::Error,
        what: if wrong.taken || !is_remedy(&wrong.what) {
            wrong.what.clone()
        } else {
            format!("not as it was prepared; it needs: {}", wrong.what)
        },
        why: if wrong.taken {
            "it is in the place of ours: which of the two counts depends on who came first"
        } else {
            why(wrong.kind)
        },
        mend: match wrong.taken {
            true => TAKEN_MEND,
            false if wrong.what.starts_with("no link ") => LINK_MEND,
            false => FIRST_MEND,
        },
    };
    sources.base.iter().flatten().filter(|wrong| !told(wrong)).map(finding).collect()
}

fn is_remedy(what: &str) -> bool {
    ["add ", "remove ", "set ", "give ", "label "].iter().any(|word| what.starts_with(word))
}

const fn why(kind: Kind) -> &'static str {
    match kind {
        Kind::Link => "a link that is away, down, renamed, or of another MTU or hardware address loses packets",
        Kind::Address => "without it the kernel drops what comes in by this interface, and nobody answers for it",
        Kind::Neighbour => "the pod's IPv6 packets wait for an answer that nobody gives",
        Kind::Route => "packets take another way, or none",
        Kind::Rule => "packets are looked up in the wrong table, and leave by the wrong ENI or not at all",
        Kind::Setting => "the kernel drops packets, answers for others' addresses, or lets a pod send with them",
        Kind::Table => "pods' packets are not marked for their ENI, or not translated, and the VPC drops them",
        Kind::Element => "the pod's packets do not find their ENI, and are not let through",
    }
}

fn differs(sources: &Sources, pod: &eni_proto::PodKey) -> bool {
    matches!(sources.wiring.get(pod), Some(Ok(Wiring::Differs(differences))) if !differences.is_empty())
}

/// Where nothing of ours is wrong, somebody else's is in the way. One line for all packets of the same fate.
fn astray(sources: &Sources) -> Vec<Finding> {
    let is_told = !ours_is_right(sources);
    let lost = sources.astray.iter().flatten().filter(|way| !is_told && !differs(sources, &way.pod));
    let mut fates: Vec<(&Astray, usize)> = Vec::new();
    for way in lost {
        match fates.iter_mut().find(|(first, _)| (first.outbound, &first.found) == (way.outbound, &way.found)) {
            Some((_, more)) => *more += 1,
            None => fates.push((way, 0)),
        }
    }
    fates
        .into_iter()
        .map(|(way, more)| {
            let direction = if way.outbound { "from" } else { "for" };
            let others = if more == 0 { String::new() } else { format!(" (and of {more} more)") };
            Finding {
                severity: Severity::Error,
                what: format!("a packet {direction} {}{others} {}", way.address, way.fate()),
                why: "all of ours is in place, so a rule or route of somebody else comes before it; the pod is cut off, or sends by the wrong ENI",
                mend: "`ip rule`: what stands before 512 (before 1536 for what a pod sends) and is not ours? Give it a lower priority; `ip route get` with `iif` and `mark` tells the kernel's choice",
            }
        })
        .collect()
}

/// Whether the node's base and its ENIs are as they were prepared.
fn ours_is_right(sources: &Sources) -> bool {
    !sources.base.iter().flatten().any(|wrong| wrong.pod.is_none() && !wrong.taken)
}

fn translated(sources: &Sources) -> Option<Finding> {
    let found = sources.translated.as_ref().ok()?;
    let (from, to) = found.first()?;
    let more = if found.len() > 1 { format!(", and {} more", found.len() - 1) } else { String::new() };
    Some(Finding {
        severity: Severity::Warning,
        what: format!("somebody translates pods' connections within the VPC: {from} to {to}{more}"),
        why: "the other side sees the node instead of the pod: security groups, network policies and logs are wrong, and by a secondary ENI the VPC drops such packets",
        mend: "find the rule (`iptables-save -t nat`, `nft list ruleset`: MASQUERADE or SNAT beside those of eni_cni and kube-proxy) and let it leave pods' addresses out",
    })
}
