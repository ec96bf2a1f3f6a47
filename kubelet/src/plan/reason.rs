//! Why a container waits, in Kubernetes' words.

use std::fmt;

/// `state.waiting.reason` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Its turn has come, and it is being made.
    ContainerCreating,
    /// Init containers come first.
    PodInitializing,
    /// It ended, and is started again after a pause.
    CrashLoopBackOff,
    /// Its image could not be pulled.
    ErrImagePull,
    /// Its image could not be pulled, and is tried again after a pause.
    ImagePullBackOff,
    /// Its image is not there and `imagePullPolicy` is `Never`.
    ErrImageNeverPull,
    /// Its image's name is not one.
    InvalidImageName,
    /// The engine can't say whether the image is there.
    ImageInspectError,
    /// What it refers to is not there, or it may not run like that.
    CreateContainerConfigError,
    /// The engine could not make it.
    CreateContainerError,
    /// The engine could not start it.
    RunContainerError,
    /// Its postStart hook failed.
    PostStartHookError,
    /// The pod's sandbox could not be made.
    FailedCreatePodSandBox,
    /// A volume could not be set up.
    FailedMount,
    /// A step that is not one container's (clean-up) failed.
    FailedSync,
}

impl Reason {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::PodInitializing => "PodInitializing",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::ImageInspectError => "ImageInspectError",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
            Self::PostStartHookError => "PostStartHookError",
            Self::FailedCreatePodSandBox => "FailedCreatePodSandBox",
            Self::FailedMount => "FailedMount",
            Self::FailedSync => "FailedSync",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
