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

#[test]
fn a_grpc_probe_asks_for_a_service_s_health() {
    let node = Node::new();
    let sick = node.scratch().join("shared");
    std::fs::create_dir(&sick).unwrap();
    let server = [
        "grpc-health",
        "--port",
        "9000",
        "--service",
        "db",
        "--sick-file",
        "/shared/sick",
    ];
    let pod = node.run(&pod(
        "grpc",
        json!({
            "volumes": [{ "name": "shared", "hostPath": { "path": sick } }],
            "containers": [
                container("main", &server, json!({
                    "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
                    "readinessProbe": { "grpc": { "port": 9000, "service": "db" }, "periodSeconds": 1, "failureThreshold": 1 },
                    "startupProbe": { "grpc": { "port": 9000 }, "periodSeconds": 1 },
                })),
                container("other", &["sleep", "inf"], json!({
                    "readinessProbe": { "grpc": { "port": 9000, "service": "cache" }, "periodSeconds": 1 },
                })),
            ],
        }),
    ));
    pod.line("main is ready");
    pod.line("rpc error: code = NotFound: unknown service");
    let mark = pod.mark();
    std::fs::write(sick.join("sick"), "").unwrap();
    let (mark, _) = pod.line_after(mark, "service unhealthy (responded with \"NOT_SERVING\")");
    std::fs::remove_file(sick.join("sick")).unwrap();
    pod.line_after(mark, "main is ready");
    assert!(!pod.output().contains("other is ready"), "{}", pod.output());
    end(node, pod);
}

#[test]
fn a_probe_s_period_may_be_less_than_a_second() {
    let node = Node::new();
    let mut manifest: Value = serde_json::from_str(
        server(
            "often",
            json!({ "livenessProbe": { "httpGet": { "path": "/often", "port": 8080 }, "periodSeconds": 3600 } }),
        )
        .trim_start_matches("---"),
    )
    .unwrap();
    manifest["metadata"]["annotations"] = json!({ "berth.dev/probe-period": "main.liveness=100ms" });
    let pod = node.run(&berth_tests::document(&manifest));
    // An hour would pass between two of them.
    let mut mark = 0;
    for _ in 0..5 {
        mark = pod.find(mark, "a probe", |line| line.contains("GET /often")).0 + 1;
    }
    end(node, pod);
}

#[test]
fn readiness_outlives_the_daemon() {
    let node = Node::new();
    let manifest = server(
        "kept",
        json!({ "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 3600 } }),
    );
    let first = node.run(&manifest);
    first.line("main is ready");
    first.kill();
    let second = node.run(&manifest);
    second.line("was taken over");
    let shown = Running::start(node.berth(["status", "kept", "--output", "json"]), "").wait();
    let shown: Value = serde_json::from_str(&shown.expect_code(0).output).unwrap();
    assert_eq!(
        shown["status"]["containerStatuses"][0]["ready"], true,
        "{shown:#}"
    );
    assert!(!second.output().contains("not ready"), "{}", second.output());
    end(node, second);
}

#[test]
fn a_probe_s_delay_threshold_and_named_port_count() {
    let node = Node::new();
    let begun = std::time::Instant::now();
    let pod = node.run(&server(
        "fields",
        json!({
            "ports": [{ "name": "web", "containerPort": 8080 }],
            "readinessProbe": {
                "httpGet": {
                    "port": "web", "path": "/probed", "scheme": "HTTP",
                    "httpHeaders": [{ "name": "X-Own", "value": "1" }],
                },
                "initialDelaySeconds": 3, "periodSeconds": 1, "successThreshold": 1, "timeoutSeconds": 5,
            },
            "startupProbe": { "tcpSocket": { "port": "web", "host": "" }, "periodSeconds": 1 },
        }),
    ));
    // /probed is no file of the server's: it answers 404.
    pod.line("HTTP probe failed with statuscode: 404");
    assert!(
        begun.elapsed() >= std::time::Duration::from_secs(3),
        "the delay was not kept"
    );
    end(node, pod);
}
