//! The image that ships: both programs, certificates of public authorities, licence; no shell, no package manager.
//!
//! It has the contents of the last stage of `Dockerfile`.

use std::{fs, path::Path};

use serde_json::json;

use crate::{Binaries, Trouble, image::Image};

/// Debian's bundle, which `ca-certificates` makes.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const LICENSE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../LICENSE");

/// What the image says of itself.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Its whole name, as `REGISTRY/eni-cni:0.1.0`.
    pub name: String,
    /// Version of the programs.
    pub version: String,
    /// Commit of the sources.
    pub revision: String,
    /// Bill of materials as JSON; empty: none is put in.
    pub materials: Vec<u8>,
}

/// The image, ready to be written.
///
/// # Errors
/// [`Trouble::Os`] when a file cannot be read.
pub fn image(binaries: &Binaries, about: &About) -> Result<Image, Trouble> {
    let read = |path: &str| fs::read(path).map_err(Trouble::os(format!("read {path}")));
    let mut image = Image::new(&about.name)
        .program("bin/ipamd", &binaries.ipamd)?
        .program("bin/eni-cni", &binaries.plugin)?
        .file("etc/ssl/certs/ca-certificates.crt", 0o644, &read(CERTIFICATES)?)
        .file("licenses/LICENSE", 0o644, &read(LICENSE)?)
        // Runtimes name namespaces as /var/run/netns/..., and the host's /run/netns is mounted.
        .link("var/run", "../run");
    if !about.materials.is_empty() {
        image = image.file("licenses/materials.cdx.json", 0o644, &about.materials);
    }
    let labels = json!({
        "org.opencontainers.image.title": "eni-cni",
        "org.opencontainers.image.version": about.version,
        "org.opencontainers.image.revision": about.revision,
        "org.opencontainers.image.licenses": "Apache-2.0",
    });
    Ok(image
        .with("Entrypoint", json!(["/bin/ipamd"]))
        .with("Cmd", json!(["serve"]))
        .with("Env", json!(["PATH=/bin"]))
        .with("Labels", labels))
}

/// Writes the image and checks its size.
///
/// # Errors
/// [`Trouble::Broken`] when the layer is above `most` bytes; then it is written all the same.
pub fn write_within(image: Image, path: &Path, most: usize) -> Result<usize, Trouble> {
    let size = image.compressed().write(path)?;
    match size <= most {
        true => Ok(size),
        false => Err(Trouble::Broken(format!("the image has {size} bytes, more than {most}"))),
    }
}
