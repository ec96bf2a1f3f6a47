//! What commands print and say, in the forms that callers of other runtimes read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Bundle, eventually, failed, leftovers, lives, succeeded};

const COMMANDS: [&str; 15] = [
    "create", "delete", "events", "exec", "features", "kill", "list", "pause", "ps", "resume", "run", "spec",
    "start", "state", "update",
];

fn oci(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_berth-oci"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn help_is_there_for_every_command() {
    let all = succeeded(&oci(&["--help"]));
    assert_eq!(succeeded(&oci(&[])), all);
    assert_eq!(succeeded(&oci(&["help"])), all);
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command}")), "{command}: {all}");
        let one = succeeded(&oci(&["help", command]));
        assert!(
            one.trim_start().starts_with(command) && all.contains(&one),
            "{one}"
        );
        assert_eq!(succeeded(&oci(&[command, "--help"])), one);
    }
    assert!(succeeded(&oci(&["--version"])).starts_with("berth-oci version "));
    assert!(succeeded(&oci(&["-v"])).contains("\nspec: 1."));
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    for (code, arguments, expected) in [
        (3, &["frobnicate"][..], "frobnicate"),
        (1, &["--frob", "list"], "--frob"),
        (1, &["--root", "/", "list"], "--root"),
        (1, &["--root", "", "list"], "--root"),
        (1, &["--root", "/run/../..", "list"], "--root"),
        (1, &["--log-format", "yaml", "list"], "yaml"),
        (1, &["--rootless", "maybe", "list"], "maybe"),
        (1, &["create"], "missing"),
        (1, &["create", "a", "b"], "too many"),
        (1, &["create", "--frob", "a"], "--frob"),
        (1, &["run", "--preserve-fds", "many", "a"], "many"),
        (1, &["run", "--detach=perhaps", "a"], "perhaps"),
        (1, &["list", "a"], "too many"),
        (1, &["list", "-f", "xml"], "xml"),
        (1, &["kill", "a", "9", "9"], "too many"),
        (1, &["features", "a"], "too many"),
        (1, &["state"], "missing"),
        (1, &["state", ""], "container's id"),
        (1, &["state", "../x"], "container's id"),
        (1, &["state", "nosuch"], "does not exist"),
        (1, &["start", "nosuch"], "does not exist"),
        (1, &["kill", "nosuch"], "does not exist"),
        (1, &["delete", "nosuch"], "does not exist"),
        (1, &["update", "nosuch"], "does not exist"),
        (1, &["pause", "nosuch"], "does not exist"),
        (1, &["events", "nosuch"], "does not exist"),
        (1, &["events", "--interval", "0s", "nosuch"], "--interval"),
        (255, &["exec", "nosuch", "true"], "does not exist"),
    ] {
        let output = oci(arguments);
        let said = failed(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(
            said.contains(expected) && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn every_failure_is_one_json_line_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    for arguments in [
        &["state", "nosuch"][..],
        &["exec", "nosuch", "true"],
        &["create", "--bundle", "/nosuch", "x"],
        &["run", "--frob", "x"],
        &["frobnicate"],
        &["--rootless=maybe", "list"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_berth-oci"))
            .args(["--log", log.to_str().unwrap(), "--log-format", "json"])
            .args(arguments)
            .output()
            .unwrap();
        let said = failed(&output);
        let text = fs::read_to_string(&log).unwrap();
        let line: Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["level"], "error", "{arguments:?}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
        assert!(said.contains(line["msg"].as_str().unwrap()), "{said}: {line}");
        assert_eq!(line.as_object().unwrap().len(), 3);
        fs::remove_file(&log).unwrap();
    }
    // Without a file, the same goes to standard error.
    let said = failed(&oci(&["--log-format", "json", "state", "nosuch"]));
    let line: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(line["level"], "error");
    let said = failed(&oci(&["--log", log.to_str().unwrap(), "state", "nosuch"]));
    assert!(said.contains("does not exist"));
    assert!(
        fs::read_to_string(&log)
            .unwrap()
            .contains(" level=error msg=\"The container")
    );
    let debug = oci(&["--debug", "--log-format=json", "state", "nosuch"]);
    assert!(String::from_utf8_lossy(&debug.stderr).starts_with("{\"level\":\"debug\""));
}

#[test]
fn output_that_can_not_be_written_is_an_error() {
    let status = Command::new(env!("CARGO_BIN_EXE_berth-oci"))
        .arg("features")
        .stdout(fs::File::create("/dev/full").unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn containers_are_listed_as_a_table_and_as_json() {
    let mut bundle = Bundle::new("list", &["/bin/sleep", "1000"]);
    bundle.config["annotations"] = json!({ "a": "b" });
    // Another place than the usual one has to be there, as in runc.
    assert!(failed(&bundle.oci(&["list"])).contains("does not exist"));
    fs::create_dir(bundle.path().join("state")).unwrap();
    assert_eq!(
        succeeded(&bundle.oci(&["list"])),
        "ID          PID         STATUS      BUNDLE      CREATED     OWNER"
    );
    assert_eq!(succeeded(&bundle.oci(&["list", "-f", "json"])), "[]");
    assert_eq!(succeeded(&bundle.oci(&["list", "-q"])), "");
    bundle.create();
    let state = bundle.state();
    assert_eq!(
        state
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>(),
        [
            "annotations",
            "bundle",
            "created",
            "id",
            "ociVersion",
            "owner",
            "pid",
            "rootfs",
            "status"
        ]
    );
    assert_eq!(
        (&state["owner"], &state["annotations"]["a"]),
        (&json!(""), &json!("b"))
    );
    assert_eq!(state["rootfs"], json!(bundle.root()));
    let listed: Value = serde_json::from_str(&succeeded(&bundle.oci(&["list", "--format=json"]))).unwrap();
    assert_eq!(listed[0]["owner"], "root");
    assert_eq!(listed[0]["id"], bundle.id());
    let table = succeeded(&bundle.oci(&["list"]));
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let pid = state["pid"].to_string();
    assert_eq!(row[..3], [bundle.id(), &pid, "created"]);
    assert_eq!(
        row[3..],
        [
            bundle.path().to_str().unwrap(),
            state["created"].as_str().unwrap(),
            "root"
        ]
    );
    // Whatever else is in the directory is no container.
    fs::create_dir(bundle.path().join("state/no container")).unwrap();
    fs::create_dir(bundle.path().join("state/empty")).unwrap();
    fs::write(bundle.path().join("state/file"), "").unwrap();
    let output = bundle.oci(&["list", "-q"]);
    assert_eq!(succeeded(&output), bundle.id());
    assert!(output.stderr.is_empty());
}

#[test]
fn processes_are_listed_by_ps() {
    let bundle = Bundle::script("ps", "sleep 1000 & sleep 1000; true");
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    eventually("three processes", || {
        let pids: Value =
            serde_json::from_str(&succeeded(&bundle.oci(&["ps", "--format", "json", bundle.id()]))).unwrap();
        pids.as_array().unwrap().len() == 3
    });
    let table = succeeded(&bundle.oci(&["ps", bundle.id()]));
    assert!(table.starts_with("UID ") && table.lines().count() == 4, "{table}");
    let table = succeeded(&bundle.oci(&["ps", bundle.id(), "-o", "pid,args"]));
    assert!(table.lines().any(|l| l.trim_start().starts_with(&pid)), "{table}");
    assert_eq!(table.lines().count(), 4);
    assert!(failed(&bundle.oci(&["ps", bundle.id(), "-o", "comm"])).contains("PID"));
    assert!(failed(&bundle.oci(&["ps", bundle.id(), "--nosuch"])).contains("--nosuch"));
}

#[test]
fn signals_by_any_name_reach_the_process() {
    // Busybox knows no names of real-time signals; 37 is SIGRTMIN+3, with which systemd is told to halt.
    for (signal, trap) in [
        ("SIGUSR1", "USR1"),
        ("usr2", "USR2"),
        ("1", "HUP"),
        ("RTMIN+3", "37"),
        ("37", "37"),
    ] {
        let script = format!("trap 'exit 42' {trap}; echo ready; while true; do sleep 0.01; done");
        let bundle = Bundle::script("kill", &script);
        let mut run = bundle
            .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        succeeded(&bundle.oci(&["kill", bundle.id(), "0"]));
        assert!(failed(&bundle.oci(&["kill", bundle.id(), "NOSUCH"])).contains("NOSUCH"));
        succeeded(&bundle.oci(&["kill", bundle.id(), signal]));
        assert_eq!(run.wait().unwrap().code(), Some(42), "{signal}");
    }
}

#[test]
fn without_a_pid_namespace_all_processes_are_killed() {
    let mut bundle = Bundle::script("shared", "sleep 1000 & sleep 1000 & sleep 1000; true");
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "pid");
    bundle.start();
    let processes = || -> Vec<i64> {
        serde_json::from_str(&succeeded(&bundle.oci(&["ps", "-f", "json", bundle.id()]))).unwrap()
    };
    eventually("four processes", || processes().len() == 4);
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    eventually("the end of all", || processes().is_empty());
    assert!(failed(&bundle.oci(&["kill", bundle.id(), "KILL"])).contains("container not running"));
}

#[test]
fn a_paused_container_can_be_killed() {
    let bundle = Bundle::new("frozen", &["/bin/sleep", "1000"]);
    bundle.start();
    assert!(failed(&bundle.oci(&["resume", bundle.id()])).contains("not paused"));
    succeeded(&bundle.oci(&["pause", bundle.id()]));
    assert!(failed(&bundle.oci(&["pause", bundle.id()])).contains("already"));
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    eventually("the end", || bundle.status() == "stopped");
    for verb in ["kill", "pause", "resume", "update", "events", "start"] {
        assert!(
            failed(&bundle.oci(&[verb, bundle.id()])).contains("stopped"),
            "{verb}"
        );
    }
    assert!(failed(&bundle.oci(&["kill", bundle.id()])).contains("container not running"));
    // All of nobody is no error.
    succeeded(&bundle.oci(&["kill", "--all", bundle.id(), "KILL"]));
    assert_eq!(bundle.state()["pid"], 0);
}

#[test]
fn sockets_of_the_service_manager_come_before_preserved_descriptors() {
    let bundle = Bundle::script(
        "listen",
        "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd | wc -l",
    );
    let (first, second) = (bundle.path().join("first"), bundle.path().join("second"));
    fs::write(&first, "first ").unwrap();
    fs::write(&second, "second ").unwrap();
    let run = |command: &str| {
        fs::write(bundle.path().join("config.json"), bundle.config.to_string()).unwrap();
        let program = env!("CARGO_BIN_EXE_berth-oci");
        let (first, second, directory) = (first.display(), second.display(), bundle.path().display());
        let script = format!(
            "exec 3<{first} 4<{second}; export LISTEN_PID=$$ LISTEN_FDS=1; \
             exec {program} --root {directory}/state run {command} --bundle {directory} {}",
            bundle.id(),
        );
        Command::new("/bin/sh").args(["-c", &script]).output().unwrap()
    };
    assert_eq!(succeeded(&run("--preserve-fds 1")), "first second 1 1\n6");
    assert!(failed(&run("--preserve-fds 5")).contains("not open"));
    assert!(!bundle.state_directory().exists());
}

/// Connects nothing: the socket of a service manager that a test plays.
fn manager(bundle: &Bundle) -> (std::path::PathBuf, std::os::unix::net::UnixDatagram) {
    let path = bundle.path().join("manager.sock");
    let _ = fs::remove_file(&path);
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    (path, socket)
}

fn receive(socket: &std::os::unix::net::UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn the_word_that_a_program_is_ready_is_passed_on() {
    let bundle = Bundle::script("notify", "echo $NOTIFY_SOCKET; ls /run/notify; sleep 1000");
    let (path, socket) = manager(&bundle);
    let say_ready = || {
        let inside = bundle.state_directory().join("notify/notify.sock");
        let program = std::os::unix::net::UnixDatagram::unbound().unwrap();
        eventually("the socket", || program.send_to(b"STATUS=soon", &inside).is_ok());
        program.send_to(b"X=1\nREADY=1\nSTATUS=here", &inside).unwrap();
    };
    for verb in ["run", "start"] {
        let directory = bundle.path().to_str().unwrap().to_owned();
        if verb == "start" {
            let mut create = bundle.command(&["create", "--bundle", &directory, bundle.id()]);
            assert!(
                create
                    .env("NOTIFY_SOCKET", &path)
                    .stdout(Stdio::null())
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let mut command = match verb {
            "run" => bundle.command(&["run", "-d", "--bundle", &directory, bundle.id()]),
            _ => bundle.command(&["start", bundle.id()]),
        };
        let mut child = command
            .env("NOTIFY_SOCKET", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the start", || {
            bundle.state_directory().join("process").is_symlink()
        });
        say_ready();
        assert_eq!(receive(&socket), "READY=1\n", "{verb}");
        assert_eq!(
            receive(&socket),
            format!("MAINPID={}\n", bundle.state()["pid"]),
            "{verb}"
        );
        assert_eq!(receive(&socket), "BARRIER=1", "{verb}");
        assert!(child.wait().unwrap().success());
        succeeded(&bundle.oci(&["delete", "-f", bundle.id()]));
    }
}

#[test]
fn in_the_foreground_the_runtime_is_the_process_to_watch() {
    let bundle = Bundle::script("notified", "echo $NOTIFY_SOCKET; exec sleep 1000");
    let (path, socket) = manager(&bundle);
    let mut child = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "/run/notify/notify.sock\n");
    let program = std::os::unix::net::UnixDatagram::unbound().unwrap();
    program
        .send_to(b"READY=1", bundle.state_directory().join("notify/notify.sock"))
        .unwrap();
    assert_eq!(receive(&socket), "READY=1\n");
    assert_eq!(receive(&socket), format!("MAINPID={}\n", child.id()));
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    assert_eq!(child.wait().unwrap().code(), Some(137));
    assert!(!bundle.state_directory().exists());
}

#[test]
fn a_process_is_handed_over_as_a_descriptor() {
    let bundle = Bundle::new("pidfd", &["/bin/sleep", "1000"]);
    let path = bundle.path().join("pidfd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let directory = bundle.path().to_str().unwrap().to_owned();
    let socket = ["--pidfd-socket", path.to_str().unwrap()];
    let receive = || {
        use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
        use std::os::fd::AsRawFd;
        let (connection, _) = listener.accept().unwrap();
        let mut buffer = [0; 16];
        let mut parts = [std::io::IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!([i32; 1]);
        let message = recvmsg::<()>(
            connection.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )
        .unwrap();
        let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
            panic!("no descriptor came");
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0])).unwrap();
        nix::unistd::close(fds[0]).unwrap();
        info.lines()
            .find_map(|l| l.strip_prefix("Pid:"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let mut run = bundle
        .command(
            &[
                &["run", "-d", "--bundle", &directory][..],
                &socket,
                &[bundle.id()],
            ]
            .concat(),
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(receive(), {
        assert!(run.wait().unwrap().success());
        bundle.state()["pid"].to_string()
    });
    let pid_file = bundle.path().join("pid");
    let options = ["-d", "--pid-file", pid_file.to_str().unwrap()];
    let mut exec = bundle
        .command(
            &[
                &["exec"][..],
                &options,
                &socket,
                &[bundle.id(), "/bin/sleep", "1000"],
            ]
            .concat(),
        )
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = receive();
    assert!(exec.wait().unwrap().success());
    assert_eq!(fs::read_to_string(pid_file).unwrap(), pid);
}

#[test]
fn who_can_not_be_told_of_a_container_gets_none() {
    let bundle = Bundle::new("untold", &["/bin/sleep", "1000"]);
    let directory = bundle.path().to_str().unwrap().to_owned();
    for (verb, option) in [
        ("create", "--pid-file"),
        ("run", "--pid-file"),
        ("create", "--pidfd-socket"),
    ] {
        let arguments = [verb, "--bundle", &directory, option, "/nosuch/file", bundle.id()];
        let mut child = bundle
            .command(&arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{arguments:?}");
        assert!(!bundle.state_directory().exists(), "{arguments:?}");
        assert_eq!(
            leftovers(&bundle.cgroup()),
            Vec::<std::path::PathBuf>::new(),
            "{arguments:?}"
        );
    }
    bundle.start();
    let arguments = [
        "exec",
        "-d",
        "--pid-file",
        "/nosuch/file",
        bundle.id(),
        "/bin/sleep",
        "1000",
    ];
    let output = bundle.command(&arguments).stdout(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(255));
    let pids: Value =
        serde_json::from_str(&succeeded(&bundle.oci(&["ps", "-f", "json", bundle.id()]))).unwrap();
    assert_eq!(pids, json!([bundle.state()["pid"]]));
}

#[test]
fn the_usage_of_a_container_is_reported() {
    let bundle = Bundle::new("events", &["/bin/sleep", "1000"]);
    bundle.start();
    let once: Value =
        serde_json::from_str(&succeeded(&bundle.oci(&["events", "--stats", bundle.id()]))).unwrap();
    assert_eq!(
        (&once["type"], &once["id"]),
        (&json!("stats"), &json!(bundle.id()))
    );
    assert_eq!(once["data"]["pids"]["current"], 1);
    assert!(once["data"]["memory"]["usage"]["limit"].is_u64());
    let mut events = bundle
        .command(&["events", "--interval", "20ms", bundle.id()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    assert!(lines.all(|line| line.unwrap().contains("\"stats\"")));
    assert!(events.wait().unwrap().success());
}

#[test]
fn a_memory_limit_that_nothing_starts_with_is_named() {
    let mut bundle = Bundle::new("tiny", &["/bin/true"]);
    for limit in [1, 4096] {
        bundle.config["linux"]["resources"]["memory"] = json!({ "limit": limit });
        let said = failed(&bundle.run());
        let expected =
            format!("OOM-killed before it was set up: its memory limit of {limit} bytes is too low");
        assert!(said.contains(&expected), "{said}");
        assert!(!bundle.state_directory().exists());
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
    }
}

#[test]
fn running_out_of_memory_is_reported() {
    let mut bundle = Bundle::script(
        "oom",
        "while ! [ -e /go/go ]; do sleep 0.01; done; dd if=/dev/zero of=/dev/null bs=64M count=1; sleep 1000",
    );
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 16 << 20, "swap": 16 << 20 });
    let directory = bundle.path().join("go");
    fs::create_dir(&directory).unwrap();
    bundle.mount("/go", "bind", directory.to_str().unwrap(), &["bind", "ro"]);
    bundle.start();
    let mut events = bundle
        .command(&["events", "--interval", "50ms", bundle.id()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    // The watch is there before the first report.
    lines.next().unwrap().unwrap();
    fs::write(directory.join("go"), "").unwrap();
    let oom = lines
        .map(Result::unwrap)
        .find(|line| line.contains("\"oom\""))
        .unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&oom).unwrap(),
        json!({ "type": "oom", "id": bundle.id() })
    );
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    assert!(events.wait().is_ok());
}

#[test]
fn exec_enters_a_cgroup_below() {
    let bundle = Bundle::new("below", &["/bin/sleep", "1000"]);
    bundle.start();
    let pids = leftovers(&bundle.cgroup())
        .into_iter()
        .find(|p| p.starts_with("/sys/fs/cgroup/pids"));
    let below = pids
        .unwrap_or_else(|| leftovers(&bundle.cgroup()).remove(0))
        .join("below");
    fs::create_dir(&below).unwrap();
    let exec = |cgroup: &str| {
        bundle.oci(&[
            "exec",
            "--cgroup",
            cgroup,
            bundle.id(),
            "/bin/cat",
            "/proc/self/cgroup",
        ])
    };
    assert!(succeeded(&exec("below")).contains(":/below"));
    if below.starts_with("/sys/fs/cgroup/pids") {
        assert!(succeeded(&exec("pids:/below/")).contains("pids:/below"));
        assert!(failed(&exec("memory:below")).contains("no such group"));
    }
    assert!(!succeeded(&exec("/")).contains("below"));
    for wrong in ["nosuch", "..", "below/../..", "nosuch:below"] {
        assert_eq!(exec(wrong).status.code(), Some(255), "{wrong}");
    }
}

#[test]
fn exec_follows_a_service_manager_into_its_group() {
    let bundle = Bundle::new("manager", &["/bin/sleep", "1000"]);
    bundle.start();
    let mut groups = leftovers(&bundle.cgroup()).into_iter();
    let group = groups
        .find(|group| group.join("cgroup.subtree_control").exists())
        .unwrap();
    let controllers = fs::read_to_string(group.join("cgroup.controllers")).unwrap();
    let Some(controller) = controllers.split_whitespace().next() else {
        eprintln!("skipped: the unified hierarchy has no controller to distribute");
        return;
    };
    fs::create_dir(group.join("init")).unwrap();
    fs::write(group.join("init/cgroup.procs"), bundle.state()["pid"].to_string()).unwrap();
    fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    let groups = succeeded(&bundle.oci(&["exec", bundle.id(), "/bin/cat", "/proc/self/cgroup"]));
    assert!(groups.lines().any(|line| line == "0::/init"), "{groups}");
    assert_eq!(
        bundle
            .oci(&["exec", "--cgroup", "/", bundle.id(), "/bin/true"])
            .status
            .code(),
        Some(255)
    );
}

#[test]
fn exec_adds_to_what_the_container_is() {
    let mut bundle = Bundle::new("additions", &["/bin/sleep", "1000"]);
    bundle.config["process"]["user"]["additionalGids"] = json!([100]);
    bundle.start();
    let exec = |options: &[&str], script: &str| {
        bundle.oci(&[&["exec"], options, &[bundle.id(), "/bin/sh", "-c", script]].concat())
    };
    assert_eq!(succeeded(&exec(&["-g", "7", "-g", "8"], "id -G")), "0 7 8 100");
    let no_new_privileges = "grep NoNewPrivs /proc/self/status | cut -f2";
    assert_eq!(succeeded(&exec(&[], no_new_privileges)), "1");
    assert_eq!(
        succeeded(&exec(&["--no-new-privs=false"], no_new_privileges)),
        "0"
    );
    assert_eq!(
        succeeded(&bundle.oci(&["exec", bundle.id(), "--", "/bin/echo", "--"])),
        "--"
    );
    assert!(failed(&exec(&["--process-label", "a:b:c"], "true")).contains("selinux"));
    assert!(
        failed(&exec(&["--apparmor", "nosuch"], "true"))
            .to_lowercase()
            .contains("apparmor")
    );
    succeeded(&bundle.oci(&["pause", bundle.id()]));
    assert!(failed(&exec(&[], "true")).contains("--ignore-paused"));
    succeeded(&bundle.oci(&["resume", bundle.id()]));
    succeeded(&exec(&["--ignore-paused"], "true"));
}

#[test]
fn orphans_are_adopted_unless_they_are_not_wanted() {
    for (option, adopted) in [("--keep=false", true), ("--no-subreaper", false)] {
        let mut bundle = Bundle::script("orphans", "(sleep 1000 & echo $!); sleep 1000");
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|n| n["type"] != "pid");
        let mut run = bundle
            .command(&[
                "run",
                option,
                "--bundle",
                bundle.path().to_str().unwrap(),
                bundle.id(),
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let orphan: i64 = line.trim().parse().unwrap();
        let parent = || {
            let stat = fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .and_then(|s| s.split(' ').nth(1)?.parse::<u32>().ok())
        };
        eventually("the parent's end", || {
            (parent() == Some(run.id())) == adopted && parent() != Some(0)
        });
        if adopted {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(orphan).unwrap());
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            eventually("the reaping", || {
                !std::path::Path::new(&format!("/proc/{orphan}")).exists()
            });
        }
        succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
        assert_eq!(run.wait().unwrap().code(), Some(137));
        eventually("the orphan's end", || !lives(orphan));
    }
}

#[test]
fn a_container_is_kept_when_asked_for() {
    let bundle = Bundle::script("keep", "exit 3");
    let output = bundle.oci(&[
        "run",
        "--keep",
        "--bundle",
        bundle.path().to_str().unwrap(),
        bundle.id(),
    ]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(bundle.status(), "stopped");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
}

#[test]
fn a_bundle_for_users_without_powers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    succeeded(&oci(&["spec", "--rootless", "-b", path]));
    let spec: Value =
        serde_json::from_slice(&fs::read(directory.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    assert_eq!(spec["linux"]["resources"], Value::Null);
    assert!(failed(&oci(&["spec", "-b", path])).contains("File exists"));
}

#[test]
fn states_of_a_user_are_in_the_users_directory() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(
        directory.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o777),
    )
    .unwrap();
    let program = directory.path().join("berth-oci");
    fs::copy(env!("CARGO_BIN_EXE_berth-oci"), &program).unwrap();
    fs::create_dir_all(directory.path().join("berth-oci-states/berth-oci")).unwrap();
    fs::create_dir(directory.path().join("berth-oci-states/berth-oci/mine")).unwrap();
    let mut command = Command::new(&program);
    command
        .env("XDG_RUNTIME_DIR", directory.path().join("berth-oci-states"))
        .args(["delete", "-f", "mine"]);
    // Nobody may not remove it, which shows where it was looked for.
    let said = failed(&command.uid(65534).gid(65534).output().unwrap());
    assert!(said.contains("berth-oci-states/berth-oci/mine"), "{said}");
}

#[test]
fn features_promise_what_is_there() {
    let features: Value = serde_json::from_str(&succeeded(&oci(&["features"]))).unwrap();
    let linux = &features["linux"];
    let names = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
    assert_eq!(names(&linux["namespaces"]).len(), 8);
    assert!(names(&linux["capabilities"]).contains(&"CAP_SYS_ADMIN".to_owned()));
    assert!(names(&features["mountOptions"]).contains(&"ridmap".to_owned()));
    assert!(names(&linux["seccomp"]["actions"]).contains(&"SCMP_ACT_NOTIFY".to_owned()));
    for part in ["seccomp", "apparmor", "selinux", "intelRdt", "netDevices"] {
        assert_eq!(linux[part]["enabled"], true, "{part}");
    }
    // What this machine has not got is refused for that reason, and not as unknown.
    for (field, value, expected) in [
        (
            "/process/selinuxLabel",
            json!("a:b:c:d"),
            "SELinux is not enabled",
        ),
        ("/linux/intelRdt", json!({ "l3CacheSchema": "L3:0=f" }), "resctrl"),
        ("/linux/netDevices", json!({ "nosuch0": {} }), "nosuch0"),
    ] {
        let mut bundle = Bundle::new("features", &["/bin/true"]);
        let (parent, name) = field.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[name] = value;
        let output = bundle.run();
        if !output.status.success() {
            let said = failed(&output);
            assert!(said.contains(expected), "{field}: {said}");
        }
    }
    let mut bundle = Bundle::new("policy", &["/bin/true"]);
    for mode in names(&linux["memoryPolicy"]["modes"]) {
        let nodes = if matches!(mode.as_str(), "MPOL_DEFAULT" | "MPOL_LOCAL") {
            ""
        } else {
            "0"
        };
        bundle.config["linux"]["memoryPolicy"] = json!({ "mode": mode, "nodes": nodes });
        let output = bundle.run();
        assert!(
            output.status.success() || failed(&output).contains("memoryPolicy"),
            "{mode}"
        );
    }
}

#[test]
fn a_checkpoint_needs_criu() {
    let bundle = Bundle::new("checkpoint", &["/bin/sleep", "1000"]);
    let without = |arguments: &[&str]| {
        let output = bundle.command(arguments).env("PATH", "/nosuch").output().unwrap();
        failed(&output)
    };
    let directory = bundle.path().to_str().unwrap();
    assert!(failed(&bundle.oci(&["checkpoint", bundle.id()])).contains("does not exist"));
    assert!(without(&["restore", "--bundle", directory, bundle.id()]).contains("criu, which is not found"));
    assert!(!bundle.state_directory().exists());
    bundle.create();
    assert!(failed(&bundle.oci(&["checkpoint", bundle.id()])).contains("it is created"));
    succeeded(&bundle.oci(&["start", bundle.id()]));
    assert!(without(&["checkpoint", bundle.id()]).contains("criu, which is not found"));
    assert_eq!(bundle.status(), "running");
    // As the engine has it done, which names a process.
    let images = bundle.path().join("images");
    let images = images.to_str().unwrap();
    let dump = |pid: &str| without(&["dump", "--bundle", directory, "--image-path", images, pid]);
    assert!(dump(&bundle.state()["pid"].to_string()).contains("criu, which is not found"));
    assert!(dump(&std::process::id().to_string()).contains("is not in the container's cgroup"));
    assert!(dump("first").contains("not named by a number"));
    assert_eq!(bundle.status(), "running");
    let enabled = |path: &Path| {
        let output = bundle.command(&["features"]).env("PATH", path).output().unwrap();
        let features: Value = serde_json::from_str(&succeeded(&output)).unwrap();
        features["annotations"]["org.opencontainers.runc.checkpoint.enabled"].clone()
    };
    assert_eq!(enabled(bundle.path()), "false");
    fs::write(bundle.path().join("criu"), "").unwrap();
    assert_eq!(enabled(bundle.path()), "true");
}

/// Whatever is wrong with the command line is said before criu writes anything.
#[test]
fn a_checkpoint_that_makes_no_sense_is_refused() {
    let bundle = Bundle::new("nonsense", &["/bin/sleep", "1000"]);
    bundle.start();
    let images = bundle.path().join("images");
    // A criu that knows its version, and ends at all other questions.
    let criu = bundle.path().join("criu");
    let script = "#!/bin/bash\n/bin/dd bs=65536 count=1 <&$2 >/dev/null 2>&1\n/usr/bin/printf '\\010\\012\\020\\001\\122\\006\\010\\003\\020\\021\\040\\001' >&$2\n";
    fs::write(&criu, script).unwrap();
    fs::set_permissions(&criu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (arguments, expected) in [
        (&["--parent-path", "/abs"][..], "--parent-path"),
        (&["--parent-path", "../nosuch"], "--parent-path"),
        (&["--page-server", "1.2.3.4"], "--page-server"),
        (&["--page-server", ":5"], "--page-server"),
        (&["--manage-cgroups-mode", "odd"], "odd"),
        (&["--empty-ns", "pid"], "pid"),
        (&["--status-fd", "77"], "--status-fd"),
        (
            &["--pre-dump"],
            "criu gave an answer of kind 10 to a question of kind 9",
        ),
        (
            &["--leave-running"],
            "criu gave an answer of kind 10 to a question of kind 1",
        ),
    ] {
        let arguments = [
            &["checkpoint", "--image-path", images.to_str().unwrap()],
            arguments,
            &[bundle.id()],
        ]
        .concat();
        let output = bundle
            .command(&arguments)
            .env("PATH", bundle.path())
            .output()
            .unwrap();
        let said = failed(&output);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(bundle.status(), "running");
    }
    let directory = bundle.path().to_str().unwrap();
    let mut restored = Bundle::new("restored", &["/bin/true"]);
    restored.config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    let arguments = [
        "restore",
        "--bundle",
        restored.path().to_str().unwrap(),
        "--image-path",
        directory,
        restored.id(),
    ];
    let said = failed(
        &restored
            .command(&arguments)
            .env("PATH", bundle.path())
            .output()
            .unwrap(),
    );
    assert!(said.contains("descriptors.json"), "{said}");
    fs::write(bundle.path().join("descriptors.json"), "[\"pipe:[1]\",\"\",\"\"]").unwrap();
    let said = failed(
        &restored
            .command(&arguments)
            .env("PATH", bundle.path())
            .output()
            .unwrap(),
    );
    assert!(
        said.contains("criu gave an answer of kind 10 to a question of kind 2"),
        "{said}"
    );
    assert!(!restored.state_directory().exists());
    assert_eq!(leftovers(&restored.cgroup()), Vec::<std::path::PathBuf>::new());
}

#[test]
fn bundles_that_are_none_are_refused() {
    let bundle = Bundle::new("none", &["/bin/true"]);
    bundle.command(&[]);
    let good = fs::read(bundle.path().join("config.json")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let at = |path: &str| {
        let output = bundle
            .command_as_written(&["run", "--bundle", path, bundle.id()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{path}");
        assert!(!bundle.state_directory().exists(), "{path}");
        assert_eq!(
            leftovers(&bundle.cgroup()),
            Vec::<std::path::PathBuf>::new(),
            "{path}"
        );
        failed(&output)
    };
    let here = directory.path().to_str().unwrap();
    assert!(at("/nosuch").contains("/nosuch"));
    assert!(at("/dev/null").contains("config.json"));
    assert!(at(here).contains("config.json"));
    fs::create_dir(&config).unwrap();
    assert!(at(here).contains("not a file"));
    fs::remove_dir(&config).unwrap();
    nix::unistd::mkfifo(&config, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(at(here).contains("not a file"));
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    assert!(at(here).contains("not a file"));
    fs::remove_file(&config).unwrap();
    fs::File::create(&config).unwrap().set_len(65 << 20).unwrap();
    assert!(at(here).contains("64 MiB"));
    let nested = format!("{{\"ociVersion\":\"1.0.0\",\"x\":{}", "[".repeat(1_000_000));
    for (text, expected) in [
        (&b""[..], "EOF"),
        (b"\xff\xfe", "line 1"),
        (b"null", "object"),
        (b"{}", "linux"),
        (b"{\"linux\":{}}", "root"),
        (nested.as_bytes(), "recursion"),
        (&good[..good.len() / 2], "EOF"),
    ] {
        fs::write(&config, text).unwrap();
        let said = at(here);
        assert!(said.contains(expected) && said.len() < 1000, "{said}");
    }
    // The root is looked for in the bundle, which has none.
    fs::write(&config, &good).unwrap();
    assert!(at(here).contains("rootfs"));
    for version in ["", "0.9", "2.0.0", "1", "latest"] {
        let mut config = bundle.config.clone();
        config["ociVersion"] = json!(version);
        fs::write(bundle.path().join("config.json"), config.to_string()).unwrap();
        assert!(
            at(bundle.path().to_str().unwrap()).contains("ociVersion"),
            "{version}"
        );
    }
}
