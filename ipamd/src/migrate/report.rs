//! What is told of a check, an import or a way back.

use std::fmt::Write as _;

use serde_json::json;

use super::judge::{Obstacle, Verdict};

/// What was found and done.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// One sentence that says it all.
    pub(super) summary: String,
    /// Pods with their addresses and ENIs.
    pub(super) pods: Vec<(String, String, String)>,
    pub(super) obstacles: Vec<Obstacle>,
    pub(super) notes: Vec<String>,
    /// What is there of the incumbent beside its pods, or what was changed.
    pub(super) things: Vec<String>,
}

impl Report {
    pub(super) fn of(summary: String, verdict: Verdict, things: Vec<String>) -> Self {
        let pods = verdict
            .adoptions
            .iter()
            .map(|(_, lease)| (lease.pod.to_string(), lease.addresses.to_string(), lease.eni.to_string()));
        Self { summary, pods: pods.collect(), obstacles: verdict.obstacles, notes: verdict.notes, things }
    }

    pub(super) fn as_text(&self) -> String {
        let mut text = format!("{}\n", self.summary);
        // Writing to a string cannot fail.
        for Obstacle { code, what } in &self.obstacles {
            let _ = writeln!(text, "{code} {what}");
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        for (pod, address, eni) in &self.pods {
            let _ = writeln!(text, "pod {pod} {address} {eni}");
        }
        for thing in &self.things {
            let _ = writeln!(text, "  {thing}");
        }
        text
    }

    pub(super) fn as_json(&self) -> String {
        let obstacles: Vec<_> = self.obstacles.iter().map(|it| json!({ "code": it.code, "what": it.what })).collect();
        let pods: Vec<_> =
            self.pods.iter().map(|(pod, address, eni)| json!({ "pod": pod, "address": address, "eni": eni })).collect();
        let all = json!({
            "summary": self.summary,
            "possible": self.obstacles.is_empty(),
            "obstacles": obstacles,
            "notes": self.notes,
            "pods": pods,
            "things": self.things,
        });
        format!("{all}\n")
    }
}
