//! The privileges of pods and containers, from CRI's messages.

use std::path::PathBuf;

use crate::types::{
    AppArmorProfile, ContainerSecurity, SandboxSecurity, SeccompProfile, SelinuxOptions,
    SupplementalGroupsPolicy,
};
use crate::v1::{self, security_profile::ProfileType};

use super::request::{Result, invalid};

/// Names of the runtime's own profile in fields that were texts once.
const DEFAULT_NAMES: [&str; 2] = ["runtime/default", "docker/default"];
/// What comes before a profile of the node's there.
const LOCALHOST: &str = "localhost/";

/// A sandbox's privileges. Its root file system is nothing that could be written: the process that keeps the namespaces
/// has an empty directory for one. So `readonly_rootfs` holds always.
pub(super) fn of_sandbox(security: v1::LinuxSandboxSecurityContext) -> Result<SandboxSecurity> {
    let group = security.run_as_group.map(|id| id.value);
    let user = security.run_as_user.map(|id| id.value);
    group_has_user(group, user.is_some())?;
    #[allow(deprecated, reason = "kubelets before 1.25 say it this way")]
    let path = security.seccomp_profile_path;
    // The image's groups, which Merge would add, are those of no image here.
    Ok(SandboxSecurity {
        run_as_user: user,
        run_as_group: group,
        supplemental_groups: security.supplemental_groups,
        seccomp: seccomp(security.seccomp, &path)?,
        apparmor: apparmor(security.apparmor, "")?,
        selinux: selinux(security.selinux_options)?,
    })
}

/// A container's privileges.
pub(super) fn of_container(security: v1::LinuxContainerSecurityContext) -> Result<ContainerSecurity> {
    let policy = match v1::SupplementalGroupsPolicy::try_from(security.supplemental_groups_policy) {
        Ok(v1::SupplementalGroupsPolicy::Merge) => SupplementalGroupsPolicy::Merge,
        Ok(v1::SupplementalGroupsPolicy::Strict) => SupplementalGroupsPolicy::Strict,
        Err(_) => {
            return Err(invalid(format!(
                "The supplemental_groups_policy {} is neither Merge nor Strict.",
                security.supplemental_groups_policy
            )));
        }
    };
    let group = security.run_as_group.map(|id| id.value);
    let user = security.run_as_user.map(|id| id.value);
    group_has_user(group, user.is_some() || !security.run_as_username.is_empty())?;
    #[allow(deprecated, reason = "kubelets before 1.25 and 1.30 say it this way")]
    let (seccomp_path, apparmor_name) = (security.seccomp_profile_path, security.apparmor_profile);
    let capabilities = security.capabilities.unwrap_or_default();
    Ok(ContainerSecurity {
        privileged: security.privileged,
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        run_as_user: user,
        run_as_username: security.run_as_username,
        run_as_group: group,
        supplemental_groups: security.supplemental_groups,
        supplemental_groups_policy: policy,
        readonly_rootfs: security.readonly_rootfs,
        no_new_privs: security.no_new_privs,
        seccomp: seccomp(security.seccomp, &seccomp_path)?,
        apparmor: apparmor(security.apparmor, &apparmor_name)?,
        selinux: selinux(security.selinux_options)?,
        masked_paths: paths(security.masked_paths, "masked_paths")?,
        readonly_paths: paths(security.readonly_paths, "readonly_paths")?,
    })
}

/// The protocol wants an error: a group alone would silently be another user's.
fn group_has_user(group: Option<i64>, has_user: bool) -> Result<()> {
    match group {
        Some(group) if !has_user => Err(invalid(format!(
            "run_as_group {group} needs run_as_user or run_as_username."
        ))),
        _ => Ok(()),
    }
}

fn paths(paths: Vec<String>, field: &str) -> Result<Vec<PathBuf>> {
    let paths = paths.into_iter().map(PathBuf::from);
    paths
        .map(|path| match path.is_absolute() {
            true => Ok(path),
            false => Err(invalid(format!(
                "{} in security_context.{field} is not an absolute path.",
                path.display()
            ))),
        })
        .collect()
}

/// Which profile, by the field of today or else by the text of old; without either there is none.
fn profile(
    profile: Option<v1::SecurityProfile>,
    text: &str,
    what: &str,
) -> Result<Option<(ProfileType, String)>> {
    let Some(profile) = profile else {
        return match text {
            "" => Ok(None),
            "unconfined" => Ok(Some((ProfileType::Unconfined, String::new()))),
            text if DEFAULT_NAMES.contains(&text) => Ok(Some((ProfileType::RuntimeDefault, String::new()))),
            text => match text.strip_prefix(LOCALHOST) {
                Some(name) => Ok(Some((ProfileType::Localhost, name.to_owned()))),
                None => Err(invalid(format!(
                    "The {what} profile {text:?} is none of runtime/default, unconfined and localhost/NAME."
                ))),
            },
        };
    };
    let kind = ProfileType::try_from(profile.profile_type).map_err(|_| {
        invalid(format!(
            "The {what} profile type {} is none of RuntimeDefault, Unconfined and Localhost.",
            profile.profile_type
        ))
    })?;
    if kind != ProfileType::Localhost && !profile.localhost_ref.is_empty() {
        return Err(invalid(format!(
            "The {what} profile names {:?} in localhost_ref, which is only for the type Localhost.",
            profile.localhost_ref
        )));
    }
    Ok(Some((kind, profile.localhost_ref)))
}

fn seccomp(field: Option<v1::SecurityProfile>, text: &str) -> Result<SeccompProfile> {
    Ok(match profile(field, text, "seccomp")? {
        None | Some((ProfileType::Unconfined, _)) => SeccompProfile::Unconfined,
        Some((ProfileType::RuntimeDefault, _)) => SeccompProfile::RuntimeDefault,
        Some((ProfileType::Localhost, path)) => {
            // Some callers leave the old prefix on the new field.
            let path = PathBuf::from(path.strip_prefix(LOCALHOST).unwrap_or(&path));
            if !path.is_absolute() {
                return Err(invalid(format!(
                    "The seccomp profile {} is not an absolute path.",
                    path.display()
                )));
            }
            SeccompProfile::Localhost(path)
        }
    })
}

fn apparmor(field: Option<v1::SecurityProfile>, text: &str) -> Result<AppArmorProfile> {
    Ok(match profile(field, text, "AppArmor")? {
        None => AppArmorProfile::Unset,
        Some((ProfileType::Unconfined, _)) => AppArmorProfile::Unconfined,
        Some((ProfileType::RuntimeDefault, _)) => AppArmorProfile::RuntimeDefault,
        Some((ProfileType::Localhost, name)) => {
            let name = name.strip_prefix(LOCALHOST).unwrap_or(&name);
            if name.is_empty() {
                return Err(invalid("The AppArmor profile of type Localhost lacks its name."));
            }
            AppArmorProfile::Localhost(name.to_owned())
        }
    })
}

fn selinux(options: Option<v1::SeLinuxOption>) -> Result<Option<SelinuxOptions>> {
    let Some(options) = options.filter(|options| *options != v1::SeLinuxOption::default()) else {
        return Ok(None);
    };
    for (field, value) in [
        ("user", &options.user),
        ("role", &options.role),
        ("type", &options.r#type),
    ] {
        // Parts of a label are joined by colons, and no policy has names with spaces or zeros.
        if value.contains([':', ' ', '\0', '\n']) {
            return Err(invalid(format!("{value:?} is not an SELinux {field}.")));
        }
    }
    if options.level.contains([' ', '\0', '\n']) {
        return Err(invalid(format!("{:?} is not an SELinux level.", options.level)));
    }
    Ok(Some(SelinuxOptions {
        user: options.user,
        role: options.role,
        kind: options.r#type,
        level: options.level,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> v1::LinuxContainerSecurityContext {
        v1::LinuxContainerSecurityContext::default()
    }

    fn id(value: i64) -> Option<v1::Int64Value> {
        Some(v1::Int64Value { value })
    }

    fn typed(kind: ProfileType, localhost_ref: &str) -> Option<v1::SecurityProfile> {
        Some(v1::SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: localhost_ref.to_owned(),
        })
    }

    #[test]
    fn a_group_needs_a_user() {
        let table = [
            (None, "", None, true),
            (id(1), "", id(2), true),
            (None, "web", id(2), true),
            (None, "", id(2), false),
        ];
        for (user, name, group, fine) in table {
            let security = v1::LinuxContainerSecurityContext {
                run_as_user: user,
                run_as_username: name.to_owned(),
                run_as_group: group,
                ..container()
            };
            assert_eq!(of_container(security).is_ok(), fine);
        }
        let sandbox = v1::LinuxSandboxSecurityContext {
            run_as_group: id(2),
            ..Default::default()
        };
        assert!(of_sandbox(sandbox).is_err());
    }

    #[test]
    fn seccomp_profiles_of_today_and_of_old() {
        use ProfileType::{Localhost, RuntimeDefault, Unconfined};
        let file = || SeccompProfile::Localhost("/p.json".into());
        let table = [
            (None, "", Some(SeccompProfile::Unconfined)),
            (None, "unconfined", Some(SeccompProfile::Unconfined)),
            (None, "runtime/default", Some(SeccompProfile::RuntimeDefault)),
            (None, "docker/default", Some(SeccompProfile::RuntimeDefault)),
            (None, "localhost//p.json", Some(file())),
            (None, "localhost/p.json", None),
            (None, "/p.json", None),
            (
                typed(Unconfined, ""),
                "runtime/default",
                Some(SeccompProfile::Unconfined),
            ),
            (
                typed(RuntimeDefault, ""),
                "",
                Some(SeccompProfile::RuntimeDefault),
            ),
            (typed(Localhost, "/p.json"), "", Some(file())),
            (typed(Localhost, "localhost//p.json"), "", Some(file())),
            (typed(Localhost, "p.json"), "", None),
            (typed(Localhost, ""), "", None),
            (typed(RuntimeDefault, "/p.json"), "", None),
        ];
        for (field, text, expected) in table {
            let found = seccomp(field.clone(), text).ok();
            assert_eq!(found, expected, "{field:?} {text:?}");
        }
    }

    #[test]
    fn apparmor_profiles_of_today_and_of_old() {
        use ProfileType::{Localhost, RuntimeDefault, Unconfined};
        let named = || Some(AppArmorProfile::Localhost("web".into()));
        let table = [
            (None, "", Some(AppArmorProfile::Unset)),
            (None, "runtime/default", Some(AppArmorProfile::RuntimeDefault)),
            (None, "unconfined", Some(AppArmorProfile::Unconfined)),
            (None, "localhost/web", named()),
            (None, "web", None),
            (
                typed(RuntimeDefault, ""),
                "",
                Some(AppArmorProfile::RuntimeDefault),
            ),
            (
                typed(Unconfined, ""),
                "localhost/web",
                Some(AppArmorProfile::Unconfined),
            ),
            (typed(Localhost, "web"), "", named()),
            (typed(Localhost, "localhost/web"), "", named()),
            (typed(Localhost, ""), "", None),
        ];
        for (field, text, expected) in table {
            assert_eq!(apparmor(field.clone(), text).ok(), expected, "{field:?} {text:?}");
        }
    }

    #[test]
    fn paths_are_taken_as_they_are_and_absolute() {
        let security = v1::LinuxContainerSecurityContext {
            masked_paths: vec!["/proc/kcore".into()],
            ..container()
        };
        let found = of_container(security).unwrap();
        assert_eq!(found.masked_paths, [PathBuf::from("/proc/kcore")]);
        assert!(found.readonly_paths.is_empty());
        let relative = v1::LinuxContainerSecurityContext {
            readonly_paths: vec!["proc/sys".into()],
            ..container()
        };
        assert!(of_container(relative).is_err());
    }

    #[test]
    fn a_policy_for_groups_that_nobody_knows_is_refused() {
        let security = |policy| v1::LinuxContainerSecurityContext {
            supplemental_groups_policy: policy,
            ..container()
        };
        let strict = of_container(security(1)).unwrap();
        assert_eq!(
            strict.supplemental_groups_policy,
            SupplementalGroupsPolicy::Strict
        );
        assert!(of_container(security(7)).is_err());
    }

    #[test]
    fn parts_of_an_selinux_label_cannot_bring_in_others() {
        let options = |kind: &str| {
            Some(v1::SeLinuxOption {
                r#type: kind.to_owned(),
                ..Default::default()
            })
        };
        assert_eq!(selinux(options("")).unwrap(), None);
        assert_eq!(selinux(options("spc_t")).unwrap().unwrap().kind, "spc_t");
        assert!(selinux(options("a_t:s0")).is_err());
    }
}
