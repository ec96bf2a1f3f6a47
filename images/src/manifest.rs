//! Manifests, indexes and configurations, from documents that anybody may have written.

use std::collections::BTreeMap;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::{Platform, host_level};

/// The largest manifest or index that is read: what registries allow.
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// The largest configuration.
pub(crate) const MAX_CONFIG: u64 = 8 << 20;
/// More layers than overlayfs can stack.
const MAX_LAYERS: usize = 500;

pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a registry is asked for.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// Media types of layers, without what they are compressed with: that is told from their bytes.
const LAYERS: [&str; 4] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
];
const COMPRESSIONS: [&str; 4] = ["", "+gzip", "+zstd", ".gzip"];

/// A reference to content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) platform: Option<Platform>,
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A document of one of the manifest media types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// One image.
    Image {
        config: Descriptor,
        layers: Vec<Descriptor>,
    },
    /// Images to choose from.
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest {
    schema_version: u32,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest. What could be read as two kinds of document is refused (CVE-2021-41190).
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: RawManifest =
            serde_json::from_slice(bytes).map_err(|e| format!("it is not a manifest: {e}"))?;
        if raw.schema_version != 2 {
            return Err(format!(
                "its schema version is {}: ask the registry's owner to convert it to version 2",
                raw.schema_version
            ));
        }
        let media_type = raw.media_type.as_deref().unwrap_or("");
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) if matches!(media_type, "" | OCI_INDEX | DOCKER_LIST) => {
                Ok(Self::Index(
                    manifests
                        .into_iter()
                        .map(RawDescriptor::check)
                        .collect::<Result<_, _>>()?,
                ))
            }
            (None, Some(config), Some(layers))
                if matches!(media_type, "" | OCI_MANIFEST | DOCKER_MANIFEST) =>
            {
                Self::image(config.check()?, layers)
            }
            (None, Some(_), None) => Err("it has no layers: it is an artifact, not an image".to_owned()),
            _ => Err(format!(
                "it is neither an image nor an index of images (media type {media_type:?})"
            )),
        }
    }

    fn image(config: Descriptor, layers: Vec<RawDescriptor>) -> Result<Self, String> {
        if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(format!(
                "its configuration is {:?}: it is an artifact, not an image",
                config.media_type
            ));
        }
        if config.size > MAX_CONFIG {
            return Err(format!(
                "its configuration has {} bytes, more than {MAX_CONFIG}",
                config.size
            ));
        }
        if layers.len() > MAX_LAYERS {
            return Err(format!(
                "it has {} layers, and overlayfs stacks up to {MAX_LAYERS}",
                layers.len()
            ));
        }
        let layers: Vec<Descriptor> = layers
            .into_iter()
            .map(RawDescriptor::check)
            .collect::<Result<_, _>>()?;
        match layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            Some(layer) => Err(format!(
                "layer {} has the unsupported media type {:?}",
                layer.digest, layer.media_type
            )),
            None => Ok(Self::Image { config, layers }),
        }
    }
}

impl RawDescriptor {
    fn check(self) -> Result<Descriptor, String> {
        Ok(Descriptor {
            media_type: self.media_type,
            digest: self.digest.parse()?,
            size: self.size,
            platform: self.platform,
            annotations: self.annotations.unwrap_or_default(),
        })
    }
}

fn is_layer(media_type: &str) -> bool {
    LAYERS.iter().any(|base| {
        media_type
            .strip_prefix(base)
            .is_some_and(|rest| COMPRESSIONS.contains(&rest))
    })
}

/// The entry of an index that runs best here. Entries that name no platform are last.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], image: &str) -> Result<&'a Descriptor, ImageError> {
    let host = Platform::host();
    let level = host_level();
    let rank = |entry: &Descriptor| {
        entry
            .platform
            .as_ref()
            .map_or(Some(u8::MAX), |p| p.rank(&host, level))
    };
    let best = entries
        .iter()
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    best.map(|(_, entry)| entry).ok_or_else(|| {
        let offered: Vec<String> = entries
            .iter()
            .filter_map(|e| e.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        ImageError::Unsupported(format!(
            "{image} is not made for this machine, {host}; it is for {}",
            if offered.is_empty() {
                "no platform at all".to_owned()
            } else {
                offered.join(", ")
            }
        ))
    })
}

/// Reads an image's configuration: it must be for this machine, and have a diff id for each layer.
pub(crate) fn read_config(bytes: &[u8], layers: usize, image: &str) -> Result<Vec<Digest>, ImageError> {
    let bad =
        |why: String| ImageError::Unsupported(format!("{image} can't be used: its configuration {why}"));
    let config: ImageConfiguration =
        serde_json::from_slice(bytes).map_err(|e| bad(format!("can't be read: {e}")))?;
    let platform = Platform {
        os: config.os().to_string(),
        architecture: config.architecture().to_string(),
        variant: config.variant().clone(),
    };
    let host = Platform::host();
    if platform.rank(&host, host_level()).is_none() {
        return Err(bad(format!(
            "says that it is for {platform}, and this machine is {host}"
        )));
    }
    let diff_ids = config.rootfs().diff_ids();
    if diff_ids.len() != layers {
        return Err(bad(format!(
            "has {} layers, and its manifest {layers}",
            diff_ids.len()
        )));
    }
    if layers == 0 {
        return Err(bad("has no layers, so that there is nothing to run".to_owned()));
    }
    diff_ids.iter().map(|text| text.parse().map_err(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn manifest(layer: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"{OCI_CONFIG}","digest":"{D}","size":2}},
                "layers":[{{"mediaType":"{layer}","digest":"{D}","size":0}}]}}"#
        )
    }

    #[test]
    fn layer_media_types_of_oci_and_docker_are_known() {
        for good in [
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        ] {
            assert!(Manifest::parse(manifest(good).as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/vnd.oci.image.layer.v1.tar+encrypted",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        ] {
            assert!(Manifest::parse(manifest(bad).as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn documents_that_are_no_image_are_refused() {
        let both = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{D}","size":2}},"layers":[],"manifests":[]}}"#
        );
        let mixed = manifest(OCI_LAYER).replace(
            "\"schemaVersion\":2",
            &format!("\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\""),
        );
        let negative = manifest(OCI_LAYER).replace("\"size\":0", "\"size\":-1");
        let digest = manifest(OCI_LAYER).replace(&D[..20], "sha256:../../../../x");
        let artifact = manifest(OCI_LAYER).replace(OCI_CONFIG, "application/vnd.cncf.helm.config.v1+json");
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"schemaVersion":1}"#,
            r#"{"schemaVersion":2}"#,
            &both,
            &mixed,
            &negative,
            &digest,
            &artifact,
        ] {
            assert!(Manifest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Manifest::parse("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn the_platform_decides() {
        let entry = |architecture: &str, size: u64| Descriptor {
            media_type: OCI_MANIFEST.to_owned(),
            digest: D.parse().unwrap(),
            size,
            platform: (!architecture.is_empty()).then(|| Platform {
                os: "linux".to_owned(),
                architecture: architecture.to_owned(),
                variant: None,
            }),
            annotations: BTreeMap::new(),
        };
        let host = Platform::host().architecture;
        let entries = [entry("", 1), entry("riscv64", 2), entry(&host, 3)];
        assert_eq!(choose(&entries, "x").unwrap().size, 3);
        assert_eq!(choose(&entries[..2], "x").unwrap().size, 1);
        let error = choose(&entries[1..2], "x").unwrap_err();
        assert!(
            matches!(error, ImageError::Unsupported(_)) && error.to_string().contains("riscv64"),
            "{error}"
        );
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(text in "[\\[\\]{}:,\"0-9a-z -]{0,200}") {
            let _ = Manifest::parse(text.as_bytes());
        }
    }
}
