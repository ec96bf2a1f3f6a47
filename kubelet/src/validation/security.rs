//! The rules for security contexts and shared namespaces.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSpec, SeccompProfile};

use super::container::Place;
use super::{Errors, names};
use crate::user_ids::IDS_PER_POD;

/// Sysctls of the namespaces that a pod has for itself; all others are the host's.
const NAMESPACED: [&str; 4] = ["kernel.shm", "kernel.msg", "fs.mqueue.", "net."];

/// Whether a sysctl, or all that begin so, are of the pod's own namespaces.
pub(crate) fn is_namespaced_sysctl(name: &str) -> bool {
    NAMESPACED.iter().any(|prefix| name.starts_with(prefix)) || name == "kernel.sem"
}

/// What the kernel takes as a profile's name.
const MAX_APPARMOR_NAME: usize = 4095;

pub(super) fn pod_security(spec: &PodSpec, errors: &mut Errors) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        errors.forbidden(
            "spec.shareProcessNamespace",
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    host_users(spec, errors);
    let Some(security) = &spec.security_context else {
        return;
    };
    let path = "spec.securityContext";
    let ids = [
        ("runAsUser", security.run_as_user),
        ("runAsGroup", security.run_as_group),
        ("fsGroup", security.fs_group),
    ];
    for (name, id) in ids {
        id_number(&format!("{path}.{name}"), id, spec, errors);
    }
    for (index, group) in security.supplemental_groups.iter().flatten().enumerate() {
        id_number(
            &format!("{path}.supplementalGroups[{index}]"),
            Some(*group),
            spec,
            errors,
        );
    }
    let policy = security.fs_group_change_policy.as_deref();
    errors.one_of(
        &format!("{path}.fsGroupChangePolicy"),
        policy,
        &["Always", "OnRootMismatch"],
    );
    // Both are the same here: a mount with a label is for volumes of storage drivers, fc and iscsi alone.
    let policy = security.se_linux_change_policy.as_deref();
    errors.one_of(
        &format!("{path}.seLinuxChangePolicy"),
        policy,
        &["MountOption", "Recursive"],
    );
    let policy = security.supplemental_groups_policy.as_deref();
    errors.one_of(
        &format!("{path}.supplementalGroupsPolicy"),
        policy,
        &["Merge", "Strict"],
    );
    if let Some(profile) = &security.seccomp_profile {
        seccomp(profile, &format!("{path}.seccompProfile"), errors);
    }
    if let Some(profile) = &security.app_armor_profile {
        apparmor(profile, &format!("{path}.appArmorProfile"), errors);
    }
    sysctls(spec, errors);
}

/// With users of its own a pod shares no other namespace with the host: what it may do there would depend on rights that
/// it does not have.
fn host_users(spec: &PodSpec, errors: &mut Errors) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [
        ("hostNetwork", spec.host_network),
        ("hostPID", spec.host_pid),
        ("hostIPC", spec.host_ipc),
    ];
    for (name, _) in shared.iter().filter(|(_, shared)| *shared == Some(true)) {
        errors.forbidden(&format!("spec.{name}"), "when `hostUsers` is false");
    }
}

fn sysctls(spec: &PodSpec, errors: &mut Errors) {
    let all = spec
        .security_context
        .as_ref()
        .and_then(|security| security.sysctls.as_deref())
        .unwrap_or_default();
    let mut seen = std::collections::BTreeSet::new();
    for (index, sysctl) in all.iter().enumerate() {
        let path = format!("spec.securityContext.sysctls[{index}]");
        let name_path = format!("{path}.name");
        let name = sysctl.name.replace('/', ".");
        if name.is_empty() {
            errors.required(&name_path, "");
            continue;
        }
        errors.check(&name_path, &sysctl.name, names::sysctl(&sysctl.name));
        if !seen.insert(name.clone()) {
            errors.duplicate(&name_path, &sysctl.name);
        }
        if !is_namespaced_sysctl(&name) {
            errors.invalid(
                &name_path,
                &sysctl.name,
                "is not a sysctl of the pod's own namespaces",
            );
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            errors.forbidden(&name_path, "may not be set when 'hostNetwork' is true");
        }
        if !name.starts_with("net.") && spec.host_ipc == Some(true) {
            errors.forbidden(&name_path, "may not be set when 'hostIPC' is true");
        }
        if sysctl.value.contains(|c: char| c.is_control() && c != '\t') {
            errors.invalid(&format!("{path}.value"), &sysctl.value, "must be one line");
        }
    }
}

pub(super) fn container_security(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    if place.spec.host_users == Some(false)
        && container
            .volume_devices
            .as_ref()
            .is_some_and(|all| !all.is_empty())
    {
        // There is no id-mapped mount of a device.
        errors.forbidden(&place.field("volumeDevices"), "when `hostUsers` is false");
    }
    let Some(security) = &container.security_context else {
        return;
    };
    let field = |name: &str| place.field(&format!("securityContext.{name}"));
    id_number(&field("runAsUser"), security.run_as_user, place.spec, errors);
    id_number(&field("runAsGroup"), security.run_as_group, place.spec, errors);
    errors.one_of(
        &field("procMount"),
        security.proc_mount.as_deref(),
        &["Default", "Unmasked"],
    );
    if security.proc_mount.as_deref() == Some("Unmasked") && place.spec.host_users != Some(false) {
        // Without users of its own, root of the container could change the host through /proc.
        errors.invalid(
            &field("procMount"),
            "Unmasked",
            "`hostUsers` must be false to use `Unmasked`",
        );
    }
    if let Some(profile) = &security.seccomp_profile {
        seccomp(profile, &field("seccompProfile"), errors);
    }
    if let Some(profile) = &security.app_armor_profile {
        apparmor(profile, &field("appArmorProfile"), errors);
    }
    let adds_admin = security
        .capabilities
        .as_ref()
        .and_then(|capabilities| capabilities.add.as_ref());
    let adds_admin = adds_admin.is_some_and(|add| {
        add.iter()
            // The API server does not look for `SYS_ADMIN`, which is how the capability is written.
            .any(|name| name == "CAP_SYS_ADMIN")
    });
    if security.allow_privilege_escalation == Some(false) && (security.privileged == Some(true) || adds_admin)
    {
        let what = if adds_admin {
            "`capabilities.Add` CAP_SYS_ADMIN"
        } else {
            "`privileged` to true"
        };
        let why = format!("cannot set `allowPrivilegeEscalation` to false and {what}");
        errors.invalid(&place.field("securityContext"), "", why);
    }
}

fn id_number(path: &str, id: Option<i64>, spec: &PodSpec, errors: &mut Errors) {
    let Some(id) = id else { return };
    if !(0..=i64::from(i32::MAX)).contains(&id) {
        errors.invalid_number(path, id, "must be between 0 and 2147483647, inclusive");
    } else if spec.host_users == Some(false) && id >= i64::from(IDS_PER_POD) {
        errors.invalid_number(
            path,
            id,
            "must be between 0 and 65535, inclusive, when `hostUsers` is false",
        );
    }
}

pub(super) fn apparmor(profile: &AppArmorProfile, path: &str, errors: &mut Errors) {
    if profile.type_.is_empty() {
        errors.required(
            &format!("{path}.type"),
            "type is required when appArmorProfile is set",
        );
    } else {
        let known = ["Localhost", "RuntimeDefault", "Unconfined"];
        errors.one_of(&format!("{path}.type"), Some(&profile.type_), &known);
    }
    let name = profile.localhost_profile.as_deref();
    let name_path = format!("{path}.localhostProfile");
    match (profile.type_.as_str(), name.unwrap_or_default()) {
        ("Localhost", "") => errors.required(&name_path, "must be set when AppArmor type is Localhost"),
        ("Localhost", name) if name.trim() != name => {
            errors.invalid(&name_path, name, "must not be padded with whitespace");
        }
        ("Localhost", name) if name.len() > MAX_APPARMOR_NAME => {
            errors.invalid(&name_path, name, "may not be more than 4095 bytes");
        }
        ("RuntimeDefault" | "Unconfined", text) if name.is_some() => errors.invalid(
            &name_path,
            text,
            "can only be set when AppArmor type is Localhost",
        ),
        _ => {}
    }
}

fn seccomp(profile: &SeccompProfile, path: &str, errors: &mut Errors) {
    if profile.type_.is_empty() {
        errors.required(&format!("{path}.type"), "type is required");
    } else {
        let known = ["Localhost", "RuntimeDefault", "Unconfined"];
        errors.one_of(&format!("{path}.type"), Some(&profile.type_), &known);
    }
    let file = profile.localhost_profile.as_deref();
    let file_path = format!("{path}.localhostProfile");
    match (profile.type_.as_str(), file.unwrap_or_default()) {
        ("Localhost", "") => errors.required(&file_path, "must be set when seccomp type is Localhost"),
        ("Localhost", file) => errors.check(&file_path, file, names::local_path(file)),
        (_, text) if file.is_some() => {
            errors.invalid(&file_path, text, "can only be set when seccomp type is Localhost");
        }
        _ => {}
    }
}
