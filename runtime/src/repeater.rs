//! A process that runs one command in a container again and again, for as long as it ends well: what a probe is, most of the time.
//!
//! It is as far from the container as a [`crate::Launcher`], and where one is, but for the group of its commands: it is in that one,
//! too, unless its memory would be charged to the container there. Nobody asks it for each command and nobody hears of one that
//! ended well, so that such a command costs little more than its program. It ends with the first that did not end well, and says
//! how that ended.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGCHLD, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::alarm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fchown, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group, waitid,
};

use crate::cgroups::{ENTER, Subgroup};
use crate::channel::{Channel, Message};
use crate::error::Doing;
use crate::exec::{Addition, ExecTarget};
use crate::launcher::{enter, start_server};
use crate::oci::{LinuxNamespaceType, Process};
use crate::output::{Output, file_of};
use crate::process;
use crate::stdio::own_null;
use crate::sys::{self, CAN_SPAWN_WITHIN, CloneArgs, Spawned, Stack};
use crate::{Ended, Error, Result, Stdio};

/// How long output may still come after a command has ended: what it left running may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(200);
/// How long what was killed may take to end, before this process goes without it.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// When and how a command is run.
#[derive(Clone, Copy, Debug)]
pub struct Repetition {
    /// How long to wait before the first time.
    pub first_in: Duration,
    /// How much later than one the next is run; at once, if the one took longer.
    pub period: Duration,
    /// After this its whole process tree is killed; zero is never.
    pub timeout: Duration,
    /// So many bytes of each output are kept; the command is not held up by what is more.
    pub max_output: usize,
}

/// A process that repeats a command. Dropping it kills it, but not a command that runs.
#[derive(Debug)]
pub struct Repeater {
    process: Spawned,
    channel: Channel,
}

impl Repeater {
    /// Starts it, for a container of which [`crate::Launcher::is_possible`] says so. The caller must be single-threaded. It ends
    /// with its creator, whose child it is. All commands run in the group `subgroup`, unless one left something running there.
    ///
    /// # Errors
    /// When the process makes no sense, the container is gone, or the kernel refuses. Nothing is left to reap.
    pub fn start(
        target: &ExecTarget<'_>,
        process: &Process,
        repetition: Repetition,
        subgroup: Option<&Subgroup>,
    ) -> Result<Repeater> {
        let mut serve = |addition: Addition<'_>| serve(addition, repetition, subgroup);
        let (process, channel) = start_server(target, process, &mut serve)?;
        let flags = fcntl_getfl(&channel).and_then(|flags| fcntl_setfl(&channel, flags | OFlags::NONBLOCK));
        if let Err(errno) = flags {
            crate::spawn::kill_and_reap(&process);
            return Err(errno).doing(|| "make a socket that does not block".to_owned());
        }
        Ok(Repeater { process, channel })
    }

    /// Its process id, as the caller's PID namespace numbers it.
    pub fn pid(&self) -> i32 {
        self.process.pid.as_raw()
    }

    /// Ends it, but not a command that runs.
    pub fn kill(&self) {
        // It may have ended already. Waiting for its end is not for here: its group may be frozen.
        let _ = rustix::process::pidfd_send_signal(&self.process.pidfd, Signal::KILL);
    }

    /// What it had to say, once it has ended. An exit code of 0 is told where a command left something running, which is not to
    /// be mistaken for the next one's.
    ///
    /// # Errors
    /// [`Error::CannotRun`] when the program is missing or can't be executed, [`Error::Vanished`] when it was killed, and others
    /// when the kernel refused.
    pub fn outcome(&self) -> Result<Ended> {
        let mut failure = None;
        loop {
            match self.channel.receive() {
                Ok(Message::Failed(failed)) => failure = Some(failed),
                Ok(Message::Ended(ended)) if failure.is_none() => return Ok(ended),
                _ => return Err(failure.map_or_else(gone, Error::from)),
            }
        }
    }
}

impl Drop for Repeater {
    fn drop(&mut self) {
        self.kill();
    }
}

fn gone() -> Error {
    Error::Vanished("what repeats a command of the container is gone".to_owned())
}

/// The life of a repeater. Returns its exit code.
fn serve(mut addition: Addition<'_>, repetition: Repetition, group: Option<&Subgroup>) -> i32 {
    let outcome = repeat(&mut addition, repetition, group).and_then(|ended| {
        let said = addition.channel.send(&Message::Ended(ended));
        said.doing(|| "say how a command ended".to_owned())
    });
    match outcome {
        Ok(()) => 0,
        Err(error) => process::report(&error, &addition.channel),
    }
}

fn repeat(addition: &mut Addition<'_>, repetition: Repetition, group: Option<&Subgroup>) -> Result<Ended> {
    let mut due = Instant::now() + repetition.first_in;
    let kept = group.map(Subgroup::descriptor).transpose()?;
    enter(addition, kept.as_slice())?;
    let is_within = group.is_some_and(Subgroup::charges_nothing);
    let begin_in = match group {
        Some(group) if is_within => {
            // Once for all commands, and what is ready for one group only need not be made for each of them.
            rustix::io::write(group.entry_file()?, ENTER)
                .doing(|| "enter the group of a command".to_owned())?;
            None
        }
        Some(group) => group.directory()?,
        None => None,
    };
    let occupancy = group.map(|group| group.occupancy(is_within)).transpose()?;
    let mut outputs = Outputs::new(repetition.max_output, addition)?;
    let mut stack = can_be_within(addition).then(Stack::new);
    addition
        .channel
        .send(&Message::Ready)
        .doing(|| "tell the shim that commands can be run".to_owned())?;
    loop {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if occupancy.as_ref().is_some_and(|group| !group.is_unused()) {
            return Ok(Ended::default());
        }
        let deadline = Instant::now().checked_add(repetition.timeout);
        let deadline = deadline.filter(|_| !repetition.timeout.is_zero());
        let args = CloneArgs {
            flags: 0,
            cgroup: begin_in,
        };
        let command = start(addition, args, stack.as_mut(), repetition.timeout);
        let command = command.doing(|| "make a process".to_owned())?;
        let (exit_code, timed_out) = outputs.read_until_end(command, deadline, group)?;
        if exit_code != 0 || timed_out {
            // No writer but what the command left running.
            addition.stdio = Stdio::Inherit;
            return outputs.tell(exit_code, timed_out);
        }
        outputs.both.iter_mut().for_each(Output::clear);
        due = (due + repetition.period).max(Instant::now());
    }
}

/// Whether a command's process may begin in this one's memory: what traces it then has this process, too, which is outside of the
/// container. Only who may trace everything can, since the memory is not dumpable (see [`protect_creator`]); but where programs that
/// change their user are (`fs.suid_dumpable`, proc(5)), the user whom the process becomes could. And the kernel lets nobody into another
/// time namespace whose memory is also another's.
///
/// [`protect_creator`]: crate::create::protect_creator
fn can_be_within(addition: &Addition<'_>) -> bool {
    let linux = addition.target.spec.linux.as_ref();
    let mut listed = linux.iter().flat_map(|linux| &linux.namespaces);
    let has_time = listed.any(|namespace| namespace.typ == LinuxNamespaceType::Time);
    let dumps = || std::fs::read("/proc/sys/fs/suid_dumpable").is_ok_and(|mode| mode.starts_with(b"1"));
    CAN_SPAWN_WITHIN && !has_time && !dumps()
}

fn start(
    addition: &mut Addition<'_>,
    args: CloneArgs<'_>,
    stack: Option<&mut Stack>,
    timeout: Duration,
) -> io::Result<Pid> {
    let spawned = match stack {
        None => sys::spawn(args, || addition.main())?.pid,
        Some(stack) => sys::spawn_within(args, stack, || {
            // This process can't look at the time before the program runs, and a directory or a program may be on a file system
            // whose server is gone. The alarm goes on in the program, which is killed before it is due.
            if !timeout.is_zero() {
                alarm::set(
                    u32::try_from(timeout.as_secs()).map_or(u32::MAX, |seconds| seconds.saturating_add(1)),
                );
            }
            addition.main()
        })?,
    };
    Pid::from_raw(spawned.as_raw()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What a command prints.
struct Outputs {
    /// Tells when a command may have ended.
    children: SignalFd,
    /// Standard output and standard error.
    both: [Output<OwnedFd>; 2],
}

impl Outputs {
    /// The same pipes serve all commands, one after the other, and so does the null device for their input.
    fn new(limit: usize, addition: &mut Addition<'_>) -> Result<Outputs> {
        let doing = || "make the pipes of a command".to_owned();
        let pipe = || -> io::Result<_> {
            let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
            fcntl_setfl(&ours, OFlags::NONBLOCK)?;
            Ok((ours, theirs))
        };
        let (stdout, their_stdout) = pipe().doing(doing)?;
        let (stderr, their_stderr) = pipe().doing(doing)?;
        let mut stdin = None;
        if !addition.target.in_user_namespace {
            // What each process would do by itself. An id of a user namespace is another one here.
            let user = Some(addition.identity.uid());
            for theirs in [&their_stdout, &their_stderr] {
                let _ = fchown(theirs, user, None);
            }
            stdin = own_null(addition.root()?);
            addition.has_own_streams = true;
        }
        addition.stdio = Stdio::Fds {
            stdin: match stdin {
                Some(null) => null,
                None => File::open("/dev/null").doing(doing)?.into(),
            },
            stdout: their_stdout,
            stderr: their_stderr,
        };
        let mut child = SigSet::empty();
        child.add(SIGCHLD);
        let children = SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Outputs {
            children: children.doing(|| "make what tells of a command's end".to_owned())?,
            both: [Output::new(stdout, limit), Output::new(stderr, limit)],
        })
    }

    /// Reads until the command has ended, and kills it when its time is over. Returns its exit code, and whether it was killed.
    fn read_until_end(
        &mut self,
        command: Pid,
        mut deadline: Option<Instant>,
        group: Option<&Subgroup>,
    ) -> Result<(i32, bool)> {
        let mut timed_out = false;
        loop {
            if self.wait(deadline)?
                && let Some(exit_code) = reap(command)?
            {
                let was_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
                // Before its program.
                timed_out |= was_late && exit_code == 128 + Signal::ALARM.as_raw();
                return Ok((exit_code, timed_out));
            }
            if deadline.is_none_or(|deadline| Instant::now() < deadline) {
                continue;
            }
            if timed_out {
                // It can't die. Its end, if there is one, is its next parent's to hear of.
                return Ok((128 + Signal::KILL.as_raw(), true));
            }
            kill(command, group)?;
            timed_out = true;
            deadline = Some(Instant::now() + KILL_PATIENCE);
        }
    }

    /// Waits for output, and keeps it, for news of a child, and for the deadline. Returns whether there are news.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        // The process first: what it had printed by its end is seen by the looks at the pipes that follow.
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::new(&self.children, PollFlags::IN));
        let sources = self.both.iter().filter_map(Output::source);
        fds.extend(sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(|| "wait for a command".to_owned()),
        }
        let mut has_come = fds.iter().map(|fd| !fd.revents().is_empty());
        let has_news = has_come.next() == Some(true);
        let has_output = has_come.any(|has_come| has_come);
        drop(fds);
        if has_output {
            self.both.iter_mut().for_each(Output::read);
        }
        if has_news {
            // Or the next command would be taken for one that has ended.
            let _ = self.children.read_signal();
        }
        Ok(has_news)
    }

    /// Waits for the rest of the output, and puts all of it into a file.
    fn tell(mut self, exit_code: i32, timed_out: bool) -> Result<Ended> {
        let deadline = Instant::now() + DRAIN;
        while self.both.iter().any(|output| output.source().is_some()) && Instant::now() < deadline {
            self.wait(Some(deadline))?;
        }
        let [stdout, stderr] = self.both.each_ref().map(|output| output.kept().len() as u64);
        Ok(Ended {
            exit_code,
            timed_out,
            stdout,
            stderr,
            output: file_of(&self.both).doing(|| "pass on what a command has printed".to_owned())?,
        })
    }
}

/// Kills a command with all that it has started.
fn kill(command: Pid, group: Option<&Subgroup>) -> Result<()> {
    match group {
        // The shim kills what may be left of it.
        Some(group) if group.charges_nothing() => return Ok(group.kill_others()?),
        Some(group) => return Ok(group.kill()?),
        None => {}
    }
    // It has not been waited for, so that its number is nobody else's.
    let _ = kill_process_group(command, Signal::KILL);
    let _ = kill_process(command, Signal::KILL);
    Ok(())
}

/// The exit code of a command that has ended.
fn reap(command: Pid) -> Result<Option<i32>> {
    let status = waitid(
        WaitId::Pid(command),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )
    .doing(|| "learn how a command ended".to_owned())?;
    let exit_code = |status: WaitIdStatus| {
        let signal = || Some(128 + status.terminating_signal()?);
        status.exit_status().or_else(signal).unwrap_or(255)
    };
    Ok(status.map(exit_code))
}
