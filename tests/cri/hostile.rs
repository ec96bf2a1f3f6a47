//! Clients that ask for what nobody should: each gets a clear error or what it asked for, and nothing is left.

use std::collections::{BTreeSet, HashMap};

use berth_cri::v1;
use tokio::task::JoinSet;
use tonic::Code;

use crate::daemon::{Daemon, container};

#[test]
fn a_thousand_calls_for_one_sandbox_make_one() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("one");
    daemon.with(async |client| {
        let mut calls = JoinSet::new();
        for _ in 0..1000 {
            let (mut client, pod) = (client.clone(), pod.clone());
            calls.spawn(async move { client.try_run(&pod).await });
        }
        let made: BTreeSet<String> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(made.len(), 1);
        let sandbox = made.first().unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..100 {
            let (mut client, pod, sandbox) = (client.clone(), pod.clone(), sandbox.clone());
            let config = container("c", &["trap", "--count", "1", "--exit", "3", "TERM"]);
            calls.spawn(async move { client.create(&sandbox, &pod, config).await });
        }
        let made: BTreeSet<String> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
        assert_eq!(made.len(), 1);
        let id = made.first().unwrap();
        let mut client = client;
        client.start(id).await.unwrap();
        let mut calls = JoinSet::new();
        for timeout in 0..100 {
            let (mut client, id) = (client.clone(), id.clone());
            calls.spawn(async move { client.stop(&id, timeout % 3).await });
        }
        calls.join_all().await.into_iter().for_each(Result::unwrap);
        assert_eq!(
            client.status(id).await.unwrap().state(),
            v1::ContainerState::ContainerExited
        );
        let mut calls = JoinSet::new();
        for number in 0..100 {
            let (mut client, sandbox, id) = (client.clone(), sandbox.clone(), id.clone());
            calls.spawn(async move {
                match number % 3 {
                    0 => client.remove(&id).await,
                    1 => client.stop_pod(&sandbox).await,
                    _ => client.remove_pod(&sandbox).await,
                }
            });
        }
        calls.join_all().await.into_iter().for_each(Result::unwrap);
    });
    daemon.finish();
}

#[test]
fn what_fails_for_one_fails_for_all_that_asked_with_it() {
    let daemon = Daemon::start();
    let mut pod = daemon.sandbox("bad");
    let sysctl = HashMap::from([("kernel.panic".to_owned(), "1".to_owned())]);
    pod.linux.as_mut().unwrap().sysctls = sysctl;
    daemon.with(async |client| {
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let (mut client, pod) = (client.clone(), pod.clone());
            calls.spawn(async move { client.try_run(&pod).await });
        }
        for outcome in calls.join_all().await {
            let failure = outcome.unwrap_err();
            assert!(failure.message().contains("kernel.panic"), "{failure}");
        }
    });
    daemon.finish();
}

#[test]
fn ids_that_are_none_are_of_nothing() {
    let daemon = Daemon::start();
    let long = format!("{:a<64}", "../../../etc/");
    let ids = [
        "..",
        "../..",
        "/",
        ".",
        "a\0b",
        "a\nb",
        "*",
        &long,
        &"x".repeat(100_000),
    ];
    daemon.with(async |mut client| {
        for id in ids {
            assert_eq!(
                client.status(id).await.unwrap_err().code(),
                Code::NotFound,
                "{id:?}"
            );
            assert_eq!(
                client.start(id).await.unwrap_err().code(),
                Code::NotFound,
                "{id:?}"
            );
            client.stop(id, 1).await.unwrap();
            client.remove(id).await.unwrap();
            client.stop_pod(id).await.unwrap();
            client.remove_pod(id).await.unwrap();
        }
        assert_eq!(client.status("").await.unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(
            client.remove_pod("").await.unwrap_err().code(),
            Code::InvalidArgument
        );
    });
    daemon.finish();
}

#[test]
fn sandboxes_that_make_no_sense_are_refused_by_the_field() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("bad");
    type Change = fn(&mut v1::PodSandboxConfig);
    let table: [(Change, &str); 9] = [
        (
            |pod| pod.metadata.as_mut().unwrap().name = "a\nb".into(),
            "metadata.name",
        ),
        (
            |pod| pod.metadata.as_mut().unwrap().namespace = "a\0b".into(),
            "metadata.namespace",
        ),
        (
            |pod| pod.metadata.as_mut().unwrap().name = "a;K8S_POD_UID=0".into(),
            "podName",
        ),
        (|pod| pod.hostname = "x".repeat(1000), "hostname"),
        (|pod| pod.log_directory = "/a\0b".into(), "log_directory"),
        (
            |pod| {
                pod.annotations.insert("a".into(), "x".repeat(3 << 20));
            },
            "config.annotations",
        ),
        (
            |pod| {
                pod.port_mappings.push(v1::PortMapping {
                    host_port: -1,
                    container_port: 80,
                    ..Default::default()
                });
            },
            "-1 is not a port",
        ),
        (
            |pod| {
                pod.port_mappings.push(v1::PortMapping {
                    host_port: 8080,
                    container_port: 80,
                    protocol: 77,
                    ..Default::default()
                });
            },
            "protocol is 77",
        ),
        (
            |pod| pod.linux.as_mut().unwrap().cgroup_parent = "/../../x".into(),
            "cgroup parent",
        ),
    ];
    daemon.with(async |mut client| {
        for (change, named) in table {
            let mut bad = pod.clone();
            change(&mut bad);
            let failure = client.try_run(&bad).await.unwrap_err();
            assert!(
                failure.message().contains(named) && failure.message().ends_with('.'),
                "{named}: {failure}"
            );
        }
        // More than any message may have.
        let mut large = pod.clone();
        large.labels.insert("a".into(), "x".repeat(17 << 20));
        let failure = client.try_run(&large).await.unwrap_err();
        assert_eq!(failure.code(), Code::OutOfRange, "{failure}");
        let sandbox = client.run(&pod).await;
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn containers_that_make_no_sense_are_refused_by_the_field() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("refused");
    type Change = fn(&mut v1::ContainerConfig);
    fn linux(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerResources {
        let linux = config.linux.get_or_insert_default();
        linux.resources.get_or_insert_default()
    }
    fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
        let linux = config.linux.get_or_insert_default();
        linux.security_context.get_or_insert_default()
    }
    let table: [(Change, &str); 16] = [
        (
            |c| c.metadata.as_mut().unwrap().name = "a\nb".into(),
            "metadata.name",
        ),
        (|c| c.log_path = "../../../etc/passwd".into(), "log_path"),
        (|c| c.log_path = "/etc/cron.d/x".into(), "log_path"),
        (|c| c.log_path = "a\0b".into(), "log_path"),
        (|c| c.stop_signal = 9999, "stop_signal is 9999"),
        (|c| c.args = vec!["a\0b".into()], "NUL"),
        (|c| c.working_dir = "relative".into(), "cwd"),
        (
            |c| {
                c.envs.push(v1::KeyValue {
                    key: "A".into(),
                    value: "a\0b".into(),
                });
            },
            "NUL",
        ),
        (|c| linux(c).cpu_period = -1, "cpu_period"),
        (|c| linux(c).cpu_shares = -1, "cpu_shares"),
        (|c| linux(c).oom_score_adj = -5000, "oom_score_adj"),
        (|c| linux(c).memory_limit_in_bytes = -7, "memory"),
        (
            |c| security(c).run_as_user = Some(v1::Int64Value { value: -5 }),
            "runAsUser",
        ),
        (
            |c| security(c).run_as_user = Some(v1::Int64Value { value: 1 << 40 }),
            "runAsUser",
        ),
        (
            |c| security(c).supplemental_groups_policy = 5,
            "supplemental_groups_policy",
        ),
        (
            |c| {
                c.mounts.push(v1::Mount {
                    container_path: "/x".into(),
                    host_path: "/".into(),
                    propagation: 9,
                    ..Default::default()
                });
            },
            "propagation is 9",
        ),
    ];
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        for (change, named) in table {
            let mut bad = container("c", &["sleep", "1000"]);
            change(&mut bad);
            let outcome = match client.create(&sandbox, &pod, bad).await {
                Ok(id) => client.start(&id).await.map(|()| id),
                Err(failure) => Err(failure),
            };
            let failure = outcome.expect_err(named);
            assert!(
                failure.message().contains(named) && failure.message().ends_with('.'),
                "{named}: {failure}"
            );
        }
        let id = client
            .started(&sandbox, &pod, container("fine", &["sleep", "1000"]))
            .await;
        for width in [-1, i64::MIN] {
            client.stop(&id, width).await.unwrap();
        }
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_log_directory_that_is_a_link_is_not_followed() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("linked");
    let victim = daemon.node.scratch().join("victim");
    std::fs::create_dir(&victim).unwrap();
    let directory = std::path::Path::new(&pod.log_directory);
    std::fs::create_dir_all(directory.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(&victim, directory).unwrap();
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let failure = client
            .create(&sandbox, &pod, container("c", &["echo", "mine"]))
            .await
            .unwrap_err();
        assert!(failure.message().contains("c.log"), "{failure}");
        // It may also be put there later, under a running container.
        std::fs::remove_file(directory).unwrap();
        let id = client
            .started(&sandbox, &pod, container("c", &["sleep", "1000"]))
            .await;
        std::fs::remove_dir_all(directory).unwrap();
        std::os::unix::fs::symlink(&victim, directory).unwrap();
        let reopen = v1::ReopenContainerLogRequest { container_id: id };
        client.runtime.reopen_container_log(reopen).await.unwrap_err();
        client.remove_sandbox(&sandbox).await;
    });
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    let _ = std::fs::remove_file(directory);
    daemon.finish();
}

#[test]
fn what_is_large_and_allowed_works() {
    let mut daemon = Daemon::start();
    let mut pod = daemon.sandbox("large");
    // Annotations are texts, whatever is in them.
    let deep = "[".repeat(100_000);
    pod.annotations = HashMap::from([
        ("deep".to_owned(), deep.clone()),
        ("quote".to_owned(), "\"\\\n".to_owned()),
    ]);
    let file = daemon.node.file("mounted", "yes\n");
    let mut config = container("c", &["sleep", "1000"]);
    config.annotations.clone_from(&pod.annotations);
    config.envs.push(v1::KeyValue {
        key: "LARGE".into(),
        value: "x".repeat(100_000),
    });
    let mount = |number| v1::Mount {
        container_path: format!("/many/{number}"),
        host_path: file.to_string_lossy().into_owned(),
        readonly: true,
        ..Default::default()
    };
    config.mounts = (0..MOUNTS).map(mount).collect();
    let (sandbox, id) = daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let id = client.started(&sandbox, &pod, config).await;
        (sandbox, id)
    });
    daemon.restart();
    daemon.with(async |mut client| {
        let status = client.status(&id).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
        assert_eq!(status.annotations, pod.annotations);
        assert_eq!(status.mounts.len(), MOUNTS);
        let last = format!("/many/{}", MOUNTS - 1);
        for (command, expected) in [
            (vec!["cat", &last], "yes\n".to_owned()),
            (vec!["env", "LARGE"], "x".repeat(100_000)),
        ] {
            let mut cmd = vec!["/bin/helper".to_owned()];
            cmd.extend(command.iter().map(|&word| word.to_owned()));
            let exec = v1::ExecSyncRequest {
                container_id: id.clone(),
                cmd,
                timeout: 20,
            };
            let output = client.runtime.exec_sync(exec).await.unwrap().into_inner();
            let output = String::from_utf8(output.stdout).unwrap();
            assert!(output.contains(&expected), "{command:?}");
        }
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

const MOUNTS: usize = 10_000;
