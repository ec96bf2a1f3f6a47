//! Probes of all kinds decide who is ready, who is started again and who may start.

use berth_tests::{Node, Running, container, eventually, http_get, pod};
use serde_json::{Value, json};

fn server(name: &str, more: Value) -> String {
    pod(
        name,
        json!({ "containers": [container("main", &["httpd", "--port", "8080", "--dir", "/"], more)] }),
    )
}

fn end(node: Node, pod: Running) {
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn readiness_follows_an_exec_probe() {
    let node = Node::new();
    let hosts = node.scratch().join("shared");
    std::fs::create_dir(&hosts).unwrap();
    let pod = node.run(&pod(
        "exec",
        json!({
            "volumes": [{ "name": "shared", "hostPath": { "path": hosts } }],
            "containers": [container("main", &["sleep", "inf"], json!({
                "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
                "readinessProbe": { "exec": { "command": ["exists", "/shared/ready"] }, "periodSeconds": 1 },
            }))],
        }),
    ));
    pod.line("main started");
    let mark = pod.mark();
    std::fs::write(hosts.join("ready"), "").unwrap();
    let (mark, _) = pod.line_after(mark, "main is ready");
    std::fs::remove_file(hosts.join("ready")).unwrap();
    pod.line_after(mark, "main is not ready");
    end(node, pod);
}

#[test]
fn a_tcp_probe_makes_ready() {
    let node = Node::new();
    let pod = node.run(&server(
        "tcp",
        json!({
            "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
        }),
    ));
    pod.line("main is ready");
    end(node, pod);
}

#[test]
fn liveness_waits_for_the_startup_probe() {
    let node = Node::new();
    let pod = node.run(&server("startup", json!({
        "startupProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 60 },
        "livenessProbe": { "httpGet": { "path": "/readyz", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 1 },
    })));
    let web = (pod.address(), 8080);
    eventually("liveness probes", || {
        pod.output().contains("GET /readyz").then_some(())
    });
    let output = pod.output();
    assert!(
        output.find("GET /healthz").unwrap() < output.find("GET /readyz").unwrap(),
        "{output}"
    );
    assert_eq!(http_get(web, "/headers").status, 200);
    end(node, pod);
}

#[test]
fn a_failing_startup_probe_kills() {
    let node = Node::new();
    let pod = node.run(&server(
        "never-up",
        json!({
            "startupProbe": { "exec": { "command": ["false"] }, "periodSeconds": 1, "failureThreshold": 2 },
        }),
    ));
    pod.log("main", "SIGTERM: ending");
    end(node, pod);
}

#[test]
fn an_exec_probe_s_time_limit_is_kept() {
    let node = Node::new();
    let pod = node.run(&pod(
        "slow",
        json!({ "containers": [container("main", &["trap", "TERM", "--count", "1"], json!({
        "livenessProbe": {
            "exec": { "command": ["sleep", "3600", "--stubborn"] },
            "periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1,
        },
    }))] }),
    ));
    pod.log("main", "caught SIGTERM");
    end(node, pod);
}
