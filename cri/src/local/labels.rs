//! What confines a container beside capabilities and filters: its AppArmor profile and its SELinux label.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::engine::EngineError;
use crate::types::{AppArmorProfile, SelinuxOptions};

/// The engine's own AppArmor profile.
const DEFAULT_PROFILE: &str = "berth-default";
/// What it says: everything that a container does, but neither mounts nor the kernel's switches and its processes'
/// memory, and signals and traces only among containers.
const DEFAULT_PROFILE_TEXT: &str = include_str!("berth-default.apparmor");
/// The kernel's list of profiles that are loaded, `name (mode)` a line.
const LOADED_PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
/// Where the program is that loads profiles.
const PARSERS: [&str; 3] = [
    "/sbin/apparmor_parser",
    "/usr/sbin/apparmor_parser",
    "/usr/bin/apparmor_parser",
];

/// Whether the kernel has AppArmor, it is on, and is ours to use: only the machine's root may load profiles, and see which
/// ones are loaded.
fn apparmor_is_enabled() -> bool {
    berth_runtime::is_machines_root()
        && fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|state| state.starts_with(b"Y"))
}

/// The profile that a container's programs run under, if any; the engine's own is loaded where it is not.
///
/// As in containerd: where AppArmor is off, a profile that is asked for by name is an error, the engine's own too, and
/// saying nothing is none.
pub(super) async fn apparmor(
    wanted: &AppArmorProfile,
    privileged: bool,
) -> Result<Option<String>, EngineError> {
    let choice = choose(wanted, privileged, apparmor_is_enabled())?;
    match choice {
        Choice::None => Ok(None),
        Choice::Named(name) => match is_loaded(&name)? {
            true => Ok(Some(name)),
            false => Err(EngineError::InvalidArgument(format!(
                "The AppArmor profile {name:?} is not loaded on this node; load it with apparmor_parser."
            ))),
        },
        Choice::Default { is_asked_for } => {
            if is_loaded(DEFAULT_PROFILE)? {
                return Ok(Some(DEFAULT_PROFILE.to_owned()));
            }
            match PARSERS.map(Path::new).into_iter().find(|path| path.exists()) {
                Some(parser) => load_default(parser).await.map(Some),
                None if is_asked_for => Err(EngineError::Unavailable(
                    "The default AppArmor profile can't be loaded: apparmor_parser (Debian's package apparmor) is \
                     missing."
                        .to_owned(),
                )),
                None => Ok(None),
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    None,
    Default { is_asked_for: bool },
    Named(String),
}

fn choose(wanted: &AppArmorProfile, privileged: bool, enabled: bool) -> Result<Choice, EngineError> {
    match wanted {
        AppArmorProfile::Unconfined => Ok(Choice::None),
        AppArmorProfile::Unset if !enabled || privileged => Ok(Choice::None),
        AppArmorProfile::Unset => Ok(Choice::Default { is_asked_for: false }),
        AppArmorProfile::RuntimeDefault | AppArmorProfile::Localhost(_) if !enabled => {
            Err(EngineError::InvalidArgument(
                "The container asks for an AppArmor profile, and AppArmor is not enabled in this kernel."
                    .to_owned(),
            ))
        }
        AppArmorProfile::RuntimeDefault if privileged => Ok(Choice::None),
        AppArmorProfile::RuntimeDefault => Ok(Choice::Default { is_asked_for: true }),
        AppArmorProfile::Localhost(name) => Ok(Choice::Named(name.clone())),
    }
}

fn is_loaded(name: &str) -> Result<bool, EngineError> {
    let list = fs::read_to_string(LOADED_PROFILES).map_err(|error| {
        EngineError::Unavailable(format!(
            "The list of AppArmor profiles {LOADED_PROFILES} can't be read: {error}."
        ))
    })?;
    Ok(lists(&list, name))
}

fn lists(list: &str, name: &str) -> bool {
    list.lines()
        .filter_map(|line| line.rsplit_once(" ("))
        .any(|(loaded, _)| loaded == name)
}

async fn load_default(parser: &Path) -> Result<String, EngineError> {
    let load = async {
        let mut child = Command::new(parser)
            .args(["--replace", "--skip-cache"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(DEFAULT_PROFILE_TEXT.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let failed = |why: String| {
        EngineError::Unavailable(format!("The default AppArmor profile can't be loaded: {why}."))
    };
    let output = load.await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{} said {:?}", parser.display(), said.trim())));
    }
    Ok(DEFAULT_PROFILE.to_owned())
}

/// The SELinux labels of a pod or a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelinuxLabels {
    /// Of its processes.
    pub(crate) process: String,
    /// Of its files.
    pub(crate) mount: String,
}

/// The policy's labels for containers.
#[derive(Debug, PartialEq, Eq)]
struct PolicyDefaults {
    process: String,
    file: String,
}

/// Whether SELinux is in use, as opposed to being in the kernel only.
fn selinux_is_enabled() -> bool {
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|found| u64::try_from(found.f_type) == Ok(SELINUX_MAGIC))
}

/// A pod's labels. `None` where SELinux is off: labels mean nothing there, and as in containerd and CRI-O a pod that has
/// some runs all the same.
pub(super) fn of_pod(
    options: Option<&SelinuxOptions>,
    pod: &str,
    taken: &BTreeSet<String>,
) -> Result<Option<SelinuxLabels>, EngineError> {
    if !selinux_is_enabled() {
        return Ok(None);
    }
    let defaults = policy_defaults()?;
    let level = free_level(pod, taken);
    Ok(Some(labels(options, &defaults, &level)))
}

/// A container's labels: its pod's with what it asks for itself. A privileged one has none.
pub(super) fn of_container(
    options: Option<&SelinuxOptions>,
    pod: Option<&SelinuxLabels>,
    privileged: bool,
) -> Option<SelinuxLabels> {
    let pod = pod.filter(|_| !privileged)?;
    let Some(options) = options else {
        return Some(pod.clone());
    };
    let defaults = PolicyDefaults {
        process: pod.process.clone(),
        file: pod.mount.clone(),
    };
    Some(labels(Some(options), &defaults, level_of(&pod.process)))
}

/// The level of a label, which may contain colons itself.
pub(super) fn level_of(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap_or("s0")
}

/// User, role, type and level, each as it is asked for or else the policy's. Files have their role and type by policy.
fn labels(options: Option<&SelinuxOptions>, defaults: &PolicyDefaults, level: &str) -> SelinuxLabels {
    let none = SelinuxOptions::default();
    let options = options.unwrap_or(&none);
    let part = |label: &str, index: usize| label.splitn(4, ':').nth(index).unwrap_or_default().to_owned();
    let or = |asked: &str, default: String| {
        if asked.is_empty() {
            default
        } else {
            asked.to_owned()
        }
    };
    let level = or(&options.level, level.to_owned());
    let user = |label| or(&options.user, part(label, 0));
    let process = &defaults.process;
    SelinuxLabels {
        process: [
            user(process),
            or(&options.role, part(process, 1)),
            or(&options.kind, part(process, 2)),
            level.clone(),
        ]
        .join(":"),
        mount: [
            user(&defaults.file),
            part(&defaults.file, 1),
            part(&defaults.file, 2),
            level,
        ]
        .join(":"),
    }
}

/// Two of 1024 categories that no other pod has: what keeps pods of the same type apart. Where the search begins is the
/// pod's id, which is random.
fn free_level(pod: &str, taken: &BTreeSet<String>) -> String {
    const CATEGORIES: u32 = 1024;
    let seed = pod
        .get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let mut number = seed.unwrap_or_default();
    for _ in 0..CATEGORIES * CATEGORIES {
        let (low, high) = (number % CATEGORIES, number / CATEGORIES % CATEGORIES);
        let level = format!("s0:c{low},c{high}");
        if low < high && !taken.contains(&level) {
            return level;
        }
        number = number.wrapping_add(1);
    }
    "s0".to_owned()
}

/// What the policy in use says of containers, in the file that all runtimes of the field read.
fn policy_defaults() -> Result<PolicyDefaults, EngineError> {
    let policy = fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let name = setting(&policy, "SELINUXTYPE").unwrap_or_else(|| "targeted".to_owned());
    let path = PathBuf::from(format!("/etc/selinux/{name}/contexts/lxc_contexts"));
    let text = fs::read_to_string(&path).map_err(|error| {
        EngineError::Unavailable(format!(
            "SELinux is on, and its labels for containers {} can't be read: {error}; install container-selinux.",
            path.display()
        ))
    })?;
    parse_defaults(&text).ok_or_else(|| {
        EngineError::Unavailable(format!(
            "{} names no labels \"process\" and \"file\".",
            path.display()
        ))
    })
}

fn parse_defaults(text: &str) -> Option<PolicyDefaults> {
    Some(PolicyDefaults {
        process: setting(text, "process")?,
        file: setting(text, "file")?,
    })
}

/// The value of a line `name = "value"`.
fn setting(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values
        .next()
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_by_what_is_asked_for_and_what_the_kernel_has() {
        use AppArmorProfile::{Localhost, RuntimeDefault, Unconfined, Unset};
        let web = || Localhost("web".to_owned());
        let table = [
            (Unset, false, true, Some(Choice::Default { is_asked_for: false })),
            (Unset, true, true, Some(Choice::None)),
            (Unset, false, false, Some(Choice::None)),
            (Unconfined, false, true, Some(Choice::None)),
            (Unconfined, false, false, Some(Choice::None)),
            (
                RuntimeDefault,
                false,
                true,
                Some(Choice::Default { is_asked_for: true }),
            ),
            (RuntimeDefault, true, true, Some(Choice::None)),
            (RuntimeDefault, false, false, None),
            (web(), false, true, Some(Choice::Named("web".to_owned()))),
            (web(), true, true, Some(Choice::Named("web".to_owned()))),
            (web(), false, false, None),
        ];
        for (wanted, privileged, enabled, expected) in table {
            let found = choose(&wanted, privileged, enabled).ok();
            assert_eq!(found, expected, "{wanted:?} {privileged} {enabled}");
        }
    }

    #[test]
    fn the_kernels_list_is_read_by_whole_names() {
        let list = "/usr/bin/man (enforce)\nweb (complain)\nweb//child (enforce)\n";
        assert!(lists(list, "web") && lists(list, "/usr/bin/man"));
        assert!(!lists(list, "we") && !lists(list, "child") && !lists(list, "(enforce)"));
    }

    #[test]
    fn labels_are_the_policys_with_what_is_asked_for() {
        let text = "process = \"system_u:system_r:container_t:s0\"\n\
                    file = \"system_u:object_r:container_file_t:s0\"\nro_file=\"x\"\n";
        let defaults = parse_defaults(text).unwrap();
        let pod = labels(None, &defaults, "s0:c1,c2");
        assert_eq!(pod.process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(pod.mount, "system_u:object_r:container_file_t:s0:c1,c2");
        let asked = SelinuxOptions {
            kind: "spc_t".to_owned(),
            level: "s0:c7".to_owned(),
            ..Default::default()
        };
        let own = of_container(Some(&asked), Some(&pod), false).unwrap();
        assert_eq!(own.process, "system_u:system_r:spc_t:s0:c7");
        assert_eq!(own.mount, "system_u:object_r:container_file_t:s0:c7");
        let kept = SelinuxOptions {
            kind: "other_t".to_owned(),
            ..Default::default()
        };
        let own = of_container(Some(&kept), Some(&pod), false).unwrap();
        assert_eq!(own.process, "system_u:system_r:other_t:s0:c1,c2");
        assert_eq!(of_container(None, Some(&pod), false), Some(pod.clone()));
        assert_eq!(of_container(Some(&asked), Some(&pod), true), None);
        assert_eq!(of_container(Some(&asked), None, false), None);
    }

    #[test]
    fn no_two_pods_have_the_same_categories() {
        let mut taken = BTreeSet::new();
        for _ in 0..50 {
            let level = free_level("00000801", &taken);
            let (low, high) = level.trim_start_matches("s0:c").split_once(",c").unwrap();
            assert!(
                low.parse::<u32>().unwrap() < high.parse::<u32>().unwrap(),
                "{level}"
            );
            assert!(taken.insert(level));
        }
    }
}
