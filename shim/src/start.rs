//! How a shim begins: checked in front of its starter, then on its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::cgroups::systemd::{Placeholder, Scope};
use berth_runtime::cgroups::{Cgroup, CgroupError};
use berth_runtime::{give_memory_back, run_in_copy};
use nix::sys::signal::SigSet;
use nix::unistd::close;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::handler::Handler;
use crate::protocol::{CONFIG_NAME, RECORD_NAME, SOCKET_NAME, SandboxConfig, ShimRecord};
use crate::sandbox::{Sandbox, SandboxError};
use crate::shim::{Shim, Watches};

/// The shim's own messages, in the sandbox's directory.
const LOG_NAME: &str = "shim.log";
/// What the shim sends its starter when it is ready; anything else is the sentence that says why not.
const READY: &[u8] = b"\0";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why a shim did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable intent.
    #[error("The sandbox's configuration {path} can't be used: {reason}.")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is one already.
    #[error("Another shim serves the sandbox {0}.")]
    Running(PathBuf),
    /// The sandbox could not be set up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// Something else was refused.
    #[error("Could not {doing}: {source}.")]
    Io {
        /// What was attempted, beginning with a verb.
        doing: &'static str,
        /// The answer.
        source: io::Error,
    },
    /// The shim itself says why.
    #[error("{0}")]
    Failed(String),
}

fn failed<E: Into<io::Error>>(doing: &'static str) -> impl FnOnce(E) -> StartError {
    move |source| StartError::Io {
        doing,
        source: source.into(),
    }
}

/// Starts the shim of a sandbox, and returns when it serves: its record is written, its socket listens. The calling
/// process must be single-threaded and have nothing open that it wants to keep; it is to exit afterwards.
///
/// # Errors
/// When the sandbox can't be set up or has a shim; nothing is left behind then.
pub fn start(dir: &Path) -> Result<(), StartError> {
    close_inherited().map_err(failed("close inherited descriptors"))?;
    let dir = fs::canonicalize(dir).map_err(|error| StartError::Config {
        path: dir.join(CONFIG_NAME),
        reason: error.to_string(),
    })?;
    let (lock, config) = take_intent(&dir)?;
    let started = run_detached(&dir, &config, lock);
    started.inspect_err(|_| remove_cgroup(&config))
}

/// Goes on as the shim in a process of its own, and waits until that serves.
fn run_detached(dir: &Path, config: &SandboxConfig, lock: File) -> Result<(), StartError> {
    let held = hold_scope(config).map_err(SandboxError::from)?;
    let cgroup = Cgroup::create(&config.cgroup.to_string_lossy()).map_err(SandboxError::from)?;
    let (answer, report) = pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))?;
    let begin_in = cgroup
        .begin_in()
        .map(|directory| directory.try_clone_to_owned())
        .transpose();
    let begin_in = begin_in.map_err(failed("hold the pod's cgroup"))?;
    let child = || {
        let _ = close(answer.as_raw_fd());
        if let Some(held) = &held {
            let _ = close(held.as_fd().as_raw_fd());
        }
        i32::from(run(dir, config, cgroup, &report).is_err())
    };
    run_in_copy(begin_in.as_ref().map(AsFd::as_fd), child).map_err(failed("start the shim's process"))?;
    drop((report, lock));
    wait_for(answer, dir)
}

/// The scope that the cgroup is to be, with what is in it until the shim is.
fn hold_scope(config: &SandboxConfig) -> Result<Option<Placeholder>, CgroupError> {
    let scope = config.scope.as_ref();
    scope.map(|scope| scope.start(None, &BTreeMap::new())).transpose()
}

/// After a failure, once the processes in it have ended.
fn remove_cgroup(config: &SandboxConfig) {
    let removed = || match Cgroup::open(&config.cgroup.to_string_lossy())? {
        Some(cgroup) => cgroup.delete(),
        None => Ok(()),
    };
    let stopped = || config.scope.as_ref().map_or(Ok(()), Scope::stop);
    if let Err(error) = removed().and_then(|()| stopped()) {
        let path = config.cgroup.display();
        eprintln!("The pod's cgroup {path} is left behind: {error}");
    }
}

/// Reads to the end or to the sign of readiness: the pause may hold the other end open.
fn wait_for(answer: OwnedFd, dir: &Path) -> Result<(), StartError> {
    let (mut answer, mut sentence) = (File::from(answer), Vec::new());
    let mut piece = [0; 512];
    loop {
        match answer.read(&mut piece).map_err(failed("wait for the shim"))? {
            0 => break,
            count => sentence.extend_from_slice(&piece[..count]),
        }
        if sentence == READY {
            return Ok(());
        }
    }
    if sentence.is_empty() {
        let log = dir.join(LOG_NAME);
        return Err(StartError::Failed(format!(
            "The shim ended before it was ready; see {}.",
            log.display()
        )));
    }
    Err(StartError::Failed(
        String::from_utf8_lossy(&sentence).into_owned(),
    ))
}

/// The shim's whole life, in its own process.
fn run(dir: &Path, config: &SandboxConfig, cgroup: Cgroup, report: &OwnedFd) -> Result<(), ()> {
    let shim = match set_up(dir, config, cgroup) {
        Ok(shim) => shim,
        Err(error) => {
            let _ = rustix::io::write(report, error.to_string().as_bytes());
            return Err(());
        }
    };
    let _ = rustix::io::write(report, READY);
    let _ = close(report.as_raw_fd());
    shim.serve()
        .map_err(|error| eprintln!("The shim can't go on: {error}."))
}

fn set_up(dir: &Path, config: &SandboxConfig, cgroup: Cgroup) -> Result<Shim, StartError> {
    detach(dir).map_err(failed("detach from the starter"))?;
    let sandbox = Sandbox::set_up(dir, config, cgroup)?;
    match listen_and_record(dir, &sandbox) {
        Ok(watches) => {
            let runtime = config.runtime.clone();
            let handler = runtime.map(|program| Handler::new(program, config.user.clone()));
            Ok(Shim::new(sandbox, watches, handler))
        }
        Err(source) => {
            let _ = fs::remove_file(dir.join(SOCKET_NAME));
            Err(StartError::Io {
                doing: "listen on the shim's socket",
                source,
            })
        }
    }
}

/// A starter's descriptors are none of ours, and would keep its pipes and locks alive.
fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        open.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // The directory's own descriptor is closed already.
        let _ = close(fd);
    }
    Ok(())
}

/// Takes the intent. Its lock is held for as long as the shim lives: the descriptor is inherited and never closed. An
/// engine that gives a sandbox up removes the intent under the same lock, so that one which is locked and still has a
/// name can't be taken back unnoticed.
fn take_intent(dir: &Path) -> Result<(File, SandboxConfig), StartError> {
    let path = dir.join(CONFIG_NAME);
    let unusable = |reason: String| StartError::Config {
        path: path.clone(),
        reason,
    };
    let mut file = File::open(&path).map_err(|error| unusable(error.to_string()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::AGAIN) => return Err(StartError::Running(dir.to_owned())),
        Err(error) => return Err(failed("lock the sandbox's configuration")(error)),
    }
    if fstat(&file)
        .map_err(failed("look at the sandbox's configuration"))?
        .st_nlink
        == 0
    {
        return Err(unusable("it was removed just now".to_owned()));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(|error| unusable(error.to_string()))?;
    let config = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    Ok((file, config))
}

/// A session of its own, nobody's terminal, no signals but those that are asked for, and orphans come here.
fn detach(dir: &Path) -> io::Result<()> {
    give_memory_back();
    rustix::process::setsid()?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::chdir(c"/")?;
    SigSet::all().thread_block()?;
    let _ = rustix::thread::set_name(c"berth-shim");
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let log_flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let log = open(dir.join(LOG_NAME), log_flags, Mode::from_raw_mode(0o600))?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&log)?)
}

/// The record comes last: who finds it can connect.
fn listen_and_record(dir: &Path, sandbox: &Sandbox) -> io::Result<Watches> {
    let watches = Watches::new(dir, open_socket(dir)?)?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let pause_pid = sandbox.pause_pid().unwrap_or(0);
    let record = ShimRecord {
        pid,
        start_time: start_time(pid)?,
        pause_pid,
        pause_start_time: start_time(pause_pid)?,
    };
    let temporary = dir.join(format!(".{RECORD_NAME}.tmp"));
    File::create(&temporary)?.write_all(&serde_json::to_vec(&record)?)?;
    fs::rename(&temporary, dir.join(RECORD_NAME))?;
    Ok(watches)
}

fn open_socket(dir: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(dir.join(SOCKET_NAME)) {
        // Left behind by a shim that was killed.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A socket's address has room for 107 bytes, which a sandbox's directory can exceed.
    let held = open(
        dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET_NAME}", held.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &address);
    rustix::process::umask(umask);
    bound?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Field 22 of `/proc/<pid>/stat`. The second one is in parentheses and may hold anything.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = fields.split(' ').nth(19).and_then(|text| text.parse().ok());
    field.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its stat file can't be read"))
}
