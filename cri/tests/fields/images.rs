//! Images as volumes.

use berth_cri::{ContainerConfig, Engine, ImageMount, Mount};
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
