//! The process that an ordinary user's node is in: it has the user's namespaces, and ends, and they with it, when nothing
//! runs in them any more.
//!
//! It is the first process of the node's PID namespace, so that the kernel ends whatever is left when it is killed. Commands
//! are connected to its socket while they work; shims and daemons become its children.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::way_out::{WayOut, door as door_out_of, step_aside};
use super::{Groups, Network, SOCKET, groups, network, supervised};

/// Hold the namespaces of an ordinary user's node; berth starts this itself
#[derive(Args, Debug)]
pub(crate) struct KeeperArgs {
    /// The node's run directory
    #[arg(long)]
    run: PathBuf,

    /// The first process of the PID namespace
    #[arg(long)]
    first: bool,

    /// The node's control groups, in words of berth's own
    #[arg(long, default_value = "none")]
    groups: String,
}

/// The other end is who starts it: lines go both ways over standard output, which is a socket.
struct Starter {
    lines: BufReader<UnixStream>,
}

impl Starter {
    fn of_standard_output() -> io::Result<Self> {
        let socket = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self {
            lines: BufReader::new(UnixStream::from(socket)),
        })
    }

    fn say(&self, line: &str) -> io::Result<()> {
        writeln!(self.lines.get_ref(), "{line}")
    }

    fn hear(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }
}

/// Runs the keeper. What goes wrong is said to who starts it.
pub(crate) fn run(args: &KeeperArgs) -> ExitCode {
    let Ok(mut starter) = Starter::of_standard_output() else {
        eprintln!("berth: This command is berth's own; it starts it when an ordinary user runs pods.");
        return ExitCode::FAILURE;
    };
    let outcome = if args.first {
        keep(args, &mut starter)
    } else {
        begin(&args.run, &mut starter)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Who does not listen any more has ended.
            let _ = starter.say(&format!("error {why}"));
            ExitCode::FAILURE
        }
    }
}

fn failed(doing: &str) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("The namespaces of your node can't be made: {doing}: {error}.")
}

/// Makes the namespaces, and the first process in them.
fn begin(run: &Path, starter: &mut Starter) -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWUSER).map_err(why_no_user_namespace)?;
    starter.say("unshared").map_err(failed("tell of it"))?;
    let line = starter.hear().map_err(failed("wait for the ids"))?;
    let groups = Groups::parse(&line);
    let mut others = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    let mut door = None;
    if let Groups::Given { path, unit } = &groups {
        others |= CloneFlags::CLONE_NEWCGROUP;
        // systemd removes its own.
        if unit.is_none() {
            door = Some(door_out_of(path).map_err(failed("hold the control group"))?);
        }
    }
    unshare(others).map_err(why_not)?;
    if let Groups::Given { path, .. } = &groups {
        step_aside(path).map_err(failed("make a control group"))?;
    }
    let program = std::env::current_exe().map_err(failed("find berth itself"))?;
    let mut command = Command::new(program);
    command.args(["rootless-keeper", "--first", "--groups", &line, "--run"]);
    command.arg(run);
    if let Some(door) = door {
        command.stderr(door);
    }
    let child = command
        .current_dir("/")
        .spawn()
        .map_err(failed("start the first process"))?;
    starter
        .say(&format!("first {}", child.id()))
        .map_err(failed("tell of it"))
}

fn why_no_user_namespace(errno: Errno) -> String {
    let how = match errno {
        Errno::ENOSPC => "the sysctl user.max_user_namespaces allows no more",
        Errno::EPERM => "the sysctl kernel.unprivileged_userns_clone may be 0",
        _ => "the kernel refuses",
    };
    format!("An ordinary user needs a user namespace to run pods, and can't make one here: {how} ({errno}).")
}

fn why_not(errno: Errno) -> String {
    if errno != Errno::EPERM {
        return failed("unshare")(errno.into());
    }
    "Your user namespace may do nothing: a security module restricts it (on Ubuntu, the sysctl \
     kernel.apparmor_restrict_unprivileged_userns)."
        .to_owned()
}

/// Is the first process until nobody is left.
fn keep(args: &KeeperArgs, starter: &mut Starter) -> Result<(), String> {
    let (run, groups) = (args.run.as_path(), Groups::parse(&args.groups));
    let way_out = match &groups {
        Groups::Given { path, unit: None } => {
            Some(WayOut::behind_standard_error(path).map_err(failed("hold the control group"))?)
        }
        _ => None,
    };
    let network = Network::parse(&starter.hear().map_err(failed("wait for the network"))?);
    mount_own(run, &network, &groups)?;
    berth_cni::raise_loopback()
        .map_err(|error| format!("The loopback of your node can't be used: {error}."))?;
    let children = SigSet::from(Signal::SIGCHLD);
    children
        .thread_block()
        .map_err(|errno| failed("block SIGCHLD")(errno.into()))?;
    let ended = SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| failed("hear of children")(errno.into()))?;
    let listener = listen(run).map_err(failed("listen"))?;
    starter.say("ready").map_err(failed("tell of it"))?;
    detach().map_err(failed("detach from the starter"))?;
    let greeting = format!("{}\n{}\n", network.line(), groups.line());
    let served = serve(&listener, &ended, &greeting);
    network::remove_files(run);
    if let Some(way_out) = way_out {
        way_out.take();
    }
    // Last: who finds no socket starts another keeper.
    let _ = fs::remove_file(run.join(SOCKET));
    served.map_err(failed("serve"))
}

/// The node's own view: mounts that reach nobody else, its processes, and a name server that it can reach.
fn mount_own(run: &Path, network: &Network, groups: &Groups) -> Result<(), String> {
    let none = None::<&str>;
    let refused = |doing: &'static str| move |errno: Errno| failed(doing)(errno.into());
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .map_err(refused("keep mounts from the machine"))?;
    // Volumes pass on what is mounted in the node, as on a machine.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none)
        .map_err(refused("share mounts with pods"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, none).map_err(refused("mount /proc"))?;
    if let Groups::Given { path, .. } = groups {
        // A mount of its own is refused on top of one of the same file system.
        let own = groups::below_root(path);
        mount(Some(&own), groups::ROOT, none, MsFlags::MS_BIND, none)
            .map_err(refused("mount your control group"))?;
    }
    if let Network::Alone(_) = network {
        return Ok(());
    }
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = run.join("resolv.conf");
    fs::write(&own, network::resolv_conf(&host)).map_err(failed("write resolv.conf"))?;
    let bound = mount(Some(&own), "/etc/resolv.conf", none, MsFlags::MS_BIND, none);
    // The mount keeps the file.
    fs::remove_file(&own).map_err(failed("remove a file"))?;
    match bound {
        // A machine without that file has no name server to ask either.
        Err(Errno::ENOENT) => Ok(()),
        bound => bound.map_err(refused("mount resolv.conf")),
    }
}

/// The directory is held, because a socket's address has room for 107 bytes only.
fn listen(run: &Path) -> io::Result<UnixListener> {
    let held = File::open(run)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
    match fs::remove_file(&path) {
        // Left by a keeper that was killed.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    // The directory is the user's alone, too.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Nobody's terminal and session.
fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// Greets commands, and reaps what ends, until there is neither a command nor a child.
fn serve(listener: &UnixListener, ended: &SignalFd, greeting: &str) -> io::Result<()> {
    let mut commands: Vec<UnixStream> = Vec::new();
    // The one that starts this comes at once, or has ended; then there is nothing to wait for.
    let mut begun = false;
    loop {
        let mut watched = vec![
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        watched.extend(commands.iter().map(|command| PollFd::new(command, PollFlags::IN)));
        let patience = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        let woken = poll(&mut watched, (!begun).then_some(&patience));
        match woken {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => begun = true,
            other => drop(other?),
        }
        // Commands say nothing: what comes from one is its end.
        let ends: Vec<bool> = watched
            .iter()
            .skip(2)
            .map(|command| !command.revents().is_empty())
            .collect();
        drop(watched);
        let mut ends = ends.into_iter();
        commands.retain(|_| ends.next() == Some(false));
        while let Ok((command, _)) = listener.accept() {
            begun = true;
            let greeted = command
                .set_nonblocking(true)
                .and_then(|()| (&command).write_all(greeting.as_bytes()));
            if greeted.is_ok() {
                commands.push(command);
            }
        }
        let mut has_child_ended = false;
        while let Ok(Some(_)) = ended.read_signal() {
            has_child_ended = true;
        }
        if has_child_ended {
            end_orphans();
        }
        let has_children = reap();
        if begun && commands.is_empty() && !has_children {
            return Ok(());
        }
    }
}

/// Ends containers whose shim has ended, which makes them children of this process: where there is no control group, nobody else
/// knows of them. Each is the first of a PID namespace, and all that is in that ends with it.
fn end_orphans() {
    for child in supervised::children().into_iter().flatten() {
        let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero()));
        if is_in_namespace_below(&status.unwrap_or_default()) {
            // One that has ended is not reaped yet, and its number nobody else's.
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}

/// Whether a process of the node has another PID namespace than the node, see proc_pid_status(5).
fn is_in_namespace_below(status: &str) -> bool {
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_some_and(|pids| pids.split_whitespace().count() > 1)
}

/// Returns whether there is a child that lives.
fn reap() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_numbers_of_two_namespaces_is_below() {
        assert!(is_in_namespace_below(
            "Name:\thttpd\nNSpid:\t12\t1\nNSsid:\t12\t1\n"
        ));
        assert!(!is_in_namespace_below(
            "Name:\tberth\nNSpid:\t12\nNSsid:\t12\t1\n"
        ));
        assert!(!is_in_namespace_below(""));
    }
}
