//! Which events come, in which order, and with what.

use std::time::Duration;

use berth_cri::nri::api;
use berth_cri::{Engine, LinuxContainerResources};

use super::bench::{Bench, container, idle};
use super::plugin::{Answer, PluginConfig};
use crate::node::started;

#[test]
fn a_pods_whole_life_is_told_in_order() {
    let bench = Bench::new();
    let calls = bench.plugin(PluginConfig::new("00", "watcher"));
    let pod = bench.pod("life");
    let (sandbox, id) = bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, idle("main")).await;
        let limits = LinuxContainerResources {
            memory_limit: Some(64 << 20),
            ..Default::default()
        };
        engine
            .update_pod_sandbox_resources(&sandbox, None, Some(limits.clone()))
            .await
            .unwrap();
        engine.update_container_resources(&id, limits).await.unwrap();
        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        engine.remove_container(&id).await.unwrap();
        engine.stop_pod_sandbox(&sandbox).await.unwrap();
        engine.stop_pod_sandbox(&sandbox).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        (sandbox, id)
    });
    let expected = [
        "RunPodSandbox",
        "CreateContainer",
        "ValidateContainerAdjustment",
        "PostCreateContainer",
        "StartContainer",
        "PostStartContainer",
        "UpdatePodSandbox",
        "PostUpdatePodSandbox",
        "UpdateContainer",
        "PostUpdateContainer",
        "StopContainer",
        "RemoveContainer",
        "StopPodSandbox",
        "RemovePodSandbox",
    ];
    assert_eq!(calls.methods(), expected);
    let run = calls
        .of::<api::RunPodSandboxRequest>("RunPodSandbox")
        .remove(0)
        .pod
        .unwrap();
    assert_eq!(
        (
            run.id.as_str(),
            run.name.as_str(),
            run.namespace.as_str(),
            run.uid.as_str()
        ),
        (sandbox.0.as_str(), "name-life", "space", "life")
    );
    assert_eq!(run.labels["app"], "test");
    assert_eq!(run.ips.len(), 1, "its network is there");
    let linux = run.linux.unwrap();
    assert!(linux.cgroup_parent.ends_with("/podlife"), "{linux:?}");
    let network = linux
        .namespaces
        .iter()
        .find(|known| known.r#type == "network")
        .unwrap();
    assert_eq!(network.path, format!("/proc/{}/ns/net", run.pid));
    let create = calls
        .of::<api::CreateContainerRequest>("CreateContainer")
        .remove(0);
    let made = create.container.unwrap();
    assert_eq!((made.id.as_str(), made.name.as_str()), (id.0.as_str(), "main"));
    assert_eq!(made.pod_sandbox_id, sandbox.0);
    assert_eq!(made.args, ["sleep", "1000"]);
    assert!(made.mounts.iter().any(|mount| mount.destination == "/proc"));
    assert_eq!(create.pod.unwrap().id, sandbox.0);
    let running = calls
        .of::<api::PostStartContainerRequest>("PostStartContainer")
        .remove(0);
    let running = running.container.unwrap();
    assert!(running.pid > 0 && running.state() == api::ContainerState::ContainerRunning);
    let updated = calls
        .of::<api::PostUpdateContainerRequest>("PostUpdateContainer")
        .remove(0);
    let resources = updated.container.unwrap().linux.unwrap().resources.unwrap();
    assert_eq!(resources.memory.unwrap().limit.unwrap().value, 64 << 20);
    let stopped = calls.of::<api::StopContainerRequest>("StopContainer").remove(0);
    assert_eq!(stopped.container.unwrap().exit_code, 137);
    bench.finish();
}

#[test]
fn a_container_that_ends_by_itself_is_stopped_after_its_start() {
    let bench = Bench::new();
    let calls = bench.plugin(PluginConfig::new("00", "watcher"));
    let pod = bench.pod("short");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        started(engine, &sandbox, container("main", &["sh", "-c", "exit 3"])).await;
        calls.until("StopContainer", 1).await;
        let stopped = calls.of::<api::StopContainerRequest>("StopContainer").remove(0);
        assert_eq!(stopped.container.unwrap().exit_code, 3);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    let methods = calls.methods();
    let at = |wanted: &str| methods.iter().position(|method| method == wanted).unwrap();
    assert!(at("PostStartContainer") < at("StopContainer"), "{methods:?}");
    let last = ["StopPodSandbox", "RemoveContainer", "RemovePodSandbox"];
    assert_eq!(methods[methods.len() - 3..], last);
    bench.finish();
}

#[test]
fn plugins_are_asked_in_their_order_and_only_of_what_they_want() {
    let bench = Bench::new();
    let only_start = 1 << (api::Event::StartContainer as i32 - 1);
    let late = bench.plugin(PluginConfig {
        events: only_start,
        ..PluginConfig::new("90", "late")
    });
    let marked = |key: &str| api::ContainerAdjustment {
        annotations: [(key.to_owned(), "there".to_owned())].into(),
        ..Default::default()
    };
    let second = bench.plugin(PluginConfig::adjusting("10", "second", marked("second")));
    let first = bench.plugin(PluginConfig::adjusting("00", "first", marked("first")));
    let pod = bench.pod("order");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        started(engine, &sandbox, idle("main")).await;
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    assert_eq!(late.methods(), ["StartContainer"]);
    let seen = |calls: &super::plugin::Calls, method: &str| {
        let request = calls.of::<api::CreateContainerRequest>(method).remove(0);
        let annotations = request.container.unwrap().annotations;
        (
            annotations.contains_key("first"),
            annotations.contains_key("second"),
        )
    };
    assert_eq!(seen(&first, "CreateContainer"), (false, false));
    assert_eq!(seen(&second, "CreateContainer"), (true, false));
    assert_eq!(seen(&late, "StartContainer"), (true, true));
    bench.finish();
}

#[test]
fn a_plugin_of_an_older_nri_is_told_by_its_one_method() {
    let bench = Bench::new();
    let old = PluginConfig::answering("00", "old", |method, _| match method {
        "Synchronize" | "CreateContainer" | "UpdateContainer" | "StopContainer" | "StateChange" => {
            Answer::empty()
        }
        _ => Answer::Unknown,
    });
    let valid = 1 << (api::Event::ValidateContainerAdjustment as i32 - 1);
    let calls = bench.plugin(PluginConfig {
        events: ((1 << 11) - 1) & !valid,
        ..old
    });
    let pod = bench.pod("old");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        started(engine, &sandbox, idle("main")).await;
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    let told = calls.of::<api::StateChangeEvent>("StateChange");
    let events: Vec<api::Event> = told.iter().map(api::StateChangeEvent::event).collect();
    let expected = [
        api::Event::RunPodSandbox,
        api::Event::PostCreateContainer,
        api::Event::StartContainer,
        api::Event::PostStartContainer,
        api::Event::StopPodSandbox,
        api::Event::RemoveContainer,
        api::Event::RemovePodSandbox,
    ];
    assert_eq!(events, expected);
    assert!(told[1].container.is_some() && told[0].container.is_none());
    bench.finish();
}
