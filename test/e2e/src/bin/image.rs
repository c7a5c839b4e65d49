//! Writes the container image that ships, without Docker: an OCI archive for containerd, podman or skopeo.

#![forbid(unsafe_code)]

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use e2e::{
    Binaries, Trouble,
    product::{self, About},
};

/// Writes the container image of eni-cni as an OCI archive.
#[derive(Debug, Parser)]
#[command(
    after_help = "Example: image --platform amd64=dist/amd64 --platform arm64=dist/arm64 --revision $(git rev-parse HEAD) --out eni-cni.tar"
)]
struct Arguments {
    /// Architecture, and the folder of its static programs `ipamd` and `eni-cni` and their bill of materials
    /// `materials.cdx.json`. May be given again: the image is for all of them.
    #[arg(long = "platform", value_name = "ARCHITECTURE=FOLDER", required = true, value_parser = platform)]
    platforms: Vec<(String, PathBuf)>,
    /// Name in the archive's index.
    #[arg(long, default_value = concat!("eni-cni.local/eni-cni:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Commit of the sources.
    #[arg(long, default_value = "")]
    revision: String,
    /// Most bytes of a compressed layer.
    #[arg(long, default_value_t = 25 * 1000 * 1000)]
    most: usize,
    /// The archive.
    #[arg(long)]
    out: PathBuf,
}

#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a command for people")]
fn main() -> ExitCode {
    match write(Arguments::parse()) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(trouble) => {
            eprintln!("image: {}", trouble.chain());
            ExitCode::FAILURE
        }
    }
}

fn platform(text: &str) -> Result<(String, PathBuf), String> {
    let (architecture, folder) = text.split_once('=').ok_or("give it as ARCHITECTURE=FOLDER")?;
    Ok((architecture.to_owned(), folder.into()))
}

fn write(arguments: Arguments) -> Result<String, Trouble> {
    let mut images = Vec::new();
    for (architecture, folder) in &arguments.platforms {
        let binaries = Binaries::find(Some(folder.join("ipamd")), Some(folder.join("eni-cni")))?;
        product::is_for(architecture, &binaries.ipamd)?;
        product::is_for(architecture, &binaries.plugin)?;
        let materials = folder.join("materials.cdx.json");
        let about = About {
            name: arguments.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: arguments.revision.clone(),
            materials: fs::read(&materials).map_err(Trouble::os(format!("read {}", materials.display())))?,
        };
        images.push(product::image(&binaries, &about)?.architecture(architecture));
    }
    let sizes = product::write_within(images, &arguments.out, arguments.most)?;
    let sizes: Vec<String> =
        arguments.platforms.iter().zip(sizes).map(|((name, _), size)| format!("{name} {size} bytes")).collect();
    let (path, sizes) = (arguments.out.display(), sizes.join(", "));
    Ok(format!("{path}: {sizes} compressed, at most {} are allowed", arguments.most))
}
