//! What the tests of the command line share: a bundle in a temporary directory, and a look at what is left at the end.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod machine_code;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Far more than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A bundle whose root file system has busybox, and whose container is gone at the end of the test.
pub struct Bundle {
    directory: tempfile::TempDir,
    id: String,
    /// `config.json`, written before each command.
    pub config: Value,
}

/// The applets that scripts here use.
const APPLETS: &[&str] = &[
    "sh", "true", "cat", "ls", "id", "echo", "sleep", "mount", "env", "stat", "hostname", "grep", "tty",
    "stty", "pwd", "touch", "readlink", "wc", "mkdir", "umount", "ps", "dd", "kill", "date", "ulimit",
    "mknod", "printf", "cut", "head",
];

impl Bundle {
    /// A bundle that runs a shell script.
    pub fn script(name: &str, script: &str) -> Bundle {
        Bundle::new(name, &["/bin/sh", "-c", script])
    }

    /// A bundle that runs a program.
    pub fn new(name: &str, args: &[&str]) -> Bundle {
        let directory = tempfile::Builder::new().prefix("berth-oci-").tempdir().unwrap();
        let root = directory.path().join("rootfs");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("the package busybox-static");
        for applet in APPLETS {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let id = format!("test-{}-{name}", std::process::id());
        let mut bundle = Bundle {
            directory,
            config: Value::Null,
            id,
        };
        assert!(
            bundle
                .oci(&["spec", "--bundle", bundle.path().to_str().unwrap()])
                .status
                .success()
        );
        bundle.config =
            serde_json::from_slice(&fs::read(bundle.path().join("config.json")).unwrap()).unwrap();
        bundle.namespace(json!({ "type": "cgroup" }));
        bundle.config["process"]["terminal"] = json!(false);
        bundle.config["process"]["args"] = json!(args);
        bundle.config["linux"]["cgroupsPath"] = json!(format!("/berth-oci-{}", bundle.id));
        bundle
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("rootfs")
    }

    pub fn state_directory(&self) -> PathBuf {
        self.path().join("state").join(&self.id)
    }

    pub fn cgroup(&self) -> String {
        self.config["linux"]["cgroupsPath"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Adds a mount.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.config["mounts"].as_array_mut().unwrap().push(mount);
    }

    /// Gives the container a namespace more.
    pub fn namespace(&mut self, namespace: Value) {
        let list = self.config["linux"]["namespaces"].as_array_mut().unwrap();
        list.retain(|n| n["type"] != namespace["type"]);
        list.push(namespace);
    }

    /// Gives all five sets, but the ambient one, these capabilities.
    pub fn capabilities(&mut self, names: &[&str]) {
        self.config["process"]["capabilities"] =
            json!({ "bounding": names, "effective": names, "permitted": names, "inheritable": [] });
    }

    /// A command, with the configuration written and the state kept in the bundle.
    pub fn command(&self, arguments: &[&str]) -> Command {
        if !self.config.is_null() {
            fs::write(self.path().join("config.json"), self.config.to_string()).unwrap();
        }
        self.command_as_written(arguments)
    }

    /// A command, with the configuration as it was written last: for many threads.
    pub fn command_as_written(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth-oci"));
        command
            .arg("--root")
            .arg(self.path().join("state"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn oci(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `run`, in the foreground.
    pub fn run(&self) -> Output {
        self.oci(&["run", "--bundle", self.path().to_str().unwrap(), &self.id])
    }

    /// `run`, whose standard output is returned if it succeeded.
    pub fn output(&self) -> String {
        succeeded(&self.run())
    }

    /// `create` without the output of the container.
    pub fn create(&self) {
        let bundle = self.path().to_str().unwrap();
        let status = self
            .command(&["create", "--bundle", bundle, &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Creates and starts, detached.
    pub fn start(&self) {
        self.create();
        assert_eq!(succeeded(&self.oci(&["start", &self.id])), "");
    }

    /// The status that `state` prints.
    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// What `state` prints.
    pub fn state(&self) -> Value {
        serde_json::from_str(&succeeded(&self.oci(&["state", &self.id]))).unwrap()
    }

    /// `exec` of a shell script.
    pub fn exec(&self, script: &str) -> Output {
        self.oci(&["exec", &self.id, "/bin/sh", "-c", script])
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let output = self.oci(&["delete", "--force", &self.id]);
        if std::thread::panicking() {
            return;
        }
        succeeded(&output);
        assert!(!self.state_directory().exists(), "the state is left");
        assert_eq!(
            leftovers(&self.cgroup()),
            Vec::<PathBuf>::new(),
            "cgroups are left"
        );
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let here = self.path().to_str().unwrap().to_owned();
        assert!(!mounts.contains(&here), "mounts are left: {mounts}");
        let null = fs::metadata("/dev/null").unwrap();
        assert_eq!(
            (null.mode() & 0o7777, null.uid(), null.gid()),
            (0o666, 0, 0),
            "the host's /dev/null was changed"
        );
    }
}

/// The directories of a cgroup, in all hierarchies.
pub fn leftovers(cgroup: &str) -> Vec<PathBuf> {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(
        fs::read_dir("/sys/fs/cgroup")
            .unwrap()
            .flatten()
            .map(|entry| entry.path()),
    );
    let cgroup = cgroup.trim_start_matches('/');
    roots
        .into_iter()
        .map(|root| root.join(cgroup))
        .filter(|path| !cgroup.is_empty() && path.exists())
        .collect()
}

/// The standard output of a command that must have succeeded.
pub fn succeeded(output: &Output) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stdout}{stderr}", output.status);
    stdout.trim_end().to_owned()
}

/// What a command that must have failed said.
pub fn failed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "it succeeded: {}{stderr}",
        String::from_utf8_lossy(&output.stdout)
    );
    stderr
}

/// Waits for a condition.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process lives.
pub fn lives(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
