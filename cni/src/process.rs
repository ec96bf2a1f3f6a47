//! Runs another program with bounded time and output: plugin executables and `nft`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, MemfdFlags, flock, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A program's input that goes when nobody has it open any more.
pub(crate) fn input(bytes: &[u8]) -> io::Result<File> {
    fill(memfd_create("input", MemfdFlags::CLOEXEC)?.into(), bytes)
}

/// A program's input in a file that stays locked as long as the program has it open, even if this process is killed
/// meanwhile. So nobody who takes the same input next works against a program that was left behind. After `patience`
/// it is taken anyway: a program's child may hold it for ever.
pub(crate) fn locked_input(path: &Path, bytes: &[u8], patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)?;
    // Nobody waits here for long unless a process was killed, and there is no such thing as `flock` with a time limit.
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    file.set_len(0)?;
    fill(file, bytes)
}

fn fill(mut file: File, bytes: &[u8]) -> io::Result<File> {
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// What a program left behind.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

/// Why a program did not run to its end.
#[derive(Debug)]
pub(crate) enum RunError {
    /// It could not be started.
    Spawn(io::Error),
    /// It took too long and was killed.
    Timeout,
    /// Somebody else could not be kept waiting, and it was killed.
    CalledOff,
    /// It printed more than it may and was killed.
    TooMuchOutput,
    /// The kernel refused something on the way.
    Io(io::Error),
}

/// How long a program may run.
pub(crate) struct Until<'a> {
    /// In any case.
    pub(crate) timeout: Duration,
    /// Whether somebody waits for its end, who is kept waiting for [`GRACE`] at most.
    pub(crate) called_off: Option<&'a dyn Fn() -> bool>,
}

impl From<Duration> for Until<'_> {
    fn from(timeout: Duration) -> Self {
        Self {
            timeout,
            called_off: None,
        }
    }
}

/// How long a program may go on while somebody waits for its end.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is asked whether somebody does: a lock tells nobody who wants it.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// Runs the program in its own process group with `input` as its standard input and collects what it prints, up to
/// `limit` bytes on each stream. When it takes longer than it may or prints more, its whole process group is killed. It has ended
/// when its process has: a child that it leaves behind with the streams open is not waited for.
pub(crate) fn run(
    command: &mut Command,
    input: File,
    until: Until<'_>,
    limit: usize,
) -> Result<Output, RunError> {
    let child = command
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(RunError::Spawn)?;
    let mut group = Group(Some(child));
    let result = listen(&mut group, &until, limit);
    match result {
        Ok((stdout, stderr)) => {
            let status = group.reap().map_err(RunError::Io)?;
            Ok(Output {
                status,
                stdout,
                stderr,
            })
        }
        Err(e) => Err(e),
    }
}

/// A process group that is killed unless its leader was reaped.
struct Group(Option<Child>);

impl Group {
    fn reap(&mut self) -> io::Result<ExitStatus> {
        match self.0.take() {
            Some(mut child) => child.wait(),
            None => Err(io::Error::other("the process was reaped already")),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            if let Ok(pid) = i32::try_from(child.id()) {
                // The leader is not reaped yet, so the group's number can't be someone else's.
                let _ = killpg(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = child.wait();
        }
    }
}

fn listen(group: &mut Group, until: &Until<'_>, limit: usize) -> Result<(Vec<u8>, Vec<u8>), RunError> {
    let mut patience = Patience::new(until);
    let Some(child) = group.0.as_mut() else {
        return Err(RunError::Timeout);
    };
    let exited = pidfd(child).map_err(RunError::Io)?;

    let mut streams = [
        Stream::new(child.stdout.take(), limit),
        Stream::new(child.stderr.take(), limit),
    ];
    for stream in &streams {
        stream
            .pipe
            .as_ref()
            .map_or(Ok(()), |pipe| nonblocking(&pipe.0))
            .map_err(RunError::Io)?;
    }
    loop {
        let ended = wait(&exited, &streams, patience.next()?)?;
        for stream in &mut streams {
            stream.pull()?;
        }
        if ended {
            let [stdout, stderr] = streams;
            return Ok((stdout.seen, stderr.seen));
        }
    }
}

/// How much longer a program is waited for.
struct Patience<'a> {
    until: &'a Until<'a>,
    deadline: Instant,
    /// When somebody was first seen to wait.
    wanted: Option<Instant>,
}

impl<'a> Patience<'a> {
    fn new(until: &'a Until<'a>) -> Self {
        Self {
            until,
            deadline: Instant::now() + until.timeout,
            wanted: None,
        }
    }

    /// How long to wait before this is asked again.
    fn next(&mut self) -> Result<Duration, RunError> {
        let now = Instant::now();
        let left = self.deadline.checked_duration_since(now);
        let left = left.ok_or(RunError::Timeout)?;
        let Some(called_off) = self.until.called_off else {
            return Ok(left);
        };
        if self.wanted.is_none() && called_off() {
            self.wanted = Some(now);
        }
        if self.wanted.is_some_and(|since| now.duration_since(since) > GRACE) {
            return Err(RunError::CalledOff);
        }
        Ok(left.min(ASK_EVERY))
    }
}

/// Waits until the process ended (true), one of its streams can move on, or the time is over.
fn wait(exited: &OwnedFd, streams: &[Stream; 2], left: Duration) -> Result<bool, RunError> {
    let left = Timespec::try_from(left).map_err(|_| RunError::Timeout)?;
    let mut fds = vec![PollFd::new(exited, PollFlags::IN)];
    for stream in streams.iter().filter_map(|s| s.pipe.as_ref()) {
        fds.push(PollFd::new(&stream.0, PollFlags::IN));
    }
    match poll(&mut fds, Some(&left)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(RunError::Io(e.into())),
    }
}

struct Pipe(File);

struct Stream {
    pipe: Option<Pipe>,
    seen: Vec<u8>,
    limit: usize,
}

impl Stream {
    fn new<P: Into<OwnedFd>>(pipe: Option<P>, limit: usize) -> Stream {
        Stream {
            pipe: pipe.map(|p| Pipe(p.into().into())),
            seen: Vec::new(),
            limit,
        }
    }

    /// Takes all that is there.
    fn pull(&mut self) -> Result<(), RunError> {
        let mut chunk = [0; 16 << 10];
        while let Some(pipe) = &mut self.pipe {
            match pipe.0.read(&mut chunk) {
                Ok(0) => self.pipe = None,
                Ok(n) => self.seen.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(RunError::Io(e)),
            }
            if self.seen.len() > self.limit {
                return Err(RunError::TooMuchOutput);
            }
        }
        Ok(())
    }
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process has no number"))?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

fn nonblocking(pipe: &impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(pipe)?;
    Ok(rustix::fs::fcntl_setfl(
        pipe,
        flags | rustix::fs::OFlags::NONBLOCK,
    )?)
}
