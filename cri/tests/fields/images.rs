//! Images as volumes.

use berth_cri::{ContainerConfig, Engine, IdMapping, ImageMount, Mount, PodSandboxConfig, UserNamespace};
use berth_images::build::File;

use crate::bench::{Bench, idle};

const DATA: &str = "test.local/data:1";

fn data() -> Vec<File> {
    vec![
        File::regular("etc/data/passwd", 0o644, b"data".to_vec()),
        File::regular("bin/tool", 0o755, b"#!/bin/sh\necho works\n".to_vec()),
        File::symlink("linked", "/etc"),
        File::symlink("outside", "../../../../../../etc"),
    ]
}

fn showing(sub_path: &str) -> ContainerConfig {
    ContainerConfig {
        mounts: vec![Mount {
            container_path: "/m".into(),
            readonly: true,
            image: Some(ImageMount {
                image: DATA.into(),
                user_specified_image: DATA.into(),
                sub_path: sub_path.into(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..idle()
    }
}

#[test]
fn a_container_reads_and_runs_what_is_in_an_image() {
    let bench = Bench::new();
    bench.image(DATA, &data());
    bench.with_pod(async |bench, sandbox| {
        let id = bench.started(sandbox, showing("")).await;
        assert_eq!(
            bench.sh(&id, "cat /m/etc/data/passwd; /m/bin/tool").await,
            "dataworks"
        );
        let written = bench.sh(&id, "touch /m/file").await;
        assert!(written.contains("Read-only file system"), "{written}");
        let status = bench.engine.container_status(&id).await.unwrap();
        let shown = status.config.mounts[0].image.clone().unwrap();
        let image = bench.engine.image_status(DATA).await.unwrap().unwrap();
        assert_eq!((shown.image.as_str(), &shown.image_ref), (DATA, &image.id.0));
    });
}

#[test]
fn a_part_of_an_image_is_found_inside_of_it() {
    let bench = Bench::new();
    bench.image(DATA, &data());
    bench.with_pod(async |bench, sandbox| {
        for part in ["etc/data", "linked/data", "outside/data"] {
            let id = bench.started(sandbox, showing(part)).await;
            assert_eq!(bench.sh(&id, "ls /m").await, "passwd", "{part}");
            bench.engine.remove_container(&id).await.unwrap();
        }
        for (part, why) in [("none", "no directory none"), ("bin/tool", "not a directory")] {
            let error = bench.refused(sandbox, showing(part)).await;
            assert!(error.contains(why), "{error}");
        }
    });
}

#[test]
fn an_image_is_kept_for_who_mounts_it() {
    let bench = Bench::new();
    bench.image(DATA, &data());
    bench.with_pod(async |bench, sandbox| {
        let id = bench.started(sandbox, showing("")).await;
        bench.engine.remove_image(DATA).await.unwrap();
        assert_eq!(bench.sh(&id, "cat /m/etc/data/passwd").await, "data");
        let error = bench
            .refused(
                sandbox,
                ContainerConfig {
                    name: "second".into(),
                    ..showing("")
                },
            )
            .await;
        assert!(
            error.contains("ImageVolumeMountFailed") && error.contains(DATA),
            "{error}"
        );
    });
}

/// Files of several owners in three layers, of which the upper ones change and remove.
fn stacked(bench: &Bench) {
    let lower = [
        File::regular("a/changed", 0o600, b"lower".to_vec()).owned_by(1000, 2000),
        File::regular("a/kept", 0o640, b"kept".to_vec()).owned_by(1000, 2000),
        File::regular("a/gone", 0o600, b"gone".to_vec()),
        File::regular("b/hidden", 0o600, b"hidden".to_vec()),
    ];
    let middle = [
        File::regular("a/.wh.gone", 0o600, Vec::new()),
        File::regular("b/.wh..wh..opq", 0o600, Vec::new()),
        File::regular("b/shown", 0o600, b"shown".to_vec()).owned_by(0, 0),
    ];
    let upper = [File::regular("a/changed", 0o600, b"upper".to_vec()).owned_by(1001, 2001)];
    bench.layered_image(DATA, &[&lower, &middle, &upper]);
}

const LOOK: &str =
    "cd /m && find . -type f | sort | while read f; do echo $f $(stat -c %u:%g $f) $(cat $f); done";

#[test]
fn the_layers_of_an_image_are_seen_as_one() {
    let bench = Bench::new();
    stacked(&bench);
    bench.with_pod(async |bench, sandbox| {
        for (part, expected) in [
            (
                "",
                "./a/changed 1001:2001 upper\n./a/kept 1000:2000 kept\n./b/shown 0:0 shown",
            ),
            ("a", "./changed 1001:2001 upper\n./kept 1000:2000 kept"),
            ("b", "./shown 0:0 shown"),
        ] {
            let id = bench.started(sandbox, showing(part)).await;
            assert_eq!(bench.sh(&id, LOOK).await, expected, "{part:?}");
            bench.engine.remove_container(&id).await.unwrap();
        }
    });
}

#[test]
fn an_image_has_the_ids_of_a_pod_with_a_user_namespace() {
    let bench = Bench::new();
    stacked(&bench);
    let range = |host| {
        vec![IdMapping {
            container: 0,
            host,
            size: 65_536,
        }]
    };
    let user = UserNamespace {
        uids: range(200_000),
        gids: range(300_000),
    };
    let pod = PodSandboxConfig {
        user_namespace: Some(user.clone()),
        privileged: false,
        ..bench.pod()
    };
    bench.with(pod, async |bench, sandbox| {
        // As a kubelet asks for it: with the pod's ids for each mount, images among them.
        let asking = |part: &str, map: Option<UserNamespace>| {
            let mut config = showing(part);
            config.user_namespace = Some(user.clone());
            if let Some(UserNamespace { uids, gids }) = map {
                (config.mounts[0].uid_mappings, config.mounts[0].gid_mappings) = (uids, gids);
            }
            config
        };
        for map in [None, Some(user.clone())] {
            for (part, expected) in [
                (
                    "",
                    "./a/changed 1001:2001 upper\n./a/kept 1000:2000 kept\n./b/shown 0:0 shown",
                ),
                ("a", "./changed 1001:2001 upper\n./kept 1000:2000 kept"),
            ] {
                let id = bench.started(sandbox, asking(part, map.clone())).await;
                assert_eq!(bench.sh(&id, LOOK).await, expected, "{part:?} {map:?}");
                let written = bench.sh(&id, "touch /m/file").await;
                assert!(written.contains("Read-only file system"), "{written}");
                bench.engine.remove_container(&id).await.unwrap();
            }
        }
        let others = UserNamespace {
            uids: range(400_000),
            gids: range(300_000),
        };
        let error = bench.refused(sandbox, asking("", Some(others))).await;
        assert!(error.contains("/m") && error.contains("uidMappings"), "{error}");
    });
}
