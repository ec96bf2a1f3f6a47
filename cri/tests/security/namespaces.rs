//! Whom containers see.

use berth_cri::{ContainerConfig, ContainerId, ContainerSecurity, Engine, EngineError};

use crate::bench::{Bench, Pod, shared_pid};

/// A container that sees the processes of another.
fn debugger(pod: &Pod<'_>, target: &ContainerId, script: &str) -> ContainerConfig {
    ContainerConfig {
        pid_target: Some(target.clone()),
        ..pod.script("debugger", script, ContainerSecurity::default())
    }
}

#[test]
fn an_ephemeral_container_sees_its_targets_processes_and_no_others() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let target = pod
                .start(pod.script("target", "exec sleep 1234", ContainerSecurity::default()))
                .await;
            let other = pod
                .start(pod.script("other", "exec sleep 4321", ContainerSecurity::default()))
                .await;
            let script = "ps -o args; readlink /proc/1/ns/pid; readlink /proc/self/ns/pid; cat /proc/1/root/etc/passwd | grep -c web";
            let printed = pod.output(debugger(&pod, &target, script)).await;
            assert!(printed.contains("sleep 1234") && !printed.contains("4321"), "{printed}");
            let pid = pod.engine.container_status(&target).await.unwrap().pid;
            let namespace = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
            let namespace = namespace.to_string_lossy();
            assert_eq!(printed.matches(&*namespace).count(), 2, "{printed}");
            // The target's end is the end of whoever lives in its namespace.
            let guest = pod.start(debugger(&pod, &target, "sleep 1000")).await;
            let mut events = pod.engine.events();
            pod.engine
                .stop_container(&target, std::time::Duration::ZERO)
                .await
                .unwrap();
            while pod.engine.container_status(&guest).await.unwrap().exit_code != 137 {
                events.recv().await.unwrap();
            }
            let late = ContainerConfig {
                attempt: 1,
                ..debugger(&pod, &target, "true")
            };
            let refused = pod.refusal(late).await;
            assert!(matches!(refused, EngineError::FailedPrecondition(_)), "{refused:?}");
            assert_eq!(pod.exec(&other, "echo lives").await, "lives\n");
        },
    );
}

#[test]
fn a_target_is_a_running_container_of_the_same_pod() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let config = debugger(&pod, &ContainerId("0".repeat(64)), "true");
            let refused = pod.refusal(config).await;
            assert!(
                matches!(&refused, EngineError::InvalidArgument(why) if why.contains("is no container of its sandbox")),
                "{refused:?}"
            );
            let config = pod.script("target", "true", ContainerSecurity::default());
            let created = pod.engine.create_container(&pod.sandbox, config).await.unwrap();
            let refused = pod.refusal(debugger(&pod, &created, "true")).await;
            assert!(
                matches!(&refused, EngineError::FailedPrecondition(why) if why.contains("does not run")),
                "{refused:?}"
            );
        },
    );
}

#[test]
fn containers_share_what_the_pod_says() {
    Bench::new().with(shared_pid, async |pod| {
        let first = pod.idle("first", ContainerSecurity::default()).await;
        let second = pod.idle("second", ContainerSecurity::default()).await;
        let show = "for n in ipc mnt net pid uts user; do readlink /proc/self/ns/$n; done";
        let (one, two) = (pod.exec(&first, show).await, pod.exec(&second, show).await);
        let host = |name: &str| std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap();
        for (index, (name, shared, of_host)) in [
            ("ipc", true, false),
            ("mnt", false, false),
            ("net", true, false),
            ("pid", true, false),
            ("uts", true, false),
            ("user", true, true),
        ]
        .into_iter()
        .enumerate()
        {
            let (one, two) = (one.lines().nth(index).unwrap(), two.lines().nth(index).unwrap());
            assert_eq!(one == two, shared, "{name}");
            assert_eq!(one == host(name).to_string_lossy(), of_host, "{name}");
        }
    });
}

#[test]
fn a_pod_may_share_the_nodes_namespaces() {
    Bench::new().with(
        |config| {
            config.namespaces.host_network = true;
            config.namespaces.host_pid = true;
            config.namespaces.host_ipc = true;
        },
        async |pod| {
            let id = pod.idle("main", ContainerSecurity::default()).await;
            let printed = pod
                .exec(
                    &id,
                    "for n in ipc net pid uts; do readlink /proc/self/ns/$n; done",
                )
                .await;
            for (line, name) in printed.lines().zip(["ipc", "net", "pid", "uts"]) {
                let host = std::fs::read_link(format!("/proc/thread-self/ns/{name}")).unwrap();
                assert_eq!(line, host.to_string_lossy(), "{name}");
            }
        },
    );
}
