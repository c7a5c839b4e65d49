//! What runs came to: as a table for people, as JSON for programs.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::{
    account::{Api, Calls},
    bound::Bounds,
    cluster::Outcome,
    measure::Summary,
};

/// Runs of several managers on the same demand.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What was asked of them, in one line.
    pub title: String,
    /// One for each manager.
    pub runs: Vec<Run>,
}

/// What one manager's run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// The manager's name.
    pub manager: String,
    /// What nobody can beat. Absent: the demand is not a start of all nodes at once.
    pub bounds: Option<Bounds>,
    /// What it came to.
    pub outcome: Outcome,
}

/// A time as seconds with one decimal; in milliseconds if it is less than a second, so that only nothing reads as 0.
#[must_use]
pub fn seconds(time: Duration) -> String {
    match time.as_millis() {
        0 => "0".to_owned(),
        short @ 1..1000 => format!("{short} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn percent(per_mille: i64) -> String {
    format!("{}.{} %", per_mille / 10, per_mille % 10)
}

impl Comparison {
    /// A table: one column for each manager.
    #[must_use]
    pub fn table(&self) -> String {
        let mut table = Table::default();
        let runs = || self.runs.iter().map(|run| &run.outcome);
        table.row("", self.runs.iter().map(|run| run.manager.clone()));
        if self.runs.iter().any(|run| run.bounds.is_some()) {
            table.row("time until all pods run", runs().map(all_running));
            let bounds = || self.runs.iter().map(|run| run.bounds.unwrap_or_default());
            table.row("  bound with the fewest calls", bounds().map(|bounds| seconds(bounds.fewest_calls)));
            table.row("    times it", runs().zip(bounds()).map(|(run, bounds)| ratio(run, bounds.fewest_calls)));
            table.row("  bound by any way", bounds().map(|bounds| seconds(bounds.any_way)));
            table.row("    times it", runs().zip(bounds()).map(|(run, bounds)| ratio(run, bounds.any_way)));
        }
        table.row("wait of a pod: median", runs().map(|run| seconds(run.pods.median)));
        table.row("  p99", runs().map(|run| seconds(run.pods.p99)));
        table.row("  worst", runs().map(|run| seconds(run.pods.worst)));
        table.row("last pod of a node: median", runs().map(|run| seconds(run.nodes.median)));
        table.row("  p99", runs().map(|run| seconds(run.nodes.p99)));
        table.row("  worst", runs().map(|run| seconds(run.nodes.worst)));
        table.row("  worst / median", runs().map(|run| quotient(run.nodes.worst, run.nodes.median)));
        table.row("failed sandboxes", runs().map(|run| run.refusals.to_string()));
        table.row("idle addresses, mean", runs().map(|run| percent(run.idle_per_mille())));
        table.row("EC2 calls", runs().map(|run| run.all_calls().passed.to_string()));
        table.row("  throttled", runs().map(|run| run.all_calls().throttled.to_string()));
        for api in Api::ALL {
            let of = |run: &Outcome| run.calls.iter().find(|(other, _)| *other == api).map(|(_, calls)| *calls);
            let calls: Vec<_> = runs().map(|run| of(run).unwrap_or_default()).collect();
            if calls.iter().any(|calls| calls.passed + calls.throttled > 0) {
                let cell = |throttled: u64| if throttled == 0 { String::new() } else { format!(" (+{throttled})") };
                let cells = calls.iter().map(|calls| format!("{}{}", calls.passed, cell(calls.throttled)));
                table.row(&format!("  {} (+throttled)", api.name()), cells);
            }
        }
        format!("{}\n{}", self.title, table.text())
    }

    /// The same for programs; times in milliseconds.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({ "demand": self.title, "runs": self.runs.iter().map(Run::json).collect::<Vec<_>>() })
    }
}

impl Comparison {
    /// A line of a Markdown table: the title, then what `cell` says of each run.
    #[must_use]
    pub fn markdown(&self, title: &str, cell: impl Fn(&Run) -> String) -> String {
        let cells: Vec<_> = self.runs.iter().map(cell).collect();
        format!("| {title} | {} |", cells.join(" | "))
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Run {
    /// What matters of a run, in one cell: of a start, how long it took; of a run to its end, idle addresses on the average
    /// and the wait that one pod in a hundred exceeds.
    #[must_use]
    pub fn cell(&self) -> String {
        match self.bounds {
            Some(_) => all_running(&self.outcome),
            None => format!("{}, {}", percent(self.outcome.idle_per_mille()), seconds(self.outcome.pods.p99)),
        }
    }

    fn json(&self) -> Value {
        let Self { manager, bounds, outcome } = self;
        let bounds = bounds
            .map(|bounds| json!({ "fewest_calls_ms": ms(bounds.fewest_calls), "any_way_ms": ms(bounds.any_way) }));
        let summary = |of: &Summary| json!({ "count": of.count, "median_ms": ms(of.median), "p99_ms": ms(of.p99), "worst_ms": ms(of.worst) });
        let call = |(api, calls): &(Api, Calls)| {
            (api.name().to_owned(), json!({ "passed": calls.passed, "throttled": calls.throttled }))
        };
        let calls: serde_json::Map<_, _> = outcome.calls.iter().map(call).collect();
        json!({
            "manager": manager,
            "bounds": bounds,
            "lasted_ms": ms(outcome.lasted),
            "all_running_ms": (outcome.unserved == 0).then(|| ms(outcome.all_running)),
            "unserved": outcome.unserved,
            "pods": summary(&outcome.pods),
            "nodes": summary(&outcome.nodes),
            "failed_sandboxes": outcome.refusals,
            "idle_per_mille": outcome.idle_per_mille(),
            "calls": calls,
        })
    }
}

fn all_running(run: &Outcome) -> String {
    if run.unserved == 0 { seconds(run.all_running) } else { format!("{} still wait", run.unserved) }
}

fn ratio(run: &Outcome, bound: Duration) -> String {
    if run.unserved == 0 { quotient(run.all_running, bound) } else { "-".to_owned() }
}

fn quotient(time: Duration, unit: Duration) -> String {
    if unit.is_zero() { "-".to_owned() } else { format!("{:.2}", time.as_secs_f64() / unit.as_secs_f64()) }
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn row(&mut self, name: &str, cells: impl Iterator<Item = String>) {
        self.rows.push([name.to_owned()].into_iter().chain(cells).collect());
    }

    /// The first column to the left, the others to the right.
    fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = if column == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_has_no_trailing_blanks() {
        let mut table = Table::default();
        table.row("", ["a".to_owned(), "bb".to_owned()].into_iter());
        table.row("first", ["100".to_owned(), String::new()].into_iter());
        assert_eq!(table.text(), "         a  bb\nfirst  100\n");
    }
}
