//! `berth run --container-runtime-endpoint`: pods on another runtime, here containerd with runc where it is installed.

use berth_tests::{Containerd, Layout, Node, Running, berth, container, eventually, http_get, pod};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const IMAGE: &str = "test.local/helper:1";

/// A node with containerd, which has the helper's image.
fn with_containerd(test: impl FnOnce(&Node, &mut Containerd)) {
    let node = Node::new();
    if let Some(mut containerd) = Containerd::start(&node) {
        let directory = node.scratch().join("helper");
        let config = json!({ "Entrypoint": ["/bin/berth-helper"], "Env": ["PATH=/bin"] });
        containerd.import(&Layout::make(&directory, IMAGE, config, &[]));
        test(&node, &mut containerd);
    }
    node.finish();
}

fn endpoint(containerd: &Containerd) -> String {
    format!("unix://{}", containerd.socket().display())
}

fn run(node: &Node, containerd: &Containerd, manifest: &str) -> Running {
    node.run_with(&["--container-runtime-endpoint", &endpoint(containerd)], manifest)
}

/// A container of containerd's own image.
fn helper(name: &str, command: &[&str], mut more: Value) -> Value {
    let mut words = vec!["/bin/berth-helper"];
    words.extend(command);
    more["image"] = json!(IMAGE);
    container(name, &words, more)
}

#[test]
fn a_pod_with_all_that_makes_one_runs_there() {
    with_containerd(|node, containerd| {
        let mount = json!([{ "name": "shared", "mountPath": "/www" }]);
        let manifest = pod(
            "web",
            json!({
                "volumes": [{ "name": "shared", "emptyDir": {} }],
                "initContainers": [helper("page", &["write", "/www/index.html", "made before"], json!({ "volumeMounts": mount }))],
                "containers": [helper("main", &["httpd", "--dir", "/www"], json!({
                    "volumeMounts": mount,
                    "env": [{ "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                    "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
                    "livenessProbe": { "exec": { "command": ["/bin/berth-helper", "true"] }, "periodSeconds": 1 },
                    "lifecycle": { "postStart": { "exec": {
                        "command": ["/bin/berth-helper", "write", "/www/hook.html", "by the hook"] } } },
                    "resources": { "limits": { "memory": "64Mi", "cpu": "500m" } },
                }))],
            }),
        );
        let running = run(node, containerd, &manifest);
        let web = (running.address(), 8080);
        assert!(http_get(web, "/").body.contains("made before"));
        running.line("main is ready");
        assert!(http_get(web, "/hook.html").body.contains("by the hook"));
        assert_eq!(http_get(web, "/env/POD").body, "web");
        running.log("main", "serving");
        running.interrupt();
        running.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn how_a_container_ends_is_how_the_command_ends() {
    with_containerd(|node, containerd| {
        let main = helper("main", &["exit", "7"], json!({}));
        let manifest = pod("ends", json!({ "restartPolicy": "Never", "containers": [main] }));
        run(node, containerd, &manifest)
            .wait()
            .expect_code(7)
            .expect_no_panic();
    });
}

#[test]
fn what_only_berth_has_is_refused_by_name() {
    with_containerd(|node, containerd| {
        let manifest = pod(
            "own",
            json!({ "containers": [container("main", &["true"], json!({}))] }),
        );
        run(node, containerd, &manifest)
            .wait()
            .expect_code(1)
            .expect_output(&["berth.local/helper:latest is inside berth", "containerd.sock"]);
        let nobody = node.run_with(
            &["--container-runtime-endpoint", "/nonexistent/x.sock"],
            &manifest,
        );
        nobody
            .wait()
            .expect_code(1)
            .expect_output(&["No runtime can be reached at unix:///nonexistent/x.sock"]);
    });
}

/// The record says where a pod is, so that nobody takes it for gone who looks elsewhere.
#[test]
fn a_killed_berths_pod_is_ended_where_it_runs() {
    with_containerd(|node, containerd| {
        let manifest = pod(
            "left",
            json!({ "containers": [helper("main", &["httpd"], json!({}))] }),
        );
        let running = run(node, containerd, &manifest);
        let web = (running.address(), 8080);
        running.log("main", "serving");
        running.signal(Signal::SIGKILL);
        running.wait();
        assert_eq!(http_get(web, "/env/PATH").body, "/bin");
        let elsewhere = node.run(&manifest).wait().expect_code(1);
        elsewhere.expect_output(&["is run by the runtime at unix://", "not by the built-in runtime"]);
        let stop = Running::start(node.berth(["stop", "left"]), "");
        stop.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn a_runtime_that_is_away_for_a_while_is_waited_for() {
    with_containerd(|node, containerd| {
        let manifest = pod(
            "stays",
            json!({ "containers": [helper("main", &["httpd"], json!({}))] }),
        );
        let running = run(node, containerd, &manifest);
        let web = (running.address(), 8080);
        running.log("main", "serving");
        containerd.kill();
        assert_eq!(http_get(web, "/env/PATH").body, "/bin");
        containerd.start_again();
        running.interrupt();
        running.wait().expect_code(0).expect_no_panic();
    });
}

/// Commands on a pod that is on the runtime at this endpoint: what they need of the runtime comes by its CRI, and how a command
/// ends is told apart as for berth's own containers.
fn commands_reach_it(node: &Node, endpoint: &str) {
    let manifest = pod(
        "far",
        json!({ "containers": [helper("main", &["sleep", "inf"], json!({}))] }),
    );
    let running = node.run_with(&["--container-runtime-endpoint", endpoint], &manifest);
    running.line("pod is ready");
    let exec = |command: &[&str]| berth(node, &[&["exec", "far", "--"], command].concat());
    exec(&["/bin/berth-helper", "exit", "3"]).expect_code(3);
    exec(&["/bin/none"])
        .expect_code(127)
        .expect_output(&["/bin/none"]);
    exec(&["none"]).expect_code(127).expect_output(&["none"]);
    exec(&["/etc"]).expect_code(126).expect_output(&["/etc"]);
    let stats = berth(node, &["stats", "--no-stream", "far"]).expect_code(0);
    let row = stats
        .output
        .lines()
        .find(|line| line.contains("default/far"))
        .unwrap();
    // CRI has no number of a container's processes.
    assert!(row.ends_with(" -"), "{}", stats.output);
    let json = berth(node, &["stats", "-o", "json", "far"]).expect_code(0);
    let json: Value = serde_json::from_str(&json.output).unwrap();
    let own = &json["items"][0];
    assert!(
        own["memory"].as_u64() > Some(0) && own["processes"].is_null(),
        "{json:#}"
    );
    running.interrupt();
    running.wait().expect_code(0).expect_no_panic();
}

#[test]
fn commands_reach_a_pod_on_containerd() {
    with_containerd(|node, containerd| commands_reach_it(node, &endpoint(containerd)));
}

#[test]
fn commands_reach_a_pod_on_another_berth() {
    let node = Node::new();
    let directory = node.scratch().join("helper");
    let config = json!({ "Entrypoint": ["/bin/berth-helper"], "Env": ["PATH=/bin"] });
    let image = Layout::make(&directory, IMAGE, config, &[]);
    berth(
        &node,
        &["image", "import", &image.directory.display().to_string()],
    )
    .expect_code(0);
    let mut cri = Running::start(node.berth(["cri"]), "");
    let socket = node.root().join("run/berth/cri.sock");
    eventually("its socket", || {
        assert!(cri.is_running(), "{}", cri.output());
        std::os::unix::net::UnixStream::connect(&socket).ok()
    });
    commands_reach_it(&node, &format!("unix://{}", socket.display()));
    cri.interrupt();
    cri.wait().expect_code(0).expect_no_panic();
    node.finish();
}
