//! Containers that end are started again, later and later, and their logs stay readable.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_tests::{Node, container, eventually, pod};
use serde_json::json;

/// The log files of a pod's container, by attempt.
fn logs(node: &Node, pod: &str, container: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(node.root().join("var/log/berth/pods"))
        .into_iter()
        .flatten()
        .flatten()
    {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("default_{pod}_"))
        {
            let files = fs::read_dir(entry.path().join(container))
                .into_iter()
                .flatten()
                .flatten();
            found.extend(files.map(|file| file.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_crash_is_followed_by_a_restart_and_a_back_off() {
    let node = Node::new();
    let crash = container("main", &["exit", "5", "crashed"], json!({}));
    let pod = node.run(&pod("crash", json!({ "containers": [crash] })));
    let crashed = |line: &str| line.contains("| crashed");
    let (first, _) = pod.find(0, "the first crash", crashed);
    let (second, _) = pod.find(first + 1, "the second crash", crashed);
    let time = Instant::now();
    pod.line_after(first, "back-off");
    pod.find(second + 1, "the third crash", crashed);
    assert!(
        time.elapsed() >= Duration::from_secs(8),
        "there was no back-off of ten seconds"
    );
    let all = eventually("both attempts have logs", || {
        Some(logs(&node, "crash", "main")).filter(|all| all.len() >= 2)
    });
    for log in &all[..2] {
        let text = fs::read_to_string(log).unwrap();
        assert!(text.contains(" stderr F crashed"), "{}: {text}", log.display());
    }
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_killed_process_is_started_again() {
    let node = Node::new();
    let web = container("main", &["httpd", "--port", "8080"], json!({}));
    let pod = node.run(&pod("killed", json!({ "containers": [web] })));
    pod.log("main", "serving");
    let mark = pod.mark();
    let httpd = node
        .processes()
        .into_iter()
        .find(|process| process.command.starts_with("httpd"))
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(httpd.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    pod.log_after(mark, "main", "serving");
    assert_eq!(
        berth_tests::http_get((pod.address(), 8080), "/healthz").status,
        200
    );
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn logs_are_in_the_cri_format() {
    let node = Node::new();
    let command = [
        "run",
        "echo",
        "to stdout",
        ";",
        "echo",
        "--stderr",
        "to stderr",
        ";",
        "sleep",
        "inf",
    ];
    let pod = node.run(&pod(
        "logs",
        json!({ "containers": [container("main", &command, json!({}))] }),
    ));
    pod.log("main", "to stdout");
    pod.log("main", "to stderr");
    let text = fs::read_to_string(&logs(&node, "logs", "main")[0]).unwrap();
    for line in text.lines() {
        let fields: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(fields[0].contains('T') && fields[0].len() >= 30, "{line}");
        assert_eq!(fields[2], "F", "{line}");
        assert_eq!(fields[3], format!("to {}", fields[1]), "{line}");
    }
    assert_eq!(text.lines().count(), 2);
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}
