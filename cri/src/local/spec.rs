//! From a container as it is asked for to an OCI `config.json`: a pure function of the request, the image and the
//! sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use berth_runtime::clean_path;
use serde_json::{Map, Value, json};

use super::devices::Devices;
use super::privileges::{self, CapabilitySets};
use super::resources::{Host, effective};
use super::selinux::SelinuxLabels;
use super::users::Identity;
use crate::engine::EngineError;
use crate::types::{ContainerConfig, LinuxContainerResources, Mount};

/// What a process finds its programs by, unless the image or the pod says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of an image's configuration becomes part of a container.
#[derive(Clone, Debug, Default)]
pub(crate) struct ImageDefaults {
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) working_dir: String,
}

/// Everything that a container's spec depends on.
pub(crate) struct SpecInput<'a> {
    pub(crate) config: &'a ContainerConfig,
    pub(crate) image: &'a ImageDefaults,
    pub(crate) identity: &'a Identity,
    /// As the driver that makes cgroups has it.
    pub(crate) cgroups_path: &'a str,
    pub(crate) hostname: &'a str,
    /// The shim's directory, which holds `shm`, `resolv.conf` and `hostname`.
    pub(crate) sandbox_run: &'a Path,
    /// The capabilities that the engine itself could have.
    pub(crate) bounding: &'a BTreeSet<String>,
    /// What it has of the host's devices.
    pub(crate) devices: Devices,
    /// What of the host decides about its limits.
    pub(crate) host: Host,
    /// The AppArmor profile of its programs.
    pub(crate) apparmor: Option<String>,
    /// Where SELinux is in use.
    pub(crate) selinux: Option<SelinuxLabels>,
    /// The container's own mounts, prepared.
    pub(crate) mounts: &'a [Value],
}

/// Makes the spec.
pub(crate) fn build(input: &SpecInput<'_>) -> Result<Value, EngineError> {
    let security = &input.config.security;
    let capabilities = privileges::capability_sets(security, input.bounding)?;
    let seccomp = privileges::seccomp(security, &capabilities.given)?;
    let (masked, readonly) = privileges::hidden_paths(security);
    let mut linux = json!({
        "cgroupsPath": input.cgroups_path,
        "namespaces": namespaces(input.config),
        "resources": resources(input),
        "devices": input.devices.nodes,
        "maskedPaths": masked,
        "readonlyPaths": readonly,
    });
    if let Some(seccomp) = seccomp {
        linux["seccomp"] = seccomp;
    }
    let mut process = process(input, &capabilities)?;
    if let Some(profile) = &input.apparmor {
        process["apparmorProfile"] = json!(profile);
    }
    if let Some(labels) = &input.selinux {
        if !labels.process.is_empty() {
            process["selinuxLabel"] = json!(labels.process);
        }
        linux["mountLabel"] = json!(labels.mount);
    }
    Ok(json!({
        "ociVersion": "1.2.0",
        // The runtime takes the root file system from its caller; the name only has to be there.
        "root": { "path": "rootfs", "readonly": security.readonly_rootfs },
        "process": process,
        "mounts": mounts(input),
        "annotations": input.config.annotations,
        "linux": linux,
    }))
}

fn process(input: &SpecInput<'_>, capabilities: &CapabilitySets) -> Result<Value, EngineError> {
    let config = input.config;
    let working_dir = [&config.working_dir, &input.image.working_dir]
        .into_iter()
        .find(|dir| !dir.is_empty());
    Ok(json!({
        "terminal": config.tty,
        "user": {
            "uid": input.identity.uid,
            "gid": input.identity.gid,
            "additionalGids": input.identity.additional_gids,
        },
        "args": arguments(config, input.image)?,
        "env": environment(input),
        "cwd": working_dir.map_or("/", String::as_str),
        "capabilities": {
            "bounding": capabilities.given,
            "effective": capabilities.given,
            "permitted": capabilities.given,
            "inheritable": capabilities.ambient,
            "ambient": capabilities.ambient,
        },
        "noNewPrivileges": config.security.no_new_privs,
        "oomScoreAdj": config.resources.oom_score_adj,
    }))
}

/// Kubernetes' rule: `command` replaces the image's entrypoint and its command, `args` only its command.
fn arguments(config: &ContainerConfig, image: &ImageDefaults) -> Result<Vec<String>, EngineError> {
    let (entrypoint, command) = match (config.command.is_empty(), config.args.is_empty()) {
        (false, _) => (&config.command, &config.args),
        (true, false) => (&image.entrypoint, &config.args),
        (true, true) => (&image.entrypoint, &image.command),
    };
    let arguments: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if arguments.is_empty() {
        return Err(EngineError::InvalidArgument(format!(
            "The image {} names no program to run; set the container's command.",
            config.user_specified_image
        )));
    }
    Ok(arguments)
}

/// The image's variables, then the pod's; the last of a name wins and keeps the first one's place.
fn environment(input: &SpecInput<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |name: &str, value: &str| {
        if values.insert(name.to_owned(), value.to_owned()).is_none() {
            names.push(name.to_owned());
        }
    };
    set("PATH", DEFAULT_PATH);
    set("HOSTNAME", input.hostname);
    if let Some(home) = &input.identity.home {
        set("HOME", home);
    }
    if input.config.tty {
        set("TERM", "xterm");
    }
    for variable in &input.image.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        set(name, value);
    }
    for (name, value) in &input.config.envs {
        set(name, value);
    }
    names
        .into_iter()
        .map(|name| format!("{name}={}", values[&name]))
        .collect()
}

/// The namespaces that are the container's own. Those of the pod are joined by the shim.
fn namespaces(config: &ContainerConfig) -> Value {
    let mut namespaces = vec![json!({ "type": "mount" })];
    let joins = config.namespaces.host_pid || config.namespaces.shared_pid || config.pid_target.is_some();
    if !joins {
        namespaces.push(json!({ "type": "pid" }));
    }
    if !config.security.privileged {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    Value::Array(namespaces)
}

fn mounts(input: &SpecInput<'_>) -> Vec<Value> {
    let privileged = input.config.security.privileged;
    let system = if privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", system]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", system],
        ),
    ];
    let taken = |path: &str| {
        let path = Path::new(path);
        let by = |mount: &Mount| clean_path(&mount.container_path) == path;
        input.config.mounts.iter().any(by)
    };
    let dev = taken("/dev");
    // A mount that is asked for takes the place of the usual one; on a whole /dev nothing is put from within.
    mounts.retain(|mount| {
        let path = mount["destination"].as_str().unwrap_or_default();
        !(taken(path) || dev && path.starts_with("/dev/"))
    });
    let shm = if input.config.namespaces.host_ipc {
        PathBuf::from("/dev/shm")
    } else {
        input.sandbox_run.join("shm")
    };
    let access = if input.config.security.readonly_rootfs {
        "ro"
    } else {
        "rw"
    };
    let of_pod = |target, name| {
        let source = input.sandbox_run.join(name);
        mount(
            target,
            "bind",
            &source.to_string_lossy(),
            &["rbind", "rprivate", access],
        )
    };
    let shm_options = ["rbind", "nosuid", "noexec", "nodev", "rw"];
    let mut own = vec![
        mount("/dev/shm", "bind", &shm.to_string_lossy(), &shm_options),
        of_pod("/etc/resolv.conf", "resolv.conf"),
        of_pod("/etc/hostname", "hostname"),
        of_pod("/etc/hosts", "hosts"),
    ];
    own.retain(|mount| !taken(mount["destination"].as_str().unwrap_or_default()));
    let mut asked = input.mounts.to_vec();
    asked.extend(own);
    // None hides one that belongs below it, in whatever order they come.
    asked.sort_by_key(|mount| depth(mount["destination"].as_str().unwrap_or_default()));
    mounts.extend(asked);
    mounts
}

fn depth(path: &str) -> usize {
    clean_path(Path::new(path)).components().count()
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// The OCI `linux.resources` object of a container's limits.
pub(crate) fn limits(resources: &LinuxContainerResources) -> Map<String, Value> {
    let mut cpu = Map::new();
    insert(&mut cpu, "shares", resources.cpu_shares);
    insert(&mut cpu, "quota", resources.cpu_quota);
    insert(&mut cpu, "period", resources.cpu_period);
    insert(&mut cpu, "cpus", resources.cpuset_cpus.as_ref());
    insert(&mut cpu, "mems", resources.cpuset_mems.as_ref());
    let mut memory = Map::new();
    insert(&mut memory, "limit", resources.memory_limit);
    insert(&mut memory, "swap", resources.memory_swap_limit);
    let mut limits = Map::new();
    for (name, object) in [("cpu", cpu), ("memory", memory)] {
        if !object.is_empty() {
            limits.insert(name.to_owned(), Value::Object(object));
        }
    }
    insert(
        &mut limits,
        "pids",
        resources.pids_limit.map(|limit| json!({ "limit": limit })),
    );
    if !resources.hugepage_limits.is_empty() {
        let pages = resources.hugepage_limits.iter();
        let pages: Vec<Value> = pages
            .map(|(size, limit)| json!({ "pageSize": size, "limit": limit }))
            .collect();
        limits.insert("hugepageLimits".to_owned(), Value::Array(pages));
    }
    if !resources.unified.is_empty() {
        insert(&mut limits, "unified", Some(&resources.unified));
    }
    limits
}

fn resources(input: &SpecInput<'_>) -> Value {
    let mut limits = limits(&effective(&input.config.resources, input.host));
    let mut rules = privileges::device_rules(input.devices.everything);
    rules.extend(input.devices.rules.iter().cloned());
    limits.insert("devices".to_owned(), Value::Array(rules));
    Value::Object(limits)
}

fn insert<T: serde::Serialize>(object: &mut Map<String, Value>, name: &str, value: Option<T>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ContainerSecurity, NamespaceOptions};

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn build_with(config: &ContainerConfig) -> Value {
        let asked = |mount: &Mount| json!({ "destination": mount.container_path, "type": "bind" });
        let mounts: Vec<Value> = config.mounts.iter().map(asked).collect();
        let image = ImageDefaults {
            entrypoint: strings(&["/entry"]),
            command: strings(&["serve"]),
            env: strings(&["PATH=/bin", "A=image", "B=image"]),
            working_dir: "/srv".into(),
        };
        let input = SpecInput {
            config,
            image: &image,
            identity: &Identity::default(),
            cgroups_path: "/kubepods/podx/c",
            hostname: "web",
            sandbox_run: Path::new("/run/berth/sandboxes/s"),
            bounding: &BTreeSet::from(["CAP_CHOWN".to_owned(), "CAP_SYS_ADMIN".to_owned()]),
            devices: Devices::default(),
            host: Host {
                swap: true,
                huge_pages: true,
            },
            apparmor: None,
            selinux: None,
            mounts: &mounts,
        };
        build(&input).unwrap()
    }

    #[test]
    fn command_and_args_replace_the_images() {
        let image = ImageDefaults {
            entrypoint: strings(&["e"]),
            command: strings(&["c"]),
            ..Default::default()
        };
        let table: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["e", "c"]),
            (&[], &["a"], &["e", "a"]),
            (&["x"], &[], &["x"]),
            (&["x"], &["a"], &["x", "a"]),
        ];
        for (command, args, expected) in table {
            let config = ContainerConfig {
                command: strings(command),
                args: strings(args),
                ..Default::default()
            };
            assert_eq!(arguments(&config, &image).unwrap(), strings(expected));
        }
        let error = arguments(&ContainerConfig::default(), &ImageDefaults::default()).unwrap_err();
        assert!(error.to_string().contains("names no program"), "{error}");
    }

    #[test]
    fn the_pods_variables_win_over_the_images() {
        let config = ContainerConfig {
            envs: vec![("B".into(), "pod".into())],
            ..Default::default()
        };
        let env = &build_with(&config)["process"]["env"];
        assert_eq!(*env, json!(["PATH=/bin", "HOSTNAME=web", "A=image", "B=pod"]));
    }

    #[test]
    fn a_plain_container_is_confined() {
        let security = ContainerSecurity {
            masked_paths: vec!["/proc/kcore".into()],
            readonly_paths: vec!["/proc/sys".into()],
            ..Default::default()
        };
        let spec = build_with(&ContainerConfig {
            security,
            ..Default::default()
        });
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(
            spec["linux"]["resources"]["devices"],
            json!([{ "allow": false, "access": "rwm" }])
        );
        assert_eq!(
            spec["linux"]["namespaces"],
            json!([{ "type": "mount" }, { "type": "pid" }, { "type": "cgroup" }])
        );
        assert_eq!(spec["linux"]["maskedPaths"], json!(["/proc/kcore"]));
        assert_eq!(spec["linux"]["readonlyPaths"], json!(["/proc/sys"]));
        assert_eq!(spec["process"]["cwd"], "/srv");
        assert_eq!(spec["linux"]["cgroupsPath"], "/kubepods/podx/c");
    }

    #[test]
    fn a_privileged_container_is_not() {
        let security = ContainerSecurity {
            privileged: true,
            masked_paths: vec!["/proc/kcore".into()],
            ..Default::default()
        };
        let namespaces = NamespaceOptions {
            host_pid: true,
            ..Default::default()
        };
        let spec = build_with(&ContainerConfig {
            security,
            namespaces,
            ..Default::default()
        });
        assert_eq!(
            spec["process"]["capabilities"]["bounding"],
            json!(["CAP_CHOWN", "CAP_SYS_ADMIN"])
        );
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        assert_eq!(spec["linux"]["namespaces"], json!([{ "type": "mount" }]));
    }

    fn destinations(paths: &[&str]) -> Vec<String> {
        let mount = |path: &&str| Mount {
            container_path: path.into(),
            ..Default::default()
        };
        let spec = build_with(&ContainerConfig {
            mounts: paths.iter().map(mount).collect(),
            ..Default::default()
        });
        let mounts = spec["mounts"].as_array().unwrap();
        mounts
            .iter()
            .map(|mount| mount["destination"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_mount_of_the_pod_replaces_the_engines() {
        let all = destinations(&["/dev/shm", "/sys/", "/etc/../etc/hosts"]);
        for (path, count) in [
            ("/dev/shm", 1),
            ("/sys", 0),
            ("/sys/", 1),
            ("/etc/hosts", 0),
            ("/dev", 1),
        ] {
            assert_eq!(
                all.iter().filter(|found| *found == path).count(),
                count,
                "{path}: {all:?}"
            );
        }
        let own_dev = destinations(&["/dev"]);
        assert!(!own_dev.contains(&"/dev/pts".to_owned()), "{own_dev:?}");
    }

    #[test]
    fn no_mount_hides_another() {
        let all = destinations(&["/a/b/c", "/etc", "/a", "/a/b", "/b"]);
        let expected = [
            "/etc",
            "/a",
            "/b",
            "/a/b",
            "/dev/shm",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/etc/hosts",
            "/a/b/c",
        ];
        assert_eq!(all[all.len() - expected.len()..], expected);
    }

    #[test]
    fn limits_that_are_not_asked_for_are_not_there() {
        assert!(limits(&LinuxContainerResources::default()).is_empty());
        let some = LinuxContainerResources {
            cpu_shares: Some(102),
            memory_limit: Some(1 << 20),
            pids_limit: Some(5),
            ..Default::default()
        };
        let expected =
            json!({ "cpu": { "shares": 102 }, "memory": { "limit": 1 << 20 }, "pids": { "limit": 5 } });
        assert_eq!(Value::Object(limits(&some)), expected);
    }
}
