//! Into the namespaces of the user's node, which are made if there are none.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FlockOperation;
use rustix::process::geteuid;

use super::notifications::Notifications;
use super::{Groups, Network, Rootless, SOCKET, VARIABLE, ids, network};
use crate::root::Root;
use crate::service_manager::SOCKET as SERVICE_MANAGER;

/// Where a system keeps root's programs, which an ordinary user's `PATH` may leave out: `nft` is one.
const ROOTS_PROGRAMS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The code of signals that the terminal sends, see sigaction(2).
const SI_KERNEL: i32 = 0x80;

/// A node's keeper, which does not end while this is there.
struct Keeper {
    _connection: UnixStream,
    pid: i32,
    network: Network,
    groups: Groups,
}

/// What a command wants of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its network; else the machine's is kept.
    pub(crate) network: bool,
    /// To start pods.
    pub(crate) starts_pods: bool,
}

/// Runs this very command in the namespaces of an ordinary user's node, and returns what it ends with. `None`: it is root's,
/// or in the namespaces already.
///
/// # Errors
/// A sentence that says why an ordinary user can't have a node here.
pub(crate) fn enter(root: &Root, entry: Entry) -> Result<Option<ExitCode>, String> {
    if geteuid().is_root() {
        end_with_parent();
        return Ok(None);
    }
    let keeper = find_or_start(&root.run)?;
    let here = Rootless {
        uid: geteuid().as_raw(),
        first_port: first_port(),
        network: keeper.network.clone(),
        groups: keeper.groups.clone(),
    };
    if entry.starts_pods {
        keeper.groups.enter()?;
    }
    let program = std::env::current_exe().map_err(|error| format!("berth can't find itself: {error}."))?;
    let directory = std::env::current_dir();
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, here.text())
        .env("PATH", search_path());
    // The manager's socket may be one of this network namespace's.
    let notifications = match entry.starts_pods {
        true => Notifications::take(&root.run)
            .map_err(|error| format!("The service manager that started berth can't be reached: {error}."))?,
        false => None,
    };
    if let Some(notifications) = &notifications {
        command.env(SERVICE_MANAGER, notifications.path());
    }
    // Before the first child: it ends, and is sent to, what must not be missed.
    let signals = Signals::take().map_err(|error| format!("Signals can't be taken: {error}."))?;
    join(&keeper, entry.network)
        .map_err(|error| format!("The namespaces of your node can't be entered: {error}."))?;
    // The new mount namespace's root is where one begins in it.
    if let Ok(directory) = directory {
        command.current_dir(directory);
    }
    let child = command
        .spawn()
        .map_err(|error| format!("berth can't run itself in the namespaces of your node: {error}."))?;
    let status = signals
        .pass_on_to(child, notifications.as_ref())
        .map_err(|error| format!("The command can't be waited for: {error}."))?;
    Ok(Some(exit_code(status)))
}

/// The first port that is not root's, in the network namespace of this process.
pub(super) fn first_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024)
}

/// A command whose parent is outside of its PID namespace has one that waits for it: it ends with that one, and the signals
/// that are blocked there are its own.
fn end_with_parent() {
    if Rootless::here().is_some() && rustix::process::getppid().is_none() {
        let _ = passed().thread_unblock();
        // Then it goes on when the other is killed, which costs nothing but the surprise.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    }
}

fn search_path() -> String {
    let mut path = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    for directory in ROOTS_PROGRAMS {
        if !path.split(':').any(|known| known == directory) {
            path.push(':');
            path.push_str(directory);
        }
    }
    path
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let by_signal = || status.signal().and_then(|signal| u8::try_from(128 + signal).ok());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.or_else(by_signal).unwrap_or(1))
}

/// The user namespace comes first: it gives the right to the others.
fn join(keeper: &Keeper, with_network: bool) -> io::Result<()> {
    let pid = keeper.pid;
    let with_groups = matches!(keeper.groups, Groups::Given { .. });
    let kinds = [
        ("user", CloneFlags::CLONE_NEWUSER, true),
        ("pid", CloneFlags::CLONE_NEWPID, true),
        ("net", CloneFlags::CLONE_NEWNET, with_network),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP, with_groups),
        ("mnt", CloneFlags::CLONE_NEWNS, true),
    ];
    let open = |(name, kind, _)| Ok((File::open(format!("/proc/{pid}/ns/{name}"))?, kind));
    let wanted = kinds.into_iter().filter(|(_, _, wanted)| *wanted);
    let opened: Vec<(File, CloneFlags)> = wanted.map(open).collect::<io::Result<_>>()?;
    opened
        .into_iter()
        .try_for_each(|(file, kind)| Ok(setns(file, kind)?))
}

/// Two commands at the same time make one node.
fn find_or_start(run: &Path) -> Result<Keeper, String> {
    let failed = |error: io::Error| format!("The directory {} can't be used: {error}.", run.display());
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(run)
        .map_err(failed)?;
    if let Some(keeper) = find(run)
        && !network::is_cut_off(&keeper.network, run)
    {
        return Ok(keeper);
    }
    let held = File::open(run).map_err(failed)?;
    rustix::fs::flock(&held, FlockOperation::LockExclusive).map_err(|errno| failed(errno.into()))?;
    if let Some(keeper) = find(run) {
        // Its guard was killed.
        if let Err(why) = network::connect_again(&keeper.network, keeper.pid, run) {
            eprintln!("berth: warning: your pods have lost their network: {why}.");
        }
        return Ok(keeper);
    }
    start(run)?;
    find(run).ok_or_else(|| "The process that has the namespaces of your node ended at once.".to_owned())
}

/// The keeper that listens, if there is one that does not end just now.
fn find(run: &Path) -> Option<Keeper> {
    let held = File::open(run).ok()?;
    let path = format!(
        "/proc/self/fd/{}/{SOCKET}",
        std::os::fd::AsRawFd::as_raw_fd(&held)
    );
    let connection = UnixStream::connect(path).ok()?;
    let mut lines = BufReader::new(&connection).lines();
    let mut line = || lines.next()?.ok();
    let (network, groups) = (Network::parse(&line()?), Groups::parse(&line()?));
    // As this process's PID namespace numbers it; the connection keeps it from being another's.
    let pid = rustix::net::sockopt::socket_peercred(&connection).ok()?.pid;
    Some(Keeper {
        network,
        groups,
        pid: pid.as_raw_nonzero().get(),
        _connection: connection,
    })
}

/// Starts a keeper, gives it ids and a network, and returns when it listens.
fn start(run: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("The namespaces of your node can't be made: {error}.");
    let (control, other) = UnixStream::pair().map_err(failed)?;
    let program = std::env::current_exe().map_err(failed)?;
    let mut child = Command::new(program)
        .args(["rootless-keeper", "--run"])
        .arg(run)
        .stdin(Stdio::null())
        .stdout(Stdio::from(OwnedFd::from(other)))
        .spawn()
        .map_err(failed)?;
    let pid = child.id();
    let mut control = BufReader::new(control);
    let outcome = (|| {
        hear(&mut control, "unshared")?;
        ids::map(pid)?;
        let groups = Groups::give(pid, run);
        tell(&control, &groups.line())?;
        let first = hear(&mut control, "first ")?;
        let first = first
            .parse()
            .map_err(|_| "The keeper's pid is no number.".to_owned())?;
        let network = network::connect(first, run)?;
        tell(&control, &network.line())?;
        hear(&mut control, "ready").map(drop)
    })();
    drop(control);
    // It has ended by then, or ends for want of an answer.
    child.wait().map_err(failed)?;
    outcome
}

fn tell(control: &BufReader<UnixStream>, line: &str) -> Result<(), String> {
    writeln!(control.get_ref(), "{line}").map_err(|error| format!("The keeper can't be told: {error}."))
}

/// What the keeper says, after the word that is due.
fn hear(control: &mut BufReader<UnixStream>, due: &str) -> Result<String, String> {
    let mut line = String::new();
    let read = control.by_ref().read_line(&mut line);
    let line = line.trim_end();
    match (read, line.strip_prefix(due)) {
        (Ok(_), Some(rest)) => Ok(rest.to_owned()),
        (Err(error), _) => Err(format!("The keeper can't be heard: {error}.")),
        _ => Err(match line.strip_prefix("error ") {
            Some(why) => why.to_owned(),
            None => "The process that was to have the namespaces of your node ended at once.".to_owned(),
        }),
    }
}

/// What signals this process gets while the command works in the namespaces.
struct Signals(SignalFd);

/// Those that it passes on, and the one of children.
fn passed() -> SigSet {
    let all = [
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ];
    all.into_iter().collect()
}

impl Signals {
    fn take() -> io::Result<Self> {
        passed().thread_block()?;
        Ok(Self(SignalFd::with_flags(&passed(), SfdFlags::SFD_CLOEXEC)?))
    }

    /// Waits for a child. What the terminal sends has reached it already, as it is of this process's group.
    /// What it says to a service manager is passed on meanwhile.
    fn pass_on_to(&self, mut child: Child, notifications: Option<&Notifications>) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(child.id().cast_signed());
        loop {
            if let Some(notifications) = notifications {
                let mut watched = [
                    PollFd::new(&self.0, PollFlags::IN),
                    PollFd::new(notifications, PollFlags::IN),
                ];
                match poll(&mut watched, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    polled => drop(polled?),
                }
                let [signal, _] = &watched;
                notifications.pass_on();
                if signal.revents().is_empty() {
                    continue;
                }
            }
            let Some(got) = self.0.read_signal()? else {
                continue;
            };
            let signal = Signal::try_from(got.ssi_signo.cast_signed())?;
            if signal == Signal::SIGCHLD {
                if let Some(status) = child.try_wait()? {
                    return Ok(status);
                }
            } else if got.ssi_code != SI_KERNEL {
                // One that has ended is waited for next.
                let _ = kill(pid, signal);
            }
        }
    }
}
