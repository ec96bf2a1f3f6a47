//! How images come is drawn on a terminal, for those who wait for a pod; elsewhere nothing is drawn.

mod gated;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use berth_tests::{Layout, Node, Registry, Running, Terminal, berth, pod};
use serde_json::json;

use gated::{detach, end_without_pods};

/// So much of an answer passes while the gate is shut.
const FIRST: usize = 256 << 10;
const HOST: &str = "127.0.0.1:5001";

/// A registry behind a gate: layers come in part, and the rest once it is open.
struct Gate {
    open: Arc<(Mutex<bool>, Condvar)>,
    registry: Registry,
    layer: String,
}

impl Gate {
    fn shut(node: &Node) -> Self {
        let registry = Registry::start(node);
        let config =
            json!({ "Entrypoint": ["/bin/berth-helper"], "Cmd": ["sleep", "inf"], "Env": ["PATH=/bin"] });
        let layout = Layout::make(&node.scratch().join("layout"), "any", config, &[]);
        registry.push(&layout, "team/app", "1");
        let open = Arc::new((Mutex::new(false), Condvar::new()));
        let listener = TcpListener::bind(HOST).unwrap();
        let gate = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming() {
                let gate = Arc::clone(&gate);
                thread::spawn(move || pass(client.unwrap(), &gate));
            }
        });
        let layer = layout.layer.trim_start_matches("sha256:")[..12].to_owned();
        Self {
            open,
            registry,
            layer,
        }
    }

    fn image() -> String {
        format!("{HOST}/team/app:1")
    }

    /// Gives the image another layer under this tag, and shuts the gate before it. Returns what the layer is called on the screen.
    fn push_another(&self, node: &Node, tag: &str) -> String {
        *self.open.0.lock().unwrap() = false;
        let config =
            json!({ "Entrypoint": ["/bin/berth-helper"], "Cmd": ["sleep", "inf"], "Env": ["PATH=/bin"] });
        let place = node.scratch().join(format!("another-{tag}"));
        let layout = Layout::make(&place, "any", config, &[("/etc/tag", tag)]);
        self.registry.push(&layout, "team/app", tag);
        layout.layer.trim_start_matches("sha256:")[..12].to_owned()
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

fn pass(client: TcpStream, gate: &(Mutex<bool>, Condvar)) {
    let server = TcpStream::connect(Registry::HOST).unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        // Whoever leaves first ends both ways.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let (mut server, mut client) = (server, client);
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        passed += count;
        if passed > FIRST {
            let open = gate.0.lock().unwrap();
            drop(gate.1.wait_while(open, |open| !*open).unwrap());
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}

fn manifest(name: &str) -> String {
    let main = json!({ "name": "main", "image": Gate::image(), "imagePullPolicy": "IfNotPresent",
        "args": ["echo", "here"] });
    pod(
        name,
        json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [main] }),
    )
}

/// The image's name and its layer are on the screen, with how far it has come, while the gate is shut; and the command goes
/// on when it is open.
fn draws(terminal: &Terminal, gate: &Gate) {
    terminal.shows(&gate.layer);
    terminal.shows("fetching");
    assert!(terminal.seen().contains(&Gate::image()));
    gate.open();
}

#[test]
fn a_pod_in_the_foreground() {
    let node = Node::new();
    let gate = Gate::shut(&node);
    let file = node.file("app.yaml", &format!("{}{}", manifest("one"), manifest("two")));
    let run = Terminal::start(&node.berth(["run", file.to_str().unwrap()]), 120, 40);
    draws(&run, &gate);
    let (code, seen) = run.wait();
    assert_eq!(code, Some(0), "{seen}");
    // Two pods that pull one image are one drawing, and the pods' own lines stay.
    assert!(seen.contains("one: pulling image"), "{seen}");
    assert!(seen.contains("two: successfully pulled image"), "{seen}");
    // The cursor went up again after the last drawing, and what was there was wiped.
    let last = seen.rfind(&gate.layer).unwrap();
    assert!(seen[last..].contains("\x1b[1A"), "the bars were left: {seen}");
    // In a pipe each pod says when it begins and when it has it, and nothing is drawn.
    berth(&node, &["image", "rm", &Gate::image()]).expect_code(0);
    let ended = Running::start(node.berth(["run", file.to_str().unwrap()]), "")
        .wait()
        .expect_code(0);
    let drawn = |line: &&str| line.contains(&gate.layer) || line.contains('\x1b') || line.contains('\r');
    assert_eq!(ended.output.lines().find(drawn), None);
    drop(gate.registry);
    node.finish();
}

#[test]
fn a_pod_that_is_handed_to_the_daemon() {
    let node = Node::new();
    let gate = Gate::shut(&node);
    let file = node.file("app.yaml", &manifest("app"));
    let run = Terminal::start(&node.berth(["run", "-d", file.to_str().unwrap()]), 120, 40);
    run.shows("pod/app created");
    draws(&run, &gate);
    let (code, seen) = run.wait();
    assert_eq!(code, Some(0), "{seen}");
    berth(&node, &["rm", "--force", "app"]).expect_code(0);
    drop(gate.registry);
    end_without_pods(node);
}

#[test]
fn a_container_that_is_added_to_look_into_a_pod() {
    let node = Node::new();
    let gate = Gate::shut(&node);
    detach(&node, &gated::gated("", json!({})));
    let image = Gate::image();
    let debug = [
        "debug",
        "gated",
        "--image",
        &image,
        "--attach",
        "--arguments-only",
        "--",
        "echo",
        "here",
    ];
    let debug = Terminal::start(&node.berth(debug), 120, 40);
    draws(&debug, &gate);
    let (code, seen) = debug.wait();
    assert_eq!(code, Some(0), "{seen}");
    drop(gate.registry);
    gated::end(node);
}

#[test]
fn a_container_that_is_started_anew() {
    let node = Node::new();
    let gate = Gate::shut(&node);
    gate.open();
    let of = |tag: &str| {
        let main =
            json!({ "name": "main", "image": format!("{HOST}/team/app:{tag}"), "imagePullPolicy": "Always" });
        let file = node.file(
            "app.yaml",
            &pod(
                "app",
                json!({ "terminationGracePeriodSeconds": 0, "containers": [main] }),
            ),
        );
        file.display().to_string()
    };
    berth(&node, &["run", "-d", &of("1")]).expect_code(0);
    berth(&node, &["wait", "app", "--for=condition=Ready"]).expect_code(0);
    let drawn = |terminal: Terminal, layer: &str| {
        terminal.shows(layer);
        terminal.shows("fetching");
        gate.open();
        let (code, seen) = terminal.wait();
        assert_eq!(code, Some(0), "{seen}");
        seen
    };
    let layer = gate.push_another(&node, "1");
    let seen = drawn(Terminal::start(&node.berth(["restart", "app"]), 120, 40), &layer);
    assert!(seen.contains("main"), "{seen}");
    // The command may end before the container has begun: the next one would take that for its own beginning.
    let count = "jsonpath={.status.containerStatuses[0].restartCount}";
    berth(&node, &["wait", "app", &format!("--for={count}=1")]).expect_code(0);
    // Another image is a change while the pod runs.
    let layer = gate.push_another(&node, "2");
    let seen = drawn(Terminal::start(&node.berth(["apply", &of("2")]), 120, 40), &layer);
    assert!(seen.contains("pod/app configured"), "{seen}");
    berth(&node, &["wait", "app", &format!("--for={count}=2")]).expect_code(0);
    berth(&node, &["rm", "--force", "app"]).expect_code(0);
    drop(gate.registry);
    end_without_pods(node);
}
