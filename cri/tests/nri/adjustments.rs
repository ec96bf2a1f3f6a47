//! What plugins change reaches the container, or is refused by name.

use berth_cri::Engine;
use berth_cri::nri::api;

use super::bench::{Bench, idle, shell};
use super::plugin::{Answer, PluginConfig};
use crate::node::started;

pub(crate) fn variable(key: &str, value: &str) -> api::KeyValue {
    api::KeyValue {
        key: key.into(),
        value: value.into(),
    }
}

pub(crate) fn memory(limit: i64) -> api::LinuxResources {
    api::LinuxResources {
        memory: Some(api::LinuxMemory {
            limit: Some(api::OptionalInt64 { value: limit }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The memory limit that a container has, whichever cgroups the machine has.
pub(crate) const LIMIT: &str =
    "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";

#[test]
fn what_a_plugin_wants_reaches_the_container() {
    let bench = Bench::new();
    std::fs::write(bench.root().join("shared"), "from the plugin\n").unwrap();
    let adjust = api::ContainerAdjustment {
        env: vec![variable("PLUGIN", "was here"), variable("-DROPPED", "")],
        mounts: vec![api::Mount {
            destination: "/tmp/plugin".into(),
            r#type: "bind".into(),
            source: bench.root().join("shared").display().to_string(),
            options: vec!["bind".into(), "ro".into()],
        }],
        args: vec!["sleep".into(), "999".into()],
        rlimits: vec![api::PosixRlimit {
            r#type: "RLIMIT_NOFILE".into(),
            hard: 512,
            soft: 256,
        }],
        linux: Some(api::LinuxContainerAdjustment {
            resources: Some(memory(48 << 20)),
            oom_score_adj: Some(api::OptionalInt { value: 123 }),
            devices: vec![api::LinuxDevice {
                path: "/dev/plugin".into(),
                r#type: "c".into(),
                major: 1,
                minor: 5,
                file_mode: Some(api::OptionalFileMode { value: 0o644 }),
                ..Default::default()
            }],
            io_priority: Some(api::LinuxIoPriority {
                class: api::IoPrioClass::IoprioClassBe.into(),
                priority: 6,
            }),
            scheduler: Some(api::LinuxScheduler {
                policy: api::LinuxSchedulerPolicy::SchedBatch.into(),
                nice: 5,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    bench.plugin(PluginConfig::adjusting("00", "adjuster", adjust));
    let pod = bench.pod("adjust");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let mut config = idle("main");
        config.envs = vec![("DROPPED".into(), "x".into()), ("KEPT".into(), "y".into())];
        let id = started(engine, &sandbox, config).await;
        let seen = |script: &'static str| shell(engine, &id, script);
        assert_eq!(
            seen("echo $PLUGIN-$DROPPED-$KEPT").await,
            "was here--y\n",
            "variables"
        );
        assert_eq!(seen("cat /tmp/plugin").await, "from the plugin\n", "a mount");
        assert_eq!(seen("cat /proc/1/cmdline").await, "sleep\0999\0", "arguments");
        assert_eq!(seen(LIMIT).await, format!("{}\n", 48 << 20), "the memory limit");
        assert_eq!(seen("cat /proc/1/oom_score_adj").await, "123\n");
        let limits = seen("cat /proc/1/limits").await;
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap();
        assert!(files.contains("256") && files.contains("512"), "{files}");
        assert_eq!(
            seen("busybox head -c 2 /dev/plugin | busybox od -An -tx1")
                .await
                .trim(),
            "00 00"
        );
        // proc_pid_stat(5): 19 is the nice value, 41 the policy; 3 is SCHED_BATCH.
        let stat = seen("cat /proc/1/stat").await;
        let fields: Vec<&str> = stat.split_whitespace().collect();
        assert_eq!((fields[18], fields[40]), ("5", "3"), "{stat}");
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(status.config.resources.memory_limit, Some(48 << 20));
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    std::fs::remove_file(bench.root().join("shared")).unwrap();
    bench.finish();
}

#[test]
fn two_plugins_that_want_different_things_are_both_named() {
    let bench = Bench::new();
    let wants = |value: &str| api::ContainerAdjustment {
        env: vec![variable("WHO", value)],
        ..Default::default()
    };
    let first = bench.plugin(PluginConfig::adjusting("00", "first", wants("first")));
    bench.plugin(PluginConfig::adjusting("10", "second", wants("second")));
    let pod = bench.pod("conflict");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let error = engine.create_container(&sandbox, idle("main")).await.unwrap_err();
        let text = error.to_string();
        for part in ["10-second", "00-first", "WHO"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(engine.list_containers(None).await.unwrap().is_empty());
        assert_eq!(
            first.methods(),
            [
                "RunPodSandbox",
                "CreateContainer",
                "StopContainer",
                "RemoveContainer"
            ],
            "what was announced is taken back"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_validator_has_the_last_word() {
    let bench = Bench::new();
    let adjust = api::ContainerAdjustment {
        env: vec![variable("A", "1")],
        ..Default::default()
    };
    bench.plugin(PluginConfig::adjusting("00", "setter", adjust));
    let guard = PluginConfig::answering("50", "guard", |method, payload| {
        if method != "ValidateContainerAdjustment" {
            return Answer::empty();
        }
        let request = <api::ValidateContainerAdjustmentRequest as prost::Message>::decode(payload);
        let owners = request
            .ok()
            .and_then(|request| request.owners)
            .unwrap_or_default();
        let set = owners.owners.values().next();
        let env = set.and_then(|fields| fields.compound.get(&(api::Field::Env as i32)));
        let owner = env.and_then(|entries| entries.owners.get("A").cloned());
        Answer::of(&api::ValidateContainerAdjustmentResponse {
            reject: owner.as_deref() == Some("00-setter"),
            reason: "nobody sets A".into(),
        })
    });
    bench.plugin(PluginConfig {
        events: 1 << (api::Event::ValidateContainerAdjustment as i32 - 1),
        ..guard
    });
    let pod = bench.pod("guarded");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let error = engine.create_container(&sandbox, idle("main")).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("50-guard") && text.contains("nobody sets A"),
            "{text}"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}
