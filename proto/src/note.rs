//! Release notes: how the plugin tells a daemon that is away that a lease has ended.

use std::{fmt, str::FromStr};

use crate::PodKey;

/// One note: whose lease ended, and when. One small file each, in the folder of release notes.
///
/// As text: `eni-cni:1 NETWORK CONTAINER INTERFACE MILLISECONDS` and a line feed. No part can contain white space.
/// The file is written under a name that begins with `.` and then renamed, so that a note is whole or not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseNote {
    /// Whose lease it was.
    pub key: PodKey,
    /// When it ended, in milliseconds since the Unix epoch.
    pub at_milliseconds: u64,
}

/// Text that is no release note.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a release note of the form `eni-cni:1 NETWORK CONTAINER INTERFACE MILLISECONDS`")]
pub struct InvalidNote(String);

impl ReleaseNote {
    /// Name of the note's file: the same for the same key, so that a repeated DEL replaces it.
    #[must_use]
    pub fn file_name(&self) -> String {
        crate::link::short_hash(&self.key.to_string(), 20)
    }
}

impl fmt::Display for ReleaseNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        writeln!(f, "eni-cni:1 {} {} {} {}", key.network(), key.container_id(), key.interface(), self.at_milliseconds)
    }
}

impl FromStr for ReleaseNote {
    type Err = InvalidNote;

    fn from_str(text: &str) -> Result<Self, InvalidNote> {
        parse(text).ok_or_else(|| InvalidNote(text.chars().take(200).collect()))
    }
}

fn parse(text: &str) -> Option<ReleaseNote> {
    let mut fields = text.strip_prefix("eni-cni:1 ")?.split_whitespace();
    let key = PodKey::new(fields.next()?, fields.next()?, fields.next()?).ok()?;
    let at_milliseconds = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(ReleaseNote { key, at_milliseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_as_written() {
        let note = ReleaseNote { key: PodKey::new("pods", "c1", "eth0").unwrap(), at_milliseconds: 1_795_270_927_000 };
        assert_eq!(note.to_string(), "eni-cni:1 pods c1 eth0 1795270927000\n");
        assert_eq!(note.to_string().parse(), Ok(note));
    }

    #[test]
    fn half_a_note_is_none() {
        for bad in ["", "eni-cni:1 pods c1 eth0", "eni-cni:1 pods c1 eth0 x", "eni-cni:1 pods c1 eth0 1 2"] {
            assert!(bad.parse::<ReleaseNote>().is_err(), "{bad}");
        }
    }
}
