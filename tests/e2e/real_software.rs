//! nginx and redis from Debian packages, as one pod: examples/web.yaml, with images that hack/images builds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Node, Running, http_get};
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the two images and returns the directory with their archives. Before the test has a node, where packages can
/// still be downloaded.
fn archives() -> TempDir {
    let out = tempfile::tempdir().unwrap();
    let build = Command::new(repository().join("hack/images/build"))
        .arg(out.path())
        .args(["nginx", "redis"])
        .status();
    assert!(build.unwrap().success(), "hack/images/build failed");
    out
}

fn web() -> String {
    fs::read_to_string(repository().join("examples/web.yaml")).unwrap()
}

/// nginx answers at the pod's address and at the host's port, redis at the pod's.
fn answers(pod: &Running) {
    let address = pod.address();
    assert_eq!(http_get((address, 80), "/").body, "nginx in a pod of berth\n");
    assert_eq!(
        http_get(([127, 0, 0, 1], 8088), "/").body,
        "nginx in a pod of berth\n"
    );
    pod.find(0, "that the pod is ready", |line| line.contains("pod is ready"));
    let mut redis = TcpStream::connect((address, 6379)).unwrap();
    redis
        .write_all(b"SET berth afloat\r\nGET berth\r\nQUIT\r\n")
        .unwrap();
    let mut answer = String::new();
    redis.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("afloat"), "{answer}");
}

#[test]
fn nginx_and_redis_run_from_imported_archives() {
    let archives = archives();
    let node = Node::new();
    for name in ["nginx.tar", "redis.tar"] {
        let mut command = node.berth(["image", "import"]);
        command.arg(archives.path().join(name));
        Running::start(command, "").wait().expect_code(0);
    }
    let pod = node.run(&web());
    answers(&pod);
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn nginx_and_redis_run_from_a_registry() {
    let archives = archives();
    let node = Node::new();
    let mut command = Command::new(repository().join("hack/images/serve"));
    command.arg(archives.path()).arg("5000");
    let registry = Running::start(command, "");
    registry.line("ready");
    let pod = node.run(&web().replace("berth.local/", "127.0.0.1:5000/"));
    answers(&pod);
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    registry.signal(nix::sys::signal::Signal::SIGTERM);
    registry.wait();
    node.finish();
}
