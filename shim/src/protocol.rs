//! What the engine and a pod's shim say to each other.
//!
//! The shim listens on the stream socket [`SOCKET_NAME`] in its sandbox directory. A frame is a 32-bit little-endian
//! length and that many bytes of JSON. Descriptors travel as `SCM_RIGHTS` with the first byte of the frame they belong
//! to. A client sends [`Call`]s and receives [`Message`]s; replies carry the call's number and may come in any order,
//! events come only after [`Request::Subscribe`], in the order in which things happened in the pod.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_runtime::cgroups::systemd::Scope;
use serde::{Deserialize, Serialize};

/// The file name of the shim's socket in its sandbox directory.
pub const SOCKET_NAME: &str = "shim.sock";
/// The file name of the sandbox's intent ([`SandboxConfig`]), written by the engine before the shim is started.
pub const CONFIG_NAME: &str = "sandbox.json";
/// The file that the shim renames into place once it listens: [`ShimRecord`].
pub const RECORD_NAME: &str = "shim.json";
/// The directory of [`ExitRecord`]s, one file `<container id>.json` each, renamed into place.
pub const EXITS_DIR: &str = "exits";
/// The directory of OCI bundles, `<container id>/config.json` each, written by the engine.
pub const BUNDLES_DIR: &str = "containers";
/// The directory of a bundle that holds the places of [`ImageVolume`]s.
pub const VOLUMES_DIR: &str = "volumes";
/// The directory in which a [`RuntimeProgram`] keeps its own state, one directory `<container id>` each.
pub const RUNTIME_DIR: &str = "runtime";
/// As much of each output of a [`Run`] is kept at most: it is in the shim's memory.
pub const MAX_RUN_OUTPUT: u64 = 64 << 10;
/// A frame longer than this is a protocol error.
pub const MAX_FRAME: usize = 4 << 20;

/// What a sandbox is to be: everything that the shim needs to start, read from [`CONFIG_NAME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// The sandbox's id.
    pub id: String,
    /// The cgroup that the shim and the pause enter, relative to the root of each hierarchy.
    pub cgroup: PathBuf,
    /// The scope of systemd's that this is the cgroup of, where systemd makes the cgroups. Containers' `linux.cgroupsPath`
    /// is then of the form `slice:prefix:name`, as in runc.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// The pod's host name; `None` with the host's UTS namespace.
    pub hostname: Option<String>,
    /// A network namespace of the pod's own. `false` is the host's.
    pub network: bool,
    /// An IPC namespace of the pod's own, with its `/dev/shm` mounted at `shm` in the sandbox directory.
    pub ipc: bool,
    /// A PID namespace shared by the pod's containers, in which the pause is PID 1 and reaps.
    pub shared_pid: bool,
    /// The pod's user namespace; `None` is the host's.
    pub user: Option<UserNamespace>,
    /// Namespaced sysctls, set inside the pod's namespaces: dotted name to value.
    pub sysctls: BTreeMap<String, String>,
    /// The value for `/proc/self/oom_score_adj` of shim and pause.
    pub oom_score_adj: i32,
    /// The size of the pod's `/dev/shm` in bytes.
    pub shm_size: u64,
    /// The SELinux label of the files in it; empty leaves that to the policy.
    #[serde(default)]
    pub mount_label: String,
    /// Who the pause is.
    #[serde(default)]
    pub pause: PauseIds,
    /// The program that runs the pod's containers; `None` is the runtime that the shim itself is.
    #[serde(default)]
    pub runtime: Option<RuntimeProgram>,
}

/// Another OCI runtime, by its command line: that of runc, which crun, youki and others share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeProgram {
    /// What it is called in the node's configuration.
    pub name: String,
    /// The executable, absolute.
    pub path: PathBuf,
    /// What comes first on each command line.
    pub args: Vec<String>,
    /// How long it may take to do what it is asked, in milliseconds. It is killed then.
    pub timeout_ms: u64,
    /// How its `exec` is told of a group below the container's.
    pub exec_cgroup: ExecCgroup,
}

/// What a runtime's `exec --cgroup` takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecCgroup {
    /// There is no such option.
    #[default]
    Unknown,
    /// A path below the container's group, in all hierarchies.
    Path,
    /// The same, or `CONTROLLER:PATH`.
    Controllers,
}

/// The pause's user and groups, as the pod's user namespace numbers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseIds {
    /// Its user; `None` is nobody.
    pub uid: Option<u32>,
    /// Its group; `None` is nobody's.
    pub gid: Option<u32>,
    /// Its additional groups.
    pub groups: Vec<u32>,
}

/// The id mappings of a pod's user namespace, as in user_namespaces(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    /// User ids.
    pub uids: Vec<IdMapping>,
    /// Group ids.
    pub gids: Vec<IdMapping>,
}

/// One range of ids that mean others: of a user namespace's map, or of an id-mapped mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id inside.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many.
    pub size: u32,
}

/// Who a shim is: enough to find and recognise it after the engine was restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// The shim's process.
    pub pid: i32,
    /// Its start time in clock ticks since boot (`/proc/<pid>/stat` field 22), which tells a reused pid apart.
    pub start_time: u64,
    /// The pause process, whose `/proc/<pid>/ns/*` are the pod's namespaces.
    pub pause_pid: i32,
    /// The pause's start time.
    pub pause_start_time: u64,
}

/// How a container ended; written before the event is sent, kept until the container is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The container's id.
    pub container: String,
    /// 0-255; 128 + signal if a signal ended it.
    pub exit_code: i32,
    /// The cgroup's OOM killer hit a process of the container.
    pub oom_killed: bool,
    /// Nanoseconds since the Unix epoch.
    pub started_at: u64,
    /// Nanoseconds since the Unix epoch.
    pub finished_at: u64,
}

/// A numbered request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client, repeated in the reply.
    pub seq: u64,
    /// What is asked.
    pub request: Request,
}

/// What can be asked of a shim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "op")]
pub enum Request {
    /// Everything the shim knows: [`Response::State`].
    State,
    /// From now on events are sent on this connection. Answered with [`Response::State`], the state right before the
    /// first event.
    Subscribe,
    /// Create a container from its bundle, stopped before its program: [`Response::Created`].
    Create(Box<CreateContainer>),
    /// Let a created container's program run.
    Start {
        /// The container's id.
        container: String,
    },
    /// Send a signal. A container that has ended already is not an error.
    Kill {
        /// The container's id.
        container: String,
        /// The signal's number.
        signal: i32,
        /// To every process in the container's cgroup, not only its first.
        all: bool,
    },
    /// Remove an ended (or never started) container: its cgroup, its exit record, its stdio. Idempotent.
    Delete {
        /// The container's id.
        container: String,
    },
    /// Start one more process in a running container: [`Response::ExecStarted`]. Descriptors: stdin, stdout, stderr;
    /// or none with `terminal`, and the reply carries the terminal's master. The end is [`Event::ExecExited`].
    Exec(Box<Exec>),
    /// Run a command in a running container to its end: [`Response::Ran`]. It is the shim that keeps what the command prints,
    /// and starts the second and every later one of a container faster than an [`Request::Exec`]. One with a period
    /// ([`Run::period_ms`]) is run again and again for as long as it ends with 0, and the answer is that of the last one; or an exit
    /// code of 0, when that one left something running. [`Request::KillExec`] and the client's going end it.
    Run(Box<Run>),
    /// Kill an exec's whole process tree.
    KillExec {
        /// The exec's id.
        exec: String,
    },
    /// Set the size of a container's or exec's terminal.
    Resize {
        /// The container's or the exec's id.
        id: String,
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// Copy a container's output, from now on, also to the descriptors sent along (stdout, stderr), and, with three of
    /// them, its input from the third. A reader that is slower than the container slows it down, as a terminal would.
    Attach {
        /// The container's id.
        container: String,
    },
    /// Close the container's standard input.
    CloseStdin {
        /// The container's id.
        container: String,
    },
    /// Close and open the container's log file again, after somebody moved it.
    ReopenLog {
        /// The container's id.
        container: String,
    },
    /// The eventfd(2) sent along is written to after each line and each rotation of the container's log, and when
    /// the container's output has ended.
    FollowLog {
        /// The container's id.
        container: String,
    },
    /// Change the limits of a running container: the OCI `linux.resources` object.
    Update {
        /// The container's id.
        container: String,
        /// OCI runtime-spec `linux.resources`.
        resources: serde_json::Value,
    },
    /// Kill what still runs, remove the containers' cgroups, end the pause and the shim. The connection closes when
    /// it is done. The pod's own cgroup ([`SandboxConfig::cgroup`]) is the caller's to remove once the shim has ended: a
    /// process can't remove the group that it is in, and to leave it would take milliseconds.
    Shutdown,
}

/// A container to create. Its OCI spec is `containers/<id>/config.json` in the sandbox directory, namespaces that the
/// pod holds (network, ipc, uts, user, shared pid) are joined by the shim and need no path there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateContainer {
    /// The container's id, a single path component.
    pub id: String,
    /// Where the root file system comes from.
    pub rootfs: Rootfs,
    /// Images that are mounted for it, each at [`VOLUMES_DIR`]`/<its place in this list>` in the bundle. They are seen in the
    /// shim's mount namespace alone: a mount of the configuration takes them from there.
    #[serde(default)]
    pub volumes: Vec<ImageVolume>,
    /// The CRI log file (absolute); `None` throws output away (after attached readers got it).
    pub log_path: Option<PathBuf>,
    /// Rotate the log when it would grow past this many bytes; 0 is never.
    pub log_max_size: u64,
    /// How many log files to keep, the live one included.
    pub log_max_files: u32,
    /// Keep a standard input open for attached clients; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close the standard input when the first attached client goes.
    pub stdin_once: bool,
    /// The running container whose PID namespace this one joins; `None` is the one that the spec or the pod has.
    #[serde(default)]
    pub pid_target: Option<String>,
}

/// An image, or a directory of it, for a container to mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageVolume {
    /// Its layers, the topmost first. They are never written to.
    pub lower: Vec<PathBuf>,
    /// The directory in the image, from its root; empty for all of it.
    pub sub_path: PathBuf,
    /// The SELinux label of its files; empty leaves them their own.
    #[serde(default)]
    pub label: String,
}

/// A container's root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Rootfs {
    /// An overlay that exists only in the container's mount namespace: it can't be left behind on the host. In a pod with
    /// a user namespace its read-only layers are shown with the ids of that, and the writable one as it is on the disk.
    Overlay {
        /// Read-only layers, the topmost first.
        lower: Vec<PathBuf>,
        /// The writable layer; `None` makes the root read-only whatever the spec says.
        upper: Option<PathBuf>,
        /// overlayfs's work directory, on the same file system as `upper`.
        work: Option<PathBuf>,
    },
    /// The directory of the spec's `root.path`.
    Directory,
}

/// One more process in a container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    /// The container's id.
    pub container: String,
    /// The exec's id, unique in the pod.
    pub id: String,
    /// OCI runtime-spec `process` object.
    pub process: serde_json::Value,
    /// Kill the whole process tree after this many milliseconds; 0 is never.
    pub timeout_ms: u64,
}

/// A command that is run to its end: the container's own process, without a terminal and without input, with other arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The container's id.
    pub container: String,
    /// The command's id, unique among the pod's execs.
    pub id: String,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// Kill the whole process tree after this many milliseconds; 0 is never.
    pub timeout_ms: u64,
    /// So many bytes of each output are kept, at most [`MAX_RUN_OUTPUT`]; the command is not held up by what is more.
    pub max_output: u64,
    /// Again and again: so many milliseconds after the beginning of one the next one begins, or at its end if that is later. 0 is
    /// once.
    #[serde(default)]
    pub period_ms: u64,
    /// With a period: so many milliseconds from now it is run first.
    #[serde(default)]
    pub first_in_ms: u64,
}

/// What a shim sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Message {
    /// The answer to the call of that number.
    Reply {
        /// The call's number.
        seq: u64,
        /// What came of it.
        result: Result<Response, Failure>,
    },
    /// Something happened in the pod.
    Event(Event),
}

/// A call that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Response {
    /// Nothing to tell.
    Done,
    /// The answer to [`Request::State`] and [`Request::Subscribe`].
    State(ShimState),
    /// The answer to [`Request::Create`].
    Created {
        /// The container's first process, as the host numbers it.
        pid: i32,
    },
    /// The answer to [`Request::Exec`].
    ExecStarted {
        /// The new process, as the host numbers it.
        pid: i32,
    },
    /// The answer to [`Request::Run`]. If there is any output, it comes along as one file.
    Ran {
        /// 0-255; 128 + signal if a signal ended it.
        exit_code: i32,
        /// It was killed because its time was over.
        timed_out: bool,
        /// So many bytes at the file's beginning are standard output.
        stdout: u64,
        /// And so many bytes after them standard error.
        stderr: u64,
    },
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure, for the caller to act on.
    pub code: FailureCode,
    /// A sentence for people.
    pub message: String,
    /// Of a program that can't run, what a shell would end with: 127 if it is missing, 126 if it can't be executed.
    #[serde(default)]
    pub exit_code: Option<u8>,
}

/// The kinds of failure that a caller treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FailureCode {
    /// No such container or exec.
    NotFound,
    /// There is one of that id already.
    AlreadyExists,
    /// It is not in a state that allows this.
    WrongState,
    /// The program to run is missing or can't be executed; the container's exit code is 127 or 126.
    CannotRun,
    /// The request makes no sense.
    Invalid,
    /// The shim can't do that for this container; the caller has to do without.
    Unsupported,
    /// The kernel or a file system refused.
    Internal,
}

/// What a shim knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    /// The pause process, as the host numbers it; `None` after it died.
    pub pause_pid: Option<i32>,
    /// Every container that was created and not deleted.
    pub containers: Vec<ContainerState>,
    /// It knows [`Request::Run`], which shims of before do not, and those of another runtime's containers can't do.
    #[serde(default)]
    pub runs_commands: bool,
    /// It knows [`Run::period_ms`], which shims of before do not, nor those of another runtime's containers.
    #[serde(default)]
    pub repeats_commands: bool,
}

/// What a shim knows of one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerState {
    /// The container's id.
    pub id: String,
    /// Where it is in its life.
    pub status: ContainerStatus,
    /// Its first process, as the host numbers it.
    pub pid: i32,
    /// Nanoseconds since the Unix epoch; 0 before [`Request::Start`].
    pub started_at: u64,
    /// Set once the first process was reaped.
    pub exit: Option<ExitRecord>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerStatus {
    /// Its program does not run yet.
    Created,
    /// Its program runs.
    Running,
    /// Its first process was reaped.
    Exited,
}

/// Something that happened in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// A container's program began.
    Started {
        /// The container's id.
        container: String,
        /// Nanoseconds since the Unix epoch.
        at: u64,
    },
    /// A container's first process was reaped; its exit record is on disk.
    Exited(ExitRecord),
    /// The OOM killer hit a process of the container, which may go on.
    Oom {
        /// The container's id.
        container: String,
    },
    /// An exec's process was reaped.
    ExecExited {
        /// The exec's id.
        exec: String,
        /// 0-255; 128 + signal if a signal ended it.
        exit_code: i32,
        /// It was killed because its time was over.
        timed_out: bool,
    },
    /// The pause died: the pod's namespaces are lost to new containers.
    PauseExited,
}
