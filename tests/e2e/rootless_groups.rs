//! `berth run` by an ordinary user who was given a control group. This machine's unified hierarchy shows that pods have groups;
//! `hack/vm/rootless` has limits in them, and systemd.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Node, OrdinaryUser, Running, as_user, container, eventually, pod};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::json;

const ROOT: &str = "/sys/fs/cgroup";
const USER: u32 = 1500;

/// A group that root gave to the user, on a machine that seems to have cgroup v2 only.
struct Given(PathBuf);

impl Given {
    fn new(node: &Node) -> Self {
        let is_unified = fs::exists(format!("{ROOT}/cgroup.controllers")).unwrap();
        if !is_unified {
            mount(
                Some("cgroup2"),
                ROOT,
                Some("cgroup2"),
                MsFlags::empty(),
                None::<&str>,
            )
            .unwrap();
        }
        let given = Path::new(ROOT).join(format!("{}-given", node.marker()));
        fs::create_dir(&given).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(given.join(file), Some(USER), Some(USER)).unwrap();
        }
        Self(given)
    }

    /// Runs a test as a user who has such a group, in which nothing is left in the end but the group of who called.
    fn with(test: impl FnOnce(&Node, &OrdinaryUser<'_>, &Given)) {
        as_user(|node, user| {
            let given = Self::new(node);
            test(node, user, &given);
            user.ends();
            let left = given.groups();
            assert!(
                left.iter().all(|group| group.ends_with("/berth-callers")),
                "left behind: {left:?}"
            );
            given.remove();
        });
    }

    /// The command, begun in the group or in one below it.
    fn start(&self, command: &Command) -> Running {
        let callers = self.0.join("berth-callers");
        let group = if callers.exists() { callers } else { self.0.clone() };
        let mut within = Command::new("sh");
        within
            .args(["-c", "echo $$ >\"$0\"/cgroup.procs && exec \"$@\""])
            .arg(group)
            .arg(command.get_program())
            .args(command.get_args());
        if let Some(directory) = command.get_current_dir() {
            within.current_dir(directory);
        }
        Running::start(within, "")
    }

    fn groups(&self) -> Vec<String> {
        fn walk(directory: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    found.push(entry.path().display().to_string());
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found
    }

    fn remove(self) {
        // Who was in it last may have ended just now.
        eventually("nobody is in the callers' group", || {
            fs::remove_dir(self.0.join("berth-callers")).ok()
        });
        eventually("the group that was given is empty", || {
            fs::remove_dir(&self.0).ok()
        });
        let _ = umount2(ROOT, MntFlags::MNT_DETACH);
    }
}

#[test]
fn pods_have_groups_in_the_one_that_was_given_to_the_user() {
    Given::with(|_, user, given| {
        let manifest = pod(
            "grouped",
            json!({
                "shareProcessNamespace": true,
                "containers": [
                    container("main", &["sleep", "inf"], json!({})),
                    container("other", &["sleep", "inf"], json!({ "livenessProbe": { "exec": { "command": ["true"] } } })),
                ],
            }),
        );
        let file = user.file("pod.yaml", &manifest);
        let pod = given.start(&user.berth(&["run", &file.display().to_string()]));
        pod.line("other started");
        let groups = given.groups();
        let of_pod = groups
            .iter()
            .find(|group| group.contains("kubepods/besteffort/pod"))
            .unwrap_or_else(|| panic!("{groups:?}"));
        let processes = |group: &str| fs::read_to_string(format!("{group}/cgroup.procs")).unwrap_or_default();
        let containers = groups
            .iter()
            // A probe's command has a group below its container's.
            .filter(|group| {
                let below = group.strip_prefix(&format!("{of_pod}/"));
                below.is_some_and(|name| !name.contains('/')) && !processes(group).is_empty()
            });
        // Those of the two, and the one of the shim and the pause.
        assert_eq!(containers.count(), 3, "{groups:?}");
        given
            .start(&user.berth(&["exec", "grouped", "-c", "main", "--", "exit", "7"]))
            .wait()
            .expect_code(7);
        given
            .start(&user.berth(&["top", "grouped"]))
            .wait()
            .expect_code(0)
            .expect_output(&["main", "other"]);
        // A second command finds the node's group.
        let file = user.file("second.yaml", &manifest.replace("grouped", "second"));
        given
            .start(&user.berth(&["run", "-d", &file.display().to_string()]))
            .wait()
            .expect_code(0);
        given
            .start(&user.berth(&["wait", "second", "--for=condition=Ready"]))
            .wait()
            .expect_code(0);
        given
            .start(&user.berth(&["rm", "--force", "second"]))
            .wait()
            .expect_code(0);
        pod.interrupt();
        pod.wait().expect_code(0).expect_no_panic();
    });
}

#[test]
fn a_killed_keeper_s_groups_are_used_again_and_removed() {
    Given::with(|node, user, given| {
        let manifest = pod(
            "again",
            json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
        );
        let file = user.file("pod.yaml", &manifest);
        let command = || user.berth(&["run", &file.display().to_string()]);
        let pod = given.start(&command());
        pod.line("main started");
        node.signal("--first", Signal::SIGKILL);
        pod.wait().expect_code(137);
        eventually("all ends", || {
            let all = node.processes();
            all.iter().all(|process| process.state == 'Z').then_some(())
        });
        let left = given.groups();
        assert!(left.iter().any(|group| group.contains("kubepods")), "{left:?}");
        let pod = given.start(&command());
        pod.line("main started");
        pod.interrupt();
        pod.wait().expect_code(0);
    });
}

#[test]
fn limits_without_their_controller_are_refused_by_name() {
    Given::with(|_, user, given| {
        let controllers = fs::read_to_string(given.0.join("cgroup.controllers")).unwrap();
        let limited = json!({ "resources": { "limits": { "memory": "16Mi" } } });
        let manifest = pod(
            "limited",
            json!({ "restartPolicy": "Never", "containers": [container("main", &["true"], limited)] }),
        );
        let file = user.file("pod.yaml", &manifest);
        let ended = given
            .start(&user.berth(&["run", &file.display().to_string()]))
            .wait();
        if controllers.split_whitespace().any(|name| name == "memory") {
            ended.expect_code(0);
        } else {
            ended
                .expect_code(1)
                .expect_output(&["limits[memory]", "lack its controller"]);
        }
    });
}

#[test]
fn a_process_that_ends_after_its_node_leaves_no_group_behind() {
    Given::with(|node, user, given| {
        let manifest = pod(
            "brief",
            json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
        );
        let file = user.file("pod.yaml", &manifest);
        let pod = given.start(&user.berth(&["run", &file.display().to_string()]));
        pod.line("main started");
        let groups = given.groups();
        let nodes = groups.iter().find(|group| group.ends_with("/berth-node"));
        // As a command is that has closed its connection, and takes its time to end.
        let mut late = Command::new("sleep");
        let mut late = late.arg("600").spawn().unwrap();
        fs::write(format!("{}/cgroup.procs", nodes.unwrap()), late.id().to_string()).unwrap();
        pod.interrupt();
        pod.wait().expect_code(0);
        let keepers = || node.process("--first");
        eventually("the keeper has left its own group", || {
            let group = fs::read_to_string(format!("/proc/{}/cgroup", keepers().expect("a keeper").pid));
            group.ok()?.contains("/berth-callers").then_some(())
        });
        late.kill().unwrap();
        late.wait().unwrap();
    });
}
