//! Pods and containers as plugins see them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::api::{self, Container, PodSandbox};
use super::limits;
use crate::types::{ContainerConfig, LinuxContainerResources, PodSandboxConfig, SeccompProfile};

/// A pod. Without the pause's pid its namespaces are gone.
pub(crate) fn pod(
    config: &PodSandboxConfig,
    id: &str,
    cgroups_path: String,
    ips: &[IpAddr],
    pause: Option<i32>,
) -> PodSandbox {
    let mut namespaces = Vec::new();
    if let Some(pause) = pause {
        let shared = config.namespaces;
        let kinds = [
            ("network", "net", shared.host_network),
            ("ipc", "ipc", shared.host_ipc),
            ("uts", "uts", shared.host_network),
        ];
        for (kind, file, of_host) in kinds {
            if !of_host {
                namespaces.push(api::LinuxNamespace {
                    r#type: kind.to_owned(),
                    path: format!("/proc/{pause}/ns/{file}"),
                });
            }
        }
    }
    let parent = format!("/{}", config.cgroup_parent.display());
    PodSandbox {
        id: id.to_owned(),
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        runtime_handler: config.runtime_handler.clone(),
        linux: Some(api::LinuxPodSandbox {
            cgroups_path,
            cgroup_parent: parent,
            namespaces,
            pod_overhead: config.overhead.as_ref().map(limits::shown),
            pod_resources: config.resources.as_ref().map(limits::shown),
            ..Default::default()
        }),
        pid: pause.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
        ips: ips.iter().map(ToString::to_string).collect(),
    }
}

/// The engine's limits as plugins see them.
pub(crate) fn limits_of(resources: &LinuxContainerResources) -> api::LinuxResources {
    limits::shown(resources)
}

/// A container with its OCI spec.
pub(crate) fn container(
    config: &ContainerConfig,
    id: &str,
    pod: &str,
    image: &str,
    spec: &Value,
) -> Container {
    let mut annotations = string_map(&spec["annotations"]);
    annotations.extend(config.annotations.clone());
    let (profile, reference) = match &config.security.seccomp {
        SeccompProfile::RuntimeDefault => (api::security_profile::ProfileType::RuntimeDefault, String::new()),
        SeccompProfile::Unconfined => (api::security_profile::ProfileType::Unconfined, String::new()),
        SeccompProfile::Localhost(path) => (
            api::security_profile::ProfileType::Localhost,
            path.display().to_string(),
        ),
    };
    let process = &spec["process"];
    Container {
        id: id.to_owned(),
        pod_sandbox_id: pod.to_owned(),
        name: config.name.clone(),
        state: api::ContainerState::ContainerCreated.into(),
        labels: config.labels.clone(),
        annotations,
        args: strings(&process["args"]),
        env: strings(&process["env"]),
        mounts: items(&spec["mounts"]).map(mount).collect(),
        hooks: spec.get("hooks").map(hooks),
        linux: Some(api::LinuxContainer {
            seccomp_profile: Some(api::SecurityProfile {
                profile_type: profile.into(),
                localhost_ref: reference,
            }),
            resources: Some(resources(&spec["linux"]["resources"], &config.resources)),
            ..linux(spec)
        }),
        rlimits: items(&process["rlimits"]).map(rlimit).collect(),
        user: Some(api::User {
            uid: narrow(&process["user"]["uid"]),
            gid: narrow(&process["user"]["gid"]),
            additional_gids: items(&process["user"]["additionalGids"]).map(narrow).collect(),
        }),
        cdi_devices: config
            .cdi_devices
            .iter()
            .map(|name| api::CdiDevice { name: name.clone() })
            .collect(),
        image: Some(api::Image {
            name: config.user_specified_image.clone(),
            digest: String::new(),
            config_digest: image.to_owned(),
        }),
        ..Default::default()
    }
}

fn linux(spec: &Value) -> api::LinuxContainer {
    let (linux, process) = (&spec["linux"], &spec["process"]);
    let namespace = |value: &Value| api::LinuxNamespace {
        r#type: text(&value["type"]),
        path: text(&value["path"]),
    };
    let net_devices = linux["netDevices"].as_object().into_iter().flatten();
    api::LinuxContainer {
        namespaces: items(&linux["namespaces"]).map(namespace).collect(),
        devices: items(&linux["devices"]).map(device).collect(),
        oom_score_adj: process["oomScoreAdj"]
            .as_i64()
            .map(|value| api::OptionalInt { value }),
        cgroups_path: text(&linux["cgroupsPath"]),
        sysctl: string_map(&linux["sysctl"]),
        net_devices: net_devices
            .map(|(name, device)| {
                let device = api::LinuxNetDevice {
                    name: text(&device["name"]),
                };
                (name.clone(), device)
            })
            .collect(),
        seccomp_policy: linux.get("seccomp").map(seccomp),
        ..Default::default()
    }
}

/// The engine knows most limits; the spec has the rules for devices too.
fn resources(spec: &Value, limits: &LinuxContainerResources) -> api::LinuxResources {
    let rule = |value: &Value| api::LinuxDeviceCgroup {
        allow: value["allow"].as_bool().unwrap_or_default(),
        r#type: text(&value["type"]),
        major: value["major"].as_i64().map(|value| api::OptionalInt64 { value }),
        minor: value["minor"].as_i64().map(|value| api::OptionalInt64 { value }),
        access: text(&value["access"]),
    };
    api::LinuxResources {
        devices: items(&spec["devices"]).map(rule).collect(),
        ..limits::shown(limits)
    }
}

fn mount(value: &Value) -> api::Mount {
    api::Mount {
        destination: text(&value["destination"]),
        r#type: text(&value["type"]),
        source: text(&value["source"]),
        options: strings(&value["options"]),
    }
}

fn hooks(value: &Value) -> api::Hooks {
    let hook = |value: &Value| api::Hook {
        path: text(&value["path"]),
        args: strings(&value["args"]),
        env: strings(&value["env"]),
        timeout: value["timeout"].as_i64().map(|value| api::OptionalInt { value }),
    };
    let of = |name: &str| items(&value[name]).map(hook).collect();
    api::Hooks {
        prestart: of("prestart"),
        create_runtime: of("createRuntime"),
        create_container: of("createContainer"),
        start_container: of("startContainer"),
        poststart: of("poststart"),
        poststop: of("poststop"),
    }
}

fn rlimit(value: &Value) -> api::PosixRlimit {
    api::PosixRlimit {
        r#type: text(&value["type"]),
        hard: value["hard"].as_u64().unwrap_or_default(),
        soft: value["soft"].as_u64().unwrap_or_default(),
    }
}

fn device(value: &Value) -> api::LinuxDevice {
    let id = |name: &str| {
        let id = value[name].as_u64().and_then(|id| u32::try_from(id).ok());
        id.map(|value| api::OptionalUInt32 { value })
    };
    let mode = value["fileMode"]
        .as_u64()
        .and_then(|mode| u32::try_from(mode).ok());
    api::LinuxDevice {
        path: text(&value["path"]),
        r#type: text(&value["type"]),
        major: value["major"].as_i64().unwrap_or_default(),
        minor: value["minor"].as_i64().unwrap_or_default(),
        file_mode: mode.map(|value| api::OptionalFileMode { value }),
        uid: id("uid"),
        gid: id("gid"),
    }
}

fn seccomp(value: &Value) -> api::LinuxSeccomp {
    let errno = |value: &Value| {
        let errno = value.as_u64().and_then(|errno| u32::try_from(errno).ok());
        errno.map(|value| api::OptionalUInt32 { value })
    };
    let condition = |value: &Value| api::LinuxSeccompArg {
        index: narrow(&value["index"]),
        value: value["value"].as_u64().unwrap_or_default(),
        value_two: value["valueTwo"].as_u64().unwrap_or_default(),
        op: text(&value["op"]),
    };
    let rule = |value: &Value| api::LinuxSyscall {
        names: strings(&value["names"]),
        action: text(&value["action"]),
        errno_ret: errno(&value["errnoRet"]),
        args: items(&value["args"]).map(condition).collect(),
    };
    api::LinuxSeccomp {
        default_action: text(&value["defaultAction"]),
        default_errno: errno(&value["defaultErrnoRet"]),
        architectures: strings(&value["architectures"]),
        flags: strings(&value["flags"]),
        listener_path: text(&value["listenerPath"]),
        listener_metadata: text(&value["listenerMetadata"]),
        syscalls: items(&value["syscalls"]).map(rule).collect(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    items(value).map(text).collect()
}

fn string_map(value: &Value) -> BTreeMap<String, String> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.clone(), text(value))).collect()
}

fn narrow(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or_default()
}
