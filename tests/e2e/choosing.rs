//! Which pods a command is about: namespaces and labels.

use berth_tests::{Node, Running, berth, container, document, eventually, pod};
use serde_json::{Value, json};

/// A pod of a namespace with a label, as a document; it sleeps, or ends at once.
fn labelled(namespace: &str, name: &str, app: &str, command: &[&str]) -> String {
    let spec = json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [container("main", command, json!({}))],
    });
    let mut manifest: Value = serde_json::from_str(pod(name, spec).trim_start_matches("---")).unwrap();
    manifest["metadata"]["namespace"] = json!(namespace);
    manifest["metadata"]["labels"] = json!({ "app": app });
    document(&manifest)
}

fn names(node: &Node, arguments: &[&str]) -> Vec<String> {
    let ended = berth(node, &[&["ps", "-a", "-q"], arguments].concat()).expect_code(0);
    ended.output.lines().map(str::to_owned).collect()
}

#[test]
fn a_namespace_and_labels_are_kept_to() {
    let node = Node::new();
    let forever: &[&str] = &["sleep", "inf"];
    let manifest = labelled("default", "web", "web", forever)
        + &labelled("shop", "web", "web", forever)
        + &labelled("shop", "db", "db", forever)
        + &labelled("shop", "job", "web", &["true"]);
    let file = node.file("pods.yaml", &manifest);
    berth(&node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    let all = ["pod/web", "pod/shop/db", "pod/shop/job", "pod/shop/web"];
    assert_eq!(names(&node, &[]), all);
    assert_eq!(names(&node, &["-A"]), all);
    assert_eq!(names(&node, &["-n", "shop", "-l", "app=web"]), all[2..]);
    let ready = "--for=jsonpath={.status.phase}=Running";
    berth(&node, &["wait", ready, "-l", "app=db"])
        .expect_code(0)
        .expect_output(&["pod/shop/db condition met"]);
    berth(&node, &["wait", ready, "pod/web", "shop/web"])
        .expect_code(0)
        .expect_output(&["pod/web condition met", "pod/shop/web condition met"]);
    berth(
        &node,
        &[
            "wait",
            "-n",
            "shop",
            "job",
            "--for=jsonpath={.status.phase}=Succeeded",
        ],
    )
    .expect_code(0);
    // Nobody with such labels is waited for, and that is said.
    berth(&node, &["wait", ready, "-l", "app=none"])
        .expect_code(1)
        .expect_output(&["No pod has such labels."]);
    let stats = berth(&node, &["stats", "-n", "shop", "--no-stream", "-l", "app"]).expect_code(0);
    assert!(
        stats.output.contains("shop/db") && !stats.output.contains("default/web"),
        "{}",
        stats.output
    );
    let events = berth(&node, &["events", "-n", "shop"]).expect_code(0);
    assert!(
        events.output.contains("pod/shop/db/main") && !events.output.contains(" pod/web"),
        "{}",
        events.output
    );
    // A pod is never another one than it is called.
    berth(&node, &["stop", "-n", "default", "shop/web"])
        .expect_code(1)
        .expect_output(&["There is no pod default/shop/web"]);
    // What runs stays, and what has another label or is in another namespace.
    berth(&node, &["rm", "-l", "app=web"]).expect_code(0);
    assert_eq!(names(&node, &[]), ["pod/web", "pod/shop/db", "pod/shop/web"]);
    berth(&node, &["stop", "--all", "-n", "shop"]).expect_code(0);
    assert_eq!(names(&node, &[]), ["pod/web"]);
    berth(&node, &["stop", "-l", "app=db"])
        .expect_code(0)
        .expect_output(&["No pod has such labels."]);
    for (arguments, why) in [
        (&["stop"][..], "required"),
        (&["stop", "--all", "web"], "cannot be used with"),
        (&["rm", "-l", "app=web", "web"], "cannot be used with"),
        (&["ps", "-A", "-n", "shop"], "cannot be used with"),
    ] {
        berth(&node, arguments).expect_code(2).expect_output(&[why]);
    }
    berth(&node, &["rm", "--force", "--all"]).expect_code(0);
    eventually("the daemon ends", || {
        let lock = node.daemon_lock();
        (!lock.exists()).then_some(())
    });
    node.finish();
}

#[test]
fn a_local_port_that_somebody_has_is_not_forwarded_in_part() {
    let node = Node::new();
    let running = node.run(&pod(
        "web",
        json!({ "containers": [container("main", &["httpd", "--port", "8080"], json!({}))] }),
    ));
    running.line("pod is ready");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let pair = format!("{port}:8080");
    berth(&node, &["port-forward", "web", &pair])
        .expect_code(1)
        .expect_output(&[&format!("The address 127.0.0.1:{port} can't be listened on")]);
    drop(taken);
    let forward = Running::start(
        node.berth(["port-forward", "--address", "localhost,0.0.0.0", "web", ":8080"]),
        "",
    );
    forward.line("The address 0.0.0.0:");
    assert_eq!(forward.wait().code(), Some(1), "both want the port on 127.0.0.1");
    let forward = Running::start(
        node.berth(["port-forward", "--address", "localhost", "web", &pair]),
        "",
    );
    forward.line(&format!("Forwarding from 127.0.0.1:{port} -> 8080"));
    let answer = berth_tests::http_get(([127, 0, 0, 1], port.parse().unwrap()), "/healthz");
    assert_eq!(answer.status, 200);
    forward.interrupt();
    forward.wait();
    running.interrupt();
    running.wait().expect_code(0);
    node.finish();
}
