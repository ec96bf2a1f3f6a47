//! A container's own mounts: what is asked for, checked against the host, as OCI has it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use berth_shim::protocol::{ImageVolume, VOLUMES_DIR};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde_json::{Value, json};

use crate::engine::EngineError;
use crate::types::{IdMapping, ImageMount, Mount, MountPropagation, UserNamespace};

type Result<T> = std::result::Result<T, EngineError>;

/// The kernel's view of this thread's mounts, which may be others than the process's first one has.
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// What a container mounts.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// OCI mounts, in the order in which they were asked for.
    pub(super) mounts: Vec<Value>,
    /// The images that the shim has to mount for them.
    pub(super) volumes: Vec<ImageVolume>,
}

/// Refuses what makes no sense in a pod with that user namespace, whatever the host has.
pub(super) fn check(mounts: &[Mount], user: Option<&UserNamespace>) -> Result<()> {
    mounts.iter().try_for_each(|mount| check_one(mount, user))
}

fn check_one(mount: &Mount, user: Option<&UserNamespace>) -> Result<()> {
    let place = mount.container_path.display();
    let refuse = |reason: String| {
        Err(EngineError::InvalidArgument(format!(
            "The mount on {place} {reason}."
        )))
    };
    if mount.container_path.as_os_str().is_empty() {
        return Err(EngineError::InvalidArgument(
            "A mount lacks its container_path.".to_owned(),
        ));
    }
    let host_path = mount.host_path.as_path();
    match (&mount.image, host_path.as_os_str().is_empty()) {
        (None, true) => return refuse("has neither a host path nor an image".to_owned()),
        (Some(_), false) => return refuse("can't have both a host path and an image".to_owned()),
        (None, false) if !host_path.is_absolute() => {
            return refuse(format!(
                "has the host path {}, which is not absolute",
                host_path.display()
            ));
        }
        (Some(image), true) => {
            if !mount.readonly {
                return refuse("shows an image, and so has to be readonly".to_owned());
            }
            if image.sub_path.is_absolute() || image.sub_path.components().any(|c| c == Component::ParentDir)
            {
                return refuse(format!(
                    "has the image_sub_path {}, which has to be relative and without `..`",
                    image.sub_path.display()
                ));
            }
        }
        (None, false) => {}
    }
    if mount.recursive_read_only && !mount.readonly {
        return refuse("is recursive_read_only, and so has to be readonly".to_owned());
    }
    if mount.recursive_read_only && mount.propagation != MountPropagation::None {
        return refuse("is recursive_read_only, and so needs PROPAGATION_PRIVATE".to_owned());
    }
    if mount.uid_mappings.is_empty() != mount.gid_mappings.is_empty() {
        return refuse("needs uidMappings and gidMappings, or neither".to_owned());
    }
    // A kubelet maps all mounts of such a pod alike; an image's layers are mounted with its pod's ids in any case.
    let is_pods = |user: &UserNamespace| user.uids == mount.uid_mappings && user.gids == mount.gid_mappings;
    if mount.image.is_some() && !mount.uid_mappings.is_empty() && !user.is_some_and(is_pods) {
        return refuse("shows an image, and its uidMappings and gidMappings are not its pod's".to_owned());
    }
    Ok(())
}

/// Makes the OCI mounts of a container whose bundle will be at `bundle`, and whose files have the SELinux label `label`,
/// unless that is empty. A missing host path becomes a directory, as in
/// containerd and cri-o, which a hostPath volume without a type relies on.
pub(super) fn prepare(
    mounts: &[Mount],
    (bundle, label): (&Path, &str),
    layers: impl Fn(&ImageMount) -> Result<Vec<PathBuf>>,
) -> Result<Mounts> {
    let mut prepared = Mounts::default();
    for mount in mounts {
        let source = match &mount.image {
            Some(image) => {
                let number = prepared.volumes.len().to_string();
                prepared.volumes.push(ImageVolume {
                    lower: layers(image)?,
                    sub_path: image.sub_path.clone(),
                    label: label.to_owned(),
                });
                bundle.join(VOLUMES_DIR).join(number)
            }
            None => {
                make_missing(&mount.host_path)?;
                check_propagation(mount)?;
                mount.host_path.clone()
            }
        };
        prepared.mounts.push(bind(mount, &source));
    }
    Ok(prepared)
}

fn make_missing(path: &Path) -> Result<()> {
    let made = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o755).create(path)
        }
        other => other.map(drop),
    };
    made.map_err(|error| {
        EngineError::InvalidArgument(format!(
            "The host path {} of a mount can't be used: {error}.",
            path.display()
        ))
    })
}

/// A mount passes others on only if the host's does.
fn check_propagation(mount: &Mount) -> Result<()> {
    let (wanted, also): (&str, &[&str]) = match mount.propagation {
        MountPropagation::None => return Ok(()),
        MountPropagation::Bidirectional => ("shared", &["shared:"]),
        MountPropagation::HostToContainer => ("shared or slave", &["shared:", "master:"]),
    };
    let path = mount.host_path.as_path();
    let failed = |error: io::Error| {
        EngineError::Internal(format!(
            "The mount that holds {} can't be looked at: {error}.",
            path.display()
        ))
    };
    let id = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).map_err(|errno| failed(errno.into()))?;
    let mountinfo = fs::read_to_string(MOUNTINFO).map_err(failed)?;
    let Some((point, tags)) = peer_tags(&mountinfo, id.stx_mnt_id) else {
        return Err(failed(io::ErrorKind::NotFound.into()));
    };
    if tags
        .iter()
        .any(|tag| also.iter().any(|kind| tag.starts_with(kind)))
    {
        return Ok(());
    }
    Err(EngineError::FailedPrecondition(format!(
        "The mount on {} can't pass mounts on: its host path {} is mounted on {point}, which is not a {wanted} mount; `mount --make-rshared {point}` makes it one.",
        mount.container_path.display(),
        path.display(),
    )))
}

/// Where the mount of that id is, and its optional fields (`shared:1`), see proc_pid_mountinfo(5).
fn peer_tags(mountinfo: &str, id: u64) -> Option<(&str, Vec<&str>)> {
    let id = id.to_string();
    mountinfo.lines().find_map(|line| {
        let (before, _) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        (*fields.first()? == id).then_some(())?;
        Some((*fields.get(4)?, fields.get(6..).unwrap_or_default().to_vec()))
    })
}

fn bind(mount: &Mount, source: &Path) -> Value {
    let propagation = match mount.propagation {
        MountPropagation::None => "rprivate",
        MountPropagation::HostToContainer => "rslave",
        MountPropagation::Bidirectional => "rshared",
    };
    let access = match (mount.readonly, mount.recursive_read_only) {
        (true, true) => "rro",
        (true, false) => "ro",
        (false, _) => "rw",
    };
    let mut bind = json!({
        "destination": mount.container_path,
        "type": "bind",
        "source": source,
        "options": ["rbind", propagation, access],
    });
    for (name, map) in [
        ("uidMappings", &mount.uid_mappings),
        ("gidMappings", &mount.gid_mappings),
    ] {
        // An image's mount has its ids already.
        if !map.is_empty() && mount.image.is_none() {
            bind[name] = map.iter().map(id_mapping).collect();
        }
    }
    bind
}

fn id_mapping(map: &IdMapping) -> Value {
    json!({ "containerID": map.container, "hostID": map.host, "size": map.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> Mount {
        Mount {
            container_path: "/m".into(),
            host_path: path.into(),
            ..Default::default()
        }
    }

    fn image(sub_path: &str) -> Mount {
        Mount {
            container_path: "/m".into(),
            readonly: true,
            image: Some(ImageMount {
                image: "a".into(),
                sub_path: sub_path.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let map = vec![IdMapping {
            container: 0,
            host: 0,
            size: 1,
        }];
        let pods = UserNamespace {
            uids: vec![IdMapping {
                container: 0,
                host: 70_000,
                size: 9,
            }],
            gids: vec![IdMapping {
                container: 0,
                host: 80_000,
                size: 9,
            }],
        };
        let read_only = || Mount {
            readonly: true,
            recursive_read_only: true,
            ..host("/a")
        };
        let table = [
            (host("/a"), ""),
            (read_only(), ""),
            (image(""), ""),
            (image("a/b"), ""),
            (host(""), "neither a host path nor an image"),
            (host("a"), "not absolute"),
            (image("../a"), "without `..`"),
            (image("/a"), "relative"),
            (
                Mount {
                    host_path: "/a".into(),
                    ..image("")
                },
                "both",
            ),
            (
                Mount {
                    readonly: false,
                    ..image("")
                },
                "readonly",
            ),
            (
                Mount {
                    readonly: false,
                    ..read_only()
                },
                "has to be readonly",
            ),
            (
                Mount {
                    propagation: MountPropagation::HostToContainer,
                    ..read_only()
                },
                "PROPAGATION_PRIVATE",
            ),
            (
                Mount {
                    uid_mappings: map.clone(),
                    ..host("/a")
                },
                "uidMappings and gidMappings",
            ),
            (
                Mount {
                    uid_mappings: map.clone(),
                    gid_mappings: map.clone(),
                    ..host("/a")
                },
                "",
            ),
            (
                Mount {
                    uid_mappings: map.clone(),
                    gid_mappings: map,
                    ..image("")
                },
                "not its pod's",
            ),
            (
                Mount {
                    uid_mappings: pods.uids.clone(),
                    gid_mappings: pods.gids.clone(),
                    ..image("")
                },
                "",
            ),
            (
                Mount {
                    container_path: PathBuf::new(),
                    ..host("/a")
                },
                "container_path",
            ),
        ];
        for (mount, expected) in table {
            match check(std::slice::from_ref(&mount), Some(&pods)) {
                Ok(()) => assert_eq!(expected, "", "{mount:?}"),
                Err(error) => {
                    assert!(
                        !expected.is_empty() && error.to_string().contains(expected),
                        "{error}"
                    );
                }
            }
        }
    }

    #[test]
    fn options_are_in_words() {
        let options = |mount: &Mount| bind(mount, Path::new("/s"))["options"].clone();
        assert_eq!(options(&host("/a")), json!(["rbind", "rprivate", "rw"]));
        let shared = Mount {
            propagation: MountPropagation::Bidirectional,
            readonly: true,
            ..host("/a")
        };
        assert_eq!(options(&shared), json!(["rbind", "rshared", "ro"]));
        let recursive = Mount {
            readonly: true,
            recursive_read_only: true,
            ..host("/a")
        };
        assert_eq!(options(&recursive), json!(["rbind", "rprivate", "rro"]));
        let map = vec![IdMapping {
            container: 0,
            host: 65536,
            size: 10,
        }];
        let mapped = Mount {
            uid_mappings: map.clone(),
            gid_mappings: map,
            ..host("/a")
        };
        assert_eq!(
            bind(&mapped, Path::new("/s"))["gidMappings"],
            json!([{ "containerID": 0, "hostID": 65536, "size": 10 }])
        );
    }

    #[test]
    fn images_are_found_in_the_bundle() {
        let mounts = [host("/"), image(""), image("etc")];
        let layers = |_: &ImageMount| Ok(vec![PathBuf::from("/layer")]);
        let prepared = prepare(&mounts, (Path::new("/run/s/containers/c"), ""), layers).unwrap();
        let sources: Vec<_> = prepared
            .mounts
            .iter()
            .map(|m| m["source"].as_str().unwrap())
            .collect();
        assert_eq!(
            sources,
            [
                "/",
                "/run/s/containers/c/volumes/0",
                "/run/s/containers/c/volumes/1"
            ]
        );
        assert_eq!(prepared.volumes[1].sub_path, Path::new("etc"));
    }

    #[test]
    fn a_missing_host_path_becomes_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        make_missing(&path).unwrap();
        assert!(path.is_dir());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        make_missing(&file).unwrap();
        assert!(
            make_missing(&file.join("x"))
                .unwrap_err()
                .to_string()
                .contains("file/x")
        );
    }

    #[test]
    fn the_tags_are_those_of_the_mount() {
        let mountinfo = "25 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                         30 25 0:26 /a /mnt rw shared:1 master:2 - tmpfs none rw,size=64k\n";
        assert_eq!(peer_tags(mountinfo, 25), Some(("/", vec![])));
        assert_eq!(
            peer_tags(mountinfo, 30),
            Some(("/mnt", vec!["shared:1", "master:2"]))
        );
        assert_eq!(peer_tags(mountinfo, 3), None);
    }
}
