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
    after_help = "Example: image --ipamd ipamd --plugin eni-cni --revision $(git rev-parse HEAD) --out eni-cni.tar"
)]
struct Arguments {
    /// The daemon, static.
    #[arg(long)]
    ipamd: PathBuf,
    /// The plugin, static.
    #[arg(long)]
    plugin: PathBuf,
    /// Name in the archive's index.
    #[arg(long, default_value = concat!("eni-cni.local/eni-cni:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// Commit of the sources.
    #[arg(long, default_value = "")]
    revision: String,
    /// Bill of materials, as CycloneDX in JSON.
    #[arg(long)]
    materials: Option<PathBuf>,
    /// Most bytes of the compressed layer.
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

fn write(arguments: Arguments) -> Result<String, Trouble> {
    let binaries = Binaries::find(Some(arguments.ipamd), Some(arguments.plugin))?;
    let read = |path: PathBuf| fs::read(&path).map_err(Trouble::os(format!("read {}", path.display())));
    let about = About {
        name: arguments.name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: arguments.revision,
        materials: arguments.materials.map(read).transpose()?.unwrap_or_default(),
    };
    let size = product::write_within(product::image(&binaries, &about)?, &arguments.out, arguments.most)?;
    Ok(format!("{}: {size} bytes compressed, at most {} are allowed", arguments.out.display(), arguments.most))
}
