//! `create`: everything up to the program.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_runtime::{CreateArgs, Created, FirstProcess, JoinedNamespaces, Record, StateDir, Stdio};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::bundle::Bundle;
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::notify::Notify;
use crate::options::Global;
use crate::{activation, delete, handover, log, terminal, time};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "create",
    flags: &[
        "bundle,b=DIR",
        "console-socket=PATH",
        "pidfd-socket=PATH",
        "pid-file=FILE",
        "no-pivot",
        "no-new-keyring",
        "preserve-fds=N",
    ],
    operands: (Operands::One, "ID"),
};

/// The options that `create` and `run` share.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) id: String,
    pub(crate) bundle: PathBuf,
    pub(crate) console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    /// Sockets of the caller's service manager, which are the first descriptors after the standard streams.
    listen_fds: u32,
    preserve_fds: u32,
    no_pivot: bool,
    new_keyring: bool,
    /// Don't wait for the end.
    pub(crate) detach: bool,
}

impl Options {
    /// What `arguments` ask for.
    pub(crate) fn new(arguments: &Arguments, detach: bool) -> Result<Options, Failure> {
        let (listen_fds, preserve_fds) = (activation::listen_fds(), arguments.number("preserve-fds")?);
        Ok(Options {
            id: arguments.id()?.to_owned(),
            bundle: arguments.path("bundle").unwrap_or_else(|| PathBuf::from(".")),
            console_socket: arguments.path("console-socket"),
            pidfd_socket: arguments.path("pidfd-socket"),
            pid_file: arguments.path("pid-file"),
            listen_fds,
            preserve_fds: preserve_fds.unwrap_or(0_u32).saturating_add(listen_fds),
            no_pivot: arguments.switch("no-pivot")?,
            new_keyring: !arguments.switch("no-new-keyring")?,
            detach,
        })
    }
}

/// Creates a container that waits for `start`.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let options = Options::new(arguments, true)?;
    let mut bundle = Bundle::load(global, &options.bundle, &options.id)?;
    let state = check(global, &options, &bundle)?;
    let created = prepare(&options, &mut bundle, &state).and_then(|notify| {
        drop(notify);
        create(global, &options, &bundle, &state, true)
    });
    let detached = match created {
        Ok(created) => created.detach().map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match detached {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => {
            undo(global, state, &bundle, &failure);
            Err(failure)
        }
    }
}

/// Checks what can be checked by looking, and takes the id.
pub(crate) fn check(global: &Global, options: &Options, bundle: &Bundle) -> Result<StateDir, Failure> {
    terminal::check_socket(
        bundle.terminal(),
        options.console_socket.as_deref(),
        options.detach,
    )?;
    activation::check(options.preserve_fds)?;
    Ok(global.root.create(&options.id)?)
}

/// Adds to the configuration what comes from the caller's environment.
pub(crate) fn prepare(
    options: &Options,
    bundle: &mut Bundle,
    state: &StateDir,
) -> Result<Option<Notify>, Failure> {
    if options.listen_fds > 0
        && let Some(process) = &mut bundle.spec.process
    {
        // The program has the pid 1.
        process.env.push(format!("LISTEN_FDS={}", options.listen_fds));
        process.env.push("LISTEN_PID=1".to_owned());
    }
    let notify = Notify::from_environment(state);
    if let Some(notify) = &notify {
        notify.prepare(&mut bundle.spec)?;
    }
    Ok(notify)
}

/// Creates the container and remembers it: before anything of it exists, and again with its process.
pub(crate) fn create(
    global: &Global,
    options: &Options,
    bundle: &Bundle,
    state: &StateDir,
    listen: bool,
) -> Result<Created, Failure> {
    let rootfs = bundle.rootfs()?;
    let directory = match &rootfs {
        berth_runtime::Rootfs::Path(path) => path.as_path(),
        berth_runtime::Rootfs::Overlay { .. } => Path::new(""),
    };
    state.write(&record(bundle, directory), &bundle.text)?;
    let listener: Option<OwnedFd> = if listen { Some(state.listen()?) } else { None };
    let (width, height) = bundle.terminal_size();
    let mut created = berth_runtime::create(CreateArgs {
        id: &options.id,
        bundle: &bundle.path,
        spec: &bundle.spec,
        rootfs,
        stdio: if bundle.terminal() {
            Stdio::Terminal {
                width,
                height,
                carriage_returns: options.console_socket.is_some(),
            }
        } else {
            Stdio::Inherit
        },
        scope: bundle.scope.as_ref(),
        namespaces: JoinedNamespaces::default(),
        sources: None,
        preserve_fds: options.preserve_fds,
        no_pivot: options.no_pivot,
        new_keyring: options.new_keyring,
        find_program_now: true,
        listener,
    })?;
    for warning in &created.warnings {
        log::warning(global, warning);
    }
    match announce(options, state, &mut created) {
        Ok(()) => Ok(created),
        Err(failure) => {
            abandon(created);
            Err(failure)
        }
    }
}

/// What is remembered of a container before it is made by this process.
pub(crate) fn record(bundle: &Bundle, rootfs: &Path) -> Record {
    Record {
        bundle: bundle.path.clone(),
        rootfs: rootfs.to_owned(),
        cgroup: bundle.cgroup().to_owned(),
        scope: bundle.scope.clone(),
        created: time::now(),
        creator: std::process::id(),
        process: None,
    }
}

/// Remembers the container's process, and tells the caller of it in the ways that it asked for.
fn announce(options: &Options, state: &StateDir, created: &mut Created) -> Result<(), Failure> {
    let pid = created.pid.as_raw();
    let start_time = created
        .start_time
        .ok_or_else(|| usage("The container's process ended before it was started."))?;
    state.set_process(FirstProcess {
        pid,
        start_time,
        in_user_namespace: created.in_user_namespace,
    })?;
    if let Some(path) = &options.console_socket {
        terminal::hand_over(created.terminal.take().as_ref(), Some(path))?;
    }
    if let Some(path) = &options.pidfd_socket {
        handover::send_process(path, &created.pidfd)?;
    }
    match &options.pid_file {
        Some(path) => write_pid_file(path, pid),
        None => Ok(()),
    }
}

/// Ends a container that was not started.
fn abandon(created: Created) {
    let _ = rustix::process::pidfd_send_signal(&created.pidfd, rustix::process::Signal::KILL);
    let _ = nix::sys::wait::waitpid(created.pid, None);
    // Why it is abandoned matters more than a group that stays.
    let _ = created.cgroup.delete();
}

/// Forgets a container that did not come to be. What went wrong matters more than what can't be cleaned up after it.
/// What hooks did before that, others may undo.
pub(crate) fn undo(global: &Global, state: StateDir, bundle: &Bundle, failure: &Failure) {
    if state.process().is_none() {
        // The library left nothing.
        let id = state.id().to_owned();
        let _ = state.remove();
        if failure.had_begun {
            delete::poststop(global, &bundle.spec, &id, &bundle.path);
        }
        return;
    }
    if let Err(failure) = delete::destroy(global, state, Some(&bundle.spec)) {
        log::warning(global, &failure.message);
    }
}

/// Writes a pid file in one step.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<(), Failure> {
    let doing = || format!("write the pid file {}", path.display());
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = std::fs::File::create(&new).attempt(doing)?;
    let written = file.write_all(pid.to_string().as_bytes());
    let renamed = written.and_then(|()| std::fs::rename(&new, path));
    renamed
        .attempt(doing)
        .inspect_err(|_| drop(std::fs::remove_file(&new)))
}
