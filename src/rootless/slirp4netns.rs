//! slirp4netns(1) as the way out of an ordinary user's node. Its own ports are not used: it answers no datagram that comes
//! from the machine's loopback, which it may not reach.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::network::INTERFACE;
use super::supervised::Process;

/// What it says when it ends too early.
const LOG: &str = "slirp4netns.log";

/// Starts slirp4netns, and returns when the node is connected. It ends with this process.
///
/// # Errors
/// A sentence without its end: why the node stays by itself.
pub(super) fn start(keeper: Pid, run: &Path) -> Result<Process, String> {
    let failed = |error: io::Error| format!("slirp4netns can't be started: {error}");
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()));
    let ((ready, tell), (ends, life)) = (pipe()?, pipe()?);
    let log = run.join(LOG);
    let said = File::create(&log).map_err(failed)?;
    for fd in [&tell, &ends] {
        fcntl_setfd(fd, FdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    }
    // Pods are not to reach what listens on the machine's loopback only.
    let child = Command::new("slirp4netns")
        .args([
            "--configure",
            "--mtu=65520",
            "--disable-host-loopback",
            "--enable-seccomp",
        ])
        .args(["--ready-fd", &tell.as_raw_fd().to_string()])
        .args(["--exit-fd", &ends.as_raw_fd().to_string()])
        .args([&keeper.as_raw_nonzero().to_string(), INTERFACE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn();
    drop((tell, ends));
    let mut answer = Vec::new();
    let read = File::from(ready).read_to_end(&mut answer);
    let said = fs::read_to_string(&log).unwrap_or_default();
    // What it says from now on nobody reads.
    fs::remove_file(&log).map_err(failed)?;
    let mut child = child.map_err(|error| match error.kind() {
        ErrorKind::NotFound => "slirp4netns is not installed".to_owned(),
        _ => failed(error),
    })?;
    read.map_err(failed)?;
    if answer == b"1" {
        return Process::of(Pid::from_child(&child), Some(life)).map_err(|errno| failed(errno.into()));
    }
    child.wait().map_err(failed)?;
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let said = match lines.as_slice() {
        [] => "it ended without a word".to_owned(),
        lines => lines.join("; "),
    };
    Err(format!(
        "slirp4netns can't be used: {}",
        said.trim_end_matches('.')
    ))
}
