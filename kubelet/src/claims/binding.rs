//! Which PersistentVolume a claim is bound to, by upstream's rules. Pure.

use k8s_openapi::api::core::v1::{
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::record::{capacity, full_name, name, namespace, request};
use super::{ClaimError, ClaimRecord, Made};

/// What becomes of a claim of the manifests, given those that are there: its record, and what is new about it.
pub(crate) fn decide(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    existing: &[ClaimRecord],
) -> Result<(ClaimRecord, Made), ClaimError> {
    let same = |record: &&ClaimRecord| record.full_name() == full_name(claim);
    if let Some(record) = existing.iter().find(same) {
        return keep(record, claim, volumes);
    }
    let volume = bind(claim, volumes, existing).map_err(|why| ClaimError::Unbound {
        claim: full_name(claim),
        why,
    })?;
    let record = ClaimRecord {
        claim: claim.clone(),
        volume,
        owner: None,
    };
    Ok((record, Made::Created))
}

/// A claim that is there already. Upstream lets nothing of its specification be changed but for a larger request.
fn keep(
    record: &ClaimRecord,
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
) -> Result<(ClaimRecord, Made), ClaimError> {
    let immutable = |why| ClaimError::Immutable {
        claim: full_name(claim),
        why,
    };
    let rest = |claim: &PersistentVolumeClaim| {
        let spec = claim.spec.clone().unwrap_or_default();
        PersistentVolumeClaimSpec {
            resources: None,
            ..spec
        }
    };
    if rest(&record.claim) != rest(claim) {
        return Err(immutable("its spec differs"));
    }
    let (before, after) = (request(&record.claim), request(claim));
    if after < before {
        return Err(immutable("its request is less than it was"));
    }
    if let Some(bound) = &record.volume {
        if after > capacity(bound) {
            return Err(immutable("its request is more than its PersistentVolume has"));
        }
        let same_name = |volume: &&PersistentVolume| volume.metadata.name == bound.metadata.name;
        if volumes
            .iter()
            .find(same_name)
            .is_some_and(|volume| volume.spec != bound.spec)
        {
            return Err(immutable("its PersistentVolume differs"));
        }
    }
    if record.claim == *claim {
        return Ok((record.clone(), Made::Unchanged));
    }
    let record = ClaimRecord {
        claim: claim.clone(),
        ..record.clone()
    };
    Ok((record, Made::Changed))
}

/// The volume for a new claim; `None` is a directory of the node.
fn bind(
    claim: &PersistentVolumeClaim,
    volumes: &[PersistentVolume],
    existing: &[ClaimRecord],
) -> Result<Option<PersistentVolume>, String> {
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(wanted) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        let found = volumes.iter().find(|volume| volume_name(volume) == wanted);
        let volume = found.ok_or_else(|| format!("PersistentVolume {wanted:?} is in none of the files"))?;
        fits(volume, claim, &spec, existing)?;
        return Ok(Some(volume.clone()));
    }
    let mut refused = Vec::new();
    let mut found: Vec<&PersistentVolume> = Vec::new();
    for volume in volumes {
        match fits(volume, claim, &spec, existing) {
            Ok(()) => found.push(volume),
            Err(why) => refused.push((volume, why)),
        }
    }
    // One that was made for this claim, then the smallest.
    found.sort_by_key(|volume| {
        (
            claim_ref(volume).is_none(),
            capacity(volume),
            volume_name(volume).to_owned(),
        )
    });
    if let Some(volume) = found.first() {
        return Ok(Some((*volume).clone()));
    }
    let class = spec.storage_class_name.as_deref();
    let of_its_class =
        |volume: &PersistentVolume| class.is_some_and(|class| !class.is_empty() && class == class_of(volume));
    let why = if spec.selector.is_some() {
        "a selector chooses among PersistentVolumes"
    } else if class == Some("") {
        "an empty storageClassName asks for a PersistentVolume"
    } else if spec.volume_mode.as_deref() == Some("Block") {
        "a block device has to be a PersistentVolume with `local`"
    } else if refused.iter().any(|(volume, _)| of_its_class(volume)) {
        "there are PersistentVolumes of its storage class"
    } else {
        return Ok(None);
    };
    let mut text = format!("{why}, and none in the files fits");
    for (_, why) in refused {
        text.push_str(&format!("; {why}"));
    }
    Err(text)
}

/// Whether a volume can be the claim's; a sentence if not.
fn fits(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    spec: &PersistentVolumeClaimSpec,
    existing: &[ClaimRecord],
) -> Result<(), String> {
    let shown = volume_name(volume);
    let of = volume.spec.clone().unwrap_or_default();
    let is_bound = |record: &&ClaimRecord| {
        record
            .volume
            .as_ref()
            .is_some_and(|bound| volume_name(bound) == shown)
    };
    if let Some(record) = existing.iter().find(is_bound) {
        return Err(format!("{shown:?} is bound to claim {}", record.full_name()));
    }
    if let Some((for_namespace, for_name)) = claim_ref(volume)
        && (for_namespace.as_str(), for_name.as_str()) != (namespace(claim), name(claim))
    {
        return Err(format!("{shown:?} is for claim {for_namespace}/{for_name}"));
    }
    let class = spec.storage_class_name.as_deref().unwrap_or_default();
    if class_of(volume) != class {
        return Err(format!("{shown:?} has another storageClassName"));
    }
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if mode(&of.volume_mode) != mode(&spec.volume_mode) {
        return Err(format!("{shown:?} has another volumeMode"));
    }
    let offered = of.access_modes.unwrap_or_default();
    let missing = |mode: &&String| !offered.contains(mode);
    if let Some(mode) = spec.access_modes.iter().flatten().find(missing) {
        return Err(format!("{shown:?} has no access mode {mode}"));
    }
    if capacity(volume) < request(claim) {
        return Err(format!("{shown:?} is smaller than what is requested"));
    }
    match &spec.selector {
        Some(selector) if !selects(selector, volume) => Err(format!("{shown:?} does not match the selector")),
        _ => Ok(()),
    }
}

fn volume_name(volume: &PersistentVolume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

fn class_of(volume: &PersistentVolume) -> &str {
    let class = volume
        .spec
        .as_ref()
        .and_then(|spec: &PersistentVolumeSpec| spec.storage_class_name.as_deref());
    class.unwrap_or_default()
}

/// The claim that a volume is for, if it says so.
fn claim_ref(volume: &PersistentVolume) -> Option<(String, String)> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some((claim.namespace.clone()?, claim.name.clone()?))
}

fn selects(selector: &LabelSelector, volume: &PersistentVolume) -> bool {
    let label = |key: &str| volume.metadata.labels.as_ref()?.get(key);
    let requirement = |rule: &LabelSelectorRequirement| {
        let value = label(&rule.key);
        let listed = value.is_some_and(|value| rule.values.iter().flatten().any(|one| one == value));
        match rule.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    };
    let mut labels = selector.match_labels.iter().flatten();
    labels.all(|(key, value)| label(key) == Some(value))
        && selector.match_expressions.iter().flatten().all(requirement)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(name: &str, spec: Value) -> PersistentVolumeClaim {
        let mut whole =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}});
        let fields = whole.as_object_mut().unwrap();
        fields.extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": whole})).unwrap()
    }

    fn volume(name: &str, spec: Value) -> PersistentVolume {
        let mut whole = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "5Gi"},
            "hostPath": {"path": "/x"}});
        let fields = whole.as_object_mut().unwrap();
        fields.extend(spec.as_object().unwrap().clone());
        let metadata = json!({"name": name, "labels": {"disk": name}});
        serde_json::from_value(json!({"metadata": metadata, "spec": whole})).unwrap()
    }

    /// The name of the volume, `directory`, or the error.
    fn bound(spec: Value, volumes: &[PersistentVolume]) -> String {
        match decide(&claim("c", spec), volumes, &[]) {
            Ok((record, Made::Created)) => match record.volume {
                Some(volume) => volume_name(&volume).to_owned(),
                None => "directory".to_owned(),
            },
            Ok((_, made)) => format!("{made:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_smallest_volume_that_fits_or_a_directory() {
        let volumes = [
            volume("large", json!({"capacity": {"storage": "50Gi"}})),
            volume("fits", json!({})),
            volume("small", json!({"capacity": {"storage": "1Gi"}})),
            volume("classy", json!({"storageClassName": "fast"})),
        ];
        assert_eq!(bound(json!({}), &volumes), "fits");
        assert_eq!(bound(json!({}), &[]), "directory");
        assert_eq!(
            bound(json!({"storageClassName": "standard"}), &volumes),
            "directory"
        );
        assert_eq!(bound(json!({"storageClassName": "fast"}), &volumes), "classy");
        assert_eq!(bound(json!({"volumeName": "large"}), &volumes), "large");
        assert_eq!(
            bound(json!({"accessModes": ["ReadWriteMany"]}), &volumes),
            "directory"
        );
        let selector = |key: &str, operator: &str| json!({"selector": {"matchExpressions": [{"key": key, "operator": operator, "values": ["large"]}]}});
        assert_eq!(bound(selector("disk", "In"), &volumes), "large");
        assert_eq!(bound(selector("disk", "NotIn"), &volumes), "fits");
        assert_eq!(
            bound(json!({"selector": {"matchLabels": {"disk": "large"}}}), &volumes),
            "large"
        );
    }

    #[test]
    fn what_can_t_be_bound_says_why() {
        let volumes = [volume(
            "v",
            json!({"capacity": {"storage": "1Gi"}, "storageClassName": "fast"}),
        )];
        for (spec, needle) in [
            (json!({"volumeName": "w"}), "\"w\" is in none of the files"),
            (json!({"volumeName": "v"}), "another storageClassName"),
            (
                json!({"volumeName": "v", "storageClassName": "fast"}),
                "smaller than what is requested",
            ),
            (json!({"storageClassName": "fast"}), "\"v\" is smaller"),
            (json!({"storageClassName": ""}), "an empty storageClassName"),
            (
                json!({"selector": {"matchLabels": {"a": "b"}}}),
                "a selector chooses",
            ),
            (json!({"volumeMode": "Block"}), "a block device"),
        ] {
            let found = bound(spec, &volumes);
            assert!(found.contains(needle), "{found}");
        }
    }

    #[test]
    fn a_volume_has_one_claim_and_may_name_it() {
        let reserved = volume(
            "reserved",
            json!({"claimRef": {"namespace": "n", "name": "d"}, "capacity": {"storage": "9Gi"}}),
        );
        let volumes = [reserved, volume("free", json!({}))];
        assert_eq!(bound(json!({}), &volumes), "free");
        let (d, _) = decide(&claim("d", json!({})), &volumes, &[]).unwrap();
        assert_eq!(d.volume.as_ref().map(volume_name), Some("reserved"));
        let (c, _) = decide(&claim("c", json!({})), &volumes, std::slice::from_ref(&d)).unwrap();
        let (e, _) = decide(&claim("e", json!({})), &volumes, &[d, c]).unwrap();
        assert_eq!(e.volume, None);
    }

    #[test]
    fn only_a_larger_request_changes_a_claim() {
        let first = claim("c", json!({}));
        let (record, _) = decide(&first, &[], &[]).unwrap();
        let again = |spec: Value| decide(&claim("c", spec), &[], std::slice::from_ref(&record));
        assert_eq!(again(json!({})).unwrap().1, Made::Unchanged);
        let sized = |size: &str| json!({"resources": {"requests": {"storage": size}}});
        assert_eq!(again(sized("3Gi")).unwrap().1, Made::Changed);
        assert!(
            again(sized("1Gi"))
                .unwrap_err()
                .to_string()
                .contains("less than it was")
        );
        let other = again(json!({"accessModes": ["ReadOnlyMany"]})).unwrap_err();
        assert!(other.to_string().contains("berth volume rm n/c"), "{other}");
    }
}
