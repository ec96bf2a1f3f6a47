//! berth for an ordinary user: the same program, as root of a user namespace of the user's.
//!
//! A node of such a user is a user, mount, network and PID namespace, which a keeper has. Whatever the user asks for is done
//! by this program in there: who typed the command waits outside, and passes on what it is sent.

mod groups;
mod guard;
mod ids;
mod join;
mod keeper;
mod network;
mod notifications;
mod pasta;
mod relay;
mod slirp4netns;
mod supervised;
mod way_out;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use berth_cri::cgroups::{Controller, Hierarchies};
use berth_kubelet::Lacking;
use berth_kubelet::manifest::{OrdinaryUser, UserGroups};
// Its text: the user's id and the first port that the user may have, the network, the control groups; a line each.
use berth_kubelet::standalone::ORDINARY_USER as VARIABLE;

use groups::Groups;
pub(crate) use guard::{GuardArgs, guard};
pub(crate) use join::{Entry, enter};
pub(crate) use keeper::{KeeperArgs, run as keep};
use network::Way;
pub(crate) use relay::{RelayArgs, run as relay};

/// The keeper's socket, in the node's run directory.
const SOCKET: &str = "keeper.sock";
/// Where ports of the machine are asked for, in the node's run directory.
const API_SOCKET: &str = "ports.sock";

/// How an ordinary user's node reaches the world.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Network {
    /// By a program.
    By(Way),
    /// Not at all, and why.
    Alone(String),
}

impl Network {
    fn line(&self) -> String {
        match self {
            Self::By(way) => way.name().to_owned(),
            Self::Alone(why) => format!("alone {why}"),
        }
    }

    fn parse(line: &str) -> Self {
        match line.strip_prefix("alone ") {
            Some(why) => Self::Alone(why.to_owned()),
            None if line == Way::Pasta.name() => Self::By(Way::Pasta),
            None => Self::By(Way::Slirp4netns),
        }
    }
}

/// What this program is told that runs in an ordinary user's namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rootless {
    /// The user, as the machine knows it.
    pub(crate) uid: u32,
    /// Ports below this one are root's.
    pub(crate) first_port: u16,
    network: Network,
    groups: Groups,
}

impl Rootless {
    /// `None` where this program is not in such namespaces.
    pub(crate) fn here() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || berth_cri::cgroups::is_machines_root() {
            return None;
        }
        Self::parse(&std::env::var(VARIABLE).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.splitn(3, '\n');
        let (uid, first_port) = lines.next()?.split_once(' ')?;
        Some(Self {
            uid: uid.parse().ok()?,
            first_port: first_port.parse().ok()?,
            network: Network::parse(lines.next()?),
            groups: Groups::parse(lines.next()?),
        })
    }

    fn text(&self) -> String {
        let (network, groups) = (self.network.line(), self.groups.line());
        format!("{} {}\n{network}\n{groups}", self.uid, self.first_port)
    }

    /// What an ordinary user's pods can't have; `None` for root's. Where manifests are only looked at, outside of the
    /// namespaces, a node is taken for granted that has all that it could have.
    pub(crate) fn rules() -> Option<OrdinaryUser> {
        if let Some(here) = Self::here() {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let lacking = here.lacking();
            return Some(OrdinaryUser {
                first_port: here.first_port,
                forwards_ports: here.alone().is_none(),
                ids: number_of_ids(&map),
                groups: here.why_no_groups().map_or(
                    Ok(UserGroups {
                        cpu: !lacking.cpu,
                        memory: !lacking.memory,
                        hugetlb: !lacking.hugetlb,
                    }),
                    Err,
                ),
            });
        }
        (!rustix::process::geteuid().is_root()).then(|| OrdinaryUser {
            first_port: join::first_port(),
            forwards_ports: true,
            ids: u32::MAX,
            groups: if groups::is_there() {
                Ok(UserGroups {
                    cpu: true,
                    memory: true,
                    hugetlb: true,
                })
            } else {
                Err(groups::ONLY_V1)
            },
        })
    }

    /// Whether the node has control groups.
    pub(crate) fn has_groups(&self) -> bool {
        matches!(self.groups, Groups::Given { .. })
    }

    /// Why it has none: part of a sentence.
    fn why_no_groups(&self) -> Option<&'static str> {
        static WHY: OnceLock<String> = OnceLock::new();
        match &self.groups {
            Groups::Given { .. } => None,
            Groups::None(why) => Some(WHY.get_or_init(|| why.clone())),
        }
    }

    /// What was not given to the user with a control group.
    pub(crate) fn lacking(&self) -> Lacking {
        let lacks = |controller| !Hierarchies::get().is_ok_and(|found| found.supports(controller));
        Lacking {
            cpu: lacks(Controller::Cpu),
            memory: lacks(Controller::Memory),
            pids: lacks(Controller::Pids),
            hugetlb: lacks(Controller::HugeTlb),
        }
    }

    /// Why nothing leads out of the node, if that is so.
    pub(crate) fn alone(&self) -> Option<&str> {
        match &self.network {
            Network::By(_) => None,
            Network::Alone(why) => Some(why),
        }
    }
}

/// How many ids follow one another from 0, see user_namespaces(7).
fn number_of_ids(map: &str) -> u32 {
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2));
    counts
        .filter_map(|count| count.parse::<u32>().ok())
        .fold(0, u32::saturating_add)
}

/// Where the relay is asked to forward ports.
pub(crate) fn api_socket(run: &Path) -> PathBuf {
    run.join(API_SOCKET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        for network in [
            Network::By(Way::Pasta),
            Network::By(Way::Slirp4netns),
            Network::Alone("slirp4netns is not installed".to_owned()),
        ] {
            let told = Rootless {
                uid: 1000,
                first_port: 1024,
                network,
                groups: Groups::None("why".to_owned()),
            };
            assert_eq!(Rootless::parse(&told.text()), Some(told));
        }
        assert_eq!(Rootless::parse("x"), None);
    }

    #[test]
    fn ids_are_counted() {
        assert_eq!(number_of_ids("0 1500 1\n1 200000 65536\n"), 65537);
    }
}
