//! `berth debug`: ephemeral containers of pods that a daemon runs.

use std::fs;

use berth_tests::{Node, Terminal, berth, container, document, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

fn manifest(label: &str) -> String {
    let main = container("main", &["httpd", "--port", "8080"], json!({}));
    let metadata = json!({ "name": "web", "labels": { "is": label } });
    let spec = json!({ "terminationGracePeriodSeconds": 2, "containers": [main] });
    document(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }))
}

fn detached(node: &Node) {
    let file = node.file("web.yaml", &manifest("first"));
    berth(node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    berth(node, &["wait", "web", "--for=condition=Ready"]).expect_code(0);
}

fn daemon(node: &Node) -> Option<Pid> {
    let lock = node.daemon_lock();
    fs::read_to_string(lock).ok()?.parse().ok().map(Pid::from_raw)
}

fn end(node: Node) {
    berth(&node, &["rm", "--force", "web"]).expect_code(0);
    eventually("the daemon ends", || daemon(&node).is_none().then_some(()));
    node.finish();
}

fn added(node: &Node) -> String {
    let paths = "jsonpath={.spec.ephemeralContainers[*].name} {.status.ephemeralContainerStatuses[*].name}";
    berth(node, &["inspect", "web", "-o", paths])
        .expect_code(0)
        .output
        .trim()
        .to_owned()
}

#[test]
fn a_terminal_in_a_pod_that_a_daemon_runs() {
    let node = Node::new();
    detached(&node);
    let debug = node.berth([
        "debug",
        "-it",
        "web",
        "-c",
        "look",
        "--target",
        "main",
        "stdin-echo",
    ]);
    let mut terminal = Terminal::start(&debug, 80, 24);
    terminal.shows("If you don't see a command prompt, try pressing enter.");
    terminal.types("hello\r");
    terminal.shows("got hello");
    // Ctrl-C is the container's, not berth's.
    terminal.types("\x03");
    let (code, seen) = terminal.wait();
    assert_eq!(code, Some(128 + 15), "{seen}");
    assert_eq!(added(&node), "look look");
    // It sees the processes of the container that it is aimed at.
    berth(&node, &["debug", "web", "--attach", "--target", "main", "ps"])
        .expect_code(0)
        .expect_output(&["httpd"]);
    // A program that is not there is told.
    berth(&node, &["debug", "-i", "web", "--", "no-such-program"])
        .expect_code(127)
        .expect_output(&["can't be started: ", "no-such-program"]);
    end(node);
}

#[test]
fn what_was_added_stays_whatever_becomes_of_the_daemon_and_the_file() {
    let node = Node::new();
    detached(&node);
    berth(
        &node,
        &[
            "debug",
            "web",
            "-c",
            "first",
            "--attach",
            "echo",
            "from the first",
        ],
    )
    .expect_code(0);
    berth(&node, &["debug", "web", "-c", "runs", "sleep", "inf"]).expect_code(0);
    let runs = || {
        let path =
            "jsonpath={.status.ephemeralContainerStatuses[?(@.name==\"runs\")].state.running.startedAt}";
        berth(&node, &["inspect", "web", "-o", path])
            .output
            .trim()
            .to_owned()
    };
    let since = eventually("it runs", || Some(runs()).filter(|since| !since.is_empty()));
    let changed = node.file("web.yaml", &manifest("second"));
    berth(&node, &["apply", &changed.display().to_string()])
        .expect_code(0)
        .expect_output(&["pod/web configured"]);
    assert_eq!(added(&node), "first runs first runs");
    kill(daemon(&node).unwrap(), Signal::SIGKILL).unwrap();
    eventually("it is dead", || {
        berth(&node, &["ps"]).output.contains("nobody").then_some(())
    });
    berth(&node, &["exec", "web", "-c", "runs", "true"]).expect_code(0);
    eventually("it is known again", || (runs() == since).then_some(()));
    assert_eq!(added(&node), "first runs first runs");
    let listed = berth(
        &node,
        &[
            "ps",
            "-o",
            "jsonpath={.items[*].spec.ephemeralContainers[*].name}",
        ],
    );
    assert_eq!(listed.output.trim(), "first runs");
    // A name that is taken is taken for the new daemon, too.
    berth(&node, &["debug", "web", "-c", "first", "true"])
        .expect_code(1)
        .expect_output(&["has a container first already"]);
    berth(
        &node,
        &[
            "apply",
            &node.file("web.yaml", &manifest("third")).display().to_string(),
        ],
    )
    .expect_code(0);
    berth(&node, &["debug", "web", "-c", "runs", "true"])
        .expect_code(1)
        .expect_output(&["has a container runs already"]);
    // Their logs are among all of the pod's.
    let logs = berth(&node, &["logs", "web", "--all-containers", "--prefix"])
        .expect_code(0)
        .output;
    assert!(logs.contains("[pod/web/first] from the first"), "{logs}");
    assert!(logs.contains("[pod/web/main] "), "{logs}");
    end(node);
}

#[test]
fn an_image_that_can_t_be_had_is_told_and_ctrl_c_gives_up() {
    let node = Node::new();
    detached(&node);
    let debug = node.berth([
        "debug",
        "-it",
        "web",
        "-c",
        "look",
        "--image",
        "127.0.0.1:1/none:1",
    ]);
    let mut terminal = Terminal::start(&debug, 200, 24);
    terminal.shows("nothing listens at 127.0.0.1:1");
    terminal.types("\x03");
    let (code, seen) = terminal.wait();
    assert!(code.is_none() || code == Some(130), "{code:?} {seen}");
    berth(&node, &["exec", "web", "-c", "main", "true"]).expect_code(0);
    end(node);
}
