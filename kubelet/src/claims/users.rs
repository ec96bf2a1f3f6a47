//! Which pods use a claim.

use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::ClaimError;
use crate::worker::{PodRecord, Records};
use crate::{spec, status};

/// The claim of a pod's volume, if it has one.
pub(crate) fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some(source.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", spec::name(pod), volume.name))
}

fn uses(pod: &Pod, namespace: &str, name: &str) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    spec::namespace(pod) == namespace && volumes.any(|volume| claim_of(pod, volume).as_deref() == Some(name))
}

/// The pods of the node that use a claim and have not ended, those that came first before the others.
pub(crate) fn users(kubelet_root: &Path, namespace: &str, name: &str) -> Result<Vec<PodRecord>, ClaimError> {
    let records = Records::new(kubelet_root);
    let all = records
        .list()
        .map_err(ClaimError::io("read the records of pods in", kubelet_root))?;
    let has_ended = |record: &PodRecord| {
        let status = records.load_status(&record.uid());
        status.is_some_and(|status| status::has_ended(&status))
    };
    let mut found: Vec<PodRecord> = all
        .into_iter()
        .filter(|record| uses(&record.pod, namespace, name) && !has_ended(record))
        .collect();
    found.sort_by_key(|record| (record.admitted_at, record.uid()));
    Ok(found)
}
