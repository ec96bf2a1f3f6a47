//! pasta(1) as the way out of an ordinary user's node, and the process that watches over it.
//!
//! pasta's ports are fixed when it begins, it passes no names to a server on the machine's loopback, and Debian 12's stays when
//! its namespace has gone. So it has a guard outside of the node's namespaces, which starts it anew when it dies and ends it with
//! the node, and a relay (see [`super::relay`]) for names and for ports.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// The node's address, which is the name server's of its pods.
pub(super) const ADDRESS: &str = "10.0.2.100";
/// What the machine is in the node's routes.
const GATEWAY: &str = "10.0.2.2";
/// The interface in the node's namespace.
const INTERFACE: &str = "tap0";
/// Between two attempts to start a pasta that dies.
const PAUSE: Duration = Duration::from_secs(1);
/// What it says when it is connected.
const READY: &str = "ready\n";

/// Keep an ordinary user's node connected; berth starts this itself
#[derive(Args, Debug)]
pub(crate) struct GuardArgs {
    /// The node's run directory
    #[arg(long)]
    run: PathBuf,

    /// The keeper of the node's namespaces
    #[arg(long)]
    keeper: i32,
}

/// Connects the network namespace of a process with the machine's, for as long as the process is there.
///
/// # Errors
/// A sentence without its end: why pasta is not the way out.
pub(super) fn connect(pid: u32, run: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("pasta can't be started: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut guard = Command::new(program)
        .args(["rootless-network", "--keeper", &pid.to_string(), "--run"])
        .arg(run)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let said = first_line(guard.stdout.take()).map_err(failed)?;
    if said == READY {
        return Ok(());
    }
    guard.wait().map_err(failed)?;
    Err(match said.trim_end() {
        "" => "pasta can't be used: what watches over it ended without a word".to_owned(),
        why => why.to_owned(),
    })
}

/// Whether it is preferred to slirp4netns. Debian 12's, which does not know its version, loses what a client sends that closes
/// its side of the connection at once.
pub(super) fn comes_first() -> bool {
    let asked = Command::new("pasta")
        .arg("--version")
        .stdin(Stdio::null())
        .output();
    asked.is_ok_and(|answer| {
        answer.status.success() && knows_version(&String::from_utf8_lossy(&answer.stdout))
    })
}

fn knows_version(said: &str) -> bool {
    let version = said.lines().next().and_then(|line| line.strip_prefix("pasta "));
    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

fn first_line(output: Option<ChildStdout>) -> io::Result<String> {
    let mut text = String::new();
    if let Some(output) = output {
        io::BufRead::read_line(&mut io::BufReader::new(output), &mut text)?;
    }
    Ok(text)
}

/// Runs the guard. What goes wrong at first is said to who starts it.
pub(crate) fn guard(args: &GuardArgs) -> ExitCode {
    match begin(args) {
        Ok(guarded) => {
            guarded.watch();
            ExitCode::SUCCESS
        }
        Err(why) => {
            // Who does not listen any more has ended.
            let _ = io::stdout().write_all(format!("{why}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

struct Guarded {
    keeper: Pid,
    /// Readable when the keeper has ended.
    kept: OwnedFd,
    pasta: Pasta,
    relay: Child,
}

/// One that runs in the background.
struct Pasta {
    pid: Pid,
    /// Readable when it has ended.
    ended: OwnedFd,
}

fn begin(args: &GuardArgs) -> Result<Guarded, String> {
    let failed = |error: io::Error| format!("pasta can't be used: {error}");
    let keeper = Pid::from_raw(args.keeper).ok_or("the keeper's pid is no number")?;
    let kept = pidfd_open(keeper, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    // A Ctrl-C at the terminal is for who typed the command.
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    // pasta goes to the background once it is connected; then it is this process's to wait for.
    rustix::process::set_child_subreaper(Some(keeper)).map_err(|errno| failed(errno.into()))?;
    let pasta = start(keeper)?;
    let relay = relay(args).inspect_err(|_| pasta.end())?;
    let mut guarded = Guarded {
        keeper,
        kept,
        pasta,
        relay,
    };
    guarded.name_heir();
    let told = io::stdout().write_all(READY.as_bytes());
    told.and_then(|()| {
        let null = std::fs::File::options().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    })
    .map_err(failed)?;
    Ok(guarded)
}

impl Guarded {
    /// Returns when the node has ended, and all that belongs to it here.
    fn watch(mut self) {
        loop {
            let mut watched = [
                PollFd::new(&self.kept, PollFlags::IN),
                PollFd::new(&self.pasta.ended, PollFlags::IN),
            ];
            match poll(&mut watched, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
                Ok(_) => {}
            }
            let [kept, _] = &watched;
            if !kept.revents().is_empty() {
                break;
            }
            // It is the pasta that has ended.
            self.pasta.reap();
            match start(self.keeper) {
                Ok(pasta) => {
                    self.pasta = pasta;
                    self.name_heir();
                }
                Err(_) if self.has_ended_within(PAUSE) => break,
                Err(_) => {}
            }
        }
        self.pasta.end();
        // It may have ended by itself, with the keeper.
        let _ = self.relay.kill();
        let _ = self.relay.wait();
    }

    /// Tells the relay which pasta is to end with this process, however that ends: in a user namespace of its own, pasta does
    /// not get the signal of a parent's death that it may have asked for.
    fn name_heir(&mut self) {
        if let Some(relay) = &mut self.relay.stdin {
            // A relay that has ended ends nothing, and is no reason to leave the pods without a way out.
            let _ = writeln!(relay, "{}", self.pasta.pid.as_raw_nonzero());
        }
    }

    fn has_ended_within(&self, pause: Duration) -> bool {
        let Ok(pause) = Timespec::try_from(pause) else {
            return true;
        };
        let mut watched = [PollFd::new(&self.kept, PollFlags::IN)];
        poll(&mut watched, Some(&pause)) == Ok(1)
    }
}

impl Pasta {
    fn end(&self) {
        // One that has ended needs no signal.
        let _ = pidfd_send_signal(&self.ended, Signal::KILL);
        self.reap();
    }

    fn reap(&self) {
        let id = WaitId::PidFd(self.ended.as_fd());
        let _ = waitid(id, WaitIdOptions::EXITED);
    }
}

/// Starts pasta, and returns when the node is connected. Nothing is mapped to the machine's loopback, and no port of either
/// side to the other.
fn start(keeper: Pid) -> Result<Pasta, String> {
    let failed = |error: io::Error| format!("pasta can't be started: {error}");
    let of_keeper = |name: &str| format!("/proc/{}/ns/{name}", keeper.as_raw_nonzero());
    let before = children().map_err(failed)?;
    let mut pasta = Command::new("pasta");
    pasta
        .args(["--quiet", "--config-net", "--ipv4-only", "--ns-ifname", INTERFACE])
        .args(["--address", ADDRESS, "--netmask", "24", "--gateway", GATEWAY])
        .args(["--no-map-gw", "--no-dhcp", "--no-ndp", "--no-ra", "--no-dhcpv6"])
        .args([
            "-t", "none", "-u", "none", "-T", "none", "-U", "none", "-D", "none",
        ])
        .args(["--userns", &of_keeper("user"), "--netns", &of_keeper("net")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut pasta = pasta.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "pasta is not installed".to_owned(),
        _ => failed(error),
    })?;
    let mut said = String::new();
    if let Some(mut errors) = pasta.stderr.take() {
        errors.read_to_string(&mut said).map_err(failed)?;
    }
    let status = pasta.wait().map_err(failed)?;
    if !status.success() {
        return Err(format!("pasta can't be used: {}", complaint(&said)));
    }
    let after = children().map_err(failed)?;
    let in_background = after.into_iter().find(|child| !before.contains(child));
    let pid = in_background.and_then(Pid::from_raw);
    let pid = pid.ok_or("pasta can't be used: it ended at once")?;
    let ended = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
    Ok(Pasta { pid, ended })
}

/// This process's, which has one thread.
fn children() -> io::Result<Vec<i32>> {
    let listed = std::fs::read_to_string(format!("/proc/self/task/{0}/children", std::process::id()))?;
    Ok(listed
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}

/// What it says, but for what it says of the system's log.
fn complaint(said: &str) -> String {
    let lines = said.lines().map(str::trim);
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.ends_with(" to syslog"))
        .collect();
    match lines.as_slice() {
        [] => "it ended without a word".to_owned(),
        lines => lines.join("; ").trim_end_matches('.').to_owned(),
    }
}

fn relay(args: &GuardArgs) -> Result<Child, String> {
    let failed =
        |error: io::Error| format!("pasta can't be used without what relays ports and names: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut relay = Command::new(program)
        .args(["rootless-relay", "--keeper", &args.keeper.to_string(), "--run"])
        .arg(&args.run)
        // It ends when this process does, and ends what it was told of here.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let said = first_line(relay.stdout.take()).map_err(failed)?;
    if said == READY {
        return Ok(relay);
    }
    relay.wait().map_err(failed)?;
    Err(failed(io::Error::other(said.trim_end().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasta_without_a_version_is_an_old_one() {
        assert!(knows_version("pasta 2024_12_11.09478d5\nCopyright Red Hat\n"));
        assert!(knows_version("pasta 0.0~git20250503.587980c-2\n"));
        assert!(!knows_version("pasta unknown version\n"));
        assert!(!knows_version(""));
    }

    #[test]
    fn what_pasta_says_is_passed_on() {
        let said = "Failed to send 46 bytes to syslog\nNo external routable interface for IPv4\nExternal interface not usable\n";
        assert_eq!(
            complaint(said),
            "No external routable interface for IPv4; External interface not usable"
        );
        assert_eq!(
            complaint("Failed to send 4 bytes to syslog\n"),
            "it ended without a word"
        );
    }
}
