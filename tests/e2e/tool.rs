//! The commands that look at pods: `wait`, `inspect`, `ps -o`, `stats`, `top`; and `validate`, `explain`, `completion`, `man`.

mod gated;

use std::fs;

use berth_tests::{HELPER, Node, Running, berth};
use serde_json::{Value, json};

use gated::{detach, end, end_without_pods, gated};

#[test]
fn waiting_ends_with_what_is_waited_for_or_with_the_time() {
    let node = Node::new();
    detach(&node, &gated("", json!({})));
    berth(&node, &["wait", "gated", "--for=condition=Ready", "--timeout=1s"])
        .expect_code(1)
        .expect_output(&["timed out waiting for the condition on pods/gated"]);
    let waiting = Running::start(node.berth(["wait", "gated", "--for=condition=Ready"]), "");
    berth(&node, &["exec", "gated", "--", "touch", "/tmp/ready"]).expect_code(0);
    waiting
        .wait()
        .expect_code(0)
        .expect_output(&["pod/gated condition met"]);
    let gone = Running::start(node.berth(["wait", "gated", "--for=delete", "--timeout=1m"]), "");
    berth(&node, &["stop", "gated", "--grace-period", "0"]).expect_code(0);
    gone.wait().expect_code(0);
    berth(&node, &["wait", "gated", "--for=condition=Ready"]).expect_code(1);
    end_without_pods(node);
}

#[test]
fn pods_are_shown_in_every_format() {
    let node = Node::new();
    detach(&node, &gated("", json!({})));
    let show = |arguments: &[&str]| berth(&node, arguments).expect_code(0).output;
    assert_eq!(show(&["ps", "-o", "name"]), "pod/gated");
    assert_eq!(show(&["ps", "-o", "jsonpath={.items[*].metadata.name}"]), "gated");
    assert_eq!(
        show(&["inspect", "gated", "-o", "jsonpath={.status.phase}"]),
        "Running"
    );
    assert_eq!(show(&["ps", "-o", "custom-columns=N:.metadata.name"]), "N\ngated");
    assert!(show(&["ps", "-o", "wide"]).contains(HELPER));
    let json: Value = serde_json::from_str(&show(&["inspect", "gated"])).unwrap();
    assert_eq!(json["kind"], "Pod");
    let json: Value = serde_json::from_str(&show(&["ps", "-o", "json"])).unwrap();
    assert_eq!(json["items"][0]["metadata"]["name"], "gated");
    assert!(show(&["image", "ls", "-o", "name"]).contains("image/"));
    assert!(show(&["top", "gated"]).contains("sleep inf"));
    assert_eq!(show(&["stats", "-o", "name"]), "container/gated/main");
    assert!(show(&["events", "-o", "yaml"]).starts_with("apiVersion: v1\nitems:\n- "));
    assert!(show(&["events", "-o", "jsonpath={.items[*].reason}"]).contains("Started"));
    for line in show(&["events", "-o", "json"]).lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["pod"], "gated");
    }
    berth(&node, &["events", "-o", "name"])
        .expect_code(1)
        .expect_output(&["Events have no names"]);
    let stats: Value = serde_json::from_str(&show(&["stats", "-o", "json"])).unwrap();
    let line = &stats["items"][0];
    assert_eq!(
        (&line["container"], &line["memoryLimit"]),
        (&json!("main"), &json!(64 << 20))
    );
    assert!(
        line["memory"].as_u64().unwrap() > 0 && line["milliCpu"].is_u64(),
        "{line}"
    );
    assert!(show(&["stats", "--no-stream"]).contains("64.0MiB"));
    end(node);
}

#[test]
fn manifests_are_validated_and_explained_without_a_node() {
    let node = Node::new();
    let good = node
        .file("good.yaml", &gated("", json!({})))
        .display()
        .to_string();
    berth(&node, &["validate", &good])
        .expect_code(0)
        .expect_output(&["pod/gated is valid"]);
    // What no pod of the file needs, too.
    let others = node.file(
        "others.yaml",
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: v}\nspec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], \
         persistentVolumeReclaimPolicy: Retain, hostPath: {path: /srv}}\n---\napiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\n\
         metadata: {name: c}\nvalue: 7\n",
    );
    berth(&node, &["validate", &others.display().to_string()])
        .expect_code(0)
        .expect_output(&["persistentvolume/v is valid", "priorityclass/c is valid"]);
    let bad = node.file(
        "bad.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {container: []}\n",
    );
    berth(&node, &["validate", &bad.display().to_string()])
        .expect_code(1)
        .expect_output(&["bad.yaml:4: spec.container: unknown field (did you mean \"containers\"?)"]);
    let deployment = node.file(
        "d.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
    );
    berth(&node, &["run", &deployment.display().to_string()])
        .expect_code(1)
        .expect_output(&["apps/v1 Deployment can't be run", "`berth up`"]);
    berth(&node, &["explain", "pod.spec.containers.livenessProbe"])
        .expect_code(0)
        .expect_output(&["DESCRIPTION:", "periodSeconds <integer>", "Default: 10."]);
    berth(&node, &["explain", "pvc.spec", "--recursive"])
        .expect_code(0)
        .expect_output(&["    requests <map[string]Quantity>"]);
    for shell in ["bash", "zsh", "fish"] {
        berth(&node, &["completion", shell])
            .expect_code(0)
            .expect_output(&["complete"]);
    }
    let pages = node.scratch().join("man");
    berth(&node, &["man", &pages.display().to_string()]).expect_code(0);
    let pages = fs::read_dir(pages).unwrap().map(|page| page.unwrap().path());
    let pages: Vec<String> = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    assert!(pages.len() > 30);
    // What is not ASCII is not the same in every roff.
    assert!(
        pages
            .iter()
            .all(|page| page.is_ascii() && page.contains("\n.SH NAME\n") && !page.contains("\n.SH EXTRA\n"))
    );
    let with_examples = pages.iter().filter(|page| page.contains("\n.SH EXAMPLES\n"));
    assert_eq!(
        with_examples.count(),
        pages.len() - 1,
        "all but that of berth itself"
    );
    node.finish();
}
