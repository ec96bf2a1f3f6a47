//! Containers of other runtimes' programs, as the shim sees them: Debian's runc, crun where there is no hybrid hierarchy, and
//! scripts that misbehave. All of the shim's tests can be run on another runtime: `BERTH_TEST_RUNTIME` is its program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_runtime::cgroups::Cgroup;
use berth_shim::protocol::{ExecCgroup, FailureCode, Request, Response, RuntimeProgram};
use support::{Pod, TestClient, exec_request, is_alive, runtime, wait_until};

const RUNC: &str = "/usr/sbin/runc";

fn pod_of(program: RuntimeProgram) -> Pod {
    Pod::start_with(|config| config.runtime = Some(program))
}

/// A script in front of runc.
fn script(directory: &Path, text: &str) -> RuntimeProgram {
    let path = directory.join("runtime.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\nexec {RUNC} \"$@\"\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    runtime(&path)
}

fn sleeper(pod: &Pod) -> TestClient {
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sleep", "1000"]));
    client.start("a");
    client
}

fn end(client: &mut TestClient) {
    client.kill("a");
    client.exited("a");
    client.delete("a");
}

#[test]
fn a_whole_life_leaves_nothing_of_the_runtime() {
    let pod = pod_of(runtime(Path::new(RUNC)));
    let mut client = pod.client();
    client.subscribe();
    let script = "echo out; echo err >&2; hostname; exit 5";
    let record = client.run(pod.bundle("a", &["sh", "-c", script]));
    assert_eq!(record.exit_code, 5);
    assert!(0 < record.started_at && record.started_at <= record.finished_at);
    assert_eq!(pod.logged("a", "stdout"), b"out\npod\n");
    assert_eq!(pod.logged("a", "stderr"), b"err\n");
    assert!(pod.dir().join("runtime/a").exists());
    client.delete("a");
    assert!(!pod.dir().join("runtime/a").exists());
    assert!(!pod.dir().join("containers/a/oci").exists());
    assert!(Cgroup::open(&pod.cgroup_of("a")).unwrap().is_none());
}

#[test]
fn a_program_that_ends_at_once_is_told_after_its_start() {
    let pod = pod_of(runtime(Path::new(RUNC)));
    let mut client = pod.client();
    client.subscribe();
    for number in 0..5 {
        let id = format!("c{number}");
        client.create(pod.bundle(&id, &["true"]));
        client.start(&id);
        let mut started = false;
        client.wait_for(|event| match event {
            berth_shim::protocol::Event::Started { container, .. } if *container == id => {
                started = true;
                None
            }
            berth_shim::protocol::Event::Exited(record) if record.container == id => {
                assert!(started, "{id} ended before it began");
                Some(())
            }
            _ => None,
        });
        client.delete(&id);
    }
}

/// However it is told which group: by the option of `exec`, or by being moved.
#[test]
fn a_timeout_kills_the_whole_tree_of_an_exec() {
    for exec_cgroup in [ExecCgroup::Controllers, ExecCgroup::Unknown] {
        let pod = pod_of(RuntimeProgram {
            exec_cgroup,
            ..runtime(Path::new(RUNC))
        });
        let mut client = sleeper(&pod);
        // It gives the shim the time to move it, which is all that a runtime without the option allows for.
        let script = "sleep 0.5; setsid sh -c 'exec sleep 1000' & (sleep 1000 &); sleep 1000";
        let mut pipes = client.exec("a", "slow", &["sh", "-c", script], 2500);
        assert_eq!(client.exec_exited("slow"), (137, true));
        pipes.stdout.read_to_end(&mut Vec::new()).unwrap();
        let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
        wait_until("only the container's own process is left", || {
            cgroup.pids().unwrap().len() == 1
        });
        end(&mut client);
    }
}

#[test]
fn an_exec_whose_program_hangs_is_over_its_time() {
    let scripts = tempfile::tempdir().unwrap();
    let hangs = "for word; do [ $word = exec ] && sleep 1000; done";
    let pod = pod_of(script(scripts.path(), hangs));
    let mut client = sleeper(&pod);
    let mut pipes = client.exec("a", "slow", &["true"], 300);
    assert_eq!(client.exec_exited("slow"), (137, true));
    // Nobody holds its output any more.
    pipes.stdout.read_to_end(&mut Vec::new()).unwrap();
    end(&mut client);
}

#[test]
fn a_hung_program_is_killed_with_all_that_it_started() {
    let scripts = tempfile::tempdir().unwrap();
    let pids = scripts.path().join("pids");
    let hangs = format!(
        "for word; do [ $word = create ] && {{ setsid sleep 1000 & echo $! $$ > {}; sleep 1000; }}; done",
        pids.display()
    );
    let pod = pod_of(RuntimeProgram {
        timeout_ms: 500,
        ..script(scripts.path(), &hangs)
    });
    let mut client = pod.client();
    let mut other = pod.client();
    let request = pod.bundle("a", &["true"]);
    let failure = std::thread::scope(|scope| {
        let refused = scope.spawn(|| client.refused(Request::Create(Box::new(request))));
        wait_until("the program runs", || pids.exists());
        // Others are served meanwhile.
        assert!(other.state().containers.is_empty());
        refused.join().unwrap()
    });
    assert_eq!(failure.code, FailureCode::Internal);
    assert!(
        failure.message.contains("runtime.sh") && failure.message.contains("longer than 500 ms"),
        "{}",
        failure.message
    );
    let pids = fs::read_to_string(&pids).unwrap();
    for pid in pids.split_whitespace() {
        let pid = pid.parse().unwrap();
        wait_until("what it started has ended", || !is_alive(pid));
    }
    assert!(!pod.dir().join("containers/a/oci").exists());
}

#[test]
fn a_container_that_nobody_wants_any_more_is_not_waited_for() {
    let scripts = tempfile::tempdir().unwrap();
    let begun = scripts.path().join("begun");
    let hangs = format!(
        "for word; do [ $word = create ] && {{ touch {}; sleep 1000; }}; done",
        begun.display()
    );
    let pod = pod_of(script(scripts.path(), &hangs));
    let (mut client, mut other) = (pod.client(), pod.client());
    let request = pod.bundle("a", &["true"]);
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| client.refused(Request::Create(Box::new(request))));
        wait_until("the program runs", || begun.exists());
        other.delete("a");
        refused.join().unwrap();
    });
    assert!(other.state().containers.is_empty());
}

#[test]
fn a_program_that_can_not_be_run_is_named() {
    let pod = pod_of(runtime(Path::new("/no/such/runtime")));
    let mut client = pod.client();
    let failure = client.refused(Request::Create(Box::new(pod.bundle("a", &["true"]))));
    assert!(
        failure.message.contains("/no/such/runtime"),
        "{}",
        failure.message
    );
}

#[test]
fn what_the_program_says_last_is_told() {
    let scripts = tempfile::tempdir().unwrap();
    let fails = "for word; do [ $word = create ] && { echo first; echo 'no such luck' >&2; exit 3; }; done";
    let pod = pod_of(script(scripts.path(), fails));
    let mut client = pod.client();
    let failure = client.refused(Request::Create(Box::new(pod.bundle("a", &["true"]))));
    assert!(
        failure.message.contains("exit code 3") && failure.message.contains("no such luck"),
        "{}",
        failure.message
    );
    // The same name can be used again.
    let failure = client.refused(Request::Create(Box::new(pod.bundle("a", &["true"]))));
    assert!(failure.message.contains("no such luck"), "{}", failure.message);
}

/// What runs elsewhere than where it was put could not be killed once the shim is gone.
#[test]
fn a_container_outside_of_its_cgroup_is_refused() {
    let scripts = tempfile::tempdir().unwrap();
    let cheats = "for word; do case $word in create) create=1;; esac; done\n\
                  [ -z \"$create\" ] || { sleep 1000 & echo $! > pid; exit 0; }";
    let pod = pod_of(script(scripts.path(), cheats));
    let mut client = pod.client();
    let failure = client.refused(Request::Create(Box::new(pod.bundle("a", &["true"]))));
    assert!(failure.message.contains("in its cgroup"), "{}", failure.message);
}

#[test]
fn a_shutdown_asks_the_runtime_to_remove_what_there_is() {
    let scripts = tempfile::tempdir().unwrap();
    let asked = scripts.path().join("asked");
    let tells = format!(
        "for word; do last=$word; [ $word = delete ] && echo deleted >> {}; done",
        asked.display()
    );
    let pod = pod_of(script(scripts.path(), &tells));
    let mut client = pod.client();
    let running = client.create(pod.bundle("a", &["sh", "-c", "trap '' TERM; sleep 1000"]));
    client.start("a");
    let created = client.create(pod.bundle("b", &["sleep", "1000"]));
    client.call(Request::Shutdown);
    assert!(!is_alive(running) && !is_alive(created));
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), 2);
    assert_eq!(fs::read_dir(pod.dir().join("runtime")).unwrap().count(), 0);
    assert_eq!(pod.exit_record("a").unwrap().exit_code, 137);
}

/// crun refuses hosts with both versions of control groups: it is shown one that has the first alone.
#[test]
fn crun_runs_containers_too() {
    let pod = Pod::prepare(|config| {
        config.runtime = Some(RuntimeProgram {
            exec_cgroup: ExecCgroup::Path,
            ..runtime(Path::new("/usr/bin/crun"))
        });
    });
    let tests = std::env::current_exe().unwrap();
    let shim: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples/shim");
    let hide = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$0\" \"$1\"";
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", hide])
        .arg(shim)
        .arg(pod.dir())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut client = pod.client();
    client.subscribe();
    let bundle = |id: &str, args: &[&str]| {
        // A newer version it does not take.
        pod.bundle_with(id, args, |spec| spec["ociVersion"] = "1.0.2".into())
    };
    client.create(bundle("a", &["sleep", "1000"]));
    client.start("a");
    let mut pipes = client.exec("a", "one", &["sh", "-c", "hostname; exit 6"], 0);
    let mut out = String::new();
    pipes.stdout.read_to_string(&mut out).unwrap();
    assert_eq!((out.as_str(), client.exec_exited("one")), ("pod\n", (6, false)));
    let terminal = exec_request("a", "tty", &["sh", "-c", "read go; stty size; exit 4"], 0, true);
    let (response, mut fds) = client.call_with(terminal, vec![]);
    assert!(matches!(response, Response::ExecStarted { .. }));
    let mut master = File::from(fds.pop().unwrap());
    client.call(Request::Resize {
        id: "tty".into(),
        width: 132,
        height: 43,
    });
    master.write_all(b"go\n").unwrap();
    let mut output = Vec::new();
    let _ = master.read_to_end(&mut output);
    assert!(String::from_utf8_lossy(&output).contains("43 132"), "{output:?}");
    assert_eq!(client.exec_exited("tty"), (4, false));
    end(&mut client);
    let record = client.run(bundle("b", &["sh", "-c", "echo done; exit 9"]));
    assert_eq!(
        (record.exit_code, pod.logged("b", "stdout")),
        (9, b"done\n".to_vec())
    );
    client.delete("b");
    client.call(Request::Shutdown);
    // Without the unified hierarchy groups are made in this one too, where the test's own process does not look.
    let named = Path::new("/sys/fs/cgroup/systemd").join(&pod.id);
    wait_until("its groups are removed", || {
        let _ = fs::remove_dir(named.join("sandbox"));
        let _ = fs::remove_dir(&named);
        !named.exists()
    });
}
