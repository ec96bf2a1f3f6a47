//! Bind mounts.

use std::fs;
use std::path::Path;

use berth_cri::{ContainerConfig, ContainerSecurity, Engine, IdMapping, Mount, MountPropagation};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};

use crate::bench::{Bench, idle};

fn at(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.into(),
        host_path: host_path.into(),
        ..Default::default()
    }
}

fn with(mounts: Vec<Mount>) -> ContainerConfig {
    ContainerConfig {
        mounts,
        security: ContainerSecurity {
            privileged: true,
            ..Default::default()
        },
        ..idle()
    }
}

fn tmpfs(at: &Path) {
    fs::create_dir_all(at).unwrap();
    mount("none", at, "tmpfs", MountFlags::empty(), None).unwrap();
}

/// A volume that is mounted after its pod has begun, on a host whose mounts are private.
fn late_volume(path: &Path, propagation: MountPropagationFlags) {
    mount_bind_recursive(path, path).unwrap();
    mount_change(path, propagation).unwrap();
}

#[test]
fn what_is_mounted_after_the_pod_began_is_there() {
    let bench = Bench::new();
    let volume = bench.directory("volume");
    bench.with_pod(async |bench, sandbox| {
        tmpfs(&volume);
        fs::write(volume.join("late"), "here").unwrap();
        let id = bench.started(sandbox, with(vec![at("/m", &volume)])).await;
        assert_eq!(bench.sh(&id, "cat /m/late").await, "here");
        unmount(&volume, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn mounts_pass_both_ways_as_far_as_they_are_asked_to() {
    let bench = Bench::new();
    let volume = bench.directory("volume");
    fs::create_dir_all(volume.join("from-container")).unwrap();
    bench.with_pod(async |bench, sandbox| {
        let table = [
            (MountPropagation::None, false, false),
            (MountPropagation::HostToContainer, true, false),
            (MountPropagation::Bidirectional, true, true),
        ];
        for (propagation, into, out) in table {
            late_volume(&volume, MountPropagationFlags::SHARED);
            let asked = Mount {
                propagation,
                ..at("/m", &volume)
            };
            let id = bench.started(sandbox, with(vec![asked])).await;
            let status = bench.engine.container_status(&id).await.unwrap();
            assert_eq!(status.config.mounts[0].propagation, propagation);
            tmpfs(&volume.join("from-host"));
            fs::write(volume.join("from-host/flag"), "").unwrap();
            let seen = bench.sh(&id, "ls /m/from-host").await == "flag";
            bench
                .sh(
                    &id,
                    "mount -t tmpfs x /m/from-container && touch /m/from-container/flag",
                )
                .await;
            let shown = volume.join("from-container/flag").exists();
            assert_eq!((seen, shown), (into, out), "{propagation:?}");
            bench.engine.remove_container(&id).await.unwrap();
            unmount(&volume, UnmountFlags::DETACH).unwrap();
        }
    });
}

#[test]
fn mounts_that_the_host_does_not_pass_on_are_refused() {
    let bench = Bench::new();
    let volume = bench.directory("volume");
    bench.with_pod(async |bench, sandbox| {
        late_volume(&volume, MountPropagationFlags::PRIVATE);
        for (propagation, wanted) in [
            (MountPropagation::HostToContainer, "not a shared or slave mount"),
            (MountPropagation::Bidirectional, "not a shared mount"),
        ] {
            let asked = Mount {
                propagation,
                ..at("/m", &volume)
            };
            let error = bench.refused(sandbox, with(vec![asked])).await;
            assert!(
                error.contains(wanted) && error.contains(&volume.display().to_string()),
                "{error}"
            );
        }
        unmount(&volume, UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn read_only_reaches_as_far_as_it_is_asked_to() {
    let bench = Bench::new();
    let volume = bench.directory("volume");
    bench.with_pod(async |bench, sandbox| {
        tmpfs(&volume.join("below"));
        for (recursive_read_only, below) in [(false, "written"), (true, "Read-only file system")] {
            let asked = Mount {
                readonly: true,
                recursive_read_only,
                ..at("/m", &volume)
            };
            let id = bench.started(sandbox, with(vec![asked])).await;
            let top = bench.sh(&id, "touch /m/file && echo written").await;
            assert!(top.contains("Read-only file system"), "{top}");
            let found = bench.sh(&id, "touch /m/below/file && echo written").await;
            assert!(found.contains(below), "{recursive_read_only}: {found}");
            let status = bench.engine.container_status(&id).await.unwrap();
            assert_eq!(status.config.mounts[0].recursive_read_only, recursive_read_only);
            bench.engine.remove_container(&id).await.unwrap();
        }
        unmount(volume.join("below"), UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn host_paths_may_be_links_and_may_be_missing() {
    let bench = Bench::new();
    let (volume, scratch) = (bench.directory("volume"), bench.directory("."));
    fs::write(volume.join("file"), "through").unwrap();
    let link = scratch.join("link");
    std::os::unix::fs::symlink("volume", &link).unwrap();
    let missing = scratch.join("missing/below");
    bench.with_pod(async |bench, sandbox| {
        let mounts = vec![
            at("/link", &link),
            at("/missing", &missing),
            at("/one", &volume.join("file")),
        ];
        let id = bench.started(sandbox, with(mounts)).await;
        assert_eq!(bench.sh(&id, "cat /link/file /one").await, "throughthrough");
        assert_eq!(
            bench.sh(&id, "touch /missing/made && stat -c %a /missing").await,
            "755"
        );
        assert!(missing.join("made").exists());
        let bad = bench
            .refused(
                sandbox,
                ContainerConfig {
                    name: "bad".into(),
                    ..with(vec![at("/m", &volume.join("file/x"))])
                },
            )
            .await;
        assert!(bad.contains("file/x"), "{bad}");
    });
}

#[test]
fn inner_mounts_are_on_outer_ones() {
    let bench = Bench::new();
    let (outer, inner) = (bench.directory("outer"), bench.directory("inner"));
    fs::write(inner.join("file"), "inner").unwrap();
    bench.with_pod(async |bench, sandbox| {
        let id = bench
            .started(
                sandbox,
                with(vec![at("/v/a/b", &inner), at("/v", &outer), at("/etc", &outer)]),
            )
            .await;
        assert_eq!(bench.sh(&id, "cat /v/a/b/file").await, "inner");
        // What the pod brings for /etc is in the volume that is mounted there.
        assert_eq!(bench.sh(&id, "cat /etc/hostname").await, "test");
        assert_eq!(
            bench.sh(&id, "grep -c localhost /etc/hosts").await,
            hosts_with_localhost()
        );
    });
}

fn hosts_with_localhost() -> String {
    let text = fs::read_to_string("/etc/hosts").unwrap_or_default();
    text.lines()
        .filter(|line| line.contains("localhost"))
        .count()
        .to_string()
}

#[test]
fn files_have_other_owners_in_a_mount_with_id_maps() {
    let bench = Bench::new();
    let volume = bench.directory("volume");
    fs::write(volume.join("file"), "").unwrap();
    let map = vec![IdMapping {
        container: 0,
        host: 100_000,
        size: 1000,
    }];
    bench.with_pod(async |bench, sandbox| {
        let mapped = Mount {
            uid_mappings: map.clone(),
            gid_mappings: map.clone(),
            ..at("/m", &volume)
        };
        let id = bench.started(sandbox, with(vec![mapped])).await;
        assert_eq!(bench.sh(&id, "stat -c %u:%g /m/file").await, "100000:100000");
    });
}
