//! A pod's control group, on this machine's kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use berth_cri::LinuxContainerResources;
use berth_kubelet::plan::PodCgroup;
use berth_kubelet::worker::{HostCgroups, PodCgroups};

/// Where hierarchies may be mounted: version 2's, or all of version 1.
fn roots() -> Vec<PathBuf> {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = std::fs::read_dir(&top).unwrap().flatten();
    below.map(|entry| entry.path()).chain([top.clone()]).collect()
}

/// The file of a group, in whichever hierarchy has it.
fn found(group: &Path, names: &[&str]) -> Option<PathBuf> {
    let roots = roots();
    let files = roots
        .iter()
        .flat_map(|root| names.iter().map(|name| root.join(group).join(name)));
    files.into_iter().find(|file| file.exists())
}

#[test]
fn a_pod_has_as_many_huge_pages_as_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let top = PathBuf::from(format!("berth-pod-cgroup-{}", std::process::id()));
    let cgroups = HostCgroups::new(directory.path());
    let mut pod = PodCgroup {
        path: top.join("pod1"),
        ..PodCgroup::default()
    };
    cgroups.ensure(&pod).unwrap();
    let without = |size: &str| !Path::new("/sys/kernel/mm/hugepages").join(size).exists();
    if without("hugepages-2048kB") || !can_limit() {
        eprintln!("nothing here: no huge pages, or no controller of them");
        return cgroups.remove(&pod.path).unwrap();
    }
    for bytes in [0_u64, 4 << 20] {
        pod.resources = LinuxContainerResources {
            hugepage_limits: [("2MB".to_owned(), bytes)].into(),
            ..LinuxContainerResources::default()
        };
        cgroups.ensure(&pod).unwrap();
        let file = found(&pod.path, &["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]);
        let limit = std::fs::read_to_string(file.expect("a limit")).unwrap();
        assert_eq!(limit.trim(), bytes.to_string());
    }
    cgroups.remove(&pod.path).unwrap();
    assert_eq!(found(&top, &["cgroup.procs"]), None);
}

/// Version 1 has a hierarchy for it, version 2 a controller.
fn can_limit() -> bool {
    roots().iter().any(|root| {
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        root.ends_with("hugetlb") || controllers.split_whitespace().any(|name| name == "hugetlb")
    })
}
