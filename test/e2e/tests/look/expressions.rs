//! Expressions of dashboards and alerts, and the metrics that they name.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

use super::tool;

/// The names of all metrics on a page.
pub(crate) fn names(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// The names of our metrics in an expression that no metric of the page has.
pub(crate) fn unknown<'a>(expression: &'a str, names: &BTreeSet<&str>) -> Vec<&'a str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| ["ipamd_", "awscni_", "process_"].iter().any(|start| word.starts_with(start)));
    let is_known = |word: &str| {
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|end| word.strip_suffix(end));
        std::iter::once(word).chain(parts).any(|name| names.contains(name))
    };
    ours.filter(|word| !is_known(word)).collect()
}

/// The expressions of a dashboard, with Grafana's own variables replaced as Grafana would.
pub(crate) fn of_dashboard(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().into_iter().flatten();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let raw = targets.filter_map(|target| target["expr"].as_str());
    raw.map(|text| text.replace("$__rate_interval", "5m").replace("$instance", ".*")).collect()
}

/// Has promtool parse expressions, as rules.
pub(crate) fn parse(expressions: &[String]) {
    let rules: Vec<Value> = expressions
        .iter()
        .enumerate()
        .map(|(nth, expression)| serde_json::json!({ "record": format!("r:{nth}"), "expr": expression }))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yaml");
    std::fs::write(&file, serde_json::json!({ "groups": [{ "name": "all", "rules": rules }] }).to_string()).unwrap();
    promtool(&["check", "rules"], &file);
}

/// Runs promtool on a file and insists on success.
pub(crate) fn promtool(verb: &[&str], file: &Path) {
    let mut command = Command::new(tool("promtool"));
    command.args(verb).arg(file.file_name().unwrap()).current_dir(file.parent().unwrap());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}
