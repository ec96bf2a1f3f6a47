//! `emptyDir`: a directory that lives as long as the pod, on disk, in memory or in huge pages.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::ownership::{self, Once};
use super::{Context, PodDir, VolumeError, mounts};
use crate::spec;

pub(super) const PLUGIN: &str = "kubernetes.io/empty-dir";

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    path_in(context.dir, name)
}

/// Where a volume of this kind is in a pod's directory.
pub(super) fn path_in(dir: &PodDir, name: &str) -> PathBuf {
    dir.volume(PLUGIN, name)
}

/// Makes the volume, or finds it made.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &EmptyDirVolumeSource,
) -> Result<(), VolumeError> {
    let path = path(context, name);
    std::fs::create_dir_all(&path).map_err(VolumeError::io("make the directory", &path))?;
    match source.medium.as_deref().unwrap_or_default() {
        "" => std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .map_err(VolumeError::io("set the mode of", &path))?,
        "Memory" => {
            if !mounts::is_mount_point(&path).map_err(VolumeError::io("look at", &path))? {
                let size = memory_size(context, source);
                mounts::mount_tmpfs(&path, size, None).map_err(VolumeError::io("mount a tmpfs at", &path))?;
            }
        }
        medium => {
            let page = page_size(context, name, medium)?;
            if !mounts::is_mount_point(&path).map_err(VolumeError::io("look at", &path))? {
                mounts::mount_hugetlbfs(&path, page, limit(source))
                    .map_err(VolumeError::io("mount a hugetlbfs at", &path))?;
            }
        }
    }
    // What is in memory goes with the machine's restart.
    let once = match source.medium.as_deref().unwrap_or_default() {
        "" => Once::PerPod,
        _ => Once::PerBoot,
    };
    ownership::set_once(context, name, &path, once)
}

/// The least of the volume's limit, the pod's memory limit and the machine's memory.
fn memory_size(context: &Context<'_>, source: &EmptyDirVolumeSource) -> Option<u64> {
    let limit = limit(source);
    let capacity = Some(context.node.memory_capacity).filter(|&bytes| bytes > 0);
    [limit, context.pod_memory_limit(), capacity]
        .into_iter()
        .flatten()
        .min()
}

fn limit(source: &EmptyDirVolumeSource) -> Option<u64> {
    source
        .size_limit
        .as_ref()
        .and_then(super::quantity_bytes)
        .filter(|&bytes| bytes > 0)
}

/// The size of the pages of `HugePages` or `HugePages-<size>`, which the pod must have asked for.
fn page_size(context: &Context<'_>, name: &str, medium: &str) -> Result<u64, VolumeError> {
    let refused = |why: String| VolumeError::Unsupported(format!("volume \"{name}\": {why}"));
    let requested = requested_pages(context);
    match medium.strip_prefix("HugePages") {
        Some("") => match requested.len() {
            1 => Ok(requested.into_iter().next().unwrap_or_default()),
            0 => Err(refused(
                "medium HugePages requested, but there is no resource request for huge pages".to_owned(),
            )),
            _ => Err(refused(
                "medium HugePages can't be used when the pod requests several sizes of huge pages; say HugePages-<size>"
                    .to_owned(),
            )),
        },
        Some(size) => {
            let bytes = size
                .strip_prefix('-')
                .and_then(|size| super::quantity_bytes(&Quantity(size.to_owned())));
            let bytes = bytes.ok_or_else(|| refused(format!("medium {medium} names no size")))?;
            if requested.contains(&bytes) {
                return Ok(bytes);
            }
            Err(refused(format!(
                "medium {medium} requested, but there is no resource request for huge pages of that size"
            )))
        }
        None => Err(refused(format!(
            "the emptyDir medium \"{medium}\" is not supported; leave it out, or use Memory or HugePages"
        ))),
    }
}

/// The sizes of huge pages that the pod's containers, or the pod itself, ask for.
fn requested_pages(context: &Context<'_>) -> BTreeSet<u64> {
    let of_pod = context.pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let of_containers =
        spec::all_containers(context.pod).filter_map(|(container, _)| container.resources.as_ref());
    of_containers
        .chain(of_pod)
        .flat_map(|resources| [&resources.requests, &resources.limits])
        .flatten()
        .flatten()
        .filter_map(|(name, _)| {
            let size = name.strip_prefix("hugepages-")?;
            super::quantity_bytes(&Quantity(size.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PodUid;
    use crate::plan::{NodeFacts, Objects};
    use crate::testing::pod;
    use crate::volumes::PodDir;

    fn with_context<T>(spec: &str, root: &std::path::Path, act: impl FnOnce(&Context<'_>) -> T) -> T {
        let pod = pod(spec);
        let dir = PodDir::new(root, &PodUid("u".into()));
        act(&Context {
            pod: &pod,
            objects: &Objects::default(),
            dir: &dir,
            node: &NodeFacts::default(),
            setting_up: None,
        })
    }

    #[test]
    fn memory_is_what_the_pod_s_group_may_have() {
        let size = |more: &str, limit: Option<&str>| {
            let spec = format!(r#"{{"containers":[{{"name":"c","image":"i"}}]{more}}}"#);
            let source = EmptyDirVolumeSource {
                medium: Some("Memory".into()),
                size_limit: limit.map(|text| Quantity(text.to_owned())),
            };
            with_context(&spec, std::path::Path::new("/nonexistent"), |context| {
                memory_size(context, &source)
            })
        };
        assert_eq!(size("", None), None);
        assert_eq!(size("", Some("1Mi")), Some(1 << 20));
        let whole = r#","resources":{"limits":{"memory":"64Mi"}}"#;
        assert_eq!(size(whole, None), Some(64 << 20));
        assert_eq!(size(whole, Some("1Mi")), Some(1 << 20));
        assert_eq!(size(whole, Some("1Gi")), Some(64 << 20));
    }

    #[test]
    fn what_a_container_made_of_its_files_stays_over_a_restart_of_the_node() {
        use std::os::unix::fs::MetadataExt;
        let root = tempfile::tempdir().unwrap();
        let spec = r#"{"securityContext":{"fsGroup":4242},"containers":[{"name":"c","image":"i"}]}"#;
        with_context(spec, root.path(), |context| {
            context.dir.create(context.pod).unwrap();
            for medium in [None, Some("Memory".to_owned())] {
                let name = medium.as_deref().unwrap_or("disk").to_lowercase();
                let source = EmptyDirVolumeSource {
                    medium,
                    size_limit: None,
                };
                set_up(context, &name, &source).unwrap();
                let volume = path(context, &name);
                assert_eq!(volume.metadata().unwrap().gid(), 4242);
                // As databases want it.
                let private = volume.join("private");
                std::fs::create_dir(&private).unwrap();
                std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
                set_up(context, &name, &source).unwrap();
                assert_eq!(private.metadata().unwrap().mode() & 0o7777, 0o700, "{name}");
            }
            context.dir.remove().unwrap();
        });
    }

    fn spec(limits: &str) -> String {
        format!(r#"{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{{limits}}}}}}}]}}"#)
    }

    #[test]
    fn pages_are_as_large_as_the_pod_asked_for() {
        let (one, two) = (
            spec(r#""hugepages-2Mi":"4Mi""#),
            spec(r#""hugepages-2Mi":"4Mi","hugepages-1Gi":"1Gi""#),
        );
        let size = |spec: &str, medium: &str| {
            let root = std::path::Path::new("/nonexistent");
            with_context(spec, root, |context| page_size(context, "v", medium))
        };
        assert_eq!(size(&one, "HugePages").unwrap(), 2 << 20);
        assert_eq!(size(&two, "HugePages-1Gi").unwrap(), 1 << 30);
        for (spec, medium, needle) in [
            (&two, "HugePages", "several sizes"),
            (
                &one,
                "HugePages-1Gi",
                "no resource request for huge pages of that size",
            ),
            (&spec(""), "HugePages", "no resource request"),
            (&one, "HugePages-", "names no size"),
            (&one, "Tape", "not supported"),
        ] {
            let error = size(spec, medium).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn huge_pages_are_a_hugetlbfs_of_their_size() {
        // No page is taken from the machine: nothing is written.
        let sizes = std::fs::read_dir("/sys/kernel/mm/hugepages")
            .into_iter()
            .flatten();
        let kib = sizes.flatten().find_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix("hugepages-")?
                .strip_suffix("kB")?
                .parse::<u64>()
                .ok()
        });
        let kib = kib.expect("this kernel has huge pages");
        let dir = tempfile::tempdir().unwrap();
        let spec = spec(&format!(r#""hugepages-{kib}Ki":"{kib}Ki""#));
        let found = with_context(&spec, dir.path(), |context| {
            context.dir.create(context.pod).unwrap();
            let source = EmptyDirVolumeSource {
                medium: Some("HugePages".into()),
                size_limit: None,
            };
            set_up(context, "v", &source).unwrap();
            set_up(context, "v", &source).unwrap();
            let stat = rustix::fs::statfs(path(context, "v")).unwrap();
            context.dir.remove().unwrap();
            (stat.f_type, stat.f_bsize)
        });
        assert_eq!(found, (0x9584_58f6, i64::try_from(kib * 1024).unwrap()));
    }
}
