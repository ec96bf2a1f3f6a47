//! A container's privileges, from its own securityContext over its pod's.

use std::path::PathBuf;

use berth_cri::{
    AppArmorProfile, ContainerSecurity, Image, SandboxSecurity, SeccompProfile, SelinuxOptions,
    SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{
    Container, Pod, PodSecurityContext, SeccompProfile as ApiSeccomp, SecurityContext,
};

use crate::env::ConfigError;
use crate::plan::NodeFacts;
use crate::spec;

/// Paths of proc(5) and sysfs(5) that tell or change more than a container should (`procMount: Default`).
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths of proc(5) that a container may read but not write (`procMount: Default`).
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The container's privileges.
///
/// # Errors
/// A seccomp profile that does not say which file, or a type that is none.
pub fn container_security(
    pod: &Pod,
    container: &Container,
    node: &NodeFacts,
) -> Result<ContainerSecurity, ConfigError> {
    let of_pod = of_pod(pod);
    let own = container.security_context.as_ref();
    let capabilities = own.and_then(|own| own.capabilities.as_ref());
    let privileged = own.is_some_and(|own| own.privileged == Some(true));
    let unmasked = own.is_some_and(|own| own.proc_mount.as_deref() == Some("Unmasked"));
    let strict = of_pod.and_then(|of_pod| of_pod.supplemental_groups_policy.as_deref()) == Some("Strict");
    Ok(ContainerSecurity {
        privileged,
        add_capabilities: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
        drop_capabilities: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
        run_as_user: run_as_user(of_pod, own),
        run_as_group: own
            .and_then(|own| own.run_as_group)
            .or_else(|| of_pod?.run_as_group),
        supplemental_groups: supplemental_groups(of_pod),
        supplemental_groups_policy: if strict {
            SupplementalGroupsPolicy::Strict
        } else {
            SupplementalGroupsPolicy::Merge
        },
        readonly_rootfs: own.is_some_and(|own| own.read_only_root_filesystem == Some(true)),
        no_new_privs: own.is_some_and(|own| own.allow_privilege_escalation == Some(false)),
        seccomp: seccomp(of_pod, own, privileged, node)?,
        apparmor: apparmor(of_pod, own, privileged)?,
        selinux: selinux(of_pod, own),
        masked_paths: if unmasked { Vec::new() } else { masked_paths(node) },
        readonly_paths: if unmasked {
            Vec::new()
        } else {
            list(&READONLY_PATHS)
        },
        ..ContainerSecurity::default()
    })
}

/// Without `runAsUser` the container is its image's user, and without `runAsGroup` that user's group in the image's
/// `/etc/passwd`, or else root's: the group that an image names after a colon does not count, as upstream.
pub(super) fn take_image_user(security: &mut ContainerSecurity, image: &Image) {
    if security.run_as_user.is_some() {
        return;
    }
    let user = image.user.split(':').next().unwrap_or_default();
    match user.parse() {
        Ok(uid) => security.run_as_user = Some(uid),
        Err(_) => security.run_as_username = user.to_owned(),
    }
}

/// The privileges of the process that keeps the pod's namespaces: the pod's own, but for a seccomp profile of a file.
///
/// # Errors
/// As [`container_security`].
pub(super) fn sandbox_security(pod: &Pod, node: &NodeFacts) -> Result<SandboxSecurity, ConfigError> {
    let of_pod = of_pod(pod);
    let run_as_user = of_pod.and_then(|of_pod| of_pod.run_as_user);
    // As upstream, so that a profile needs to allow only what the pod's own programs do.
    let seccomp = match seccomp(of_pod, None, false, node)? {
        SeccompProfile::Localhost(_) => SeccompProfile::RuntimeDefault,
        other => other,
    };
    Ok(SandboxSecurity {
        run_as_user,
        // A group alone would be an error, and there is no image whose user it could go with.
        run_as_group: of_pod
            .and_then(|of_pod| of_pod.run_as_group)
            .filter(|_| run_as_user.is_some()),
        supplemental_groups: supplemental_groups(of_pod),
        seccomp,
        apparmor: apparmor(of_pod, None, false)?,
        selinux: selinux(of_pod, None),
    })
}

fn list(paths: &[&str]) -> Vec<PathBuf> {
    paths.iter().map(PathBuf::from).collect()
}

/// Also the processors' own counts of how hot they were, by which one can listen to neighbours.
fn masked_paths(node: &NodeFacts) -> Vec<PathBuf> {
    let throttle = |cpu| PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
    let mut paths = list(&MASKED_PATHS);
    paths.extend((0..node.cpu_capacity.div_ceil(1000)).map(throttle));
    paths
}

fn of_pod(pod: &Pod) -> Option<&PodSecurityContext> {
    pod.spec.as_ref()?.security_context.as_ref()
}

fn run_as_user(of_pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>) -> Option<i64> {
    own.and_then(|own| own.run_as_user)
        .or_else(|| of_pod?.run_as_user)
}

/// `supplementalGroups`, and `fsGroup` so that the container may use its volumes.
fn supplemental_groups(of_pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(of_pod) = of_pod else { return Vec::new() };
    let mut groups = of_pod.supplemental_groups.clone().unwrap_or_default();
    if let Some(group) = of_pod.fs_group.filter(|group| !groups.contains(group)) {
        groups.push(group);
    }
    groups
}

/// Without a profile there is none (`seccompDefault: false`); a privileged container never has one.
fn seccomp(
    of_pod: Option<&PodSecurityContext>,
    own: Option<&SecurityContext>,
    privileged: bool,
    node: &NodeFacts,
) -> Result<SeccompProfile, ConfigError> {
    let profile = own
        .and_then(|own| own.seccomp_profile.as_ref())
        .or_else(|| of_pod?.seccomp_profile.as_ref());
    let Some(ApiSeccomp {
        type_,
        localhost_profile,
    }) = profile.filter(|_| !privileged)
    else {
        return Ok(SeccompProfile::Unconfined);
    };
    match (type_.as_str(), localhost_profile.as_deref()) {
        ("Unconfined", _) => Ok(SeccompProfile::Unconfined),
        ("RuntimeDefault", _) => Ok(SeccompProfile::RuntimeDefault),
        ("Localhost", Some(file)) if !file.is_empty() => {
            Ok(SeccompProfile::Localhost(node.seccomp_root.join(file)))
        }
        ("Localhost", _) => Err(ConfigError::Invalid(
            "localhostProfile must be set if seccompProfile type is Localhost.".to_owned(),
        )),
        (other, _) => Err(ConfigError::Invalid(format!(
            "unknown seccomp profile type {other:?}"
        ))),
    }
}

/// The container's own profile or the pod's; a privileged container never has one.
fn apparmor(
    of_pod: Option<&PodSecurityContext>,
    own: Option<&SecurityContext>,
    privileged: bool,
) -> Result<AppArmorProfile, ConfigError> {
    let profile = own
        .and_then(|own| own.app_armor_profile.as_ref())
        .or_else(|| of_pod?.app_armor_profile.as_ref());
    let Some(profile) = profile.filter(|_| !privileged) else {
        return Ok(AppArmorProfile::Unset);
    };
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Unconfined", _) => Ok(AppArmorProfile::Unconfined),
        ("RuntimeDefault", _) => Ok(AppArmorProfile::RuntimeDefault),
        ("Localhost", Some(name)) if !name.is_empty() => Ok(AppArmorProfile::Localhost(name.to_owned())),
        ("Localhost", _) => Err(ConfigError::Invalid(
            "localhostProfile must be set if appArmorProfile type is Localhost.".to_owned(),
        )),
        (other, _) => Err(ConfigError::Invalid(format!(
            "unknown AppArmor profile type {other:?}"
        ))),
    }
}

/// The container's own label or the pod's, as a whole.
fn selinux(of_pod: Option<&PodSecurityContext>, own: Option<&SecurityContext>) -> Option<SelinuxOptions> {
    let options = own
        .and_then(|own| own.se_linux_options.as_ref())
        .or_else(|| of_pod?.se_linux_options.as_ref())?;
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    Some(SelinuxOptions {
        user: text(&options.user),
        role: text(&options.role),
        kind: text(&options.type_),
        level: text(&options.level),
    })
}

/// `runAsNonRoot`: the container's user, or else its image's, is a number that is not 0.
///
/// # Errors
/// It is root, or can't be known not to be.
pub fn check_non_root(pod: &Pod, container: &Container, image: &Image) -> Result<(), ConfigError> {
    let of_pod = of_pod(pod);
    let own = container.security_context.as_ref();
    let wanted = own
        .and_then(|own| own.run_as_non_root)
        .or_else(|| of_pod?.run_as_non_root);
    if wanted != Some(true) {
        return Ok(());
    }
    let pod_and_container = || format!("(pod: {:?}, container: {})", spec::describe(pod), container.name);
    let refuse = |why: String| Err(ConfigError::RunAsRoot(format!("{why} {}", pod_and_container())));
    match run_as_user(of_pod, own) {
        Some(0) => return refuse("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image.user.split(':').next().unwrap_or_default();
    match user.parse::<i64>() {
        _ if user.is_empty() => refuse("container has runAsNonRoot and image will run as root".to_owned()),
        Ok(0) => refuse("container has runAsNonRoot and image will run as root".to_owned()),
        Ok(_) => Ok(()),
        Err(_) => refuse(format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use berth_cri::ImageId;

    use super::*;
    use crate::testing::pod;

    fn parts(pod_context: &str, context: &str) -> (Pod, Container) {
        let pod = pod(&format!(
            r#"{{"securityContext":{pod_context},"containers":[{{"name":"c","image":"i","securityContext":{context}}}]}}"#
        ));
        let container = spec::containers(&pod)[0].clone();
        (pod, container)
    }

    fn security(pod_context: &str, context: &str) -> ContainerSecurity {
        let (pod, container) = parts(pod_context, context);
        container_security(&pod, &container, &node()).unwrap()
    }

    fn node() -> NodeFacts {
        NodeFacts {
            cpu_capacity: 2000,
            seccomp_root: "/seccomp".into(),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn the_containers_own_comes_before_the_pods() {
        let found = security(
            r#"{"runAsUser":1,"runAsGroup":2,"fsGroup":3,"supplementalGroups":[4],"seccompProfile":{"type":"RuntimeDefault"}}"#,
            r#"{"runAsUser":5,"allowPrivilegeEscalation":false,"capabilities":{"add":["NET_ADMIN"],"drop":["ALL"]}}"#,
        );
        assert_eq!((found.run_as_user, found.run_as_group), (Some(5), Some(2)));
        assert_eq!(found.supplemental_groups, [4, 3]);
        assert_eq!(found.seccomp, SeccompProfile::RuntimeDefault);
        assert!(found.no_new_privs && !found.privileged);
        assert_eq!(found.add_capabilities, ["NET_ADMIN"]);
        assert_eq!(found.drop_capabilities, ["ALL"]);
    }

    #[test]
    fn seccomp_profiles() {
        assert_eq!(security("{}", "{}").seccomp, SeccompProfile::Unconfined);
        let local = security(
            "{}",
            r#"{"seccompProfile":{"type":"Localhost","localhostProfile":"a.json"}}"#,
        );
        assert_eq!(
            local.seccomp,
            SeccompProfile::Localhost(PathBuf::from("/seccomp/a.json"))
        );
        let privileged = security(
            r#"{"seccompProfile":{"type":"RuntimeDefault"}}"#,
            r#"{"privileged":true}"#,
        );
        assert_eq!(privileged.seccomp, SeccompProfile::Unconfined);
    }

    #[test]
    fn a_sandbox_is_not_held_to_a_profile_that_is_for_the_pod_s_programs() {
        let sandbox = |profile: &str| {
            let spec = format!(
                r#"{{"securityContext":{{"seccompProfile":{profile}}},"containers":[{{"name":"c","image":"i"}}]}}"#
            );
            sandbox_security(&pod(&spec), &node()).unwrap().seccomp
        };
        let local = r#"{"type":"Localhost","localhostProfile":"a.json"}"#;
        assert_eq!(sandbox(local), SeccompProfile::RuntimeDefault);
        assert_eq!(sandbox(r#"{"type":"Unconfined"}"#), SeccompProfile::Unconfined);
    }

    #[test]
    fn labels_and_profiles_of_security_modules() {
        let found = security(
            r#"{"appArmorProfile":{"type":"RuntimeDefault"},"seLinuxOptions":{"level":"s0:c1","type":"a_t"}}"#,
            r#"{"seLinuxOptions":{"type":"b_t"}}"#,
        );
        assert_eq!(found.apparmor, AppArmorProfile::RuntimeDefault);
        let label = found.selinux.unwrap();
        assert_eq!((label.kind.as_str(), label.level.as_str()), ("b_t", ""));
        let local = security(
            "{}",
            r#"{"appArmorProfile":{"type":"Localhost","localhostProfile":"p"}}"#,
        );
        assert_eq!(local.apparmor, AppArmorProfile::Localhost("p".to_owned()));
        let privileged = security(
            r#"{"appArmorProfile":{"type":"RuntimeDefault"}}"#,
            r#"{"privileged":true}"#,
        );
        assert_eq!(privileged.apparmor, AppArmorProfile::Unset);
    }

    #[test]
    fn proc_is_masked_unless_it_is_asked_for_whole() {
        let usual = security("{}", "{}");
        let shown =
            |found: &ContainerSecurity, path: &str| !found.masked_paths.iter().any(|masked| masked == path);
        assert!(!shown(&usual, "/proc/kcore"));
        assert!(!shown(&usual, "/sys/devices/system/cpu/cpu1/thermal_throttle"));
        assert!(shown(&usual, "/sys/devices/system/cpu/cpu2/thermal_throttle"));
        assert_eq!(usual.readonly_paths.len(), 5);
        let whole = security("{}", r#"{"procMount":"Unmasked"}"#);
        assert!(whole.masked_paths.is_empty() && whole.readonly_paths.is_empty());
    }

    #[test]
    fn groups_of_the_image_are_kept_out_strictly() {
        let policy = |text| security(text, "{}").supplemental_groups_policy;
        assert_eq!(policy("{}"), SupplementalGroupsPolicy::Merge);
        let strict = policy(r#"{"supplementalGroupsPolicy":"Strict"}"#);
        assert_eq!(strict, SupplementalGroupsPolicy::Strict);
    }

    fn image(user: &str) -> Image {
        Image {
            id: ImageId("sha256:x".into()),
            repo_tags: vec![],
            repo_digests: vec![],
            size: 0,
            user: user.to_owned(),
            pinned: false,
        }
    }

    #[test]
    fn non_root() {
        for (context, user, error) in [
            ("{}", "", None),
            (r#"{"runAsNonRoot":true}"#, "1000:1000", None),
            (r#"{"runAsNonRoot":true,"runAsUser":7}"#, "", None),
            (
                r#"{"runAsNonRoot":true,"runAsUser":0}"#,
                "7",
                Some("breaks non-root policy"),
            ),
            (r#"{"runAsNonRoot":true}"#, "", Some("image will run as root")),
            (r#"{"runAsNonRoot":true}"#, "0", Some("image will run as root")),
            (
                r#"{"runAsNonRoot":true}"#,
                "www-data",
                Some("non-numeric user (www-data)"),
            ),
        ] {
            let (pod, container) = parts("{}", context);
            let image = image(user);
            let found = check_non_root(&pod, &container, &image).map_err(|error| error.to_string());
            match error {
                None => assert_eq!(found, Ok(()), "{context} {user}"),
                Some(text) => assert!(found.is_err_and(|found| found.contains(text)), "{context} {user}"),
            }
        }
    }

    #[test]
    fn the_image_s_user_comes_without_its_group() {
        for (user, own, uid, name) in [
            ("1003:1004", None, Some(1003), ""),
            ("1003", None, Some(1003), ""),
            ("www-data:1004", None, None, "www-data"),
            ("", None, None, ""),
            ("1003:1004", Some(7), Some(7), ""),
        ] {
            let mut found = ContainerSecurity {
                run_as_user: own,
                ..ContainerSecurity::default()
            };
            take_image_user(&mut found, &image(user));
            assert_eq!(
                (
                    found.run_as_user,
                    found.run_as_username.as_str(),
                    found.run_as_group
                ),
                (uid, name, None),
                "{user}"
            );
        }
    }
}
