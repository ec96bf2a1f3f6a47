//! What the unit tests of this crate share.

use berth_cri::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, Engine, Image, ImageId, PodSandboxConfig,
    SandboxId,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::worker::Clock;
use crate::worker::fake::FakeEngine;

/// A container that was made and is all that a container can't be without.
pub(crate) fn created(config: ContainerConfig) -> ContainerStatus {
    ContainerStatus {
        id: ContainerId(format!("{}{}", config.name, config.attempt)),
        sandbox: SandboxId("s".into()),
        pod_uid: "uid".into(),
        config,
        image_id: ImageId("sha256:1".into()),
        state: ContainerState::Created,
        created_at: 0,
        started_at: 0,
        finished_at: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        log_path: "/l".into(),
        pid: 0,
        user: None,
        stop_signal: 15,
    }
}

/// The image that all such containers have.
pub(crate) fn image() -> Image {
    Image {
        id: ImageId("sha256:1".into()),
        repo_tags: vec![],
        repo_digests: vec![],
        size: 1,
        user: String::new(),
        pinned: false,
    }
}

/// The configuration of a container of a name, as often as it was made before.
pub(crate) fn config(name: &str, attempt: u32) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        attempt,
        ..ContainerConfig::default()
    }
}

/// An engine in memory with a container `c` that runs, in a sandbox.
pub(crate) async fn engine_with_container() -> (FakeEngine, ContainerId) {
    let engine = FakeEngine::new(Clock::system());
    let sandbox = engine.run_pod_sandbox(PodSandboxConfig::default()).await.unwrap();
    let id = engine.create_container(&sandbox, config("c", 0)).await.unwrap();
    engine.start_container(&id).await.unwrap();
    (engine, id)
}

/// A pod `default/p` with this specification (JSON).
pub(crate) fn pod(spec: &str) -> Pod {
    let spec: serde_json::Value = serde_json::from_str(spec).unwrap();
    let metadata = json!({"name": "p", "namespace": "default", "uid": "uid", "generation": 1});
    serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
        .unwrap()
}
