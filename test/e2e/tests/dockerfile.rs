//! `Dockerfile`, built by podman without a network on a stand-in for the image of Rust: its cargo writes the programs at once.
//!
//! What cargo does with the real sources is built by `make release`. Here: that the stages fit together, and that what comes out has the
//! files and the configuration of the image that `e2e::product` makes and the other tests run.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is not as it should be")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use e2e::{
    Binaries,
    image::Image,
    product::{self, About},
};
use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";
/// Says what it was asked, and writes the program where cargo would.
const CARGO: &str = r#"#!/bin/sh
echo "cargo $* with $RUSTFLAGS"
case "$*" in *'--package ipamd '*) path=release/ipamd ;; *'--profile plugin '*) path=plugin/eni-cni ;; esac
target="target/${*##*--target }"
mkdir -p "$target/${path%/*}"
echo program >"$target/$path"
chmod 755 "$target/$path"
"#;

/// podman with a store of its own.
struct Podman {
    folder: tempfile::TempDir,
}

impl Podman {
    fn run(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("podman");
        for (option, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.folder.path().join(name));
        }
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]).args(arguments);
        let output = command.output().unwrap();
        let said = [output.stdout.clone(), output.stderr].concat();
        assert!(output.status.success(), "podman {arguments:?}: {}", String::from_utf8_lossy(&said));
        String::from_utf8_lossy(if arguments[0] == "build" { &said } else { &output.stdout }).into_owned()
    }

    fn load(&self, image: Image, file: &str) {
        let path = self.folder.path().join(file);
        image.write(&path).unwrap();
        self.run(&["load", "--input", path.to_str().unwrap()]);
    }

    /// Paths in an image, and the part of its configuration that decides what runs.
    fn contents(&self, image: &str) -> (BTreeSet<PathBuf>, Value) {
        let mounted = PathBuf::from(self.run(&["image", "mount", image]).trim());
        let (mut found, mut folders) = (BTreeSet::new(), vec![mounted.clone()]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() && !path.is_symlink() {
                    true => folders.push(path),
                    false => drop(found.insert(path.strip_prefix(&mounted).unwrap().to_path_buf())),
                }
            }
        }
        let described: Value = serde_json::from_str(&self.run(&["image", "inspect", image])).unwrap();
        let mut config = described[0]["Config"].clone();
        config["Labels"].as_object_mut().unwrap().retain(|label, _| label.starts_with("org.opencontainers."));
        config.as_object_mut().unwrap().retain(|key, _| ["Entrypoint", "Cmd", "Env", "Labels"].contains(&key.as_str()));
        (found, config)
    }
}

/// A shell, what the build stage calls, and the certificates that Debian has there.
fn stand_in() -> Image {
    let image = Image::new("docker.io/library/rust:1.95-bookworm").program("bin/sh", Path::new(BUSYBOX)).unwrap();
    let image = ["mkdir", "cp", "ln", "chmod"]
        .iter()
        .fold(image, |image, applet| image.link(&format!("bin/{applet}"), "sh"))
        .file("bin/cargo", 0o755, CARGO.as_bytes())
        .file("etc/ssl/certs/ca-certificates.crt", 0o644, b"certificates");
    image.with("Env", json!(["PATH=/bin"]))
}

#[test]
fn the_dockerfile_makes_the_image_that_is_tested() {
    let podman = Podman { folder: tempfile::tempdir().unwrap() };
    podman.load(stand_in(), "rust.tar");
    let sources = podman.folder.path().join("sources");
    fs::create_dir(&sources).unwrap();
    for file in ["Dockerfile", "LICENSE"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file), sources.join(file)).unwrap();
    }
    for (architecture, target) in [("amd64", "x86_64-unknown-linux-gnu"), ("arm64", "aarch64-unknown-linux-gnu")] {
        let name = format!("example.test/eni-cni:{architecture}");
        let arguments = ["VERSION=0.1.0".to_owned(), "REVISION=abc".to_owned(), format!("TARGETARCH={architecture}")];
        let options = ["build", "--isolation", "chroot", "--network", "host", "--pull=never", "--tag", &name];
        let arguments = arguments.iter().flat_map(|argument| ["--build-arg", argument]);
        let line: Vec<&str> = options.into_iter().chain(arguments).chain([sources.to_str().unwrap()]).collect();
        let said = podman.run(&line);
        for package in ["--release --package ipamd", "--profile plugin --package eni-cni"] {
            let wanted = format!("cargo build --locked {package} --target {target} with -C target-feature=+crt-static");
            assert!(said.contains(&wanted), "{wanted} is not in {said}");
        }
    }

    let about = About {
        name: "example.test/product:1".to_owned(),
        version: "0.1.0".to_owned(),
        revision: "abc".to_owned(),
        ..About::default()
    };
    let binaries = Binaries { ipamd: BUSYBOX.into(), plugin: BUSYBOX.into() };
    podman.load(product::image(&binaries, &about).unwrap(), "product.tar");
    assert_eq!(podman.contents("example.test/eni-cni:amd64"), podman.contents("example.test/product:1"));
}
