//! What a checkpoint says of its container, in the words of others.

use serde_json::{Value, json};

use crate::types::{ContainerState, ContainerStatus, Image, Mount, UnixNanos};

/// `config.dump`, as checkpointctl's library defines it.
pub(super) fn config(status: &ContainerStatus, image: Option<&Image>, now: UnixNanos) -> Value {
    let asked = &status.config.image;
    let tag = image.and_then(|image| image.repo_tags.first()).unwrap_or(asked);
    json!({
        "id": status.id.0,
        "name": status.config.name,
        "rootfsImage": tag,
        "rootfsImageRef": reference(status, image),
        "rootfsImageName": tag,
        "runtime": "berth",
        "createdTime": time(status.created_at),
        "checkpointedTime": time(now),
        // Go's zero: it was not restored.
        "restoredTime": "0001-01-01T00:00:00Z",
        "restored": false,
    })
}

/// The image by digest, with which it can be pulled; without a name it has only its id.
fn reference<'a>(status: &'a ContainerStatus, image: Option<&'a Image>) -> &'a str {
    image
        .and_then(|image| image.repo_digests.first())
        .unwrap_or(&status.image_id.0)
}

/// `status.dump`, a CRI `ContainerStatus` as Go's JSON has it: names of the protocol, numbers for enumerations, and nothing
/// that is empty.
pub(super) fn status(status: &ContainerStatus, image: Option<&Image>) -> Value {
    let config = &status.config;
    let asked = json!({
        "image": config.image,
        "user_specified_image": config.user_specified_image,
    });
    let mut all = json!({
        "id": status.id.0,
        "metadata": without_empty(json!({ "name": config.name, "attempt": config.attempt })),
        "state": match status.state {
            ContainerState::Created => 0,
            ContainerState::Running => 1,
            ContainerState::Exited => 2,
            ContainerState::Unknown => 3,
        },
        "created_at": status.created_at,
        "started_at": status.started_at,
        "image": without_empty(asked),
        "image_ref": reference(status, image),
        "image_id": status.image_id.0,
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": status.log_path,
    });
    if let Value::Object(fields) = &mut all {
        let mounts: Vec<Value> = config.mounts.iter().map(mount).collect();
        fields.insert("mounts".to_owned(), mounts.into());
    }
    without_empty(all)
}

fn mount(mount: &Mount) -> Value {
    without_empty(json!({
        "container_path": mount.container_path,
        "host_path": mount.host_path,
        "readonly": mount.readonly,
    }))
}

fn without_empty(value: Value) -> Value {
    let Value::Object(mut fields) = value else {
        return value;
    };
    fields.retain(|_, value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_u64() != Some(0),
        Value::String(value) => !value.is_empty(),
        Value::Array(value) => !value.is_empty(),
        Value::Object(value) => !value.is_empty(),
    });
    Value::Object(fields)
}

fn time(nanos: UnixNanos) -> String {
    String::from_utf8_lossy(&berth_shim::rfc3339(nanos)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ContainerConfig, ContainerId, ImageId, SandboxId};

    fn running() -> ContainerStatus {
        ContainerStatus {
            id: ContainerId("c1".into()),
            sandbox: SandboxId("s1".into()),
            pod_uid: "u".into(),
            config: ContainerConfig {
                name: "main".into(),
                image: "example.com/a:1".into(),
                labels: [("io.kubernetes.pod.name".to_owned(), "p".to_owned())].into(),
                mounts: vec![Mount {
                    container_path: "/data".into(),
                    host_path: "/srv".into(),
                    readonly: true,
                    ..Mount::default()
                }],
                ..ContainerConfig::default()
            },
            image_id: ImageId("sha256:11".into()),
            state: ContainerState::Running,
            created_at: 1_709_251_199_000_000_000,
            started_at: 1_709_251_200_000_000_000,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            log_path: "/var/log/pods/x/0.log".into(),
            pid: 7,
            user: None,
            stop_signal: 15,
        }
    }

    #[test]
    fn the_configuration_names_the_image() {
        let image = Image {
            id: ImageId("sha256:11".into()),
            repo_tags: vec!["example.com/a:1".into()],
            repo_digests: vec!["example.com/a@sha256:22".into()],
            size: 1,
            user: String::new(),
            pinned: false,
        };
        let told = config(&running(), Some(&image), 0);
        assert_eq!(told["rootfsImageName"], "example.com/a:1");
        assert_eq!(told["rootfsImageRef"], "example.com/a@sha256:22");
        assert_eq!(told["createdTime"], "2024-02-29T23:59:59.000000000Z");
        assert_eq!(told["checkpointedTime"], "1970-01-01T00:00:00.000000000Z");
        assert_eq!(config(&running(), None, 0)["rootfsImageRef"], "sha256:11");
    }

    #[test]
    fn the_status_is_a_containers_of_cri() {
        let expected = json!({
            "id": "c1",
            "metadata": { "name": "main" },
            "state": 1,
            "created_at": 1_709_251_199_000_000_000_u64,
            "started_at": 1_709_251_200_000_000_000_u64,
            "image": { "image": "example.com/a:1" },
            "image_ref": "sha256:11",
            "image_id": "sha256:11",
            "labels": { "io.kubernetes.pod.name": "p" },
            "mounts": [{ "container_path": "/data", "host_path": "/srv", "readonly": true }],
            "log_path": "/var/log/pods/x/0.log",
        });
        assert_eq!(status(&running(), None), expected);
    }
}
