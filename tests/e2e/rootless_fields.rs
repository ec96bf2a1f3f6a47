//! What a Pod can say, said by an ordinary user: fields that need no privilege do what they do for root.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use berth_tests::{Ended, HELPER, OrdinaryUser, Running, as_user, container, document, eventually, pod};
use serde_json::json;

fn run(user: &OrdinaryUser<'_>, manifest: &str) -> Ended {
    let file = user.file("pod.yaml", manifest);
    Running::start(user.berth(&["run", &file.display().to_string()]), "").wait()
}

#[test]
fn volumes_of_all_kinds() {
    as_user(|_, user| {
        let shared = user.home().join("shared");
        fs::create_dir(&shared).unwrap();
        user.own(&shared);
        let objects = [
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "key": "of-map" } }),
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "key": "of-secret" } }),
            json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "claim" }, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }),
        ];
        let mounts = [
            ("disk", "/disk", json!({})),
            ("disk", "/part", json!({ "subPath": "a/b" })),
            ("disk", "/named", json!({ "subPathExpr": "$(POD)" })),
            ("memory", "/memory", json!({})),
            ("home", "/home", json!({ "mountPropagation": "HostToContainer" })),
            (
                "home",
                "/still",
                json!({ "readOnly": true, "recursiveReadOnly": "Enabled" }),
            ),
            ("map", "/map", json!({})),
            ("secret", "/secret", json!({})),
            ("labels", "/labels", json!({})),
            ("all", "/all", json!({})),
            ("image", "/image", json!({})),
            ("claim", "/claim", json!({})),
        ];
        let mounts: Vec<_> = mounts
            .into_iter()
            .map(|(name, path, mut more)| {
                more["name"] = json!(name);
                more["mountPath"] = json!(path);
                more
            })
            .collect();
        let commands = [
            "write",
            "/disk/x",
            "1",
            ";",
            "write",
            "/part/x",
            "part",
            ";",
            "cat",
            "/disk/a/b/x",
            ";",
            "write",
            "/named/x",
            "2",
            ";",
            "write",
            "/memory/x",
            "3",
            ";",
            "write",
            "/home/x",
            "from-inside",
            ";",
            "cat",
            "/map/key",
            ";",
            "cat",
            "/secret/key",
            ";",
            "cat",
            "/labels/name",
            ";",
            "cat",
            "/all/map",
            ";",
            "cat",
            "/all/name",
            ";",
            "ls",
            "/image",
            ";",
            "write",
            "/claim/x",
            "kept",
            ";",
            "id",
        ];
        let manifest: String = objects
            .iter()
            .map(document)
            .chain([pod(
                "volumes",
                json!({
                    "restartPolicy": "Never",
                    "securityContext": { "fsGroup": 3000, "runAsUser": 1000, "fsGroupChangePolicy": "OnRootMismatch" },
                    "volumes": [
                        { "name": "disk", "emptyDir": { "sizeLimit": "10Mi" } },
                        { "name": "memory", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } },
                        { "name": "home", "hostPath": { "path": shared, "type": "Directory" } },
                        { "name": "map", "configMap": { "name": "c", "defaultMode": 0o440 } },
                        { "name": "secret", "secret": { "secretName": "s" } },
                        { "name": "labels", "downwardAPI": { "items": [
                            { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } } ] } },
                        { "name": "all", "projected": { "sources": [
                            { "configMap": { "name": "c", "items": [{ "key": "key", "path": "map" }] } },
                            { "downwardAPI": { "items": [{ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } }] } },
                        ] } },
                        { "name": "image", "image": { "reference": HELPER, "pullPolicy": "Never" } },
                        { "name": "claim", "persistentVolumeClaim": { "claimName": "claim" } },
                    ],
                    "containers": [container("main", &[&["run"][..], &commands].concat(), json!({
                        "env": [{ "name": "POD", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
                        "volumeMounts": mounts,
                        "securityContext": { "runAsGroup": 1001 },
                    }))],
                }),
            )])
            .collect();
        // What another id is to write must be open to it.
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        run(user, &manifest)
            .expect_log("main", "part")
            .expect_log("main", "of-map")
            .expect_log("main", "of-secret")
            .expect_log("main", "volumes")
            .expect_log("main", "uid=1000 gid=1001 groups=1001,3000")
            .expect_code(0);
        let written = fs::read_to_string(shared.join("x")).unwrap();
        assert_eq!(written.trim(), "from-inside");
        let claims = Running::start(user.berth(&["volume", "rm", "claim"]), "").wait();
        claims.expect_code(0);
    });
}

#[test]
fn security_of_a_pod_s_own() {
    as_user(|_, user| {
        let main = container(
            "main",
            &[
                "run",
                "id",
                ";",
                "caps",
                ";",
                "sysctl",
                "net.ipv4.ip_unprivileged_port_start",
                ";",
                "sysctl",
                "kernel.shm_rmid_forced",
                ";",
                "hostname",
                ";",
                "cat",
                "/etc/hosts",
                ";",
                "cat",
                "/etc/resolv.conf",
            ],
            json!({
                "securityContext": {
                    "readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "runAsNonRoot": true,
                    "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
            }),
        );
        let manifest = pod(
            "secure",
            json!({
                "restartPolicy": "Never",
                "hostname": "inside", "subdomain": "sub", "setHostnameAsFQDN": false,
                "hostAliases": [{ "ip": "10.9.8.7", "hostnames": ["elsewhere"] }],
                "dnsPolicy": "None", "dnsConfig": { "nameservers": ["10.1.2.3"], "searches": ["a.b"] },
                "securityContext": {
                    "runAsUser": 2000, "supplementalGroups": [4000], "supplementalGroupsPolicy": "Strict",
                    "sysctls": [
                        { "name": "net.ipv4.ip_unprivileged_port_start", "value": "80" },
                        { "name": "kernel.shm_rmid_forced", "value": "1" },
                    ],
                },
                "containers": [main],
            }),
        );
        run(user, &manifest)
            .expect_log("main", "uid=2000")
            .expect_log("main", "inside")
            .expect_log("main", "elsewhere")
            .expect_log("main", "nameserver 10.1.2.3")
            .expect_code(0);
    });
}

#[test]
fn probes_hooks_and_sidecars() {
    as_user(|_, user| {
        let http = json!({ "httpGet": { "port": "web", "path": "/healthz" }, "periodSeconds": 1 });
        let manifest = pod(
            "alive",
            json!({
                "initContainers": [
                    container("first", &["true"], json!({})),
                    container("beside", &["httpd", "--port", "9000"], json!({
                        "restartPolicy": "Always",
                        "startupProbe": { "tcpSocket": { "port": 9000 }, "periodSeconds": 1 },
                    })),
                ],
                "containers": [
                    container("main", &["httpd", "--port", "8080"], json!({
                        "ports": [{ "containerPort": 8080, "name": "web" }],
                        "readinessProbe": http, "livenessProbe": http,
                        "startupProbe": { "exec": { "command": ["true"] } },
                        "lifecycle": {
                            "postStart": { "exec": { "command": ["true"] } },
                            "preStop": { "httpGet": { "port": 8080, "path": "/healthz" } },
                        },
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    })),
                    container("remote", &["grpc-health", "--port", "9001"], json!({
                        "readinessProbe": { "grpc": { "port": 9001 }, "periodSeconds": 1 },
                        "lifecycle": { "preStop": { "sleep": { "seconds": 1 } } },
                    })),
                ],
            }),
        );
        let file = user.file("pod.yaml", &manifest);
        let file = file.display().to_string();
        let berth = |arguments: &[&str]| Running::start(user.berth(arguments), "").wait();
        berth(&["run", "-d", &file]).expect_code(0);
        berth(&["wait", "alive", "--for=condition=Ready", "--timeout=60s"]).expect_code(0);
        berth(&["restart", "alive", "main"]).expect_code(0);
        eventually("main runs again", || {
            let path = "jsonpath={.status.containerStatuses[0].restartCount}";
            let ended = berth(&["inspect", "alive", "-o", path]).expect_code(0);
            ended.output.contains('1').then_some(())
        });
        berth(&["wait", "alive", "--for=condition=Ready", "--timeout=60s"]).expect_code(0);
        berth(&["events", "alive"]).expect_code(0);
        berth(&["rm", "-f", "alive"]).expect_code(0);
    });
}

#[test]
fn others_reach_neither_sockets_nor_pods() {
    as_user(|_, user| {
        let manifest = pod(
            "mine",
            json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
        );
        let file = user.file("pod.yaml", &manifest);
        let berth = |arguments: &[&str]| Running::start(user.berth(arguments), "").wait();
        berth(&["run", "-d", &file.display().to_string()]).expect_code(0);
        let run = user.runtime().join("berth");
        assert_eq!(mode(&run), 0o700, "{}", run.display());
        let sockets = sockets_below(&run);
        assert!(sockets.len() >= 3, "{sockets:?}");
        // Each is in a directory that others can't enter, and has no rights for them itself, or is the user's network's, whose
        // program makes it.
        for socket in sockets.iter().filter(|socket| !socket.ends_with("ports.sock")) {
            assert_eq!(
                mode(socket) & 0o077,
                0,
                "{}: {:o}",
                socket.display(),
                mode(socket)
            );
        }
        let data = user.home().join(".local/share/berth");
        assert_eq!(mode(&data) & 0o077, 0, "{}: {:o}", data.display(), mode(&data));
        berth(&["logs", "nobodys"])
            .expect_code(1)
            .expect_output(&["which are yours", "sudo berth ps"]);
        berth(&["rm", "-f", "mine"]).expect_code(0);
    });
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn sockets_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(sockets_below(&entry.path()));
        } else if kind.is_socket() {
            found.push(entry.path());
        }
    }
    found
}
