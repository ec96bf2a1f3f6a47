//! What is asked of the process that runs a pod, and what it answers.

use std::time::Duration;

use berth_cri::EngineError;
use k8s_openapi::api::core::v1::{ConfigMap, EphemeralContainer, Pod, Secret};
use serde::{Deserialize, Serialize};

use crate::identity::PodUid;
use crate::plan::Objects;

/// The one question of a connection. What one has in it that the other end does not know is refused, not overlooked: the two
/// may be of different versions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Request {
    /// Start a command. The answer is [`Answer::Session`] with the descriptors of its streams; afterwards the asker may
    /// send [`Resize`], and gets an [`Ended`].
    Exec {
        uid: PodUid,
        container: String,
        command: Vec<String>,
        stdin: bool,
        tty: bool,
        /// Of the terminal, from its beginning.
        size: Option<Resize>,
    },
    /// The streams of a container itself; as with `Exec`.
    Attach {
        uid: PodUid,
        container: String,
        stdin: bool,
    },
    /// A connection to a TCP port of the pod's loopback, as a descriptor.
    PortForward { uid: PodUid, port: u16 },
    /// The root directory of a running container, as a descriptor, and who its first process is.
    Root { uid: PodUid, container: String },
    /// The containers of a pod.
    Containers { uid: PodUid },
    /// What pods use, of those that are given.
    Usage { uids: Vec<PodUid> },
    /// The ConfigMaps and Secrets of a pod.
    Objects { uid: PodUid },
    /// End a pod and remove it.
    Delete { uid: PodUid, grace: Option<Duration> },
    /// Start running containers anew.
    Restart { uid: PodUid, containers: Vec<String> },
    /// Add an ephemeral container to a pod.
    Debug {
        uid: PodUid,
        container: Box<EphemeralContainer>,
    },
    /// Make a pod what is given, which differs only in what can be changed while it runs.
    Change {
        pod: Box<Pod>,
        /// Without pods: the ConfigMaps and Secrets that it has from now on.
        objects: Box<SentWorkload>,
    },
    /// How images come in the process that runs this pod. The answer is [`Answer::Done`], and then a [`Coming`] whenever it has
    /// changed.
    ///
    /// [`Coming`]: crate::pulls::Coming
    Pulls { uid: PodUid },
    /// Take pods on. Only the daemon does.
    Run { workload: Box<SentWorkload> },
}

/// A terminal has another size.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Resize {
    pub(super) width: u16,
    pub(super) height: u16,
}

/// A command has ended, or a container that somebody is attached to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) result: Result<i32, Refusal>,
}

/// The answer to a [`Request`].
pub(super) type Reply = Result<Answer, Refusal>;

/// What was asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Answer {
    /// The descriptors are those of the streams that are named, in this order.
    Session {
        stdin: bool,
        stdout: bool,
        stderr: bool,
        tty: bool,
        drain: Option<Duration>,
    },
    /// There is one descriptor.
    Descriptor,
    /// The descriptor is a container's root.
    Root { uid: u32, gid: u32 },
    /// The containers of a pod.
    Containers(Vec<ContainerSummary>),
    /// What pods use.
    Usage(Vec<PodUsage>),
    /// The ConfigMaps and Secrets of a pod.
    Objects(Box<SentWorkload>),
    /// It is done, or is being done.
    Done,
    /// What became of each pod.
    Taken(Vec<Taken>),
}

/// A container as the engine knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSummary {
    /// Its name.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
    /// Its first process, as the host numbers it; 0 if there is none.
    pub pid: i32,
    /// `created`, `running`, `exited` or `unknown`.
    pub state: String,
    /// How often it was made before.
    pub attempt: u32,
}

/// What a pod uses. What the kernel does not count is `None`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodUsage {
    /// The pod.
    pub namespace: String,
    /// The pod.
    pub name: String,
    /// Bytes that came over its network.
    pub received: Option<u64>,
    /// Bytes that went over its network.
    pub sent: Option<u64>,
    /// Its processes.
    pub processes: Option<u64>,
    /// Its containers that run.
    pub containers: Vec<ContainerUsage>,
}

/// What a container uses. What the kernel does not count is `None`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerUsage {
    /// Its name.
    pub name: String,
    /// The engine's id of it.
    pub id: String,
    /// When the processor time was read, in nanoseconds since 1970.
    pub at: i64,
    /// Nanoseconds of processor time.
    pub cpu: Option<u64>,
    /// Bytes of memory that can't be taken from it without harm.
    pub working_set: Option<u64>,
    /// Bytes of memory that are charged to it.
    pub memory: Option<u64>,
    /// Its limit of memory in bytes, if it has one.
    pub memory_limit: Option<i64>,
    /// Its processes.
    #[serde(default)]
    pub processes: Option<u64>,
    /// Bytes of its writable layer.
    pub layer: Option<u64>,
}

/// What became of a pod that the daemon was asked to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Taken {
    /// `NAMESPACE/NAME`.
    pub pod: String,
    /// It was running already, as the same.
    pub unchanged: bool,
}

/// Pods and what they refer to, as they are sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::standalone) struct SentWorkload {
    pub(in crate::standalone) pods: Vec<Pod>,
    pub(in crate::standalone) config_maps: Vec<ConfigMap>,
    pub(in crate::standalone) secrets: Vec<Secret>,
}

impl SentWorkload {
    pub(in crate::standalone) fn new(pods: Vec<Pod>, objects: &Objects) -> Self {
        Self {
            pods,
            config_maps: objects.config_maps.values().cloned().collect(),
            secrets: objects.secrets.values().cloned().collect(),
        }
    }

    pub(in crate::standalone) fn into_parts(self) -> (Vec<Pod>, Objects) {
        let key = |metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| {
            let namespace = metadata.namespace.clone();
            let namespace = namespace.unwrap_or_else(|| crate::defaults::DEFAULT_NAMESPACE.to_owned());
            (namespace, metadata.name.clone().unwrap_or_default())
        };
        let config_maps = self.config_maps.into_iter().map(|map| (key(&map.metadata), map));
        let secrets = self
            .secrets
            .into_iter()
            .map(|secret| (key(&secret.metadata), secret));
        let objects = Objects {
            config_maps: config_maps.collect(),
            secrets: secrets.collect(),
        };
        (self.pods, objects)
    }
}

/// Why something is not done: a sentence, and what a program makes of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) kind: RefusalKind,
    pub(super) message: String,
    /// Of a command that can't be executed, what a shell would end with.
    #[serde(default)]
    pub(super) exit_code: Option<u8>,
}

/// What a program makes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RefusalKind {
    /// The command can't be executed in the container.
    CannotRun,
    /// This process does not run the pod (any more).
    NotMine,
    /// This process does not know the question.
    NotUnderstood,
    /// Anything else.
    Other,
}

impl Refusal {
    pub(super) fn other(message: impl Into<String>) -> Self {
        Self {
            kind: RefusalKind::Other,
            message: message.into(),
            exit_code: None,
        }
    }
}

impl From<EngineError> for Refusal {
    fn from(error: EngineError) -> Self {
        let (kind, exit_code) = match error {
            EngineError::CannotRun { exit_code, .. } => (RefusalKind::CannotRun, Some(exit_code)),
            _ => (RefusalKind::Other, None),
        };
        Self {
            kind,
            message: error.to_string(),
            exit_code,
        }
    }
}
