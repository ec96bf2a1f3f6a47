//! The bundle that another runtime's program is given. It is the engine's, with what the shim does for its own containers
//! said in the configuration: the pod's namespaces by their paths, and the root file system and the host's files where they
//! are mounted for it, in the shim's mount namespace alone.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::Elsewhere;
use berth_runtime::cgroups::systemd::Scope;
use rustix::fs::{FileType, fstat};
use rustix::mount::{UnmountFlags, unmount};
use serde_json::{Value, json};

use crate::bundle::overlay;
use crate::error::RequestError;
use crate::protocol::{BUNDLES_DIR, CreateContainer, IdMapping, Rootfs, UserNamespace};
use crate::sandbox::Sandbox;
use crate::volumes;

/// The directory of the engine's bundle that is the program's.
const DIR: &str = "oci";
/// Where the root file system is mounted in it.
const ROOT: &str = "rootfs";
/// Where sources of bind mounts are mounted in it.
const SOURCES: &str = "mounts";

/// What was made of a bundle.
pub(super) struct Prepared {
    /// The program's bundle.
    pub(super) dir: PathBuf,
    pub(super) terminal: bool,
    /// The container's cgroup, relative to the root of each hierarchy.
    pub(super) cgroup: String,
    /// The scope that this is of, where systemd makes the control groups.
    pub(super) scope: Option<Scope>,
}

/// The directory of a container's bundle that is the program's.
pub(super) fn place(sandbox: &Path, container: &str) -> PathBuf {
    sandbox.join(BUNDLES_DIR).join(container).join(DIR)
}

/// Makes it.
pub(super) fn prepare(
    sandbox: &Sandbox,
    request: &CreateContainer,
    user: Option<&UserNamespace>,
    pid_target: Option<i32>,
) -> Result<Prepared, RequestError> {
    let dir = place(&sandbox.dir, &request.id);
    let made = prepare_in(&dir, sandbox, request, user, pid_target);
    if made.is_err() {
        remove(&dir);
    }
    made
}

fn prepare_in(
    dir: &Path,
    sandbox: &Sandbox,
    request: &CreateContainer,
    user: Option<&UserNamespace>,
    pid_target: Option<i32>,
) -> Result<Prepared, RequestError> {
    let bundle = sandbox.dir.join(BUNDLES_DIR).join(&request.id);
    let from = bundle.join("config.json");
    let unusable = |reason: &str| RequestError::Bundle {
        id: request.id.clone(),
        reason: reason.to_owned(),
    };
    let text = fs::read(&from).map_err(RequestError::io(format!("read {}", from.display())))?;
    let mut spec: Value =
        serde_json::from_slice(&text).map_err(|error| unusable(&format!("it is not JSON: {error}")))?;
    let (cgroup, scope) =
        cgroup_in(&spec).ok_or_else(|| unusable("linux.cgroupsPath is missing or no path"))?;
    if scope.is_none() {
        // Elsewhere than here a relative one begins at the group of who runs the program.
        spec["linux"]["cgroupsPath"] = json!(Path::new("/").join(&cgroup));
    }
    let made =
        |path: &Path| fs::create_dir_all(path).map_err(RequestError::io(format!("make {}", path.display())));
    made(&dir.join(SOURCES))?;
    if let Rootfs::Overlay { .. } = &request.rootfs {
        let place = dir.join(ROOT);
        made(&place)?;
        let namespace = sandbox.namespaces().user;
        let label = spec["linux"]["mountLabel"].as_str().unwrap_or_default();
        let root = overlay(&request.rootfs, namespace.is_some()).detached(&bundle, namespace, label)?;
        attach(&root, &place)?;
        spec["root"]["path"] = json!(place);
    }
    bring_sources(&mut spec, dir, &sandbox.sources())?;
    let held = held_namespaces(sandbox, pid_target);
    join_namespaces(&mut spec, &held, user);
    propagate(&mut spec);
    let to = dir.join("config.json");
    fs::write(&to, spec.to_string()).map_err(RequestError::io(format!("write {}", to.display())))?;
    Ok(Prepared {
        dir: dir.to_owned(),
        terminal: spec["process"]["terminal"].as_bool().unwrap_or_default(),
        cgroup,
        scope,
    })
}

/// The cgroup of the container whose bundle it is, while that is there.
pub(super) fn cgroup_of(dir: &Path) -> Option<String> {
    let text = fs::read(dir.join("config.json")).ok()?;
    Some(cgroup_in(&serde_json::from_slice(&text).ok()?)?.0)
}

/// The cgroup relative to the root of each hierarchy, and the scope that it is of where the path has systemd's form.
fn cgroup_in(spec: &Value) -> Option<(String, Option<Scope>)> {
    let path = spec["linux"]["cgroupsPath"].as_str()?;
    let scope = match path.contains(':') && !path.contains('/') {
        true => Some(Scope::parse(path, "", false).ok()?),
        false => None,
    };
    let path = match &scope {
        Some(scope) => scope.cgroup_path().ok()?,
        None => path.to_owned(),
    };
    let path = path.trim_start_matches('/');
    (!path.is_empty()).then(|| (path.to_owned(), scope))
}

/// Takes the mounts away, and the directory.
pub(super) fn remove(dir: &Path) {
    // What was never mounted need not be unmounted; what is busy goes with its last user.
    let sources = fs::read_dir(dir.join(SOURCES)).into_iter().flatten().flatten();
    for mounted in sources.map(|entry| entry.path()).chain([dir.join(ROOT)]) {
        let _ = unmount(&mounted, UnmountFlags::DETACH);
    }
    let _ = fs::remove_dir_all(dir);
}

fn attach(mount: &OwnedFd, place: &Path) -> Result<(), RequestError> {
    volumes::attach(mount, place)
        .map_err(io::Error::from)
        .map_err(RequestError::io(format!("mount {}", place.display())))
}

/// What the host mounted after the pod began is seen from the shim only where the host's mounts are shared: the sources
/// of bind mounts are brought along.
fn bring_sources(spec: &mut Value, dir: &Path, host: &Elsewhere<'_>) -> Result<(), RequestError> {
    let Some(mounts) = spec["mounts"].as_array_mut() else {
        return Ok(());
    };
    let mut binds: Vec<_> = mounts
        .iter_mut()
        .filter_map(|mount| Some((bind_of(mount)?, mount)))
        .collect();
    let sources: Vec<_> = binds.iter().map(|(source, _)| source.clone()).collect();
    for (number, (tree, (_, mount))) in host.copies(&sources)?.into_iter().zip(&mut binds).enumerate() {
        let Some(tree) = tree else { continue };
        let place = dir.join(SOURCES).join(number.to_string());
        make_place(&tree, &place).map_err(RequestError::io(format!("make {}", place.display())))?;
        attach(&tree, &place)?;
        mount["source"] = json!(place);
    }
    Ok(())
}

/// The source of a bind mount, and whether it is with all below it.
fn bind_of(mount: &Value) -> Option<(PathBuf, bool)> {
    let options = mount["options"].as_array();
    let has = |name: &str| options.is_some_and(|options| options.iter().any(|option| option == name));
    let bind = mount["type"] == "bind" || has("bind") || has("rbind");
    let source = Path::new(mount["source"].as_str()?);
    (bind && !has("remount") && source.is_absolute()).then(|| (source.to_owned(), has("rbind")))
}

fn make_place(tree: impl AsFd, place: &Path) -> io::Result<()> {
    let stat = fstat(tree)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        fs::create_dir(place)
    } else {
        fs::write(place, "")
    }
}

/// The namespaces of the pod that there are, by kind and path.
fn held_namespaces(sandbox: &Sandbox, pid_target: Option<i32>) -> Vec<(&'static str, String)> {
    let held = sandbox.namespaces();
    let pause = sandbox.pause_pid().unwrap_or(0);
    let kinds = [
        ("user", "user", held.user),
        ("network", "net", held.network),
        ("ipc", "ipc", held.ipc),
        ("uts", "uts", held.uts),
        ("pid", "pid", held.pid.filter(|_| pid_target.is_none())),
    ];
    let paths = kinds
        .into_iter()
        .filter_map(|(kind, file, held)| held.map(|_| (kind, format!("/proc/{pause}/ns/{file}"))));
    let target = pid_target.map(|pid| ("pid", format!("/proc/{pid}/ns/pid")));
    paths.chain(target).collect()
}

/// Has the container join namespaces; with a user namespace goes its map, which runtimes look at before they join it.
fn join_namespaces(spec: &mut Value, held: &[(&str, String)], user: Option<&UserNamespace>) {
    let linux = &mut spec["linux"];
    let join = |(kind, path): &(&str, String)| json!({ "type": kind, "path": path });
    let joined = held.iter().map(join);
    match linux["namespaces"].as_array_mut() {
        Some(namespaces) => {
            namespaces.retain(|own| !held.iter().any(|(kind, _)| own["type"] == *kind));
            namespaces.extend(joined);
        }
        None => linux["namespaces"] = joined.collect(),
    }
    let map = |ranges: &[IdMapping]| -> Value {
        let range = |range: &IdMapping| json!({ "containerID": range.container, "hostID": range.host, "size": range.size });
        ranges.iter().map(range).collect()
    };
    if let Some(user) = user {
        linux["uidMappings"] = map(&user.uids);
        linux["gidMappings"] = map(&user.gids);
    }
}

/// A mount hears of others, or passes them on, only if the root's propagation lets it.
fn propagate(spec: &mut Value) {
    let says = |names: [&str; 2]| {
        let mounts = spec["mounts"].as_array().into_iter().flatten();
        let mut options = mounts.filter_map(|mount| mount["options"].as_array()).flatten();
        options.any(|option| names.iter().any(|name| option == name))
    };
    let wanted = match (says(["rshared", "shared"]), says(["rslave", "slave"])) {
        (true, _) => "rshared",
        (false, true) => "rslave",
        (false, false) => return,
    };
    let linux = &mut spec["linux"];
    if linux["rootfsPropagation"].is_null() {
        linux["rootfsPropagation"] = json!(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_told_from_other_mounts() {
        let some = |source: &str, recursive| Some((PathBuf::from(source), recursive));
        for (mount, expected) in [
            (json!({ "type": "bind", "source": "/a" }), some("/a", false)),
            (
                json!({ "type": "bind", "source": "/a", "options": ["rbind", "ro"] }),
                some("/a", true),
            ),
            (
                json!({ "type": "none", "source": "/a", "options": ["bind"] }),
                some("/a", false),
            ),
            (
                json!({ "type": "bind", "source": "/a", "options": ["remount"] }),
                None,
            ),
            (json!({ "type": "bind", "source": "relative" }), None),
            (json!({ "type": "proc", "source": "proc" }), None),
            (json!({ "type": "tmpfs" }), None),
        ] {
            assert_eq!(bind_of(&mount), expected, "{mount}");
        }
    }

    #[test]
    fn the_pods_namespaces_are_joined_by_path() {
        let mut spec = json!({ "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] } });
        let held = [
            ("network", "/proc/7/ns/net".to_owned()),
            ("pid", "/proc/9/ns/pid".to_owned()),
        ];
        let map = vec![IdMapping {
            container: 0,
            host: 65536,
            size: 10,
        }];
        let user = UserNamespace {
            uids: map.clone(),
            gids: map,
        };
        join_namespaces(&mut spec, &held, Some(&user));
        let expected = json!([
            { "type": "mount" },
            { "type": "network", "path": "/proc/7/ns/net" },
            { "type": "pid", "path": "/proc/9/ns/pid" },
        ]);
        assert_eq!(spec["linux"]["namespaces"], expected);
        assert_eq!(
            spec["linux"]["gidMappings"],
            json!([{ "containerID": 0, "hostID": 65536, "size": 10 }])
        );
    }

    #[test]
    fn groups_are_paths_or_scopes() {
        let of = |path: &str| cgroup_in(&json!({ "linux": { "cgroupsPath": path } }));
        for path in ["/a/b", "a/b", "/a:b/c"] {
            assert_eq!(of(path), Some((path.trim_start_matches('/').to_owned(), None)));
        }
        let (path, scope) = of("a-b.slice:berth:c").unwrap();
        assert_eq!(path, "a.slice/a-b.slice/berth-c.scope");
        assert_eq!(scope.unwrap().unit, "berth-c.scope");
        for bad in ["", "/", "a:b", "a:b:c"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_root_passes_on_what_a_mount_is_to() {
        for (options, expected) in [
            (json!([["rprivate"], ["ro"]]), Value::Null),
            (json!([["rslave"], ["rprivate"]]), json!("rslave")),
            (json!([["rslave"], ["rshared"]]), json!("rshared")),
        ] {
            let mounts: Vec<Value> = options
                .as_array()
                .unwrap()
                .iter()
                .map(|options| json!({ "options": options }))
                .collect();
            let mut spec = json!({ "mounts": mounts, "linux": {} });
            propagate(&mut spec);
            assert_eq!(spec["linux"]["rootfsPropagation"], expected, "{options}");
        }
    }
}
