//! PersistentVolumeClaims and PersistentVolumes of manifests.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::loader::{Loader, Place};
use super::support::{Kind, refusals_of, without};
use super::tree::Node;
use crate::claims::decide;
use crate::defaulting::default_claim;
use crate::defaults::DEFAULT_NAMESPACE;
use crate::validation;

/// A claim's file and tree, for what is found when all files are read.
pub(super) struct FoundClaim {
    file: String,
    node: Node,
    prefix: String,
    claim: PersistentVolumeClaim,
}

impl Loader<'_> {
    pub(super) fn claim(&mut self, place: Place<'_>) {
        let before = self.errors.len();
        let stripped = self.refuse(place, Kind::Claim);
        let place = Place {
            node: stripped.as_ref().unwrap_or(place.node),
            ..place
        };
        let Some(mut claim) = self.decode::<PersistentVolumeClaim>(place) else {
            return;
        };
        claim.status = None;
        claim
            .metadata
            .namespace
            .get_or_insert_with(|| DEFAULT_NAMESPACE.to_owned());
        let (namespace, name) = (claim.metadata.namespace.clone(), claim.metadata.name.clone());
        self.note_name(
            place,
            "PersistentVolumeClaim",
            namespace.as_deref(),
            name.as_deref(),
        );
        if let Some(spec) = &mut claim.spec {
            default_claim(spec);
        }
        if self.errors.len() == before {
            self.broken_rules(place, validation::validate_claim(&claim));
        }
        self.claims.push(FoundClaim {
            file: place.file.to_owned(),
            node: place.node.clone(),
            prefix: place.prefix.to_owned(),
            claim,
        });
    }

    pub(super) fn volume(&mut self, place: Place<'_>) {
        let before = self.errors.len();
        let stripped = self.refuse(place, Kind::Volume);
        let place = Place {
            node: stripped.as_ref().unwrap_or(place.node),
            ..place
        };
        let Some(mut volume) = self.decode::<PersistentVolume>(place) else {
            return;
        };
        volume.status = None;
        self.note_name(
            place,
            "PersistentVolume",
            Some(""),
            volume.metadata.name.as_deref(),
        );
        if self.errors.len() == before {
            self.broken_rules(place, validation::validate_volume(&volume));
        }
        self.manifest.volumes.push(volume);
    }

    /// What each claim would be bound to must be there. Claims that name their volume come first, so that no other takes it.
    pub(super) fn check_claims(&mut self) {
        let names_volume = |found: &FoundClaim| {
            let spec = found.claim.spec.as_ref();
            spec.is_some_and(|spec| spec.volume_name.is_some())
        };
        let mut found = std::mem::take(&mut self.claims);
        found.sort_by_key(|found| !names_volume(found));
        self.bound = self.options.claims.to_vec();
        for FoundClaim {
            file,
            node,
            prefix,
            claim,
        } in found
        {
            match decide(&claim, &self.manifest.volumes, &self.bound) {
                Ok((record, _)) => {
                    self.bound.retain(|known| known.full_name() != record.full_name());
                    self.bound.push(record);
                }
                Err(error) => {
                    let place = Place {
                        file: &file,
                        node: &node,
                        prefix: &prefix,
                    };
                    let line = node.line_of("spec");
                    self.errors
                        .push(place.diagnostic(line, "spec", error.to_string()));
                }
            }
            self.manifest.claims.push(claim);
        }
    }

    /// Reports what is not supported; the tree without it, if that is to be read.
    pub(super) fn refuse(&mut self, place: Place<'_>, kind: Kind) -> Option<Node> {
        let refusals = refusals_of(kind, place.node);
        for refusal in &refusals {
            let message = "not supported by `berth run`".to_owned();
            let mut diagnostic = place.diagnostic(refusal.line, &refusal.path, message);
            refusal.why.clone_into(&mut diagnostic.hint);
            self.report_unless_lenient(diagnostic);
        }
        self.options
            .lenient
            .then(|| without(place.node, refusals.iter().map(|refusal| refusal.path.as_str())))
    }

    pub(super) fn broken_rules(&mut self, place: Place<'_>, errors: Vec<validation::FieldError>) {
        for error in errors {
            let line = place.node.line_of(&error.path);
            self.errors
                .push(place.diagnostic(line, &error.path, error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as api;
    use serde_json::{Value, json};

    use super::super::completeness::fields;
    use super::super::support::{is_refused_of, without_effect_of};
    use super::super::{Manifest, Options, Source, load};
    use super::*;
    use crate::claims::ClaimRecord;

    const CLAIM: &str = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
                         resources: {requests: {storage: 1Gi}}\n";
    const POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i}]\n  volumes:\n  \
                       - name: v\n    persistentVolumeClaim: {claimName: data}\n";

    fn read(text: &str, claims: &[ClaimRecord]) -> Result<Manifest, String> {
        let options = Options {
            node: "/n",
            claims,
            ..Options::default()
        };
        load(&[Source { name: "f", text }], options).map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_pod_s_claim_is_in_the_files_or_there_already() {
        let manifest = read(&format!("{CLAIM}{POD}"), &[]).unwrap();
        assert_eq!(manifest.claims[0].metadata.namespace.as_deref(), Some("default"));
        let error = read(POD, &[]).unwrap_err();
        assert!(
            error.contains("claimName: persistentvolumeclaim \"data\" not found"),
            "{error}"
        );
        let record = ClaimRecord {
            claim: manifest.claims[0].clone(),
            volume: None,
            owner: None,
        };
        read(POD, std::slice::from_ref(&record)).unwrap();
        let other = CLAIM.replace("ReadWriteOnce", "ReadOnlyMany");
        let error = read(&format!("{other}{POD}"), &[record]).unwrap_err();
        assert!(
            error.starts_with("f:4: spec:") && error.contains("berth volume rm default/data"),
            "{error}"
        );
    }

    #[test]
    fn what_a_claim_needs_is_looked_for_in_all_files() {
        let volume = "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
                      capacity: {storage: 5Gi}\n  hostPath: {path: /srv}\n";
        let named = CLAIM.replace("spec:\n", "spec:\n  volumeName: disk\n");
        read(&format!("{named}{POD}{volume}"), &[]).unwrap();
        let error = read(&format!("{named}{POD}"), &[]).unwrap_err();
        assert!(error.contains("\"disk\" is in none of the files"), "{error}");
        // The first one in the file would have taken it.
        let greedy = CLAIM.replace("name: data", "name: greedy");
        let manifest = read(&format!("{greedy}---\n{named}{POD}{volume}"), &[]).unwrap();
        assert_eq!(manifest.claims[0].metadata.name.as_deref(), Some("data"));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        let claim = CLAIM.replace(
            "spec:\n",
            "spec:\n  dataSource: {kind: PersistentVolumeClaim, name: x}\n",
        );
        let error = read(&format!("{claim}{POD}"), &[]).unwrap_err();
        assert!(error.contains("f:5: spec.dataSource: not supported"), "{error}");
        let volume = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk}\nspec:\n  accessModes: [ReadWriteOnce]\n  \
                      persistentVolumeReclaimPolicy: Delete\n  capacity: {storage: 5Gi}\n  csi: {driver: d, volumeHandle: h}\n";
        let error = read(volume, &[]).unwrap_err();
        assert!(
            error.contains("spec.persistentVolumeReclaimPolicy: not supported"),
            "{error}"
        );
        assert!(error.contains("spec.csi: not supported"), "{error}");
    }

    /// Every field is acted on, refused, or without effect.
    #[test]
    fn no_field_of_a_claim_or_a_volume_is_ignored() {
        let check = |kind, path: &str, fields: &[&str], done: &str| {
            let done: Vec<&str> = done.split_whitespace().collect();
            for field in fields {
                let path = if path.is_empty() {
                    (*field).to_owned()
                } else {
                    format!("{path}.{field}")
                };
                let in_table = is_refused_of(kind, &path) || without_effect_of(kind, &path).is_some();
                assert!(done.contains(field) || in_table, "{kind:?} {path} is ignored");
            }
        };
        let claim = Kind::Claim;
        check(
            claim,
            "",
            fields::<api::PersistentVolumeClaim>(),
            "apiVersion kind metadata spec",
        );
        let metadata = "annotations labels name namespace";
        check(claim, "metadata", fields::<api_meta::ObjectMeta>(), metadata);
        let spec = "accessModes resources selector storageClassName volumeMode volumeName";
        check(claim, "spec", fields::<api::PersistentVolumeClaimSpec>(), spec);
        let resources = fields::<api::VolumeResourceRequirements>();
        check(claim, "spec.resources", resources, "requests");
        let volume = Kind::Volume;
        check(
            volume,
            "",
            fields::<api::PersistentVolume>(),
            "apiVersion kind metadata spec",
        );
        check(volume, "metadata", fields::<api_meta::ObjectMeta>(), metadata);
        let spec = "accessModes capacity claimRef hostPath local mountOptions nfs nodeAffinity persistentVolumeReclaimPolicy \
                    storageClassName volumeMode";
        check(volume, "spec", fields::<api::PersistentVolumeSpec>(), spec);
        let affinity = fields::<api::VolumeNodeAffinity>();
        check(volume, "spec.nodeAffinity", affinity, "required");
        check(volume, "spec.local", fields::<api::LocalVolumeSource>(), "path");
        check(
            volume,
            "spec.nfs",
            fields::<api::NFSVolumeSource>(),
            "path readOnly server",
        );
        let claim_ref: Value = json!(fields::<api::ObjectReference>());
        assert!(claim_ref.to_string().contains("namespace"));
    }

    use k8s_openapi::apimachinery::pkg::apis::meta::v1 as api_meta;
}
