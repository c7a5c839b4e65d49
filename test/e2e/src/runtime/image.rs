//! A container image made of one static program: the OCI image layout as a tar archive.
//!
//! Source: github.com/opencontainers/image-spec v1.0, image-layout.md and config.md.

use std::{fs, path::Path};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::Trouble;

/// Name of the image. Its first part has a dot, or the runtime would look for it at a public registry.
pub(crate) const NAME: &str = "example.test/busybox:1";
/// The only program in the image, at the same path as on the machine. Source: Debian's busybox-static.
const PROGRAM: &str = "/bin/busybox";
/// Size of a record of a tar archive, in bytes.
const RECORD: usize = 512;

/// Writes the image to `path`. Its digests are the same for the same program.
pub(crate) fn write(path: &Path) -> Result<(), Trouble> {
    let program = fs::read(PROGRAM).map_err(Trouble::os(format!("read {PROGRAM} of package busybox-static")))?;
    let mut layer = Archive::default();
    layer.add("bin/busybox", 0o755, &program);
    let layer = layer.end();

    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        // Sleeps until it is killed: all that a sandbox needs to live.
        "config": { "Entrypoint": [PROGRAM], "Cmd": ["sleep", "2147483647"] },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    listed["annotations"] = json!({ "io.containerd.image.name": NAME, "org.opencontainers.image.ref.name": NAME });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });

    let mut archive = Archive::default();
    archive.add("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.add("index.json", 0o644, index.to_string().as_bytes());
    for blob in [&layer, &config, &manifest] {
        archive.add(&format!("blobs/{}", digest(blob).replace(':', "/")), 0o644, blob);
    }
    fs::write(path, archive.end()).map_err(Trouble::os(format!("write {}", path.display())))
}

fn digest(blob: &[u8]) -> String {
    let hex: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

/// A tar archive. Source: POSIX.1-2017, pax, "ustar Interchange Format".
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    /// Adds a file of user 0 from the beginning of time. `name` has at most 100 bytes.
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        let mut header = [0_u8; RECORD];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", content.len()));
        put(136, "00000000000");
        // The checksum is made with its own field blank.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
        self.0.extend(content);
        self.pad();
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * RECORD]);
        self.0
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(RECORD), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn tar_reads_what_we_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        let mut archive = Archive::default();
        archive.add("folder/one", 0o755, b"first");
        archive.add("two", 0o644, &[b'x'; 600]);
        fs::write(&path, archive.end()).unwrap();

        let output = Command::new("tar").arg("-tvf").arg(&path).output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let words: Vec<Vec<&str>> = listing.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((words[0][0], words[0][2], words[0][5]), ("-rwxr-xr-x", "5", "folder/one"), "{listing}");
        assert_eq!((words[1][0], words[1][2], words[1][5]), ("-rw-r--r--", "600", "two"), "{listing}");
    }

    #[test]
    fn an_image_is_the_same_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let path = directory.path().join(name);
            write(&path).unwrap();
            fs::read(path).unwrap()
        };
        assert!(written("a") == written("b"));
    }
}
