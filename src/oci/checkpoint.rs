//! `checkpoint`: writes a container to files, from which `restore` makes it again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_runtime::cgroups::Cgroup;
use berth_runtime::is_bind;
use berth_runtime::oci::{ContainerState, LinuxNamespaceType, Spec};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::criu::{self, Criu, DESCRIPTORS, Directories, Message, Notification, Request, option};
use crate::dump::{NETWORK_KEY, PID_KEY};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::options::Global;
use crate::{delete, start};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "checkpoint",
    flags: &[
        "image-path=DIR",
        "work-path=DIR",
        "parent-path=DIR",
        "leave-running",
        "pre-dump",
        "lazy-pages",
        "status-fd=N",
        "page-server=ADDRESS:PORT",
        "tcp-established",
        "tcp-skip-in-flight",
        "link-remap",
        "ext-unix-sk",
        "shell-job",
        "file-locks",
        "manage-cgroups-mode=soft|full|strict|ignore",
        "empty-ns=network",
        "auto-dedup",
    ],
    operands: (Operands::One, "ID"),
};

pub(crate) const LOG: &str = "dump.log";

/// Has criu write the container. It is deleted then, unless it is to go on.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let state = start::open(global, id)?;
    let record = state.record()?;
    let pid = match (state.status().0, record.process) {
        (ContainerState::Running, Some(process)) => process.pid,
        (status, _) => {
            return Err(usage(format!(
                "The container {id} can't be checkpointed: it is {status}."
            )));
        }
    };
    let (pre_dump, lazy) = (arguments.switch("pre-dump")?, arguments.switch("lazy-pages")?);
    let leave_running = arguments.switch("leave-running")?;
    let version = criu::version()?;
    if pre_dump || lazy {
        criu::require(pre_dump, lazy)?;
    }
    let spec = state.config()?;
    let directories = Directories::open(arguments)?;
    let mut options = Message::default();
    criu::common(arguments, &directories, LOG, &mut options)?
        .signed(option::PID, pid)
        .text(option::ROOT, &record.rootfs.display().to_string())
        .text_if_any(option::CONFIG_FILE, criu::configuration_file(&spec.annotations));
    if let Some(freezer) = Cgroup::open(&record.cgroup)?.and_then(|cgroup| cgroup.freezer_path()) {
        options.text(option::FREEZE_CGROUP, &freezer.display().to_string());
    }
    parent(arguments, &directories, &mut options)?;
    page_server(arguments, &mut options)?;
    external_namespaces(&spec, &mut options)?;
    if !pre_dump {
        external_mounts(&spec, pid, &mut options);
        remember_streams(pid, &directories)?;
    }
    let status = status_descriptor(arguments)?;
    let request = match pre_dump {
        false => Request::Dump,
        true if version >= criu::SINGLE_PRE_DUMP => Request::SinglePreDump,
        true => Request::PreDump,
    };
    let mut told = |notification: Notification| match (notification.moment.as_str(), &status) {
        ("status-ready", Some(path)) => {
            std::fs::write(path, [0]).attempt(|| "write to --status-fd".to_owned())
        }
        _ => Ok(()),
    };
    criu::run(Criu::start()?, request, &options, &mut told).map_err(|e| directories.explain(e, LOG))?;
    if !(leave_running || pre_dump) {
        delete::destroy(global, state, Some(&spec))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The images that were written before, relative to where these go.
fn parent(arguments: &Arguments, directories: &Directories, options: &mut Message) -> Result<(), Failure> {
    let Some(parent) = arguments.text("parent-path")? else {
        return Ok(());
    };
    if Path::new(parent).is_absolute() || !directories.path.join(parent).is_dir() {
        return Err(usage(format!(
            "--parent-path is {parent:?}, which is no directory relative to --image-path."
        )));
    }
    options
        .text(option::PARENT_IMG, parent)
        .switch(option::TRACK_MEM, true);
    Ok(())
}

fn page_server(arguments: &Arguments, options: &mut Message) -> Result<(), Failure> {
    let Some(server) = arguments.text("page-server")? else {
        return Ok(());
    };
    let parsed = server
        .rsplit_once(':')
        .and_then(|(address, port)| Some((address, port.parse::<u16>().ok()?)));
    let (address, port) = parsed
        .filter(|(address, _)| !address.is_empty())
        .ok_or_else(|| usage(format!("--page-server is {server:?}, not ADDRESS:PORT.")))?;
    let mut message = Message::default();
    message
        .text(1, address.trim_matches(['[', ']']))
        .number(2, port.into());
    options.message(option::PAGE_SERVER, &message);
    Ok(())
}

/// Networks and process ids that the container shares with others are not written, but found again by a name.
fn external_namespaces(spec: &Spec, options: &mut Message) -> Result<(), Failure> {
    for (path, name, key) in shared_namespaces(spec) {
        let inode = std::fs::metadata(path)
            .attempt(|| format!("look at {}", path.display()))?
            .ino();
        options.text(option::EXTERNAL, &format!("{name}[{inode}]:{key}"));
    }
    Ok(())
}

/// The namespaces that criu takes as they are: the file, criu's name for the kind, and the name that it is found by.
pub(crate) fn shared_namespaces(spec: &Spec) -> Vec<(&Path, &'static str, &'static str)> {
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    let known = |kind| match kind {
        LinuxNamespaceType::Network => Some(("net", NETWORK_KEY)),
        LinuxNamespaceType::Pid => Some(("pid", PID_KEY)),
        _ => None,
    };
    let shared = namespaces.filter(|namespace| !namespace.path.as_os_str().is_empty());
    shared
        .filter_map(|n| known(n.typ).map(|(name, key)| (n.path.as_path(), name, key)))
        .collect()
}

/// What is mounted from the host is not written either: each such mount is named by where it is mounted.
pub(crate) fn external_mounts(spec: &Spec, pid: i32, options: &mut Message) {
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        let place = place(&mount.destination);
        options.pair(option::EXT_MNT, &place, &place);
    }
    for device in bound_devices(spec) {
        options.pair(option::EXT_MNT, &device, &device);
    }
    if has_namespace(spec, LinuxNamespaceType::User) {
        // There the null device that covers files is the host's too.
        let masked = spec.linux.iter().flat_map(|linux| &linux.masked_paths);
        for path in masked.filter(|path| {
            Path::new(&format!("/proc/{pid}/root/{path}"))
                .metadata()
                .is_ok_and(|m| !m.is_dir())
        }) {
            options.pair(option::EXT_MNT, &place(Path::new(path)), NULL);
        }
    }
}

/// The host's null device, and the name of mounts of it.
pub(crate) const NULL: &str = "/dev/null";

/// In a user namespace no device can be made: those of the host are mounted.
pub(crate) fn bound_devices(spec: &Spec) -> Vec<String> {
    if !has_namespace(spec, LinuxNamespaceType::User) {
        return Vec::new();
    }
    let usual = ["null", "zero", "full", "random", "urandom", "tty"].map(|name| format!("/dev/{name}"));
    let more = spec
        .linux
        .iter()
        .flat_map(|linux| &linux.devices)
        .map(|device| place(&device.path));
    let mut all: Vec<String> = usual.into_iter().chain(more).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether the container has a namespace of that kind, new or joined.
pub(crate) fn has_namespace(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let mut namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    namespaces.any(|namespace| namespace.typ == kind)
}

/// A mount's place as criu writes it.
pub(crate) fn place(destination: &Path) -> String {
    let path: PathBuf = Path::new("/").join(destination).components().collect();
    path.display().to_string()
}

/// Pipes that the container has as standard streams are replaced by the restorer's.
pub(crate) fn remember_streams(pid: i32, directories: &Directories) -> Result<(), Failure> {
    let name = |fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    let names: Vec<PathBuf> = (0..3).map(name).collect();
    let path = directories.path.join(DESCRIPTORS);
    let text = serde_json::to_vec(&names).map_err(std::io::Error::from);
    text.and_then(|text| std::fs::write(&path, text))
        .attempt(|| format!("write {}", path.display()))
}

/// The descriptor that is told when the server of pages is ready, by a name that it can be opened with.
fn status_descriptor(arguments: &Arguments) -> Result<Option<PathBuf>, Failure> {
    let Some(number) = arguments
        .number::<i32>("status-fd")?
        .filter(|number| *number >= 0)
    else {
        return Ok(None);
    };
    let path = PathBuf::from(format!("/proc/self/fd/{number}"));
    let file = std::fs::OpenOptions::new().write(true).open(&path);
    file.attempt(|| format!("write to --status-fd {number}"))
        .map(|_| Some(path))
}
