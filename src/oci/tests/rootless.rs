//! The runtime run by a user who is not root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

/// Debian's `nobody` and `nogroup`: newuidmap(1) wants a name for the caller.
const USER: u32 = 65534;

/// A bundle that belongs to the user, with the configuration that the runtime writes for them.
fn bundle(name: &str, args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(name, args);
    fs::remove_file(bundle.path().join("config.json")).unwrap();
    give(bundle.path());
    let spec = as_user(&mut Command::new(env!("CARGO_BIN_EXE_berth-oci")))
        .args(["spec", "--rootless", "--bundle"])
        .arg(bundle.path())
        .output()
        .unwrap();
    succeeded(&spec);
    let text = fs::read(bundle.path().join("config.json")).unwrap();
    bundle.config = serde_json::from_slice(&text).unwrap();
    bundle.config["process"]["terminal"] = json!(false);
    bundle.config["process"]["args"] = json!(args);
    bundle.config["root"]["readonly"] = json!(false);
    bundle
}

fn script(name: &str, script: &str) -> Bundle {
    bundle(name, &["/bin/sh", "-c", script])
}

/// Gives all that a path has in it to the user.
fn give(path: &Path) {
    let owner = format!("{USER}:{USER}");
    let output = Command::new("chown")
        .args(["-hR", &owner])
        .arg(path)
        .output()
        .unwrap();
    succeeded(&output);
}

fn as_user(command: &mut Command) -> &mut Command {
    command.uid(USER).gid(USER).env_remove("XDG_RUNTIME_DIR")
}

fn oci(bundle: &Bundle, arguments: &[&str]) -> Output {
    as_user(&mut bundle.command(arguments)).output().unwrap()
}

fn run(bundle: &Bundle) -> Output {
    oci(
        bundle,
        &["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()],
    )
}

/// Creates and starts, detached.
fn start(bundle: &Bundle) {
    let mut create = bundle.command(&["create", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let created = as_user(&mut create)
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status();
    assert!(created.unwrap().success());
    succeeded(&oci(bundle, &["start", bundle.id()]));
}

#[test]
fn a_container_of_a_user() {
    let bundle = script(
        "user",
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; hostname; echo x >/dev/null && touch /tmp-file && \
         stat -c %u /tmp-file; ls /sys/class | wc -l; ls -d /dev/mqueue /dev/shm /dev/pts/ptmx; echo $$",
    );
    let output = succeeded(&run(&bundle));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "0", "{output}");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["0", "65534", "1"],
        "{output}"
    );
    assert_eq!(lines[2..5], ["deny", "berth", "0"], "{output}");
    assert_ne!(lines[5], "0", "{output}");
    assert_eq!(
        lines[6..],
        ["/dev/mqueue", "/dev/pts/ptmx", "/dev/shm", "1"],
        "{output}"
    );
    let file = fs::metadata(bundle.root().join("tmp-file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), USER);
}

#[test]
fn the_life_of_a_users_container() {
    let mut bundle = bundle("life", &["/bin/sleep", "1000"]);
    bundle.config["process"]["oomScoreAdj"] = json!(500);
    start(&bundle);
    let state: Value = serde_json::from_str(&succeeded(&oci(&bundle, &["state", bundle.id()]))).unwrap();
    assert_eq!(state["status"], "running");
    let pid = state["pid"].as_i64().unwrap();
    let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score.trim(), "500");
    let script = "id -u; echo $$ >/dev/null; ls /proc | grep -c '^1$'; readlink /proc/self/ns/user; hostname";
    let exec = succeeded(&oci(&bundle, &["exec", bundle.id(), "/bin/sh", "-c", script]));
    let theirs = fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(exec, format!("0\n1\n{}\nberth", theirs.display()));
    succeeded(&oci(&bundle, &["kill", bundle.id(), "KILL"]));
    support::eventually("the end", || !support::lives(pid));
    succeeded(&oci(&bundle, &["delete", bundle.id()]));
    assert!(!bundle.state_directory().exists());
}

/// Runs the container where the user has subordinate ids, in a mount namespace of its own.
fn run_with_ranges(bundle: &Bundle) -> Output {
    let ids = bundle.path().join("subids");
    fs::write(&ids, "nobody:200000:65536\n").unwrap();
    let inner = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let user = USER.to_string();
    Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            "touch /etc/subuid /etc/subgid && mount --bind {0} /etc/subuid && mount --bind {0} /etc/subgid && \
             exec setpriv --reuid {user} --regid {user} --clear-groups \"$@\"",
            ids.display()
        ))
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .unwrap()
}

fn with_ranges(bundle: &mut Bundle, first: u32) {
    let map = json!([
        { "containerID": 0, "hostID": USER, "size": 1 }, { "containerID": 1, "hostID": first, "size": 65536 }
    ]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
}

#[test]
fn ranges_of_ids_come_from_newuidmap() {
    let mut bundle = script("ranges", "id -u; id -G; touch /tmp/f; stat -c %u:%g /tmp/f");
    with_ranges(&mut bundle, 200_000);
    bundle.config["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [7, 8] });
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    assert_eq!(succeeded(&run_with_ranges(&bundle)), "1000\n1001 7 8\n1000:1001");
    with_ranges(&mut bundle, 300_000);
    let said = failed(&run_with_ranges(&bundle));
    assert!(
        said.contains("linux.uidMappings") && said.contains("newuidmap refused it"),
        "{said}"
    );
}

#[test]
fn what_takes_root_is_refused_by_name() {
    let limits = |field: &str, value: Value| (format!("/linux/resources/{field}"), value);
    for ((pointer, value), said) in [
        (
            limits("memory", json!({ "limit": 10_000_000 })),
            "linux.resources.memory cannot be set",
        ),
        (limits("pids", json!({ "limit": 10 })), "linux.resources.pids"),
        (
            ("/linux/namespaces".to_owned(), json!([{ "type": "mount" }])),
            "needs a user namespace",
        ),
        (
            (
                "/linux/namespaces".to_owned(),
                json!([{ "type": "mount" }, { "type": "user" }, { "type": "time" }]),
            ),
            "linux.namespaces[time]",
        ),
    ] {
        let mut bundle = bundle("refused", &["/bin/true"]);
        bundle.config["linux"]["resources"] = json!({});
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bundle.config.pointer_mut(parent).unwrap()[field] = value;
        let output = failed(&run(&bundle));
        assert!(output.contains(said), "{said}: {output}");
        assert!(!bundle.state_directory().exists());
    }
}

#[test]
fn rules_for_devices_do_not_stand_in_the_way() {
    let mut bundle = bundle("rules", &["/bin/true"]);
    bundle.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    succeeded(&run(&bundle));
    // Those that mean nothing do.
    bundle.config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwx" }] });
    for said in [failed(&run(&bundle)), failed(&run_nested(&bundle))] {
        assert!(said.contains("linux.resources.devices.access"), "{said}");
    }
}

/// `run` as root of a user namespace of the user's, as engines without root do it.
fn run_nested(bundle: &Bundle) -> Output {
    let user = USER.to_string();
    let inner = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["unshare", "--map-root-user", "--mount"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .unwrap()
}

#[test]
fn the_usual_configuration_runs_in_a_user_namespace_too() {
    let mut bundle = Bundle::script(
        "usual",
        "ls /sys/class/net; id -u; ls /sys/fs/cgroup >/dev/null && echo ok",
    );
    give(bundle.path());
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // The group of terminals is not mapped.
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    let output = succeeded(&run(&bundle));
    assert_eq!(output, "lo\n0\nok");
    // Without a network namespace of its own a sysfs is refused by the kernel.
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "network");
    assert!(succeeded(&run(&bundle)).ends_with("0\nok"));
}

#[test]
fn a_copy_of_the_runtime_that_belongs_to_the_user_can_not_be_overwritten() {
    let bundle = bundle("own-exe", &["/proc/self/exe", "--version"]);
    let copy = bundle.path().join("berth-oci");
    fs::copy(env!("CARGO_BIN_EXE_berth-oci"), &copy).unwrap();
    give(&copy);
    let mut run = Command::new(&copy);
    run.arg("--root")
        .arg(bundle.path().join("state"))
        .args(["create", "--bundle"])
        .arg(bundle.path())
        .arg(bundle.id())
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    fs::write(bundle.path().join("config.json"), bundle.config.to_string()).unwrap();
    assert!(as_user(&mut run).status().unwrap().success());
    let state: Value = serde_json::from_str(&succeeded(&oci(&bundle, &["state", bundle.id()]))).unwrap();
    let executable = fs::read_link(format!("/proc/{}/exe", state["pid"])).unwrap();
    assert!(
        executable.to_str().unwrap().starts_with("/memfd:"),
        "{}",
        executable.display()
    );
}

#[test]
fn root_of_a_namespace_that_a_user_made() {
    let mut bundle = Bundle::script(
        "nested",
        "id -u; echo x >/dev/null && echo ok; stat -c %t:%T /dev/zero",
    );
    give(bundle.path());
    for mount in bundle.config["mounts"].as_array_mut().unwrap() {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
    let user = USER.to_string();
    assert_eq!(succeeded(&run_nested(&bundle)), "0\nok\n1:5");
    bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
    // It stays in the machine's own cgroup namespace, in which the user has no say.
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "cgroup");
    fs::write(bundle.path().join("config.json"), bundle.config.to_string()).unwrap();
    let program = bundle.command(&[]);
    let program: Vec<_> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    let script = format!(
        "{0} create --bundle {1} {2} >/dev/null && {0} start {2} && {0} exec {2} id -u && {0} delete --force {2}",
        program.join(" "),
        bundle.path().display(),
        bundle.id()
    );
    let life = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["unshare", "--map-root-user", "--mount", "sh", "-c", &script])
        .output()
        .unwrap();
    assert_eq!(succeeded(&life), "0");
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 10 });
    let said = failed(&run_nested(&bundle));
    assert!(said.contains("linux.resources.pids"), "{said}");
}

/// A group in every hierarchy that belongs to the user, and is gone at the end. The group below it that the runtime
/// begins in leaves the other one free of processes, as cgroup v2 wants it.
struct Delegated(String);

impl Delegated {
    fn new(name: &str) -> Delegated {
        let group = Delegated(format!("berth-oci-{name}-{}", std::process::id()));
        for root in hierarchies() {
            let above = root.join(&group.0);
            for (parent, directory) in [(&root, &above), (&above, &above.join("runtime"))] {
                fs::create_dir(directory).unwrap();
                // A v1 group without processors and memory nodes takes no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let inherited = fs::read(parent.join(file)).unwrap_or_default();
                    if directory.join(file).exists() && !inherited.is_empty() {
                        fs::write(directory.join(file), inherited).unwrap();
                    }
                }
            }
            give(&above);
        }
        group
    }

    /// Runs a command of the user whose first process is in the group.
    fn oci(&self, bundle: &Bundle, arguments: &[&str]) -> Output {
        let inner = bundle.command(arguments);
        let enter: String = hierarchies()
            .iter()
            .map(|root| format!("echo $$ > {}/{}/runtime/cgroup.procs && ", root.display(), self.0))
            .collect();
        let user = USER.to_string();
        Command::new("sh")
            .arg("-c")
            .arg(format!(
                "{enter} exec setpriv --reuid {user} --regid {user} --clear-groups \"$@\""
            ))
            .arg("sh")
            .arg(inner.get_program())
            .args(inner.get_args())
            .output()
            .unwrap()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for root in hierarchies() {
            for directory in [root.join(&self.0).join("runtime"), root.join(&self.0)] {
                let _ = fs::remove_dir(directory);
            }
        }
    }
}

/// Where the control groups are mounted: one hierarchy, or many.
fn hierarchies() -> Vec<std::path::PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.procs").exists() {
        return vec![base.to_owned()];
    }
    let entries = fs::read_dir(base).unwrap().flatten();
    let directories = entries.map(|entry| entry.path()).filter(|path| {
        let is_link = fs::symlink_metadata(path).unwrap().is_symlink();
        !is_link && path.join("cgroup.procs").exists()
    });
    directories.collect()
}

#[test]
fn limits_hold_where_control_groups_are_the_users() {
    let delegated = Delegated::new("delegated");
    let mut bundle = bundle("delegated", &["/bin/cat", "/proc/self/cgroup"]);
    let path = format!("/{}/container", delegated.0);
    bundle.config["linux"]["cgroupsPath"] = json!(path);
    bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 10 } });
    let list = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    list.retain(|namespace| namespace["type"] != "cgroup");
    let output = delegated.oci(
        &bundle,
        &["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()],
    );
    let said = succeeded(&output);
    // Beside a unified hierarchy a container leaves the named one alone.
    let mut groups = said.lines().filter(|line| !line.contains(":name="));
    assert!(groups.all(|line| line.ends_with(&path)), "{said}");
    assert!(support::leftovers(&path).is_empty());
}

#[test]
fn states_are_kept_where_the_user_may_write() {
    let bundle = bundle("xdg", &["/bin/sleep", "1000"]);
    fs::write(bundle.path().join("config.json"), bundle.config.to_string()).unwrap();
    let path = bundle.path().to_str().unwrap();
    let program = env!("CARGO_BIN_EXE_berth-oci");
    let user = USER.to_string();
    let state = bundle.path().join("berth-oci").join(bundle.id());
    let mut create = Command::new(program);
    create
        .args(["create", "--bundle", path, bundle.id()])
        .stdout(Stdio::null());
    let created = as_user(&mut create).env("XDG_RUNTIME_DIR", path).status();
    assert!(created.unwrap().success());
    assert!(state.exists());
    // An engine of the user calls the runtime as root of a namespace.
    let listed = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["unshare", "--map-root-user", program, "list", "-q"])
        .env("XDG_RUNTIME_DIR", path)
        .env("USER", "nobody")
        .output()
        .unwrap();
    assert_eq!(succeeded(&listed), bundle.id());
    let mut delete = Command::new(program);
    delete.args(["delete", "--force", bundle.id()]);
    let deleted = as_user(&mut delete).env("XDG_RUNTIME_DIR", path).output();
    succeeded(&deleted.unwrap());
    assert!(!state.exists());
}
