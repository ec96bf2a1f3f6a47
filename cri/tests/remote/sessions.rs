//! Exec, attach and port-forward by descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{ContainerConfig, Engine, EngineError, Session, StreamOptions, TerminalSize};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::bench::{PATIENCE, Place, container, on_both_engines, words};

const ALL: StreamOptions = StreamOptions {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
    size: None,
};
const OUTPUT: StreamOptions = StreamOptions { stdin: false, ..ALL };
const TERMINAL: StreamOptions = StreamOptions {
    stderr: false,
    tty: true,
    ..ALL
};

async fn read_to_end(fd: OwnedFd) -> Vec<u8> {
    let read = move || {
        let mut bytes = Vec::new();
        // The end of a terminal is an error.
        let _ = File::from(fd).read_to_end(&mut bytes);
        bytes
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Writes all of it, and is the end of the input then.
async fn write_to_end(fd: OwnedFd, bytes: Vec<u8>) {
    let write = move || File::from(fd).write_all(&bytes).unwrap();
    tokio::task::spawn_blocking(write).await.unwrap();
}

async fn write(fd: &OwnedFd, bytes: &'static [u8]) {
    let mut file = File::from(fd.try_clone().unwrap());
    tokio::task::spawn_blocking(move || file.write_all(bytes).unwrap())
        .await
        .unwrap();
}

fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}

async fn end(session: Session) -> Result<i32, EngineError> {
    session.end.await.unwrap()
}

pub(crate) async fn a_command_has_streams_an_end_of_input_and_an_exit_code(place: Place<'_>) {
    let sandbox = place.sandbox("exec").await;
    let id = place
        .started(&sandbox, container("main", &["sleep", "1000"]))
        .await;
    let script = words(&["sh", "-c", "cat; echo end >&2; exit 7"]);
    let mut session = place.engine.exec(&id, script, ALL).await.unwrap();
    let stdout = read_to_end(session.stdout.take().unwrap());
    let stderr = read_to_end(session.stderr.take().unwrap());
    let input = write_to_end(session.stdin.take().unwrap(), b"there and back".to_vec());
    let (stdout, stderr, (), code) = tokio::join!(stdout, stderr, input, end(session));
    assert_eq!((&*stdout, &*stderr), (&b"there and back"[..], &b"end\n"[..]));
    assert_eq!(code.unwrap(), 7);
    let session = place.engine.exec(&id, words(&["true"]), OUTPUT).await.unwrap();
    assert!(session.stdin.is_none());
    assert_eq!(end(session).await.unwrap(), 0);
    let none = StreamOptions::default();
    let refused = place.engine.exec(&id, words(&["true"]), none).await.unwrap_err();
    assert!(matches!(refused, EngineError::InvalidArgument(_)), "{refused}");
}

pub(crate) async fn large_transfers_lose_no_byte(place: Place<'_>) {
    let sandbox = place.sandbox("large").await;
    let id = place
        .started(&sandbox, container("main", &["sleep", "1000"]))
        .await;
    let sent = noise(30_000_000);
    let mut session = place.engine.exec(&id, words(&["cat"]), ALL).await.unwrap();
    let stdout = read_to_end(session.stdout.take().unwrap());
    let input = write_to_end(session.stdin.take().unwrap(), sent.clone());
    let (stdout, (), code) = tokio::join!(stdout, input, end(session));
    assert_eq!(code.unwrap(), 0);
    assert_eq!(stdout.len(), sent.len());
    assert!(Sha256::digest(&stdout) == Sha256::digest(&sent));
}

pub(crate) async fn a_terminal_has_a_size_and_one_output(place: Place<'_>) {
    let sandbox = place.sandbox("tty").await;
    let id = place
        .started(&sandbox, container("main", &["sleep", "1000"]))
        .await;
    let begun = StreamOptions {
        size: Some(TerminalSize {
            width: 81,
            height: 25,
        }),
        ..TERMINAL
    };
    let script = "stty size; read go; stty size; echo both >&2; exit 5";
    let mut session = place
        .engine
        .exec(&id, words(&["sh", "-c", script]), begun)
        .await
        .unwrap();
    assert!(session.stderr.is_none());
    session.resize.send_replace(Some(TerminalSize {
        width: 132,
        height: 43,
    }));
    let stdout = read_to_end(session.stdout.take().unwrap());
    // The size goes its own way.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stdin = session.stdin.take().unwrap();
    write(&stdin, b"\n").await;
    let (stdout, code) = tokio::join!(stdout, end(session));
    let stdout = String::from_utf8(stdout).unwrap();
    assert!(
        stdout.contains("43 132\r\n") && stdout.contains("both\r\n"),
        "{stdout:?}"
    );
    // Whichever of the two sizes was first: it had one. Other runtimes begin without.
    let ours = place.engine.version().await.unwrap().name == "berth";
    assert!(
        !ours || stdout.starts_with("25 81\r\n") || stdout.starts_with("43 132\r\n"),
        "{stdout:?}"
    );
    assert_eq!(code.unwrap(), 5);
}

pub(crate) async fn attached_to_a_container_until_its_end(place: Place<'_>) {
    let sandbox = place.sandbox("attach").await;
    let config = ContainerConfig {
        stdin: true,
        stdin_once: true,
        ..container("main", &["sh", "-c", "cat; echo bye >&2; exit 9"])
    };
    let id = place.started(&sandbox, config).await;
    let mut session = place.engine.attach(&id, ALL).await.unwrap();
    let stdout = read_to_end(session.stdout.take().unwrap());
    let stderr = read_to_end(session.stderr.take().unwrap());
    let input = write_to_end(session.stdin.take().unwrap(), b"hello".to_vec());
    let (stdout, stderr, (), code) = tokio::join!(stdout, stderr, input, end(session));
    assert_eq!((&*stdout, &*stderr), (&b"hello"[..], &b"bye\n"[..]));
    assert_eq!(code.unwrap(), 9);
    let late = place.engine.attach(&id, ALL).await.unwrap_err();
    assert!(matches!(late, EngineError::FailedPrecondition(_)), "{late}");
}

async fn who_leaves_hangs_up_a_terminal(place: Place<'_>) {
    let sandbox = place.sandbox("leave").await;
    let id = place
        .started(&sandbox, container("main", &["sleep", "1000"]))
        .await;
    let script = "trap 'echo > /tmp/hung-up; exit' HUP; echo > /tmp/ready; while true; do sleep 0.05; done";
    let session = place
        .engine
        .exec(&id, words(&["sh", "-c", script]), TERMINAL)
        .await
        .unwrap();
    let there = async |path: &str| {
        let command = words(&["sh", "-c", &format!("while ! [ -e {path} ]; do sleep 0.05; done")]);
        let found = place.engine.exec_sync(&id, command, PATIENCE, 10).await.unwrap();
        assert_eq!(found.exit_code, 0);
    };
    there("/tmp/ready").await;
    drop(session);
    there("/tmp/hung-up").await;
}

pub(crate) async fn ports_of_a_pod_are_reached(place: Place<'_>) {
    let sandbox = place.sandbox("ports").await;
    let config = container("main", &["/bin/helper", "listen", "tcp", "8080"]);
    let id = place.started(&sandbox, config).await;
    let reached = "until /bin/helper connect tcp 127.0.0.1:8080 x; do sleep 0.05; done";
    let command = words(&["sh", "-c", reached]);
    let reached = place
        .engine
        .exec_sync(&id, command, PATIENCE, 1000)
        .await
        .unwrap();
    assert_eq!(reached.exit_code, 0);
    let stream = place.engine.port_forward(&sandbox, 8080).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let sent = noise(5_000_000);
    let writing = async {
        to.write_all(&sent).await.unwrap();
        // The end of one direction is not that of the other.
        to.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (read, ()) = tokio::join!(from.read_to_end(&mut received), writing);
    read.unwrap();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

on_both_engines!(
    a_command_has_streams_an_end_of_input_and_an_exit_code,
    large_transfers_lose_no_byte,
    a_terminal_has_a_size_and_one_output,
    attached_to_a_container_until_its_end,
    who_leaves_hangs_up_a_terminal,
    ports_of_a_pod_are_reached,
);

/// A port that nobody listens on is known only behind the streams; the caller's connection is reset then.
#[test]
fn a_port_that_nobody_listens_on_breaks_the_connection() {
    crate::bench::Bench::new().run(crate::bench::Kind::Remote, async |place| {
        let sandbox = place.sandbox("nobody").await;
        let mut stream = place.engine.port_forward(&sandbox, 9).await.unwrap();
        let error = stream.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let _: &Arc<dyn Engine> = &place.engine;
    });
}
