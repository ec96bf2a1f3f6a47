//! Commands on the same container at the same time, and commands that are killed or find no space.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use support::{Bundle, eventually, failed, leftovers, lives, succeeded};

/// A hook that tells that it runs, and then hangs.
fn hanging_hook(bundle: &mut Bundle, kind: &str) -> PathBuf {
    let (hook, told) = (bundle.path().join("hook"), bundle.path().join("told"));
    let script = format!(
        "#!/bin/sh\necho $$ > {0}.new; mv {0}.new {0}\nexec sleep 1000\n",
        told.display()
    );
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.config["hooks"] = json!({ kind: [{ "path": hook, "env": ["PATH=/usr/bin:/bin"] }] });
    told
}

/// Ends a hook, which is no process of the container's.
fn end_hook(told: &PathBuf) {
    let pid: i32 = fs::read_to_string(told).unwrap().trim().parse().unwrap();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn a_creation_that_hangs_can_be_deleted() {
    let mut bundle = Bundle::new("hanging", &["/bin/sleep", "1000"]);
    let told = hanging_hook(&mut bundle, "createRuntime");
    for verb in ["create", "run"] {
        let mut creator = bundle
            .command(&[verb, "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the hook", || told.exists());
        assert_eq!(bundle.status(), "creating");
        assert!(succeeded(&bundle.oci(&["list"])).contains("creating"));
        for (verb, expected) in [
            ("start", "still being created"),
            ("delete", "still being created"),
            ("kill", "not running"),
            ("pause", "not running"),
            ("resume", "not running"),
            ("update", "not running"),
            ("events", "not running"),
        ] {
            assert!(
                failed(&bundle.oci(&[verb, bundle.id()])).contains(expected),
                "{verb}"
            );
        }
        assert!(failed(&bundle.exec("true")).contains("not running"));
        let again = bundle.oci(&["create", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
        assert!(failed(&again).contains("already exists"));
        succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
        assert!(!creator.wait().unwrap().success());
        assert!(!bundle.state_directory().exists());
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
        end_hook(&told);
        fs::remove_file(&told).unwrap();
    }
}

#[test]
fn a_hook_that_hangs_after_the_start_blocks_nobody() {
    let mut bundle = Bundle::new("poststart", &["/bin/sleep", "1000"]);
    let told = hanging_hook(&mut bundle, "poststart");
    bundle.create();
    let mut start = bundle.command(&["start", bundle.id()]).spawn().unwrap();
    eventually("the hook", || told.exists());
    assert_eq!(bundle.status(), "running");
    succeeded(&bundle.exec("true"));
    succeeded(&bundle.oci(&["pause", bundle.id()]));
    succeeded(&bundle.oci(&["resume", bundle.id()]));
    assert!(failed(&bundle.oci(&["start", bundle.id()])).contains("running"));
    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    eventually("the end", || bundle.status() == "stopped");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    end_hook(&told);
    start.wait().unwrap();
}

#[test]
fn a_start_that_hangs_can_be_deleted() {
    let mut bundle = Bundle::new("starting", &["/bin/sleep", "1000"]);
    let hook = bundle.root().join("hang");
    fs::write(&hook, "#!/bin/sh\nwhile true; do /bin/sleep 1000; done\n").unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.config["hooks"] = json!({ "startContainer": [{ "path": "/hang" }] });
    bundle.create();
    let mut start = bundle
        .command(&["start", bundle.id()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let processes = || {
        let listed = succeeded(&bundle.oci(&["ps", "-f", "json", bundle.id()]));
        serde_json::from_str::<Value>(&listed)
            .unwrap()
            .as_array()
            .unwrap()
            .len()
    };
    eventually("the hook", || processes() > 1);
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    assert!(start.wait().unwrap().code().is_some());
    assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
}

#[test]
fn somebody_elses_cgroup_survives_a_half_made_container() {
    let other = Bundle::new("owner", &["/bin/sleep", "1000"]);
    other.start();
    let bundle = Bundle::new("half", &["/bin/sleep", "1000"]);
    // As a creator leaves it that is killed right after its first act.
    fs::create_dir_all(bundle.state_directory()).unwrap();
    let record = json!({ "bundle": "/b", "rootfs": "/b/rootfs", "cgroup": other.cgroup(), "created": "" });
    let state = json!({ "record": record, "config": bundle.config });
    fs::write(bundle.state_directory().join("state.json"), state.to_string()).unwrap();
    assert_eq!(bundle.status(), "creating");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    assert!(!bundle.state_directory().exists());
    assert_eq!(other.status(), "running");
}

#[test]
fn states_in_any_condition_can_be_deleted() {
    let bundle = Bundle::new("conditions", &["/bin/sleep", "1000"]);
    let directory = bundle.state_directory();
    let state = directory.join("state.json");
    for text in [
        "",
        "{",
        "null",
        "[1]",
        "{\"record\":{}}",
        "{\"record\":5,\"config\":{}}",
        "\0\0\0",
    ] {
        for process in [None, Some("garbage"), Some("1:1:host"), Some("999999999:1:own")] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&state, text).unwrap();
            if let Some(process) = process {
                std::os::unix::fs::symlink(process, directory.join("process")).unwrap();
            }
            failed(&bundle.oci(&["state", bundle.id()]));
            failed(&bundle.oci(&["start", bundle.id()]));
            failed(&bundle.oci(&["kill", bundle.id()]));
            failed(&bundle.oci(&["delete", bundle.id()]));
            succeeded(&bundle.oci(&["list"]));
            succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
            assert!(!directory.exists(), "{text:?} {process:?}");
        }
    }
    // Its first act was all that a creator did.
    fs::create_dir_all(&directory).unwrap();
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    assert!(!directory.exists());
}

#[test]
fn a_container_without_its_cgroup_can_be_deleted() {
    let bundle = Bundle::new("uncontrolled", &["/bin/sleep", "1000"]);
    bundle.start();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    for group in leftovers(&bundle.cgroup()) {
        let above = group.ancestors().map(|path| path.join("cgroup.procs"));
        let root = above.filter(|file| file.exists()).last().unwrap();
        fs::write(root, pid.to_string()).unwrap();
        fs::remove_dir(&group).unwrap();
    }
    assert_eq!(bundle.status(), "running");
    assert!(failed(&bundle.exec("true")).contains("no cgroup"));
    assert_eq!(succeeded(&bundle.oci(&["ps", "-f", "json", bundle.id()])), "[]");
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    assert!(!lives(pid));
}

#[test]
fn deleted_while_processes_are_added() {
    let bundle = Bundle::new("added", &["/bin/sleep", "1000"]);
    for _ in 0..5 {
        bundle.start();
        let execs: Vec<_> = (0..8)
            .map(|_| {
                let mut command = bundle.command(&["exec", bundle.id(), "/bin/sleep", "1000"]);
                command
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
        for mut exec in execs {
            assert!(
                exec.wait()
                    .unwrap()
                    .code()
                    .is_some_and(|code| [137, 255].contains(&code))
            );
        }
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
    }
}

#[test]
fn nothing_is_left_where_there_is_no_space() {
    let bundle = Bundle::new("full", &["/bin/sleep", "1000"]);
    let directory = bundle.path().to_str().unwrap().to_owned();
    let root = bundle.path().join("state");
    fs::create_dir(&root).unwrap();
    let mut failures = 0;
    // From no room for the directory to room for everything: each of its files is the one that fails once.
    for options in [
        "size=4k",
        "nr_inodes=1",
        "nr_inodes=2",
        "nr_inodes=3",
        "nr_inodes=4",
        "nr_inodes=5",
        "size=1m",
    ] {
        mount(
            Some("none"),
            &root,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        for verb in [&["create"][..], &["run", "-d"]] {
            let arguments = [verb, &["--bundle", &directory, bundle.id()]].concat();
            let log = bundle.path().join("log");
            let output = bundle
                .command(&arguments)
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log).unwrap())
                .status();
            let said = fs::read_to_string(&log).unwrap();
            if output.unwrap().success() {
                succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
            } else {
                failures += 1;
                assert!(said.contains("No space left"), "{options}: {said}");
            }
            assert!(!bundle.state_directory().exists(), "{options}");
            assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new(), "{options}");
        }
        umount2(&root, MntFlags::empty()).unwrap();
    }
    assert!(failures >= 6, "{failures}");
}

/// The container ends, and `run` removes it, at any moment of another command.
#[test]
fn commands_on_a_container_that_just_ends_say_so_or_succeed() {
    const ROUNDS: usize = 40;
    let mut bundle = Bundle::new("ending", &["/bin/sleep", "0.02"]);
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    // A kill goes to the whole group where the end of the first process does not take the others along.
    namespaces.retain(|namespace| namespace["type"] != "pid");
    let (bundle, id) = (&bundle, bundle.id());
    bundle.command(&[]);
    let commands: [&[&str]; 8] = [
        &["kill", id, "KILL"],
        &["kill", "--all", id, "KILL"],
        &["pause", id],
        &["resume", id],
        &["update", "--pids-limit", "99", id],
        &["events", "--stats", id],
        &["exec", id, "/bin/true"],
        &["ps", "-f", "json", id],
    ];
    for round in 0..ROUNDS {
        let run = ["run", "--bundle", bundle.path().to_str().unwrap(), id];
        let mut run = bundle
            .command_as_written(&run)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the container", || {
            bundle.state_directory().join("process").exists() || run.try_wait().unwrap().is_some()
        });
        std::thread::scope(|scope| {
            // Two at a time: which ones changes from round to round.
            for arguments in [commands[round % 8], commands[(round / 8 + round) % 8]] {
                let state = bundle.state_directory();
                scope.spawn(move || {
                    while state.exists() {
                        let output = bundle.command_as_written(arguments).output().unwrap();
                        check(arguments, &output);
                        let said = String::from_utf8_lossy(&output.stderr);
                        let expected = ["not running", "does not exist", "paused", "stopped"];
                        assert!(
                            output.status.success() || expected.iter().any(|part| said.contains(part)),
                            "{arguments:?}: {said}"
                        );
                        // Else a paused container never ends.
                        if arguments[0] == "pause" {
                            bundle.command_as_written(&["resume", id]).output().unwrap();
                        }
                    }
                });
            }
        });
        let code = run.wait().unwrap().code();
        assert!(matches!(code, Some(0 | 137)), "{code:?}");
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
    }
}

/// A number that looks random and is the same in each run.
fn random(seed: &AtomicUsize) -> usize {
    let mut x = seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// What any command may say, whatever others do at the time.
fn check(arguments: &[&str], output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    // Who creates a container is killed by who deletes it by force.
    let may_be_killed = matches!(arguments[0], "create" | "run");
    assert!(
        code.is_some() || may_be_killed,
        "{arguments:?}: {}: {said}",
        output.status
    );
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    if code.is_some_and(|code| code != 0 && code != 137) {
        assert!(
            said.starts_with("berth-oci: ") && said.trim_end().ends_with('.'),
            "{arguments:?} {code:?}: {said:?}"
        );
    }
    if matches!(arguments[0], "state" | "list") && code != Some(0) {
        assert!(
            said.contains("does not exist") || said.contains("state.json"),
            "{arguments:?}: {said}"
        );
    }
}

#[test]
fn random_commands_leave_nothing() {
    const THREADS: usize = 6;
    const COMMANDS: usize = 60;
    let bundles: Vec<Bundle> = (0..2)
        .map(|n| Bundle::new(&format!("random-{n}"), &["/bin/sleep", "1000"]))
        .collect();
    for bundle in &bundles {
        bundle.command(&[]);
    }
    let seed = std::env::var("BERTH_RANDOM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = AtomicUsize::new(seed.unwrap_or(1));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..COMMANDS {
                    let bundle = &bundles[random(&seed) % bundles.len()];
                    one(bundle, random(&seed));
                }
            });
        }
    });
    for bundle in &bundles {
        succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
        assert!(!bundle.state_directory().exists());
        assert_eq!(leftovers(&bundle.cgroup()), Vec::<PathBuf>::new());
        let marker = format!("berth-oci-{}", bundle.id());
        eventually("the end of all processes", || {
            let groups = fs::read_dir("/proc").unwrap().flatten();
            !groups
                .map(|e| fs::read_to_string(e.path().join("cgroup")).unwrap_or_default())
                .any(|g| g.contains(&marker))
        });
    }
}

/// Waits for the end of a command. A start whose container is paused just then waits until somebody resumes it, which the
/// commands that are still to come may not.
fn ended(bundle: &Bundle, child: &mut Child) -> ExitStatus {
    const LONG: Duration = Duration::from_secs(2);
    let mut began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > LONG {
            let arguments = ["resume", bundle.id()];
            check(
                &arguments,
                &bundle.command_as_written(&arguments).output().unwrap(),
            );
            began = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn one(bundle: &Bundle, number: usize) {
    let directory = bundle.path().to_str().unwrap();
    let id = bundle.id();
    let commands: [&[&str]; 15] = [
        &["create", "--bundle", directory, id],
        &["create", "--bundle", directory, id],
        &["run", "-d", "--bundle", directory, id],
        &["run", "-d", "--bundle", directory, id],
        &["start", id],
        &["start", id],
        &["kill", id, "KILL"],
        &["delete", id],
        &["delete", "--force", id],
        &["exec", id, "/bin/true"],
        &["pause", id],
        &["resume", id],
        &["state", id],
        &["list"],
        &["update", "--pids-limit", "99", id],
    ];
    let arguments = commands[number % commands.len()];
    let log = tempfile::NamedTempFile::new().unwrap();
    // A container holds its standard streams open: what is said goes to a file.
    let mut child = bundle
        .command_as_written(arguments)
        .stdout(Stdio::null())
        .stderr(log.reopen().unwrap())
        .spawn()
        .unwrap();
    if (number / 100).is_multiple_of(8) {
        // Some commands die at some moment.
        std::thread::sleep(Duration::from_micros((number / 1000 % 20_000) as u64));
        let _ = child.kill();
        child.wait().unwrap();
        return;
    }
    let output = Output {
        status: ended(bundle, &mut child),
        stdout: Vec::new(),
        stderr: fs::read(log.path()).unwrap(),
    };
    check(arguments, &output);
}
