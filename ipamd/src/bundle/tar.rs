//! Writes tar archives: the ustar form, which every tar reads. Small enough that no crate is needed.

use std::io::{self, Write};

const BLOCK: usize = 512;
/// Everything lies in this folder of the archive.
const FOLDER: &str = "ipamd-support";

/// Appends a file.
///
/// # Errors
/// What writing says; and a name of more than 80 bytes, which the form has no place for.
pub(super) fn append(archive: &mut impl Write, name: &str, contents: &[u8]) -> io::Result<()> {
    let name = format!("{FOLDER}/{}", name.trim_start_matches('/'));
    if name.len() > 99 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too long")));
    }
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |text: &str, width: usize| {
        header.extend_from_slice(text.as_bytes());
        header.resize(header.len() + width - text.len(), 0);
    };
    field(&name, 100);
    field("0000600", 8);
    field("0000000", 8);
    field("0000000", 8);
    field(&format!("{:011o}", contents.len()), 12);
    field("00000000000", 12);
    // The checksum is taken with blanks in its own place.
    field("        ", 8);
    field("0", 1);
    field("", 100);
    field("ustar\u{0}00", 8);
    field("", BLOCK - 265);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let checksum = format!("{sum:06o}\u{0} ");
    header.splice(148..156, checksum.bytes());
    archive.write_all(&header)?;
    archive.write_all(contents)?;
    archive.write_all(&vec![0; contents.len().next_multiple_of(BLOCK) - contents.len()])
}

/// Ends the archive.
///
/// # Errors
/// What writing says.
pub(super) fn end(archive: &mut impl Write) -> io::Result<()> {
    archive.write_all(&[0; 2 * BLOCK])
}
