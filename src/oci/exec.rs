//! `exec`: one more process in a running container.

use std::os::fd::AsFd;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::{self, Process, Spec};
use berth_runtime::{ExecTarget, Execed, Stdio, exec};

use crate::arguments::{Arguments, Operands, Syntax, number};
use crate::create::write_pid_file;
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::foreground::Foreground;
use crate::living::Living;
use crate::options::Global;
use crate::{activation, handover, log, terminal};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "exec",
    flags: &[
        "tty,t",
        "detach,d",
        "env,e=NAME=VALUE",
        "user,u=UID[:GID]",
        "additional-gids,g=GID",
        "cwd=DIR",
        "process,p=FILE",
        "console-socket=PATH",
        "pidfd-socket=PATH",
        "pid-file=FILE",
        "preserve-fds=N",
        "cap,c=CAP",
        "no-new-privs",
        "process-label=LABEL",
        "apparmor=PROFILE",
        "cgroup=[CONTROLLER[,...]:]PATH",
        "ignore-paused",
    ],
    operands: (Operands::OneAndRest, "ID [--] [COMMAND [ARG ...]]"),
};

/// Starts a process, and exits as it does unless it is detached.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    add(global, arguments).map_err(Failure::of_exec)
}

fn add(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let id = arguments.id()?;
    // The process is held by a descriptor: nobody can put another container in its place.
    let container = Living::look(global, id, "given a process")?;
    let record = &container.record;
    let spec = container.state.config()?;
    let process = process(arguments, &spec)?;
    let (socket, detach) = (arguments.path("console-socket"), arguments.switch("detach")?);
    terminal::check_socket(process.terminal, socket.as_deref(), detach)?;
    let cgroup = match container.cgroup()? {
        Some(cgroup) => cgroup,
        // A user may have had to leave it out.
        None if !berth_runtime::is_machines_root() => Cgroup::none(&record.cgroup)?,
        None => return Err(container.without_cgroup()),
    };
    if !arguments.switch("ignore-paused")? && cgroup.is_frozen()? {
        return Err(usage(format!(
            "cannot exec in a paused container: resume {id} first, or use --ignore-paused."
        )));
    }
    let filter = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
    let filter = filter
        .map(berth_runtime::seccomp::compile)
        .transpose()
        .map_err(|e| usage(e.to_string()))?;
    let cgroup = match arguments.all("cgroup")?.as_slice() {
        [] => match record.process {
            Some(process) => container.unless_ended(cgroup.for_added_process(process.pid))?,
            None => cgroup,
        },
        wanted => cgroup.narrowed(&subgroups(wanted)?)?,
    };
    let scope = record.scope.as_ref().filter(|scope| scope.user);
    if scope.is_some() && !arguments.all("cgroup")?.is_empty() {
        return Err(usage(
            "--cgroup can't be used where the user's systemd made the container's group.",
        ));
    }
    let target = ExecTarget {
        id,
        bundle: &record.bundle,
        pidfd: container.process.as_fd(),
        spec: &spec,
        in_user_namespace: record.process.is_some_and(|process| process.in_user_namespace),
        cgroup: &cgroup,
        scope,
        seccomp: filter.as_ref(),
        subgroup: None,
    };
    run(global, arguments, &container, &target, &process)
}

fn run(
    global: &Global,
    arguments: &Arguments,
    container: &Living,
    target: &ExecTarget<'_>,
    process: &Process,
) -> Result<ExitCode, Failure> {
    let foreground = if arguments.switch("detach")? {
        None
    } else {
        Some(Foreground::new()?)
    };
    let size = process.console_size.as_ref();
    let short = |n: u64| u16::try_from(n).unwrap_or(0);
    let stdio = if process.terminal {
        let (width, height) = size.map_or((0, 0), |size| (short(size.width), short(size.height)));
        Stdio::Terminal {
            width,
            height,
            carriage_returns: arguments.path("console-socket").is_some(),
        }
    } else {
        Stdio::Inherit
    };
    let preserved = arguments.number("preserve-fds")?.unwrap_or(0);
    activation::check(preserved)?;
    let mut execed = container.unless_ended(exec(target, process, stdio, preserved))?;
    for warning in &execed.warnings {
        log::warning(global, warning);
    }
    if let Err(failure) = announce(arguments, &mut execed) {
        // Nobody would know of it.
        let _ = rustix::process::pidfd_send_signal(&execed.pidfd, rustix::process::Signal::KILL);
        let _ = nix::sys::wait::waitpid(execed.pid, None);
        return Err(failure);
    }
    match foreground {
        Some(foreground) => foreground.wait(execed.pid, &execed.pidfd, execed.terminal.as_ref()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Tells the caller of the process, in the ways that it asked for.
fn announce(arguments: &Arguments, execed: &mut Execed) -> Result<(), Failure> {
    if let Some(path) = arguments.path("console-socket") {
        terminal::hand_over(execed.terminal.take().as_ref(), Some(&path))?;
    }
    if let Some(path) = arguments.path("pidfd-socket") {
        handover::send_process(&path, &execed.pidfd)?;
    }
    match arguments.path("pid-file") {
        Some(path) => write_pid_file(&path, execed.pid.as_raw()),
        None => Ok(()),
    }
}

/// The process to run: that of the file, or the container's own with another command.
fn process(arguments: &Arguments, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = arguments.path("process") {
        let text = std::fs::read(&path).attempt(|| format!("read {}", path.display()))?;
        let process: Process = oci::from_slice(&text)
            .map_err(|e| usage(format!("The process in {} is not valid: {e}.", path.display())))?;
        return Ok(process);
    }
    let mut process = spec
        .process
        .clone()
        .ok_or_else(|| usage("The container's configuration has no process."))?;
    process.args = arguments.rest()?;
    if process.args.first().is_some_and(|first| first == "--") {
        process.args.remove(0);
    }
    if process.args.is_empty() {
        return Err(usage("The command to run is missing."));
    }
    process.terminal = arguments.switch("tty")?;
    if let Some(cwd) = arguments.path("cwd") {
        process.cwd = cwd;
    }
    if arguments.value("no-new-privs").is_some() {
        process.no_new_privileges = arguments.switch("no-new-privs")?;
    }
    if let Some(label) = arguments.text("process-label")? {
        label.clone_into(&mut process.selinux_label);
    }
    if let Some(profile) = arguments.text("apparmor")? {
        profile.clone_into(&mut process.apparmor_profile);
    }
    process.env.extend(arguments.all("env")?);
    set_user(&mut process, arguments)?;
    add_capabilities(&mut process, &arguments.all("cap")?);
    Ok(process)
}

fn set_user(process: &mut Process, arguments: &Arguments) -> Result<(), Failure> {
    if let Some(text) = arguments.text("user")? {
        let (uid, gid) = text
            .split_once(':')
            .map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        let id = |text: &str| {
            text.parse()
                .map_err(|_| usage(format!("{text:?} is not a numeric user or group id.")))
        };
        process.user.uid = id(uid)?;
        if let Some(gid) = gid {
            process.user.gid = id(gid)?;
        }
    }
    for group in arguments.all("additional-gids")? {
        process
            .user
            .additional_gids
            .push(number("additional-gids", &group)?);
    }
    Ok(())
}

/// Adds capabilities to all sets but the inheritable one; ambient ones have to be inheritable too.
fn add_capabilities(process: &mut Process, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_default();
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(names.iter().cloned());
    }
    let inheritable = names.iter().filter(|name| sets.inheritable.contains(*name));
    sets.ambient.extend(inheritable.cloned());
}

/// The values of `--cgroup`: a path for all hierarchies, or paths for those of single controllers.
fn subgroups(values: &[String]) -> Result<Vec<(Vec<&str>, &str)>, Failure> {
    let wrong = |value: &str, reason: &str| usage(format!("--cgroup is {value:?}: {reason}."));
    let mut known = Vec::new();
    values
        .iter()
        .map(|value| {
            let Some((controllers, path)) = value.split_once(':') else {
                return if values.len() == 1 {
                    Ok((Vec::new(), value.as_str()))
                } else {
                    Err(wrong(
                        value,
                        "of several, each needs its controllers before a colon",
                    ))
                };
            };
            let controllers: Vec<&str> = controllers.split(',').collect();
            for controller in &controllers {
                if controller.is_empty() || known.contains(controller) {
                    return Err(wrong(value, "each controller is named once"));
                }
                known.push(controller);
            }
            Ok((controllers, path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Vec<(Vec<String>, String)>, String> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        let owned = |(controllers, path): (Vec<&str>, &str)| {
            (
                controllers.into_iter().map(str::to_owned).collect(),
                path.to_owned(),
            )
        };
        let parsed = subgroups(&values).map_err(|f| f.message)?;
        Ok(parsed.into_iter().map(owned).collect())
    }

    #[test]
    fn subgroups_are_for_all_controllers_or_for_some() {
        assert_eq!(parse(&["a/b"]).unwrap(), [(vec![], "a/b".to_owned())]);
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            parse(&["cpu,cpuacct:x", "memory:/"]).unwrap(),
            [
                (names(&["cpu", "cpuacct"]), "x".to_owned()),
                (names(&["memory"]), "/".to_owned())
            ]
        );
        for wrong in [
            &["a", "b"][..],
            &[":a"],
            &["cpu,:a"],
            &["cpu:a", "cpu:b"],
            &["cpu:a", "b"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
