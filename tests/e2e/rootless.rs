//! `berth run` by an ordinary user.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use berth_tests::{OrdinaryUser, Running, as_user, berth, container, eventually, http_get, once, pod};
use nix::sys::signal::Signal;
use serde_json::json;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn run(user: &OrdinaryUser<'_>, manifest: &str) -> Running {
    let file = user.file("pod.yaml", manifest);
    Running::start(user.berth(&["run", &file.display().to_string()]), "")
}

#[track_caller]
/// Two containers that share a volume; one is probed, and reached by a port of the machine.
fn web(host_port: u16) -> String {
    let mount = json!({ "name": "shared", "mountPath": "/shared" });
    pod(
        "web",
        json!({
            "securityContext": { "fsGroup": 3000 },
            "volumes": [
                { "name": "shared", "emptyDir": {} }, { "name": "memory", "emptyDir": { "medium": "Memory" } },
            ],
            "containers": [
                container("server", &["httpd", "--port", "8080", "--dir", "/shared"], json!({
                    "volumeMounts": [mount],
                    "ports": [{ "containerPort": 8080, "hostPort": host_port, "hostIP": "127.0.0.1" }],
                    "readinessProbe": { "httpGet": { "port": 8080, "path": "/page" }, "periodSeconds": 1 },
                })),
                container("writer", &["run", "id", ";", "write", "/shared/page", "hello", ";", "sleep", "inf"], json!({
                    "securityContext": { "runAsUser": 1000, "runAsGroup": 1001 },
                    "volumeMounts": [mount, { "name": "memory", "mountPath": "/memory" }],
                })),
            ],
        }),
    )
}

#[test]
fn a_pod_runs_with_all_that_belongs_to_it() {
    as_user(|_, user| {
        let pod = run(user, &web(18080));
        pod.log("writer", "uid=1000 gid=1001 groups=1001,3000");
        pod.line("server is ready");
        assert_eq!(http_get((LOOPBACK, 18080), "/page").body.trim(), "hello");
        berth(user, &["ps"])
            .expect_code(0)
            .expect_output(&["web", "2/2", "Running"]);
        berth(user, &["logs", "web", "-c", "writer"])
            .expect_code(0)
            .expect_output(&["uid=1000"]);
        berth(
            user,
            &["exec", "web", "-c", "writer", "--", "cat", "/shared/page"],
        )
        .expect_code(0)
        .expect_output(&["hello"]);
        berth(user, &["exec", "web", "-c", "writer", "--", "exit", "7"]).expect_code(7);
        berth(user, &["top", "web"])
            .expect_code(0)
            .expect_output(&["writer", "server", "httpd"]);
        berth(user, &["cp", "web:/shared/page", "./page", "-c", "writer"]).expect_code(0);
        let copied = fs::read_to_string(user.home().join("page")).unwrap();
        assert_eq!(copied.trim(), "hello");
        berth(user, &["stop", "web"]).expect_code(0);
        pod.wait().expect_output(&["pod is Failed"]);
    });
}

#[test]
fn signals_reach_it_and_its_exit_code_comes_back() {
    as_user(|_, user| {
        run(user, &once("seven", &["exit", "7"], json!({})))
            .wait()
            .expect_code(7)
            .expect_no_panic();
        let pod = run(user, &once("sleeper", &["sleep", "inf"], json!({})));
        pod.line("main started");
        pod.interrupt();
        pod.wait().expect_code(0).expect_output(&["Stopping"]);
    });
}

#[test]
fn a_pod_whose_berth_was_killed_is_there_for_the_next_one() {
    as_user(|node, user| {
        let pod = run(user, &once("orphan", &["sleep", "inf"], json!({})));
        pod.line("main started");
        pod.kill();
        // Of what ran the pod nothing is left but the keeper and the shim with its own.
        eventually("the other half ends", || {
            let all = node.processes();
            (!all.iter().any(|process| process.command.contains("pod.yaml"))).then_some(())
        });
        berth(user, &["ps"]).expect_code(0).expect_output(&["orphan"]);
        berth(user, &["stop", "orphan"]).expect_code(0);
    });
}

#[test]
fn a_killed_shim_takes_its_containers_along() {
    as_user(|node, user| {
        let pod = run(user, &once("victim", &["sleep", "inf"], json!({})));
        pod.line("main started");
        // It is in nothing that is the node's.
        let shim = node.process("berth-oci shim").expect("a shim").pid;
        let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
        let children: Vec<&str> = children.split_whitespace().collect();
        assert!(children.len() >= 2, "the pause and the container: {children:?}");
        node.signal("berth-oci shim", Signal::SIGKILL);
        eventually("the container ends with its shim", || {
            let is_there = |pid: &&str| Path::new("/proc").join(pid).exists();
            (!children.iter().any(is_there)).then_some(())
        });
        pod.wait().expect_code(137).expect_no_panic();
    });
}

#[test]
fn a_killed_keeper_takes_everything_along() {
    as_user(|node, user| {
        let containers = json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] });
        let manifest = pod("victim", containers);
        let pod = run(user, &manifest);
        pod.line("main started");
        node.signal("--first", Signal::SIGKILL);
        pod.wait().expect_code(137);
        eventually("all ends", || {
            node.processes()
                .iter()
                .all(|process| process.state == 'Z')
                .then_some(())
        });
        // The next one takes the pod up again.
        let pod = run(user, &manifest);
        pod.line("main started");
        berth(user, &["stop", "victim"]).expect_code(0);
        pod.wait().expect_no_panic();
    });
}

#[test]
fn the_daemon_of_a_user_runs_detached_pods() {
    as_user(|_, user| {
        let file = user.file("pod.yaml", &web(18081));
        berth(user, &["run", "-d", &file.display().to_string()]).expect_code(0);
        berth(user, &["wait", "web", "--for=condition=Ready"]).expect_code(0);
        assert_eq!(http_get((LOOPBACK, 18081), "/page").body.trim(), "hello");
        berth(user, &["rm", "--force", "web"]).expect_code(0);
    });
}

#[test]
fn a_local_port_leads_to_a_pod() {
    as_user(|_, user| {
        let pod = run(user, &web(18082));
        pod.line("server is ready");
        let forward = Running::start(user.berth(&["port-forward", "web", "18083:8080"]), "");
        forward.line("Forwarding from 127.0.0.1:18083");
        assert_eq!(http_get((LOOPBACK, 18083), "/page").body.trim(), "hello");
        forward.interrupt();
        forward.wait();
        pod.interrupt();
        pod.wait().expect_code(0);
    });
}

#[test]
fn root_s_files_stay_root_s() {
    as_user(|node, user| {
        let secret = node.file("secret", "do not read");
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let reads = once(
            "reader",
            &["cat", "/host/secret"],
            json!({ "volumeMounts": [{ "name": "host", "mountPath": "/host" }] }),
        );
        let mut reads: serde_json::Value = serde_json::from_str(reads.trim_start_matches("---")).unwrap();
        reads["spec"]["volumes"] = json!([{ "name": "host", "hostPath": { "path": node.scratch() } }]);
        let ended = run(user, &reads.to_string()).wait().expect_code(1);
        assert!(!ended.output.contains("do not read"), "{}", ended.output);
        ended.expect_log("main", "Permission denied");
    });
}

#[test]
fn a_path_that_is_root_s_is_named() {
    as_user(|node, user| {
        let private = node.scratch().join("private");
        fs::create_dir(&private).unwrap();
        fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
        let hidden = private.join("file").display().to_string();
        let made = node.scratch().join("made").display().to_string();
        for (name, kind, path) in [("hidden", "", &hidden), ("made", "DirectoryOrCreate", &made)] {
            let mounts = json!({ "volumeMounts": [{ "name": "host", "mountPath": "/host" }] });
            let manifest = pod(
                name,
                json!({
                    "volumes": [{ "name": "host", "hostPath": { "path": path, "type": kind } }],
                    "containers": [container("main", &["true"], mounts)],
                }),
            );
            let file = user.file("pod.yaml", &manifest);
            berth(user, &["run", "-d", &file.display().to_string()]).expect_code(0);
            eventually("the events name the path", || {
                let events = berth(user, &["events", name]).output;
                events
                    .contains(&format!("{path}: Permission denied"))
                    .then_some(())
            });
            berth(user, &["rm", "--force", name]).expect_code(0);
        }
    });
}

#[test]
fn what_takes_root_is_refused_by_name() {
    as_user(|_, user| {
        let manifest = pod(
            "greedy",
            json!({
                "hostNetwork": true,
                "hostPID": true,
                "overhead": { "memory": "1Mi" },
                "restartPolicy": "Never",
                "containers": [container("main", &["true"], json!({
                    "resources": { "limits": { "memory": "16Mi" }, "requests": { "cpu": "100m", "memory": "16Mi" } },
                    "securityContext": {
                        "privileged": true, "runAsGroup": 70000, "capabilities": { "add": ["NET_ADMIN", "SYS_TIME"] },
                    },
                    "ports": [{ "containerPort": 80, "hostPort": 80 }],
                }))],
            }),
        );
        let paths = [
            "spec.hostNetwork",
            "spec.hostPID",
            "spec.overhead[memory]",
            "spec.containers[0].securityContext.capabilities.add[1]",
            "spec.containers[0].resources.limits[memory]",
            "spec.containers[0].resources.requests[cpu]",
            "spec.containers[0].securityContext.privileged",
            "spec.containers[0].securityContext.runAsGroup",
            "spec.containers[0].ports[0].hostPort",
        ];
        let file = user.file("greedy.yaml", &manifest);
        let file = file.display().to_string();
        for command in ["run", "validate"] {
            let refused = berth(user, &[command, &file]).expect_code(1);
            // How many ids there are is not known from outside.
            let expected = paths
                .iter()
                .filter(|path| command == "run" || !path.contains("runAs"));
            for path in expected {
                let line = refused.output.lines().find(|line| line.contains(path));
                assert!(
                    line.is_some_and(|line| line.contains("not possible for an ordinary user")),
                    "{command}: {path}: {}",
                    refused.output
                );
            }
        }
        // Who wants the pod without them says so, and is told.
        berth(user, &["run", "--lenient", &file])
            .expect_code(0)
            .expect_output(&["warning: ", "spec.hostPID", "pod is Succeeded"]);
    });
}

#[test]
fn without_pasta_and_slirp4netns_a_node_is_alone_and_says_so() {
    as_user(|_, user| {
        let programs = user.home().join("programs");
        fs::create_dir(&programs).unwrap();
        for program in ["newuidmap", "newgidmap", "env", "setpriv"] {
            symlink(Path::new("/usr/bin").join(program), programs.join(program)).unwrap();
        }
        let path = programs.display().to_string();
        let berth = |arguments: &[&str]| Running::start(user.berth_in(&path, arguments), "").wait();
        let file = user.file("pod.yaml", &once("alone", &["true"], json!({})));
        berth(&["run", &file.display().to_string()])
            .expect_code(0)
            .expect_output(&[
                "warning: your pods reach each other and nothing else",
                "slirp4netns is not installed",
                "pasta is not installed",
                "main started",
            ]);
        let file = user.file("port.yaml", &web(18084));
        berth(&["run", &file.display().to_string()])
            .expect_code(1)
            .expect_output(&["ports[0].hostPort", "pasta or slirp4netns"]);
        user.ends();
        // The ids are what nothing can go without.
        fs::remove_file(programs.join("newuidmap")).unwrap();
        berth(&["run", &file.display().to_string()])
            .expect_code(1)
            .expect_output(&["The program newuidmap is missing"]);
    });
}

#[test]
fn a_user_without_subordinate_ids_is_told_how_to_get_some() {
    as_user(|node, user| {
        // The file that is mounted there.
        fs::write(node.scratch().join("subuid"), "").unwrap();
        let file = user.file("pod.yaml", &once("nobody", &["true"], json!({})));
        berth(user, &["run", &file.display().to_string()])
            .expect_code(1)
            .expect_output(&["/etc/subuid", "usermod --add-subuids"]);
        // What needs no namespace works all the same.
        berth(user, &["validate", &file.display().to_string()]).expect_code(0);
    });
}
