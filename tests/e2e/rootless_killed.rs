//! `kill -9` of whatever an ordinary user's node is made of, at any moment. `BERTH_CRASH_ROUNDS` sets how many moments are
//! tried (8), `BERTH_CRASH_SEED` repeats a run.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use berth_tests::{
    Moments, Node, Running, Wire, berth, container, crash_rounds, eventually, pod, try_http_get,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 18095;
/// The longest life of what will be killed.
const LONGEST: Duration = Duration::from_millis(1500);
/// What a node is made of: words of command lines.
const PARTS: [&str; 9] = [
    " run -d ",
    " daemon",
    " rootless-keeper ",
    " --first ",
    " rootless-network ",
    " rootless-relay ",
    "pasta --quiet ",
    "slirp4netns --configure ",
    "berth-oci shim",
];

/// Kills one or two of the node's parts that are there, and returns which.
fn kill_some(node: &Node, moments: &mut Moments) -> Vec<&'static str> {
    let there: Vec<&str> = PARTS
        .into_iter()
        .filter(|part| node.process(part).is_some())
        .collect();
    let mut killed = Vec::new();
    for _ in 0..=moments.choose(2) {
        let Some(part) = there.get(moments.choose(there.len().max(1) as u64) as usize) else {
            continue;
        };
        if let Some(process) = node.process(part) {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            killed.push(*part);
        }
    }
    killed
}

#[test]
fn whatever_is_killed_the_next_command_has_a_node_and_nothing_is_left() {
    Wire::with(|node, user| {
        let server = container(
            "web",
            &["httpd", "--port", "8080"],
            json!({
                "ports": [{ "containerPort": 8080, "hostPort": PORT, "hostIP": "127.0.0.1" }],
                "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
            }),
        );
        let manifest = pod(
            "server",
            json!({ "terminationGracePeriodSeconds": 1, "containers": [server] }),
        );
        let file = user.file("pod.yaml", &manifest).display().to_string();
        let mut moments = Moments::new();
        for round in 0..crash_rounds(8) {
            let way = ["pasta", "slirp4netns"][moments.choose(2) as usize];
            let command = user.berth_with(&[("BERTH_ROOTLESS_NETWORK", way)], &["run", "-d", &file]);
            let run = Running::start(command, "");
            // The point of the test: an arbitrary instant, not a condition.
            std::thread::sleep(moments.next(LONGEST));
            let killed = kill_some(node, &mut moments);
            println!("round {round}: killed {killed:?}, with {way}");
            let _ = run.wait().expect_no_panic();
            // What was killed may be in the way of nobody, and the pod serves again.
            berth(user, &["run", "-d", &file]).expect_code(0);
            berth(
                user,
                &["wait", "server", "--for=condition=Ready", "--timeout=60s"],
            )
            .expect_code(0);
            eventually("the port leads to the pod", || {
                try_http_get((LOOPBACK, PORT).into(), "/").is_ok().then_some(())
            });
            if moments.choose(2) == 0 {
                berth(user, &["rm", "--force", "server"]).expect_code(0);
                drop(TcpListener::bind((LOOPBACK, PORT)).expect("the port is nobody's"));
                user.ends();
                assert_eq!(user.leftovers(), [""; 0], "round {round}");
            }
        }
        let _ = berth(user, &["rm", "--force", "server"]);
    });
}
