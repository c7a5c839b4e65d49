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

/// What of a figure is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Good {
    /// Little of it, as of time.
    Low,
    /// Much of it, as of throughput. The ratio is turned round, so that it always says how many times as much ours costs.
    High,
}

/// How one thing compares with another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ratio {
    /// Median.
    pub(crate) p50: f64,
    /// A quarter of the pairs are below. Absent: the ratio is one of medians.
    pub(crate) quartiles: Option<(f64, f64)>,
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
    /// Most that the ratio may be. Absent: nothing is promised.
    pub(crate) goal: Option<f64>,
    pub(crate) good: Good,
    /// Whether the n-th sample of both was measured right after another, so that the machine's moods met both.
    pub(crate) paired: bool,
    /// Whether it is one of many alike, which only the file has.
    pub(crate) detail: bool,
}

impl Row {
    fn of(&self, value: f64, reference: f64) -> f64 {
        match self.good {
            Good::Low => value / reference,
            Good::High => reference / value,
        }
    }

    fn ratio_at(&self, share: f64) -> f64 {
        let values = self.measured.percentile(share).zip(self.reference.percentile(share));
        values.map_or(f64::NAN, |(value, reference)| self.of(value, reference))
    }

    /// Of the pairs where there are pairs; else of the medians.
    pub(crate) fn ratio(&self) -> Ratio {
        let pairs = self.measured.0.iter().zip(&self.reference.0).map(|(value, reference)| self.of(*value, *reference));
        let pairs = Samples(pairs.collect());
        let quartiles = pairs.percentile(0.25).zip(pairs.percentile(0.75)).filter(|_| self.paired);
        let p50 = pairs.percentile(0.5).filter(|_| self.paired).unwrap_or_else(|| self.ratio_at(0.5));
        Ratio { p50, quartiles }
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| self.ratio().p50 <= goal)
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
            "max": of(&self.measured, 1.0),
            "reference": {
                "what": self.against,
                "samples": self.reference.count(),
                "min": of(&self.reference, 0.0),
                "p50": of(&self.reference, 0.5),
                "p99": of(&self.reference, 0.99),
            },
            "ratio": rounded(self.ratio().p50),
            "ratio_quartiles": self.ratio().quartiles.map(|(low, high)| [rounded(low), rounded(high)]),
            "ratio_min": rounded(self.ratio_at(0.0)),
            "ratio_p50": rounded(self.ratio_at(0.5)),
            "ratio_p99": rounded(self.ratio_at(0.99)),
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
        "\n{:<24} {:>10} {:>10} {:<6}  {:>6} {:>13} {:>5}  {:<4} against",
        "", "p50", "best", "", "ratio", "half of pairs", "goal", "met"
    );
    for row in rows.iter().filter(|row| !row.detail) {
        let value = |share| row.measured.percentile(share).unwrap_or(f64::NAN);
        let best = if row.good == Good::Low { 0.0 } else { 1.0 };
        let ratio = row.ratio();
        println!(
            "{:<24} {:>10.3} {:>10.3} {:<6}  {:>6.2} {:>13} {:>5}  {:<4} {} (p50 {:.3})",
            row.name,
            value(0.5),
            value(best),
            row.unit,
            ratio.p50,
            ratio.quartiles.map(|(low, high)| format!("{low:.2} .. {high:.2}")).unwrap_or_default(),
            row.goal.map_or_else(|| "–".to_owned(), |goal| format!("{goal:.1}")),
            row.met().map_or("–", |met| if met { "yes" } else { "no" }),
            row.against,
            row.reference.percentile(0.5).unwrap_or(f64::NAN),
        );
    }
}

/// Writes the list.
pub(crate) fn write(path: &Path, rows: &[Row]) -> io::Result<()> {
    let list: Vec<Value> = rows.iter().map(Row::to_json).collect();
    save(path, &format!("{:#}\n", Value::from(list)))
}

/// Writes a file, and its folder where there is none.
pub(crate) fn save(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
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
            goal: Some(2.5),
            good: Good::Low,
            paired: true,
            detail: false,
        };
        let line = row.to_json();
        for field in ["name", "unit", "samples", "p50", "p99", "reference", "ratio_p50", "ratio_p99", "goal", "met"] {
            assert!(!line[field].is_null(), "{field}: {line}");
        }
        assert_eq!((line["ratio_p50"].as_f64(), line["met"].as_bool()), (Some(3.0), Some(true)));
        assert_eq!(row.ratio(), Ratio { p50: 2.0, quartiles: Some((2.0, 3.0)) });
        let more = Row { good: Good::High, paired: false, ..row };
        assert_eq!(more.ratio(), Ratio { p50: 1.0 / 3.0, quartiles: None });
    }
}
