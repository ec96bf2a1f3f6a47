//! `berth apply`: what of a pod is changed while it runs, and what makes it anew.

mod gated;

use std::fs;

use berth_tests::{HELPER, Node, berth, cgroup_directories, container, eventually, pod};
use serde_json::{Value, json};

use gated::{detach, end, gated};

#[test]
fn applying_changes_in_place_what_it_can_and_says_what_it_makes_anew() {
    let node = Node::new();
    detach(&node, &gated("", json!({})));
    let apply = |manifest: &str, options: &[&str]| {
        let file = node.file("applied.yaml", manifest).display().to_string();
        let arguments: Vec<&str> = ["apply", &file]
            .into_iter()
            .chain(options.iter().copied())
            .collect();
        berth(&node, &arguments).expect_code(0).output
    };
    let find = |path: &str| {
        let template = format!("jsonpath={path}");
        berth(&node, &["inspect", "gated", "-o", &template])
            .expect_code(0)
            .output
    };
    let (uid, started) = (
        "{.metadata.uid}",
        "{.status.containerStatuses[0].state.running.startedAt}",
    );
    let before = (find(uid), find(started));
    assert!(apply(&gated("", json!({})), &[]).contains("pod/gated unchanged"));
    // What is shown of the pod, too.
    let shown = berth(&node, &["status", "gated", "-o", "yaml"])
        .expect_code(0)
        .output;
    assert!(
        shown.contains("creationTimestamp") && shown.contains("startedAt"),
        "{shown}"
    );
    assert!(apply(&shown, &[]).contains("pod/gated unchanged"));
    // More memory: the same process has it.
    let larger = gated("", json!({})).replace("64Mi", "96Mi");
    assert!(
        apply(&larger, &["--dry-run"])
            .contains("configured (dry run): spec.containers[0].resources.limits.memory")
    );
    assert!(apply(&larger, &[]).contains("pod/gated configured"));
    assert_eq!((find(uid), find(started)), before);
    let limit = (96_u64 << 20).to_string();
    let limited = cgroup_directories(node.cgroup()).into_iter().filter(|group| {
        let of = |file: &str| fs::read_to_string(group.join(file)).unwrap_or_default();
        [of("memory.limit_in_bytes"), of("memory.max")]
            .iter()
            .any(|text| text.trim() == limit)
    });
    assert_eq!(limited.count(), 2, "the pod's group and the container's");
    assert!(apply(&larger, &[]).contains("unchanged"));
    // Another command: another pod.
    let other = larger.replace("\"inf\"", "\"1000\"");
    let said = apply(&other, &[]);
    assert!(
        said.contains("spec.containers[0].command[1] can't be changed while it runs"),
        "{said}"
    );
    assert!(said.contains("pod/gated replaced"), "{said}");
    assert_ne!(find(uid), before.0);
    end(node);
}

#[test]
fn a_pod_waits_until_its_scheduling_gates_are_lifted() {
    let node = Node::new();
    let waiting = |gates: Value| {
        pod(
            "waiting",
            json!({
                "schedulingGates": gates,
                "restartPolicy": "Never",
                "containers": [container("main", &["echo", "came through"], json!({ "resources": { "limits": { "example.com/dongle": 1 } } }))],
            }),
        )
    };
    let quota = json!({ "name": "example.com/quota" });
    let both = waiting(json!([quota, { "name": "example.com/reviewed" }]));
    let has = ["--extended-resources", "example.com/dongle=1"];
    let first = node.run_with(&has, &both);
    first.line("scheduling gates (example.com/quota, example.com/reviewed)");
    let shown = berth(&node, &["ps"]).expect_code(0).output;
    assert!(shown.contains("SchedulingGated"), "{shown}");
    let status = |path: &str| {
        let template = format!("jsonpath={path}");
        berth(&node, &["inspect", "waiting", "-o", &template])
            .expect_code(0)
            .output
    };
    let reason = r#"{.status.conditions[?(@.type=="PodScheduled")].reason}"#;
    assert_eq!(status(reason).trim(), "SchedulingGated");
    assert_eq!(status("{.status.phase}").trim(), "Pending");
    assert!(cgroup_directories(node.cgroup()).is_empty(), "it has a group");
    // What it would have is another one's.
    let other = waiting(json!([])).replace("waiting", "other");
    node.run_with(&has, &other)
        .wait()
        .expect_code(0)
        .expect_output(&["came through"]);
    let apply = |manifest: &str| {
        let file = node.file("applied.yaml", manifest);
        berth(&node, &["apply", file.to_str().unwrap()])
    };
    let more = waiting(json!([quota, { "name": "example.com/reviewed" }, { "name": "example.com/late" }]));
    apply(&more)
        .expect_code(1)
        .expect_output(&["made anew (spec.schedulingGates)"]);
    apply(&waiting(json!([quota])))
        .expect_code(0)
        .expect_output(&["pod/waiting configured"]);
    first.line("scheduling gates (example.com/quota):");
    assert!(!first.output().contains("sandbox was made"), "{}", first.output());
    apply(&waiting(json!([]))).expect_code(0);
    first.wait().expect_code(0).expect_output(&["came through"]);
    node.finish();
}

/// The limit of memory is changed in place, unless less is asked for than is in use; the CPU's with a restart.
#[test]
fn a_resize_is_in_place_or_restarts_or_is_refused() {
    let node = Node::new();
    let sized = |cpu: &str, memory: &str| {
        let main = container(
            "main",
            &["allocate", "50331648", "--hold"],
            json!({
                "resources": { "limits": { "memory": memory, "cpu": cpu } },
                "resizePolicy": [
                    { "resourceName": "cpu", "restartPolicy": "RestartContainer" },
                    { "resourceName": "memory", "restartPolicy": "NotRequired" },
                ],
            }),
        );
        pod(
            "gated",
            json!({ "containers": [main], "terminationGracePeriodSeconds": 1 }),
        )
    };
    detach(&node, &sized("1", "96Mi"));
    eventually("the memory is in use", || {
        let log = berth(&node, &["logs", "gated"]).output;
        log.contains("allocated").then_some(())
    });
    let apply = |manifest: &str| {
        let file = node.file("applied.yaml", manifest).display().to_string();
        berth(&node, &["apply", &file])
    };
    let find = |path: &str| {
        let template = format!("jsonpath={path}");
        berth(&node, &["inspect", "gated", "-o", &template])
            .expect_code(0)
            .output
            .trim()
            .to_owned()
    };
    let of_container = |field: &str| find(&format!("{{.status.containerStatuses[0].{field}}}"));
    // More, in place.
    apply(&sized("1", "128Mi")).expect_code(0);
    assert_eq!(of_container("resources.limits.memory"), "128Mi");
    assert_eq!(of_container("restartCount"), "0");
    // Less than is in use.
    apply(&sized("1", "16Mi"))
        .expect_code(1)
        .expect_output(&["cannot decrease memory limits", "below current usage"]);
    assert_eq!(
        find("{.status.conditions[?(@.type==\"PodResizeInProgress\")].reason}"),
        "Error"
    );
    assert_eq!(of_container("resources.limits.memory"), "128Mi");
    assert_eq!(of_container("allocatedResources.memory"), "16Mi");
    // More than there is.
    apply(&sized("1", "8000Gi"))
        .expect_code(1)
        .expect_output(&["the resize is infeasible"]);
    // Less than before, and more than is in use.
    apply(&sized("1", "112Mi")).expect_code(0);
    assert_eq!(of_container("resources.limits.memory"), "112Mi");
    assert_eq!(
        find("{.status.conditions[?(@.type==\"PodResizeInProgress\")].status}"),
        ""
    );
    assert_eq!(
        find("{.status.conditions[?(@.type==\"PodResizePending\")].status}"),
        ""
    );
    assert_eq!(of_container("restartCount"), "0");
    // The CPU's changes with a restart.
    apply(&sized("2", "112Mi")).expect_code(0);
    let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    berth(&node, &["wait", "gated", again, "--timeout=1m"]).expect_code(0);
    let has = "--for=jsonpath={.status.containerStatuses[0].resources.limits.cpu}=2";
    berth(&node, &["wait", "gated", has, "--timeout=1m"]).expect_code(0);
    end(node);
}

#[test]
fn another_image_restarts_the_container_in_its_pod() {
    let node = Node::new();
    detach(&node, &gated("", json!({})));
    let id = berth(&node, &["image", "ls", "-q"]).expect_code(0).output;
    let changed = gated("", json!({})).replace(HELPER, id.lines().next().unwrap());
    let file = node.file("applied.yaml", &changed).display().to_string();
    berth(&node, &["apply", &file])
        .expect_code(0)
        .expect_output(&["configured"]);
    let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
    berth(&node, &["wait", "gated", again]).expect_code(0);
    end(node);
}

#[test]
fn files_of_a_config_map_follow_while_the_pod_runs() {
    let node = Node::new();
    let manifest = |word: &str, more: Value| {
        let mut map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "words" }, "data": { "word": word },
        });
        let fields = map.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let spec = json!({
            "volumes": [{ "name": "words", "configMap": { "name": "words" } }],
            "containers": [container("main", &["sleep", "inf"], json!({
                "env": [{ "name": "WORD", "valueFrom": { "configMapKeyRef": { "name": "words", "key": "word" } } }],
                "volumeMounts": [
                    { "name": "words", "mountPath": "/words" },
                    { "name": "words", "mountPath": "/single", "subPath": "word" },
                ],
            }))],
        });
        format!("{}{}", berth_tests::document(&map), pod("gated", spec))
    };
    detach(&node, &manifest("old", json!({})));
    berth(&node, &["wait", "gated", "--for=condition=Ready"]).expect_code(0);
    let apply = |manifest: String| {
        let file = node.file("applied.yaml", &manifest).display().to_string();
        berth(&node, &["apply", &file])
    };
    apply(manifest("new", json!({ "immutable": true })))
        .expect_code(0)
        .expect_output(&["pod/gated configured"]);
    let check = |what: &str| berth(&node, &["exec", "gated", "--", "checks", what]).code() == Some(0);
    eventually("the file is the new one", || {
        check("file=/words/word:new").then_some(())
    });
    // As upstream has it: a part of a volume, and the environment, are of the container's start.
    assert!(check("file=/single:old"));
    berth(&node, &["exec", "gated", "--", "env"])
        .expect_code(0)
        .expect_output(&["WORD=old"]);
    apply(manifest("newer", json!({ "immutable": true })))
        .expect_code(1)
        .expect_output(&["ConfigMap words is immutable"]);
    end(node);
}
