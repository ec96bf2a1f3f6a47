//! A pod for a test: its sandbox directory, its cgroup, its shim, and busybox containers in it.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod commands;
pub mod fuse;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use berth_runtime::cgroups::Cgroup;
use berth_shim::client::{Client, ClientError};
use berth_shim::protocol::{
    BUNDLES_DIR, CONFIG_NAME, CreateContainer, EXITS_DIR, Event, Exec, ExecCgroup, ExitRecord, Failure,
    IdMapping, RECORD_NAME, Request, Response, Rootfs, RuntimeProgram, SOCKET_NAME, SandboxConfig,
    ShimRecord, ShimState, UserNamespace,
};
use serde_json::{Value, json};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// A pod. Dropping it shuts the shim down and looks for leftovers.
pub struct Pod {
    pub root: tempfile::TempDir,
    pub config: SandboxConfig,
    pub id: String,
    leftovers_expected: bool,
}

impl Pod {
    /// A pod with all namespaces of its own and a running shim.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub fn start_with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let pod = Self::prepare(change);
        let output = pod.run_shim();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        pod
    }

    /// A pod with a user namespace whose root is 200000. It owns its files, as with the engine's idmapped or chowned layers, and may
    /// come to them.
    pub fn start_in_user_namespace() -> Self {
        let map = || {
            vec![IdMapping {
                container: 0,
                host: 200_000,
                size: 65_536,
            }]
        };
        let pod = Self::start_with(|config| {
            config.user = Some(UserNamespace {
                uids: map(),
                gids: map(),
            });
        });
        let chown = Command::new("chown")
            .args(["-R", "200000:200000"])
            .arg(pod.root.path())
            .status();
        assert!(chown.unwrap().success());
        for parent in pod
            .dir()
            .ancestors()
            .take_while(|path| *path != Path::new("/tmp"))
        {
            fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
        }
        pod
    }

    pub fn prepare(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!(
            "berth-shim-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let root = tempfile::tempdir().unwrap();
        let mut config = SandboxConfig {
            id: id.clone(),
            cgroup: PathBuf::from(format!("{id}/sandbox")),
            scope: None,
            hostname: Some("pod".into()),
            network: true,
            ipc: true,
            shared_pid: false,
            user: None,
            sysctls: BTreeMap::new(),
            oom_score_adj: 0,
            shm_size: 1 << 20,
            mount_label: String::new(),
            pause: berth_shim::protocol::PauseIds::default(),
            runtime: std::env::var_os("BERTH_TEST_RUNTIME").map(|path| runtime(Path::new(&path))),
        };
        change(&mut config);
        let pod = Self {
            root,
            config,
            id,
            leftovers_expected: false,
        };
        fs::create_dir_all(pod.dir()).unwrap();
        fs::write(
            pod.dir().join(CONFIG_NAME),
            serde_json::to_vec(&pod.config).unwrap(),
        )
        .unwrap();
        pod.make_rootfs();
        pod
    }

    fn make_rootfs(&self) {
        let root = self.root.path().join("rootfs");
        for dir in ["bin", "proc", "dev", "tmp", "etc", "sys"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "sleep", "cat", "echo", "true", "dd", "setsid", "yes", "hostname", "stty", "kill", "wc",
            "head",
        ] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(root.join("etc/not-a-program"), "").unwrap();
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("sandbox")
    }

    pub fn run_shim(&self) -> Output {
        let tests = std::env::current_exe().unwrap();
        let program = tests.parent().unwrap().parent().unwrap().join("examples/shim");
        Command::new(program).arg(self.dir()).output().unwrap()
    }

    pub fn record(&self) -> ShimRecord {
        serde_json::from_slice(&fs::read(self.dir().join(RECORD_NAME)).unwrap()).unwrap()
    }

    pub fn client(&self) -> TestClient {
        TestClient {
            client: Client::connect(&self.dir()).unwrap(),
            dir: self.dir(),
        }
    }

    pub fn log_path(&self, container: &str) -> PathBuf {
        self.root.path().join("logs/pod").join(container).join("0.log")
    }

    pub fn cgroup_of(&self, container: &str) -> String {
        format!("{}/{container}", self.id)
    }

    /// Writes a bundle with an overlay on the busybox root, and the request to create it.
    pub fn bundle(&self, id: &str, args: &[&str]) -> CreateContainer {
        self.bundle_with(id, args, |_| {})
    }

    pub fn bundle_with(&self, id: &str, args: &[&str], change: impl FnOnce(&mut Value)) -> CreateContainer {
        let bundle = self.dir().join(BUNDLES_DIR).join(id);
        let overlay = self.root.path().join("overlays").join(id);
        for dir in [&bundle, &overlay.join("upper"), &overlay.join("work")] {
            fs::create_dir_all(dir).unwrap();
        }
        let mut spec = spec(args, &self.cgroup_of(id));
        change(&mut spec);
        fs::write(bundle.join("config.json"), spec.to_string()).unwrap();
        CreateContainer {
            volumes: Vec::new(),
            id: id.into(),
            rootfs: Rootfs::Overlay {
                lower: vec![self.root.path().join("rootfs")],
                upper: Some(overlay.join("upper")),
                work: Some(overlay.join("work")),
            },
            log_path: Some(self.log_path(id)),
            log_max_size: 0,
            log_max_files: 1,
            stdin: false,
            stdin_once: false,
            pid_target: None,
        }
    }

    pub fn exit_record(&self, container: &str) -> Option<ExitRecord> {
        let text = fs::read(self.dir().join(EXITS_DIR).join(format!("{container}.json"))).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// The log's lines. One that is being written right now is left out.
    pub fn log(&self, container: &str) -> Vec<LogLine> {
        let text = fs::read(self.log_path(container)).unwrap();
        parse_log(
            &text[..text
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1)],
        )
    }

    /// What the container wrote to one stream, as its log tells it.
    pub fn logged(&self, container: &str, stream: &str) -> Vec<u8> {
        joined(self.log(container).iter().filter(|line| line.stream == stream))
    }

    /// For tests that leave something on purpose and remove it themselves.
    pub fn expect_leftovers(&mut self) {
        self.leftovers_expected = true;
    }

    fn remove_cgroup(&self) {
        if let Ok(Some(cgroup)) = Cgroup::open(&self.id) {
            cgroup.kill_all().unwrap();
            cgroup.delete().unwrap();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let shim_log = fs::read_to_string(self.dir().join("shim.log")).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("shim.log:\n{shim_log}");
            self.remove_cgroup();
            return;
        }
        if let Ok(mut client) = Client::connect(&self.dir()) {
            client.call(Request::Shutdown, vec![]).unwrap();
        }
        if self.leftovers_expected {
            self.remove_cgroup();
            return;
        }
        let members = Cgroup::open(&self.id)
            .unwrap()
            .map(|cgroup| cgroup.pids().unwrap());
        wait_until("the shim has ended", || {
            Cgroup::open(&self.id)
                .unwrap()
                .is_none_or(|cgroup| cgroup.pids().unwrap().is_empty())
        });
        // The groups of pod and sandbox are the engine's to remove; what else the shim made is gone.
        if let Some(sandbox) = Cgroup::open(&format!("{}/sandbox", self.id)).unwrap() {
            assert!(sandbox.remove_if_empty(), "in use yet; there were {members:?}");
        }
        assert!(!self.dir().join(SOCKET_NAME).exists());
        assert!(!self.dir().join(RECORD_NAME).exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !mounts.contains(self.root.path().to_str().unwrap()),
            "mounts left on the host"
        );
        self.remove_cgroup();
    }
}

/// A runtime's program as a handler.
pub fn runtime(path: &Path) -> RuntimeProgram {
    RuntimeProgram {
        name: path.file_name().unwrap().to_string_lossy().into_owned(),
        path: path.to_owned(),
        args: Vec::new(),
        timeout_ms: 30_000,
        exec_cgroup: ExecCgroup::Controllers,
    }
}

/// A client whose calls are expected to work.
pub struct TestClient {
    pub client: Client,
    dir: PathBuf,
}

impl TestClient {
    pub fn call(&mut self, request: Request) -> Response {
        self.call_with(request, vec![]).0
    }

    pub fn call_with(&mut self, request: Request, fds: Vec<OwnedFd>) -> (Response, Vec<OwnedFd>) {
        let asked = format!("{request:?}");
        match self.client.call(request, fds) {
            Ok(answer) => answer,
            Err(error) => {
                let log = fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default();
                panic!("{asked}: {error}\nshim.log:\n{log}")
            }
        }
    }

    pub fn refused(&mut self, request: Request) -> Failure {
        match self.client.call(request, vec![]) {
            Err(ClientError::Refused(failure)) => failure,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&mut self) -> ShimState {
        match self.call(Request::State) {
            Response::State(state) => state,
            other => panic!("{other:?}"),
        }
    }

    pub fn subscribe(&mut self) -> &mut Self {
        self.call(Request::Subscribe);
        self
    }

    pub fn create(&mut self, request: CreateContainer) -> i32 {
        match self.call(Request::Create(Box::new(request))) {
            Response::Created { pid } => pid,
            other => panic!("{other:?}"),
        }
    }

    pub fn start(&mut self, container: &str) {
        self.call(Request::Start {
            container: container.into(),
        });
    }

    pub fn kill(&mut self, container: &str) {
        self.call(Request::Kill {
            container: container.into(),
            signal: 9,
            all: true,
        });
    }

    pub fn delete(&mut self, container: &str) {
        self.call(Request::Delete {
            container: container.into(),
        });
    }

    /// The first event that `wanted` takes, skipping others.
    pub fn wait_for<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.client.event(PATIENCE).unwrap();
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    pub fn exited(&mut self, id: &str) -> ExitRecord {
        self.wait_for(|event| match event {
            Event::Exited(record) if record.container == id => Some(record.clone()),
            _ => None,
        })
    }

    /// Runs a container to its end.
    pub fn run(&mut self, request: CreateContainer) -> ExitRecord {
        let id = request.id.clone();
        self.create(request);
        self.start(&id);
        self.exited(&id)
    }

    pub fn exec(&mut self, container: &str, id: &str, args: &[&str], timeout_ms: u64) -> ExecPipes {
        let (stdout, their_stdout) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (stderr, their_stderr) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let stdin = fs::File::open("/dev/null").unwrap().into();
        let request = exec_request(container, id, args, timeout_ms, false);
        self.call_with(request, vec![stdin, their_stdout, their_stderr]);
        ExecPipes {
            stdout: stdout.into(),
            stderr: stderr.into(),
        }
    }

    pub fn exec_exited(&mut self, id: &str) -> (i32, bool) {
        self.wait_for(|event| match event {
            Event::ExecExited {
                exec,
                exit_code,
                timed_out,
            } if exec == id => Some((*exit_code, *timed_out)),
            _ => None,
        })
    }
}

pub struct ExecPipes {
    pub stdout: fs::File,
    pub stderr: fs::File,
}

pub fn exec_request(container: &str, id: &str, args: &[&str], timeout_ms: u64, terminal: bool) -> Request {
    let process = json!({
        "terminal": terminal, "user": { "uid": 0, "gid": 0 }, "args": args, "env": ["PATH=/bin"], "cwd": "/",
    });
    Request::Exec(Box::new(Exec {
        container: container.into(),
        id: id.into(),
        process,
        timeout_ms,
    }))
}

pub fn spec(args: &[&str], cgroup: &str) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": args, "env": ["PATH=/bin"], "cwd": "/",
        },
        "root": { "path": "/" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
        },
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub at: String,
    pub stream: String,
    pub whole: bool,
    pub content: Vec<u8>,
}

pub fn parse_log(text: &[u8]) -> Vec<LogLine> {
    let parse = |line: &[u8]| {
        assert_eq!(line.last(), Some(&b'\n'));
        let mut parts = line[..line.len() - 1].splitn(4, |byte| *byte == b' ');
        let mut next = || String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
        let (at, stream, tag) = (next(), next(), next());
        assert!(at.len() == 30 && at.ends_with('Z'), "{at}");
        assert!(tag == "F" || tag == "P", "{tag}");
        LogLine {
            at,
            stream,
            whole: tag == "F",
            content: parts.next().unwrap().to_vec(),
        }
    };
    text.split_inclusive(|byte| *byte == b'\n').map(parse).collect()
}

pub fn joined<'a>(lines: impl Iterator<Item = &'a LogLine>) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        out.extend_from_slice(&line.content);
        if line.whole {
            out.push(b'\n');
        }
    }
    out
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_alive(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}
