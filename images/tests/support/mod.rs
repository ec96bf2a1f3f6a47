//! Archives and images for tests, written with nothing of the code under test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can not go on panics"
)]

pub mod server;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use berth_images::{Image, ImageError, ImportSource, Store, StoreOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A tar archive, entry by entry, as hostile as one likes.
#[derive(Clone, Default)]
pub struct Tar {
    bytes: Vec<u8>,
}

/// What an entry's header says.
#[derive(Clone, Copy)]
pub struct Header<'a> {
    pub name: &'a str,
    pub flag: u8,
    pub link: &'a str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub device: (u32, u32),
}

impl<'a> Header<'a> {
    pub fn new(name: &'a str, flag: u8) -> Self {
        let mode = if flag == b'5' { 0o755 } else { 0o644 };
        Self {
            name,
            flag,
            link: "",
            mode,
            uid: 0,
            gid: 0,
            mtime: 1_000_000_000,
            device: (0, 0),
        }
    }
}

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn file(self, name: &str, contents: &str) -> Self {
        self.entry(Header::new(name, b'0'), contents.as_bytes())
    }

    pub fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(
            Header {
                mode,
                ..Header::new(name, b'5')
            },
            b"",
        )
    }

    pub fn symlink(self, name: &str, link: &str) -> Self {
        self.entry(
            Header {
                link,
                ..Header::new(name, b'2')
            },
            b"",
        )
    }

    pub fn hard_link(self, name: &str, link: &str) -> Self {
        self.entry(
            Header {
                link,
                ..Header::new(name, b'1')
            },
            b"",
        )
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut contents = Vec::new();
        for (key, value) in records {
            let rest = 1 + key.len() + 1 + value.len() + 1;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            contents.extend(format!("{length} {key}=").bytes());
            contents.extend(*value);
            contents.push(b'\n');
        }
        self.entry(Header::new("pax", b'x'), &contents)
    }

    pub fn entry(mut self, header: Header, contents: &[u8]) -> Self {
        let mut block = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &header.name.as_bytes()[..header.name.len().min(100)]);
        put(100, format!("{:07o}", header.mode).as_bytes());
        put(108, format!("{:07o}", header.uid).as_bytes());
        put(116, format!("{:07o}", header.gid).as_bytes());
        put(124, format!("{:011o}", contents.len()).as_bytes());
        put(136, format!("{:011o}", header.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[header.flag]);
        put(157, header.link.as_bytes());
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", header.device.0).as_bytes());
        put(337, format!("{:07o}", header.device.1).as_bytes());
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.bytes.extend(block);
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else {
        "arm64"
    }
}

/// An image in pieces: blobs by digest.
#[derive(Clone, Default)]
pub struct TestImage {
    pub blobs: Vec<(String, Vec<u8>)>,
    pub config: String,
    pub manifest: String,
    pub layers: Vec<String>,
}

impl TestImage {
    /// An OCI image of these layers: uncompressed tar, as transferred, and the end of its media type.
    pub fn new(layers: &[(Vec<u8>, Vec<u8>, &str)]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|(tar, _, _)| digest(tar)).collect();
        Self::with_diff_ids(layers, &diff_ids)
    }

    pub fn gzipped(layers: Vec<Vec<u8>>) -> Self {
        let layers: Vec<_> = layers
            .into_iter()
            .map(|tar| (tar.clone(), gzip(&tar), "+gzip"))
            .collect();
        Self::new(&layers)
    }

    pub fn with_diff_ids(layers: &[(Vec<u8>, Vec<u8>, &str)], diff_ids: &[String]) -> Self {
        let mut image = Self::default();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        image.config = image.add(config.to_string().into_bytes());
        let config_size = image.blobs[0].1.len();
        let mut described = Vec::new();
        for (_, packed, kind) in layers {
            let at = image.add(packed.clone());
            described.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{kind}"), "digest": at, "size": packed.len(),
            }));
            image.layers.push(at);
        }
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.config, "size": config_size},
            "layers": described,
        });
        image.manifest = image.add(manifest.to_string().into_bytes());
        image
    }

    fn add(&mut self, bytes: Vec<u8>) -> String {
        let at = digest(&bytes);
        self.blobs.push((at.clone(), bytes));
        at
    }

    pub fn blob(&self, at: &str) -> &[u8] {
        &self.blobs.iter().find(|(digest, _)| digest == at).unwrap().1
    }

    pub fn index(&self, name: &str) -> Value {
        json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.manifest,
            "size": self.blob(&self.manifest).len(), "annotations": {"io.containerd.image.name": name},
        }]})
    }

    /// Path and contents of an OCI layout's files.
    pub fn layout(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<(String, Vec<u8>)> = self
            .blobs
            .iter()
            .map(|(at, bytes)| (format!("blobs/{}", at.replace(':', "/")), bytes.clone()))
            .collect();
        files.push((
            "oci-layout".to_owned(),
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        ));
        files.push(("index.json".to_owned(), self.index(name).to_string().into_bytes()));
        files
    }

    pub fn archive(&self, name: &str) -> Vec<u8> {
        pack(&self.layout(name))
    }

    pub fn directory(&self, name: &str, at: &Path) {
        for (path, bytes) in self.layout(name) {
            let path = at.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

pub fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    files
        .iter()
        .fold(Tar::new(), |tar, (path, bytes)| {
            tar.entry(Header::new(path, b'0'), bytes)
        })
        .bytes()
}

/// A store in a directory of its own.
pub struct TestStore {
    // Dropped first: it still writes to the directory.
    pub store: Store,
    pub directory: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    pub fn with(options: StoreOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open_with(&directory.path().join("images"), options).unwrap();
        Self { store, directory }
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    pub fn import(&self, archive: Vec<u8>) -> Result<Vec<Image>, ImageError> {
        self.store.import(
            ImportSource::Stream(Box::new(std::io::Cursor::new(archive))),
            None,
            &|_| {},
        )
    }

    /// Imports an image of these uncompressed layers.
    pub fn layers(&self, layers: Vec<Vec<u8>>) -> Result<Image, ImageError> {
        let image = TestImage::gzipped(layers);
        Ok(self.import(image.archive("test.local/image:1"))?.remove(0))
    }

    /// Everything that is on the disk but no part of an image.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        leftovers(&self.root())
    }
}

/// Files of an empty store that should not be there.
pub fn leftovers(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in ["ingest", "snapshots", "blobs/sha256", "blobs/sha512", "leases"] {
        found.extend(
            fs::read_dir(root.join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
    }
    found
}
