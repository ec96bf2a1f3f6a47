//! The systemd driver, where systemd runs: in the virtual machine of `hack/vm/test`. Elsewhere only that it is missed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::{Bundle, eventually, failed, succeeded};

fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// A bundle whose container is the scope `berth-<id>.scope` in a slice of the test.
fn bundle(name: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::script(name, script);
    bundle.config["linux"]["cgroupsPath"] = json!(format!("test-{name}.slice:berth:{}", bundle.id()));
    bundle
}

fn unit(bundle: &Bundle) -> String {
    format!("berth-{}.scope", bundle.id())
}

/// The group's files. `memory` is the hierarchy on cgroup v1.
fn directory(bundle: &Bundle, name: &str) -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let root = if unified {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/memory"
    };
    Path::new(root)
        .join(format!("test.slice/test-{name}.slice"))
        .join(unit(bundle))
}

fn systemd(bundle: &Bundle, arguments: &[&str]) -> Output {
    bundle.oci(&[&["--systemd-cgroup"], arguments].concat())
}

fn start(bundle: &Bundle) {
    let path = bundle.path().to_str().unwrap();
    let mut command = bundle.command(&[
        "--systemd-cgroup",
        "run",
        "--detach",
        "--bundle",
        path,
        bundle.id(),
    ]);
    assert!(
        command
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap()
            .success()
    );
}

fn property(unit: &str, name: &str) -> String {
    let output = Command::new("systemctl")
        .args(["show", "--value", "-p", name, unit])
        .output()
        .unwrap();
    succeeded(&output)
}

fn is_gone(unit: &str) -> bool {
    property(unit, "ActiveState") == "inactive" && property(unit, "LoadState") == "not-found"
}

#[test]
fn a_scope_has_the_limits_and_goes_with_its_container() {
    if !booted() {
        return;
    }
    let mut bundle = bundle("limits", "sleep 1000");
    bundle.config["linux"]["resources"] = json!({
        "memory": { "limit": 67_108_864, "reservation": 33_554_432 },
        "cpu": { "shares": 512, "quota": 12_345, "period": 100_000, "cpus": "0" },
        "pids": { "limit": 50 },
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    bundle.config["annotations"] = json!({
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.TimeoutStopSec": "7",
    });
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    start(&bundle);
    let unit = unit(&bundle);
    for (name, expected) in [
        ("ActiveState", "active"),
        ("Slice", "test-limits.slice"),
        ("Delegate", "yes"),
        ("TasksMax", "50"),
        ("CollectMode", "inactive-or-failed"),
        ("TimeoutStopUSec", "7s"),
        ("DevicePolicy", "strict"),
        ("AllowedCPUs", "0"),
        // Whole percents.
        ("CPUQuotaPerSecUSec", "130ms"),
    ] {
        assert_eq!(property(&unit, name), expected, "{name}");
    }
    assert!(
        property(&unit, "DeviceAllow").contains("/dev/char/1:3"),
        "{}",
        property(&unit, "DeviceAllow")
    );
    let files = directory(&bundle, "limits");
    let read = |file: &str| fs::read_to_string(files.join(file)).unwrap().trim().to_owned();
    let unified = files.join("cgroup.controllers").exists();
    let limit = if unified {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    assert_eq!(read(limit), "67108864");
    if unified {
        assert_eq!(
            (read("memory.low").as_str(), read("cpu.max").as_str()),
            ("33554432", "13000 100000")
        );
        assert_eq!(
            (read("pids.max").as_str(), read("cpuset.cpus").as_str()),
            ("50", "0")
        );
    }
    // The container is alone in it.
    let pid = bundle.state()["pid"].to_string();
    assert_eq!(read("cgroup.procs"), pid);

    succeeded(&bundle.oci(&[
        "update",
        "--memory",
        "128m",
        "--pids-limit",
        "60",
        "--cpu-quota",
        "54321",
        bundle.id(),
    ]));
    assert_eq!(
        (property(&unit, "TasksMax").as_str(), read(limit).as_str()),
        ("60", "134217728")
    );
    // What systemd thinks is what the files say, also after it wrote them again.
    succeeded(&Command::new("systemctl").arg("daemon-reload").output().unwrap());
    assert_eq!(read(limit), "134217728");
    if unified {
        assert_eq!(
            (read("pids.max").as_str(), read("cpu.max").as_str()),
            ("60", "55000 100000")
        );
    }
    let devices =
        "head -c 1 /dev/zero | wc -c; mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg 2>&1 | grep -o 'not permitted'";
    assert_eq!(succeeded(&bundle.exec(devices)), "1\nnot permitted");

    succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
    eventually("it has stopped", || bundle.status() == "stopped");
    succeeded(&bundle.oci(&["delete", bundle.id()]));
    assert!(is_gone(&unit));
    assert!(!files.exists(), "{}", files.display());
}

/// What is not there at its end is found by `delete`: the unit of a container that was killed for lack of memory failed,
/// and would stay.
#[test]
fn a_scope_that_failed_is_forgotten() {
    if !booted() {
        return;
    }
    let mut bundle = bundle(
        "failed",
        "sleep 1000 & head -c 200000000 /dev/zero | tail -c 200000000; exit 1",
    );
    bundle.config["linux"]["resources"] = json!({ "memory": { "limit": 16_777_216, "swap": 16_777_216 } });
    bundle.config["annotations"] = json!({ "org.systemd.property.OOMPolicy": "'kill'" });
    let unit = unit(&bundle);
    start(&bundle);
    eventually("the container was killed", || {
        bundle.status() == "stopped" || property(&unit, "ActiveState") != "active"
    });
    succeeded(&bundle.oci(&["delete", "--force", bundle.id()]));
    assert!(is_gone(&unit), "{}", property(&unit, "ActiveState"));
    // And the name is free.
    bundle.config["process"]["args"] = json!(["/bin/true"]);
    bundle.config["annotations"] = json!({});
    let path = bundle.path().to_str().unwrap();
    succeeded(&systemd(&bundle, &["run", "--bundle", path, bundle.id()]));
    assert!(is_gone(&unit));
}

/// systemd listens for root itself; where it can't be reached so, there is the bus.
#[test]
fn the_bus_serves_as_well() {
    if !booted() {
        return;
    }
    let mut bundle = bundle("bus", "cat /proc/self/cgroup");
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }]);
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "cgroup");
    let path = bundle.path().to_str().unwrap();
    let inner = bundle.command(&["--systemd-cgroup", "run", "--bundle", path, bundle.id()]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount --bind /dev/null /run/systemd/private && exec \"$0\" \"$@\"");
    command.arg(inner.get_program()).args(inner.get_args());
    let output = succeeded(&command.output().unwrap());
    assert!(
        output.contains(&format!("test.slice/test-bus.slice/{}", unit(&bundle))),
        "{output}"
    );
    eventually("the unit is gone", || is_gone(&unit(&bundle)));
}

#[test]
fn a_unit_that_is_used_is_left_alone() {
    if !booted() {
        return;
    }
    let bundle = bundle("used", "sleep 1000");
    let unit = unit(&bundle);
    let mut other = Command::new("systemd-run");
    other.args([
        "--scope",
        "--unit",
        &unit,
        "--slice",
        "test-used.slice",
        "--quiet",
        "sleep",
        "1000",
    ]);
    let mut other = other.spawn().unwrap();
    eventually("the other scope is there", || {
        property(&unit, "ActiveState") == "active"
    });
    let path = bundle.path().to_str().unwrap();
    let message = failed(&systemd(&bundle, &["create", "--bundle", path, bundle.id()]));
    assert!(message.contains(&unit), "{message}");
    assert_eq!(property(&unit, "ActiveState"), "active");
    other.kill().unwrap();
    other.wait().unwrap();
    eventually("the other scope is gone", || is_gone(&unit));
}

#[test]
fn mistakes_are_named_and_leave_nothing() {
    let mut bundle = bundle("mistakes", "true");
    let path = bundle.path().to_str().unwrap().to_owned();
    let create = |bundle: &Bundle| failed(&systemd(bundle, &["create", "--bundle", &path, bundle.id()]));
    if booted() {
        let unit = unit(&bundle);
        bundle.config["annotations"] = json!({ "org.systemd.property.NoSuchThing": "true" });
        let message = create(&bundle);
        assert!(
            message.contains("NoSuchThing") && message.contains(&unit),
            "{message}"
        );
        assert!(is_gone(&unit));
        // A limit that systemd doesn't know, after the scope was made.
        bundle.config["annotations"] = json!({});
        bundle.config["linux"]["resources"] =
            json!({ "hugepageLimits": [{ "pageSize": "3MB", "limit": 1 }] });
        let message = create(&bundle);
        assert!(message.contains("pageSize"), "{message}");
        eventually("the scope is gone", || is_gone(&unit));
    } else {
        let message = create(&bundle);
        assert!(
            message.contains(&unit(&bundle)) && message.contains("needs systemd"),
            "{message}"
        );
    }
    bundle.config["linux"]["cgroupsPath"] = json!("/a/path");
    assert!(create(&bundle).contains("slice:prefix:name"));
    bundle.config["linux"]["cgroupsPath"] = json!("a--b.slice:x:y");
    assert!(create(&bundle).contains("a--b.slice"));
    assert!(!bundle.state_directory().exists());
}

/// Where the systemd of the user `nobody` listens, if there is one: in the virtual machine.
fn users_systemd() -> Option<String> {
    std::env::var("BERTH_USERS_SYSTEMD").ok()
}

/// A command of the user's; `session` is where the user's systemd is looked for.
fn as_nobody(bundle: &Bundle, session: Option<&str>, arguments: &[&str]) -> Command {
    const NOBODY: u32 = 65534;
    let mut command = bundle.command(&[&["--systemd-cgroup"], arguments].concat());
    command.uid(NOBODY).gid(NOBODY);
    command
        .env_remove("DBUS_SESSION_BUS_ADDRESS")
        .env_remove("XDG_RUNTIME_DIR");
    if let Some(directory) = session {
        command.env("XDG_RUNTIME_DIR", directory);
    }
    command
}

#[test]
fn a_users_scope_is_made_by_the_users_systemd() {
    let Some(session) = users_systemd() else {
        return;
    };
    let mut bundle = Bundle::script("users", "sleep 1000");
    bundle.config = Value::Null;
    let owner = Command::new("chown")
        .args(["-R", "nobody:nogroup"])
        .arg(bundle.path())
        .output();
    succeeded(&owner.unwrap());
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    let path = bundle.path().to_str().unwrap().to_owned();
    succeeded(
        &as_nobody(&bundle, None, &["spec", "--rootless", "--bundle", &path])
            .output()
            .unwrap(),
    );
    bundle.config = serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap();
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    bundle.config["linux"]["cgroupsPath"] = json!(format!(":berth:{}", bundle.id()));
    bundle.config["linux"]["resources"] =
        json!({ "memory": { "limit": 67_108_864 }, "pids": { "limit": 50 } });
    let run = ["run", "--detach", "--bundle", &path, bundle.id()];

    let said = failed(&as_nobody(&bundle, None, &run).output().unwrap());
    assert!(said.contains("XDG_RUNTIME_DIR"), "{said}");
    assert!(!bundle.state_directory().exists());

    let log = bundle.path().join("said");
    let status = as_nobody(&bundle, Some(&session), &run)
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .status();
    assert!(status.unwrap().success(), "{}", fs::read_to_string(log).unwrap());
    let oci = |arguments: &[&str]| as_nobody(&bundle, Some(&session), arguments).output().unwrap();
    let state: Value = serde_json::from_str(&succeeded(&oci(&["state", bundle.id()]))).unwrap();
    let group = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let group = group.trim().strip_prefix("0::").unwrap().to_owned();
    assert!(
        group.starts_with("/user.slice/user-65534.slice/user@65534.service/user.slice/")
            && group.ends_with(&unit(&bundle)),
        "{group}"
    );
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).unwrap();
    assert_eq!(
        (read("memory.max").trim(), read("pids.max").trim()),
        ("67108864", "50")
    );
    assert_eq!(
        succeeded(&oci(&[
            "exec",
            bundle.id(),
            "/bin/sh",
            "-c",
            "cat /proc/self/cgroup; id -u"
        ])),
        "0::/\n0"
    );
    succeeded(&oci(&["update", "--pids-limit", "40", bundle.id()]));
    assert_eq!(read("pids.max").trim(), "40");
    succeeded(&oci(&["pause", bundle.id()]));
    succeeded(&oci(&["resume", bundle.id()]));
    succeeded(&oci(&["kill", bundle.id(), "KILL"]));
    eventually("the end", || {
        succeeded(&oci(&["state", bundle.id()])).contains("stopped")
    });
    succeeded(&oci(&["delete", bundle.id()]));
    eventually("the group is gone", || {
        !Path::new(&format!("/sys/fs/cgroup{group}")).exists()
    });
    bundle.config["linux"]["cgroupsPath"] = json!("");
}
