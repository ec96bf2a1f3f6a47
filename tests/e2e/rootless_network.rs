//! How pods of an ordinary user reach the world, and the world them: by pasta, or by slirp4netns.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_tests::{Ended, Node, OrdinaryUser, Running, container, eventually, http_get, once, pod};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Of the machine, on the wire.
const MACHINE: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 5);
const CHOICE: &str = "BERTH_ROOTLESS_NETWORK";

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {arguments}");
}

/// A way into the world, and a name server on the machine's loopback.
struct Wire {
    resolv_conf: PathBuf,
}

impl Wire {
    fn new(node: &Node) -> Self {
        ip("link add wire type veth peer name far");
        ip("link set far up");
        ip(&format!("addr add {MACHINE}/24 dev wire"));
        ip("link set wire up");
        ip("route add default via 192.168.77.1");
        let own = node.file("resolv.conf", "nameserver 127.0.0.1\nsearch of.the.machine\n");
        let resolv_conf = fs::canonicalize("/etc/resolv.conf").unwrap();
        mount(
            Some(&own),
            &resolv_conf,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
        Self { resolv_conf }
    }

    fn remove(self) {
        umount2(&self.resolv_conf, MntFlags::MNT_DETACH).unwrap();
        ip("link del wire");
    }
}

fn on_wire(test: impl FnOnce(&Node, &OrdinaryUser<'_>)) {
    let node = Node::new();
    let user = OrdinaryUser::new(&node);
    let wire = Wire::new(&node);
    test(&node, &user);
    eventually("the user's node ends", || {
        node.processes().is_empty().then_some(())
    });
    assert_eq!(user.leftovers(), [""; 0]);
    wire.remove();
    user.remove();
    node.finish();
}

/// Answers each connection with a word. The threads last as long as the test's program.
fn tell(at: (Ipv4Addr, u16), word: &'static str) {
    let listener = TcpListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{word}");
            // To the end: what is left unread resets the connection, and the answer is lost.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
}

fn tell_datagrams(at: (Ipv4Addr, u16), word: &'static str) {
    let socket = UdpSocket::bind(at).unwrap();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
            let _ = socket.send_to(word.as_bytes(), from);
        }
    });
}

fn server() -> String {
    pod(
        "server",
        json!({
            "containers": [
                container("web", &["httpd", "--port", "8080"], json!({
                    "ports": [
                        { "containerPort": 8080, "hostPort": 18090, "hostIP": "127.0.0.1" },
                        { "containerPort": 8080, "hostPort": 18091 },
                    ],
                    "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
                })),
                container("echo", &["listen", "udp", "9000"], json!({
                    "ports": [{ "containerPort": 9000, "hostPort": 19000, "protocol": "UDP" }],
                })),
            ],
        }),
    )
}

fn get(user: &OrdinaryUser<'_>, address: &str, port: u16) -> Ended {
    let url = format!("http://{address}:{port}/");
    let arguments = ["exec", "server", "-c", "web", "--", "http-get", &url];
    Running::start(user.berth(&arguments), "").wait()
}

#[track_caller]
fn connect(user: &OrdinaryUser<'_>, protocol: &str, to: &str) -> Ended {
    let arguments = [
        "exec", "server", "-c", "web", "--", "connect", protocol, to, "asked",
    ];
    Running::start(user.berth(&arguments), "").wait()
}

fn way_out(node: &Node, program: &str) -> Option<Pid> {
    let all = node.processes();
    let found = all
        .iter()
        .find(|process| Path::new(process.command.split(' ').next().unwrap_or_default()).ends_with(program));
    found.map(|process| Pid::from_raw(process.pid))
}

/// What holds whichever program it is.
fn ports_and_the_world(user: &OrdinaryUser<'_>) {
    for (address, port) in [(LOOPBACK, 18090), (LOOPBACK, 18091), (MACHINE.into(), 18091)] {
        assert_eq!(http_get((address, port), "/").status, 404, "{address}:{port}");
    }
    // slirp4netns answers no datagram that comes from the machine's loopback, as it may not reach it.
    let client = UdpSocket::bind((MACHINE, 0)).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    eventually("a datagram comes back", || {
        client.send_to(b"hello", (MACHINE, 19000)).unwrap();
        let mut buffer = [0; 16];
        let (count, _) = client.recv_from(&mut buffer).ok()?;
        (&buffer[..count] == b"hello").then_some(())
    });
    tell((MACHINE, 7001), "the machine's wire");
    get(user, "192.168.77.5", 7001)
        .expect_code(0)
        .expect_output(&["the machine's wire"]);
}

/// Neither the gateway nor the pod's own loopback is the machine's.
fn loopback_stays_the_machine_s(user: &OrdinaryUser<'_>) {
    tell((Ipv4Addr::LOCALHOST, 7002), "the machine's own");
    for address in ["10.0.2.2", "127.0.0.1", "10.0.2.100"] {
        let ended = get(user, address, 7002);
        assert_ne!(ended.code(), Some(0), "{address}: {}", ended.output);
        assert!(!ended.output.contains("the machine's own"), "{}", ended.output);
    }
}

#[test]
fn pasta_connects_pods_with_the_world() {
    on_wire(|node, user| {
        let file = user.file("pod.yaml", &server());
        let command = user.berth_with(&[(CHOICE, "pasta")], &["run", &file.display().to_string()]);
        let pod = Running::start(command, "");
        pod.line("web is ready");
        let pasta = way_out(node, "pasta").expect("pasta");
        assert_eq!(way_out(node, "slirp4netns"), None);
        ports_and_the_world(user);
        loopback_stays_the_machine_s(user);
        // Names are asked of the node, which asks the machine's name server, on the machine's loopback.
        Running::start(
            user.berth(&["exec", "server", "-c", "web", "--", "cat", "/etc/resolv.conf"]),
            "",
        )
        .wait()
        .expect_code(0)
        .expect_output(&["nameserver 10.0.2.100", "search of.the.machine"]);
        tell((Ipv4Addr::LOCALHOST, 53), "a long answer");
        tell_datagrams((Ipv4Addr::LOCALHOST, 53), "an answer");
        connect(user, "tcp", "10.0.2.100:53")
            .expect_code(0)
            .expect_output(&["a long answer"]);
        connect(user, "udp", "10.0.2.100:53")
            .expect_code(0)
            .expect_output(&["an answer"]);
        // One that dies is followed by another.
        kill(pasta, Signal::SIGKILL).unwrap();
        eventually("another pasta", || {
            way_out(node, "pasta").filter(|pid| *pid != pasta)
        });
        eventually("the world is there again", || {
            (get(user, "192.168.77.5", 7001).code() == Some(0)).then_some(())
        });
        assert_eq!(http_get((LOOPBACK, 18090), "/").status, 404);
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn pasta_ends_with_its_killed_guard() {
    on_wire(|node, user| {
        let main = container("main", &["sleep", "inf"], json!({}));
        let file = user.file("pod.yaml", &pod("brief", json!({ "containers": [main] })));
        let command = user.berth_with(&[(CHOICE, "pasta")], &["run", &file.display().to_string()]);
        let pod = Running::start(command, "");
        pod.line("pod is ready");
        assert!(way_out(node, "pasta").is_some());
        let all = node.processes();
        let guard = all
            .iter()
            .find(|process| process.command.contains(" rootless-network "))
            .expect("a guard");
        kill(Pid::from_raw(guard.pid), Signal::SIGKILL).unwrap();
        eventually("neither pasta nor its relay is there", || {
            let relay = |process: &berth_tests::Process| process.command.contains(" rootless-relay ");
            (way_out(node, "pasta").is_none() && !node.processes().iter().any(relay)).then_some(())
        });
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn with_pasta_a_port_of_a_pod_is_free_for_the_next_one() {
    on_wire(|_, user| {
        let file = user.file("pod.yaml", &server());
        let berth = |arguments: &[&str]| Running::start(user.berth(arguments), "").wait();
        let keeps = user.file(
            "keeps.yaml",
            &pod(
                "keeps",
                json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
            ),
        );
        let command = user.berth_with(&[(CHOICE, "pasta")], &["run", "-d", &keeps.display().to_string()]);
        Running::start(command, "").wait().expect_code(0);
        for _ in 0..2 {
            berth(&["run", "-d", &file.display().to_string()]).expect_code(0);
            berth(&["wait", "server", "--for=condition=Ready"]).expect_code(0);
            assert_eq!(http_get((LOOPBACK, 18090), "/").status, 404);
            berth(&["rm", "--force", "server"]).expect_code(0);
            drop(TcpListener::bind((LOOPBACK, 18090)).expect("the port is nobody's"));
        }
        let _taken = TcpListener::bind((LOOPBACK, 18090)).unwrap();
        berth(&["run", "-d", &file.display().to_string()]).expect_code(0);
        eventually("the events tell why it does not start", || {
            let events = berth(&["events", "server"]).output;
            (events.contains("Port 18090 of the machine can't be had") && events.contains("in use"))
                .then_some(())
        });
        berth(&["rm", "--force", "server", "keeps"]).expect_code(0);
    });
}

#[test]
fn slirp4netns_is_taken_where_it_is_asked_for() {
    on_wire(|node, user| {
        let file = user.file("pod.yaml", &server());
        let command = user.berth_with(&[(CHOICE, "slirp4netns")], &["run", &file.display().to_string()]);
        let pod = Running::start(command, "");
        pod.line("web is ready");
        assert!(way_out(node, "slirp4netns").is_some());
        assert_eq!(way_out(node, "pasta"), None);
        ports_and_the_world(user);
        loopback_stays_the_machine_s(user);
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn a_pasta_that_knows_its_version_comes_before_slirp4netns() {
    on_wire(|node, user| {
        let programs = user.home().join("programs");
        fs::create_dir(&programs).unwrap();
        let own = programs.join("pasta");
        let script = "#!/bin/sh\n[ \"$1\" != --version ] || { echo pasta 2025_01_01.abcdef; exit; }\nexec /usr/bin/pasta \"$@\"\n";
        fs::write(&own, script).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let file = user.file("pod.yaml", &server());
        let file = file.display().to_string();
        let pod = Running::start(user.berth_in(&path, &["run", &file]), "");
        pod.line("web is ready");
        assert!(way_out(node, "pasta").is_some() && way_out(node, "slirp4netns").is_none());
        pod.interrupt();
        pod.wait().expect_code(0);
        eventually("the user's node ends", || {
            node.processes().is_empty().then_some(())
        });
        // Where there is no other, any pasta is good enough.
        for name in ["newuidmap", "newgidmap", "env", "setpriv", "nft"] {
            let found = ["/usr/bin", "/usr/sbin"].map(|directory| Path::new(directory).join(name));
            let found = found.iter().find(|path| path.exists());
            symlink(found.unwrap(), programs.join(name)).unwrap();
        }
        fs::remove_file(&own).unwrap();
        symlink("/usr/bin/pasta", &own).unwrap();
        let pod = Running::start(
            user.berth_in(&programs.display().to_string(), &["run", &file]),
            "",
        );
        pod.line("web is ready");
        assert!(way_out(node, "pasta").is_some());
        pod.interrupt();
        pod.wait().expect_code(0);
    });
}

#[test]
fn what_is_asked_for_and_not_there_is_said() {
    let node = Node::new();
    let user = OrdinaryUser::new(&node);
    let file = user.file("pod.yaml", &once("brief", &["true"], json!({})));
    let file = file.display().to_string();
    let run = |choice| Running::start(user.berth_with(&[(CHOICE, choice)], &["run", &file]), "").wait();
    // This node has no way into the world, and pasta takes one.
    run("pasta").expect_code(1).expect_output(&[
        "BERTH_ROOTLESS_NETWORK asks for pasta, but pasta can't be used: No external routable interface",
    ]);
    run("passt")
        .expect_code(1)
        .expect_output(&["BERTH_ROOTLESS_NETWORK is passt, which berth does not know"]);
    run("none")
        .expect_code(0)
        .expect_output(&["warning: your pods reach each other and nothing else"]);
    eventually("the user's node ends", || {
        node.processes().is_empty().then_some(())
    });
    // Who asks for nothing gets what can be used.
    let sleeper = user.file("sleeper.yaml", &once("sleeper", &["sleep", "inf"], json!({})));
    let pod = Running::start(user.berth(&["run", &sleeper.display().to_string()]), "");
    pod.line("main started");
    assert!(way_out(&node, "slirp4netns").is_some());
    pod.interrupt();
    pod.wait().expect_code(0);
    eventually("the user's node ends", || {
        node.processes().is_empty().then_some(())
    });
    assert_eq!(user.leftovers(), [""; 0]);
    user.remove();
    node.finish();
}
