//! How pods of an ordinary user reach the world, and the machine's names: by pasta, or by slirp4netns, and a relay.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use berth_tests::{
    Ended, Node, OrdinaryUser, Running, Wire, as_user, container, eventually, once, pod, tell, tell_datagrams,
};
use nix::sys::signal::Signal;
use serde_json::json;

const CHOICE: &str = "BERTH_ROOTLESS_NETWORK";

fn server() -> String {
    let probe = json!({ "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 } });
    let web = container("web", &["httpd", "--port", "8080"], probe);
    pod("server", json!({ "containers": [web] }))
}

fn exec(user: &OrdinaryUser<'_>, command: &[&str]) -> Ended {
    let arguments = [&["exec", "server", "--"], command].concat();
    Running::start(user.berth(&arguments), "").wait()
}

fn get(user: &OrdinaryUser<'_>, address: &str, port: u16) -> Ended {
    exec(user, &["http-get", &format!("http://{address}:{port}/")])
}

/// Which of the programs connect the node.
fn ways_out(node: &Node) -> Vec<String> {
    let all = node.processes().into_iter();
    let names = all.filter_map(|process| {
        let program = process.command.split(' ').next()?.to_owned();
        Some(Path::new(&program).file_name()?.to_string_lossy().into_owned())
    });
    let mut found: Vec<String> = names
        .filter(|name| ["pasta", "slirp4netns"].contains(&name.as_str()))
        .collect();
    found.sort();
    found
}

/// What holds whichever program it is, whose command line begins so.
fn pods_are_connected(way: &str, program: &str) {
    Wire::with(|node, user| {
        let file = user.file("pod.yaml", &server());
        let command = user.berth_with(&[(CHOICE, way)], &["run", &file.display().to_string()]);
        let pod = Running::start(command, "");
        pod.line("web is ready");
        assert_eq!(ways_out(node), [way]);
        tell((Wire::MACHINE, 7001), "the machine's wire");
        let reaches_the_world = || {
            get(user, "192.168.77.5", 7001)
                .expect_code(0)
                .expect_output(&["the machine's wire"]);
        };
        reaches_the_world();
        // Neither the gateway nor the pod's own loopback is the machine's.
        tell((Ipv4Addr::LOCALHOST, 7002), "the machine's own");
        for address in ["10.0.2.2", "127.0.0.1", "10.0.2.100"] {
            let ended = get(user, address, 7002);
            assert_ne!(ended.code(), Some(0), "{address}: {}", ended.output);
            assert!(!ended.output.contains("the machine's own"), "{}", ended.output);
        }
        // Names are asked of the node, which asks the machine's name server, on the machine's loopback.
        exec(user, &["cat", "/etc/resolv.conf"])
            .expect_code(0)
            .expect_output(&["nameserver 10.0.2.100", "search of.the.machine"]);
        tell((Ipv4Addr::LOCALHOST, 53), "a long answer");
        tell_datagrams((Ipv4Addr::LOCALHOST, 53), "an answer");
        let names_are_answered = || {
            for (protocol, answer) in [("tcp", "a long answer"), ("udp", "an answer")] {
                exec(user, &["connect", protocol, "10.0.2.100:53", "asked"])
                    .expect_code(0)
                    .expect_output(&[answer]);
            }
        };
        names_are_answered();
        // One that dies is followed by another.
        for _ in 0..2 {
            let pid = node.signal(program, Signal::SIGKILL);
            eventually("the world is there again", || {
                (get(user, "192.168.77.5", 7001).code() == Some(0)).then_some(())
            });
            assert_ne!(
                node.process(&format!("/{way} ")).map(|process| process.pid),
                Some(pid)
            );
        }
        names_are_answered();
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn pasta_connects_pods_with_the_world() {
    pods_are_connected("pasta", "pasta --quiet ");
}

#[test]
fn slirp4netns_connects_pods_with_the_world() {
    pods_are_connected("slirp4netns", "slirp4netns --configure ");
}

/// What connects a node goes with its guard, however that ends; the next command finds that out.
fn ends_with_its_guard(way: &str) {
    Wire::with(|node, user| {
        let file = user.file("pod.yaml", &server());
        let command = user.berth_with(&[(CHOICE, way)], &["run", &file.display().to_string()]);
        let pod = Running::start(command, "");
        pod.line("web is ready");
        tell((Wire::MACHINE, 7001), "the machine's wire");
        node.signal(" rootless-network ", Signal::SIGKILL);
        eventually("neither the program nor the relay is there", || {
            (ways_out(node).is_empty() && node.process(" rootless-relay ").is_none()).then_some(())
        });
        get(user, "192.168.77.5", 7001).expect_code(0);
        // With its relay, which is then in nobody's way.
        let relay = node.signal(" rootless-relay ", Signal::SIGSTOP);
        node.signal(" rootless-network ", Signal::SIGKILL);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(relay), Signal::SIGKILL).unwrap();
        eventually("neither is there", || {
            node.process(" rootless-relay ")
                .or(node.process(" rootless-network "))
                .is_none()
                .then_some(())
        });
        get(user, "192.168.77.5", 7001).expect_code(0);
        assert_eq!(ways_out(node), [way]);
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn pasta_ends_with_its_killed_guard() {
    ends_with_its_guard("pasta");
}

#[test]
fn slirp4netns_ends_with_its_killed_guard() {
    ends_with_its_guard("slirp4netns");
}

#[test]
fn a_pasta_of_a_node_that_has_gone_is_ended() {
    Wire::with(|node, user| {
        let file = user.file("pod.yaml", &server());
        let file = file.display().to_string();
        let command = || user.berth_with(&[(CHOICE, "pasta")], &["run", &file]);
        let pod = Running::start(command(), "");
        pod.line("web is ready");
        for part in [" rootless-relay ", " rootless-network "] {
            node.signal(part, Signal::SIGSTOP);
        }
        for part in [" rootless-keeper ", " rootless-network ", " rootless-relay "] {
            node.signal(part, Signal::SIGKILL);
        }
        pod.wait().expect_code(137);
        let pod = Running::start(command(), "");
        pod.line("web is ready");
        assert_eq!(ways_out(node), ["pasta"]);
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn a_pasta_that_knows_its_version_comes_before_slirp4netns() {
    Wire::with(|node, user| {
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
        assert_eq!(ways_out(node), ["pasta"]);
        pod.interrupt();
        pod.wait().expect_code(0);
        user.ends();
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
        assert_eq!(ways_out(node), ["pasta"]);
        pod.interrupt();
        pod.wait().expect_code(0);
    });
}

#[test]
fn what_is_asked_for_and_not_there_is_said() {
    as_user(|node, user| {
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
        user.ends();
        // Who asks for nothing gets what can be used.
        let sleeper = user.file("sleeper.yaml", &once("sleeper", &["sleep", "inf"], json!({})));
        let pod = Running::start(user.berth(&["run", &sleeper.display().to_string()]), "");
        pod.line("main started");
        assert_eq!(ways_out(node), ["slirp4netns"]);
        pod.interrupt();
        pod.wait().expect_code(0);
    });
}
