//! Limits of what a pod takes on the node's disks: who exceeds one is evicted.

use berth_tests::{Node, container, pod};
use serde_json::{Value, json};

/// A pod whose container runs these commands, then stays whatever it is told.
fn greedy(name: &str, work: &[&str], limits: Value, volume: Value, neighbours: &[Value]) -> String {
    let mut command = vec!["run"];
    command.extend(work);
    command.extend([";", "sleep", "inf", "--stubborn"]);
    let more = json!({
        "resources": { "limits": limits },
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
    });
    let mut containers = vec![container("main", &command, more)];
    containers.extend(neighbours.iter().cloned());
    let spec = json!({
        "terminationGracePeriodSeconds": 1000,
        "volumes": [{ "name": "data", "emptyDir": volume }],
        "containers": containers,
    });
    pod(name, spec)
}

#[test]
fn who_takes_more_of_the_disk_than_the_limit_is_evicted() {
    const MANY: &str = "3000000";
    let disk = |limit: &str| json!({ "ephemeral-storage": limit });
    let fill = |file: &'static str| ["fill", file, MANY];
    let other = container(
        "other",
        &["sleep", "inf"],
        json!({ "resources": { "limits": disk("1Mi") } }),
    );
    let cases = [
        (
            greedy(
                "volume",
                &fill("/data/file"),
                json!({}),
                json!({ "sizeLimit": "1024Ki" }),
                &[],
            ),
            "Usage of EmptyDir volume \"data\" exceeds the limit \"1Mi\". ",
        ),
        (
            // Several files of a log together.
            greedy("logs", &["lines", "3000", "1000"], disk("2M"), json!({}), &[]),
            // Without another container that has a limit, the pod's is the container's, and found first.
            "Pod ephemeral local storage usage exceeds the total limit of containers 2M. ",
        ),
        (
            greedy(
                "layer",
                &fill("/file"),
                disk("2Mi"),
                json!({}),
                &[container(
                    "other",
                    &["sleep", "inf"],
                    json!({ "resources": { "limits": disk("1Gi") } }),
                )],
            ),
            "Container main exceeded its local ephemeral storage limit \"2Mi\". ",
        ),
        (
            greedy("whole", &fill("/data/file"), disk("1Mi"), json!({}), &[other]),
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
        ),
    ];
    let node = Node::new();
    let manifest: String = cases.iter().map(|(pod, _)| pod.as_str()).collect();
    // The output has the pods in the manifest's order.
    let ended = node
        .run_with(&["--output", "json"], &manifest)
        .wait()
        .expect_no_panic();
    assert_ne!(ended.code(), Some(0), "{}", ended.output);
    let start = ended.output.find("\n{\n").expect("JSON in the output");
    let list: Value = serde_json::Deserializer::from_str(&ended.output[start..])
        .into_iter()
        .next()
        .expect("a list of pods")
        .expect("JSON");
    let pods = list["items"].as_array().expect("a list");
    assert_eq!(pods.len(), cases.len());
    for (pod, (_, message)) in pods.iter().zip(&cases) {
        let status = &pod["status"];
        assert_eq!(
            (&status["phase"], &status["reason"], &status["message"]),
            (&json!("Failed"), &json!("Evicted"), &json!(message)),
            "{}",
            ended.output
        );
        let event = message.trim_end();
        assert!(ended.output.contains(event), "{event} in:\n{}", ended.output);
        let all = status["containerStatuses"].as_array().expect("containers");
        let main = all.iter().find(|status| status["name"] == "main").expect("main");
        assert_eq!(main["restartCount"], 0, "an evicted pod restarts nothing");
        assert_eq!(main["state"]["terminated"]["exitCode"], 137, "{main:#}");
    }
    node.finish();
}
