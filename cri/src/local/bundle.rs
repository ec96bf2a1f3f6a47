//! A container's bundle: what the shim and the runtime read of it.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::cgroups::Place;
use super::devices::{self, Privileged};
use super::handlers::{self, Handler};
use super::records::{self, ContainerRecord};
use super::resources::Host;
use super::sandbox::shown_hostname;
use super::selinux::{self, SelinuxLabels};
use super::spec::{self, ImageDefaults, SpecInput};
use super::users::Identity;
use super::{Inner, Sandbox, lock};
use crate::cdi;
use crate::engine::EngineError;

/// What was found out for a container.
pub(super) struct Parts<'a> {
    pub(super) image: &'a ImageDefaults,
    pub(super) identity: &'a Identity,
    /// The AppArmor profile of its programs.
    pub(super) apparmor: Option<String>,
    /// Its own mounts.
    pub(super) mounts: &'a [Value],
}

/// A container's OCI spec, as it is asked for.
pub(super) fn spec(
    inner: &Inner,
    sandbox: &Sandbox,
    record: &ContainerRecord,
    parts: Parts<'_>,
) -> Result<Value, EngineError> {
    let pod = lock(&sandbox.record).clone();
    let place = Place::of(&pod, &record.id.0);
    let (pod, handler) = (pod.config, pod.handler);
    let mut spec = spec::build(&SpecInput {
        config: &record.config,
        image: parts.image,
        identity: parts.identity,
        cgroups_path: &place.oci_path(),
        hostname: &shown_hostname(&pod),
        sandbox_run: &sandbox.dirs.run,
        bounding: &inner.bounding,
        devices: devices::of(&record.config, privileged(handler.as_ref()))?,
        host: Host::look(),
        apparmor: parts.apparmor,
        selinux: selinux_labels(sandbox, record),
        mounts: parts.mounts,
    })?;
    if let Some(handler) = &handler {
        let passed = handlers::passed(handler, &pod.annotations, &record.config.annotations);
        spec["annotations"] = json!(passed);
    }
    let devices = cdi::asked_for(&record.config.cdi_devices, &record.config.annotations)?;
    cdi::inject(&mut spec, &devices, &inner.config.cdi_spec_dirs)?;
    Ok(spec)
}

/// A container's SELinux labels, where that is in use.
pub(super) fn selinux_labels(sandbox: &Sandbox, record: &ContainerRecord) -> Option<SelinuxLabels> {
    let security = &record.config.security;
    let (of_pod, pod_has_options) = {
        let pod = lock(&sandbox.record);
        (pod.selinux.clone(), pod.config.security.selinux.is_some())
    };
    let wanted = selinux::Wanted {
        options: security.selinux.as_ref(),
        pod_has_options,
        privileged: security.privileged,
        namespaces: record.config.namespaces,
    };
    wanted.labels(of_pod.as_ref())
}

/// The files that every container of the pod mounts.
pub(super) fn pod_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let files = ["resolv.conf", "hostname", "hosts"];
    let paths = files.map(|name| sandbox.dirs.run.join(name));
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// What the pod's runtime handler leaves of the host's devices to privileged containers.
fn privileged(handler: Option<&Handler>) -> Privileged {
    match handler.map(|handler| &handler.config) {
        Some(config) if config.privileged_without_host_devices => {
            if config.privileged_without_host_devices_all_devices_allowed {
                Privileged::Allowed
            } else {
                Privileged::Nothing
            }
        }
        _ => Privileged::Everything,
    }
}

/// Writes a container's bundle.
pub(super) fn write(sandbox: &Sandbox, record: &ContainerRecord, spec: &Value) -> Result<(), EngineError> {
    let bundle = sandbox.dirs.bundle(&record.id);
    let written =
        fs::create_dir_all(&bundle).and_then(|()| records::write(&bundle.join("config.json"), spec));
    written.map_err(|error| {
        EngineError::Unavailable(format!(
            "The bundle {} can't be written: {error}.",
            bundle.display()
        ))
    })
}
