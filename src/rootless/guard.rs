//! The process that keeps an ordinary user's node connected. It is outside of the node's namespaces, starts pasta or
//! slirp4netns and the relay (see [`super::relay`]), starts others when they die, and ends them with the node.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::supervised::{Process, Supervised};
use super::{API_SOCKET, Way, pasta};

/// The subcommand that it is.
pub(super) const GUARD: &str = "rootless-network";
/// What the guard says when the node is connected, and the relay when it listens.
pub(super) const READY: &str = "ready\n";

/// Keep an ordinary user's node connected; berth starts this itself
#[derive(Args, Clone, Debug)]
pub(crate) struct GuardArgs {
    /// The node's run directory
    #[arg(long)]
    run: PathBuf,

    /// The keeper of the node's namespaces
    #[arg(long)]
    keeper: i32,

    /// The program that connects it
    #[arg(long)]
    way: Way,

    /// The node was connected before: its pods have their ports
    #[arg(long)]
    again: bool,
}

/// Starts a guard for the namespaces of a process, and returns when the node is connected.
///
/// # Errors
/// A sentence without its end: why this is not the way out.
pub(super) fn start(way: Way, keeper: i32, run: &Path, again: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} can't be started: {error}", way.name());
    let mut guard = Command::new(std::env::current_exe().map_err(failed)?);
    guard
        .args([GUARD, "--keeper", &keeper.to_string()])
        .args(["--way", way.name(), "--run"])
        .arg(run);
    if again {
        guard.arg("--again");
    }
    let mut guard = guard
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let said = guard.stdout.take().map_or(Ok(String::new()), first_line);
    let said = said.map_err(failed)?;
    if said == READY {
        return Ok(());
    }
    guard.wait().map_err(failed)?;
    Err(match said.trim_end() {
        "" => format!(
            "{} can't be used: what watches over it ended without a word",
            way.name()
        ),
        why => why.to_owned(),
    })
}

/// Whether there is a guard, or what it has started.
pub(super) fn is_there(run: &Path) -> bool {
    let connected = short(run).and_then(|(_held, path)| UnixStream::connect(path));
    connected.is_ok()
}

fn first_line(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(from), &mut text)?;
    Ok(text)
}

/// Runs the guard. What goes wrong at first is said to who starts it.
pub(crate) fn guard(args: &GuardArgs) -> ExitCode {
    match Guard::begin(args) {
        Ok(guard) => {
            guard.watch();
            ExitCode::SUCCESS
        }
        Err(why) => {
            // Who does not listen any more has ended.
            let _ = io::stdout().write_all(format!("{why}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

struct Guard {
    args: GuardArgs,
    keeper: Pid,
    /// Readable when the keeper has ended.
    kept: OwnedFd,
    /// Where ports are asked for. It outlasts each relay, so that who asks meanwhile only waits.
    listener: UnixListener,
    way: Supervised,
    relay: Supervised,
}

impl Guard {
    fn begin(args: &GuardArgs) -> Result<Self, String> {
        let failed = |error: io::Error| format!("{} can't be used: {error}", args.way.name());
        let keeper = Pid::from_raw(args.keeper).ok_or("the keeper's pid is no number")?;
        let kept = pidfd_open(keeper, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        // A Ctrl-C at the terminal is for who typed the command.
        rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
        // pasta goes to the background once it is connected; then it is this process's to wait for.
        rustix::process::set_child_subreaper(Some(keeper)).map_err(|errno| failed(errno.into()))?;
        pasta::end_orphans(keeper);
        let way = args.way.start(keeper, &args.run)?;
        let listening = listen(&args.run).and_then(|listener| Ok((relay(args, &listener)?, listener)));
        let (relay, listener) = listening.map_err(failed).inspect_err(|_| {
            way.end();
            // It may not be there yet.
            let _ = std::fs::remove_file(args.run.join(API_SOCKET));
        })?;
        let mut guard = Self {
            args: args.clone(),
            keeper,
            kept,
            listener,
            way: Supervised::new(way),
            relay: Supervised::new(relay),
        };
        guard.name_heir();
        let told = io::stdout().write_all(READY.as_bytes());
        told.and_then(|()| {
            let null = std::fs::File::options().write(true).open("/dev/null")?;
            Ok(rustix::stdio::dup2_stdout(&null)?)
        })
        .map_err(failed)?;
        // Whatever is asked for from now on is there for the next relay, too.
        guard.args.again = true;
        Ok(guard)
    }

    /// Returns when the node has ended, and all that belongs to it here.
    fn watch(mut self) {
        while !self.wait() {
            if self.way.due().is_some_and(|due| due <= Instant::now()) {
                let started = self.args.way.start(self.keeper, &self.args.run);
                self.way.tried(started);
                self.name_heir();
            }
            if self.relay.due().is_some_and(|due| due <= Instant::now()) {
                let started = relay(&self.args, &self.listener);
                self.relay.tried(started);
                self.name_heir();
            }
        }
        // The relay would end the other when it heard of this one's end.
        for supervised in [&self.relay, &self.way] {
            if let Some(process) = supervised.process() {
                process.end();
            }
        }
    }

    /// Waits for something to happen, and returns whether the node has ended.
    fn wait(&mut self) -> bool {
        let due = [&self.way, &self.relay]
            .into_iter()
            .filter_map(Supervised::due)
            .min();
        let patience = due.map(|due| due.saturating_duration_since(Instant::now()));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut watched = vec![PollFd::new(&self.kept, PollFlags::IN)];
        let processes = [&self.way, &self.relay].map(Supervised::process);
        watched.extend(
            processes
                .iter()
                .flatten()
                .map(|process| PollFd::new(process.ended(), PollFlags::IN)),
        );
        match poll(&mut watched, patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => return false,
            Err(_) => return true,
            Ok(_) => {}
        }
        let mut woken = watched.iter().map(|watched| !watched.revents().is_empty());
        let node_has_ended = woken.next() == Some(true);
        let ended = processes.map(|process| process.is_some() && woken.next() == Some(true));
        for (supervised, has_ended) in [&mut self.way, &mut self.relay].into_iter().zip(ended) {
            if has_ended {
                supervised.has_ended();
            }
        }
        node_has_ended
    }

    /// Tells the relay which process is to end with this one, however that ends: in a user namespace of its own, pasta does
    /// not get the signal of a parent's death that it may have asked for.
    fn name_heir(&self) {
        let (way, relay) = (self.way.process(), self.relay.process());
        if let (Some(way), Some(relay)) = (way, relay.and_then(Process::life)) {
            // A relay that has ended ends nothing; the next one is told again.
            let _ = rustix::io::write(relay, format!("{}\n", way.pid.as_raw_nonzero()).as_bytes());
        }
    }
}

/// The directory is held, because a socket's address has room for 107 bytes only.
fn short(run: &Path) -> io::Result<(std::fs::File, PathBuf)> {
    let held = std::fs::File::open(run)?;
    let directory = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    Ok((held, directory.join(API_SOCKET)))
}

fn listen(run: &Path) -> io::Result<UnixListener> {
    let (_held, path) = short(run)?;
    match std::fs::remove_file(&path) {
        // Left by a guard that was killed.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The directory is the user's alone, too.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Starts the relay, and returns when it has the ports that it is to have from the beginning.
fn relay(args: &GuardArgs, listener: &UnixListener) -> io::Result<Process> {
    // It ends when this process does, and ends what it was told of here.
    let (own, other) = UnixStream::pair()?;
    let mut relay = Command::new(std::env::current_exe()?);
    relay
        .args(["rootless-relay", "--keeper", &args.keeper.to_string(), "--run"])
        .arg(&args.run);
    if args.again {
        relay.arg("--again");
    }
    let mut relay = relay
        .stdin(OwnedFd::from(listener.try_clone()?))
        .stdout(OwnedFd::from(other))
        .spawn()?;
    let said = first_line(&own)?;
    if said != READY {
        relay.wait()?;
        return Err(io::Error::other(format!(
            "what relays ports and names: {}",
            said.trim_end()
        )));
    }
    let pid = Pid::from_child(&relay);
    Ok(Process::of(pid, Some(own.into()))?)
}
