//! The table for people.

use std::fmt::Write;

use eni_datapath::Family;

use crate::{
    Column, Outcome,
    flow::{Flow, Kind},
    world::Stack,
};

const HEAD: &str = "# Flows

Each row is real traffic in both directions on the real kernel, in the lab's VPC, which delivers an address only to the ENI that owns
it and drops what leaves an ENI with a source that this ENI does not own. *Way* tells the ENIs that carried the packets: `eth0` is the
primary ENI of the node under test, `-` means that they stayed on the node. *Answer* tells who answered and as whom it saw the asker.
Pods `a` (eth0), `b`, `c`, `small` (eth1) and `d` (eth2) are on node-1, `e` (eth0) and `f` (eth1) on node-2.

Written by `ENI_CNI_WRITE_FLOWS=1 cargo test -p lab --test flows`; the same test without the variable fails when this file is not what
it found.
";

/// What the kernels that we test on have not; each is a column or a row that would stand in the table.
const NOT_TESTABLE: &[(&str, &str)] = &[
    ("kube-proxy in mode `ipvs`", "needs CONFIG_IP_VS"),
    ("security groups for pods (branch ENIs)", "needs CONFIG_VLAN_8021Q"),
];

/// Returns the table as markdown.
pub(crate) fn markdown(flows: &[Flow], columns: &[Column]) -> String {
    let mut text = HEAD.to_owned();
    let mut title = String::new();
    for (number, flow) in flows.iter().enumerate() {
        let columns: Vec<&Column> =
            columns.iter().filter(|column| column.stack.concerns(flow.family, flow.setting)).collect();
        let own_title = format!("{}, {}", family(flow.family), flow.setting.title());
        if own_title != title {
            title = own_title;
            let names: String = columns.iter().map(|column| format!(" {} |", name(column))).collect();
            let _ = write!(text, "\n## {title}\n\n| Flow | From → to | Packets | Answer | Way |{names}\n");
            let _ = writeln!(text, "|---|---|---|---|---|{}", "---|".repeat(columns.len()));
        }
        let kinds: Vec<&str> = flow.over.iter().map(|kind| word(*kind, flow.family)).collect();
        let cells: String = columns.iter().map(|column| cell(column.outcomes[number].as_ref())).collect();
        let Flow { name, from, to, answer, way, .. } = flow;
        let _ = writeln!(text, "| {name} | {from} → {to} | {} | {answer} | {way} |{cells}", kinds.join(", "));
    }
    let _ = write!(text, "\n## In all\n\n| Check |");
    for column in columns {
        let _ = write!(text, " {} |", name(column));
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns.len()));
    let passed = columns.iter().map(|column| {
        let rows: Vec<&Outcome> = column.outcomes.iter().flatten().collect();
        format!(" {} of {} |", rows.iter().filter(|outcome| outcome.is_ok()).count(), rows.len())
    });
    let _ = writeln!(text, "| flows that pass |{}", passed.collect::<String>());
    let lost: String = columns.iter().map(|column| cell(Some(&column.lost))).collect();
    let _ = writeln!(text, "| no packet dropped by the VPC |{lost}");
    for (what, why) in NOT_TESTABLE {
        let _ = writeln!(text, "| {what} |{}", format!(" not testable here: {why} |").repeat(columns.len()));
    }
    text
}

fn name(column: &Column) -> String {
    let stack = match column.stack {
        Stack::V4 => "IPv4",
        Stack::V6 => "IPv6",
        Stack::Dual => "dual stack",
        Stack::V4LeadingOut => "IPv6 egress",
    };
    format!("{stack}, {}", column.proxy)
}

const fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

const fn cell(outcome: Option<&Outcome>) -> &'static str {
    match outcome {
        Some(Ok(())) => " pass |",
        Some(Err(_)) => " **FAIL** |",
        None => " – |",
    }
}

/// What went wrong in one column, one line each.
pub(crate) fn failures(flows: &[Flow], column: &Column) -> Vec<String> {
    let wrong = |outcome: &Option<Outcome>| outcome.clone()?.err();
    let of_flows = flows.iter().zip(&column.outcomes).filter_map(|(flow, outcome)| {
        Some(format!("{}: {} in {}: {}", name(column), flow.name, family(flow.family), wrong(outcome)?))
    });
    of_flows.chain(column.lost.clone().err().map(|lost| format!("{}: {lost}", name(column)))).collect()
}

const fn word(kind: Kind, family: Family) -> &'static str {
    let v4 = matches!(family, Family::V4);
    match kind {
        Kind::Tcp => "TCP",
        Kind::Udp => "UDP",
        Kind::Fragments => "UDP in fragments",
        Kind::Icmp => "ICMP echo",
        Kind::Unreachable => "UDP, ICMP unreachable",
        Kind::Expired(_) => "ICMP time exceeded",
        Kind::InNameOf(_) => "UDP with a pod's source",
        Kind::As(_) => "UDP with a false source",
        Kind::WhileClaimed(_) if v4 => "UDP, ARP of somebody else",
        Kind::WhileClaimed(_) => "UDP, neighbour discovery of somebody else",
        Kind::LearnsMtu(_) | Kind::TeachesMtu(_) if v4 => "TCP, ICMP fragmentation needed",
        Kind::LearnsMtu(_) | Kind::TeachesMtu(_) => "TCP, ICMPv6 packet too big",
    }
}
