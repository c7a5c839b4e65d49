//! The table for people.

use std::fmt::Write;

use crate::{
    flow::{Flow, Kind},
    proxy::Proxy,
};

/// A flow's name and what was wrong with it, if anything.
pub(crate) type Outcome = (&'static str, Option<String>);

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

/// What is tested elsewhere, and not beside kube-proxy's rules yet.
const ELSEWHERE: &[(&str, &str)] = &[(
    "IPv6 and dual stack",
    "not in this table: `cargo test -p eni-datapath --test ipv6`, without kube-proxy's rules",
)];

/// Returns the table as markdown.
pub(crate) fn markdown(flows: &[Flow], columns: &[(Proxy, Vec<Outcome>)]) -> String {
    let mut text = HEAD.to_owned();
    let mut title = "";
    for (number, flow) in flows.iter().enumerate() {
        if flow.setting.title() != title {
            title = flow.setting.title();
            let names: String = columns.iter().map(|(proxy, _)| format!(" {proxy} |")).collect();
            let _ = write!(text, "\n## IPv4, {title}\n\n| Flow | From → to | Packets | Answer | Way |{names}\n");
            let _ = writeln!(text, "|---|---|---|---|---|{}", "---|".repeat(columns.len()));
        }
        let kinds: Vec<&str> = flow.over.iter().map(|kind| word(*kind)).collect();
        let cells = cells(columns, number);
        let Flow { name, from, to, answer, way, .. } = flow;
        let _ = writeln!(text, "| {name} | {from} → {to} | {} | {answer} | {way} |{cells}", kinds.join(", "));
    }
    let _ = write!(text, "\n## In all\n\n| Check |");
    for (proxy, _) in columns {
        let _ = write!(text, " {proxy} |");
    }
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns.len()));
    let passed = columns.iter().map(|(_, column)| {
        let rows = column.get(..flows.len()).unwrap_or_default();
        format!(" {} of {} |", rows.iter().filter(|(_, wrong)| wrong.is_none()).count(), flows.len())
    });
    let _ = writeln!(text, "| flows that pass |{}", passed.collect::<String>());
    let _ = writeln!(text, "| no packet dropped by the VPC |{}", cells(columns, flows.len()));
    for (what, why) in NOT_TESTABLE {
        let _ = writeln!(text, "| {what} |{}", format!(" not testable here: {why} |").repeat(columns.len()));
    }
    for (what, wherever) in ELSEWHERE {
        let _ = writeln!(text, "| {what} |{}", format!(" {wherever} |").repeat(columns.len()));
    }
    text
}

fn cells(columns: &[(Proxy, Vec<Outcome>)], row: usize) -> String {
    let cell = |column: &[Outcome]| match column.get(row) {
        Some((_, None)) => " pass |",
        _ => " **FAIL** |",
    };
    columns.iter().map(|(_, column)| cell(column)).collect()
}

/// What went wrong in one column, one line each.
pub(crate) fn failures(proxy: Proxy, column: &[Outcome]) -> Vec<String> {
    column.iter().filter_map(|(name, wrong)| Some(format!("{proxy}: {name}: {}", wrong.as_ref()?))).collect()
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp => "TCP",
        Kind::Udp => "UDP",
        Kind::Icmp => "ICMP echo",
        Kind::Unreachable => "UDP, ICMP unreachable",
        Kind::Expired(_) => "ICMP time exceeded",
        Kind::As(_) => "UDP with a false source",
        Kind::WhileClaimed(_) => "UDP, ARP of somebody else",
        Kind::LearnsMtu(_) | Kind::TeachesMtu(_) => "TCP, ICMP fragmentation needed",
    }
}
