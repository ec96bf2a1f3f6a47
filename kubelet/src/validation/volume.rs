//! The rules for volumes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeFile, EmptyDirVolumeSource, EphemeralVolumeSource,
    HostPathVolumeSource, ImageVolumeSource, KeyToPath, PersistentVolumeClaimVolumeSource, Pod,
    ProjectedVolumeSource, SecretVolumeSource, Volume,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::environment::{field_path, resource_field};
use super::{Errors, names};

/// Fields that a downwardAPI file may refer to.
const FIELDS: [&str; 5] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

/// Checks the volumes; returns their names.
pub(super) fn volumes<'a>(volumes: &'a [Volume], errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if volume.name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        } else {
            errors.check(
                &format!("{path}.name"),
                &volume.name,
                names::dns_label(&volume.name),
            );
            if !seen.insert(volume.name.as_str()) {
                errors.duplicate(&format!("{path}.name"), &volume.name);
            }
        }
        source(volume, &path, errors);
    }
    seen
}

fn source(volume: &Volume, path: &str, errors: &mut Errors) {
    let kinds = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("secret", volume.secret.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("projected", volume.projected.is_some()),
        ("image", volume.image.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("nfs", volume.nfs.is_some()),
    ];
    for (name, _) in kinds.iter().filter(|(_, there)| *there).skip(1) {
        errors.forbidden(
            &format!("{path}.{name}"),
            "may not specify more than 1 volume type",
        );
    }
    if let Some(source) = &volume.empty_dir {
        empty_dir(source, &format!("{path}.emptyDir"), errors);
    }
    if let Some(source) = &volume.host_path {
        host_path(source, &format!("{path}.hostPath"), errors);
    }
    if let Some(source) = &volume.config_map {
        config_map(source, &format!("{path}.configMap"), errors);
    }
    if let Some(source) = &volume.secret {
        secret(source, &format!("{path}.secret"), errors);
    }
    if let Some(source) = &volume.downward_api {
        let path = format!("{path}.downwardAPI");
        mode(source.default_mode, &format!("{path}.defaultMode"), errors);
        downward(source.items.as_deref().unwrap_or_default(), &path, errors);
    }
    if let Some(source) = &volume.image {
        image(source, &format!("{path}.image"), errors);
    }
    if let Some(source) = &volume.projected {
        projected(source, &format!("{path}.projected"), errors);
    }
    if let Some(source) = &volume.persistent_volume_claim {
        claim(source, &format!("{path}.persistentVolumeClaim"), errors);
    }
    if let Some(source) = &volume.ephemeral {
        ephemeral(source, &format!("{path}.ephemeral"), errors);
    }
    if let Some(source) = &volume.nfs {
        super::claim::nfs(source, &format!("{path}.nfs"), errors);
    }
}

/// Each ephemeral volume becomes a claim, whose name is made of the pod's and the volume's, and which is nobody else's.
pub(super) fn claims_of_ephemeral(pod: &Pod, errors: &mut Errors) {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
    let volumes = volumes.unwrap_or_default();
    if pod_name.is_empty() {
        return;
    }
    let claim_of = |volume: &Volume| format!("{pod_name}-{}", volume.name);
    let ephemeral = volumes.iter().filter(|volume| volume.ephemeral.is_some());
    let made: BTreeSet<String> = ephemeral.map(claim_of).collect();
    for (index, volume) in volumes.iter().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if volume.ephemeral.is_some() && !volume.name.is_empty() {
            let problem = names::dns_subdomain(&claim_of(volume));
            let why = problem.map(|problem| format!("PVC name {:?}: {problem}", claim_of(volume)));
            errors.check(&format!("{path}.name"), &volume.name, why.as_deref());
        }
        let used = volume
            .persistent_volume_claim
            .as_ref()
            .map(|source| &source.claim_name);
        if let Some(name) = used.filter(|name| made.contains(*name)) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&format!("{path}.persistentVolumeClaim.claimName"), name, why);
        }
    }
}

fn claim(source: &PersistentVolumeClaimVolumeSource, path: &str, errors: &mut Errors) {
    if source.claim_name.is_empty() {
        errors.required(&format!("{path}.claimName"), "");
    }
}

fn ephemeral(source: &EphemeralVolumeSource, path: &str, errors: &mut Errors) {
    let path = format!("{path}.volumeClaimTemplate");
    let Some(template) = &source.volume_claim_template else {
        return errors.required(&path, "");
    };
    if let Some(metadata) = &template.metadata {
        let rest = ObjectMeta {
            labels: None,
            annotations: None,
            ..metadata.clone()
        };
        if rest != ObjectMeta::default() {
            errors.forbidden(
                &format!("{path}.metadata"),
                "only labels and annotations are allowed in the template",
            );
        }
        super::metadata::labels(metadata, &format!("{path}.metadata"), errors);
    }
    super::claim::claim_spec(&template.spec, &format!("{path}.spec"), errors);
}

fn empty_dir(source: &EmptyDirVolumeSource, path: &str, errors: &mut Errors) {
    if let Some(limit) = &source.size_limit {
        match crate::quantity::parse(&limit.0) {
            Ok(value) if !value.is_negative() => {}
            Ok(_) => errors.forbidden(
                &format!("{path}.sizeLimit"),
                "SizeLimit field must be a valid resource quantity",
            ),
            Err(error) => errors.invalid(&format!("{path}.sizeLimit"), &limit.0, error.to_string()),
        }
    }
    let medium = source.medium.as_deref().unwrap_or_default();
    let path = format!("{path}.medium");
    match medium.strip_prefix("HugePages") {
        None => errors.one_of(&path, Some(medium), &["", "HugePages", "Memory"]),
        Some("") => {}
        Some(size) => {
            let size = size.strip_prefix('-').map(crate::quantity::parse);
            let fits = matches!(size, Some(Ok(size)) if !size.is_negative() && !size.is_zero());
            let why = "must be HugePages, or HugePages-<size>";
            errors.check(&path, medium, (!fits).then_some(why));
        }
    }
}

fn image(source: &ImageVolumeSource, path: &str, errors: &mut Errors) {
    if source.reference.as_deref().is_none_or(str::is_empty) {
        errors.required(&format!("{path}.reference"), "");
    }
    let policy = source.pull_policy.as_deref();
    errors.one_of(
        &format!("{path}.pullPolicy"),
        policy,
        &["Always", "IfNotPresent", "Never"],
    );
}

pub(super) fn host_path(source: &HostPathVolumeSource, path: &str, errors: &mut Errors) {
    if source.path.is_empty() {
        errors.required(&format!("{path}.path"), "");
    } else if source.path.split('/').any(|part| part == "..") {
        errors.invalid(&format!("{path}.path"), &source.path, "must not contain '..'");
    }
    errors.check(
        &format!("{path}.path"),
        &source.path,
        names::path_length(&source.path),
    );
    let known = [
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    errors.one_of(&format!("{path}.type"), source.type_.as_deref(), &known);
}

fn config_map(source: &ConfigMapVolumeSource, path: &str, errors: &mut Errors) {
    if source.name.is_empty() {
        errors.required(&format!("{path}.name"), "");
    }
    mode(source.default_mode, &format!("{path}.defaultMode"), errors);
    key_paths(source.items.as_deref().unwrap_or_default(), path, errors);
}

fn secret(source: &SecretVolumeSource, path: &str, errors: &mut Errors) {
    if source.secret_name.as_deref().is_none_or(str::is_empty) {
        errors.required(&format!("{path}.secretName"), "");
    }
    mode(source.default_mode, &format!("{path}.defaultMode"), errors);
    key_paths(source.items.as_deref().unwrap_or_default(), path, errors);
}

fn projected(source: &ProjectedVolumeSource, path: &str, errors: &mut Errors) {
    mode(source.default_mode, &format!("{path}.defaultMode"), errors);
    projected_paths(source, path, errors);
    for (index, one) in source.sources.iter().flatten().enumerate() {
        let path = format!("{path}.sources[{index}]");
        if let Some(map) = &one.config_map {
            if map.name.is_empty() {
                errors.required(&format!("{path}.configMap.name"), "");
            }
            key_paths(
                map.items.as_deref().unwrap_or_default(),
                &format!("{path}.configMap"),
                errors,
            );
        }
        if let Some(secret) = &one.secret {
            if secret.name.is_empty() {
                errors.required(&format!("{path}.secret.name"), "");
            }
            key_paths(
                secret.items.as_deref().unwrap_or_default(),
                &format!("{path}.secret"),
                errors,
            );
        }
        if let Some(source) = &one.downward_api {
            downward(
                source.items.as_deref().unwrap_or_default(),
                &format!("{path}.downwardAPI"),
                errors,
            );
        }
    }
}

/// Each source is one thing, and no two files of them have the same path by name. Keys without a path may meet: the last
/// one counts.
fn projected_paths(source: &ProjectedVolumeSource, path: &str, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, one) in source.sources.iter().flatten().enumerate() {
        let kinds = [
            one.config_map.is_some(),
            one.secret.is_some(),
            one.downward_api.is_some(),
        ];
        if kinds.into_iter().filter(|there| *there).count() > 1 {
            errors.forbidden(
                &format!("{path}.sources[{index}]"),
                "may not specify more than 1 volume type",
            );
        }
        let of_keys = |items: &Option<Vec<KeyToPath>>| items.clone().unwrap_or_default();
        let keys = |name: &str, items: Vec<KeyToPath>| {
            let named = items.into_iter().map(|item| (name.to_owned(), item.path));
            named.collect::<Vec<_>>()
        };
        let mut files = Vec::new();
        if let Some(secret) = &one.secret {
            files.extend(keys(&secret.name, of_keys(&secret.items)));
        }
        if let Some(map) = &one.config_map {
            files.extend(keys(&map.name, of_keys(&map.items)));
        }
        let own = one
            .downward_api
            .iter()
            .flat_map(|source| source.items.iter().flatten());
        files.extend(own.map(|file| (file.path.clone(), file.path.clone())));
        for (shown, file) in files {
            if !file.is_empty() && !seen.insert(file) {
                errors.invalid(path, &shown, "conflicting duplicate paths");
            }
        }
    }
}

fn key_paths(items: &[KeyToPath], path: &str, errors: &mut Errors) {
    for (index, item) in items.iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        if item.key.is_empty() {
            errors.required(&format!("{path}.key"), "");
        }
        file_path(&item.path, &format!("{path}.path"), errors);
        mode(item.mode, &format!("{path}.mode"), errors);
    }
}

fn downward(files: &[DownwardAPIVolumeFile], path: &str, errors: &mut Errors) {
    for (index, file) in files.iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        file_path(&file.path, &format!("{path}.path"), errors);
        mode(file.mode, &format!("{path}.mode"), errors);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), None) => field_path(field, &format!("{path}.fieldRef.fieldPath"), &FIELDS, errors),
            (None, Some(field)) => {
                if field.container_name.as_deref().is_none_or(str::is_empty) {
                    errors.required(&format!("{path}.resourceFieldRef.containerName"), "");
                }
                resource_field(field, &format!("{path}.resourceFieldRef"), errors);
            }
            (Some(_), Some(_)) => {
                errors.invalid(
                    &path,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (None, None) => errors.required(&path, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

/// A file in a volume: relative, without `..`, and not a name that the volume keeps for itself.
fn file_path(file: &str, path: &str, errors: &mut Errors) {
    if file.is_empty() {
        return errors.required(path, "");
    }
    let own = file.starts_with("..").then_some("must not start with '..'");
    errors.check(path, file, names::local_path(file).or(own));
}

fn mode(mode: Option<i32>, path: &str, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid_number(
            path,
            mode,
            "must be a number between 0 and 0777 (octal), both inclusive",
        );
    }
}
