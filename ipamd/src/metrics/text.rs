//! The text format that Prometheus reads, version 0.0.4.

use std::fmt::Write as _;

use super::{SECONDS, Times};

/// A page of metrics that grows.
#[derive(Debug, Default)]
pub(crate) struct Page(String);

/// What kind of figure it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

impl Page {
    /// Begins a metric; its samples follow.
    pub(crate) fn metric(&mut self, name: &'static str, kind: Kind, help: &str) -> Metric<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Metric { page: &mut self.0, name }
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

/// A metric whose samples are written.
#[derive(Debug)]
pub(crate) struct Metric<'a> {
    page: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    /// One sample.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// One sample of a whole number. Beyond 2^53, which nothing here reaches, the last digits are lost.
    #[allow(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    pub(crate) fn count(&mut self, labels: &[(&str, &str)], value: u64) -> &mut Self {
        self.sample(labels, value as f64)
    }

    /// The samples of one histogram.
    pub(crate) fn times(&mut self, labels: &[(&str, &str)], times: &Times) {
        let buckets = SECONDS.iter().zip(times.within.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        }));
        for (bound, sum) in buckets {
            self.bucket(labels, &bound.to_string(), sum);
        }
        self.bucket(labels, "+Inf", times.count);
        self.totals(labels, times.sum.as_secs_f64(), times.count);
    }

    /// One bucket of a histogram; `count` has those of smaller bounds too.
    #[allow(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    pub(crate) fn bucket(&mut self, labels: &[(&str, &str)], bound: &str, count: u64) {
        let mut all = labels.to_vec();
        all.push(("le", bound));
        self.line("_bucket", &all, count as f64);
    }

    /// Sum and count of a histogram or summary.
    #[allow(clippy::cast_precision_loss, reason = "the format has no other numbers")]
    pub(crate) fn totals(&mut self, labels: &[(&str, &str)], sum: f64, count: u64) {
        self.line("_sum", labels, sum);
        self.line("_count", labels, count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        // Writing to a string cannot fail.
        let _ = write!(self.page, "{}{suffix}", self.name);
        for (nth, (label, text)) in labels.iter().enumerate() {
            let before = if nth == 0 { '{' } else { ',' };
            let _ = write!(self.page, "{before}{label}=\"{}\"", escaped(text));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.page, "{after} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_label_cannot_end_its_own_text() {
        let mut page = Page::default();
        page.metric("x", Kind::Gauge, "X.").sample(&[("a", "\"} 1\nx{a=\"\\")], 1.0);
        assert_eq!(page.into_text(), "# HELP x X.\n# TYPE x gauge\nx{a=\"\\\"} 1\\nx{a=\\\"\\\\\"} 1\n");
    }

    #[test]
    fn a_larger_bucket_counts_the_smaller_ones_too() {
        let mut times = Times::default();
        for milliseconds in [1, 3, 60_000] {
            times.add(Duration::from_millis(milliseconds));
        }
        let mut page = Page::default();
        page.metric("t", Kind::Histogram, "T.").times(&[], &times);
        let text = page.into_text();
        for line in
            ["t_bucket{le=\"0.001\"} 1", "t_bucket{le=\"0.005\"} 2", "t_bucket{le=\"20\"} 2", "t_bucket{le=\"+Inf\"} 3"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.contains("t_sum 60.004\nt_count 3\n"), "{text}");
    }
}
