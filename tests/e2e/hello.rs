//! The first thing a user does: `berth run examples/hello.yaml`.

use std::path::Path;

use berth_tests::{Node, Running, eventually, http_get};

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

fn hello(node: &Node) -> Running {
    node.run(&example("hello.yaml"))
}

#[test]
fn it_serves_and_ctrl_c_ends_it() {
    let node = Node::new();
    let pod = hello(&node);
    let web = (pod.address(), 8080);
    assert_eq!(http_get(web, "/").body, "<h1>Hello from berth</h1>\n");
    eventually("the sidecar updates the page", || {
        http_get(web, "/time.txt").body.contains(" 2").then_some(())
    });
    assert_eq!(http_get(web, "/env/POD_NAME").body, "hello");
    assert_eq!(http_get(web, "/hostname").body, "hello");
    pod.log("web", "serving /www on port 8080");
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn sigterm_ends_it_as_ctrl_c_does() {
    let node = Node::new();
    let pod = hello(&node);
    pod.log("web", "serving");
    pod.signal(nix::sys::signal::Signal::SIGTERM);
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn ctrl_c_while_it_starts_leaves_nothing() {
    let node = Node::new();
    let pod = hello(&node);
    pod.find(0, "its first line", |_| true);
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn it_says_what_happens() {
    let node = Node::new();
    let pod = hello(&node);
    for word in ["berth.local/helper:latest", "page", "clock", "web"] {
        pod.line(word);
    }
    let web = (pod.address(), 8080);
    pod.line("hello: web is ready");
    pod.line("hello: pod is ready");
    let mark = pod.mark();
    assert_eq!(http_get(web, "/ready/off").status, 200);
    pod.line_after(mark, "hello: web is not ready");
    pod.line_after(mark, "hello: pod is not ready");
    let mark = pod.mark();
    http_get(web, "/ready/on");
    pod.line_after(mark, "hello: web is ready");
    pod.line_after(mark, "hello: pod is ready");
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_failing_liveness_probe_starts_it_again() {
    let node = Node::new();
    let pod = hello(&node);
    let web = (pod.address(), 8080);
    pod.log("web", "serving");
    let mark = pod.mark();
    assert_eq!(http_get(web, "/sick/on").status, 200);
    pod.log_after(mark, "web", "SIGTERM: ending");
    pod.log_after(mark, "web", "serving");
    assert_eq!(http_get(web, "/healthz").status, 200);
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}
