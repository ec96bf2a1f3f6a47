//! SELinux labels of pods, their containers and their files.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::records;
use crate::engine::EngineError;
use crate::types::{NamespaceOptions, SelinuxOptions};

/// Where SELinux is, if it is in use.
const SELINUX: &str = "/sys/fs/selinux";
/// container-selinux's own labels, which all engines of the field take before the policy's.
const CONTAINERS_CONTEXTS: &str = "/usr/share/containers/selinux/contexts";

/// The SELinux labels of a pod or a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SelinuxLabels {
    /// Of its processes; empty leaves that to the policy, which has a domain for what engines confine by nothing.
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

/// Makes the directory of an image store where SELinux is on and it is not there yet, with the policy's label for what
/// containers may read and run and none of them writes, which all that comes into it inherits: on an overlay the kernel asks for
/// the label of a layer's own file when a container maps it, as it does its libraries. One that is there keeps its label, which is
/// the operator's (semanage-fcontext(8)).
pub fn label_new_image_directory(directory: &Path) {
    if !is_enabled() || directory.exists() {
        return;
    }
    // Whoever runs pods hears of a policy that says nothing of containers, and who opens the store of a directory that can't be made.
    let label = policy_file().ok().and_then(|text| setting(&text, "ro_file"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    if let (Some(label), Ok(())) = (label, made) {
        let flags = rustix::fs::XattrFlags::empty();
        if let Err(error) = rustix::fs::setxattr(directory, "security.selinux", label.as_bytes(), flags) {
            tracing::warn!(
                "{} can't have the SELinux label {label}: {error}; containers may not be able to run programs of images.",
                directory.display()
            );
        }
    }
}

/// Whether SELinux is in use, as opposed to being in the kernel only.
fn is_enabled() -> bool {
    const SELINUX_MAGIC: u64 = 0xf97c_ff8c;
    rustix::fs::statfs(SELINUX).is_ok_and(|found| u64::try_from(found.f_type) == Ok(SELINUX_MAGIC))
}

/// A pod's labels. `None` where SELinux is off: labels mean nothing there, and as in containerd and CRI-O a pod that has
/// some runs all the same. `taken` are the levels of other pods.
pub(super) fn of_pod(
    options: Option<&SelinuxOptions>,
    pod: &str,
    taken: impl FnOnce() -> BTreeSet<String>,
) -> Result<Option<SelinuxLabels>, EngineError> {
    if !is_enabled() {
        return Ok(None);
    }
    let defaults = policy_defaults()?;
    let level = match level_of(&defaults.process) {
        // A policy without levels.
        "" => String::new(),
        _ => free_level(pod, &taken()),
    };
    let labels = labels(options, &defaults, &level);
    check(&labels)?;
    Ok(Some(labels))
}

/// What of a container decides about its labels.
pub(super) struct Wanted<'a> {
    /// What it asks for itself.
    pub(super) options: Option<&'a SelinuxOptions>,
    /// Its pod asks for something, too.
    pub(super) pod_has_options: bool,
    pub(super) privileged: bool,
    pub(super) namespaces: NamespaceOptions,
}

impl Wanted<'_> {
    /// Its pod's labels with what it asks for itself.
    ///
    /// A privileged one's processes have none, as in all engines. Those that share the host's PID or IPC namespace are not
    /// kept from its processes and its memory either, as in CRI-O, podman and docker; unless a label is asked for, as in
    /// containerd.
    pub(super) fn labels(&self, pod: Option<&SelinuxLabels>) -> Option<SelinuxLabels> {
        let pod = pod?;
        let defaults = PolicyDefaults {
            process: pod.process.clone(),
            file: pod.mount.clone(),
        };
        let mut labels = labels(self.options, &defaults, level_of(&pod.process));
        let asked = self.options.is_some() || self.pod_has_options;
        let shares = self.namespaces.host_pid || self.namespaces.host_ipc;
        if self.privileged || shares && !asked {
            labels.process.clear();
        }
        Some(labels)
    }
}

/// Refuses labels that the policy does not know: the kernel would say no more than that a mount has a bad option.
pub(super) fn check(labels: &SelinuxLabels) -> Result<(), EngineError> {
    let known = |label: &str| match ask_policy(label) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => {
            Err(EngineError::InvalidArgument(format!(
                "The SELinux label {label:?} is not one of this node's policy. Look at user, role, type and level of \
                 seLinuxOptions; if there are none, install the policy's module for containers (container-selinux)."
            )))
        }
        // Who may not ask learns it from the kernel later.
        _ => Ok(()),
    };
    [&labels.process, &labels.mount]
        .into_iter()
        .filter(|label| !label.is_empty())
        .try_for_each(|label| known(label))
}

fn ask_policy(label: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(Path::new(SELINUX).join("context"))?;
    file.write_all(label.as_bytes())
}

/// The level of a label, which may contain colons itself.
fn level_of(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap_or_default()
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
    let joined = |user: String, role: String, kind: String| {
        let mut label = [user, role, kind].join(":");
        if !level.is_empty() {
            label.push(':');
            label.push_str(&level);
        }
        label
    };
    let user = |label| or(&options.user, part(label, 0));
    let (process, file) = (&defaults.process, &defaults.file);
    SelinuxLabels {
        process: joined(
            user(process),
            or(&options.role, part(process, 1)),
            or(&options.kind, part(process, 2)),
        ),
        mount: joined(user(file), part(file, 1), part(file, 2)),
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

/// The levels of all pods in this directory of sandboxes, also of those that other programs run. A record that can't be
/// read is of a pod that is just coming or going.
pub(super) fn levels_in(sandboxes: &Path) -> BTreeSet<String> {
    #[derive(Deserialize)]
    struct Labelled {
        selinux: Option<SelinuxLabels>,
    }
    let Ok(entries) = fs::read_dir(sandboxes) else {
        return BTreeSet::new();
    };
    let record = |entry: fs::DirEntry| records::read::<Labelled>(&entry.path().join("record.json")).ok()?;
    let labels = entries.flatten().filter_map(|entry| record(entry)?.selinux);
    labels
        .map(|labels| level_of(&labels.process).to_owned())
        .collect()
}

/// What the policy in use says of containers, in the files that all runtimes of the field read.
fn policy_file() -> Result<String, EngineError> {
    let policy = fs::read_to_string("/etc/selinux/config").unwrap_or_default();
    let name = setting(&policy, "SELINUXTYPE").unwrap_or_else(|| "targeted".to_owned());
    let mut path = PathBuf::from(CONTAINERS_CONTEXTS);
    if !path.exists() {
        path = PathBuf::from(format!("/etc/selinux/{name}/contexts/lxc_contexts"));
    }
    fs::read_to_string(&path).map_err(|error| {
        EngineError::Unavailable(format!(
            "SELinux is on, and its labels for containers {} can't be read: {error}; install container-selinux.",
            path.display()
        ))
    })
}

fn policy_defaults() -> Result<PolicyDefaults, EngineError> {
    parse_defaults(&policy_file()?).ok_or_else(|| {
        EngineError::Unavailable(
            "The policy's labels for containers (lxc_contexts) name no \"process\" and \"file\"; install container-selinux."
                .to_owned(),
        )
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

    fn wanted(options: Option<&SelinuxOptions>) -> Wanted<'_> {
        Wanted {
            options,
            pod_has_options: false,
            privileged: false,
            namespaces: NamespaceOptions::default(),
        }
    }

    fn pod() -> SelinuxLabels {
        let text = "process = \"system_u:system_r:container_t:s0\"\n\
                    file = \"system_u:object_r:container_file_t:s0\"\nro_file=\"x\"\n";
        labels(None, &parse_defaults(text).unwrap(), "s0:c1,c2")
    }

    #[test]
    fn labels_are_the_policys_with_what_is_asked_for() {
        let pod = pod();
        assert_eq!(pod.process, "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(pod.mount, "system_u:object_r:container_file_t:s0:c1,c2");
        let asked = SelinuxOptions {
            kind: "spc_t".to_owned(),
            level: "s0:c7".to_owned(),
            ..Default::default()
        };
        let own = wanted(Some(&asked)).labels(Some(&pod)).unwrap();
        assert_eq!(own.process, "system_u:system_r:spc_t:s0:c7");
        assert_eq!(own.mount, "system_u:object_r:container_file_t:s0:c7");
        let kept = SelinuxOptions {
            kind: "other_t".to_owned(),
            ..Default::default()
        };
        let own = wanted(Some(&kept)).labels(Some(&pod)).unwrap();
        assert_eq!(own.process, "system_u:system_r:other_t:s0:c1,c2");
        assert_eq!(wanted(None).labels(Some(&pod)), Some(pod.clone()));
        assert_eq!(wanted(Some(&asked)).labels(None), None);
    }

    /// The root of such a container has its label nevertheless: by that the policy knows what is executed.
    #[test]
    fn what_is_not_kept_from_the_host_has_no_label_but_its_files_have() {
        let pod = pod();
        let asked = SelinuxOptions {
            kind: "other_t".to_owned(),
            ..Default::default()
        };
        let host_pid = NamespaceOptions {
            host_pid: true,
            ..Default::default()
        };
        let host_ipc = NamespaceOptions {
            host_ipc: true,
            ..Default::default()
        };
        let host_network = NamespaceOptions {
            host_network: true,
            ..Default::default()
        };
        let confined = "system_u:system_r:container_t:s0:c1,c2";
        let other = "system_u:system_r:other_t:s0:c1,c2";
        for (options, pod_has_options, privileged, namespaces, process) in [
            (None, false, true, NamespaceOptions::default(), ""),
            (Some(&asked), true, true, NamespaceOptions::default(), ""),
            (None, false, false, host_pid, ""),
            (None, false, false, host_ipc, ""),
            (None, true, false, host_pid, confined),
            (Some(&asked), false, false, host_ipc, other),
            (None, false, false, host_network, confined),
        ] {
            let wanted = Wanted {
                options,
                pod_has_options,
                privileged,
                namespaces,
            };
            let found = wanted.labels(Some(&pod)).unwrap();
            assert_eq!(
                (found.process.as_str(), found.mount),
                (process, pod.mount.clone())
            );
        }
    }

    #[test]
    fn a_policy_without_levels_gets_none() {
        let defaults =
            parse_defaults("process = \"u:r:container_t\"\nfile = \"u:object_r:container_file_t\"\n");
        let found = labels(None, &defaults.unwrap(), "");
        assert_eq!(found.process, "u:r:container_t");
        assert_eq!(found.mount, "u:object_r:container_file_t");
        assert_eq!(level_of(&found.process), "");
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

    /// Several programs run pods in one root.
    #[test]
    fn other_programs_pods_have_their_levels() {
        let sandboxes = tempfile::tempdir().unwrap();
        for (name, record) in [
            (
                "a",
                r#"{"id":"a","selinux":{"process":"u:r:t:s0:c1,c2","mount":"u:o:f:s0:c1,c2"}}"#,
            ),
            ("b", r#"{"id":"b","selinux":null}"#),
            ("c", r#"{"id":"c"}"#),
            ("d", "{"),
        ] {
            fs::create_dir(sandboxes.path().join(name)).unwrap();
            fs::write(sandboxes.path().join(name).join("record.json"), record).unwrap();
        }
        fs::create_dir(sandboxes.path().join("coming")).unwrap();
        let expected = BTreeSet::from(["s0:c1,c2".to_owned()]);
        assert_eq!(levels_in(sandboxes.path()), expected);
        assert_eq!(levels_in(Path::new("/no/such")), BTreeSet::new());
    }
}
