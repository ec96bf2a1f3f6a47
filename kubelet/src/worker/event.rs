//! What a worker tells the world as it happens.

use std::sync::Arc;

use berth_cri::UnixNanos;

use crate::identity::PodUid;

/// Something that happened to a pod. Reasons that Kubernetes has for its Event objects are used where they fit; the
/// others ([`Reason::is_local`]) are what a person at a shell wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The pod.
    pub uid: PodUid,
    /// When.
    pub time: UnixNanos,
    /// What, in a word.
    pub reason: EventReason,
    /// The container that it happened to.
    pub container: Option<String>,
    /// A sentence for people.
    pub message: String,
}

/// What happened, in a word.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// An image is being pulled.
    Pulling,
    /// An image is there.
    Pulled,
    /// Something failed; also an image that could not be had.
    Failed,
    /// The sandbox is ready.
    SandboxReady,
    /// The sandbox is gone and will be made anew.
    SandboxChanged,
    /// The sandbox could not be made.
    FailedCreatePodSandBox,
    /// The node does not take the pod on, for this reason: `SysctlForbidden`, `OutOfcpu`.
    Rejected(Arc<str>),
    /// The pod waits for its scheduling gates to be lifted.
    SchedulingGated,
    /// A volume could not be set up.
    FailedMount,
    /// A step that is not one container's failed.
    FailedSync,
    /// A container was made.
    Created,
    /// A container runs.
    Started,
    /// A container was found running by a new daemon.
    Adopted,
    /// A container ended.
    Exited,
    /// A container is going to be stopped.
    Killing,
    /// A container or image has to wait before the next try.
    BackOff,
    /// A probe failed.
    Unhealthy,
    /// A probe succeeded with something to say about it.
    ProbeWarning,
    /// The pod is given other resources.
    ResizeStarted,
    /// The pod has the resources that it was given.
    ResizeCompleted,
    /// The node has no room for the resources that the pod asks for; later perhaps.
    ResizeDeferred,
    /// The pod can't ever have the resources that it asks for.
    ResizeInfeasible,
    /// Limits could not be changed.
    ResizeError,
    /// A container has its new limits.
    Resized,
    /// A postStart hook failed.
    FailedPostStartHook,
    /// A preStop hook failed.
    FailedPreStopHook,
    /// A hook that asks by HTTPS found a server without TLS, and asked without.
    LifecycleHTTPFallback,
    /// A container is ready, or the pod if no container is named.
    Ready,
    /// A container is not ready any more, or the pod.
    NotReady,
    /// The pod exceeded a limit of local storage, and is ended.
    Evicted,
    /// The pod is ended to make room for a critical one.
    Preempting,
    /// The pod ran for longer than it may, and is ended.
    DeadlineExceeded,
    /// The pod's phase changed.
    Phase,
}

impl EventReason {
    /// The word that Kubernetes has for it, or else berth.
    pub fn word(&self) -> String {
        match self {
            Self::Rejected(reason) => reason.as_ref().to_owned(),
            other => format!("{other:?}"),
        }
    }

    /// It is not one of Kubernetes' reasons.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::SandboxReady
                | Self::Adopted
                | Self::Exited
                | Self::Ready
                | Self::NotReady
                | Self::Phase
                | Self::Resized
        )
    }

    /// It is a `Warning`, not `Normal`.
    pub fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::Failed
                | Self::FailedCreatePodSandBox
                | Self::FailedMount
                | Self::Rejected(_)
                | Self::FailedSync
                | Self::BackOff
                | Self::Unhealthy
                | Self::ProbeWarning
                | Self::Evicted
                | Self::Preempting
                | Self::ResizeDeferred
                | Self::ResizeInfeasible
                | Self::ResizeError
                | Self::FailedPostStartHook
                | Self::FailedPreStopHook
                | Self::LifecycleHTTPFallback
        )
    }
}
