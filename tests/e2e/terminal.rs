//! The commands as a person has them: in a terminal, in a pipe that closes early, and with words that are not right.

use std::process::{Command, Stdio};

use berth_tests::{Node, Running, Terminal, berth, container, document, eventually, pod};
use serde_json::{Value, json};

fn run_detached(node: &Node, manifest: &str, name: &str) {
    let file = node.file("detached.yaml", manifest);
    berth(node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    berth(node, &["wait", name, "--for=condition=Ready"]).expect_code(0);
}

fn sleeper(name: &str, more: Value) -> String {
    let containers = ["main", "side"].map(|name| container(name, &["sleep", "inf"], json!({})));
    let mut metadata = json!({ "name": name });
    metadata
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let spec = json!({ "terminationGracePeriodSeconds": 2, "containers": containers });
    document(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }))
}

fn end(node: Node) {
    berth(&node, &["rm", "--force", "--all"]).expect_code(0);
    eventually("the daemon ends", || {
        let lock = node.daemon_lock();
        (!lock.exists()).then_some(())
    });
    node.finish();
}

/// As `| head -0`: nobody reads standard output, nor standard error.
fn without_reader(mut command: Command) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let errors = writer.try_clone().unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .unwrap();
    drop(command);
    eventually("it ends", || child.try_wait().unwrap()).code()
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let node = Node::new();
    run_detached(&node, &sleeper("web", json!({})), "web");
    let file = node.scratch().join("detached.yaml").display().to_string();
    for arguments in [
        vec!["ps"],
        vec!["ps", "-o", "json"],
        vec!["inspect", "web"],
        vec!["status", "web"],
        vec!["logs", "web"],
        vec!["events"],
        vec!["top", "web"],
        vec!["stats", "--no-stream"],
        vec!["stats"],
        vec!["wait", "web", "--for=condition=Ready"],
        vec!["validate", &file],
        vec!["apply", &file],
        vec!["run", "-d", &file],
        vec!["explain", "pod.spec"],
        vec!["image", "ls"],
        vec!["image", "inspect", "berth.local/helper"],
        vec!["volume", "ls"],
        vec!["completion", "bash"],
        vec!["complete", "--", "p"],
        vec!["restart", "web", "side"],
    ] {
        assert_eq!(without_reader(node.berth(&arguments)), Some(0), "{arguments:?}");
    }
    // A failure is one all the same.
    assert_eq!(without_reader(node.berth(["ps", "none"])), Some(1));
    // What can't be written for another reason is missed.
    for arguments in [
        vec!["ps"],
        vec!["ps", "-o", "jsonpath={.items[*].metadata.name}"],
        vec!["inspect", "web"],
        vec!["events"],
        vec!["stats", "--no-stream"],
        vec!["image", "ls"],
        vec!["completion", "fish"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ended = node.berth(&arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
    }
    end(node);
}

#[test]
fn usage_is_drawn_over_itself_within_the_window() {
    let node = Node::new();
    run_detached(&node, &sleeper("web", json!({})), "web");
    // A container's own processes, not the pod's.
    let stats: Value = serde_json::from_str(&berth(&node, &["stats", "-o", "json"]).output).unwrap();
    let counts: Vec<_> = (0..2).map(|at| stats["items"][at]["processes"].clone()).collect();
    assert_eq!(counts, [1, 1], "{stats}");
    let terminal = Terminal::start(&node.berth(["stats"]), 100, 30);
    terminal.shows("default/web   side");
    terminal.resize(40, 2);
    terminal.shows("and 2 more");
    let mut terminal = terminal;
    terminal.types("\x03");
    let (_, seen) = terminal.wait();
    assert!(seen.contains("\x1b[H"), "{seen:?}");
    // What can't move a cursor gets lines.
    let mut command = node.berth(["stats"]);
    command.env("TERM", "dumb");
    let output = Running::start(command, "");
    output.line("side");
    output.interrupt();
    assert!(!output.wait().output.contains('\x1b'));
    end(node);
}

#[test]
fn pods_are_listed_by_namespace_label_and_name() {
    let node = Node::new();
    let labelled = |app: &str| json!({ "labels": { "app": app } });
    run_detached(&node, &sleeper("web", labelled("web")), "web");
    let other = json!({ "namespace": "other", "labels": { "app": "web" } });
    run_detached(&node, &sleeper("web", other), "other/web");
    run_detached(&node, &sleeper("apart", labelled("db")), "apart");
    let names = |arguments: &[&str]| {
        let all: Vec<&str> = ["ps", "-q"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let ended = berth(&node, &all).expect_code(0);
        ended
            .output
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["pod/apart", "pod/web", "pod/other/web"]);
    assert_eq!(names(&["-n", "other"]), ["pod/other/web"]);
    assert_eq!(names(&["-l", "app=web"]), ["pod/web", "pod/other/web"]);
    assert_eq!(names(&["-l", "app notin (web)"]), ["pod/apart"]);
    assert_eq!(names(&["web"]), ["pod/web"]);
    assert_eq!(names(&["web", "-n", "other"]), ["pod/other/web"]);
    let table = berth(&node, &["ps", "--no-headers", "apart"])
        .expect_code(0)
        .output;
    assert_eq!(table.lines().count(), 1, "{table}");
    assert!(table.contains("2/2") && table.contains("Running"), "{table}");
    // What is printed can be typed again.
    berth(&node, &["exec", "pod/other/web", "-c", "main", "true"]).expect_code(0);
    for (name, hint) in [
        ("wbe", "There is no pod wbe; did you mean web?"),
        ("apa", "There is no pod apa; did you mean apart?"),
        ("other/apart", "there is one in another namespace: default/apart."),
        ("none/x", "`berth ps -a` lists those there are."),
    ] {
        berth(&node, &["exec", name, "true"])
            .expect_code(1)
            .expect_output(&[hint]);
    }
    berth(&node, &["ps", "-l", "a b"]).expect_code(2);
    // One that is being ended says so.
    let stubborn = container("main", &["sleep", "inf", "--stubborn"], json!({}));
    let slow = json!({ "terminationGracePeriodSeconds": 600, "containers": [stubborn] });
    run_detached(&node, &pod("slow", slow), "slow");
    berth(&node, &["stop", "--no-wait", "slow"]).expect_code(0);
    eventually("it is being ended", || {
        let table = berth(&node, &["ps", "slow"]).expect_code(0).output;
        table.contains("Terminating").then_some(())
    });
    let asked = berth(
        &node,
        &[
            "inspect",
            "slow",
            "-o",
            "jsonpath={.metadata.deletionGracePeriodSeconds}",
        ],
    );
    assert_eq!(asked.output.trim(), "600");
    end(node);
}

#[test]
fn whoever_types_too_little_is_helped() {
    let node = Node::new();
    for (arguments, code, said) in [
        (vec![], 2, vec!["Reach into them:", "port-forward", "The node:"]),
        (vec!["image"], 2, vec!["prune", "Usage: berth image"]),
        (vec!["--help"], 0, vec!["Run pods:", "--cgroup-root"]),
        (
            vec!["logs", "--help"],
            0,
            vec!["Examples:", "berth logs -f web", "Global options:"],
        ),
        (vec!["image", "prune", "--help"], 0, vec!["--older-than 72h"]),
        (vec!["pss"], 2, vec!["a similar subcommand exists: 'ps'"]),
        (
            vec!["ps", "--alll"],
            2,
            vec!["a similar argument exists: '--all'"],
        ),
    ] {
        berth(&node, &arguments).expect_code(code).expect_output(&said);
    }
    let help = berth(&node, &[]).output;
    assert!(!help.contains("rootless-keeper"), "{help}");
    node.finish();
}

#[test]
fn what_comes_next_is_completed() {
    let node = Node::new();
    run_detached(&node, &sleeper("web", json!({})), "web");
    let root = node.root().display().to_string();
    let next = |words: &[&str]| {
        let all: Vec<&str> = ["complete", "--", "--root", &root]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        let ended = berth(&node, &all).expect_code(0);
        let words = ended
            .output
            .lines()
            .map(|line| line.split('\t').next().unwrap().to_owned());
        words.collect::<Vec<_>>()
    };
    assert_eq!(next(&["port"]), ["port-forward"]);
    assert_eq!(next(&["exec", ""]), ["web"]);
    assert_eq!(next(&["exec", "-it", "web", "-c", ""]), ["main", "side"]);
    assert_eq!(next(&["logs", "web", "s"]), ["side"]);
    assert_eq!(next(&["cp", "w"]), ["web:"]);
    assert_eq!(next(&["ps", "-n", ""]), ["default"]);
    assert_eq!(next(&["ps", "--output=ya"]), ["--output=yaml"]);
    assert_eq!(next(&["logs", "--prev"]), ["--previous"]);
    assert_eq!(next(&["image", "rm", "berth"]), ["berth.local/helper:latest"]);
    assert_eq!(next(&["explain", "pod.spec.initC"]), ["pod.spec.initContainers"]);
    // Files are the shell's.
    assert!(next(&["run", ""]).is_empty());
    assert!(next(&["exec", "web", "--", ""]).is_empty());
    end(node);
}

#[test]
fn images_are_shown_in_every_format() {
    let node = Node::new();
    run_detached(&node, &sleeper("web", json!({})), "web");
    let inspect = |format: &str| {
        let ended = berth(&node, &["image", "inspect", "berth.local/helper", "-o", format]);
        ended.expect_code(0).output.trim().to_owned()
    };
    assert_eq!(inspect("jsonpath={.config.config.Cmd[0]}"), "verbs");
    assert_eq!(inspect("name"), "image/berth.local/helper:latest");
    assert!(inspect("yaml").contains("names:\n- berth.local/helper:latest"));
    let json: Value = serde_json::from_str(&inspect("json")).unwrap();
    assert_eq!(json[0]["names"][0], "berth.local/helper:latest");
    berth(&node, &["image", "inspect", "berth.local/helper", "-o", "wide"])
        .expect_code(1)
        .expect_output(&["`berth image ls` has"]);
    end(node);
}

#[test]
fn a_log_that_is_not_there_yet_says_why() {
    let node = Node::new();
    let mut main = container("main", &["true"], json!({}));
    main["image"] = json!("127.0.0.1:1/none:1");
    main["imagePullPolicy"] = json!("IfNotPresent");
    let file = node.file("bad.yaml", &pod("bad", json!({ "containers": [main] })));
    berth(&node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    eventually("it says so", || {
        let said = berth(&node, &["logs", "bad"]).expect_code(1).output;
        let complete = said.contains("has no log yet: ") && said.contains("nothing listens at 127.0.0.1:1");
        complete.then_some(())
    });
    berth(&node, &["restart", "bad"])
        .expect_code(1)
        .expect_output(&["there is none to start anew"]);
    end(node);
}

#[test]
fn a_command_hears_of_the_window_s_size() {
    let node = Node::new();
    // The machine's own shell and stty, since a small image has none.
    let directories = ["usr", "lib", "lib64", "bin"].map(|name| (name, format!("/{name}")));
    let mounts = directories
        .clone()
        .map(|(name, path)| json!({ "name": name, "mountPath": path, "readOnly": true }));
    let main = container("main", &["/bin/sleep", "1000"], json!({ "volumeMounts": mounts }));
    let volumes = directories.map(|(name, path)| json!({ "name": name, "hostPath": { "path": path } }));
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [main], "volumes": volumes });
    run_detached(&node, &pod("web", spec), "web");
    let script = "trap 'stty size' WINCH; echo size is $(stty size); read -r word; while [ $word != end ]; do read -r word; done; exit 5";
    let exec = node.berth(["exec", "-it", "web", "--", "/bin/bash", "-c", script]);
    let mut terminal = Terminal::start(&exec, 99, 33);
    terminal.shows("size is 33 99");
    terminal.resize(71, 21);
    // Bash runs the trap once its `read` returns, and the news may come after that.
    eventually("the size is heard of", || {
        terminal.types("go\r");
        terminal.seen().contains("21 71").then_some(())
    });
    terminal.types("end\r");
    let (code, seen) = terminal.wait();
    assert_eq!(code, Some(5), "{seen}");
    end(node);
}
