//! One run of another runtime's program: begun, waited for by the event loop, killed when its time is over.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::cgroups::Subgroup;
use berth_runtime::start_program;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::command::{Places, Verb, arguments};
use crate::error::RequestError;
use crate::protocol::RuntimeProgram;

/// How much of what a program said is looked at, from the end.
const MAX_COMPLAINT: u64 = 16 << 10;

/// A program that runs.
pub(super) struct Run {
    pub(super) pid: i32,
    group: Option<Subgroup>,
    name: String,
    /// What it does, after "could not".
    doing: String,
    log: PathBuf,
    /// What it prints, unless that is the container's.
    output: Option<File>,
    allowed: Duration,
    deadline: Instant,
    timed_out: bool,
}

/// The streams of a program.
pub(super) enum Streams {
    /// It has none but a place for complaints.
    None,
    /// Those that the new process is to have.
    Inherited([OwnedFd; 3]),
}

/// How to begin.
pub(super) struct Begin<'a> {
    pub(super) program: &'a RuntimeProgram,
    /// Where the program keeps its state.
    pub(super) root: &'a Path,
    /// Where relative names begin.
    pub(super) directory: &'a Path,
    /// systemd makes the control groups.
    pub(super) systemd: bool,
    pub(super) streams: Streams,
    pub(super) doing: String,
    /// Where all that it starts is found again.
    pub(super) group: Option<Subgroup>,
    /// When the caller wants it over, if that is earlier than what the configuration allows.
    pub(super) until: Option<Instant>,
}

impl Begin<'_> {
    /// Starts the program. Its end comes as that of any child.
    pub(super) fn run(self, number: u32, verb: &Verb<'_>, container: &str) -> Result<Run, RequestError> {
        let program = self.program;
        let log = format!("log-{number}");
        let places = Places {
            root: self.root,
            log: &log,
            systemd: self.systemd,
        };
        let mut command = Command::new(&program.path);
        // A group of its own: what it has started ends with it when it takes too long.
        command
            .args(arguments(program, &places, verb, container))
            .current_dir(self.directory)
            .process_group(0);
        let directories = [self.root, self.directory];
        let begun = begin(&mut command, self.streams, &directories, self.group.as_ref());
        let (pid, output) = begun.map_err(|source| {
            remove(self.group.as_ref());
            RequestError::Handler {
                name: program.name.clone(),
                doing: self.doing.clone(),
                reason: format!("{} can't be run: {source}", program.path.display()),
                cannot_run: false,
            }
        })?;
        let allowed = Duration::from_millis(program.timeout_ms);
        let own = Instant::now() + allowed;
        Ok(Run {
            pid,
            group: self.group,
            name: program.name.clone(),
            doing: self.doing,
            log: self.directory.join(log),
            output,
            allowed,
            deadline: self.until.map_or(own, |until| until.min(own)),
            timed_out: false,
        })
    }
}

fn begin(
    command: &mut Command,
    streams: Streams,
    directories: &[&Path],
    group: Option<&Subgroup>,
) -> io::Result<(i32, Option<File>)> {
    directories.iter().try_for_each(fs::create_dir_all)?;
    let output = match streams {
        Streams::None => {
            let output = File::from(memfd_create(c"runtime-output", MemfdFlags::CLOEXEC)?);
            command
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output.try_clone()?);
            Some(output)
        }
        Streams::Inherited([stdin, stdout, stderr]) => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            None
        }
    };
    Ok((start_program(command, group)?.as_raw(), output))
}

fn remove(group: Option<&Subgroup>) {
    if let Some(group) = group {
        group.remove_if_empty();
    }
}

impl Run {
    /// When it is to be killed; `None` once it was.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (!self.timed_out).then_some(self.deadline)
    }

    /// Kills it if its time is over.
    pub(super) fn on_time(&mut self, now: Instant) {
        if !self.timed_out && self.deadline <= now {
            self.timed_out = true;
            self.kill();
        }
    }

    /// Its time is over now.
    pub(super) fn expire(&mut self) {
        self.deadline = Instant::now();
    }

    /// It was killed because its time was over.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// Kills it with what it has started. It was not reaped: its number is nobody else's.
    pub(super) fn kill(&self) {
        self.kill_group();
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    /// Its group, in which something may run on.
    pub(super) fn take_group(&mut self) -> Option<Subgroup> {
        self.group.take()
    }

    fn kill_group(&self) {
        if let Some(group) = &self.group
            && let Err(error) = group.kill()
        {
            eprintln!(
                "What the runtime {} has started can't be killed: {error}",
                self.name
            );
        }
    }

    /// What came of it, once it was reaped. `errors` is where else it may have complained.
    pub(super) fn outcome(&mut self, exit_code: i32, errors: Option<&OwnedFd>) -> Result<(), RequestError> {
        let succeeded = exit_code == 0 && !self.timed_out;
        if !succeeded {
            self.kill_group();
        }
        if succeeded {
            let _ = fs::remove_file(&self.log);
            return Ok(());
        }
        let complaint = self.complaint(errors);
        let _ = fs::remove_file(&self.log);
        let mut reason = if self.timed_out {
            format!(
                "it took longer than {} ms and was killed",
                self.allowed.as_millis()
            )
        } else {
            format!("it ended with exit code {exit_code}")
        };
        let cannot_run = is_missing_program(&complaint);
        if !complaint.is_empty() {
            reason = format!("{reason}, saying: {complaint}");
        }
        Err(RequestError::Handler {
            name: self.name.clone(),
            doing: self.doing.clone(),
            reason,
            cannot_run,
        })
    }

    /// The last line of its log, or of what it printed.
    fn complaint(&mut self, errors: Option<&OwnedFd>) -> String {
        let log = File::open(&self.log).ok().and_then(|log| end_of(log).ok());
        let printed = || self.output.take().and_then(|output| end_of(output).ok());
        let elsewhere = || errors.map(waiting_in);
        [log]
            .into_iter()
            .chain(std::iter::once_with(printed))
            .chain(std::iter::once_with(elsewhere))
            .flatten()
            .map(|text| last_line(&text))
            .find(|line| !line.is_empty())
            .unwrap_or_default()
    }
}

fn end_of(mut file: File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_COMPLAINT)))?;
    let mut text = Vec::new();
    file.take(MAX_COMPLAINT).read_to_end(&mut text)?;
    Ok(text)
}

/// What is in a pipe already, whose other side may stay open.
fn waiting_in(pipe: &OwnedFd) -> Vec<u8> {
    let mut text = Vec::with_capacity(4096);
    if super::set_nonblocking(pipe).is_ok() {
        let _ = rustix::io::read(pipe, rustix::buffer::spare_capacity(&mut text));
    }
    text
}

/// The last line that says something; of one in JSON, as logs are, its message.
fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let entry = serde_json::from_str::<serde_json::Value>(line).ok();
    let message = entry.as_ref().and_then(|entry| entry.get("msg")?.as_str());
    message.unwrap_or(line).trim_end_matches('.').to_owned()
}

/// In the words of runc, crun and youki.
fn is_missing_program(complaint: &str) -> bool {
    let says = |text| complaint.contains(text);
    says("executable file") && says("not found")
        || says("exec") && (says("no such file or directory") || says("permission denied"))
        || says("executable") && says("No such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_what_matters() {
        for (text, expected) in [
            ("", ""),
            ("\n \n", ""),
            ("one\ntwo.\n\n", "two"),
            (
                "{\"level\":\"warning\",\"msg\":\"first\"}\n{\"level\":\"error\",\"msg\":\"no space left\"}\n",
                "no space left",
            ),
            ("{\"level\":\"error\"}", "{\"level\":\"error\"}"),
            ("{\"msg\": 7", "{\"msg\": 7"),
        ] {
            assert_eq!(last_line(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn a_missing_program_is_told_from_other_failures() {
        for (complaint, missing) in [
            (
                "exec failed: unable to start container process: exec: \"x\": executable file not found in $PATH",
                true,
            ),
            (
                "executable file `x` not found in $PATH: No such file or directory",
                true,
            ),
            ("exec: \"/x\": stat /x: no such file or directory", true),
            (
                "unable to start container process: exec: \"/etc\": permission denied",
                true,
            ),
            ("container does not exist", false),
            ("", false),
        ] {
            assert_eq!(is_missing_program(complaint), missing, "{complaint}");
        }
    }
}
