//! What was asked of the cloud, when, and how it ended.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use ipam_core::Moment;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// The caller's time.
    pub at: Moment,
    /// API action.
    pub action: &'static str,
    /// Error code, or `NoReply`. Absent: it went well.
    pub error: Option<String>,
    /// What was left in the bucket that was nearest to empty. Absent: it was not charged.
    pub tokens_left: Option<u64>,
    /// The request in full, for people.
    pub request: String,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.at, self.request, self.error.as_deref().unwrap_or("ok"))?;
        self.tokens_left.map_or(Ok(()), |left| write!(f, ", {left} tokens left"))
    }
}

/// The newest requests, and how many there were of each action.
#[derive(Debug, Clone)]
pub struct RequestLog {
    capacity: usize,
    newest: VecDeque<LogEntry>,
    counts: BTreeMap<&'static str, u64>,
}

impl RequestLog {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, newest: VecDeque::new(), counts: BTreeMap::new() }
    }

    pub(crate) fn push(&mut self, entry: LogEntry) {
        *self.counts.entry(entry.action).or_default() += 1;
        if self.newest.len() >= self.capacity {
            self.newest.pop_front();
        }
        self.newest.push_back(entry);
    }

    /// The newest requests, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &LogEntry> {
        self.newest.iter()
    }

    /// How often `action` was asked for since the world began.
    #[must_use]
    pub fn count(&self, action: &str) -> u64 {
        self.counts.get(action).copied().unwrap_or(0)
    }

    /// How many requests there were since the world began.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// The last `lines` requests as text, one a line, for a failure's message.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let skip = self.newest.len().saturating_sub(lines);
        self.newest.iter().skip(skip).map(|entry| format!("{entry}\n")).collect()
    }
}
