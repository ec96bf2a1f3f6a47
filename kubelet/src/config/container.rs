//! A container, as the engine is asked for it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

use berth_cri::{ContainerConfig, Image, MountPropagation, PodSandboxStatus};
use k8s_openapi::api::core::v1::{Container, Pod, VolumeDevice, VolumeMount};

use super::security::take_image_user;
use super::{check_non_root, container_security, hosts_file, labels, namespace_options};
use crate::backoff::RESTARTS_IN_A_ROW;
use crate::defaults::TERMINATION_MESSAGE_PATH;
use crate::env::{self, ConfigError, EnvSources};
use crate::env_file::EnvFiles;
use crate::expansion::{Expansion, first_unknown};
use crate::plan::{Desired, ROUND, StartContainer, VolumeDeviceRequest, VolumeMountRequest};
use crate::resources::container_resources;
use crate::sizes;
use crate::spec::{self, Role};
use crate::user_ids::UserIds;

/// Which container is wanted, and where.
#[derive(Clone, Copy, Debug)]
pub struct ContainerRequest<'a> {
    /// The container in the specification.
    pub container: &'a Container,
    /// Its part in the pod.
    pub role: Role,
    /// How often it was made before.
    pub attempt: u32,
    /// How many restarts in a row led to it.
    pub restarts_in_a_row: u32,
    /// How often all containers of the pod were restarted together before.
    pub round: u32,
    /// The sandbox it goes to.
    pub sandbox: &'a PodSandboxStatus,
    /// Its image.
    pub image: &'a Image,
    /// Files that its environment may come from.
    pub env_files: &'a EnvFiles,
}

/// All there is to know to start the container.
///
/// # Errors
/// Something that it refers to is not there, or it may not run like that (`CreateContainerConfigError`).
pub fn to_start_container(
    desired: &Desired,
    request: ContainerRequest<'_>,
) -> Result<StartContainer, ConfigError> {
    let ContainerRequest {
        container,
        sandbox,
        image,
        ..
    } = request;
    check_non_root(&desired.pod, container, image)?;
    let sources = EnvSources {
        pod: &desired.pod,
        objects: &desired.objects,
        files: request.env_files,
        node: &desired.node,
        pod_ips: &sandbox.ips,
    };
    let envs = env::resolve(container, sources)?;
    let volume_mounts = volume_mounts(container, &envs, desired)?;
    let mounted = |path: &str| {
        volume_mounts
            .iter()
            .any(|mount| mount.container_path == Path::new("/").join(path))
    };
    let hosts = (!mounted("/etc/hosts")).then(|| hosts_file(&desired.pod, &sandbox.ips, &desired.node));
    let message_path = container
        .termination_message_path
        .as_deref()
        .unwrap_or(TERMINATION_MESSAGE_PATH);
    let termination_message_path =
        (!message_path.is_empty() && !mounted(message_path)).then(|| Path::new("/").join(message_path));
    Ok(StartContainer {
        sandbox: sandbox.id.clone(),
        config: Box::new(container_config(desired, request, envs)?),
        volume_mounts,
        volume_devices: volume_devices(container),
        hosts,
        termination_message_path,
    })
}

fn container_config(
    desired: &Desired,
    request: ContainerRequest<'_>,
    envs: Vec<(String, String)>,
) -> Result<ContainerConfig, ConfigError> {
    let ContainerRequest {
        container,
        role,
        attempt,
        restarts_in_a_row,
        round,
        image,
        ..
    } = request;
    let pod = &desired.pod;
    let known: HashMap<&str, &str> = envs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut expansion = Expansion::default();
    let mut expanded = |what: &str, list: &Option<Vec<String>>| -> Result<Vec<String>, ConfigError> {
        let list = list.iter().flatten().enumerate();
        list.map(|(index, text)| {
            let text = expansion.of(text, |name| known.get(name).copied());
            text.map_err(|why| ConfigError::Invalid(format!("{what}[{index}] {why}")))
        })
        .collect()
    };
    let (command, args) = (
        expanded("command", &container.command)?,
        expanded("args", &container.args)?,
    );
    let mut security = container_security(pod, container, &desired.node)?;
    take_image_user(&mut security, image);
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt,
        image: image.id.0.clone(),
        user_specified_image: container.image.clone().unwrap_or_default(),
        command,
        args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts: Vec::new(),
        devices: Vec::new(),
        cdi_devices: Vec::new(),
        labels: container_labels(desired, &container.name),
        annotations: annotations(pod, container, restarts_in_a_row, round),
        log_path: PathBuf::from(&container.name).join(format!("{attempt}.log")),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        resources: container_resources(pod, container, role, &desired.node),
        security,
        namespaces: namespace_options(pod),
        pid_target: None,
        user_namespace: desired.user_ids.map(UserIds::user_namespace),
        stop_signal: container
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.clone()),
        envs,
    })
}

/// What the plan is to find again in the engine's record.
fn annotations(
    pod: &Pod,
    container: &Container,
    restarts_in_a_row: u32,
    round: u32,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (RESTARTS_IN_A_ROW.to_owned(), restarts_in_a_row.to_string()),
        (ROUND.to_owned(), round.to_string()),
    ]);
    if let Some(resources) = sizes::note(pod, container) {
        all.insert(sizes::MADE_WITH.to_owned(), resources);
    }
    all
}

fn container_labels(desired: &Desired, name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
        (labels::POD_NAME.to_owned(), spec::name(&desired.pod).to_owned()),
        (
            labels::POD_NAMESPACE.to_owned(),
            spec::namespace(&desired.pod).to_owned(),
        ),
        (labels::POD_UID.to_owned(), desired.uid.0.clone()),
    ])
}

fn volume_mounts(
    container: &Container,
    envs: &[(String, String)],
    desired: &Desired,
) -> Result<Vec<VolumeMountRequest>, ConfigError> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    mounts
        .iter()
        .map(|mount| volume_mount(mount, envs, desired))
        .collect()
}

fn volume_mount(
    mount: &VolumeMount,
    envs: &[(String, String)],
    Desired { pod, node, .. }: &Desired,
) -> Result<VolumeMountRequest, ConfigError> {
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::HostToContainer,
        Some("Bidirectional") => MountPropagation::Bidirectional,
        _ => MountPropagation::None,
    };
    Ok(VolumeMountRequest {
        volume: mount.name.clone(),
        sub_path: sub_path(mount, envs)?,
        // A relative path is relative to the root.
        container_path: Path::new("/").join(&mount.mount_path),
        read_only: mount.read_only == Some(true),
        // Validation has seen to it that the mount is read-only and private then.
        recursive_read_only: match mount.recursive_read_only.as_deref() {
            Some("Enabled") => true,
            Some("IfPossible") => node.recursive_read_only.contains(spec::runtime_handler(pod)),
            _ => false,
        },
        propagation,
    })
}

/// A relative path is relative to the root.
fn volume_devices(container: &Container) -> Vec<VolumeDeviceRequest> {
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let request = |device: &VolumeDevice| VolumeDeviceRequest {
        volume: device.name.clone(),
        container_path: Path::new("/").join(&device.device_path),
    };
    devices.iter().map(request).collect()
}

fn sub_path(mount: &VolumeMount, envs: &[(String, String)]) -> Result<Option<PathBuf>, ConfigError> {
    let lookup = |name: &str| env::lookup(envs, name);
    let text = match (mount.sub_path.as_deref(), mount.sub_path_expr.as_deref()) {
        (Some(path), _) if !path.is_empty() => path.to_owned(),
        (_, Some(template)) if !template.is_empty() => match first_unknown(template, lookup) {
            Some(name) => return Err(ConfigError::SubPath(name.to_owned())),
            None => {
                let expanded = Expansion::default().of(template, lookup);
                expanded.map_err(|why| ConfigError::Invalid(format!("subPathExpr {template:?} {why}")))?
            }
        },
        _ => return Ok(None),
    };
    let path = PathBuf::from(&text);
    if path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(ConfigError::Invalid(format!(
            "subPath {text:?} must be a relative path without '..'"
        )));
    }
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;
    use std::sync::Arc;

    use berth_cri::{ImageId, PodSandboxConfig, SandboxId};

    use super::*;
    use crate::identity::PodUid;
    use crate::plan::NodeFacts;
    use crate::testing::pod;

    fn start(container: &str) -> Result<StartContainer, ConfigError> {
        start_on(NodeFacts::default(), "", container)
    }

    fn start_on(node: NodeFacts, handler: &str, container: &str) -> Result<StartContainer, ConfigError> {
        let mut pod = pod(&format!("{{\"containers\":[{container}]}}"));
        pod.spec.as_mut().unwrap().runtime_class_name = Some(handler.to_owned());
        let desired = Desired {
            pod: Arc::new(pod),
            uid: PodUid("uid".into()),
            objects: Arc::default(),
            node: Arc::new(node),
            user_ids: None,
            deletion: None,
        };
        let sandbox = PodSandboxStatus {
            id: SandboxId("s".into()),
            config: PodSandboxConfig::default(),
            ready: true,
            created_at: 1,
            ips: vec![IpAddr::from([10, 0, 0, 9])],
        };
        let image = Image {
            id: ImageId("sha256:1".into()),
            repo_tags: vec![],
            repo_digests: vec![],
            size: 0,
            user: String::new(),
            pinned: false,
        };
        let container = &spec::containers(&desired.pod)[0];
        let request = ContainerRequest {
            container,
            role: Role::Main,
            attempt: 2,
            restarts_in_a_row: 1,
            round: 0,
            sandbox: &sandbox,
            env_files: &EnvFiles::new(),
            image: &image,
        };
        to_start_container(&desired, request)
    }

    #[test]
    fn the_whole_of_it() {
        let found = start(
            r#"{"name":"c","image":"busybox","command":["sh","$(A)"],"args":["$(B)","$$(A)"],"workingDir":"/w",
                "env":[{"name":"A","value":"1"},{"name":"IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}}],
                "volumeMounts":[{"name":"v","mountPath":"/v","subPathExpr":"x/$(A)","readOnly":true}],"tty":true}"#,
        )
        .unwrap();
        assert_eq!(found.config.command, ["sh", "1"]);
        assert_eq!(found.config.args, ["$(B)", "$(A)"]);
        assert_eq!(
            found.config.envs,
            [("A".into(), "1".into()), ("IP".into(), "10.0.0.9".into())]
        );
        assert_eq!(found.config.image, "sha256:1");
        assert_eq!(found.config.user_specified_image, "busybox");
        assert_eq!(found.config.log_path, Path::new("c/2.log"));
        assert_eq!(found.config.annotations[RESTARTS_IN_A_ROW], "1");
        assert_eq!(found.volume_mounts[0].sub_path.as_deref(), Some(Path::new("x/1")));
        assert!(found.volume_mounts[0].read_only && found.config.tty);
        assert_eq!(
            found.termination_message_path.as_deref(),
            Some(Path::new("/dev/termination-log"))
        );
        assert!(found.hosts.unwrap().contains("10.0.0.9\tp"));
    }

    #[test]
    fn read_only_all_the_way_down() {
        let recursive = |handler: &str, mount: &str| {
            let node = NodeFacts {
                recursive_read_only: BTreeSet::from(["able".to_owned()]),
                ..NodeFacts::default()
            };
            let found = start_on(
                node,
                handler,
                &format!(
                    r#"{{"name":"c","image":"i","volumeMounts":[{{"name":"v","mountPath":"/v","readOnly":true{mount}}}]}}"#
                ),
            );
            found.unwrap().volume_mounts[0].recursive_read_only
        };
        for (handler, mount, expected) in [
            ("able", "", false),
            ("able", r#","recursiveReadOnly":"Disabled""#, false),
            ("", r#","recursiveReadOnly":"Enabled""#, true),
            ("able", r#","recursiveReadOnly":"IfPossible""#, true),
            ("", r#","recursiveReadOnly":"IfPossible""#, false),
        ] {
            assert_eq!(recursive(handler, mount), expected, "{handler:?} {mount}");
        }
    }

    #[test]
    fn a_volume_may_take_the_place_of_a_managed_file() {
        let found =
            start(r#"{"name":"c","image":"i","volumeMounts":[{"name":"v","mountPath":"/etc/hosts"}]}"#)
                .unwrap();
        assert_eq!(found.hosts, None);
    }

    #[test]
    fn sub_paths_stay_inside() {
        for mount in [
            r#""subPath":"../x""#,
            r#""subPath":"/x""#,
            r#""subPathExpr":"$(NONE)""#,
            r#""subPathExpr":"$(UP)/x""#,
        ] {
            let found = start(&format!(
                r#"{{"name":"c","image":"i","env":[{{"name":"UP","value":".."}}],"volumeMounts":[{{"name":"v","mountPath":"/v",{mount}}}]}}"#
            ));
            assert!(found.is_err(), "{mount}");
        }
    }
}
