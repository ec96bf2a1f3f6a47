//! Where a sandbox's cgroups are, by the driver that makes them: plain groups below the pod's, or scopes of systemd's in
//! the pod's slice.

use std::path::{Path, PathBuf};

use berth_runtime::cgroups::Hierarchies;
use berth_runtime::cgroups::systemd::{Scope, slice_path};

use super::records::SandboxRecord;
use crate::engine::EngineError;
use crate::types::CgroupDriver;

/// Where pods go whose caller says nothing.
pub(super) const DEFAULT_PARENT: &str = "berth";
/// The same with systemd, which puts there what names no slice, as runc and CRI-O do.
pub(super) const DEFAULT_SLICE: &str = "system.slice";
/// What scopes' names begin with.
const PREFIX: &str = "berth";
const SLICE: &str = ".slice";
/// The slice of all slices, which is the root of each hierarchy.
const ROOT_SLICE: &str = "-.slice";
/// There while systemd is PID 1, see sd_booted(3).
const SYSTEMD_RUNS: &str = "/run/systemd/system";

impl CgroupDriver {
    /// What suits the host: systemd where it is PID 1 and has the one hierarchy of cgroup v2.
    ///
    /// That hierarchy has one manager: where systemd runs, it takes groups that it has not made for leftovers, and limits
    /// that it does not know for its own to reset. kubeadm's kubelets and CRI-O have this driver unless told otherwise;
    /// containerd wants to be told, which is what its manuals do first. On v1, systemd minds a hierarchy of its own, and
    /// a kubelet's own default of cgroupfs is the safer guess.
    #[must_use]
    pub fn of_host() -> Self {
        let unified = Hierarchies::get().is_ok_and(Hierarchies::is_unified);
        if unified && systemd_runs() {
            Self::Systemd
        } else {
            Self::Cgroupfs
        }
    }
}

/// Whether systemd is PID 1.
pub(super) fn systemd_runs() -> bool {
    Path::new(SYSTEMD_RUNS).is_dir()
}

/// The pod's cgroup, from what the caller says: a path, or a slice by its name or by its path. Relative to the root of
/// each hierarchy.
pub(super) fn parent(given: &Path, driver: CgroupDriver) -> Result<PathBuf, EngineError> {
    let refuse = |why: String| {
        Err(EngineError::InvalidArgument(format!(
            "The cgroup parent {} {why}.",
            given.display()
        )))
    };
    let name = given.file_name().map(|name| name.to_string_lossy());
    let slice = name.as_deref().filter(|name| name.ends_with(SLICE));
    match (driver, name.as_deref(), slice) {
        (CgroupDriver::Cgroupfs, None, _) => Ok(DEFAULT_PARENT.into()),
        (CgroupDriver::Systemd, None, _) => Ok(DEFAULT_SLICE.into()),
        (CgroupDriver::Cgroupfs, _, None) => Ok(given.to_owned()),
        (CgroupDriver::Cgroupfs, _, Some(_)) => refuse(
            "is a slice, as the cgroup driver systemd has them, and this runtime's driver is cgroupfs: set \
             cgroup_driver = \"systemd\" here, or cgroupDriver: cgroupfs in the kubelet's configuration"
                .to_owned(),
        ),
        (CgroupDriver::Systemd, _, None) => refuse(
            "is a path, as the cgroup driver cgroupfs has them, and this runtime's driver is systemd, whose parents are \
             slices (name.slice): set cgroup_driver = \"cgroupfs\" here, or cgroupDriver: systemd in the kubelet's \
             configuration"
                .to_owned(),
        ),
        (CgroupDriver::Systemd, _, Some(slice)) => {
            let place = match slice_path(slice) {
                Ok(place) => PathBuf::from(place),
                Err(error) => return refuse(format!("can't be used: {error}").trim_end_matches('.').to_owned()),
            };
            // A kubelet names the whole path, crictl's users the slice.
            if given == Path::new(slice) || given == place {
                Ok(place)
            } else {
                refuse(format!(
                    "is not where systemd has {slice}, which is {}",
                    place.display()
                ))
            }
        }
    }
}

/// One of a sandbox's cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Relative to the root of each hierarchy.
    pub(super) path: PathBuf,
    /// The scope that this is the group of, where systemd makes them.
    pub(super) scope: Option<Scope>,
}

impl Place {
    /// Of the sandbox itself or of a container.
    pub(super) fn of(record: &SandboxRecord, id: &str) -> Self {
        let parent = &record.config.cgroup_parent;
        let unit = match record.cgroup_driver {
            CgroupDriver::Cgroupfs => {
                return Self {
                    path: parent.join(id),
                    scope: None,
                };
            }
            CgroupDriver::Systemd => format!("{PREFIX}-{id}.scope"),
        };
        Self {
            path: parent.join(&unit),
            scope: Some(Scope {
                unit,
                slice: slice_of(parent),
                user: false,
            }),
        }
    }

    /// The group as OCI's `linux.cgroupsPath` has it: an absolute path is relative to the hierarchies' roots, and for
    /// systemd the form is `slice:prefix:name`, as in runc.
    pub(super) fn oci_path(&self) -> String {
        let named = self.scope.as_ref().and_then(|scope| {
            let id = scope.unit.strip_prefix(PREFIX)?.strip_prefix('-')?;
            let id = id.strip_suffix(".scope")?;
            Some(format!("{}:{PREFIX}:{id}", scope.slice))
        });
        named.unwrap_or_else(|| Path::new("/").join(&self.path).to_string_lossy().into_owned())
    }
}

/// The name of the slice that a group is of.
pub(super) fn slice_of(group: &Path) -> String {
    group.file_name().map_or_else(
        || ROOT_SLICE.to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::records::SandboxPhase;
    use crate::types::{PodSandboxConfig, SandboxId};

    #[test]
    fn parents_by_driver() {
        use CgroupDriver::{Cgroupfs, Systemd};
        let table = [
            ("", Cgroupfs, "berth"),
            ("kubepods/burstable/podx", Cgroupfs, "kubepods/burstable/podx"),
            ("system.slice/node", Cgroupfs, "system.slice/node"),
            ("", Systemd, "system.slice"),
            ("test.slice", Systemd, "test.slice"),
            ("-.slice", Systemd, ""),
            (
                "kubepods-burstable-podx.slice",
                Systemd,
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
            ),
            (
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
                Systemd,
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podx.slice",
            ),
        ];
        for (given, driver, expected) in table {
            let found = parent(Path::new(given), driver).unwrap();
            assert_eq!(found, Path::new(expected), "{given} {driver:?}");
        }
    }

    #[test]
    fn parents_of_the_other_driver_are_refused_by_both_names() {
        use CgroupDriver::{Cgroupfs, Systemd};
        for (given, driver) in [
            ("kubepods-podx.slice", Cgroupfs),
            ("a/b/c.slice", Cgroupfs),
            ("kubepods/podx", Systemd),
            ("system.slice/node", Systemd),
        ] {
            let error = parent(Path::new(given), driver).unwrap_err().to_string();
            for word in [given, "cgroupfs", "systemd"] {
                assert!(error.contains(word), "{error}");
            }
        }
        for (given, named) in [
            ("a/b.slice", "which is b.slice"),
            ("b.slice/a-b.slice", "which is a.slice/a-b.slice"),
            ("a--b.slice", "no name of a slice"),
            (".slice", "no name of a slice"),
        ] {
            let error = parent(Path::new(given), Systemd).unwrap_err().to_string();
            assert!(error.contains(named) && error.ends_with('.'), "{error}");
        }
    }

    fn record(driver: CgroupDriver, parent: &str) -> SandboxRecord {
        SandboxRecord {
            id: SandboxId("s".into()),
            config: PodSandboxConfig {
                cgroup_parent: parent.into(),
                ..Default::default()
            },
            cgroup_driver: driver,
            created_at: 0,
            phase: SandboxPhase::Creating,
            ips: Vec::new(),
            selinux: None,
            made_cgroups: Vec::new(),
            handler: None,
        }
    }

    #[test]
    fn groups_and_scopes() {
        let place = Place::of(&record(CgroupDriver::Cgroupfs, "kubepods/podx"), "c");
        assert_eq!(
            (place.path.to_str(), place.scope.is_none(), place.oci_path()),
            (Some("kubepods/podx/c"), true, "/kubepods/podx/c".to_owned())
        );
        for (parent, slice, path) in [
            (
                "a.slice/a-b.slice",
                "a-b.slice",
                "a.slice/a-b.slice/berth-c.scope",
            ),
            ("", "-.slice", "berth-c.scope"),
        ] {
            let place = Place::of(&record(CgroupDriver::Systemd, parent), "c");
            let (oci_path, scope) = (place.oci_path(), place.scope.unwrap());
            assert_eq!(
                (place.path.to_str(), oci_path.as_str()),
                (Some(path), format!("{slice}:berth:c").as_str())
            );
            assert_eq!(Scope::parse(&oci_path, "", false).unwrap(), scope);
            assert_eq!(scope.cgroup_path().unwrap().trim_start_matches('/'), path);
        }
    }
}
