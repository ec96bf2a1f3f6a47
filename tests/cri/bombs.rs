//! Containers that use everything up.

use berth_cri::v1;
use berth_tests::cgroup_directories;
use tonic::Status;

use crate::daemon::{Client, Daemon, PATIENCE, container};

/// Sets a limit of the pod's cgroup, as a kubelet does.
fn limit(pod: &v1::PodSandboxConfig, file: &str, value: &str) {
    let parent = &pod.linux.as_ref().unwrap().cgroup_parent;
    let written = cgroup_directories(std::path::Path::new(parent))
        .into_iter()
        .filter(|directory| std::fs::write(directory.join(file), value).is_ok());
    assert!(written.count() > 0, "no hierarchy has {file}");
}

async fn exec(client: &mut Client, id: &str, command: &[&str]) -> Result<v1::ExecSyncResponse, Status> {
    let exec = v1::ExecSyncRequest {
        container_id: id.to_owned(),
        cmd: command.iter().map(|&word| word.to_owned()).collect(),
        timeout: 20,
    };
    Ok(client.runtime.exec_sync(exec).await?.into_inner())
}

async fn log_has(client: &mut Client, id: &str, text: &str) {
    let path = client.status(id).await.unwrap().log_path;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&path).unwrap_or_default().contains(text) {
        assert!(std::time::Instant::now() < deadline, "{text:?} is not in the log");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn exited(client: &mut Client, id: &str) -> v1::ContainerStatus {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = client.status(id).await.unwrap();
        if status.state() == v1::ContainerState::ContainerExited {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[test]
fn a_fork_bomb_stays_in_its_pod() {
    let daemon = Daemon::start();
    let (bomb, other) = (daemon.sandbox("bomb"), daemon.sandbox("other"));
    limit(&bomb, "pids.max", "64");
    daemon.with(async |mut client| {
        let sandbox = client.run(&bomb).await;
        let id = client
            .started(&sandbox, &bomb, container("c", &["forkbomb"]))
            .await;
        log_has(&mut client, &id, "refused after").await;
        // The pod has none left, which an exec is told; and the node goes on.
        let failure = exec(&mut client, &id, &["/bin/helper", "true"])
            .await
            .unwrap_err();
        assert!(failure.message().ends_with('.'), "{failure}");
        let fine = client.run(&other).await;
        let echo = client
            .started(&fine, &other, container("c", &["echo", "hello"]))
            .await;
        assert_eq!(exited(&mut client, &echo).await.exit_code, 0);
        client.remove_sandbox(&fine).await;
        client.stop(&id, 1).await.unwrap();
        exited(&mut client, &id).await;
        client.remove(&id).await.unwrap();
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

#[test]
fn a_kill_for_memory_is_told() {
    let daemon = Daemon::start();
    let pod = daemon.sandbox("memory");
    let limited = |name: &str, arguments: &[&str]| {
        let mut config = container(name, arguments);
        config.linux = Some(v1::LinuxContainerConfig {
            resources: Some(v1::LinuxContainerResources {
                memory_limit_in_bytes: 24 << 20,
                ..Default::default()
            }),
            ..Default::default()
        });
        config
    };
    let bomb = ["/bin/helper", "allocate", "268435456"];
    daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        // The first process.
        let id = client.started(&sandbox, &pod, limited("first", &bomb[1..])).await;
        let status = exited(&mut client, &id).await;
        assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"));
        // A child, whose parent goes on, and then ends by itself.
        let script = ["run", "wait-file", "/end", ";", "exit", "5"];
        let id = client.started(&sandbox, &pod, limited("child", &script)).await;
        let killed = exec(&mut client, &id, &bomb).await.unwrap();
        assert_eq!(killed.exit_code, 137);
        let status = client.status(&id).await.unwrap();
        assert_eq!(status.state(), v1::ContainerState::ContainerRunning, "{status:?}");
        exec(&mut client, &id, &["/bin/helper", "touch", "/end"])
            .await
            .unwrap();
        let status = exited(&mut client, &id).await;
        assert_eq!((status.exit_code, &*status.reason), (5, "OOMKilled"));
        // Whoever was never over the limit ends as ever.
        let id = client
            .started(&sandbox, &pod, limited("modest", &["exit", "6"]))
            .await;
        let status = exited(&mut client, &id).await;
        assert_eq!((status.exit_code, &*status.reason), (6, "Error"));
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}
