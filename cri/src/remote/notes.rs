//! What the engine has to know of its sandboxes and containers, and what no status of CRI tells.
//!
//! CreateContainer wants the sandbox's whole configuration once more, attach has to know of a terminal, a container's
//! status names neither its sandbox nor its pod. All of that is in one annotation of the object itself, so that it is there
//! for the next engine too. The environment is not in it: it may have secrets, and nobody asks a status for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::EngineError;
use crate::types::{ContainerConfig, ContainerStatus, PodSandboxConfig, PodSandboxStatus, SandboxId};

/// The annotation.
const ANNOTATION: &str = "berth.engine.notes";
/// The label by which kubelets find what belongs to a pod.
pub(super) const POD_UID: &str = "io.kubernetes.pod.uid";

/// The note of a sandbox.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct SandboxNote {
    /// As it was asked for, without what its status tells.
    config: PodSandboxConfig,
    /// The label of the pod's UID was not among those that were asked for.
    labelled: bool,
}

/// The note of a container.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct ContainerNote {
    sandbox: SandboxId,
    pod_uid: String,
    config: ContainerConfig,
    labelled: bool,
}

fn unwritable(error: &serde_json::Error) -> EngineError {
    EngineError::InvalidArgument(format!(
        "A configuration can't be noted in an annotation: {error}."
    ))
}

/// The sandbox as the runtime is to be asked for it: with its note, and with the label that it is found by.
pub(super) fn on_sandbox(mut config: PodSandboxConfig) -> Result<PodSandboxConfig, EngineError> {
    let mut noted = config.clone();
    noted.labels.clear();
    noted.annotations.clear();
    let note = SandboxNote {
        config: noted,
        labelled: label(&mut config.labels, &config.uid),
    };
    let text = serde_json::to_string(&note).map_err(|error| unwritable(&error))?;
    config.annotations.insert(ANNOTATION.to_owned(), text);
    Ok(config)
}

/// The container as the runtime is to be asked for it.
pub(super) fn on_container(
    mut config: ContainerConfig,
    sandbox: &SandboxId,
    pod_uid: &str,
) -> Result<ContainerConfig, EngineError> {
    let mut noted = config.clone();
    noted.labels.clear();
    noted.annotations.clear();
    noted.envs.clear();
    let note = ContainerNote {
        sandbox: sandbox.clone(),
        pod_uid: pod_uid.to_owned(),
        config: noted,
        labelled: label(&mut config.labels, pod_uid),
    };
    let text = serde_json::to_string(&note).map_err(|error| unwritable(&error))?;
    config.annotations.insert(ANNOTATION.to_owned(), text);
    Ok(config)
}

/// Adds the label; returns whether it was missing.
fn label(labels: &mut BTreeMap<String, String>, uid: &str) -> bool {
    let missing = !labels.contains_key(POD_UID);
    if missing {
        labels.insert(POD_UID.to_owned(), uid.to_owned());
    }
    missing
}

/// The sandbox as it was asked for, if this engine did, and as far as its status tells if somebody else did.
pub(super) fn read_sandbox(mut status: PodSandboxStatus) -> PodSandboxStatus {
    let Some(note) = take::<SandboxNote>(&mut status.config.annotations) else {
        return status;
    };
    let told = status.config;
    status.config = PodSandboxConfig {
        labels: told.labels,
        annotations: told.annotations,
        ..note.config
    };
    if note.labelled {
        status.config.labels.remove(POD_UID);
    }
    status
}

/// Where a container belongs, if this engine made it.
pub(super) fn owner(annotations: &std::collections::HashMap<String, String>) -> Option<(SandboxId, String)> {
    let note: ContainerNote = serde_json::from_str(annotations.get(ANNOTATION)?).ok()?;
    Some((note.sandbox, note.pod_uid))
}

/// The container as it was asked for, but with the limits and the images that it has now, and without its environment.
pub(super) fn read_container(mut status: ContainerStatus) -> ContainerStatus {
    let Some(note) = take::<ContainerNote>(&mut status.config.annotations) else {
        return status;
    };
    let told = status.config;
    let mut config = ContainerConfig {
        labels: told.labels,
        annotations: told.annotations,
        ..note.config
    };
    // Limits change, and old runtimes don't tell them.
    if told.resources != Default::default() {
        config.resources = told.resources;
    }
    for mount in &mut config.mounts {
        let same = |other: &&crate::types::Mount| other.container_path == mount.container_path;
        if let (Some(image), Some(known)) = (&mut mount.image, told.mounts.iter().find(same))
            && let Some(known) = &known.image
        {
            image.image_ref.clone_from(&known.image_ref);
        }
    }
    if note.labelled {
        config.labels.remove(POD_UID);
    }
    status.config = config;
    status
}

/// A note that can't be read is none: then it is somebody else's.
fn take<T: for<'de> Deserialize<'de>>(annotations: &mut BTreeMap<String, String>) -> Option<T> {
    let note = serde_json::from_str(annotations.get(ANNOTATION)?).ok()?;
    annotations.remove(ANNOTATION);
    Some(note)
}
