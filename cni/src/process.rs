//! Runs another program with bounded time and output: plugin executables and `nft`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

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
    /// It printed more than it may and was killed.
    TooMuchOutput,
    /// The kernel refused something on the way.
    Io(io::Error),
}

/// Runs the program in its own process group, feeds it `stdin` and collects what it prints, up to `limit` bytes on
/// each stream. When it takes longer than `timeout` or prints more, its whole process group is killed. It has ended
/// when its process has: a child that it leaves behind with the streams open is not waited for.
pub(crate) fn run(
    command: &mut Command,
    stdin: &[u8],
    timeout: Duration,
    limit: usize,
) -> Result<Output, RunError> {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(RunError::Spawn)?;
    let mut group = Group(Some(child));
    let result = converse(&mut group, stdin, timeout, limit);
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

fn converse(
    group: &mut Group,
    stdin: &[u8],
    timeout: Duration,
    limit: usize,
) -> Result<(Vec<u8>, Vec<u8>), RunError> {
    let deadline = Instant::now() + timeout;
    let Some(child) = group.0.as_mut() else {
        return Err(RunError::Timeout);
    };
    let exited = pidfd(child).map_err(RunError::Io)?;
    let mut input = Feed {
        pipe: child.stdin.take(),
        left: stdin,
    };
    let mut streams = [
        Stream::new(child.stdout.take(), limit),
        Stream::new(child.stderr.take(), limit),
    ];
    input
        .pipe
        .as_ref()
        .map_or(Ok(()), nonblocking)
        .map_err(RunError::Io)?;
    for stream in &streams {
        stream
            .pipe
            .as_ref()
            .map_or(Ok(()), |pipe| nonblocking(&pipe.0))
            .map_err(RunError::Io)?;
    }
    loop {
        input.push().map_err(RunError::Io)?;
        let ended = wait(&exited, &input, &streams, deadline)?;
        for stream in &mut streams {
            stream.pull()?;
        }
        if ended {
            let [stdout, stderr] = streams;
            return Ok((stdout.seen, stderr.seen));
        }
    }
}

/// Waits until the process ended (true) or one of its streams can move on.
fn wait(
    exited: &OwnedFd,
    input: &Feed<'_>,
    streams: &[Stream; 2],
    deadline: Instant,
) -> Result<bool, RunError> {
    let left = deadline
        .checked_duration_since(Instant::now())
        .ok_or(RunError::Timeout)?;
    let left = Timespec::try_from(left).map_err(|_| RunError::Timeout)?;
    let mut fds = vec![PollFd::new(exited, PollFlags::IN)];
    if let Some(pipe) = &input.pipe {
        fds.push(PollFd::new(pipe, PollFlags::OUT));
    }
    for stream in streams.iter().filter_map(|s| s.pipe.as_ref()) {
        fds.push(PollFd::new(&stream.0, PollFlags::IN));
    }
    match poll(&mut fds, Some(&left)) {
        Ok(0) => Err(RunError::Timeout),
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(RunError::Io(e.into())),
    }
}

struct Feed<'a> {
    pipe: Option<std::process::ChildStdin>,
    left: &'a [u8],
}

impl Feed<'_> {
    /// Writes what fits and closes the pipe at the end, or when nobody reads.
    fn push(&mut self) -> io::Result<()> {
        while let Some(pipe) = &mut self.pipe {
            if self.left.is_empty() {
                self.pipe = None;
                break;
            }
            match pipe.write(self.left) {
                Ok(n) => self.left = &self.left[n..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => self.pipe = None,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

struct Pipe(std::fs::File);

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
