//! The way out of an ordinary user's node: pasta(1) or slirp4netns(1), which the user may run, carries what leaves the node's
//! network namespace; a relay carries the machine's ports into it, and names out of it.

use std::fs;
use std::path::Path;

use clap::ValueEnum;
use rustix::process::Pid;

use super::supervised::Process;
use super::{API_SOCKET, Network, guard, pasta, slirp4netns};

/// The node's address, which is the name server's of its pods.
pub(super) const ADDRESS: &str = "10.0.2.100";
/// The interface in the node's namespace.
pub(super) const INTERFACE: &str = "tap0";

/// Names the program to take; else it is the first of them that can be used.
const CHOICE: &str = "BERTH_ROOTLESS_NETWORK";

/// A program that connects a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    Pasta,
    Slirp4netns,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Connects the node of a keeper.
    pub(super) fn start(self, keeper: Pid, run: &Path) -> Result<Process, String> {
        match self {
            Self::Pasta => pasta::start(keeper),
            Self::Slirp4netns => slirp4netns::start(keeper, run),
        }
    }
}

/// Connects the network namespace of a keeper with the machine's, until the keeper ends.
///
/// # Errors
/// A sentence: the user asks for what there is not.
pub(super) fn connect(keeper: i32, run: &Path) -> Result<Network, String> {
    let by = |way| guard::start(way, keeper, run, false).map(|()| Network::By(way));
    let choice = std::env::var(CHOICE).unwrap_or_default();
    let wanted = |why| format!("{CHOICE} asks for {choice}, but {why}.");
    let either = |[first, second]: [Way; 2]| {
        let neither = |one, other| Network::Alone(format!("{one}, and {other}"));
        by(first)
            .or_else(|one| by(second).map_err(|other| neither(one, other)))
            .unwrap_or_else(|alone| alone)
    };
    match choice.as_str() {
        "" if pasta::comes_first() => Ok(either([Way::Pasta, Way::Slirp4netns])),
        "" => Ok(either([Way::Slirp4netns, Way::Pasta])),
        "pasta" => by(Way::Pasta).map_err(wanted),
        "slirp4netns" => by(Way::Slirp4netns).map_err(wanted),
        "none" => Ok(Network::Alone(format!("{CHOICE} is none"))),
        _ => Err(format!(
            "The environment's {CHOICE} is {choice}, which berth does not know; it may be pasta, slirp4netns or none."
        )),
    }
}

/// Connects a node again whose guard was killed. Who calls holds the lock of the node's directory.
///
/// # Errors
/// A sentence without its end: why it stays by itself.
pub(super) fn connect_again(network: &Network, keeper: i32, run: &Path) -> Result<(), String> {
    match network {
        Network::By(way) if !guard::is_there(run) => guard::start(*way, keeper, run, true),
        _ => Ok(()),
    }
}

/// Whether a node lacks what connects it.
pub(super) fn is_cut_off(network: &Network, run: &Path) -> bool {
    matches!(network, Network::By(_)) && !guard::is_there(run)
}

/// The files of the way out, once it is not needed any more.
pub(super) fn remove_files(run: &Path) {
    // What is not there needs no removal.
    let _ = fs::remove_file(run.join(API_SOCKET));
}

/// What resolv.conf(5) says in the node: its name server is the relay, which asks the machine's.
pub(super) fn resolv_conf(host: &str) -> String {
    let kept = host
        .lines()
        .filter(|line| !line.trim_start().starts_with("nameserver"));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    text.push_str("nameserver ");
    text.push_str(ADDRESS);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_relay() {
        assert_eq!(
            resolv_conf("nameserver 127.0.0.53\nsearch a b\noptions edns0\n"),
            "search a b\noptions edns0\nnameserver 10.0.2.100\n"
        );
    }
}
