//! What a message may not say, whatever it asks for: numbers that no enumeration has, texts that are no names, more than
//! lists of objects could hold.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::request::{Result, invalid};
use crate::v1;
use crate::v1::security_profile::ProfileType;

/// What labels and annotations of one object may have together. Kubernetes takes 256 KiB of annotations; a list of objects
/// has to fit into a message.
const MAX_NOTES: usize = 1 << 20;

/// HOST_NAME_MAX of gethostname(2).
const MAX_HOSTNAME: usize = 64;

/// Refuses a sandbox whose message makes no sense.
pub(super) fn sandbox(config: &v1::PodSandboxConfig) -> Result<()> {
    notes(&config.labels, &config.annotations)?;
    for mapping in &config.port_mappings {
        known::<v1::Protocol>(mapping.protocol, "config.port_mappings.protocol")?;
    }
    if let Some(metadata) = &config.metadata {
        name(&metadata.name, "config.metadata.name")?;
        name(&metadata.namespace, "config.metadata.namespace")?;
        name(&metadata.uid, "config.metadata.uid")?;
    }
    text(&config.hostname, "config.hostname")?;
    if config.hostname.len() > MAX_HOSTNAME {
        return Err(invalid(format!(
            "config.hostname has {} bytes; Linux takes {MAX_HOSTNAME}.",
            config.hostname.len()
        )));
    }
    text(&config.log_directory, "config.log_directory")?;
    let security = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    if let Some(security) = security {
        namespaces(security.namespace_options.as_ref())?;
        profile(security.seccomp.as_ref(), "seccomp")?;
        profile(security.apparmor.as_ref(), "apparmor")?;
    }
    Ok(())
}

/// Refuses a container whose message makes no sense.
pub(super) fn container(config: &v1::ContainerConfig) -> Result<()> {
    notes(&config.labels, &config.annotations)?;
    known::<v1::Signal>(config.stop_signal, "config.stop_signal")?;
    for mount in &config.mounts {
        known::<v1::MountPropagation>(mount.propagation, "config.mounts.propagation")?;
    }
    if let Some(metadata) = &config.metadata {
        name(&metadata.name, "config.metadata.name")?;
    }
    log_path(&config.log_path)?;
    let security = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref());
    if let Some(security) = security {
        namespaces(security.namespace_options.as_ref())?;
        profile(security.seccomp.as_ref(), "seccomp")?;
        profile(security.apparmor.as_ref(), "apparmor")?;
    }
    Ok(())
}

fn namespaces(options: Option<&v1::NamespaceOption>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    known::<v1::NamespaceMode>(options.network, "namespace_options.network")?;
    known::<v1::NamespaceMode>(options.pid, "namespace_options.pid")?;
    known::<v1::NamespaceMode>(options.ipc, "namespace_options.ipc")?;
    let user = options.userns_options.as_ref().map_or(0, |user| user.mode);
    known::<v1::NamespaceMode>(user, "namespace_options.userns_options.mode")
}

fn profile(profile: Option<&v1::SecurityProfile>, field: &str) -> Result<()> {
    let kind = profile.map_or(0, |profile| profile.profile_type);
    known::<ProfileType>(kind, &format!("{field}.profile_type"))
}

/// A number that no enumeration has reads as its first value, which is not what was meant.
fn known<T: TryFrom<i32>>(value: i32, field: &str) -> Result<()> {
    match T::try_from(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(invalid(format!(
            "{field} is {value}, which this runtime does not know."
        ))),
    }
}

fn notes(labels: &HashMap<String, String>, annotations: &HashMap<String, String>) -> Result<()> {
    let all = labels.iter().chain(annotations);
    let size: usize = all.map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_NOTES {
        return Err(invalid(format!(
            "config.labels and config.annotations have {size} bytes; together they may have {MAX_NOTES}."
        )));
    }
    Ok(())
}

/// Names go to network plugins, into lists and into file names.
fn name(value: &str, field: &str) -> Result<()> {
    if value.chars().any(char::is_control) {
        return Err(invalid(format!(
            "{field} is {value:?}; a name has no control characters."
        )));
    }
    Ok(())
}

fn text(value: &str, field: &str) -> Result<()> {
    if value.contains('\0') {
        return Err(invalid(format!("{field} is {value:?}, and must not have a NUL.")));
    }
    Ok(())
}

/// A log is somewhere in its pod's log directory.
fn log_path(path: &str) -> Result<()> {
    text(path, "config.log_path")?;
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if Path::new(path).components().all(inside) {
        return Ok(());
    }
    Err(invalid(format!(
        "config.log_path is {path:?}; it is a path in the pod's log_directory, neither absolute nor with \"..\"."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(outcome: Result<()>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn numbers_that_no_enumeration_has_are_refused() {
        let pod = v1::PodSandboxConfig {
            port_mappings: vec![v1::PortMapping {
                protocol: 9,
                ..Default::default()
            }],
            ..Default::default()
        };
        assert!(refusal(sandbox(&pod)).contains("protocol is 9"));
        let base = v1::ContainerConfig::default;
        let mount = v1::Mount {
            propagation: -1,
            ..Default::default()
        };
        let security = |security| v1::ContainerConfig {
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(security),
                ..Default::default()
            }),
            ..base()
        };
        let options = v1::NamespaceOption {
            pid: 17,
            ..Default::default()
        };
        let strange = v1::SecurityProfile {
            profile_type: 5,
            ..Default::default()
        };
        let table = [
            (
                v1::ContainerConfig {
                    stop_signal: 999,
                    ..base()
                },
                "config.stop_signal is 999",
            ),
            (
                v1::ContainerConfig {
                    mounts: vec![mount],
                    ..base()
                },
                "config.mounts.propagation is -1",
            ),
            (
                security(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(options),
                    ..Default::default()
                }),
                "namespace_options.pid is 17",
            ),
            (
                security(v1::LinuxContainerSecurityContext {
                    seccomp: Some(strange),
                    ..Default::default()
                }),
                "seccomp.profile_type is 5",
            ),
        ];
        for (config, named) in table {
            let message = refusal(container(&config));
            assert!(message.contains(named), "{message}");
        }
        container(&base()).unwrap();
    }

    #[test]
    fn a_log_is_in_its_pods_directory() {
        for path in ["", "c.log", "c/0.log", "./c.log", "c..log"] {
            log_path(path).unwrap();
        }
        for path in ["/etc/passwd", "../c.log", "c/../../x", "c\0.log"] {
            assert!(refusal(log_path(path)).contains("config.log_path"), "{path}");
        }
    }

    #[test]
    fn labels_of_megabytes_are_refused() {
        let of = |length| v1::PodSandboxConfig {
            annotations: HashMap::from([("a".to_owned(), "x".repeat(length))]),
            ..Default::default()
        };
        sandbox(&of(256 << 10)).unwrap();
        assert!(refusal(sandbox(&of(2 << 20))).contains("1048576"));
    }
}
