//! What a pod or a container asks for that its runtime handler can't do, refused by name: runtimes ignore fields of the
//! configuration that are newer than they are.

use serde_json::{Value, json};

use super::Handler;
use crate::engine::EngineError;
use crate::types::{ContainerConfig, PodSandboxConfig};

/// Fields of the OCI configuration that are newer than version 1.0, with the version that has them first.
const NEWER: [(&str, (u32, u32)); 7] = [
    ("/process/ioPriority", (1, 1)),
    ("/process/scheduler", (1, 1)),
    ("/process/execCPUAffinity", (1, 2)),
    ("/linux/timeOffsets", (1, 1)),
    ("/linux/netDevices", (1, 3)),
    ("/linux/memoryPolicy", (1, 3)),
    ("/linux/intelRdt/schemata", (1, 3)),
];

fn refuse(handler: &Handler, what: &str, why: &str) -> EngineError {
    EngineError::InvalidArgument(format!(
        "{what} can't be had from the runtime handler {}: {} {why}.",
        handler.name,
        handler.config.program.display()
    ))
}

/// Refuses a pod.
pub(super) fn check_pod(handler: &Handler, pod: &PodSandboxConfig) -> Result<(), EngineError> {
    if pod.user_namespace.is_some() && !handler.features.has_user_namespaces() {
        let what = format!("The user namespace of pod {}/{}", pod.namespace, pod.name);
        let why = "does not say that it knows user namespaces and id-mapped mounts";
        return Err(refuse(handler, &what, why));
    }
    Ok(())
}

/// Refuses a container.
pub(in super::super) fn check_container(
    handler: &Handler,
    config: &ContainerConfig,
) -> Result<(), EngineError> {
    for mount in &config.mounts {
        let place = mount.container_path.display();
        if mount.recursive_read_only && !handler.features.recursive_read_only {
            let what = format!("The mount on {place} as recursive_read_only");
            return Err(refuse(
                handler,
                &what,
                "does not say that it knows the mount option rro",
            ));
        }
        let mapped = !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
        if mapped && !handler.features.id_mapped_mounts {
            let what = format!("The id mapping of the mount on {place}");
            return Err(refuse(
                handler,
                &what,
                "does not say that it knows id-mapped mounts",
            ));
        }
    }
    Ok(())
}

/// Refuses a configuration, once plugins have had their say, or says in it what version of the specification it needs:
/// crun refuses those that are newer than it is.
pub(in super::super) fn fit_spec(handler: &Handler, spec: &mut Value) -> Result<(), EngineError> {
    let known = handler.features.specification;
    let unknown = NEWER
        .iter()
        .find(|(field, since)| known < *since && spec.pointer(field).is_some());
    let Some((field, (major, minor))) = unknown else {
        if known < (1, 2) {
            spec["ociVersion"] = json!(if known < (1, 1) { "1.0.2" } else { "1.1.0" });
        }
        return Ok(());
    };
    let what = field.trim_start_matches('/').replace('/', ".");
    let why = format!("does not say that it knows version {major}.{minor} of the OCI runtime specification");
    Err(refuse(handler, &what, &why))
}

#[cfg(test)]
mod tests {
    use super::super::probe::Features;
    use super::super::{Handler, HandlerConfig};
    use super::*;
    use crate::types::{IdMapping, Mount, UserNamespace};

    fn handler(features: Features) -> Handler {
        Handler {
            name: "other".into(),
            config: HandlerConfig::new("/bin/other".into()),
            features,
        }
    }

    fn all() -> Features {
        Features {
            specification: (1, 3),
            recursive_read_only: true,
            id_mapped_mounts: true,
            user_namespaces: true,
            ..Default::default()
        }
    }

    #[test]
    fn what_a_runtime_does_not_know_is_refused_by_name() {
        let (able, plain) = (handler(all()), handler(Features::default()));
        let map = vec![IdMapping {
            container: 0,
            host: 65536,
            size: 1,
        }];
        let pod = PodSandboxConfig {
            user_namespace: Some(UserNamespace {
                uids: map.clone(),
                gids: map.clone(),
            }),
            ..Default::default()
        };
        assert!(check_pod(&able, &pod).is_ok());
        let error = check_pod(&plain, &pod).unwrap_err().to_string();
        assert!(
            error.contains("user namespace") && error.contains("other"),
            "{error}"
        );
        let read_only = Mount {
            recursive_read_only: true,
            ..Default::default()
        };
        let mapped = Mount {
            uid_mappings: map,
            ..Default::default()
        };
        for (mount, named) in [(read_only, "recursive_read_only"), (mapped, "id mapping")] {
            let config = ContainerConfig {
                mounts: vec![mount],
                ..Default::default()
            };
            assert!(check_container(&able, &config).is_ok());
            let error = check_container(&plain, &config).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn fields_that_are_newer_than_the_runtime_are_refused() {
        let spec = json!({ "process": { "scheduler": {} }, "linux": { "memoryPolicy": {} } });
        assert!(fit_spec(&handler(all()), &mut spec.clone()).is_ok());
        let of = |specification| {
            let features = Features {
                specification,
                ..Default::default()
            };
            fit_spec(&handler(features), &mut spec.clone())
                .unwrap_err()
                .to_string()
        };
        assert!(of((1, 0)).contains("process.scheduler"));
        assert!(of((1, 2)).contains("linux.memoryPolicy"));
        for (known, version) in [
            ((0, 0), "1.0.2"),
            ((1, 0), "1.0.2"),
            ((1, 1), "1.1.0"),
            ((1, 3), "1.2.0"),
        ] {
            let features = Features {
                specification: known,
                ..Default::default()
            };
            let mut spec = json!({ "ociVersion": "1.2.0", "linux": {} });
            fit_spec(&handler(features), &mut spec).unwrap();
            assert_eq!(spec["ociVersion"], version, "{known:?}");
        }
    }
}
