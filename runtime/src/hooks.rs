//! Programs that the configuration has run at points of a container's life.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::Serialize;

use crate::oci::{ContainerState, Hook, Hooks};
use crate::sys::Spawned;
use crate::{Error, Result, copy};

/// How much of a failed hook's error output is repeated.
const MAX_OUTPUT: u64 = 1024;

/// A container's state as hooks (on standard input) and `state` give it; the runtime specification's "State".
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState<'a> {
    /// The version of the specification that the configuration is written for.
    pub oci_version: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Where it is in its life.
    pub status: ContainerState,
    /// Its first process as the host numbers it; not there once it has stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The bundle directory.
    pub bundle: &'a Path,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a BTreeMap<String, String>>,
}

/// The hooks of the host that run once the namespaces exist: `prestart`, then `createRuntime`.
///
/// Those of the first kind are told that the container is created. They are older than the difference: for them the
/// specification has always put the creation of the environment before, and "created" after that step.
pub(crate) fn run_create_runtime(hooks: &Hooks, state: &HookState<'_>) -> Result<()> {
    let created = HookState {
        status: ContainerState::Created,
        ..state.clone()
    };
    run("prestart", &hooks.prestart, &created)?;
    run("createRuntime", &hooks.create_runtime, state)
}

/// Runs the hooks that follow the program's start, and returns those that failed and are worth a warning only.
///
/// # Errors
/// When one of them fails and the configuration is written for version 1.3 of the specification or a newer one: the
/// container has to be stopped and deleted then. Older versions want the others run, and the container to go on.
pub fn run_poststart(hooks: &Hooks, state: &HookState<'_>) -> Result<Vec<Error>> {
    if poststart_is_fatal(state.oci_version) {
        return run("poststart", &hooks.poststart, state).map(|()| Vec::new());
    }
    Ok(run_all("poststart", &hooks.poststart, state))
}

/// Since version 1.3 a failure of a poststart hook ends the container.
fn poststart_is_fatal(version: &str) -> bool {
    let minor = version
        .strip_prefix("1.")
        .and_then(|rest| rest.split(['.', '-', '+']).next()?.parse::<u32>().ok());
    minor.is_some_and(|minor| minor >= 3)
}

/// Runs the hooks that follow the container's removal, and returns those that failed.
pub fn run_poststop(hooks: &Hooks, state: &HookState<'_>) -> Vec<Error> {
    run_all("poststop", &hooks.poststop, state)
}

/// Runs all hooks of one kind, whatever the others did.
fn run_all(kind: &'static str, hooks: &[Hook], state: &HookState<'_>) -> Vec<Error> {
    let numbered = hooks.iter().enumerate();
    let outcomes = numbered.map(|(number, hook)| run_numbered(kind, number, hook, state, &[]));
    outcomes.filter_map(Result::err).collect()
}

/// Checks what can be checked by looking.
pub(crate) fn check(hooks: Option<&Hooks>) -> Result<()> {
    let Some(hooks) = hooks else {
        return Ok(());
    };
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, hook) in kinds
        .iter()
        .flat_map(|(kind, list)| list.iter().map(move |hook| (kind, hook)))
    {
        if !hook.path.is_absolute() {
            let field = format!("hooks.{kind}[].path {:?}", hook.path);
            return Err(Error::invalid(field, "it must be an absolute path"));
        }
        if hook.timeout.is_some_and(|seconds| seconds <= 0) {
            let field = format!("hooks.{kind}[].timeout of {}", hook.path.display());
            return Err(Error::invalid(field, "it must be greater than zero"));
        }
    }
    Ok(())
}

/// Runs hooks of one kind in their order, up to the first that fails.
pub(crate) fn run(kind: &'static str, hooks: &[Hook], state: &HookState<'_>) -> Result<()> {
    let mut numbered = hooks.iter().enumerate();
    numbered.try_for_each(|(number, hook)| run_numbered(kind, number, hook, state, &[]))
}

/// Runs the hooks of the container that come right before its program. One that names no environment has the
/// program's, as it has in other runtimes.
pub(crate) fn run_start_container(
    hooks: &Hooks,
    state: &HookState<'_>,
    environment: &[String],
) -> Result<()> {
    let mut numbered = hooks.start_container.iter().enumerate();
    numbered.try_for_each(|(number, hook)| run_numbered("startContainer", number, hook, state, environment))
}

fn run_numbered(
    kind: &'static str,
    number: usize,
    hook: &Hook,
    state: &HookState<'_>,
    environment: &[String],
) -> Result<()> {
    run_one(hook, state, environment).map_err(|reason| Error::Hook {
        kind,
        number,
        path: hook.path.display().to_string(),
        reason,
    })
}

/// `environment` is for a hook that has none of its own.
fn run_one(hook: &Hook, state: &HookState<'_>, environment: &[String]) -> std::result::Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let input = input(state).map_err(|e| text(&e))?;
    // Files in memory, not pipes: a hook that does not read its input, or whose child keeps its output open, can't
    // block the runtime.
    let mut errors = memory_file(c"hook-stderr").map_err(|e| text(&e))?;
    let stderr = errors.try_clone().map_err(|e| text(&e))?;
    let mut command = command(hook, environment);
    command.stdin(input).stdout(Stdio::null()).stderr(stderr);
    // A shim blocks all signals, and a hook is not to begin so.
    let child = copy::start(&mut command, None).map_err(|e| text(&e))?;
    let status = match hook.timeout {
        Some(seconds) => wait_until(&child, seconds)?,
        None => reap(&child)?,
    };
    if status.success() {
        return Ok(());
    }
    let mut output = String::new();
    let _ = errors
        .rewind()
        .and_then(|()| errors.take(MAX_OUTPUT).read_to_string(&mut output));
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit code {code}"),
        (None, signal) => format!("it was ended by signal {}", signal.unwrap_or(0)),
    };
    Err(if output.trim().is_empty() {
        how
    } else {
        format!("{how}, saying {:?}", output.trim())
    })
}

fn command(hook: &Hook, environment: &[String]) -> Command {
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    // A group of its own: what a hook started ends with it when it takes too long.
    command.env_clear().process_group(0);
    for entry in if hook.env.is_empty() {
        environment
    } else {
        &hook.env
    } {
        if let Some((name, value)) = entry.split_once('=') {
            command.env(name, value);
        }
    }
    command
}

fn input(state: &HookState<'_>) -> std::io::Result<File> {
    let mut file = memory_file(c"container-state")?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.rewind()?;
    Ok(file)
}

fn memory_file(name: &std::ffi::CStr) -> std::io::Result<File> {
    Ok(File::from(memfd_create(name, MemfdFlags::CLOEXEC)?))
}

fn wait_until(child: &Spawned, seconds: i64) -> std::result::Result<ExitStatus, String> {
    let refused = |e: std::io::Error| e.to_string();
    let deadline = Instant::now() + Duration::from_secs(seconds.unsigned_abs());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|e| e.to_string())?;
        match poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => return reap(child),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(refused(errno.into())),
        }
    }
    let pid = Pid::from_raw(child.pid.as_raw()).ok_or("its process id is out of range")?;
    // It is not reaped: neither its pid nor its group can be another's.
    rustix::process::kill_process_group(pid, Signal::KILL).map_err(|e| refused(e.into()))?;
    reap(child)?;
    Err(format!("it took longer than its timeout of {seconds} s"))
}

fn reap(child: &Spawned) -> std::result::Result<ExitStatus, String> {
    let pid = Pid::from_raw(child.pid.as_raw());
    loop {
        match rustix::process::waitpid(pid, WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(std::io::Error::from(errno).to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_changed_its_mind_in_1_3() {
        for (version, fatal) in [
            ("1.0.0", false),
            ("1.2.1", false),
            ("1.2.1-dev", false),
            ("1.3.0", true),
            ("1.3", true),
            ("1.3-rc1", true),
            ("1.10.0", true),
        ] {
            assert_eq!(poststart_is_fatal(version), fatal, "{version}");
        }
    }
}
