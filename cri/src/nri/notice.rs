//! What plugins are told of, as messages.

use prost::Message as _;

use super::api::{self, Event};

/// What an event is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Notice {
    pub(super) pod: api::PodSandbox,
    pub(super) container: Option<api::Container>,
}

impl Notice {
    /// The requests of all events that have no answer look alike: 1 is the pod, 2 the container if there is one.
    pub(super) fn request(&self) -> Vec<u8> {
        let request = api::StartContainerRequest {
            pod: Some(self.pod.clone()),
            container: self.container.clone(),
        };
        request.encode_to_vec()
    }

    pub(super) fn state_change(&self, event: Event) -> Vec<u8> {
        let request = api::StateChangeEvent {
            event: event.into(),
            pod: Some(self.pod.clone()),
            container: self.container.clone(),
        };
        request.encode_to_vec()
    }
}

/// The method that an event is told by.
pub(super) fn method(event: Event) -> &'static str {
    match event {
        Event::RunPodSandbox => "RunPodSandbox",
        Event::StopPodSandbox => "StopPodSandbox",
        Event::RemovePodSandbox => "RemovePodSandbox",
        Event::CreateContainer => "CreateContainer",
        Event::PostCreateContainer => "PostCreateContainer",
        Event::StartContainer => "StartContainer",
        Event::PostStartContainer => "PostStartContainer",
        Event::UpdateContainer => "UpdateContainer",
        Event::PostUpdateContainer => "PostUpdateContainer",
        Event::StopContainer => "StopContainer",
        Event::RemoveContainer => "RemoveContainer",
        Event::UpdatePodSandbox => "UpdatePodSandbox",
        Event::PostUpdatePodSandbox => "PostUpdatePodSandbox",
        Event::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        Event::Unknown | Event::Last => "StateChange",
    }
}
