//! `kill -9` of what runs a pod, at any moment of its life: hooks, probes, restarts, other resources. The pod's containers
//! write down what happens to them. `BERTH_CRASH_ROUNDS` sets how many moments are tried (8), `BERTH_CRASH_SEED` repeats
//! a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_tests::{
    Moments, Node, PATIENCE, Running, berth, container, crash_rounds, eventually, http_get, pod,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// The longest life of what will be killed.
const LONGEST: Duration = Duration::from_millis(1500);

/// Where the containers of a test write.
struct Journal(PathBuf);

impl Journal {
    fn new(node: &Node) -> Self {
        let directory = node.scratch().join("journal");
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.0.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// No container ran beside itself.
    fn check_locks(&self) {
        for entry in fs::read_dir(&self.0).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|suffix| suffix == "lock") {
                assert_eq!(fs::read_to_string(&path).unwrap(), "", "{}", path.display());
            }
        }
    }
}

/// What a container of this name does before anything else.
fn beginning(name: &str) -> Vec<String> {
    let words = ["alone", &format!("/journal/{name}.lock"), ";", "append"].map(str::to_owned);
    let rest = [&format!("/journal/{name}"), "start", ";"].map(str::to_owned);
    ["run".to_owned()].into_iter().chain(words).chain(rest).collect()
}

fn noting(name: &str, then: &[&str], more: Value) -> Value {
    let begin = beginning(name);
    let command: Vec<&str> = begin
        .iter()
        .map(String::as_str)
        .chain(then.iter().copied())
        .collect();
    let mut one = container(name, &command, more);
    one["volumeMounts"] = json!([{ "name": "journal", "mountPath": "/journal" }]);
    one
}

/// Hooks that take a while and note when they begin and end.
fn hooks(name: &str) -> Value {
    let file = format!("/journal/{name}");
    let slow = |begin: &str, end: &str| {
        json!({ "exec": { "command":
            ["run", "append", file, begin, ";", "sleep", "0.2", ";", "append", file, end] } })
    };
    json!({
        "postStart": slow("postStart begins", "postStart"),
        "preStop": slow("preStop begins", "preStop"),
    })
}

/// A pod of which something happens all the time: an init container, a sidecar with a startup probe, a container with
/// hooks and probes, and one that crashes.
fn story(journal: &Path, size: u64) -> String {
    let get = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    let web = noting(
        "web",
        &["httpd", "--port", "8080"],
        json!({
            "lifecycle": hooks("web"),
            "startupProbe": get, "readinessProbe": get, "livenessProbe": get,
            "resources": { "limits": { "cpu": format!("{size}00m"), "memory": format!("{}Mi", 32 + size) } },
            "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }],
        }),
    );
    let sidecar = noting(
        "clock",
        &[
            "tick",
            "--every",
            "100",
            "--file",
            "/journal/time",
            "--replace",
            "t",
        ],
        json!({
            "restartPolicy": "Always",
            "startupProbe": { "exec": { "command": ["exists", "/journal/time"] }, "periodSeconds": 1 },
        }),
    );
    let crasher = noting("crasher", &["sleep", "0.3", ";", "false"], json!({}));
    let mut manifest: Value = serde_json::from_str(
        pod(
            "killed",
            json!({
                "terminationGracePeriodSeconds": 30,
                "volumes": [{ "name": "journal", "hostPath": { "path": journal } }],
                "initContainers": [noting("first", &["sleep", "0.1"], json!({})), sidecar],
                "containers": [web, crasher],
            }),
        )
        .trim_start_matches("---\n"),
    )
    .unwrap();
    manifest["metadata"]["annotations"] =
        json!({ "berth.dev/restart-backoff": "initial=200ms,factor=1,max=200ms" });
    berth_tests::document(&manifest)
}

/// What is known of the pod, whoever runs it.
fn status(node: &Node) -> Option<Value> {
    let shown = berth(node, &["inspect", "killed", "-o", "json"]);
    (shown.code() == Some(0)).then(|| serde_json::from_str::<Value>(&shown.output).unwrap()["status"].take())
}

fn restart_counts(status: &Value) -> BTreeMap<String, u64> {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let all = lists
        .iter()
        .flat_map(|list| status[*list].as_array().into_iter().flatten());
    all.map(|one| {
        (
            one["name"].as_str().unwrap().to_owned(),
            one["restartCount"].as_u64().unwrap(),
        )
    })
    .collect()
}

/// Restart counts never decrease.
fn check_counts(counts: &mut BTreeMap<String, u64>, status: &Value) {
    for (name, count) in restart_counts(status) {
        let before = counts.insert(name.clone(), count).unwrap_or(0);
        assert!(
            before <= count,
            "{name} was restarted {before} times, now {count}"
        );
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let mut all = status["conditions"].as_array()?.iter();
    all.find(|condition| condition["type"] == kind)
}

/// Hooks, probes and a sidecar in a pod whose `berth run` is killed again and again, from its first moment on: what runs
/// goes on, no container is started again, no hook is skipped, and none of a container that is ready runs again.
#[test]
fn a_pod_goes_on_while_its_berth_is_killed_again_and_again() {
    let node = Node::new();
    let journal = Journal::new(&node);
    let mut manifest: Value = serde_json::from_str(story(&journal.0, 1).trim_start_matches("---\n")).unwrap();
    // Without the one that crashes, nothing changes once the pod is ready.
    manifest["spec"]["containers"].as_array_mut().unwrap().pop();
    let manifest = berth_tests::document(&manifest);
    let mut moments = Moments::new();
    let mut counts = BTreeMap::new();
    let mut ready_since = None;
    for round in 0..crash_rounds(8) {
        let berth = node.run(&manifest);
        let moment = moments.next(LONGEST);
        println!("round {round}: killed after {moment:?}");
        // The point of the test: an arbitrary instant, not a condition.
        std::thread::sleep(moment);
        berth.kill();
        let Some(status) = status(&node) else { continue };
        check_counts(&mut counts, &status);
        journal.check_locks();
        let ready = condition(&status, "Ready").filter(|ready| ready["status"] == "True");
        if ready_since.is_some() {
            assert_eq!(ready.map(|ready| ready.to_string()), ready_since, "round {round}");
        }
        ready_since = ready.map(|ready| ready.to_string());
    }
    let last = node.run(&manifest);
    last.line("ready");
    assert_eq!(http_get((last.address(), 8080), "/healthz").status, 200);
    let lines = journal.lines("web");
    assert!(lines.iter().any(|line| line == "postStart"), "{lines:?}");
    assert_eq!(
        lines.iter().filter(|line| *line == "start").count(),
        1,
        "{lines:?}"
    );
    last.interrupt();
    last.wait().expect_code(0).expect_no_panic();
    assert_eq!(journal.lines("web").last().unwrap(), "preStop");
    journal.check_locks();
    node.finish();
}

fn daemon(node: &Node) -> Option<Pid> {
    let lock = node.daemon_lock();
    fs::read_to_string(lock).ok()?.parse().ok().map(Pid::from_raw)
}

/// Waits until a daemon runs the pod, its container is ready, and the last run of that has had its hook: its status may
/// still be of a run before.
fn until_ready(node: &Node, journal: &Journal) {
    let begun = Instant::now();
    let mut has_daemon = false;
    loop {
        // Any command that asks for the pod starts a daemon, which then has it.
        if !has_daemon {
            let asked = berth(node, &["exec", "killed", "-c", "web", "--", "true"]);
            let lives = daemon(node).is_some_and(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok());
            has_daemon = asked.code() == Some(0) && lives;
        }
        let status = status(node).unwrap_or_default();
        let web = &status["containerStatuses"][0];
        let lines = journal.lines("web");
        let hooked = lines.rsplit(|line| line == "start").next();
        let hooked = hooked.is_some_and(|run| run.iter().any(|line| line == "postStart"));
        if has_daemon && web["ready"] == true && hooked {
            return;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "the pod does not come back:\n{}\n{}\n{status:#}\n{lines:?}",
            berth(node, &["events", "killed"]).output,
            fs::read_to_string(node.root().join("var/log/berth/daemon.log")).unwrap_or_default(),
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The daemon is killed at any moment after containers are started anew or are given other resources.
#[test]
fn what_was_begun_is_ended_by_the_next_daemon() {
    let node = Node::new();
    let journal = Journal::new(&node);
    let file = |size: u64| {
        let path = node.file(&format!("size-{size}.yaml"), &story(&journal.0, size));
        path.display().to_string()
    };
    berth(&node, &["run", "-d", &file(1)]).expect_code(0);
    let mut moments = Moments::new();
    let mut counts = BTreeMap::new();
    for round in 0..crash_rounds(8) {
        until_ready(&node, &journal);
        check_counts(&mut counts, &status(&node).unwrap());
        let arguments = match moments.choose(4) {
            0 => vec!["restart".to_owned(), "killed".to_owned(), "web".to_owned()],
            1 => vec!["restart".to_owned(), "killed".to_owned()],
            // Another CPU is another container, other memory is not.
            _ => vec!["apply".to_owned(), file(1 + moments.choose(5))],
        };
        let command = Running::start(node.berth(&arguments), "");
        let moment = moments.next(LONGEST);
        println!("round {round}: {arguments:?}, killed after {moment:?}");
        // The point of the test: an arbitrary instant, not a condition.
        std::thread::sleep(moment);
        if let Some(daemon) = daemon(&node) {
            let _ = kill(daemon, Signal::SIGKILL);
        }
        // It may have been cut off.
        let _ = command.wait().expect_no_panic();
        check_counts(&mut counts, &status(&node).unwrap());
        journal.check_locks();
    }
    until_ready(&node, &journal);
    let last = status(&node).unwrap();
    check_counts(&mut counts, &last);
    eventually("nothing is left of a resize", || {
        let status = status(&node).unwrap();
        condition(&status, "PodResizeInProgress").is_none().then_some(())
    });
    check_story(&journal.lines("web"));
    journal.check_locks();
    berth(&node, &["rm", "--force", "killed"]).expect_code(0);
    eventually("the daemon ends", || daemon(&node).is_none().then_some(()));
    node.finish();
}

/// Each run of the container had its hooks, in their order. One that was told to end while it started may have ended
/// without the first; that a container becomes ready without it is what [`until_ready`] never sees.
fn check_story(lines: &[String]) {
    let runs: Vec<&[String]> = lines.split(|line| line == "start").skip(1).collect();
    let (_, ended) = runs.split_last().expect("it ran");
    for (number, run) in ended.iter().enumerate() {
        let place = |word: &str| run.iter().position(|line| line == word);
        let stopped = place("preStop").unwrap_or_else(|| panic!("run {number} had no preStop: {lines:#?}"));
        assert!(
            place("postStart").is_none_or(|started| started < stopped),
            "run {number}: {lines:#?}"
        );
    }
}
