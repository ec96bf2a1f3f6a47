//! A plugin that comes late knows of everything, once.

use std::collections::BTreeMap;

use berth_cri::Engine;
use berth_cri::nri::api;

use super::bench::{Bench, idle};
use super::plugin::{Answer, Calls, Plugin, PluginConfig};
use crate::node::started;

/// How often a plugin was told that each container and pod is there.
fn told(calls: &Calls) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    let mut add = |id: String| *told.entry(id).or_default() += 1;
    for state in calls.of::<api::SynchronizeRequest>("Synchronize") {
        state.pods.into_iter().for_each(|pod| add(pod.id));
        state
            .containers
            .into_iter()
            .for_each(|container| add(container.id));
    }
    for request in calls.of::<api::RunPodSandboxRequest>("RunPodSandbox") {
        add(request.pod.unwrap().id);
    }
    for request in calls.of::<api::CreateContainerRequest>("CreateContainer") {
        add(request.container.unwrap().id);
    }
    told
}

#[test]
fn plugins_that_come_while_pods_are_made_see_each_once() {
    const PODS: usize = 6;
    const PLUGINS: usize = 8;
    let bench = Bench::new();
    let pods: Vec<_> = (0..PODS).map(|pod| bench.pod(&pod.to_string())).collect();
    let socket = bench.socket();
    let plugins = bench.run(async |engine| {
        let mut makers = tokio::task::JoinSet::new();
        for pod in pods {
            let engine = engine.clone();
            makers.spawn(async move {
                let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
                let mut ids = vec![sandbox.0.clone()];
                for name in ["one", "two"] {
                    ids.push(started(&engine, &sandbox, idle(name)).await.0);
                }
                (sandbox, ids)
            });
        }
        let mut plugins = Vec::new();
        let (mut sandboxes, mut ids) = (Vec::new(), Vec::new());
        while let Some(made) = makers.join_next().await {
            let (sandbox, made) = made.unwrap();
            sandboxes.push(sandbox);
            ids.extend(made);
            // Between the makers, which go on meanwhile.
            let plugin = Plugin::connect(&socket, PluginConfig::new("00", "late"));
            plugins.push(plugin.calls());
        }
        while plugins.len() < PLUGINS {
            plugins.push(Plugin::connect(&socket, PluginConfig::new("00", "later")).calls());
        }
        for plugin in &plugins {
            plugin.until("Synchronize", 1).await;
        }
        for plugin in &plugins {
            let expected: BTreeMap<String, usize> = ids.iter().map(|id| (id.clone(), 1)).collect();
            assert_eq!(told(plugin), expected);
        }
        for sandbox in &sandboxes {
            engine.remove_pod_sandbox(sandbox).await.unwrap();
        }
        plugins
    });
    for plugin in plugins {
        assert_eq!(
            plugin.of::<api::RemoveContainerRequest>("RemoveContainer").len(),
            2 * PODS
        );
    }
    bench.finish();
}

#[test]
fn a_container_made_while_a_plugin_takes_the_state_in_is_not_lost() {
    let bench = Bench::new();
    let pod = bench.pod("during");
    let (reached, at_state) = std::sync::mpsc::channel();
    let (release, held) = std::sync::mpsc::channel();
    let slow = PluginConfig::answering("00", "slow", move |method, _| {
        if method == "Synchronize" {
            reached.send(()).unwrap();
            held.recv().unwrap();
        }
        Answer::empty()
    });
    let socket = bench.socket();
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let before = started(engine, &sandbox, idle("before")).await;
        let calls = Plugin::connect(&socket, slow).calls();
        tokio::task::spawn_blocking(move || at_state.recv().unwrap())
            .await
            .unwrap();
        let (maker, of) = (engine.clone(), sandbox.clone());
        let during = tokio::spawn(async move { started(&maker, &of, idle("during")).await });
        // It comes to the plugin, which is not asked before it has the state.
        tokio::task::yield_now().await;
        release.send(()).unwrap();
        let during = during.await.unwrap();
        let expected = [(sandbox.0.clone(), 1), (before.0, 1), (during.0, 1)];
        assert_eq!(told(&calls), expected.into());
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_restarted_engine_tells_of_what_it_took_over() {
    let mut bench = Bench::new();
    let before = bench.plugin(PluginConfig::new("00", "steady"));
    let pod = bench.pod("kept");
    let (sandbox, running) = bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let running = started(engine, &sandbox, idle("running")).await;
        let ended = started(engine, &sandbox, idle("ended")).await;
        engine
            .stop_container(&ended, std::time::Duration::ZERO)
            .await
            .unwrap();
        (sandbox, running)
    });
    bench.kill();
    bench.start();
    bench.run(async |_| before.until_closed().await);
    let calls = bench.plugin(PluginConfig::new("00", "steady"));
    let state = calls.of::<api::SynchronizeRequest>("Synchronize").remove(0);
    assert_eq!(state.pods.len(), 1);
    assert_eq!(
        (state.pods[0].id.as_str(), state.pods[0].ips.len()),
        (sandbox.0.as_str(), 1)
    );
    assert_eq!(state.containers.len(), 1, "what has ended is not among them");
    let container = &state.containers[0];
    assert_eq!(container.id, running.0);
    assert_eq!(container.state(), api::ContainerState::ContainerRunning);
    assert_eq!(container.args, ["sleep", "1000"]);
    bench.run(async |engine| engine.remove_pod_sandbox(&sandbox).await.unwrap());
    let methods = calls.methods();
    assert_eq!(
        methods,
        [
            "StopContainer",
            "StopPodSandbox",
            "RemoveContainer",
            "RemoveContainer",
            "RemovePodSandbox"
        ]
    );
    bench.finish();
}
