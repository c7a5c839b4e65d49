//! A container image made of single files: the OCI image layout as a tar archive, without Docker and without fetching anything.
//!
//! Source: github.com/opencontainers/image-spec v1.0, image-layout.md and config.md. The same files make the same bytes.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Trouble, tar::Archive};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image in the making: one layer, for one architecture.
#[derive(Debug, Default)]
pub struct Image {
    name: String,
    /// As OCI calls it: `amd64`, `arm64`.
    architecture: String,
    layer: Archive,
    /// Paths that are in the layer.
    there: BTreeSet<String>,
    config: Value,
    compressed: bool,
}

impl Image {
    /// An empty image for this machine's architecture. `name` has a host with a dot, or a runtime would look for it at a public registry.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        Self { name: name.to_owned(), architecture: architecture.to_owned(), config: json!({}), ..Self::default() }
    }

    /// Makes it one for another architecture, as `arm64`.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        architecture.clone_into(&mut self.architecture);
        self
    }

    /// Has the layer compressed, as a registry keeps it.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Adds a key of the image's run configuration, as `Entrypoint`.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    /// Adds a file of root's. `path` without a leading slash, at most 100 bytes long.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        if self.there.insert(path.to_owned()) {
            self.layer.file(path, mode, content);
        }
        self
    }

    /// Adds a symbolic link; both at most 100 bytes long.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        if self.there.insert(path.to_owned()) {
            self.layer.link(path, target);
        }
        self
    }

    /// Adds a program, and the shared libraries that it needs: none when it is static, as what is released.
    ///
    /// # Errors
    /// [`Trouble::Os`] when it or a library cannot be read.
    pub fn program(self, path: &str, source: &Path) -> Result<Self, Trouble> {
        let read = |path: &Path| fs::read(path).map_err(Trouble::os(format!("read {}", path.display())));
        let mut image = self.file(path, 0o755, &read(source)?);
        for library in libraries(source)? {
            image = image.file(library.trim_start_matches('/'), 0o755, &read(Path::new(&library))?);
        }
        Ok(image)
    }

    /// Writes the image to `path`. Returns the size of its layer as a registry keeps it, in bytes.
    ///
    /// # Errors
    /// [`Trouble::Os`] when it cannot be written, or gzip is not there.
    pub fn write(self, path: &Path) -> Result<usize, Trouble> {
        let name = self.name.clone();
        let parts = self.parts()?;
        write(path, &name, parts.listed, parts.blobs)?;
        Ok(parts.size)
    }

    fn parts(self) -> Result<Parts, Trouble> {
        let layer = self.layer.end();
        let config = json!({
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
            // Builders refuse to build upon an image whose layers have none.
            "history": [{ "comment": "single files" }],
        });
        let config = config.to_string().into_bytes();
        let (media_type, layer) = match self.compressed {
            true => (format!("{LAYER}+gzip"), gzip(&layer)?),
            false => (LAYER.to_owned(), layer),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor(&media_type, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut listed = descriptor(MANIFEST, &manifest);
        listed["platform"] = json!({ "architecture": self.architecture, "os": "linux" });
        Ok(Parts { size: layer.len(), listed, blobs: vec![layer, config, manifest] })
    }
}

/// An image as a registry keeps it.
struct Parts {
    /// Of the layer, in bytes.
    size: usize,
    /// How an index lists its manifest.
    listed: Value,
    blobs: Vec<Vec<u8>>,
}

/// Writes images of several architectures under the name of the first, of which a runtime takes the one for its machine.
/// Returns the sizes of their layers.
///
/// # Errors
/// As [`Image::write`].
pub fn write_for_all(images: Vec<Image>, path: &Path) -> Result<Vec<usize>, Trouble> {
    let name = images.first().map(|image| image.name.clone()).unwrap_or_default();
    let parts = images.into_iter().map(Image::parts).collect::<Result<Vec<_>, _>>()?;
    let sizes = parts.iter().map(|parts| parts.size).collect();
    let (listed, blobs): (Vec<_>, Vec<_>) = parts.into_iter().map(|parts| (parts.listed, parts.blobs)).unzip();
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": listed }).to_string().into_bytes();
    // An index of its own, because an archive has one entry for each name.
    write(path, &name, descriptor(INDEX, &index), blobs.into_iter().flatten().chain([index]))?;
    Ok(sizes)
}

/// Writes the archive of one image: `listed` describes it.
fn write(path: &Path, name: &str, mut listed: Value, blobs: impl IntoIterator<Item = Vec<u8>>) -> Result<(), Trouble> {
    listed["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });
    let mut archive = Archive::default();
    archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.file("index.json", 0o644, index.to_string().as_bytes());
    for blob in blobs {
        archive.file(&format!("blobs/{}", digest(&blob).replace(':', "/")), 0o644, &blob);
    }
    fs::write(path, archive.end()).map_err(Trouble::os(format!("write {}", path.display())))
}

/// Paths of the shared libraries that a program is linked with, the loader included. Source: glibc's ldd.
fn libraries(program: &Path) -> Result<Vec<String>, Trouble> {
    let output = Command::new("ldd").arg(program).output().map_err(Trouble::os("run ldd"))?;
    // A static program makes it fail.
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(said.lines().filter(|line| line.contains("(0x")).filter_map(path).collect())
}

/// Compresses without a name and a time, so that the same bytes give the same bytes.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut child = Command::new("gzip")
        .args(["-n", "-9", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(Trouble::os("run gzip"))?;
    let mut stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.as_mut().map(|stdin| stdin.write_all(bytes)));
        child.wait_with_output()
    });
    Ok(output.map_err(Trouble::os("run gzip"))?.stdout)
}

fn digest(blob: &[u8]) -> String {
    let hex: String = Sha256::digest(blob).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_same_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let written = |name: &str| {
            let path = directory.path().join(name);
            let image = Image::new("example.test/x:1").compressed().program("bin/sh", Path::new("/bin/sh")).unwrap();
            image.link("var/run", "../run").write(&path).unwrap();
            fs::read(path).unwrap()
        };
        assert!(written("a") == written("b"));
    }

    #[test]
    fn podman_finds_each_architecture_in_an_archive_of_several() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("both.tar");
        let image = |architecture| {
            let image = Image::new("example.test/x:1").architecture(architecture).compressed();
            image.file("licenses/x", 0o644, architecture.as_bytes())
        };
        assert_eq!(write_for_all(vec![image("amd64"), image("arm64")], &path).unwrap().len(), 2);
        let podman = |arguments: &[&str]| {
            let mut command = Command::new("podman");
            for (option, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
                command.arg(option).arg(directory.path().join(name));
            }
            command.args(["--storage-driver", "vfs", "--events-backend", "file"]).args(arguments);
            let output = command.output().unwrap();
            assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        for architecture in ["amd64", "arm64"] {
            let id = podman(&["pull", "--quiet", "--arch", architecture, &format!("oci-archive:{}", path.display())]);
            assert_eq!(podman(&["image", "inspect", "--format", "{{.Architecture}}", &id]), architecture);
        }
    }

    #[test]
    fn a_program_brings_its_libraries_and_a_static_one_none() {
        let libraries_of = |path: &str| libraries(Path::new(path)).unwrap();
        assert!(libraries_of("/bin/ls").iter().any(|path| path.contains("libc.so")), "{:?}", libraries_of("/bin/ls"));
        assert_eq!(libraries_of("/bin/busybox"), [""; 0], "Debian's busybox-static");
    }
}
