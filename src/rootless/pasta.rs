//! pasta(1) as the way out of an ordinary user's node.
//!
//! It connects what leaves the node, and nothing else: its ports are fixed when it begins, and a name server on the machine's
//! loopback it reaches only along with all else that listens there.

use std::fs;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::guard::GUARD;
use super::network::{ADDRESS, INTERFACE};
use super::supervised::{Process, children};

/// What the machine is in the node's routes.
const GATEWAY: &str = "10.0.2.2";

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

/// Starts pasta, and returns when the node is connected. Nothing is mapped to the machine's loopback, and no port of either
/// side to the other.
pub(super) fn start(keeper: Pid) -> Result<Process, String> {
    let failed = |error: io::Error| format!("pasta can't be started: {error}");
    let users = format!("/proc/{}/ns/user", keeper.as_raw_nonzero());
    let before = children().map_err(failed)?;
    let mut pasta = Command::new("pasta");
    pasta
        .args(["--quiet", "--config-net", "--ipv4-only", "--ns-ifname", INTERFACE])
        .args(["--address", ADDRESS, "--netmask", "24", "--gateway", GATEWAY])
        .args(["--no-map-gw", "--no-dhcp", "--no-ndp", "--no-ra", "--no-dhcpv6"])
        .args([
            "-t", "none", "-u", "none", "-T", "none", "-U", "none", "-D", "none",
        ])
        .args(["--userns", &users, "--netns", &network_of(keeper)])
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
    let pid = after.into_iter().find(|child| !before.contains(child));
    let pid = pid.ok_or("pasta can't be used: it ended at once")?;
    Process::of(pid, None).map_err(|errno| failed(errno.into()))
}

/// Ends what outlived a guard and its relay: Debian 12's pasta stays when its namespace has gone, and keeps the next one out
/// while that is there.
pub(super) fn end_orphans(keeper: Pid) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        let Some(connected) = connects(&command_line(pid)) else {
            continue;
        };
        let is_of_nobody = connected == keeper || !fs::exists(network_of(connected)).unwrap_or(true);
        if is_of_nobody && !has_guard(pid) {
            // Another user's is refused.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn command_line(pid: Pid) -> Vec<u8> {
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default()
}

fn has_guard(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let parent = parent.and_then(|pid| Pid::from_raw(pid.trim().parse().ok()?));
    parent.is_some_and(|parent| {
        let words = command_line(parent);
        words
            .split(|byte| *byte == 0)
            .any(|word| word == GUARD.as_bytes())
    })
}

fn network_of(keeper: Pid) -> String {
    format!("/proc/{}/ns/net", keeper.as_raw_nonzero())
}

/// The keeper whose node a pasta of berth's connects, by its command line.
fn connects(command_line: &[u8]) -> Option<Pid> {
    let mut words = command_line.split(|byte| *byte == 0);
    let is_pasta = words.next()?.ends_with(b"pasta");
    let is_own = words.any(|word| word == INTERFACE.as_bytes()) && words.any(|word| word == b"--netns");
    let path = std::str::from_utf8(words.next()?).ok()?;
    let pid = path.strip_prefix("/proc/")?.strip_suffix("/ns/net")?;
    Pid::from_raw(pid.parse().ok()?).filter(|_| is_pasta && is_own)
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

    #[test]
    fn a_pasta_of_berth_s_is_known_by_its_command_line() {
        let words = |line: &str| line.replace(' ', "\0").into_bytes();
        let own = "/usr/bin/pasta --quiet --ns-ifname tap0 --userns /proc/7/ns/user --netns /proc/7/ns/net";
        assert_eq!(
            connects(&words(own)).map(|pid| pid.as_raw_nonzero().get()),
            Some(7)
        );
        for other in [
            "",
            "/usr/bin/pasta",
            "/usr/bin/pasta --config-net --netns /proc/7/ns/net",
            "/usr/bin/pasta --ns-ifname tap0 --netns /run/user/1000/netns/x",
            "/usr/bin/pasta --ns-ifname tap0 --netns",
            "/usr/bin/pasta --ns-ifname tap0 --netns /proc/0/ns/net",
            "vi pasta.rs --ns-ifname tap0 --netns /proc/7/ns/net",
        ] {
            assert_eq!(connects(&words(other)), None, "{other}");
        }
    }
}
