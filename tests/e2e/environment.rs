//! What a container's program finds: environment, arguments, host name, hosts file.

use berth_tests::{Node, container, document, once, pod};
use serde_json::{Value, json};

fn config_map() -> String {
    document(
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" },
        "data": { "COLOUR": "blue", "greeting.txt": "good morning" } }),
    )
}

fn secret() -> String {
    document(
        &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "keys" },
        "data": { "token": "czNjcjN0" }, "stringData": { "plain": "as it is" } }),
    )
}

fn expect_checks(manifest: &str) {
    let node = Node::new();
    node.run(manifest).wait().expect_code(0).expect_no_panic();
    node.finish();
}

fn checks(name: &str, what: &[&str], more: Value) -> String {
    let command: Vec<&str> = ["checks"].iter().chain(what).copied().collect();
    once(name, &command, more)
}

#[test]
fn values_come_from_everywhere() {
    let env = json!([
        { "name": "LITERAL", "value": "one" },
        { "name": "COMPOSED", "value": "$(LITERAL)-$(MISSING)-$$(LITERAL)" },
        { "name": "COLOUR", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "COLOUR" } } },
        { "name": "TOKEN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "token" } } },
        { "name": "PLAIN", "valueFrom": { "secretKeyRef": { "name": "keys", "key": "plain" } } },
        { "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
        { "name": "NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
    ]);
    let what = [
        "env=LITERAL:one",
        "env=COMPOSED:one-$(MISSING)-$(LITERAL)",
        "env=COLOUR:blue",
        "env=TOKEN:s3cr3t",
        "env=PLAIN:as it is",
        "env=NAME:envs",
        "env=NAMESPACE:default",
    ];
    let escaped: Vec<String> = what.iter().map(|check| check.replace("$(", "$$(")).collect();
    let escaped: Vec<&str> = escaped.iter().map(String::as_str).collect();
    let pod = checks("envs", &escaped, json!({ "env": env }));
    expect_checks(&format!("{}{}{pod}", config_map(), secret()));
}

#[test]
fn a_file_that_an_init_container_wrote_is_an_environment() {
    let from = |key: &str, path: &str, optional: bool| json!({ "name": key, "valueFrom": { "fileKeyRef": { "volumeName": "made", "path": path, "key": key, "optional": optional } } });
    let env = json!([
        from("WORD", "a/app.env", false),
        from("TEXT", "a/app.env", false),
        from("NONE", "a/app.env", true),
        from("FILE", "missing", true),
        { "name": "COMPOSED", "value": "$(WORD)!" },
    ]);
    let text = "# made by init\nTEXT='one\ntwo'\nWORD='it is #1' # a comment";
    let mounted = json!({ "volumeMounts": [{ "name": "made", "mountPath": "/made" }] });
    let make = container(
        "init",
        &["run", "mkdir", "/made/a", ";", "write", "/made/a/app.env", text],
        mounted,
    );
    let what = [
        "checks",
        "env=WORD:it is #1",
        "env=TEXT:one\ntwo",
        "env=NONE:not set",
        "env=FILE:not set",
        "env=COMPOSED:it is #1!",
        "absent=/made",
    ];
    let spec = |main: Value| {
        json!({
            "restartPolicy": "Never",
            "volumes": [{ "name": "made", "emptyDir": {} }],
            "initContainers": [make],
            "containers": [main],
        })
    };
    expect_checks(&pod(
        "files",
        spec(container("main", &what, json!({ "env": env }))),
    ));
    // Only as much of a pod as can be: it waits, and says for what.
    let node = Node::new();
    let missing = json!({ "env": [from("OTHER", "a/app.env", false)] });
    let waits = node.run(&pod("waits", spec(container("main", &["true"], missing))));
    waits.line("environment variable key \"OTHER\" not found in file \"a/app.env\"");
    waits.interrupt();
    waits.wait().expect_no_panic();
    node.finish();
}

#[test]
fn whole_config_maps_come_with_a_prefix() {
    let pod = checks(
        "from",
        &["env=S_COLOUR:blue", "env=HOSTNAME:from"],
        json!({
            "envFrom": [{ "prefix": "S_", "configMapRef": { "name": "settings" } }],
        }),
    );
    expect_checks(&format!("{}{pod}", config_map()));
}

#[test]
fn the_pod_s_address_is_a_field() {
    let node = Node::new();
    let pod = node.run(&pod(
        "address",
        json!({ "containers": [container("main", &["run", "env", "IP", ";", "sleep", "inf"], json!({
        "env": [{ "name": "IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }],
    }))] }),
    ));
    let address = pod.address();
    pod.log("main", &format!("IP={address}"));
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_missing_key_is_named() {
    let node = Node::new();
    let manifest = format!(
        "{}{}",
        config_map(),
        once(
            "missing",
            &["env"],
            json!({
                "env": [{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "settings", "key": "size" } } }],
            })
        )
    );
    let pod = node.run(&manifest);
    pod.find(0, "the missing key", |line| {
        line.contains("size") && line.contains("settings")
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn arguments_replace_the_image_s_and_expand() {
    let node = Node::new();
    let manifest = once(
        "args",
        &["echo"],
        json!({
            "args": ["$(WHO)", "$(NOBODY)", "$$(WHO)"],
            "env": [{ "name": "WHO", "value": "world" }],
        }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "world $(NOBODY) $(WHO)");
    node.finish();
}

#[test]
fn names_and_directories_are_as_asked() {
    let manifest = pod(
        "named",
        json!({
            "restartPolicy": "Never",
            "hostname": "box",
            "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["elsewhere"] }],
            "containers": [container("main", &["checks", "hostname=box", "cwd=/tmp"], json!({ "workingDir": "/tmp" }))],
        }),
    );
    expect_checks(&manifest);
    let node = Node::new();
    let manifest = pod(
        "hosts",
        json!({
            "restartPolicy": "Never",
            "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["elsewhere"] }],
            "containers": [container("main", &["cat", "/etc/hosts"], json!({}))],
        }),
    );
    let ended = node
        .run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "# Kubernetes-managed hosts file.");
    let alias = ended
        .output
        .lines()
        .find(|line| line.contains("10.1.2.3"))
        .unwrap();
    assert!(alias.contains("elsewhere"), "{alias}");
    node.finish();
}
