//! The image inside the program: a root file system of one static file, for examples, probes and first steps. It needs
//! no registry and no network.

use berth_images::build::{File, single_layer};
use berth_images::{ImageError, Reference, Store};
use oci_spec::image::{Config, ConfigBuilder};

/// The image's name.
pub(crate) const NAME: &str = "berth.local/helper:latest";
/// The helper, which build.rs built.
const HELPER: &[u8] = include_bytes!(env!("BERTH_HELPER"));
/// Its commands, a line each: one link in `/bin` for each.
const VERBS: &str = include_str!("helper/verbs.txt");

/// Puts the image into the store. The same image again is only looked up.
pub(crate) fn import(store: &Store) -> Result<(), String> {
    let failed =
        |error: ImageError| format!("The built-in image {NAME} can't be put into the image store: {error}.");
    let name: Reference = NAME.parse().map_err(failed)?;
    let config =
        config().map_err(|error| format!("The built-in image has no valid configuration: {error}."))?;
    single_layer(store, &name, &files(), &config).map_err(failed)?;
    Ok(())
}

fn config() -> Result<Config, oci_spec::OciSpecError> {
    ConfigBuilder::default()
        .env(vec!["PATH=/bin".to_owned()])
        .entrypoint(vec!["/bin/berth-helper".to_owned()])
        .cmd(vec!["verbs".to_owned()])
        .build()
}

fn files() -> Vec<File> {
    let mut files = vec![
        File::directory("tmp", 0o1777),
        File::regular(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/:\nnobody:x:65534:65534:nobody:/:\n",
        ),
        File::regular("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
        File::regular("bin/berth-helper", 0o755, HELPER),
    ];
    files.extend(
        VERBS
            .lines()
            .map(|verb| File::symlink(&format!("bin/{verb}"), "berth-helper")),
    );
    files
}
