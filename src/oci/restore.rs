//! `restore`: makes a container again from what `checkpoint` wrote.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use berth_runtime::oci::{ContainerState, LinuxNamespaceType, Spec};
use berth_runtime::{
    FirstProcess, Restoring, Rootfs, StateDir, hook_state, is_bind, process_stat, run_create_runtime,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::bundle::Bundle;
use crate::checkpoint::{NULL, bound_devices, has_namespace, place, shared_namespaces};
use crate::create::{Options, check, record, undo, write_pid_file};
use crate::criu::{self, Criu, DESCRIPTORS, Directories, Message, Notification, Request, option};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::foreground::Foreground;
use crate::options::Global;
use crate::start::poststart;
use crate::{delete, terminal};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "restore",
    flags: &[
        "bundle,b=DIR",
        "image-path=DIR",
        "work-path=DIR",
        "detach,d",
        "console-socket=PATH",
        "pid-file=FILE",
        "no-subreaper",
        "no-pivot",
        "tcp-established",
        "ext-unix-sk",
        "shell-job",
        "file-locks",
        "lazy-pages",
        "manage-cgroups-mode=soft|full|strict|ignore",
        "empty-ns=network",
        "auto-dedup",
        "lsm-profile=TYPE:LABEL",
        "lsm-mount-context=CONTEXT",
    ],
    operands: (Operands::One, "ID"),
};

const LOG: &str = "restore.log";
/// Where criu finds the root file system, which it wants to be a mount: below the state directory.
const ROOT: &str = "criu-root";

/// A container that goes on.
struct Restored {
    process: FirstProcess,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
}

/// Restores a container, and waits for its end unless it is detached.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    criu::version()?;
    let options = Options::new(arguments, arguments.switch("detach")?)?;
    let mut bundle = Bundle::load(global, &options.bundle, &options.id)?;
    let state = check(global, &options, &bundle)?;
    let foreground = if options.detach {
        None
    } else {
        Some(Foreground::new()?.adopt_orphans(!arguments.switch("no-subreaper")?)?)
    };
    bundle.text = with_time_namespace(&bundle)?;
    let restored = match restore(arguments, &options, &bundle, &state) {
        Ok(restored) => restored,
        Err(failure) => {
            undo(global, state, &bundle, &failure);
            return Err(failure);
        }
    };
    let outcome = follow(global, &options, &bundle, &restored, &state, foreground);
    if (outcome.is_err() || !options.detach)
        && let Some(state) = state.lock_again()?
    {
        delete::destroy(global, state, Some(&bundle.spec))?;
    }
    outcome
}

fn follow(
    global: &Global,
    options: &Options,
    bundle: &Bundle,
    restored: &Restored,
    state: &StateDir,
    foreground: Option<Foreground>,
) -> Result<ExitCode, Failure> {
    let pid = restored.process.pid;
    if let Some(path) = &options.pid_file {
        write_pid_file(path, pid)?;
    }
    state.unlock()?;
    let told = (&bundle.spec, options.id.as_str(), bundle.path.as_path());
    poststart(global, told, pid, &restored.pidfd)?;
    match foreground {
        Some(foreground) => foreground.wait(
            nix::unistd::Pid::from_raw(pid),
            &restored.pidfd,
            restored.terminal.as_ref(),
        ),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// criu puts a container into a time namespace of its own, so that its clocks go on where they stopped: processes that
/// are added to it have to know.
fn with_time_namespace(bundle: &Bundle) -> Result<Vec<u8>, Failure> {
    if has_namespace(&bundle.spec, LinuxNamespaceType::Time) || !Path::new("/proc/self/ns/time").exists() {
        return Ok(bundle.text.clone());
    }
    let doing = || "note the time namespace".to_owned();
    let mut config: Value = serde_json::from_slice(&bundle.text)
        .map_err(std::io::Error::from)
        .attempt(doing)?;
    match &mut config["linux"]["namespaces"] {
        Value::Array(namespaces) => namespaces.push(serde_json::json!({ "type": "time" })),
        other => *other = serde_json::json!([{ "type": "time" }]),
    }
    serde_json::to_vec(&config)
        .map_err(std::io::Error::from)
        .attempt(doing)
}

fn restore(
    arguments: &Arguments,
    options: &Options,
    bundle: &Bundle,
    state: &StateDir,
) -> Result<Restored, Failure> {
    let Rootfs::Path(rootfs) = bundle.rootfs()? else {
        return Err(usage(
            "Only a root file system that is a directory can be restored.",
        ));
    };
    state.write(&record(bundle, &rootfs), &bundle.text)?;
    let spec = &bundle.spec;
    let group = Restoring::begin(&options.id, spec, &bundle.path, &rootfs, bundle.scope.as_ref())?;
    let root = state.path().join(ROOT);
    std::fs::create_dir(&root).attempt(|| format!("make {}", root.display()))?;
    let mut request = Message::default();
    // Held until criu has them.
    let _inherited = join_namespaces(spec, &mut request)?;
    let (directories, criu) = start_beside(arguments, &rootfs, &root)?;
    criu::common(arguments, &directories, LOG, &mut request)?
        .switch(option::EVASIVE_DEVICES, true)
        .switch(option::RST_SIBLING, true)
        .text(option::ROOT, &root.display().to_string())
        .text_if_any(
            option::LSM_PROFILE,
            arguments.text("lsm-profile")?.unwrap_or_default(),
        )
        .text_if_any(
            option::LSM_MOUNT_CONTEXT,
            arguments.text("lsm-mount-context")?.unwrap_or_default(),
        )
        .text_if_any(option::CONFIG_FILE, criu::configuration_file(&spec.annotations));
    for mount in spec.mounts.iter().filter(|mount| is_bind(mount)) {
        let source = bundle.path.join(&mount.source);
        request.pair(
            option::EXT_MNT,
            &place(&mount.destination),
            &source.display().to_string(),
        );
    }
    for device in bound_devices(spec).iter().map(String::as_str).chain([NULL]) {
        request.pair(option::EXT_MNT, device, device);
    }
    inherit_streams(&directories, &mut request)?;
    group.enter(criu.pid())?;
    cgroup_roots(criu.pid(), &mut request)?;
    let mut terminal = None;
    let mut told = |notification: Notification| hear(notification, options, bundle, &mut terminal);
    let pid = criu::run(criu, Request::Restore, &request, &mut told);
    let pid = pid.map_err(|e| directories.explain(e, LOG))?;
    let _ = std::fs::remove_dir(&root);
    let restored = remember(pid, spec, state, terminal);
    if restored.is_err() {
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _ = nix::sys::wait::waitpid(pid, None);
        return restored;
    }
    group.keep()?;
    restored
}

/// Remembers the process that criu made.
fn remember(pid: i32, spec: &Spec, state: &StateDir, terminal: Option<OwnedFd>) -> Result<Restored, Failure> {
    let doing = || "hold the restored process".to_owned();
    let known = rustix::process::Pid::from_raw(pid).ok_or_else(|| usage("criu told no pid."))?;
    let pidfd = rustix::process::pidfd_open(known, rustix::process::PidfdFlags::empty()).attempt(doing)?;
    let (_, start_time) = process_stat(pid).ok_or_else(|| usage("The restored process has ended."))?;
    let process = FirstProcess {
        pid,
        start_time,
        in_user_namespace: has_namespace(spec, LinuxNamespaceType::User),
    };
    state.set_process(process)?;
    Ok(Restored {
        process,
        pidfd,
        terminal,
    })
}

fn hear(
    notification: Notification,
    options: &Options,
    bundle: &Bundle,
    terminal: &mut Option<OwnedFd>,
) -> Result<(), Failure> {
    match (notification.moment.as_str(), notification.descriptor) {
        ("setup-namespaces", _) => {
            if let Some(hooks) = &bundle.spec.hooks {
                let (pid, creating) = (Some(notification.pid), ContainerState::Creating);
                let told = hook_state(&bundle.spec, &options.id, &bundle.path, pid, creating);
                run_create_runtime(hooks, &told)?;
            }
            Ok(())
        }
        ("orphan-pts-master", Some(master)) => {
            match &options.console_socket {
                Some(path) => terminal::hand_over(Some(&master), Some(path))?,
                None => *terminal = Some(master),
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Starts criu where the root file system is mounted, which is in a mount namespace of its own: nothing is left of the
/// mount whatever happens. criu's directories are opened there too, because it mounts something below them.
fn start_beside(arguments: &Arguments, rootfs: &Path, root: &Path) -> Result<(Directories, Criu), Failure> {
    let doing = || format!("mount {} for criu", rootfs.display());
    let own = File::open("/proc/self/ns/mnt").attempt(doing)?;
    let here = std::env::current_dir().attempt(doing)?;
    unshare(CloneFlags::CLONE_NEWNS).attempt(doing)?;
    let none: Option<&str> = None;
    let mounted = mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)
        .and_then(|()| mount(Some(rootfs), root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none))
        .attempt(doing);
    let started = mounted.and_then(|()| Ok((Directories::open(arguments)?, Criu::start()?)));
    setns(own, CloneFlags::CLONE_NEWNS).attempt(|| "return to the mount namespace".to_owned())?;
    // Joining a mount namespace leads to its root.
    std::env::set_current_dir(&here).attempt(|| format!("return to {}", here.display()))?;
    started
}

/// The group, in each hierarchy, that is the root of the container's groups.
fn cgroup_roots(pid: i32, request: &mut Message) -> Result<(), Failure> {
    let path = format!("/proc/{pid}/cgroup");
    let text = std::fs::read_to_string(&path).attempt(|| format!("read {path}"))?;
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        for controller in controllers.split(',') {
            request.pair(option::CG_ROOT, controller, group);
        }
    }
    Ok(())
}

/// The container's standard streams that were pipes become this process's.
fn inherit_streams(directories: &Directories, request: &mut Message) -> Result<(), Failure> {
    let path = directories.path.join(DESCRIPTORS);
    let doing = || format!("read {}", path.display());
    let text = std::fs::read(&path).attempt(doing)?;
    let names: Vec<String> = serde_json::from_slice(&text)
        .map_err(std::io::Error::from)
        .attempt(doing)?;
    for (fd, name) in (0..3).zip(names).filter(|(_, name)| name.contains("pipe:")) {
        inherit(request, &name, fd);
    }
    Ok(())
}

fn inherit(request: &mut Message, key: &str, fd: i32) {
    let mut message = Message::default();
    message.text(1, key).signed(2, fd);
    request.message(option::INHERIT_FD, &message);
}

/// Namespaces of others: those that criu takes as they are come as descriptors, others it joins by name.
fn join_namespaces(spec: &Spec, request: &mut Message) -> Result<Vec<OwnedFd>, Failure> {
    let mut held = Vec::new();
    for (path, _, key) in shared_namespaces(spec) {
        let doing = || format!("open the namespace {}", path.display());
        // Not closed at the exec of criu, which is given the number.
        let flags = rustix::fs::OFlags::RDONLY;
        let file = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).attempt(doing)?;
        inherit(request, key, file.as_raw_fd());
        held.push(file);
    }
    let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
    for namespace in namespaces.filter(|namespace| !namespace.path.as_os_str().is_empty()) {
        let name = match namespace.typ {
            LinuxNamespaceType::Network | LinuxNamespaceType::Pid => continue,
            LinuxNamespaceType::Mount => "mnt",
            LinuxNamespaceType::Cgroup => {
                return Err(usage(
                    "A container in another's cgroup namespace can't be restored: criu does not know how.",
                ));
            }
            other => other.name(),
        };
        request.pair(option::JOIN_NS, name, &namespace.path.display().to_string());
    }
    Ok(held)
}
