//! `persistentVolumeClaim` and `ephemeral`: a claim's files, which are a directory of the node or a PersistentVolume.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::ownership::{self, Once};
use super::{Context, VolumeError, block, host_path, local, nfs};
use crate::admission::unmet_terms;
use crate::claims::{self, Backing, ClaimError, ClaimRecord, ClaimStore};
use crate::identity::PodUid;
use crate::spec;

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
    let record = find(context, volume)?;
    if record.is_block() {
        return Err(VolumeError::Unsupported(format!(
            "volume {} has volumeMode Block, but is specified in volumeMounts",
            volume.name
        )));
    }
    let Backing::Volume(bound) = record.backing() else {
        return Ok(store(context).directory(&record));
    };
    let spec = bound.spec.clone().unwrap_or_default();
    if let Some(source) = &spec.host_path {
        Ok(host_path::path(source))
    } else if let Some(source) = &spec.local {
        Ok(local::path(source))
    } else if spec.nfs.is_some() {
        Ok(nfs::path(context, &volume.name))
    } else {
        Err(without_source(&record))
    }
}

/// Makes the volume, or finds it made.
pub(super) fn set_up(context: &Context<'_>, volume: &Volume) -> Result<(), VolumeError> {
    let record = match template(context, volume) {
        Some(claim) => {
            let pod = format!("{}/{}", context.namespace(), spec::name(context.pod));
            store(context).make_ephemeral(&claim, &uid(context), &pod)?
        }
        None => find(context, volume)?,
    };
    check_node(context, &record)?;
    check_alone(context, &record)?;
    let read_only = is_read_only(volume);
    match record.backing() {
        Backing::Directory if !read_only => own(context, volume, &store(context).directory(&record)),
        Backing::Directory => Ok(()),
        Backing::Volume(bound) => {
            let spec = bound.spec.clone().unwrap_or_default();
            set_up_bound(context, volume, &record, &spec)
        }
    }
}

fn set_up_bound(
    context: &Context<'_>,
    volume: &Volume,
    record: &ClaimRecord,
    spec: &PersistentVolumeSpec,
) -> Result<(), VolumeError> {
    let read_only = is_read_only(volume);
    if let Some(source) = &spec.host_path {
        // What is on the host for others keeps its owners.
        host_path::set_up(source)
    } else if let Some(source) = &spec.local {
        if record.is_block() {
            return block::set_up(context, &volume.name, source);
        }
        local::check(source)?;
        if read_only {
            return Ok(());
        }
        own(context, volume, &local::path(source))
    } else if let Some(source) = &spec.nfs {
        let options = spec.mount_options.as_deref().unwrap_or_default();
        nfs::set_up(context, &volume.name, source, options, read_only)
    } else {
        Err(without_source(record))
    }
}

/// The pod sees it read-only whatever its containers ask for.
pub(super) fn is_read_only(volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    claim.and_then(|claim| claim.read_only) == Some(true)
}

/// Its files are there for nobody but pods, so that they may be labelled for them.
pub(super) fn is_for_pods(context: &Context<'_>, volume: &Volume) -> bool {
    let Ok(record) = find(context, volume) else {
        return false;
    };
    match record.backing() {
        Backing::Directory => true,
        Backing::Volume(bound) => bound.spec.as_ref().is_some_and(|spec| spec.local.is_some()),
    }
}

/// Removes what the pod's ephemeral volumes were.
pub(super) fn remove(kubelet_root: &std::path::Path, uid: &PodUid) -> Result<(), VolumeError> {
    Ok(ClaimStore::new(kubelet_root).remove_owned(uid)?)
}

/// The claim of a volume, as it is kept.
pub(super) fn find(context: &Context<'_>, volume: &Volume) -> Result<ClaimRecord, VolumeError> {
    let name = claims::claim_of(context.pod, volume).unwrap_or_default();
    Ok(store(context).find(context.namespace(), &name)?)
}

fn store(context: &Context<'_>) -> ClaimStore {
    ClaimStore::new(&context.node.kubelet_root)
}

fn uid(context: &Context<'_>) -> PodUid {
    PodUid(context.pod.metadata.uid.clone().unwrap_or_default())
}

/// The claim that an ephemeral volume asks for.
fn template(context: &Context<'_>, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.clone()?;
    let metadata = template.metadata.unwrap_or_default();
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: claims::claim_of(context.pod, volume),
            namespace: Some(context.namespace().to_owned()),
            ..metadata
        },
        spec: Some(template.spec),
        status: None,
    })
}

/// What its PersistentVolume requires of the node that it is mounted on.
fn check_node(context: &Context<'_>, record: &ClaimRecord) -> Result<(), VolumeError> {
    let Backing::Volume(bound) = record.backing() else {
        return Ok(());
    };
    let affinity = bound.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|affinity| affinity.required.as_ref()) else {
        return Ok(());
    };
    let Some(why) = unmet_terms("the volume", &required.node_selector_terms, context.node) else {
        return Ok(());
    };
    Err(VolumeError::NodeAffinity {
        verb: if record.is_block() {
            "MapVolume"
        } else {
            "MountVolume"
        },
        volume: bound.metadata.name.clone().unwrap_or_default(),
        why,
    })
}

/// `ReadWriteOncePod`: the pod that came first has it.
fn check_alone(context: &Context<'_>, record: &ClaimRecord) -> Result<(), VolumeError> {
    if !record.is_for_one_pod() {
        return Ok(());
    }
    let users = claims::users(&context.node.kubelet_root, record.namespace(), record.name())?;
    match users.first() {
        Some(first) if first.uid() != uid(context) => Err(ClaimError::InUse {
            claim: record.full_name(),
            pod: format!(
                "{}/{}, and may be used by one pod only (ReadWriteOncePod)",
                spec::namespace(&first.pod),
                spec::name(&first.pod)
            ),
        }
        .into()),
        _ => Ok(()),
    }
}

fn own(context: &Context<'_>, volume: &Volume, path: &std::path::Path) -> Result<(), VolumeError> {
    ownership::set_once(context, &volume.name, path, Once::PerBoot)
}

fn without_source(record: &ClaimRecord) -> VolumeError {
    VolumeError::Unsupported(format!(
        "PersistentVolumeClaim {} is bound to a volume without a source",
        record.full_name()
    ))
}
