//! Plugins that say no, hang, lie or die.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use berth_cri::Engine;
use berth_cri::nri::Timeouts;

use super::bench::{Bench, PATIENCE, idle};
use super::plugin::{Answer, Plugin, PluginConfig};
use crate::node::started;

/// An engine that does not wait long for answers.
fn impatient() -> Bench {
    Bench::with(Timeouts {
        registration: Duration::from_millis(500),
        request: Duration::from_millis(500),
    })
}

#[test]
fn who_hangs_is_closed_and_done_without() {
    let bench = impatient();
    let hanging = PluginConfig::answering("00", "hanging", |method, _| match method {
        "CreateContainer" => Answer::Silence,
        _ => Answer::empty(),
    });
    let calls = bench.plugin(hanging);
    let healthy = bench.plugin(PluginConfig::new("10", "healthy"));
    let pod = bench.pod("hang");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        started(engine, &sandbox, idle("main")).await;
        calls.until_closed().await;
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    assert!(healthy.methods().contains(&"StartContainer".to_owned()));
    assert_eq!(
        calls.methods(),
        ["RunPodSandbox", "CreateContainer", "(closed)"],
        "a closed plugin is told nothing more"
    );
    bench.finish();
}

#[test]
fn who_dies_or_talks_nonsense_in_the_middle_is_done_without() {
    for (uid, answer) in [("dies", true), ("nonsense", false)] {
        let bench = Bench::new();
        let calls = bench.plugin(PluginConfig::answering("00", "fragile", move |method, _| match (
            method, answer,
        ) {
            ("CreateContainer", true) => Answer::Leave,
            ("CreateContainer", false) => Answer::Garbage,
            _ => Answer::empty(),
        }));
        let pod = bench.pod(uid);
        bench.run(async |engine| {
            let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
            started(engine, &sandbox, idle("main")).await;
            engine.remove_pod_sandbox(&sandbox).await.unwrap();
        });
        assert!(!calls.methods().contains(&"StartContainer".to_owned()));
        bench.finish();
    }
}

#[test]
fn who_says_no_is_heard_and_nothing_is_left() {
    let bench = Bench::new();
    let mut left = vec!["StartContainer", "CreateContainer", "RunPodSandbox"];
    let calls = bench.plugin(PluginConfig::answering("00", "strict", move |method, _| {
        if left.last() == Some(&method) {
            left.pop();
            return Answer::Refuse("not today");
        }
        Answer::empty()
    }));
    let pod = bench.pod("no");
    bench.run(async |engine| {
        let error = engine.run_pod_sandbox(pod.clone()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("00-strict refused RunPodSandbox: not today"),
            "{error}"
        );
        assert!(engine.list_pod_sandboxes(None).await.unwrap().is_empty());
        assert_eq!(
            calls.methods(),
            ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
        );
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let error = engine.create_container(&sandbox, idle("main")).await.unwrap_err();
        assert!(
            error.to_string().contains("CreateContainer: not today"),
            "{error}"
        );
        assert!(engine.list_containers(None).await.unwrap().is_empty());
        let id = engine.create_container(&sandbox, idle("main")).await.unwrap();
        let error = engine.start_container(&id).await.unwrap_err();
        assert!(error.to_string().contains("StartContainer: not today"), "{error}");
        engine.start_container(&id).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn who_does_not_register_is_turned_away() {
    let bench = impatient();
    let mut silent = UnixStream::connect(bench.socket()).unwrap();
    let mut rude = UnixStream::connect(bench.socket()).unwrap();
    rude.write_all(&[0xff; 100]).unwrap();
    let nameless = Plugin::connect(&bench.socket(), PluginConfig::new("1", "x")).calls();
    let deaf = PluginConfig::answering("00", "deaf", |_, _| Answer::Silence);
    let deaf = Plugin::connect(&bench.socket(), deaf).calls();
    let pod = bench.pod("quiet");
    bench.run(async |engine| {
        nameless.until_closed().await;
        deaf.until_closed().await;
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        for socket in [&mut silent, &mut rude] {
            let mut socket = socket.try_clone().unwrap();
            let ended = tokio::task::spawn_blocking(move || std::io::copy(&mut socket, &mut std::io::sink()));
            let ended = tokio::time::timeout(PATIENCE, ended).await;
            assert!(ended.is_ok(), "it is still connected");
        }
    });
    bench.finish();
}
