//! The image that ships: both programs, certificates of public authorities, licence; no shell, no package manager.
//!
//! It has the contents of the last stage of `Dockerfile`.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    Binaries, Trouble,
    image::{Image, write_for_all},
};

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

/// Says whether a program is for an architecture, as `arm64`.
///
/// # Errors
/// [`Trouble::Broken`] when it is not.
pub fn is_for(architecture: &str, program: &Path) -> Result<(), Trouble> {
    let content = fs::read(program).map_err(Trouble::os(format!("read {}", program.display())))?;
    // Source: System V ABI, "ELF Header", e_machine; EM_X86_64 and EM_AARCH64.
    let found = match content.get(18..20) {
        Some([62, 0]) => "amd64",
        Some([183, 0]) => "arm64",
        _ => "no architecture that we know",
    };
    match found == architecture {
        true => Ok(()),
        false => Err(Trouble::Broken(format!("{} is for {found}, not for {architecture}", program.display()))),
    }
}

/// Writes the image for one or more architectures and checks its size for each. Returns the sizes.
///
/// # Errors
/// [`Trouble::Broken`] when a layer is above `most` bytes; then it is written all the same.
pub fn write_within(images: Vec<Image>, path: &Path, most: usize) -> Result<Vec<usize>, Trouble> {
    let sizes = write_for_all(images.into_iter().map(Image::compressed).collect(), path)?;
    match sizes.iter().find(|size| **size > most) {
        None => Ok(sizes),
        Some(size) => Err(Trouble::Broken(format!("the image has {size} bytes, more than {most}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_for_another_machine_is_refused_by_name() {
        let own = std::env::current_exe().unwrap();
        let (this, other) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
        is_for(this, &own).unwrap();
        let refusal = is_for(other, &own).unwrap_err().to_string();
        assert!(refusal.ends_with(&format!("is for {this}, not for {other}")), "{refusal}");
    }
}
