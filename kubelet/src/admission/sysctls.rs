//! Which kernel parameters a node's pods may set.

use std::str::FromStr;

use crate::validation::{is_namespaced_sysctl, sysctl_name_problem};

/// Parameters that are the pod's own, and can do nothing to its neighbours. Upstream has kernel versions for some, all of
/// which are older than any that berth runs on.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
];

/// A name that no pod can be allowed to set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysctlPatternError {
    /// It is no name.
    #[error("sysctl {0:?} {1}, with a * at its end or not")]
    Name(String, &'static str),
    /// It is the host's.
    #[error("the sysctl {0:?} is not known to be namespaced: pods would set it for the whole machine")]
    Host(String),
}

/// What pods may set beside the safe ones (`allowedUnsafeSysctls`): names, and beginnings of names with a `*` after them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedSysctls(Vec<String>);

impl AllowedSysctls {
    /// Whether a pod may set this one.
    pub(crate) fn allow(&self, name: &str) -> bool {
        let name = dotted(name);
        SAFE.contains(&name.as_str())
            || self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => *pattern == name,
            })
    }
}

impl FromStr for AllowedSysctls {
    type Err = SysctlPatternError;

    /// Reads names with commas between them.
    fn from_str(text: &str) -> Result<Self, SysctlPatternError> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let all = names.map(|name| {
            let pattern = dotted(name);
            let beginning = pattern.strip_suffix('*').unwrap_or(&pattern);
            let whole = if beginning.len() < pattern.len() {
                beginning.trim_end_matches(['.', '-', '_'])
            } else {
                beginning
            };
            if let Some(why) = sysctl_name_problem(whole) {
                return Err(SysctlPatternError::Name(name.to_owned(), why));
            }
            if !is_namespaced_sysctl(beginning) {
                return Err(SysctlPatternError::Host(name.to_owned()));
            }
            Ok(pattern)
        });
        Ok(AllowedSysctls(all.collect::<Result<_, _>>()?))
    }
}

/// The name with dots, as sysctl(8) has it. After a first slash, dots are parts of names and become slashes.
pub(super) fn dotted(name: &str) -> String {
    let slashes_first =
        matches!((name.find('/'), name.find('.')), (Some(slash), dot) if dot.is_none_or(|dot| slash < dot));
    if !slashes_first {
        return name.to_owned();
    }
    let swapped = name.chars().map(|c| match c {
        '/' => '.',
        '.' => '/',
        other => other,
    });
    swapped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_of_what_pods_have_for_themselves() {
        for good in [
            "",
            "net.core.somaxconn",
            "net.*",
            "kernel.shm*, kernel.sem",
            "fs.mqueue.*",
            "net/ipv4/*",
        ] {
            assert!(good.parse::<AllowedSysctls>().is_ok(), "{good}");
        }
        for bad in [
            "*",
            "kernel.*",
            "vm.swappiness",
            "kernel.core_pattern",
            "kernel.semx",
        ] {
            let found = bad.parse::<AllowedSysctls>();
            assert!(found.is_err(), "{bad}: {found:?}");
        }
        assert!(matches!(
            "net.*.x".parse::<AllowedSysctls>(),
            Err(SysctlPatternError::Name(..))
        ));
        assert_eq!(
            dotted("net/ipv4/conf/eth0.1/forwarding"),
            "net.ipv4.conf.eth0/1.forwarding"
        );
        assert_eq!(
            dotted("net.ipv4.conf.eth0/1.forwarding"),
            "net.ipv4.conf.eth0/1.forwarding"
        );
    }
}
