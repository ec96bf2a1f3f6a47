//! Create, start, kill, delete, and everything in the wrong order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::json;
use support::{Bundle, eventually, failed, leftovers, lives, succeeded};

#[test]
fn a_container_goes_through_its_states() {
    let bundle = Bundle::new("states", &["/bin/sleep", "1000"]);
    bundle.create();
    assert_eq!(bundle.status(), "created");
    let pid = bundle.state()["pid"].as_i64().unwrap();
    assert!(
        failed(&bundle.oci(&["create", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]))
            .contains("already")
    );
    succeeded(&bundle.oci(&["start", bundle.id()]));
    assert_eq!(bundle.status(), "running");
    assert_eq!(bundle.state()["pid"].as_i64().unwrap(), pid);
    assert!(failed(&bundle.oci(&["start", bundle.id()])).contains("running, not created"));
    assert!(failed(&bundle.oci(&["delete", bundle.id()])).contains("running"));
    succeeded(&bundle.oci(&["pause", bundle.id()]));
    assert_eq!(bundle.status(), "paused");
    assert!(failed(&bundle.exec("true")).contains("paused"));
    succeeded(&bundle.oci(&["resume", bundle.id()]));
    assert_eq!(
        succeeded(&bundle.oci(&["ps", "-f", "json", bundle.id()])),
        format!("[{pid}]")
    );
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    eventually("the end", || bundle.status() == "stopped");
    assert!(failed(&bundle.oci(&["kill", bundle.id()])).contains("stopped"));
    assert!(failed(&bundle.exec("true")).contains("stopped"));
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    assert!(failed(&bundle.oci(&["state", bundle.id()])).contains("does not exist"));
}

#[test]
fn run_returns_the_exit_code() {
    assert_eq!(Bundle::script("code", "exit 7").run().status.code(), Some(7));
    assert_eq!(
        Bundle::script("signal", "kill -9 $$; sleep 9 & kill -9 $!; exit 3")
            .run()
            .status
            .code(),
        Some(3)
    );
}

#[test]
fn a_program_that_can_not_run_fails_the_run() {
    let bundle = Bundle::new("missing", &["/no/such/program"]);
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(failed(&output).contains("no such file"));
    let bundle = Bundle::new("unfound", &["nosuchprogram"]);
    assert_eq!(bundle.run().status.code(), Some(1));
    let bundle = Bundle::new("directory", &["/bin"]);
    assert_eq!(bundle.run().status.code(), Some(1));
    let bundle = Bundle::new("format", &["/data"]);
    fs::write(bundle.root().join("data"), "\0\0nothing").unwrap();
    fs::set_permissions(
        bundle.root().join("data"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    assert!(failed(&output).contains("exec format error"));
}

#[test]
fn of_many_starts_one_wins() {
    let bundle = Bundle::new("starts", &["/bin/sleep", "1000"]);
    bundle.create();
    let starts: Vec<_> = (0..8)
        .map(|_| {
            bundle
                .command(&["start", bundle.id()])
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let won = starts
        .into_iter()
        .filter_map(|mut child| child.wait().ok())
        .filter(|status| status.success())
        .count();
    assert_eq!(won, 1);
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_created_container_can_be_killed_but_not_deleted() {
    let bundle = Bundle::new("unstarted", &["/bin/sleep", "1000"]);
    bundle.create();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    succeeded(&bundle.oci(&["kill", bundle.id(), "SIGKILL"]));
    eventually("the end", || !lives(pid));
    assert!(failed(&bundle.oci(&["start", bundle.id()])).contains("stopped"));
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    bundle.create();
    assert!(failed(&bundle.oci(&["delete", bundle.id()])).contains("created, not stopped"));
    assert_eq!(bundle.status(), "created");
}

#[test]
fn delete_force_works_in_any_state() {
    let bundle = Bundle::new("force", &["/bin/sleep", "1000"]);
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    assert!(failed(&bundle.oci(&["delete", bundle.id()])).contains("does not exist"));
    bundle.create();
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    bundle.start();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    assert!(!lives(pid));
    bundle.start();
    succeeded(&bundle.oci(&["pause", bundle.id()]));
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
}

#[test]
fn a_damaged_state_can_be_deleted() {
    let bundle = Bundle::new("damaged", &["/bin/sleep", "1000"]);
    for damage in ["", "{\"bundle\":\"/x\",", "[]"] {
        bundle.start();
        let pid = bundle.state()["pid"].as_i64().unwrap();
        fs::write(bundle.state_directory().join("state.json"), damage).unwrap();
        assert!(failed(&bundle.oci(&["state", bundle.id()])).contains("state.json"));
        assert!(succeeded(&bundle.oci(&["list"])).starts_with("ID"));
        succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
        eventually("the end", || !lives(pid));
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<std::path::PathBuf>::new());
    }
}

#[test]
fn a_killed_creator_takes_its_container_with_it() {
    let mut bundle = Bundle::new("creator", &["/bin/sleep", "1000"]);
    let pid_file = bundle.path().join("hook-pid");
    let hook = bundle.path().join("hook");
    let own_pid_file = bundle.path().join("own-pid");
    fs::write(
        &hook,
        format!(
            "#!/bin/sh\necho $$ > {1}\n\
             grep -o '\"pid\":[0-9]*' | cut -d: -f2 > {0}.new; mv {0}.new {0}\nexec sleep 1000\n",
            pid_file.display(),
            own_pid_file.display(),
        ),
    )
    .unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.config["hooks"] = json!({ "createRuntime": [{ "path": hook, "env": ["PATH=/usr/bin:/bin"] }] });
    let mut creator = bundle
        .command(&["create", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .spawn()
        .unwrap();
    eventually("the hook", || pid_file.exists());
    let pid: i64 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    assert!(lives(pid));
    creator.kill().unwrap();
    creator.wait().unwrap();
    eventually("the end of the container", || !lives(pid));
    assert_eq!(bundle.status(), "creating");
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    // The hook is a child of the runtime's, not of the container.
    let pid = fs::read_to_string(own_pid_file).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_detached_run_leaves_a_running_container() {
    let bundle = Bundle::new("detached", &["/bin/sleep", "1000"]);
    let pid_file = bundle.path().join("pid");
    let status = bundle
        .command(&["run", "-d", "--pid-file", pid_file.to_str().unwrap(), "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(bundle.status(), "running");
    assert_eq!(
        fs::read_to_string(pid_file).unwrap(),
        bundle.state()["pid"].to_string()
    );
    assert_eq!(succeeded(&bundle.oci(&["list", "-q"])), bundle.id());
}

#[test]
fn a_run_whose_container_was_replaced_leaves_the_new_one_alone() {
    use nix::sys::signal::{Signal, kill};
    let bundle = Bundle::new("replaced", &["/bin/sleep", "1000"]);
    let mut run = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .spawn()
        .unwrap();
    // Commands of the harness write the configuration, which must have been read by then.
    let process = bundle.state_directory().join("process");
    eventually("the process", || fs::symlink_metadata(&process).is_ok());
    eventually("the start", || bundle.status() == "running");
    // It sees the end of its container only after there is another one of the same id.
    let pid = nix::unistd::Pid::from_raw(run.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    bundle.start();
    kill(pid, Signal::SIGCONT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(128 + 9));
    assert_eq!(bundle.status(), "running");
    assert!(!leftovers(&bundle.cgroup()).is_empty());
}

#[test]
fn signals_are_passed_on_in_the_foreground() {
    let bundle = Bundle::script(
        "signals",
        "trap 'exit 42' TERM; echo ready; while true; do sleep 0.01; done",
    );
    let mut run = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut line).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(42));
}

#[test]
fn errors_reach_the_log() {
    let bundle = Bundle::new("log", &["/no/such/program"]);
    let log = bundle.path().join("log.json");
    let output = bundle
        .command(&[
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            "run",
            "--bundle",
        ])
        .arg(bundle.path())
        .arg(bundle.id())
        .output()
        .unwrap();
    failed(&output);
    let line: serde_json::Value = serde_json::from_str(fs::read_to_string(log).unwrap().trim()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("/no/such/program"));
}

#[test]
fn whatever_a_killed_command_left_can_be_deleted() {
    let bundle = Bundle::new("killed", &["/bin/sleep", "1000"]);
    let path = bundle.path().to_str().unwrap().to_owned();
    let verbs: [&[&str]; 3] = [
        &["create", "--bundle", &path],
        &["run", "-d", "--bundle", &path],
        &["delete", "--force"],
    ];
    for round in 0..90_u32 {
        let verb = verbs[round as usize % 3];
        if verb[0] == "delete" {
            // Something to delete, which may be there already.
            let _ = bundle
                .command(&["create", "--bundle", &path, bundle.id()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
        let mut command = bundle.command(verb);
        let mut child = command
            .arg(bundle.id())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // A moment that differs from round to round; where it hits does not matter.
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 450));
        child.kill().unwrap();
        child.wait().unwrap();
        if verb[0] != "delete" || round % 2 == 0 {
            succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
            assert!(!bundle.state_directory().exists());
            let left = leftovers(&bundle.cgroup());
            assert_eq!(left, Vec::<std::path::PathBuf>::new(), "round {round}");
        }
    }
}

#[test]
fn a_created_container_ends_when_it_is_asked_to() {
    let bundle = Bundle::script("asked", "exit 0");
    bundle.create();
    succeeded(&bundle.oci(&["kill", bundle.id(), "TERM"]));
    eventually("the container has ended", || bundle.status() == "stopped");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
}
