//! The six kinds of hooks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A script in the bundle, or with `inside` in the container's root.
fn script(bundle: &Bundle, name: &str, text: &str, inside: bool) -> PathBuf {
    let directory = if inside {
        bundle.root()
    } else {
        bundle.path().to_owned()
    };
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    if inside {
        PathBuf::from("/").join(name)
    } else {
        path
    }
}

#[test]
fn all_kinds_run_in_order_and_are_given_the_state() {
    let mut bundle = Bundle::script("order", "echo program >> /log/order");
    let log = bundle.path().join("log");
    fs::create_dir(&log).unwrap();
    bundle.mount("/log", "bind", log.to_str().unwrap(), &["rbind"]);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["annotations"] = json!({ "a": "b" });
    let mut hooks = json!({});
    for kind in KINDS {
        let inside = kind == "startContainer";
        let log = if inside {
            "/log".into()
        } else {
            log.display().to_string()
        };
        let text = format!("echo {kind} $1 $X >> {log}/order; cat > {log}/{kind}");
        let path = script(&bundle, kind, &text, inside);
        hooks[kind] =
            json!([{ "path": path, "args": ["name", "argument"], "env": ["X=y", "PATH=/bin:/usr/bin"] }]);
    }
    bundle.config["hooks"] = hooks;
    bundle.start();
    support::eventually("the program", || {
        fs::read_to_string(log.join("order")).unwrap().contains("program")
    });
    let pid = bundle.state()["pid"].clone();
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    let order = fs::read_to_string(log.join("order")).unwrap();
    let mut order: Vec<&str> = order.lines().collect();
    // The program and the hook that follows its start run at the same time.
    order.retain(|line| *line != "program");
    assert_eq!(order, KINDS.map(|kind| format!("{kind} argument y")));
    for kind in KINDS {
        let state: Value = serde_json::from_str(&fs::read_to_string(log.join(kind)).unwrap()).unwrap();
        assert_eq!(state["id"], bundle.id(), "{kind}");
        assert_eq!(state["bundle"], bundle.path().to_str().unwrap(), "{kind}");
        assert_eq!(state["annotations"], json!({ "a": "b" }), "{kind}");
        let status = match kind {
            "createRuntime" | "createContainer" => "creating",
            "prestart" | "startContainer" => "created",
            "poststart" => "running",
            _ => "stopped",
        };
        assert_eq!(state["status"], status, "{kind}");
        assert_eq!(state.get("pid").is_some(), kind != "poststop", "{kind}");
    }
    let _ = pid;
}

#[test]
fn a_failing_hook_fails_the_creation_with_its_words() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("failing", &["/bin/true"]);
        let path = script(&bundle, "hook", "echo no such luck >&2; exit 3", false);
        bundle.config["hooks"] = json!({ kind: [{ "path": path }] });
        let said = failed(&bundle.run());
        assert!(
            said.contains(kind) && said.contains("exit code 3") && said.contains("no such luck"),
            "{said}"
        );
        assert!(!bundle.state_directory().exists());
    }
}

#[test]
fn a_failing_start_hook_fails_the_start() {
    let mut bundle = Bundle::script("start-hook", "touch /ran");
    bundle.config["root"]["readonly"] = json!(false);
    let path = script(&bundle, "hook", "exit 1", true);
    bundle.config["hooks"] = json!({ "startContainer": [{ "path": path }] });
    bundle.create();
    assert!(failed(&bundle.oci(&["start", bundle.id()])).contains("startContainer"));
    assert!(!bundle.root().join("ran").exists());
    support::eventually("the end", || bundle.status() == "stopped");
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let mut bundle = Bundle::new("timeout", &["/bin/true"]);
    bundle.config["hooks"] =
        json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1 }] });
    assert!(failed(&bundle.run()).contains("timeout of 1 s"));
}

#[test]
fn what_a_hook_started_ends_with_it_when_it_takes_too_long() {
    let mut bundle = Bundle::new("timeout-group", &["/bin/true"]);
    let pid_file = bundle.path().join("pid");
    let text = format!("sleep 1000 & echo $! > {}; wait", pid_file.display());
    let path = script(&bundle, "hook", &text, false);
    let hook = json!({ "path": path, "env": ["PATH=/bin:/usr/bin"], "timeout": 1 });
    bundle.config["hooks"] = json!({ "createRuntime": [hook] });
    assert!(failed(&bundle.run()).contains("timeout of 1 s"));
    let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    support::eventually("the end of the hook's child", || !support::lives(pid));
}

#[test]
fn hooks_that_can_not_be_run_are_refused_by_name() {
    for (hook, name) in [
        (json!({ "path": "bin/true" }), "hooks.prestart[].path"),
        (
            json!({ "path": "/bin/true", "timeout": 0 }),
            "hooks.prestart[].timeout",
        ),
        (
            json!({ "path": "/bin/true", "timeout": -1 }),
            "hooks.prestart[].timeout",
        ),
        (json!({}), "path"),
    ] {
        let mut bundle = Bundle::new("bad-hook", &["/bin/true"]);
        let ran = bundle.path().join("ran");
        bundle.config["hooks"] = json!({
            "prestart": [hook],
            "poststop": [{ "path": "/bin/sh", "args": ["sh", "-c", format!("touch {}", ran.display())] }]
        });
        let said = failed(&bundle.run());
        assert!(said.contains(name), "{name}: {said}");
        assert!(!ran.exists(), "nothing had begun that a hook could end");
    }
}

/// Logs its kind and then what another command of the runtime says about the container.
fn asking(bundle: &Bundle, kind: &str, arguments: &str) -> Value {
    let command = bundle.command(&[]);
    let program: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_str().unwrap().to_owned())
        .collect();
    let log = bundle.path().join(kind);
    let text = format!(
        "{} {} > {} 2>&1; exit 0",
        program.join(" "),
        arguments.replace("ID", bundle.id()),
        log.display()
    );
    let path = script(bundle, &format!("ask-{kind}"), &text, false);
    json!([{ "path": path, "env": ["PATH=/bin:/usr/bin"], "timeout": 20 }])
}

#[test]
fn a_hook_may_ask_for_the_state() {
    let mut bundle = Bundle::new("asking", &["/bin/sleep", "1000"]);
    bundle.config["hooks"] = json!({
        "prestart": asking(&bundle, "prestart", "state ID"),
        "createRuntime": asking(&bundle, "createRuntime", "state ID"),
        "createContainer": asking(&bundle, "createContainer", "state ID"),
        "poststart": asking(&bundle, "poststart", "state ID"),
        "poststop": asking(&bundle, "poststop", "state ID"),
    });
    bundle.start();
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    for (kind, status) in [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("poststart", "running"),
    ] {
        let text = fs::read_to_string(bundle.path().join(kind)).unwrap();
        let state: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{kind}: {text}"));
        assert_eq!(state["status"], status, "{kind}");
    }
    let text = fs::read_to_string(bundle.path().join("poststop")).unwrap();
    assert!(text.contains("does not exist"), "{text}");
}

#[test]
fn a_hook_may_work_on_the_container_once_it_runs() {
    let mut bundle = Bundle::new("working", &["/bin/sleep", "1000"]);
    bundle.config["hooks"] = json!({ "poststart": asking(&bundle, "poststart", "kill ID KILL") });
    bundle.start();
    support::eventually("the end", || bundle.status() == "stopped");
}

#[test]
fn a_failing_creation_is_undone_by_poststop_hooks() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::new("undone", &["/bin/true"]);
        let told = bundle.path().join("told");
        let text = format!("cat > {}", told.display());
        let path = script(&bundle, "poststop", &text, false);
        bundle.config["hooks"] = json!({
            kind: [{ "path": "/bin/false" }],
            "poststop": [{ "path": "/bin/false" }, { "path": path, "env": ["PATH=/bin:/usr/bin"] }]
        });
        let bundle_path = bundle.path().to_str().unwrap().to_owned();
        let said = failed(&bundle.oci(&["create", "--bundle", &bundle_path, bundle.id()]));
        assert!(
            said.contains(kind) && said.contains("error running poststop hook #0: /bin/false"),
            "{said}"
        );
        let state: Value = serde_json::from_str(&fs::read_to_string(&told).unwrap()).unwrap();
        assert_eq!(state["status"], "stopped");
        assert!(!bundle.state_directory().exists());
    }
}

#[test]
fn since_1_3_a_failing_poststart_hook_ends_the_container() {
    for (version, fatal) in [("1.2.1", false), ("1.3.0", true)] {
        let mut bundle = Bundle::new("poststart", &["/bin/sleep", "1000"]);
        let ran = bundle.path().join("ran");
        let path = script(&bundle, "second", &format!("touch {}", ran.display()), false);
        bundle.config["ociVersion"] = json!(version);
        bundle.config["hooks"] = json!({
            "poststart": [{ "path": "/bin/false" }, { "path": path, "env": ["PATH=/bin:/usr/bin"] }]
        });
        bundle.create();
        let output = bundle.oci(&["start", bundle.id()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("error running poststart hook #0: /bin/false"),
            "{said}"
        );
        assert_eq!(output.status.success(), !fatal, "{version}");
        assert_eq!(ran.exists(), !fatal, "{version}");
        assert_eq!(bundle.status(), if fatal { "stopped" } else { "running" });
    }
}

#[test]
fn hooks_after_the_fact_only_warn() {
    let mut bundle = Bundle::new("warn", &["/bin/true"]);
    bundle.config["ociVersion"] = json!("1.2.1");
    bundle.config["hooks"] =
        json!({ "poststart": [{ "path": "/bin/false" }], "poststop": [{ "path": "/no/such" }] });
    let output = bundle.run();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    succeeded(&output);
    assert!(said.contains("poststart") && said.contains("poststop"), "{said}");
}

/// As a hook does that adds a GPU's driver: before the container's root is entered it is found at its own path.
#[test]
fn hooks_can_enter_the_mount_namespace_and_mount_below_the_root() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = Bundle::script("mounts", "grep ' /mnt ' /proc/mounts; cat /mnt/file");
        fs::create_dir_all(bundle.root().join("mnt")).unwrap();
        let mount = format!(
            "mount -t tmpfs driver {root}/mnt && echo here > {root}/mnt/file",
            root = bundle.root().display()
        );
        let text = if kind == "createContainer" {
            mount
        } else {
            format!(
                "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/') && exec nsenter --mount=/proc/$pid/ns/mnt sh -c '{mount}'"
            )
        };
        let path = script(&bundle, kind, &text, false);
        bundle.config["hooks"] =
            json!({ kind: [{ "path": path, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }] });
        let output = bundle.output();
        assert!(output.starts_with("driver /mnt tmpfs rw"), "{kind}: {output}");
        assert!(output.trim_end().ends_with("here"), "{kind}: {output}");
        assert!(
            !bundle.root().join("mnt/file").exists(),
            "{kind}: it is mounted on the host"
        );
    }
}

/// Blocked, ignored and caught signals, as /proc/self/status has them.
fn no_signals(status: &str) {
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find(|line| line.starts_with(mask));
        assert_eq!(line, Some(&*format!("{mask}:\t0000000000000000")), "{status}");
    }
}

#[test]
fn hooks_and_programs_begin_with_no_signal_blocked_or_ignored() {
    let mut bundle = Bundle::new("signals", &["/bin/cat", "/proc/self/status"]);
    let mut hooks = json!({});
    for kind in KINDS {
        let text = format!("exec cat /proc/self/status > {}/{kind}", bundle.path().display());
        if kind != "startContainer" {
            let path = script(&bundle, &format!("{kind}.sh"), &text, false);
            hooks[kind] = json!([{ "path": path, "env": ["PATH=/bin:/usr/bin"] }]);
        }
    }
    bundle.config["hooks"] = hooks;
    let oci = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let output = std::process::Command::new("env")
        .args(["--ignore-signal=INT,QUIT,USR1", "--block-signal=TERM,USR2"])
        .arg(oci.get_program())
        .args(oci.get_args())
        .output()
        .unwrap();
    no_signals(&succeeded(&output));
    for kind in KINDS.iter().filter(|kind| **kind != "startContainer") {
        no_signals(&fs::read_to_string(bundle.path().join(kind)).unwrap());
    }
}
