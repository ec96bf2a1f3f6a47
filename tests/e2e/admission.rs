//! Pods that the node has no room for.

use berth_tests::{Ended, Node, Running, berth, container, eventually, pod};
use serde_json::{Value, json};

fn requesting(name: &str, command: &[&str], resources: Value) -> String {
    pod(
        name,
        json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container("main", command, json!({ "resources": resources }))],
        }),
    )
}

fn dongle(name: &str, command: &[&str]) -> String {
    requesting(name, command, json!({ "limits": { "example.com/dongle": 1 } }))
}

#[test]
fn more_than_the_node_has_is_rejected() {
    let node = Node::new();
    for (requests, reason, requested) in [
        (
            json!({ "cpu": 4000 }),
            "OutOfcpu",
            "cpu, requested: 4000000, used: 0, capacity: ",
        ),
        (
            json!({ "memory": "5Pi" }),
            "OutOfmemory",
            "memory, requested: 5629499534213120, used: 0, capacity: ",
        ),
        (
            json!({ "ephemeral-storage": "5Ei" }),
            "OutOfephemeral-storage",
            "ephemeral-storage, requested: 5764607523034234880, used: 0, capacity: ",
        ),
    ] {
        let manifest = requesting("large", &["true"], json!({ "requests": requests }));
        let ended = node
            .run_with(&["-o", "json"], &manifest)
            .wait()
            .expect_code(1)
            .expect_output(&[
                &format!("Pod was rejected: Node didn't have enough resource: {requested}"),
                &format!("\"reason\": \"{reason}\""),
                "\"phase\": \"Failed\"",
            ]);
        assert!(!ended.output.contains("sandbox was made"), "{}", ended.output);
    }
    node.run_with(&["-o", "json"], &dongle("unknown", &["true"]))
        .wait()
        .expect_code(1)
        .expect_output(&[
            "example.com/dongle, requested: 1, used: 0, capacity: 0",
            "\"reason\": \"OutOfexample.com/dongle\"",
        ]);
    node.finish();
}

#[test]
fn pods_that_come_together_count_too() {
    let node = Node::new();
    let both = format!(
        "{}---\n{}",
        dongle("first", &["true"]),
        dongle("second", &["true"])
    );
    let ended = node
        .run_with(&["--extended-resources", "example.com/dongle=1"], &both)
        .wait()
        .expect_code(1)
        .expect_output(&["example.com/dongle, requested: 1, used: 1, capacity: 1"]);
    assert_eq!(
        ended.output.matches("sandbox was made").count(),
        1,
        "{}",
        ended.output
    );
    node.finish();
}

#[test]
fn no_more_pods_than_the_operator_wants_run_together() {
    let node = Node::new();
    let run = |most: &str, manifest: &str| node.run_with(&["-o", "json", "--max-pods", most], manifest);
    let first = node.run(&requesting("first", &["sleep", "inf"], json!({})));
    first.line("pod is ready");
    run("1", &requesting("second", &["true"], json!({})))
        .wait()
        .expect_code(1)
        .expect_output(&[
            "Pod was rejected: Node didn't have enough resource: pods, requested: 1, used: 1, capacity: 1",
            "\"reason\": \"OutOfpods\"",
        ]);
    run("2", &requesting("second", &["true"], json!({})))
        .wait()
        .expect_code(0);
    first.interrupt();
    first.wait().expect_code(0);
    run("1", &requesting("second", &["true"], json!({})))
        .wait()
        .expect_code(0);
    node.finish();
}

#[test]
fn what_others_have_counts_until_they_end() {
    let node = Node::new();
    let has = ["--extended-resources", "example.com/dongle=2"];
    let run = |manifest: &str| -> Running { node.run_with(&has, manifest) };
    // Two in one program.
    let both = run(&format!(
        "{}---\n{}",
        dongle("first", &["sleep", "inf"]),
        dongle("second", &["sleep", "inf"])
    ));
    both.line("first: pod is ready");
    both.line("second: pod is ready");
    // Another program counts them too.
    let rejected = |ended: Ended| {
        ended
            .expect_code(1)
            .expect_output(&["example.com/dongle, requested: 1, used: 2, capacity: 2"])
    };
    rejected(run(&dongle("third", &["true"])).wait());
    // Who wants none is not concerned.
    run(&requesting("other", &["true"], json!({})))
        .wait()
        .expect_code(0);
    // An ended pod of a program that goes on counts no more.
    berth(&node, &["stop", "second"]).expect_code(0);
    let listed = || berth(&node, &["ps", "-a", "-o", "json"]).output;
    eventually("the pod has ended", || {
        (!listed().contains("\"Running\"") || !listed().contains("second")).then_some(())
    });
    run(&dongle("third", &["true"])).wait().expect_code(0);
    both.interrupt();
    both.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_node_s_options_are_its_daemon_s_too() {
    let node = Node::new();
    let daemon = node.daemon(&[
        "--extended-resources",
        "example.com/dongle=1",
        "--restart-backoff",
        "initial=50ms,factor=1",
    ]);
    let has_one = node.file("one.json", &dongle("one", &["sleep", "inf"]));
    berth(&node, &["run", "-d", has_one.to_str().unwrap()]).expect_code(0);
    berth(&node, &["wait", "--for=condition=Ready", "one"]).expect_code(0);
    let two = node.file("two.json", &dongle("two", &["true"]));
    berth(&node, &["run", "-d", two.to_str().unwrap()]).expect_code(0);
    berth(&node, &["wait", "--for=jsonpath={.status.phase}=Failed", "two"]).expect_code(0);
    berth(&node, &["ps", "-a"]).expect_output(&["OutOfexample.com/dongle"]);
    berth(&node, &["events", "two"])
        .expect_output(&["OutOfexample.com/dongle", "requested: 1, used: 1, capacity: 1"]);
    // The fourth restart would come after 70 s otherwise.
    let crashing = pod(
        "crashing",
        json!({ "containers": [container("main", &["false"], json!({}))] }),
    );
    let crashing = node.file("crashing.json", &crashing);
    berth(&node, &["run", "-d", crashing.to_str().unwrap()]).expect_code(0);
    eventually("it is started again and again", || {
        let shown = berth(
            &node,
            &[
                "inspect",
                "crashing",
                "-o",
                "jsonpath={.status.containerStatuses[0].restartCount}",
            ],
        );
        shown
            .output
            .trim()
            .parse::<u32>()
            .is_ok_and(|count| count > 3)
            .then_some(())
    });
    for name in ["one", "two", "crashing"] {
        berth(&node, &["rm", "-f", name]).expect_code(0);
    }
    daemon.interrupt();
    daemon.wait();
    node.finish();
}

#[test]
fn a_pod_runs_only_on_a_node_that_it_chooses() {
    let node = Node::new();
    let choosing = |name: &str, fields: Value| {
        let mut spec = json!({
            "restartPolicy": "Never",
            "containers": [container("main", &["true"], json!({}))],
        });
        spec.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        pod(name, spec)
    };
    let affinity = |terms: Value| json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } });
    let has = |key: &str, operator: &str, values: &[&str]| json!([{ "key": key, "operator": operator, "values": values }]);
    let ssd = choosing(
        "ssd",
        json!({ "nodeSelector": { "kubernetes.io/os": "linux", "disktype": "ssd" } }),
    );
    let ended = node
        .run_with(&["-o", "json"], &ssd)
        .wait()
        .expect_code(1)
        .expect_output(&[
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector: the pod wants disktype=ssd, \
             and the node has no label disktype: berth run --node-labels",
            "\"message\": \"Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector\"",
            "\"reason\": \"NodeAffinity\"",
            "\"phase\": \"Failed\"",
        ]);
    assert!(!ended.output.contains("sandbox was made"), "{}", ended.output);
    let labels = ["--node-labels", "disktype=ssd,cores=8"];
    node.run_with(&labels, &ssd).wait().expect_code(0);
    // One of its terms is enough.
    let terms = json!([
        { "matchExpressions": has("cores", "Gt", &["8"]) },
        {
            "matchExpressions": has("cores", "Lt", &["9"]),
            "matchFields": has("metadata.name", "NotIn", &["some-other-machine"]),
        },
    ]);
    let fits = choosing("fits", affinity(terms));
    node.run_with(&labels, &fits).wait().expect_code(0);
    let fields = json!([{ "matchFields": has("metadata.name", "In", &["some-other-machine"]) }]);
    node.run(&choosing("elsewhere", affinity(fields)))
        .wait()
        .expect_code(1)
        .expect_output(&[
            "the pod wants metadata.name in (some-other-machine)",
            "it is for another node",
        ]);
    node.run_with(&["--node-labels", "disk type=ssd"], &ssd)
        .wait()
        .expect_code(2)
        .expect_output(&["--node-labels", "\"disk type\" is no key of a label"]);
    node.finish();
}

#[test]
fn a_pod_s_class_gives_its_priority() {
    let node = Node::new();
    let asking = |name: &str, class: &str| {
        pod(
            name,
            json!({
                "restartPolicy": "Never",
                "priorityClassName": class,
                "containers": [container("main", &["cat", "/proc/self/oom_score_adj"], json!({}))],
            }),
        )
    };
    let run = |manifest: &str| node.run_with(&["-o", "json"], manifest).wait();
    run(&asking("critical", "system-node-critical"))
        .expect_code(0)
        .expect_output(&["\"priority\": 2000001000"]);
    let class = json!({
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": { "name": "important" },
        "value": 1000,
    });
    let both = format!("{}---\n{class}\n", asking("important", "important"));
    run(&both)
        .expect_code(0)
        .expect_output(&["main | 1000", "\"priority\": 1000"]);
    run(&asking("other", "important")).expect_code(1).expect_output(&[
        "spec.priorityClassName: Forbidden: no PriorityClass with name important was found",
        "system-node-critical are there",
    ]);
    node.finish();
}

/// Who is critical is let in, by the end of the least important one that has what it needs.
#[test]
fn a_critical_pod_has_others_make_room() {
    let node = Node::new();
    let daemon = node.daemon(&["--extended-resources", "example.com/dongle=2"]);
    let detach = |name: &str, manifest: &str| {
        let file = node.file(&format!("{name}.json"), manifest);
        berth(&node, &["run", "-d", file.to_str().unwrap()]).expect_code(0);
    };
    let critical = |name: &str, dongles: u32| {
        pod(
            name,
            json!({
                "restartPolicy": "Never",
                "priorityClassName": "system-cluster-critical",
                "terminationGracePeriodSeconds": 1,
                "containers": [container("main", &["sleep", "inf"], json!({ "resources": { "limits": { "example.com/dongle": dongles } } }))],
            }),
        )
    };
    let ready = |name: &str| {
        berth(&node, &["wait", "--for=condition=Ready", name]).expect_code(0);
    };
    for name in ["one", "two"] {
        detach(name, &dongle(name, &["sleep", "inf"]));
        ready(name);
    }
    detach("first", &critical("first", 1));
    ready("first");
    let listed = berth(&node, &["ps", "-a"]).output;
    assert_eq!(listed.matches("Preempting").count(), 1, "{listed}");
    // Both can't be had any more, so nobody ends for it.
    detach("greedy", &critical("greedy", 2));
    berth(
        &node,
        &["wait", "--for=jsonpath={.status.phase}=Failed", "greedy"],
    )
    .expect_code(0);
    berth(&node, &["events", "greedy"]).expect_output(&[
        "UnexpectedAdmissionError",
        "no set of running pods found to reclaim resources: [(res: example.com/dongle, q: 1), ]",
    ]);
    detach("second", &critical("second", 1));
    ready("second");
    for name in ["one", "two"] {
        berth(&node, &["inspect", name, "-o", "json"]).expect_output(&[
            "\"reason\": \"Preempting\"",
            "\"message\": \"Preempted in order to admit critical pod\"",
            "\"type\": \"DisruptionTarget\"",
            "\"reason\": \"TerminationByKubelet\"",
        ]);
        berth(&node, &["events", name]).expect_output(&["Preempting"]);
    }
    for name in ["one", "two", "first", "greedy", "second"] {
        berth(&node, &["rm", "-f", name]).expect_code(0);
    }
    daemon.interrupt();
    daemon.wait();
    node.finish();
}
