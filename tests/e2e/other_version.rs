//! A program and a daemon of different versions: the one that does not understand says so, and what there is to do.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use berth_tests::{Node, berth, container, eventually, pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn send(stream: &mut UnixStream, message: &Value) {
    let body = message.to_string();
    let length = u32::try_from(body.len()).unwrap().to_le_bytes();
    stream
        .write_all(&[&length[..], body.as_bytes()].concat())
        .unwrap();
}

fn receive(stream: &mut UnixStream) -> Option<Value> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

fn lock(node: &Node, name: &str) -> PathBuf {
    node.root().join("var/lib/berth/kubelet/pod-locks").join(name)
}

fn daemon(node: &Node) -> Option<Pid> {
    let pid = fs::read_to_string(lock(node, "daemon.lock")).ok()?;
    pid.parse().ok().map(Pid::from_raw)
}

fn socket(node: &Node, pid: Pid) -> PathBuf {
    node.root().join(format!("run/berth/control/{pid}.sock"))
}

fn run_detached(node: &Node) -> String {
    let main = container("main", &["sleep", "inf"], json!({}));
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [main] });
    let file = node.file("web.yaml", &pod("web", spec)).display().to_string();
    berth(node, &["run", "-d", &file]).expect_code(0);
    berth(node, &["wait", "web", "--for=condition=Ready"]).expect_code(0);
    file
}

fn end(node: Node) {
    berth(&node, &["rm", "--force", "web"]).expect_code(0);
    eventually("the daemon ends", || daemon(&node).is_none().then_some(()));
    node.finish();
}

#[test]
fn a_daemon_refuses_what_it_does_not_know() {
    let node = Node::new();
    run_detached(&node);
    let path = socket(&node, daemon(&node).unwrap());
    for question in [
        json!({ "fromTheFuture": {} }),
        json!({ "restart": { "uid": "x", "containers": [], "gently": true } }),
        json!("words"),
    ] {
        let mut stream = UnixStream::connect(&path).unwrap();
        send(&mut stream, &question);
        let answer = receive(&mut stream).unwrap();
        assert_eq!(answer["Err"]["kind"], "notUnderstood", "{question}: {answer}");
    }
    end(node);
}

#[test]
fn a_program_says_that_the_daemon_is_to_be_restarted() {
    let node = Node::new();
    let file = run_detached(&node);
    // The daemon goes, the pod stays, and a daemon of another version has it: this process.
    let real = daemon(&node).unwrap();
    kill(real, Signal::SIGKILL).unwrap();
    eventually("the daemon is gone", || {
        UnixStream::connect(socket(&node, real)).is_err().then_some(())
    });
    let own = Pid::this();
    for name in ["daemon.lock", "default_web.lock"] {
        fs::write(lock(&node, name), own.to_string()).unwrap();
    }
    let listener = UnixListener::bind(socket(&node, own)).unwrap();
    let fake = thread::spawn(move || {
        let refusal = json!({ "Err": { "kind": "notUnderstood", "message": "The question can't be read: unknown variant." } });
        let answers = [refusal, json!({ "Ok": { "fromTheFuture": 1 } })];
        let mut next = answers.iter().cycle();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            match receive(&mut stream) {
                Some(question) if question == "end" => return,
                Some(_) => send(&mut stream, next.next().unwrap()),
                // Who only looks whether anybody is here says nothing.
                None => {}
            }
        }
    });
    let way_out = format!("else `kill {own}`, and the next command starts it again");
    // Each way of not understanding each other.
    for _ in 0..2 {
        for arguments in [
            &["exec", "web", "--", "true"][..],
            &["stats", "--no-stream"],
            &["top", "web"],
            &["restart", "web"],
            &["stop", "web"],
            &["cp", "web:/etc/hosts", "hosts"],
            &["debug", "web"],
            &["attach", "web"],
            &["run", "-d", &file],
        ] {
            let ended = berth(&node, arguments);
            assert_eq!(ended.code(), Some(1), "{arguments:?}: {}", ended.output);
            ended.expect_output(&[&format!("Process {own}"), "another version of berth", &way_out]);
        }
    }
    // What only looks at files needs no daemon.
    for arguments in [
        &["ps"][..],
        &["logs", "web"],
        &["inspect", "web"],
        &["events"],
        &["status", "web"],
    ] {
        berth(&node, arguments).expect_code(0);
    }
    send(
        &mut UnixStream::connect(socket(&node, own)).unwrap(),
        &json!("end"),
    );
    fake.join().unwrap();
    for name in ["daemon.lock", "default_web.lock"] {
        fs::remove_file(lock(&node, name)).unwrap();
    }
    fs::remove_file(socket(&node, own)).unwrap();
    end(node);
}
