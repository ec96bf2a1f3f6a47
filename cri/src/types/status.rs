//! How pods and containers are, and what happens to them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ContainerConfig, ContainerId, ImageId, PodSandboxConfig, SandboxId, UnixNanos};

/// What the engine knows of a sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct PodSandboxStatus {
    /// Its id.
    pub id: SandboxId,
    /// As it was asked for.
    pub config: PodSandboxConfig,
    /// It can take containers. A sandbox that lost its shim, its pause or its network is not ready.
    pub ready: bool,
    /// When it was made.
    pub created_at: UnixNanos,
    /// Its addresses, the primary one first; empty with the host's network.
    pub ips: Vec<IpAddr>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    /// Its program does not run yet.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Exited,
    /// Its shim is gone and left no word of it.
    Unknown,
}

/// What the engine knows of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerStatus {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox.
    pub sandbox: SandboxId,
    /// The pod's UID.
    pub pod_uid: String,
    /// As it was asked for.
    pub config: ContainerConfig,
    /// The image it was made from.
    pub image_id: ImageId,
    /// Where it is in its life.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: UnixNanos,
    /// When its program began.
    pub started_at: UnixNanos,
    /// When its first process was reaped.
    pub finished_at: UnixNanos,
    /// Of the first process: 0-255, 128 + signal; 137 for `Unknown`.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, `ContainerStatusUnknown`, or empty.
    pub reason: String,
    /// A sentence for people, or empty.
    pub message: String,
    /// Absolute.
    pub log_path: PathBuf,
    /// The first process, as the host numbers it; 0 unless created or running.
    pub pid: i32,
    /// Who its first process begins as; `None` until that is known.
    pub user: Option<ContainerUser>,
    /// What ends it: the number of a signal.
    pub stop_signal: i32,
}

/// Who a container's first process begins as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUser {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// All its groups, its own among them.
    pub supplemental_groups: Vec<u32>,
}

/// What a command printed and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output, cut at the caller's limit.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the caller's limit.
    pub stderr: Vec<u8>,
    /// 0-255; 128 + signal if a signal ended it.
    pub exit_code: i32,
}

/// A command that is run again and again, for as long as it ends with 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepeatedCommand {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// After this one's whole process tree is killed; zero is never.
    pub timeout: Duration,
    /// So many bytes of each output are kept.
    pub max_output: usize,
    /// How long to wait before the first one.
    pub first_in: Duration,
    /// How much later than one the next begins; at once, if the one took longer.
    pub period: Duration,
}

/// Something that happened in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineEvent {
    /// The pod's UID.
    pub pod_uid: String,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// When.
    pub at: UnixNanos,
    /// What.
    pub kind: EngineEventKind,
}

/// What happened in a pod. The status calls already tell the state after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEventKind {
    /// The sandbox is ready.
    SandboxStarted,
    /// The sandbox was stopped.
    SandboxStopped,
    /// The sandbox is gone, with its containers.
    SandboxRemoved,
    /// A container was made.
    ContainerCreated(ContainerId),
    /// A container is gone.
    ContainerRemoved(ContainerId),
    /// A container's program began.
    ContainerStarted(ContainerId),
    /// A container's first process ended.
    ContainerExited(ContainerId),
    /// The OOM killer hit a process of the container, which may go on.
    ContainerOom(ContainerId),
    /// The sandbox is not ready any more.
    SandboxLost,
}
