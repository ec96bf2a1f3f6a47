//! Limits.

use std::fs;
use std::path::{Path, PathBuf};

use berth_cri::{ContainerConfig, ContainerId, Engine, LinuxContainerResources, SandboxId};

use crate::bench::{Bench, idle};

/// A limit of a container, as the first of its files that is there says it.
fn limit(bench: &Bench, id: &ContainerId, files: [(&str, &str); 2]) -> String {
    let group = bench
        .node
        .cgroup()
        .strip_prefix("/")
        .unwrap()
        .join("poduid")
        .join(&id.0);
    let paths = files.map(|(hierarchy, file)| {
        Path::new("/sys/fs/cgroup")
            .join(hierarchy)
            .join(&group)
            .join(file)
    });
    let found: Option<PathBuf> = paths.into_iter().find(|path| path.exists());
    fs::read_to_string(found.expect("one of the files"))
        .unwrap()
        .trim()
        .to_owned()
}

fn memory(bench: &Bench, id: &ContainerId) -> String {
    limit(
        bench,
        id,
        [("memory", "memory.limit_in_bytes"), ("", "memory.max")],
    )
}

fn shares(bench: &Bench, id: &ContainerId) -> String {
    limit(bench, id, [("cpu", "cpu.shares"), ("", "cpu.weight")])
}

async fn limited(bench: &Bench, sandbox: &SandboxId) -> ContainerId {
    let config = ContainerConfig {
        resources: LinuxContainerResources {
            cpu_shares: Some(512),
            memory_limit: Some(64 << 20),
            ..Default::default()
        },
        ..idle()
    };
    bench.engine.create_container(sandbox, config).await.unwrap()
}

#[test]
fn limits_change_before_and_after_the_start() {
    let bench = Bench::new();
    bench.with_pod(async |bench, sandbox| {
        let id = limited(bench, sandbox).await;
        let first = shares(bench, &id);
        let more = |limit: i64| LinuxContainerResources {
            memory_limit: Some(limit),
            ..Default::default()
        };
        bench
            .engine
            .update_container_resources(&id, more(128 << 20))
            .await
            .unwrap();
        assert_eq!(memory(bench, &id), (128 << 20).to_string());
        bench.engine.start_container(&id).await.unwrap();
        bench
            .engine
            .update_container_resources(&id, more(96 << 20))
            .await
            .unwrap();
        assert_eq!(
            (memory(bench, &id), shares(bench, &id)),
            ((96 << 20).to_string(), first)
        );
        let status = bench.engine.container_status(&id).await.unwrap();
        let resources = status.config.resources;
        assert_eq!(
            (resources.cpu_shares, resources.memory_limit),
            (Some(512), Some(96 << 20))
        );
        let score = LinuxContainerResources {
            oom_score_adj: 500,
            ..Default::default()
        };
        bench.engine.update_container_resources(&id, score).await.unwrap();
        assert_eq!(bench.sh(&id, "cat /proc/1/oom_score_adj").await, "500");
    });
}

#[test]
fn memory_that_is_limited_is_not_to_be_had_as_swap() {
    let bench = Bench::new();
    bench.with_pod(async |bench, sandbox| {
        let id = limited(bench, sandbox).await;
        let swap = limit(
            bench,
            &id,
            [("memory", "memory.memsw.limit_in_bytes"), ("", "memory.swap.max")],
        );
        let wanted = [(64 << 20).to_string(), "0".to_owned()];
        assert!(wanted.contains(&swap), "{swap}");
    });
}

#[test]
fn limits_of_one_that_has_ended_are_on_record() {
    let bench = Bench::new();
    bench.with_pod(async |bench, sandbox| {
        let id = limited(bench, sandbox).await;
        bench.engine.start_container(&id).await.unwrap();
        bench
            .engine
            .stop_container(&id, std::time::Duration::ZERO)
            .await
            .unwrap();
        let new = LinuxContainerResources {
            cpu_shares: Some(7),
            ..Default::default()
        };
        bench.engine.update_container_resources(&id, new).await.unwrap();
        let status = bench.engine.container_status(&id).await.unwrap();
        assert_eq!(status.config.resources.cpu_shares, Some(7));
    });
}

#[test]
fn a_pods_limits_are_on_record() {
    let bench = Bench::new();
    bench.with_pod(async |bench, sandbox| {
        let limits = LinuxContainerResources {
            memory_limit: Some(1 << 30),
            ..Default::default()
        };
        let engine = &bench.engine;
        engine
            .update_pod_sandbox_resources(sandbox, None, Some(limits.clone()))
            .await
            .unwrap();
        let status = engine.pod_sandbox_status(sandbox).await.unwrap();
        assert_eq!(
            (status.config.overhead, status.config.resources),
            (None, Some(limits))
        );
    });
}
