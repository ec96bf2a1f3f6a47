//! The way out of an ordinary user's node: pasta(1) or slirp4netns(1), which the user may run, carries what leaves the node's
//! network namespace; ports of the machine are forwarded to it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Network, pasta};

/// What slirp4netns answers names with.
const NAME_SERVER: &str = "10.0.2.3";
/// The interface in the node's namespace.
const INTERFACE: &str = "tap0";
/// What slirp4netns says when it ends too early.
const LOG: &str = "slirp4netns.log";

/// Names the program to take; else it is the first of them that can be used.
const CHOICE: &str = "BERTH_ROOTLESS_NETWORK";

/// Connects the network namespace of a process with the machine's, until the process ends, which has the other end of `life`.
///
/// # Errors
/// A sentence: the user asks for what there is not.
pub(super) fn connect(pid: u32, run: &Path, life: OwnedFd) -> Result<Network, String> {
    let with_pasta = || pasta::connect(pid, run).map(|()| Network::Pasta);
    let with_slirp4netns = || slirp4netns(pid, run, life).map(|()| Network::Slirp4netns);
    let choice = std::env::var(CHOICE).unwrap_or_default();
    let wanted = |why| format!("{CHOICE} asks for {choice}, but {why}.");
    let neither = |one, other| Network::Alone(format!("{one}, and {other}"));
    match choice.as_str() {
        "" if pasta::comes_first() => Ok(with_pasta()
            .or_else(|one| with_slirp4netns().map_err(|other| neither(one, other)))
            .unwrap_or_else(|alone| alone)),
        "" => Ok(with_slirp4netns()
            .or_else(|one| with_pasta().map_err(|other| neither(one, other)))
            .unwrap_or_else(|alone| alone)),
        "pasta" => with_pasta().map_err(wanted),
        "slirp4netns" => with_slirp4netns().map_err(wanted),
        "none" => Ok(Network::Alone(format!("{CHOICE} is none"))),
        _ => Err(format!(
            "The environment's {CHOICE} is {choice}, which berth does not know; it may be pasta, slirp4netns or none."
        )),
    }
}

/// What answers names in the node, where there is a way out.
pub(super) fn name_server(network: &Network) -> Option<&'static str> {
    match network {
        Network::Pasta => Some(pasta::ADDRESS),
        Network::Slirp4netns => Some(NAME_SERVER),
        Network::Alone(_) => None,
    }
}

/// slirp4netns as the way out. It ends when the other end of `life` is closed.
///
/// # Errors
/// A sentence without its end: why the node stays by itself.
fn slirp4netns(pid: u32, run: &Path, life: OwnedFd) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("slirp4netns can't be started: {error}");
    let (ready, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let log = run.join(LOG);
    let said = File::create(&log).map_err(failed)?;
    for fd in [&tell, &life] {
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
        .arg("--ready-fd")
        .arg(tell.as_raw_fd().to_string())
        .arg("--exit-fd")
        .arg(life.as_raw_fd().to_string())
        .arg("--api-socket")
        .arg(super::api_socket(run))
        .args([&pid.to_string(), INTERFACE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        // A Ctrl-C at the terminal is for who typed the command.
        .process_group(0)
        .spawn();
    drop((tell, life));
    match child {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err("slirp4netns is not installed".to_owned());
        }
        Err(error) => return Err(failed(error)),
    }
    let mut answer = Vec::new();
    File::from(ready).read_to_end(&mut answer).map_err(failed)?;
    if answer == b"1" {
        return Ok(());
    }
    let said = fs::read_to_string(&log).unwrap_or_default();
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

/// The files of the way out, once it is not needed any more.
pub(super) fn remove_files(run: &Path) {
    // What is not there needs no removal.
    let _ = fs::remove_file(super::api_socket(run));
    let _ = fs::remove_file(run.join(LOG));
}

/// What resolv.conf(5) says in the node: its name server is one that asks the machine's.
pub(super) fn resolv_conf(host: &str, name_server: &str) -> String {
    let kept = host
        .lines()
        .filter(|line| !line.trim_start().starts_with("nameserver"));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    text.push_str("nameserver ");
    text.push_str(name_server);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_way_out() {
        assert_eq!(
            resolv_conf("nameserver 127.0.0.53\nsearch a b\noptions edns0\n", NAME_SERVER),
            "search a b\noptions edns0\nnameserver 10.0.2.3\n"
        );
    }
}
