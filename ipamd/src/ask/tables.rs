//! The daemon's documents as tables for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::table::{Colour, cut, lay_out, paint, printable};

/// What the tables are written on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Paper {
    /// Whether everything is shown in full.
    pub(super) wide: bool,
    /// Whether colours are seen.
    pub(super) colours: bool,
    /// How many characters a line has. Absent: as many as it takes.
    pub(super) columns: Option<usize>,
}

/// Longest name in a table that is not wide, in characters.
const LONGEST: usize = 60;

fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn short(text: &str, wide: bool) -> String {
    if wide { text.to_owned() } else { cut(text, LONGEST) }
}

/// How the pool stands.
pub(super) fn status(pool: &Value, paper: Paper) -> String {
    let none = Value::Null;
    let (node, addresses) = (pool.get("node").unwrap_or(&none), pool.get("addresses").unwrap_or(&none));
    let ready = pool.get("ready").and_then(Value::as_bool) == Some(true);
    let word = match ready {
        true => paint("yes", Colour::Good, paper.colours),
        false => paint("no", Colour::Bad, paper.colours),
    };
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "ready      {word}");
    let _ = writeln!(out, "node       {} {} {}", text(node, "instance"), text(node, "type"), text(node, "zone"));
    let counts = ["leased", "free", "cooling", "in_flight"].map(|state| format!("{} {state}", text(addresses, state)));
    let _ =
        writeln!(out, "addresses  {}; at most {}", counts.join(", ").replace('_', " "), text(pool, "most_addresses"));
    let _ = writeln!(out, "waiting    {} pods\n", text(pool, "pods_waiting"));
    let rows = list(pool, "enis").iter().map(|eni| {
        let count = |state: &str| list(eni, "addresses").iter().filter(|one| text(one, "state") == state).count();
        let place = format!("{}/{}", text(eni, "card"), text(eni, "device"));
        let row = [text(eni, "id"), place, text(eni, "phase"), count("leased").to_string(), count("free").to_string()];
        let [id, place, phase, leased, free] = row;
        let bar = bar(eni);
        let further = if paper.wide {
            format!("{} {} {}", text(eni, "subnet"), text(eni, "primary"), text(eni, "mac"))
        } else {
            String::new()
        };
        [id, place, phase, leased, free, count("cooling").to_string(), bar, further]
    });
    let last = if paper.wide { "SUBNET, PRIMARY ADDRESS, MAC" } else { "" };
    let heading = ["ENI", "CARD/DEVICE", "PHASE", "LEASED", "FREE", "COOLING", "ADDRESSES", last];
    out.push_str(&lay_out(heading, rows, paper.columns));
    out.push_str("            # leased  . free  ~ cooling  > in flight  x reserved\n");
    for one in list(pool, "waiting") {
        let _ = writeln!(out, "{} {}", paint("waits:", Colour::Odd, paper.colours), printable(&text(one, "text")));
    }
    if let Some(error) = pool.get("last_error").and_then(Value::as_str) {
        let _ = writeln!(out, "{} {}", paint("EC2 said last:", Colour::Bad, paper.colours), printable(error));
    }
    out
}

/// One letter for each address of an ENI.
fn bar(eni: &Value) -> String {
    let letter = |one: &Value| match text(one, "state").as_str() {
        "leased" => '#',
        "free" => '.',
        "cooling" => '~',
        "in_flight" => '>',
        _ => 'x',
    };
    list(eni, "addresses").iter().map(letter).collect()
}

/// Which pod has which address.
pub(super) fn pods(leases: &Value, paper: Paper) -> String {
    let wide = paper.wide;
    let rows = list(leases, "leases").iter().map(|lease| {
        let pod = match text(lease, "pod").as_str() {
            "" => "(the runtime did not tell)".to_owned(),
            name => format!("{}/{name}", text(lease, "namespace")),
        };
        let sandbox = text(lease, "container_id");
        let sandbox = if wide { sandbox } else { sandbox.chars().take(12).collect() };
        let netns = if wide { text(lease, "netns") } else { String::new() };
        [short(&pod, wide), text(lease, "address"), text(lease, "eni"), text(lease, "since"), sandbox, netns]
    });
    let last = if wide { "NETWORK NAMESPACE" } else { "" };
    lay_out(["POD", "ADDRESS", "ENI", "SINCE", "SANDBOX", last], rows, paper.columns)
}

/// What the planner would do now, and why it does not do more.
pub(super) fn plan(plan: &Value, paper: Paper) -> String {
    let mut out = format!("demand  {} pods\n", text(plan, "demand"));
    // Writing to a string cannot fail.
    for one in list(plan, "under_way") {
        let _ = writeln!(out, "under way: {} ({})", text(one, "what"), text(one, "id"));
    }
    for what in list(plan, "wanted").iter().filter_map(Value::as_str) {
        let _ = writeln!(out, "next: {what}");
    }
    for one in list(plan, "waiting") {
        let _ = writeln!(out, "waits ({}): {}", text(one, "kind"), printable(&text(one, "text")));
    }
    if plan.get("surplus").and_then(Value::as_bool) == Some(true) {
        out.push_str("there is more than wanted; it is given back when it has been so for a while\n");
    }
    if out.lines().count() == 1 {
        out.push_str("the pool is as wanted: nothing is done and nothing waited for\n");
    }
    let _ = writeln!(out, "looks again {}\n", text(plan, "next_look"));
    let rows = list(plan, "ec2").iter().filter(|one| paper.wide || text(one, "calls") != "0").map(|one| {
        let budget = format!("{} + {}/s", text(one, "burst"), text(one, "per_second"));
        let rests = match text(one, "rests_ms").as_str() {
            "0" => String::new(),
            milliseconds => format!("rests for {milliseconds} ms"),
        };
        let waited = format!("{} ms", text(one, "waited_ms"));
        [
            text(one, "action"),
            text(one, "calls"),
            text(one, "failed"),
            text(one, "in_last_minute"),
            budget,
            waited,
            rests,
        ]
    });
    out.push_str(&lay_out(
        ["EC2 ACTION", "CALLS", "NOT WELL", "LAST MINUTE", "BUDGET", "WAITED", ""],
        rows,
        paper.columns,
    ));
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pool_is_one_row_for_each_interface() {
        let cell = |state: &str| json!({ "address": "10.0.0.5", "state": state });
        let pool = json!({
            "ready": true, "pods_waiting": 0, "most_addresses": 56, "last_error": null,
            "node": { "instance": "i-1", "type": "m5.xlarge", "zone": "eu-central-1a" },
            "addresses": { "leased": 1, "free": 1, "cooling": 1, "in_flight": 0 },
            "waiting": [{ "kind": "ec2", "text": "i-1-2: ask for 8 addresses on eni-1" }],
            "enis": [{ "id": "eni-1", "card": 0, "device": 0, "phase": "ready",
                "addresses": [cell("leased"), cell("free"), cell("cooling")] }],
        });
        assert_eq!(
            status(&pool, Paper::default()),
            "ready      yes\nnode       i-1 m5.xlarge eu-central-1a\naddresses  1 leased, 1 free, 1 cooling, 0 in flight; at most 56\n\
             waiting    0 pods\n\n\
             ENI    CARD/DEVICE  PHASE  LEASED  FREE  COOLING  ADDRESSES\n\
             eni-1  0/0          ready  1       1     1        #.~\n            # leased  . free  ~ cooling  > in flight  x reserved\n\
             waits: i-1-2: ask for 8 addresses on eni-1\n"
        );
    }

    #[test]
    fn a_pods_name_commands_no_terminal_and_takes_no_more_than_its_place() {
        let lease = |name: &str| json!({ "namespace": "web", "pod": name, "address": "10.0.0.5", "eni": "eni-1", "container_id": "c1" });
        let long = "l".repeat(5000);
        let leases = json!({ "leases": [lease("\u{1b}[2J"), lease("\u{202e}x"), lease(&long), lease("a\nb")] });
        let table = pods(&leases, Paper::default());
        assert_eq!(table.lines().count(), 5, "{table}");
        assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'), "{table}");
        assert!(table.lines().all(|line| line.chars().count() < 140), "{table}");
    }

    #[test]
    fn a_plan_without_anything_says_so() {
        let plan = plan(&json!({ "demand": 0, "next_look": null, "surplus": false }), Paper::default());
        assert!(plan.contains("the pool is as wanted"), "{plan}");
    }
}
