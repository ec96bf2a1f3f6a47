//! Pods' and containers' lives, by the verbs of CRI.

use berth_cri::v1;
use tonic::Code;

use crate::daemon::{Daemon, PATIENCE, container};

#[test]
fn a_pod_lives_and_is_gone() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("web");
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let id = client
            .create(&sandbox, &pod, container("c", &["sleep", "1000"]))
            .await
            .unwrap();
        assert_eq!(
            client.status(&id).await.unwrap().state(),
            v1::ContainerState::ContainerCreated
        );
        client.start(&id).await.unwrap();
        // People type the beginnings of ids.
        let status = client.status(&id[..13]).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
        assert!(status.log_path.ends_with("logs/web/c.log"), "{}", status.log_path);

        let exec = v1::ExecSyncRequest {
            container_id: id.clone(),
            cmd: vec!["/bin/helper".into(), "echo".into(), "hello".into()],
            timeout: 10,
        };
        let output = client.runtime.exec_sync(exec).await.unwrap().into_inner();
        assert_eq!(
            (output.stdout.as_slice(), output.exit_code),
            (b"hello\n".as_slice(), 0)
        );

        let stop = v1::StopContainerRequest {
            container_id: id.clone(),
            timeout: 0,
        };
        client.runtime.stop_container(stop.clone()).await.unwrap();
        client.runtime.stop_container(stop).await.unwrap();
        let status = client.status(&id).await.unwrap();
        assert_eq!(
            (status.state(), status.exit_code),
            (v1::ContainerState::ContainerExited, 137)
        );
        client.remove_sandbox(&sandbox).await;
        assert_eq!(client.status(&id).await.unwrap_err().code(), Code::NotFound);
        // Once more: what is gone is removed.
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn lists_show_what_is_asked_for() {
    let daemon = Daemon::start();
    let (one, two) = (daemon.sandbox("one"), daemon.sandbox("two"));
    daemon.with(async |mut client| {
        let (first, second) = (client.run(&one).await, client.run(&two).await);
        let filter = v1::PodSandboxFilter {
            label_selector: one.labels.clone(),
            ..Default::default()
        };
        let request = v1::ListPodSandboxRequest { filter: Some(filter) };
        let found = client
            .runtime
            .list_pod_sandbox(request)
            .await
            .unwrap()
            .into_inner()
            .items;
        assert_eq!(found.iter().map(|pod| &pod.id).collect::<Vec<_>>(), [&first]);

        let mut stream = client
            .runtime
            .stream_pod_sandboxes(v1::StreamPodSandboxesRequest { filter: None })
            .await
            .unwrap()
            .into_inner();
        let mut streamed = Vec::new();
        while let Some(page) = stream.message().await.unwrap() {
            streamed.extend(page.pod_sandboxes.into_iter().map(|pod| pod.id));
        }
        streamed.sort();
        let mut both = [first.clone(), second.clone()];
        both.sort();
        assert_eq!(streamed, both);
        client.remove_sandbox(&first).await;
        client.remove_sandbox(&second).await;
    });
    daemon.finish();
}

#[test]
fn events_come_in_order_with_the_state() {
    use v1::ContainerEventType as Type;
    let daemon = Daemon::start();
    let pod = daemon.sandbox("eventful");
    daemon.with(async |mut client| {
        let mut events = client
            .runtime
            .get_container_events(v1::GetEventsRequest {})
            .await
            .unwrap()
            .into_inner();
        let sandbox = client.run(&pod).await;
        let id = client
            .started(&sandbox, &pod, container("c", &["exit", "3"]))
            .await;
        let mut seen = Vec::new();
        while seen.len() < 4 {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
            let event = event.unwrap().unwrap();
            seen.push((event.container_id.clone(), event.container_event_type()));
            assert_eq!(event.pod_sandbox_status.unwrap().id, sandbox);
        }
        let expected = [
            (sandbox.clone(), Type::ContainerStartedEvent),
            (id.clone(), Type::ContainerCreatedEvent),
            (id.clone(), Type::ContainerStartedEvent),
            (id.clone(), Type::ContainerStoppedEvent),
        ];
        assert_eq!(seen, expected);
        assert_eq!(client.status(&id).await.unwrap().exit_code, 3);
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_killed_daemon_loses_nothing() {
    let mut daemon = Daemon::start();
    let pod = daemon.sandbox("kept");
    let (sandbox, long, short) = daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let long = client
            .started(&sandbox, &pod, container("long", &["sleep", "1000"]))
            .await;
        let short = client
            .started(&sandbox, &pod, container("short", &["stdin-echo"]))
            .await;
        (sandbox, long, short)
    });
    daemon.restart();
    daemon.with(async |mut client| {
        assert_eq!(
            client.status(&long).await.unwrap().state(),
            v1::ContainerState::ContainerRunning
        );
        // The same request joins what is there.
        assert_eq!(client.run(&pod).await, sandbox);
        let again = client
            .create(&sandbox, &pod, container("long", &["sleep", "1000"]))
            .await;
        assert_eq!(again.unwrap(), long);
        // Its input was never open, so it ends by itself, whoever is there to see it.
        let status = client.status(&short).await.unwrap();
        assert_eq!(status.exit_code, 0);
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_second_daemon_does_not_take_the_socket_away() {
    let daemon = Daemon::start();
    daemon.with(async |_| {
        let second = daemon.node.berth(["cri"]).output().unwrap();
        let message = String::from_utf8(second.stderr).unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert!(message.contains("another program serves it"), "{message}");
    });
    daemon.finish();
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("refused");
    daemon.with(async |mut client| {
        let request = v1::RunPodSandboxRequest {
            config: Some(v1::PodSandboxConfig {
                windows: Some(v1::OtherPlatform {}),
                ..pod.clone()
            }),
            runtime_handler: String::new(),
        };
        let refused = client.runtime.run_pod_sandbox(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("config.windows"), "{refused}");
        let request = v1::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: "kata".into(),
        };
        let refused = client.runtime.run_pod_sandbox(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("kata"), "{refused}");
        let cidr = |pod_cidr: &str| v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig {
                network_config: Some(v1::NetworkConfig {
                    pod_cidr: pod_cidr.into(),
                }),
            }),
        };
        let refused = client
            .runtime
            .update_runtime_config(cidr("10.77.1.0"))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        client
            .runtime
            .update_runtime_config(cidr("10.77.1.0/24"))
            .await
            .unwrap();
        let missing = client
            .create(&"0".repeat(64), &pod, container("c", &["true"]))
            .await;
        assert_eq!(missing.unwrap_err().code(), Code::NotFound);
        let mut nothing = container("c", &["true"]);
        nothing.image.as_mut().unwrap().image = "test.local/none:1".into();
        let sandbox = client.run(&pod).await;
        let status = v1::PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.clone(),
            verbose: true,
        };
        let status = client
            .runtime
            .pod_sandbox_status(status)
            .await
            .unwrap()
            .into_inner();
        let ip = status.status.unwrap().network.unwrap().ip;
        assert!(ip.starts_with("10.77.1."), "{ip}");
        assert!(status.info.contains_key("info"), "{:?}", status.info);
        let failure = client.create(&sandbox, &pod, nothing).await.unwrap_err();
        assert!(failure.message().contains("test.local/none:1"), "{failure}");
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_cgroup_parent_that_was_not_there_goes_with_its_last_pod() {
    let daemon = Daemon::start();
    let parent = daemon.node.cgroup().join("not/there");
    let inside = |name: &str| {
        let mut pod = daemon.sandbox(name);
        pod.linux.as_mut().unwrap().cgroup_parent = parent.to_string_lossy().into_owned();
        pod
    };
    let (one, two) = (inside("one"), inside("two"));
    daemon.with(async |mut client| {
        let (first, second) = (client.run(&one).await, client.run(&two).await);
        client.remove_sandbox(&first).await;
        assert!(!berth_tests::cgroup_directories(&parent).is_empty());
        client.remove_sandbox(&second).await;
        assert_eq!(
            berth_tests::cgroup_directories(&daemon.node.cgroup().join("not")),
            Vec::<std::path::PathBuf>::new()
        );
    });
    daemon.finish();
}
