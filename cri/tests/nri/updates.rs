//! Limits that change while containers run, by plugins' wish or through them, and evictions.

use berth_cri::{ContainerId, Engine, LinuxContainerResources};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_cri::nri::api;
use prost::Message as _;

use super::adjustments::{LIMIT, memory};
use super::bench::{Bench, idle, shell};
use super::plugin::{Answer, Plugin, PluginConfig};
use crate::node::started;

fn limits(memory: i64) -> LinuxContainerResources {
    LinuxContainerResources {
        memory_limit: Some(memory),
        ..Default::default()
    }
}

fn update(container: &str, resources: api::LinuxResources) -> api::ContainerUpdate {
    api::ContainerUpdate {
        container_id: container.to_owned(),
        linux: Some(api::LinuxContainerUpdate {
            resources: Some(resources),
        }),
        ignore_failure: false,
    }
}

#[test]
fn a_plugin_updates_containers_when_it_likes() {
    let bench = Bench::new();
    let calls = bench.plugin(PluginConfig::new("00", "updater"));
    let pod = bench.pod("update");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, idle("main")).await;
        let request = api::UpdateContainersRequest {
            update: vec![
                update(&id.0, memory(40 << 20)),
                update("missing", memory(1 << 20)),
            ],
            evict: Vec::new(),
        };
        let reply = calls
            .call("UpdateContainers", &request.encode_to_vec(), 3)
            .await
            .unwrap();
        let reply = api::UpdateContainersResponse::decode(reply.as_slice()).unwrap();
        let failed: Vec<&str> = reply
            .failed
            .iter()
            .map(|update| update.container_id.as_str())
            .collect();
        assert_eq!(failed, ["missing"]);
        assert_eq!(shell(engine, &id, LIMIT).await, format!("{}\n", 40 << 20));
        let evict = api::UpdateContainersRequest {
            update: Vec::new(),
            evict: vec![api::ContainerEviction {
                container_id: id.0.clone(),
                reason: "it is in the way".into(),
            }],
        };
        calls
            .call("UpdateContainers", &evict.encode_to_vec(), 5)
            .await
            .unwrap();
        calls.until("StopContainer", 1).await;
        assert_eq!(engine.container_status(&id).await.unwrap().exit_code, 137);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn an_update_of_the_kubelets_passes_through_plugins() {
    let bench = Bench::new();
    let plugin = PluginConfig::answering("00", "halver", |method, payload| {
        if method != "UpdateContainer" {
            return Answer::empty();
        }
        let request = api::UpdateContainerRequest::decode(payload).unwrap();
        let asked = request
            .linux_resources
            .unwrap()
            .memory
            .unwrap()
            .limit
            .unwrap()
            .value;
        Answer::of(&api::UpdateContainerResponse {
            update: vec![api::ContainerUpdate {
                container_id: request.container.unwrap().id,
                linux: Some(api::LinuxContainerUpdate {
                    resources: Some(memory(asked / 2)),
                }),
                ignore_failure: false,
            }],
            evict: Vec::new(),
        })
    });
    bench.plugin(plugin);
    let pod = bench.pod("through");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, idle("main")).await;
        let limits = berth_cri::LinuxContainerResources {
            memory_limit: Some(64 << 20),
            ..Default::default()
        };
        engine.update_container_resources(&id, limits).await.unwrap();
        assert_eq!(shell(engine, &id, LIMIT).await, format!("{}\n", 32 << 20));
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn what_plugins_want_of_others_is_done_with_every_answer() {
    let bench = Bench::new();
    // Whom to change, and whom to evict; both are known later than the plugin.
    let others: Arc<Mutex<Option<(ContainerId, ContainerId)>>> = Arc::default();
    let known = Arc::clone(&others);
    let mut has_evicted = false;
    let plugin = PluginConfig::answering("00", "meddler", move |method, _| {
        let Some((changed, evicted)) = known.lock().unwrap().clone() else {
            return Answer::empty();
        };
        let limit = |bytes| vec![update(&changed.0, memory(bytes))];
        let evict = api::ContainerEviction {
            container_id: evicted.0.clone(),
            reason: "it is in the way".into(),
        };
        match method {
            "CreateContainer" => Answer::of(&api::CreateContainerResponse {
                update: limit(41 << 20),
                ..Default::default()
            }),
            // First it evicts, then it changes.
            "UpdateContainer" if !std::mem::replace(&mut has_evicted, true) => {
                Answer::of(&api::UpdateContainerResponse {
                    evict: vec![evict],
                    ..Default::default()
                })
            }
            "UpdateContainer" => Answer::of(&api::UpdateContainerResponse {
                update: limit(42 << 20),
                ..Default::default()
            }),
            "StopContainer" => Answer::of(&api::StopContainerResponse {
                update: limit(43 << 20),
            }),
            _ => Answer::empty(),
        }
    });
    let calls = bench.plugin(plugin);
    let pod = bench.pod("others");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let changed = started(engine, &sandbox, idle("changed")).await;
        let evicted = started(engine, &sandbox, idle("evicted")).await;
        *others.lock().unwrap() = Some((changed.clone(), evicted.clone()));
        let limit = async || {
            shell(engine, &changed, LIMIT)
                .await
                .trim()
                .parse::<u64>()
                .unwrap()
                >> 20
        };
        let third = started(engine, &sandbox, idle("third")).await;
        assert_eq!(limit().await, 41);
        engine
            .update_container_resources(&third, limits(64 << 20))
            .await
            .unwrap();
        calls.until("StopContainer", 1).await;
        assert_eq!(engine.container_status(&evicted).await.unwrap().exit_code, 137);
        while limit().await != 43 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        engine
            .update_container_resources(&third, limits(65 << 20))
            .await
            .unwrap();
        assert_eq!(limit().await, 42);
        engine.stop_container(&third, Duration::ZERO).await.unwrap();
        while limit().await != 43 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        *others.lock().unwrap() = None;
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn updates_that_conflict_or_cannot_be_had_are_refused_unless_they_may_fail() {
    let bench = Bench::new();
    let to = |limit: i64, may_fail: bool| {
        move |method: &str, payload: &[u8]| {
            if method != "UpdateContainer" {
                return Answer::empty();
            }
            let request = api::UpdateContainerRequest::decode(payload).unwrap();
            let id = request.container.unwrap().id;
            let update = api::ContainerUpdate {
                ignore_failure: may_fail,
                ..update(&id, memory(limit))
            };
            Answer::of(&api::UpdateContainerResponse {
                update: vec![update],
                evict: Vec::new(),
            })
        }
    };
    bench.plugin(PluginConfig::answering("10", "first", to(50 << 20, false)));
    let second = bench.plugin(PluginConfig::answering("20", "second", to(60 << 20, false)));
    let pod = bench.pod("conflict");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, idle("main")).await;
        let before = shell(engine, &id, LIMIT).await;
        let error = engine
            .update_container_resources(&id, limits(64 << 20))
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("20-second and 10-first both set MemLimit"),
            "{error}"
        );
        assert_eq!(shell(engine, &id, LIMIT).await, before);
        second.leave();
        let forgiving = Plugin::connect(
            &bench.socket(),
            PluginConfig::answering("30", "third", to(70 << 20, true)),
        );
        let forgiving = forgiving.calls();
        forgiving.until("Synchronize", 1).await;
        engine
            .update_container_resources(&id, limits(64 << 20))
            .await
            .unwrap();
        assert_eq!(
            shell(engine, &id, LIMIT).await,
            format!("{}\n", 50 << 20),
            "the first one's"
        );
        // Unasked: a class can't be changed, and only what may not fail is told to have.
        let class = || api::LinuxResources {
            rdt_class: Some(api::OptionalString { value: "gold".into() }),
            ..Default::default()
        };
        let request = api::UpdateContainersRequest {
            update: vec![
                update(&id.0, class()),
                api::ContainerUpdate {
                    ignore_failure: true,
                    ..update("missing", memory(1))
                },
                update(&id.0, memory(51 << 20)),
            ],
            evict: vec![api::ContainerEviction {
                container_id: "missing".into(),
                ..Default::default()
            }],
        };
        let reply = forgiving
            .call("UpdateContainers", &request.encode_to_vec(), 3)
            .await
            .unwrap();
        let reply = api::UpdateContainersResponse::decode(reply.as_slice()).unwrap();
        assert_eq!(reply.failed, [update(&id.0, class())]);
        assert_eq!(shell(engine, &id, LIMIT).await, format!("{}\n", 51 << 20));
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}
