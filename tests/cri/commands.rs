//! Commands in containers whose daemon is killed meanwhile.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use berth_cri::v1;
use berth_tests::eventually;

use crate::daemon::{Daemon, PATIENCE, container};

/// A command that starts three more.
const TREE: [&str; 4] = ["/bin/helper", "forkbomb", "--most", "3"];

/// A WebSocket to a streaming URL, read until this was printed.
fn open(url: &str, until: &str) -> TcpStream {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    // A server's frames are what they carry, after a few bytes.
    while !String::from_utf8_lossy(&seen).contains(until) {
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "it ended with {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
    stream
}

#[test]
fn commands_end_with_their_daemon_and_the_container_goes_on() {
    let mut daemon = Daemon::start();
    let pod = daemon.sandbox("busy");
    let (sandbox, id, sessions) = daemon.with(async |mut client| {
        let sandbox = client.run(&pod).await;
        let id = client
            .started(&sandbox, &pod, container("c", &["sleep", "10000"]))
            .await;
        let mut sessions = Vec::new();
        for tty in [false, true] {
            let exec = v1::ExecRequest {
                container_id: id.clone(),
                cmd: TREE.map(str::to_owned).to_vec(),
                tty,
                stdin: true,
                stdout: true,
                stderr: !tty,
            };
            let url = client.runtime.exec(exec).await.unwrap().into_inner().url;
            sessions.push(open(&url, "3 children"));
        }
        // A call whose end would come in an hour.
        let exec = v1::ExecSyncRequest {
            container_id: id.clone(),
            cmd: TREE.map(str::to_owned).to_vec(),
            timeout: 3600,
        };
        let mut other = client.clone();
        let call = tokio::spawn(async move { other.runtime.exec_sync(exec).await });
        // A job that a command left in the background is the container's own.
        let exec = v1::ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["/bin/helper", "grandchild"].map(str::to_owned).to_vec(),
            timeout: 20,
        };
        client.runtime.exec_sync(exec).await.unwrap();
        let deadline = std::time::Instant::now() + PATIENCE;
        while sleepers(&daemon) < 3 * 4 {
            assert!(
                std::time::Instant::now() < deadline,
                "{:#?}",
                daemon.node.processes()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        daemon.kill();
        call.await.unwrap().unwrap_err();
        (sandbox, id, sessions)
    });
    for mut session in sessions {
        // The end, or a reset: not silence.
        let mut rest = Vec::new();
        if let Err(error) = session.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
    daemon.restart_any();
    eventually("the commands and all that they started are gone", || {
        (sleepers(&daemon) == 0).then_some(())
    });
    assert!(
        daemon
            .node
            .processes()
            .iter()
            .any(|process| process.command.contains("--inner"))
    );
    daemon.with(async |mut client| {
        let state = client.status(&id).await.unwrap().state();
        assert_eq!(state, v1::ContainerState::ContainerRunning);
        let exec = v1::ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["/bin/helper", "echo", "hello"].map(str::to_owned).to_vec(),
            timeout: 20,
        };
        let output = client.runtime.exec_sync(exec).await.unwrap().into_inner();
        assert_eq!(output.stdout, b"hello\n");
        client.remove_sandbox(&sandbox).await;
    });
    daemon.finish();
}

/// Processes of the commands: each tree has its root and three that sleep.
fn sleepers(daemon: &Daemon) -> usize {
    let all = daemon.node.processes();
    let of_tree = |command: &str| command.contains("forkbomb") || command.ends_with("sleep inf");
    all.iter().filter(|process| of_tree(&process.command)).count()
}
