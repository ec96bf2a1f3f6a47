//! `exec`: one more process in a running container.

use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::{self, ContainerState, Process, Spec};
use berth_runtime::{ExecTarget, Stdio, exec};
use lexopt::Arg;

use crate::create::write_pid_file;
use crate::failure::{Attempt, Failure, usage};
use crate::foreground::Foreground;
use crate::options::{Global, flag, number, text};
use crate::{log, terminal};

/// The command line.
#[derive(Debug, Default)]
struct Options {
    id: String,
    args: Vec<String>,
    terminal: bool,
    detach: bool,
    env: Vec<String>,
    user: Option<String>,
    groups: Vec<u32>,
    cwd: Option<PathBuf>,
    process: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    preserve_fds: u32,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    ignore_paused: bool,
}

/// Starts a process, and exits as it does unless it is detached.
pub(crate) fn main(global: &Global, parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let options = parse(parser)?;
    let state = global.root.open(&options.id)?;
    let record = state.record()?;
    let (status, pidfd) = state.status();
    let pidfd = match (status, pidfd) {
        (ContainerState::Running | ContainerState::Created, Some(pidfd)) => pidfd,
        _ => {
            return Err(usage(format!(
                "The container {} can't take a process: it is {status}.",
                options.id
            )));
        }
    };
    let spec = state.config()?;
    let process = process(&options, &spec)?;
    let has_terminal = process.terminal;
    terminal::check_socket(has_terminal, options.console_socket.as_deref(), options.detach)?;
    let cgroup = Cgroup::open(&record.cgroup)?;
    let cgroup = cgroup.ok_or_else(|| usage(format!("The container {} has no cgroup.", options.id)))?;
    if !options.ignore_paused && cgroup.is_frozen()? {
        return Err(usage(format!(
            "The container {} is paused; resume it first.",
            options.id
        )));
    }
    let filter = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let filter = filter
        .map(berth_runtime::seccomp::compile)
        .transpose()
        .map_err(|e| usage(e.to_string()))?;
    let target = ExecTarget {
        id: &options.id,
        pidfd: std::os::fd::AsFd::as_fd(&pidfd),
        spec: &spec,
        in_user_namespace: record.process.is_some_and(|process| process.in_user_namespace),
        cgroup: &cgroup,
        seccomp: filter.as_ref(),
        subgroup: None,
    };
    drop(state);
    run(global, &options, &target, &process)
}

fn run(
    global: &Global,
    options: &Options,
    target: &ExecTarget<'_>,
    process: &Process,
) -> Result<ExitCode, Failure> {
    let foreground = if options.detach {
        None
    } else {
        Some(Foreground::new()?)
    };
    let size = process.console_size.as_ref();
    let short = |n: u64| u16::try_from(n).unwrap_or(0);
    let stdio = if process.terminal {
        let (width, height) = size.map_or((0, 0), |size| (short(size.width), short(size.height)));
        Stdio::Terminal { width, height }
    } else {
        Stdio::Inherit
    };
    let mut execed = exec(target, process, stdio, options.preserve_fds)?;
    for warning in &execed.warnings {
        log::warning(global, warning);
    }
    if let Some(path) = &options.pid_file {
        write_pid_file(path, execed.pid.as_raw())?;
    }
    if options.console_socket.is_some() {
        terminal::hand_over(execed.terminal.as_ref(), options.console_socket.as_deref())?;
        execed.terminal = None;
    }
    match foreground {
        Some(foreground) => foreground.wait(execed.pid, &execed.pidfd, execed.terminal.as_ref()),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Options, Failure> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("tty") | Arg::Short('t') => options.terminal = flag(&mut parser)?,
            Arg::Long("detach") | Arg::Short('d') => options.detach = flag(&mut parser)?,
            Arg::Long("env") | Arg::Short('e') => options.env.push(text(parser.value()?)?),
            Arg::Long("user") | Arg::Short('u') => options.user = Some(text(parser.value()?)?),
            Arg::Long("additional-gids") | Arg::Short('g') => options.groups.push(number(&mut parser)?),
            Arg::Long("cwd") => options.cwd = Some(parser.value()?.into()),
            Arg::Long("process") | Arg::Short('p') => options.process = Some(parser.value()?.into()),
            Arg::Long("console-socket") => options.console_socket = Some(parser.value()?.into()),
            Arg::Long("pid-file") => options.pid_file = Some(parser.value()?.into()),
            Arg::Long("preserve-fds") => options.preserve_fds = number(&mut parser)?,
            Arg::Long("cap") | Arg::Short('c') => options.capabilities.push(text(parser.value()?)?),
            Arg::Long("no-new-privs") => options.no_new_privileges = flag(&mut parser)?,
            Arg::Long("ignore-paused") => options.ignore_paused = flag(&mut parser)?,
            Arg::Value(id) => {
                options.id = text(id)?;
                // What follows is the program's, whatever it looks like.
                options.args = parser.raw_args()?.map(text).collect::<Result<_, _>>()?;
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if options.id.is_empty() {
        return Err(usage("The container's id is missing."));
    }
    Ok(options)
}

/// The process to run: that of the file, or the container's own with another command.
fn process(options: &Options, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = &options.process {
        let text = std::fs::read(path).attempt(|| format!("read {}", path.display()))?;
        return oci::from_slice(&text)
            .map_err(|e| usage(format!("The process in {} is not valid: {e}.", path.display())));
    }
    if options.args.is_empty() {
        return Err(usage("The command to run is missing."));
    }
    let mut process = spec
        .process
        .clone()
        .ok_or_else(|| usage("The container's configuration has no process."))?;
    process.args.clone_from(&options.args);
    process.terminal = options.terminal;
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    process.no_new_privileges |= options.no_new_privileges;
    process.env.extend(options.env.iter().cloned());
    set_user(&mut process, options)?;
    add_capabilities(&mut process, &options.capabilities);
    Ok(process)
}

fn set_user(process: &mut Process, options: &Options) -> Result<(), Failure> {
    if let Some(text) = &options.user {
        let (uid, gid) = text
            .split_once(':')
            .map_or((text.as_str(), None), |(uid, gid)| (uid, Some(gid)));
        let id = |text: &str| {
            text.parse()
                .map_err(|_| usage(format!("{text:?} is not a numeric user or group id.")))
        };
        process.user.uid = id(uid)?;
        if let Some(gid) = gid {
            process.user.gid = id(gid)?;
        }
    }
    if !options.groups.is_empty() {
        process.user.additional_gids.clone_from(&options.groups);
    }
    Ok(())
}

/// Adds capabilities to all sets but the inheritable and the ambient one, as runc does.
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_default();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(names.iter().cloned());
    }
}
