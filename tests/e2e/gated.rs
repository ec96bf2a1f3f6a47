//! A pod in the hands of a daemon, for tests of the commands that look at it and change it.

use berth_tests::{HELPER, Node, berth, container, eventually, pod};
use serde_json::{Value, json};

/// A pod that is ready when its file is there.
pub fn gated(image_suffix: &str, more: Value) -> String {
    let mut main = container(
        "main",
        &["sleep", "inf"],
        json!({ "readinessProbe": { "exec": { "command": ["exists", "/tmp/ready"] }, "periodSeconds": 1 } }),
    );
    main["image"] = json!(format!("{HELPER}{image_suffix}"));
    main["resources"] = json!({ "limits": { "memory": "64Mi", "cpu": "1" } });
    let mut text: Value = json!({ "restartPolicy": "Never", "containers": [main] });
    text.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    pod("gated", text)
}

/// Hands the pod to the daemon, and waits until it runs.
pub fn detach(node: &Node, manifest: &str) {
    let file = node.file("gated.yaml", manifest);
    berth(node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    berth(node, &["wait", "gated", "--for=jsonpath={.status.phase}=Running"]).expect_code(0);
}

/// Removes the pod, and the node after its daemon.
pub fn end(node: Node) {
    berth(&node, &["rm", "--force", "gated"]).expect_code(0);
    end_without_pods(node);
}

/// Removes the node when its daemon has nothing left to do.
pub fn end_without_pods(node: Node) {
    eventually("the daemon ends", || {
        let lock = node.daemon_lock();
        (!lock.exists()).then_some(())
    });
    node.finish();
}
