//! Images made by a test, of berth's helper and whatever files it wants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::program::program;

/// An image as an OCI image layout: one gzip layer with the helper as `/bin/berth-helper`.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The layout's directory.
    pub directory: PathBuf,
    /// The manifest's digest.
    pub manifest: String,
    /// The configuration's digest: the image's id.
    pub config: String,
    /// The layer's digest.
    pub layer: String,
}

impl Layout {
    /// Makes the layout of an image with these further files (`PATH`, `TEXT`) and this `config` object, named by its
    /// `org.opencontainers.image.ref.name`.
    ///
    /// # Panics
    /// If tar, gzip or sha256sum are missing.
    pub fn make(directory: &Path, name: &str, config: Value, files: &[(&str, &str)]) -> Self {
        Self::with_programs(directory, name, config, files, &[], &[])
    }

    /// The same with these further programs (`PATH`, the machine's file), and links (`PATH`, `TARGET`).
    ///
    /// # Panics
    /// As [`Layout::make`].
    pub fn with_programs(
        directory: &Path,
        name: &str,
        config: Value,
        files: &[(&str, &str)],
        programs: &[(&str, &Path)],
        links: &[(&str, &str)],
    ) -> Self {
        let tree = directory.with_extension("tree");
        fs::create_dir_all(tree.join("bin")).expect("the image's files");
        fs::copy(program("berth-helper"), tree.join("bin/berth-helper")).expect("the helper");
        for (path, program) in programs {
            fs::copy(program, tree.join(path)).expect("the image's programs");
        }
        for (path, target) in links {
            std::os::unix::fs::symlink(target, tree.join(path)).expect("the image's links");
        }
        for (path, text) in files {
            let path = tree.join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("it is below the tree"))
                .expect("the image's directories");
            fs::write(path, text).expect("the image's files");
        }
        let tar = directory.with_extension("layer.tar");
        let flags = [
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--mtime=@0",
        ];
        run(Command::new("tar")
            .args(flags)
            .arg("-C")
            .arg(&tree)
            .arg("-cf")
            .arg(&tar)
            .arg("."));
        let diff_id = digest(&tar);
        run(Command::new("gzip").arg("-nf").arg(&tar));
        let zipped = directory.with_extension("layer.tar.gz");

        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("the layout");
        let layer = digest(&zipped);
        let layer_size = fs::metadata(&zipped).expect("the layer").len();
        fs::rename(&zipped, blobs.join(&layer[7..])).expect("the layer's blob");
        let config = blob(
            &blobs,
            &json!({
                "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
                "os": "linux", "config": config, "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            }),
        );
        let manifest = blob(
            &blobs,
            &json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.0, "size": config.1 },
                "layers": [{
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": layer_size,
                }],
            }),
        );
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest.0, "size": manifest.1,
            "annotations": { "org.opencontainers.image.ref.name": name },
        }] });
        fs::write(directory.join("index.json"), index.to_string()).expect("the layout's index");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("the layout's mark");
        fs::remove_dir_all(tree).expect("the image's files can go");
        Self {
            directory: directory.to_owned(),
            manifest: manifest.0,
            config: config.0,
            layer,
        }
    }

    /// The layout as a tar archive.
    pub fn archive(&self) -> PathBuf {
        let archive = self.directory.with_extension("oci.tar");
        run(Command::new("tar")
            .arg("-C")
            .arg(&self.directory)
            .arg("-cf")
            .arg(&archive)
            .arg("."));
        archive
    }

    /// The path of a blob by its digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs").join(digest.replace(':', "/"))
    }
}

/// Writes JSON as a blob: its digest and size.
fn blob(blobs: &Path, value: &Value) -> (String, usize) {
    let text = value.to_string();
    let temporary = blobs.join("new");
    fs::write(&temporary, &text).expect("a blob");
    let digest = digest(&temporary);
    fs::rename(temporary, blobs.join(&digest[7..])).expect("a blob");
    (digest, text.len())
}

/// `sha256:…` of a file.
fn digest(file: &Path) -> String {
    let output = Command::new("sha256sum")
        .arg(file)
        .output()
        .expect("sha256sum of coreutils");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    format!("sha256:{}", text.split(' ').next().expect("a sum"))
}

fn run(command: &mut Command) {
    let status = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
