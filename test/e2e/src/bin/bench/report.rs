//! Samples, their medians, and the report: a table for people and a list for machines.

use std::{io, path::Path};

use serde_json::{Value, json};

/// Measurements of one thing in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The value below which `share` of the samples lie (nearest rank); nothing without samples.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index into few samples"
        )]
        let rank = (sorted.len() as f64 * share).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied()
    }
}

/// One line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) measured: Samples,
    /// What it is compared with.
    pub(crate) against: &'static str,
    pub(crate) reference: Samples,
    /// Most that the ratio of the medians may be.
    pub(crate) goal: f64,
}

impl Row {
    fn ratio(&self, share: f64) -> f64 {
        match (self.measured.percentile(share), self.reference.percentile(share)) {
            (Some(value), Some(reference)) if reference > 0.0 => value / reference,
            _ => f64::NAN,
        }
    }

    fn met(&self) -> bool {
        self.ratio(0.5) <= self.goal
    }

    fn to_json(&self) -> Value {
        let of = |samples: &Samples, share| samples.percentile(share).map(rounded);
        json!({
            "name": self.name,
            "unit": self.unit,
            "samples": self.measured.count(),
            "min": of(&self.measured, 0.0),
            "p50": of(&self.measured, 0.5),
            "p99": of(&self.measured, 0.99),
            "reference": {
                "what": self.against,
                "samples": self.reference.count(),
                "min": of(&self.reference, 0.0),
                "p50": of(&self.reference, 0.5),
                "p99": of(&self.reference, 0.99),
            },
            "ratio_min": rounded(self.ratio(0.0)),
            "ratio_p50": rounded(self.ratio(0.5)),
            "ratio_p99": rounded(self.ratio(0.99)),
            "goal": self.goal,
            "met": self.met(),
        })
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Prints the table.
pub(crate) fn show(rows: &[Row]) {
    println!(
        "\n{:<18} {:>9} {:>9} {:>5}  {:>7} {:>7} {:>6}  {:<4}  against",
        "", "p50", "p99", "", "ratio", "p99", "goal", "met"
    );
    for row in rows {
        let value = |share| row.measured.percentile(share).unwrap_or(f64::NAN);
        println!(
            "{:<18} {:>9.3} {:>9.3} {:<5}  {:>7.2} {:>7.2} {:>6.1}  {:<4}  {} (p50 {:.3})",
            row.name,
            value(0.5),
            value(0.99),
            row.unit,
            row.ratio(0.5),
            row.ratio(0.99),
            row.goal,
            if row.met() { "yes" } else { "no" },
            row.against,
            row.reference.percentile(0.5).unwrap_or(f64::NAN),
        );
    }
}

/// Writes the list.
pub(crate) fn write(path: &Path, rows: &[Row]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let list: Vec<Value> = rows.iter().map(Row::to_json).collect();
    std::fs::write(path, format!("{:#}\n", Value::from(list)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let hundred = samples(&(1..=100).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!((hundred.percentile(0.5), hundred.percentile(0.99)), (Some(50.0), Some(99.0)));
        assert_eq!(samples(&[7.0]).percentile(0.99), Some(7.0));
        assert_eq!(samples(&[]).percentile(0.5), None);
    }

    #[test]
    fn a_line_of_the_report_has_all_its_fields() {
        let row = Row {
            name: "add_warm".to_owned(),
            unit: "ms",
            measured: samples(&[3.0, 2.0, 4.0]),
            against: "raw netlink",
            reference: samples(&[1.0, 1.0, 2.0]),
            goal: 2.5,
        };
        let line = row.to_json();
        for field in ["name", "unit", "samples", "p50", "p99", "reference", "ratio_p50", "ratio_p99", "goal", "met"] {
            assert!(!line[field].is_null(), "{field}: {line}");
        }
        assert_eq!((line["ratio_p50"].as_f64(), line["met"].as_bool()), (Some(3.0), Some(false)));
    }
}
