//! Attached clients: copies of the output, input, terminals, and clients that are slow or gone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use berth_shim::protocol::{FailureCode, Request};
use rustix::pipe::{PipeFlags, pipe_with};
use support::{Pod, TestClient, wait_until};

fn pipe() -> (File, OwnedFd) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

struct Attached {
    stdout: File,
    stderr: File,
    stdin: Option<File>,
}

fn attach(client: &mut TestClient, id: &str, input: bool) -> Attached {
    let ((stdout, out), (stderr, err)) = (pipe(), pipe());
    let mut fds = vec![out, err];
    let stdin = input.then(|| {
        let (read, write) = pipe();
        fds.push(read.into());
        File::from(write)
    });
    client.call_with(Request::Attach { container: id.into() }, fds);
    Attached {
        stdout,
        stderr,
        stdin,
    }
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn attached_clients_see_output_and_give_input() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let mut request = pod.bundle("a", &["sh", "-c", "cat; echo end >&2"]);
    (request.stdin, request.stdin_once) = (true, true);
    client.create(request);
    let watcher = attach(&mut client, "a", false);
    let mut typist = attach(&mut client, "a", true);
    client.start("a");
    let big = "0123456789abcdef\n".repeat(20_000);
    let mut stdin = typist.stdin.take().unwrap();
    let sent = big.clone();
    let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()).unwrap());
    let out = std::thread::spawn(move || text(typist.stdout));
    assert_eq!(text(watcher.stdout), big);
    assert_eq!(out.join().unwrap(), big);
    writer.join().unwrap();
    assert_eq!(text(watcher.stderr), "end\n");
    assert_eq!(text(typist.stderr), "end\n");
    assert_eq!(client.exited("a").exit_code, 0);
    assert_eq!(pod.logged("a", "stdout"), big.as_bytes());
}

#[test]
fn a_client_that_goes_is_no_loss() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sh", "-c", "yes line | head -n 100000"]));
    drop(attach(&mut client, "a", false));
    let slow = attach(&mut client, "a", false);
    client.start("a");
    wait_until("the slow client holds the container up", || {
        pod.log("a").len() > 1000
    });
    drop(slow);
    assert_eq!(client.exited("a").exit_code, 0);
    assert_eq!(pod.log("a").len(), 100_000);
}

#[test]
fn a_client_that_never_reads_does_not_keep_a_dead_container() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sh", "-c", "yes line"]));
    let stuck = attach(&mut client, "a", false);
    client.start("a");
    wait_until("it wrote", || !pod.log("a").is_empty());
    client.kill("a");
    assert_eq!(client.exited("a").exit_code, 137);
    let seen = text(stuck.stdout);
    assert_eq!(seen.as_bytes(), &pod.logged("a", "stdout")[..seen.len()]);
    assert_eq!(seen.len(), pod.logged("a", "stdout").len());
}

#[test]
fn closing_the_input_ends_what_reads_it() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let mut request = pod.bundle("a", &["cat"]);
    request.stdin = true;
    client.create(request);
    client.start("a");
    let mut typist = attach(&mut client, "a", true);
    typist.stdin.as_mut().unwrap().write_all(b"typed\n").unwrap();
    wait_until("it arrived", || pod.logged("a", "stdout") == b"typed\n");
    // Without stdin_once a client's going changes nothing.
    drop(typist);
    client.call(Request::CloseStdin {
        container: "a".into(),
    });
    assert_eq!(client.exited("a").exit_code, 0);
    let fds = || pipe().1;
    let late = client.client.call(
        Request::Attach {
            container: "a".into(),
        },
        vec![fds(), fds()],
    );
    assert!(late.is_err(), "it has ended");
}

#[test]
fn input_without_a_standard_input_is_refused() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.run(pod.bundle("eof", &["cat"]));
    client.create(pod.bundle("a", &["sleep", "1000"]));
    assert_eq!(
        client
            .refused(Request::Attach {
                container: "a".into()
            })
            .code,
        FailureCode::Invalid
    );
    let (read, _write) = pipe();
    let refused = client.client.call(
        Request::Attach {
            container: "a".into(),
        },
        vec![pipe().1, pipe().1, read.into()],
    );
    assert!(refused.is_err());
    assert_eq!(
        client
            .refused(Request::Resize {
                id: "a".into(),
                width: 1,
                height: 1
            })
            .code,
        FailureCode::Invalid
    );
}

#[test]
fn a_terminal_is_one_stream_with_a_size() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let script = "stty size; read word; echo got $word; stty size; exit 3";
    let mut request = pod.bundle_with("a", &["sh", "-c", script], |spec| {
        spec["process"]["terminal"] = true.into();
        spec["process"]["consoleSize"] = serde_json::json!({ "width": 80, "height": 24 });
    });
    request.stdin = true;
    client.create(request);
    let mut typist = attach(&mut client, "a", true);
    client.start("a");
    wait_until("it asks", || pod.logged("a", "stdout").starts_with(b"24 80"));
    client.call(Request::Resize {
        id: "a".into(),
        width: 132,
        height: 43,
    });
    typist.stdin.as_mut().unwrap().write_all(b"word\n").unwrap();
    assert_eq!(client.exited("a").exit_code, 3);
    let log = String::from_utf8(pod.logged("a", "stdout")).unwrap();
    assert!(log.contains("got word\r\n43 132\r\n"), "{log:?}");
    assert_eq!(text(typist.stdout), log);
    assert_eq!(text(typist.stderr), "");
}

#[test]
fn a_user_who_is_not_root_can_open_its_streams_by_path() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let script = "echo out > /proc/self/fd/1; echo err > /proc/self/fd/2";
    let as_user = |spec: &mut serde_json::Value| {
        spec["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 1000 })
    };
    let record = client.run(pod.bundle_with("a", &["sh", "-c", script], as_user));
    assert_eq!(record.exit_code, 0, "{:?}", pod.log("a"));
    assert_eq!(pod.logged("a", "stdout"), b"out\n");
    assert_eq!(pod.logged("a", "stderr"), b"err\n");
}

#[test]
fn a_container_that_closes_its_terminal_can_open_it_again() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let script = "tty=$(/bin/busybox readlink /proc/self/fd/0); \
                  exec <&- >&- 2>&-; sleep 0.1; echo back > $tty";
    let request = pod.bundle_with("a", &["sh", "-c", script], |spec| {
        spec["process"]["terminal"] = true.into()
    });
    client.run(request);
    assert!(
        pod.logged("a", "stdout").ends_with(b"back\r\n"),
        "{:?}",
        pod.log("a")
    );
}

#[test]
fn a_file_can_be_attached_as_well() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sh", "-c", "yes line | head -n 1000"]));
    let path = pod.root.path().join("copy");
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let fds = vec![File::create(&path).unwrap().into(), null.into()];
    client.call_with(
        Request::Attach {
            container: "a".into(),
        },
        fds,
    );
    client.start("a");
    client.exited("a");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "line\n".repeat(1000));
}
