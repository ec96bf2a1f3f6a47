//! The library as the shim uses it: in-process, with namespaces and streams that the caller holds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use berth_runtime::oci::{LinuxIdMapping, Process, Spec};
use berth_runtime::{
    CreateArgs, Created, Error, ExecTarget, JoinedNamespaces, Pause, PauseArgs, Rootfs, Stdio, UserIds,
    create, exec, start_pause,
};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A directory with an image of busybox, and a container whose cgroup is gone at the end.
struct Place {
    directory: tempfile::TempDir,
    id: String,
}

impl Place {
    fn new(name: &str) -> Place {
        let directory = tempfile::Builder::new()
            .prefix("berth-runtime-")
            .tempdir()
            .unwrap();
        let bin = directory.path().join("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static");
        for applet in [
            "sh", "cat", "id", "sleep", "readlink", "grep", "ls", "touch", "tty", "true", "hostname",
        ] {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        for directory_name in ["upper", "work"] {
            fs::create_dir(directory.path().join(directory_name)).unwrap();
        }
        Place {
            directory,
            id: format!("{name}-{}", std::process::id()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn overlay(&self) -> Rootfs {
        Rootfs::Overlay {
            lower: vec![self.path("image")],
            upper: Some(self.path("upper")),
            work: Some(self.path("work")),

            mapped: false,
        }
    }

    fn spec(&self, script: &str) -> Spec {
        self.spec_with(script, |_| {})
    }

    fn spec_with(&self, script: &str, change: impl FnOnce(&mut Value)) -> Spec {
        let mut spec = json!({
            "ociVersion": "1.2.0",
            "process": {
                "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 }
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] }
            ],
            "linux": {
                "cgroupsPath": format!("/berth-runtime-{}", self.id),
                "namespaces": [{ "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }]
            }
        });
        change(&mut spec);
        serde_json::from_value(spec).unwrap()
    }

    /// Creates a container whose output can be read.
    fn create(&self, spec: &Spec, rootfs: Rootfs, namespaces: JoinedNamespaces<'_>) -> (Running<'_>, File) {
        let (output, stdout) = nix::unistd::pipe().unwrap();
        let null = || OwnedFd::from(File::options().read(true).write(true).open("/dev/null").unwrap());
        let stdio = Stdio::Fds {
            stdin: null(),
            stdout,
            stderr: std::io::stderr().as_fd().try_clone_to_owned().unwrap(),
        };
        let created = create(self.args(spec, rootfs, stdio, namespaces)).unwrap();
        (Running { place: self, created }, File::from(output))
    }

    fn args<'a>(
        &'a self,
        spec: &'a Spec,
        rootfs: Rootfs,
        stdio: Stdio,
        namespaces: JoinedNamespaces<'a>,
    ) -> CreateArgs<'a> {
        CreateArgs {
            id: &self.id,
            bundle: self.directory.path(),
            spec,
            rootfs,
            stdio,
            scope: None,
            namespaces,
            sources: None,
            preserve_fds: 0,
            no_pivot: false,
            new_keyring: true,
            find_program_now: false,
            listener: None,
        }
    }

    fn assert_clean(&self) {
        for root in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let path = root.path().join(format!("berth-runtime-{}", self.id));
            assert!(!path.exists(), "{} is left", path.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.directory.path().to_str().unwrap()),
            "mounts are left"
        );
        let children =
            fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid())).unwrap();
        assert_eq!(children.trim(), "", "processes are left");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}

/// A container that is killed and deleted at the end of the test.
struct Running<'a> {
    place: &'a Place,
    created: Created,
}

impl Running<'_> {
    fn wait(&self) -> WaitStatus {
        waitpid(self.created.pid, None).unwrap()
    }

    fn exec(&self, spec: &Spec, args: &[&str]) -> berth_runtime::Result<(Pid, String)> {
        let process: Process = serde_json::from_value(json!({
            "args": args, "env": ["PATH=/bin"], "cwd": "/", "user": { "uid": 0, "gid": 0 }
        }))
        .unwrap();
        let (output, stdout) = nix::unistd::pipe().unwrap();
        let stdio = Stdio::Fds {
            stdin: File::open("/dev/null").unwrap().into(),
            stderr: stdout.try_clone().unwrap(),
            stdout,
        };
        let target = ExecTarget {
            id: &self.place.id,
            bundle: self.place.directory.path(),
            pidfd: self.created.pidfd.as_fd(),
            spec,
            in_user_namespace: self.created.in_user_namespace,
            cgroup: &self.created.cgroup,
            seccomp: self.created.seccomp.as_ref(),
            scope: None,
            subgroup: None,
        };
        let execed = exec(&target, &process, stdio, 0)?;
        let mut text = String::new();
        File::from(output).read_to_string(&mut text).unwrap();
        Ok((execed.pid, text.trim_end().to_owned()))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = kill(self.created.pid, Signal::SIGKILL);
        let _ = waitpid(self.created.pid, None);
        self.created.cgroup.kill_all().unwrap();
        self.created.cgroup.delete().unwrap();
    }
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text.trim_end().to_owned()
}

fn end(pause: Pause) {
    kill(pause.pid, Signal::SIGTERM).unwrap();
    waitpid(pause.pid, None).unwrap();
}

#[test]
fn an_overlay_is_seen_by_the_container_only() {
    let place = Place::new("overlay");
    let spec = place.spec("echo hello; touch /made; grep ' / ' /proc/self/mounts");
    let (mut running, output) = place.create(&spec, place.overlay(), JoinedNamespaces::default());
    assert!(
        !place.path("upper/made").exists(),
        "the program ran before its start"
    );
    running.created.start().unwrap();
    let text = read(output);
    assert!(text.starts_with("hello\noverlay / overlay rw,"), "{text}");
    assert_eq!(running.wait(), WaitStatus::Exited(running.created.pid, 0));
    assert!(place.path("upper/made").exists());
    assert!(!place.path("image/made").exists());
}

#[test]
fn an_overlay_of_many_layers_and_long_paths() {
    let place = Place::new("layers");
    let mut lower = vec![];
    // Kernels before 6.7 take some sixty.
    for i in 0..45 {
        let layer = place.path(&format!(
            "layer-{i}-{}",
            "x".repeat(if i % 2 == 0 { 10 } else { 200 })
        ));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("file-{i}")), "").unwrap();
        lower.push(layer);
    }
    lower.push(place.path("image"));
    let spec = place.spec("ls / | grep -c ^file-; touch /x || echo read-only");
    let rootfs = Rootfs::Overlay {
        lower,
        upper: None,
        work: None,

        mapped: false,
    };
    // The places of the mounts must be there: nothing can be made in a root without an upper directory.
    for directory in ["proc", "dev"] {
        fs::create_dir(place.path("image").join(directory)).unwrap();
    }
    let (mut running, output) = place.create(&spec, rootfs, JoinedNamespaces::default());
    running.created.start().unwrap();
    assert_eq!(read(output), "45\nread-only");
    running.wait();
}

#[test]
fn containers_share_the_namespaces_of_a_pause() {
    let place = Place::new("pause");
    let sysctls = BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]);
    let args = PauseArgs {
        network: true,
        ipc: true,
        hostname: Some("my-pod"),
        pid: true,
        user: None,
        sysctls: Some(&sysctls),
        user_ids: UserIds::default(),
    };
    let pause = start_pause(&args).unwrap();
    let spec = place.spec("hostname; cat /proc/sys/net/ipv4/ip_forward; readlink /proc/self/ns/net");
    let (mut running, output) = place.create(&spec, place.overlay(), pause.namespaces.borrow());
    running.created.start().unwrap();
    let text = read(output);
    let net = fs::read_link(format!("/proc/{}/ns/net", pause.pid)).unwrap();
    assert!(text.starts_with("my-pod\n1\n"), "{text}");
    assert!(text.contains(net.to_str().unwrap()), "{text}");
    running.wait();
    drop(running);
    end(pause);
}

#[test]
fn a_pause_reaps_and_ends_when_told() {
    let place = Place::new("reap");
    let pause = start_pause(&PauseArgs {
        pid: true,
        ..PauseArgs::default()
    })
    .unwrap();
    // The orphan's parent is the pause from then on.
    let spec = place.spec("(sleep 0.05 &) ; true");
    let (mut running, output) = place.create(&spec, place.overlay(), pause.namespaces.borrow());
    running.created.start().unwrap();
    read(output);
    running.wait();
    let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", pause.pid)).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !children().trim().is_empty() {
        assert!(
            std::time::Instant::now() < deadline,
            "orphans are left: {}",
            children()
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(fs::read_dir(format!("/proc/{}/fd", pause.pid)).unwrap().count() <= 3);
    drop(running);
    end(pause);
}

fn map() -> Vec<LinuxIdMapping> {
    vec![LinuxIdMapping {
        container_id: 0,
        host_id: 100_000,
        size: 65_536,
    }]
}

#[test]
fn a_pod_with_a_user_namespace() {
    let place = Place::new("userns");
    let map = map();
    let args = PauseArgs {
        network: true,
        ipc: true,
        hostname: Some("userns"),
        user: Some((&map, &map)),
        ..PauseArgs::default()
    };
    let pause = start_pause(&args).unwrap();
    for directory in ["proc", "dev"] {
        fs::create_dir(place.path("image").join(directory)).unwrap();
    }
    let spec = place.spec("id -u; readlink /proc/self/ns/user; cat /proc/self/uid_map");
    let (mut running, output) = place.create(&spec, place.overlay(), pause.namespaces.borrow());
    assert!(running.created.in_user_namespace);
    running.created.start().unwrap();
    let text = read(output);
    let user = fs::read_link(format!("/proc/{}/ns/user", pause.pid)).unwrap();
    assert!(text.starts_with(&format!("0\n{}\n", user.display())), "{text}");
    running.wait();
    drop(running);
    end(pause);
}

#[test]
fn a_pause_refuses_sysctls_of_the_host() {
    let place = Place::new("refuse");
    for (name, network) in [("kernel.core_pattern", true), ("net.ipv4.ip_forward", false)] {
        let sysctls = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        let args = PauseArgs {
            network,
            sysctls: Some(&sysctls),
            ..PauseArgs::default()
        };
        assert!(matches!(start_pause(&args), Err(Error::Invalid { .. })), "{name}");
    }
    let sysctls = BTreeMap::from([("net.ipv4.no_such".to_owned(), "1".to_owned())]);
    let args = PauseArgs {
        network: true,
        sysctls: Some(&sysctls),
        ..PauseArgs::default()
    };
    assert!(start_pause(&args).unwrap_err().to_string().contains("no_such"));
    drop(place);
}

#[test]
fn a_missing_program_is_told_at_the_start() {
    let place = Place::new("missing");
    for (program, code) in [("nosuch", 127), ("/nosuch", 127), ("/bin", 126)] {
        let spec = place.spec_with("", |spec| spec["process"]["args"] = json!([program]));
        let (mut running, _output) = place.create(&spec, place.overlay(), JoinedNamespaces::default());
        let error = running.created.start().unwrap_err();
        assert!(
            matches!(error, Error::CannotRun { exit_code, .. } if exit_code == code),
            "{error}"
        );
        assert_eq!(
            running.wait(),
            WaitStatus::Exited(running.created.pid, i32::from(code))
        );
    }
}

#[test]
fn processes_are_added_and_their_failures_told() {
    let place = Place::new("exec");
    let spec = place.spec("sleep 1000");
    let (mut running, _output) = place.create(&spec, place.overlay(), JoinedNamespaces::default());
    running.created.start().unwrap();
    let (pid, text) = running
        .exec(&spec, &["sh", "-c", "readlink /proc/self/ns/mnt; exit 4"])
        .unwrap();
    assert_eq!(
        text,
        fs::read_link(format!("/proc/{}/ns/mnt", running.created.pid))
            .unwrap()
            .to_str()
            .unwrap()
    );
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 4));
    let error = running.exec(&spec, &["nosuch"]).unwrap_err();
    assert!(
        matches!(error, Error::CannotRun { exit_code: 127, .. }),
        "{error}"
    );
    // Children of this process are made in its own namespace again.
    let own = fs::read_link("/proc/self/ns/pid_for_children").unwrap();
    assert_eq!(own, fs::read_link("/proc/self/ns/pid").unwrap());
}

#[test]
fn a_terminal_is_returned() {
    let place = Place::new("terminal");
    let spec = place.spec("tty; read line; echo got $line");
    let stdio = Stdio::Terminal {
        width: 80,
        height: 24,
        carriage_returns: true,
    };
    let mut created = create(place.args(&spec, place.overlay(), stdio, JoinedNamespaces::default())).unwrap();
    let mut terminal = File::from(created.terminal.take().unwrap());
    created.start().unwrap();
    std::io::Write::write_all(&mut terminal, b"x\n").unwrap();
    let mut text = Vec::new();
    // At the end a terminal says EIO.
    let _ = terminal.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("/dev/pts/0\r\n") && text.contains("got x\r\n"),
        "{text:?}"
    );
    drop(Running {
        place: &place,
        created,
    });
}

#[test]
fn dropping_a_container_before_its_start_ends_it() {
    let place = Place::new("dropped");
    let spec = place.spec("true");
    let args = place.args(
        &spec,
        place.overlay(),
        Stdio::Inherit,
        JoinedNamespaces::default(),
    );
    let Created { pid, cgroup, .. } = create(args).unwrap();
    assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Exited(_, 125)));
    cgroup.delete().unwrap();
}

#[test]
fn nothing_is_left_of_a_container_that_could_not_be_created() {
    let place = Place::new("failed");
    let failing: [fn(&mut Value); 5] = [
        |spec| spec["mounts"][0]["type"] = json!("nosuchfs"),
        |spec| spec["mounts"][0]["options"] = json!(["nonsense"]),
        |spec| spec["hostname"] = json!("x"),
        |spec| spec["process"]["cwd"] = json!("/bin/sh"),
        |spec| spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] }),
    ];
    for change in failing {
        let spec = place.spec_with("true", change);
        let args = place.args(
            &spec,
            place.overlay(),
            Stdio::Inherit,
            JoinedNamespaces::default(),
        );
        assert!(create(args).is_err());
        place.assert_clean();
    }
    let spec = place.spec("true");
    let rootfs = Rootfs::Path(place.path("no-such"));
    let error = create(place.args(&spec, rootfs, Stdio::Inherit, JoinedNamespaces::default())).unwrap_err();
    assert!(error.to_string().contains("no-such"), "{error}");
}

#[test]
fn a_container_starts_under_a_tiny_memory_limit() {
    let place = Place::new("tiny");
    let spec = place.spec_with("", |spec| {
        spec["process"]["args"] = json!(["/bin/true"]);
        spec["linux"]["resources"] = json!({ "memory": { "limit": 512 * 1024 } });
    });
    let (mut running, output) = place.create(&spec, place.overlay(), JoinedNamespaces::default());
    running.created.start().unwrap();
    assert_eq!(read(output), "");
    assert_eq!(running.wait(), WaitStatus::Exited(running.created.pid, 0));
}
