//! The image of pods: one static program that sleeps.

use std::path::Path;

use serde_json::json;

use crate::{Trouble, image::Image};

/// Name of the image. Its first part has a dot, or the runtime would look for it at a public registry.
pub(crate) const NAME: &str = "example.test/busybox:1";
/// The only program in the image, at the same path as on the machine. Source: Debian's busybox-static.
const PROGRAM: &str = "/bin/busybox";

/// Writes the image to `path`.
pub(crate) fn write(path: &Path) -> Result<(), Trouble> {
    let image = Image::new(NAME).program("bin/busybox", Path::new(PROGRAM))?;
    // Sleeps until it is killed: all that a sandbox needs to live.
    let image = image.with("Entrypoint", json!([PROGRAM])).with("Cmd", json!(["sleep", "2147483647"]));
    image.write(path).map(drop)
}
