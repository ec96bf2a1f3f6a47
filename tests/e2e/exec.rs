//! `berth exec`, `attach`, `cp` and `port-forward`: talking to containers that another process runs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use berth_tests::{Node, Running, berth, container, eventually, pod};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use serde_json::json;

/// A pod that a `berth run` runs which does not end by itself.
fn server(node: &Node) -> Running {
    let main = container(
        "main",
        &["httpd", "--port", "8080"],
        json!({ "ports": [{ "name": "http", "containerPort": 8080 }] }),
    );
    let reader = container("reader", &["stdin-echo"], json!({ "stdin": true }));
    let pod = node.run(&pod("web", json!({ "containers": [main, reader] })));
    pod.line("pod is ready");
    pod
}

fn end(node: Node, pod: Running) {
    pod.interrupt();
    pod.wait();
    node.finish();
}

#[test]
fn a_command_ends_with_its_own_code_and_its_own_streams() {
    let node = Node::new();
    let pod = server(&node);
    berth(&node, &["exec", "web", "-c", "main", "--", "exit", "7", "alas"])
        .expect_code(7)
        .expect_output(&["alas"]);
    berth(&node, &["exec", "web", "--", "no-such-program"])
        .expect_code(127)
        .expect_output(&[
            "Defaulted container \"main\" out of: main, reader",
            "no-such-program",
        ]);
    for (program, code) in [
        ("/no/such", 127),
        ("/bin", 126),
        ("/etc/passwd/x", 127),
        ("/etc/hosts", 126),
    ] {
        berth(&node, &["exec", "web", "-c", "main", "--", program])
            .expect_code(code)
            .expect_output(&[program]);
    }
    berth(&node, &["exec", "web", "-c", "none", "--", "true"])
        .expect_code(1)
        .expect_output(&["Pod web has no container none; it has main, reader."]);
    let output = |arguments: &[&str]| {
        let output = node.berth(arguments).output().unwrap();
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let exec = [
        "exec", "-q", "web", "--", "run", "echo", "out", ";", "echo", "--stderr", "err",
    ];
    assert_eq!(output(&exec), ("out\n".to_owned(), "err\n".to_owned()));
    end(node, pod);
}

#[test]
fn the_end_of_the_input_is_passed_on_and_much_output_comes_whole() {
    let node = Node::new();
    let pod = server(&node);
    let echo = Running::start(
        node.berth(["exec", "-i", "web", "--", "stdin-echo"]),
        "one\ntwo\n",
    );
    echo.wait()
        .expect_code(0)
        .expect_output(&["got one", "got two", "end of input"]);
    let mut lines = node
        .berth(["exec", "-q", "web", "--", "lines", "100000", "60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A reader that begins late: the command waits for it, and who runs the pod does not.
    let mut stdout = lines.stdout.take().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    berth(&node, &["exec", "web", "--", "true"]).expect_code(0);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert!(lines.wait().unwrap().success());
    assert_eq!(text.lines().count(), 100_000);
    end(node, pod);
}

#[test]
fn a_terminal_is_one_has_a_size_and_is_put_back() {
    let node = Node::new();
    let pod = server(&node);
    let size = Winsize {
        ws_row: 33,
        ws_col: 111,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).unwrap();
    let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    let mut command = node.berth(["exec", "-it", "-q", "web", "--", "stdin-echo"]);
    let slave = || Stdio::from(File::from(pty.slave.try_clone().unwrap()));
    command.stdin(slave()).stdout(slave()).stderr(slave());
    command.process_group(0);
    let mut child = command.spawn().unwrap();
    let mut keyboard = File::from(pty.master.try_clone().unwrap());
    eventually("the terminal is raw", || {
        let now = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        (now.local_flags != before.local_flags).then_some(())
    });
    keyboard.write_all(b"key\r").unwrap();
    let mut screen = String::new();
    let mut buffer = [0; 1024];
    while !screen.contains("got key") {
        let count = keyboard.read(&mut buffer).unwrap();
        screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    // Ctrl-C goes to the command, not to berth.
    keyboard.write_all(b"\x03").unwrap();
    let status = eventually("it ends", || child.try_wait().unwrap());
    // The helper ends in one way upon every signal that asks it to.
    assert_eq!(status.code(), Some(128 + 15), "{screen}");
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert_eq!(after.local_flags, before.local_flags);
    berth(&node, &["exec", "-it", "web", "--", "true"])
        .expect_code(0)
        .expect_output(&["Unable to use a TTY - input is not a terminal or the right kind of file"]);
    end(node, pod);
}

#[test]
fn ctrl_c_ends_the_client_and_the_death_of_the_owner_is_said() {
    let node = Node::new();
    let pod = server(&node);
    let client = Running::start(node.berth(["exec", "-q", "web", "--", "tick"]), "");
    client.line("1");
    client.interrupt();
    assert_eq!(client.wait().code(), Some(130));
    let client = Running::start(
        node.berth(["exec", "-q", "web", "--", "tick", "--count", "3", "again"]),
        "",
    );
    client.line("again 1");
    pod.kill();
    // The shim ends commands that nobody could hear the end of; that is said, and not taken for a success.
    client
        .wait()
        .expect_code(1)
        .expect_output(&["Who runs the pod has ended"]);
    // A pod that nobody runs is looked after by who asks.
    berth(&node, &["exec", "web", "--", "exit", "5"]).expect_code(5);
    berth(&node, &["restart", "web"])
        .expect_code(1)
        .expect_output(&["Nobody runs this pod"]);
    berth(&node, &["stop", "web"]).expect_code(0);
    node.finish();
}

#[test]
fn attaching_reaches_the_container_itself() {
    let node = Node::new();
    let pod = server(&node);
    let client = Running::start(node.berth(["attach", "-i", "web", "-c", "reader"]), "hello\n");
    client.line("got hello");
    pod.log("reader", "got hello");
    client.signal(Signal::SIGTERM);
    assert_eq!(client.wait().code(), Some(128 + 15));
    let client = Running::start(node.berth(["attach", "web", "-c", "main"]), "");
    client.line("If you don't see a command prompt, try pressing enter.");
    berth(&node, &["exec", "web", "-c", "main", "--", "true"]).expect_code(0);
    berth(&node, &["stop", "web"]).expect_code(0);
    client.wait().expect_code(0);
    // What ended it is another's wish: its containers' codes count.
    pod.wait().expect_code(128 + 15);
    node.finish();
}

#[test]
fn files_go_both_ways_and_nowhere_else() {
    let node = Node::new();
    let pod = server(&node);
    let here = node.scratch().join("tree");
    fs::create_dir_all(here.join("sub")).unwrap();
    fs::write(here.join("sub/file"), "content").unwrap();
    let tree = here.display().to_string();
    berth(&node, &["cp", &tree, "web:/tmp"]).expect_code(0);
    berth(&node, &["exec", "web", "--", "cat", "/tmp/tree/sub/file"])
        .expect_code(0)
        .expect_output(&["content"]);
    let back = node.scratch().join("back").display().to_string();
    berth(&node, &["cp", "default/web:/tmp/tree", &back]).expect_code(0);
    assert_eq!(fs::read_to_string(format!("{back}/sub/file")).unwrap(), "content");
    berth(&node, &["cp", "web:/none", &back])
        .expect_code(1)
        .expect_output(&["/none"]);
    berth(&node, &["cp", &tree, &back]).expect_code(1);
    berth(&node, &["cp", "web:/etc/hosts", "-"])
        .expect_code(1)
        .expect_output(&["`-` is no place to copy"]);
    assert!(!std::path::Path::new("-").exists());
    // What stands in the way is there, not here.
    let file = here.join("sub/file").display().to_string();
    berth(&node, &["cp", &file, "web:/proc/sys"])
        .expect_code(1)
        .expect_output(&["sub/file: can't be made there"]);
    end(node, pod);
}

#[test]
fn a_container_that_swaps_what_is_copied_gets_nothing_of_the_host() {
    let node = Node::new();
    // One of its directories is a link to the host's root, every other moment.
    let racer = container(
        "racer",
        &[
            "run",
            "mkdir",
            "/tmp/tree",
            ";",
            "symlink-race",
            "/tmp/tree",
            "d",
            "/",
            "--seconds",
            "600",
        ],
        json!({}),
    );
    let pod = node.run(&pod("racer", json!({ "containers": [racer] })));
    pod.line("racer started");
    let secret = node.file("secret", "of the host");
    for round in 0..20 {
        let out = node.scratch().join(format!("out{round}"));
        fs::create_dir(&out).unwrap();
        // It may fail, since what it copies changes; it must not go elsewhere.
        berth(&node, &["cp", "racer:/tmp", &out.display().to_string()]);
        berth(
            &node,
            &[
                "cp",
                &secret.display().to_string(),
                "racer:/tmp/tree/d/planted-by-berth",
            ],
        );
    }
    assert!(!std::path::Path::new("/planted-by-berth").exists());
    end(node, pod);
}

#[test]
fn ports_are_forwarded_both_ways_to_their_own_ends() {
    let node = Node::new();
    let pod = server(&node);
    let forward = Running::start(node.berth(["port-forward", "web", ":http"]), "");
    let line = forward.line("Forwarding from 127.0.0.1:");
    let port: u16 = line
        .split([':', ' '])
        .filter_map(|word| word.parse().ok())
        .next()
        .unwrap();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    forward.interrupt();
    forward.wait();
    let refused = Running::start(node.berth(["port-forward", "web", ":81"]), "");
    let line = refused.line("Forwarding from 127.0.0.1:");
    let port: u16 = line
        .split([':', ' '])
        .filter_map(|word| word.parse().ok())
        .next()
        .unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(stream.read(&mut [0; 10]).unwrap_or(0), 0);
    refused.line("connection refused");
    refused.interrupt();
    refused.wait();
    end(node, pod);
}

#[test]
fn a_container_is_added_to_a_pod_that_runs() {
    let node = Node::new();
    let pod = server(&node);
    // Without streams it is only begun; its log, its status and its place among the others stay.
    berth(
        &node,
        &["debug", "web", "-c", "look", "--target", "main", "--", "ps"],
    )
    .expect_code(0);
    let log = eventually("its log", || {
        let log = berth(&node, &["logs", "web", "-c", "look"]).output;
        log.contains("ps").then_some(log)
    });
    assert!(log.contains("httpd"), "{log}");
    let state = |name: &str| {
        let path = format!(
            "jsonpath={{.status.ephemeralContainerStatuses[?(@.name==\"{name}\")].state.terminated.exitCode}}"
        );
        berth(&node, &["inspect", "web", "-o", &path])
            .output
            .trim()
            .to_owned()
    };
    eventually("its end in the status", || (state("look") == "0").then_some(()));
    // With its end waited for, the command ends as it did.
    berth(
        &node,
        &[
            "debug",
            "web",
            "--attach",
            "--env",
            "WORD=xyzzy",
            "--",
            "run",
            "env",
            "WORD",
            ";",
            "exit",
            "7",
        ],
    )
    .expect_code(7)
    .expect_output(&["Defaulting debug container name to debugger-", "WORD=xyzzy"]);
    // Its input goes in.
    let typed = Running::start(
        node.berth(["debug", "web", "-i", "-q", "-c", "typed", "--", "stdin-echo"]),
        "hello\n",
    )
    .wait();
    typed.expect_code(0).expect_output(&["hello"]);
    for (arguments, why) in [
        (vec!["-c", "main"], "a container main already"),
        (vec!["-c", "look"], "a container look already"),
        (vec!["--target", "none"], "no container none"),
        (vec!["-c", "Bad"], "Bad"),
    ] {
        let all: Vec<&str> = ["debug", "web"].into_iter().chain(arguments).collect();
        berth(&node, &all).expect_code(1).expect_output(&[why]);
    }
    end(node, pod);
}
