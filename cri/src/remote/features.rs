//! What an older runtime would drop without a word: protobuf skips fields that a program does not know. As a kubelet does, a
//! configuration that needs such a field is only sent to a runtime that says that it knows it.

use crate::engine::EngineError;
use crate::types::{
    ContainerConfig, ContainerStatus, PodSandboxConfig, RuntimeStatus, SupplementalGroupsPolicy,
};

fn refuse(who: &str, field: &str) -> EngineError {
    EngineError::InvalidArgument(format!(
        "{field} is not supported by {who}; leave it out, or use a runtime that says it is."
    ))
}

/// Whether anything of a sandbox needs a runtime that says it knows it.
pub(super) fn sandbox_needs(config: &PodSandboxConfig) -> bool {
    config.user_namespace.is_some()
}

/// Whether anything of a container does.
pub(super) fn container_needs(config: &ContainerConfig) -> bool {
    config.user_namespace.is_some()
        || config.security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict
        || config.mounts.iter().any(|mount| mount.recursive_read_only)
}

/// Refuses by name what the runtime does not say it can.
pub(super) fn check_sandbox(
    config: &PodSandboxConfig,
    status: &RuntimeStatus,
    who: &str,
) -> Result<(), EngineError> {
    let handler = status
        .handlers
        .iter()
        .find(|handler| handler.name == config.runtime_handler);
    if config.user_namespace.is_some() && !handler.is_some_and(|handler| handler.user_namespaces) {
        return Err(refuse(who, "user_namespace"));
    }
    Ok(())
}

/// Refuses by name what the runtime does not say it can.
pub(super) fn check_container(
    config: &ContainerConfig,
    runtime_handler: &str,
    status: &RuntimeStatus,
    who: &str,
) -> Result<(), EngineError> {
    let handler = status
        .handlers
        .iter()
        .find(|handler| handler.name == runtime_handler);
    if config.user_namespace.is_some() && !handler.is_some_and(|handler| handler.user_namespaces) {
        return Err(refuse(who, "user_namespace"));
    }
    let strict = config.security.supplemental_groups_policy == SupplementalGroupsPolicy::Strict;
    if strict && !status.supplemental_groups_policy {
        return Err(refuse(who, "supplemental_groups_policy Strict"));
    }
    let recursive = config.mounts.iter().any(|mount| mount.recursive_read_only);
    if recursive && !handler.is_some_and(|handler| handler.recursive_read_only_mounts) {
        return Err(refuse(who, "recursive_read_only of a mount"));
    }
    Ok(())
}

/// Whether a container has fields that no runtime announces, but whose status shows whether they were taken.
pub(super) fn shows_later(config: &ContainerConfig) -> bool {
    config.stop_signal.is_some() || config.mounts.iter().any(|mount| mount.image.is_some())
}

/// Refuses by name what the status of the new container does not have.
pub(super) fn check_made(
    config: &ContainerConfig,
    signal: i32,
    made: &ContainerStatus,
    who: &str,
) -> Result<(), EngineError> {
    if config.stop_signal.is_some() && made.stop_signal != signal {
        return Err(refuse(who, "stop_signal"));
    }
    let images = config.mounts.iter().filter(|mount| mount.image.is_some());
    for mount in images {
        let kept = made
            .config
            .mounts
            .iter()
            .any(|other| other.container_path == mount.container_path && other.image.is_some());
        if !kept {
            return Err(refuse(who, "the image of a mount"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Mount, RuntimeHandler, UserNamespace};

    #[test]
    fn what_a_runtime_does_not_say_it_can_is_refused_by_name() {
        let old = RuntimeStatus::default();
        let new = RuntimeStatus {
            handlers: vec![RuntimeHandler {
                name: String::new(),
                recursive_read_only_mounts: true,
                user_namespaces: true,
            }],
            supplemental_groups_policy: true,
            ..Default::default()
        };
        let mut strict = ContainerConfig::default();
        strict.security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
        let recursive = ContainerConfig {
            mounts: vec![Mount {
                recursive_read_only: true,
                ..Default::default()
            }],
            ..Default::default()
        };
        for (config, name) in [
            (strict, "supplemental_groups_policy"),
            (recursive, "recursive_read_only"),
        ] {
            assert!(container_needs(&config));
            let error = check_container(&config, "", &old, "X").unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("by X"), "{error}");
            check_container(&config, "", &new, "X").unwrap();
            assert!(!container_needs(&ContainerConfig::default()));
        }
        let sandbox = PodSandboxConfig {
            user_namespace: Some(UserNamespace {
                uids: Vec::new(),
                gids: Vec::new(),
            }),
            ..Default::default()
        };
        assert!(sandbox_needs(&sandbox) && check_sandbox(&sandbox, &old, "X").is_err());
        check_sandbox(&sandbox, &new, "X").unwrap();
        // Of a handler that is not the default one.
        let named = PodSandboxConfig {
            runtime_handler: "other".into(),
            ..sandbox
        };
        assert!(check_sandbox(&named, &new, "X").is_err());
    }
}
