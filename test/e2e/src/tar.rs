//! A tar archive of root's files from the beginning of time. Source: POSIX.1-2017, pax, "ustar Interchange Format".

/// Size of a record, in bytes.
const RECORD: usize = 512;

/// A tar archive in the making. Names have at most 100 bytes.
#[derive(Debug, Default)]
pub(crate) struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file.
    pub(crate) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.header(name, mode, content.len(), "0", "");
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(RECORD), 0);
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, name: &str, target: &str) {
        self.header(name, 0o777, 0, "2", target);
    }

    /// Returns the archive's bytes.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * RECORD]);
        self.0
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: &str, target: &str) {
        let mut header = [0_u8; RECORD];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{size:011o}"));
        put(136, "00000000000");
        // The checksum is made with its own field blank.
        put(148, "        ");
        put(156, kind);
        put(157, target);
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[test]
    fn tar_reads_what_we_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let mut archive = Archive::default();
        archive.file("folder/one", 0o755, b"first");
        archive.file("two", 0o644, &[b'x'; 600]);
        archive.link("three", "two");
        fs::write(&path, archive.end()).unwrap();

        let output = Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((words[0][0], words[0][2], words[0][5]), ("-rwxr-xr-x", "5", "folder/one"), "{listing}");
        assert_eq!((words[1][0], words[1][2], words[1][5]), ("-rw-r--r--", "600", "two"), "{listing}");
        assert_eq!(words[2][5..], ["three", "->", "two"], "{listing}");
    }
}
