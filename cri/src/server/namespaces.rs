//! The namespaces of pods and containers, from CRI's messages and back.

use crate::types::{ContainerId, IdMapping, NamespaceOptions, UserNamespace};
use crate::v1::{self, NamespaceMode as Mode};

use super::request::{Result, invalid};

/// What a message says of namespaces.
pub(super) struct Asked {
    pub(super) shared: NamespaceOptions,
    pub(super) pid_target: Option<ContainerId>,
    pub(super) user: Option<UserNamespace>,
}

/// A sandbox's namespaces: it has no other container yet whose processes it could see.
pub(super) fn of_sandbox(options: v1::NamespaceOption) -> Result<Asked> {
    if options.pid() == Mode::Target {
        return Err(invalid(
            "A sandbox has no container whose PID namespace could be its TARGET.",
        ));
    }
    of_container(options)
}

/// A container's namespaces.
pub(super) fn of_container(options: v1::NamespaceOption) -> Result<Asked> {
    let is_node = |mode: Mode, field: &str| match mode {
        Mode::Node => Ok(true),
        Mode::Pod => Ok(false),
        Mode::Container | Mode::Target => Err(invalid(format!(
            "A {field} namespace is the pod's or the node's, not {}.",
            mode.as_str_name()
        ))),
    };
    let shared = NamespaceOptions {
        host_network: is_node(options.network(), "network")?,
        host_pid: options.pid() == Mode::Node,
        host_ipc: is_node(options.ipc(), "ipc")?,
        shared_pid: options.pid() == Mode::Pod,
    };
    let pid_target = match (options.pid(), options.target_id) {
        (Mode::Target, id) if id.is_empty() => {
            return Err(invalid("The PID namespace mode TARGET needs a target_id."));
        }
        (Mode::Target, id) => Some(ContainerId(id)),
        (_, id) if !id.is_empty() => {
            return Err(invalid(format!(
                "The target_id {id} is only for the PID namespace mode TARGET."
            )));
        }
        _ => None,
    };
    let user = options.userns_options.map(user_namespace).transpose()?.flatten();
    Ok(Asked {
        shared,
        pid_target,
        user,
    })
}

fn user_namespace(options: v1::UserNamespace) -> Result<Option<UserNamespace>> {
    let mode = options.mode();
    let none = options.uids.is_empty() && options.gids.is_empty();
    match mode {
        Mode::Node if none => Ok(None),
        Mode::Node => Err(invalid("The node's user namespace (NODE) takes no id mappings.")),
        Mode::Pod => Ok(Some(UserNamespace {
            uids: mappings(&options.uids, "uids")?,
            gids: mappings(&options.gids, "gids")?,
        })),
        Mode::Container | Mode::Target => Err(invalid(format!(
            "A user namespace is the pod's or the node's, not {}.",
            mode.as_str_name()
        ))),
    }
}

/// user_namespaces(7): ranges are not empty, do not overlap on either side, and end within 32 bits. Pods are set up as
/// their root.
fn mappings(ranges: &[v1::IdMapping], field: &str) -> Result<Vec<IdMapping>> {
    let name = format!("namespace_options.userns_options.{field}");
    if ranges.is_empty() {
        return Err(invalid(format!("A pod's own user namespace needs {name}.")));
    }
    let mapped: Vec<IdMapping> = ranges.iter().map(range).collect();
    let fits =
        |first: u32, size: u32| size > 0 && first.checked_add(size - 1).is_some_and(|last| last < u32::MAX);
    if let Some(range) = mapped
        .iter()
        .find(|range| !fits(range.container, range.size) || !fits(range.host, range.size))
    {
        return Err(invalid(format!(
            "The range {} {} {} of {name} is empty or goes past the last id.",
            range.container, range.host, range.size
        )));
    }
    let overlap = |a: u32, b: u32, size_a: u32, size_b: u32| a < b + size_b && b < a + size_a;
    for (index, a) in mapped.iter().enumerate() {
        for b in &mapped[index + 1..] {
            if overlap(a.container, b.container, a.size, b.size) || overlap(a.host, b.host, a.size, b.size) {
                return Err(invalid(format!("Two ranges of {name} overlap.")));
            }
        }
    }
    if !mapped.iter().any(|range| range.container == 0) {
        return Err(invalid(format!(
            "Id 0 is not in {name}; a pod's containers are set up as its root."
        )));
    }
    Ok(mapped)
}

/// A sandbox's namespaces as its status tells them.
pub(crate) fn to_message(options: NamespaceOptions, user: Option<&UserNamespace>) -> v1::NamespaceOption {
    let node_or_pod = |node: bool| if node { Mode::Node } else { Mode::Pod };
    let pid = match options {
        NamespaceOptions { host_pid: true, .. } => Mode::Node,
        NamespaceOptions { shared_pid: true, .. } => Mode::Pod,
        _ => Mode::Container,
    };
    let user = match user {
        None => v1::UserNamespace {
            mode: Mode::Node.into(),
            ..Default::default()
        },
        Some(user) => v1::UserNamespace {
            mode: Mode::Pod.into(),
            uids: user.uids.iter().map(range_to_message).collect(),
            gids: user.gids.iter().map(range_to_message).collect(),
        },
    };
    v1::NamespaceOption {
        network: node_or_pod(options.host_network).into(),
        pid: pid.into(),
        ipc: node_or_pod(options.host_ipc).into(),
        target_id: String::new(),
        userns_options: Some(user),
    }
}

/// A range of ids as a client gives it.
pub(crate) fn range(range: &v1::IdMapping) -> IdMapping {
    IdMapping {
        container: range.container_id,
        host: range.host_id,
        size: range.length,
    }
}

/// A range of ids as a status tells it.
pub(super) fn range_to_message(range: &IdMapping) -> v1::IdMapping {
    v1::IdMapping {
        host_id: range.host,
        container_id: range.container,
        length: range.size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(container_id: u32, host_id: u32, length: u32) -> v1::IdMapping {
        v1::IdMapping {
            host_id,
            container_id,
            length,
        }
    }

    fn user(mode: Mode, ranges: &[v1::IdMapping]) -> v1::NamespaceOption {
        v1::NamespaceOption {
            userns_options: Some(v1::UserNamespace {
                mode: mode.into(),
                uids: ranges.to_vec(),
                gids: ranges.to_vec(),
            }),
            ..Default::default()
        }
    }

    fn refusal(options: v1::NamespaceOption) -> String {
        of_sandbox(options).err().unwrap().to_string()
    }

    #[test]
    fn a_pods_user_namespace_comes_back_as_it_was_asked_for() {
        let asked = user(Mode::Pod, &[range(0, 65536, 65536), range(100_000, 10, 5)]);
        let found = of_sandbox(asked.clone()).unwrap();
        let user = found.user.unwrap();
        assert_eq!((user.uids[0].host, user.gids[1].container), (65536, 100_000));
        assert_eq!(to_message(found.shared, Some(&user)), asked);
        assert!(of_sandbox(v1::NamespaceOption::default()).unwrap().user.is_none());
    }

    #[test]
    fn mappings_that_the_kernel_would_refuse_are_refused_in_words() {
        let table = [
            (
                user(Mode::Pod, &[]),
                "needs namespace_options.userns_options.uids",
            ),
            (user(Mode::Pod, &[range(0, 1000, 0)]), "is empty"),
            (
                user(Mode::Pod, &[range(0, u32::MAX - 10, 100)]),
                "goes past the last id",
            ),
            (
                user(Mode::Pod, &[range(0, 1000, 10), range(0, 2000, 10)]),
                "overlap",
            ),
            (
                user(Mode::Pod, &[range(0, 1000, 10), range(10, 1009, 10)]),
                "overlap",
            ),
            (user(Mode::Pod, &[range(1, 1000, 10)]), "Id 0 is not in"),
            (user(Mode::Node, &[range(0, 1000, 10)]), "takes no id mappings"),
            (user(Mode::Container, &[]), "not CONTAINER"),
            (user(Mode::Target, &[]), "not TARGET"),
        ];
        for (options, expected) in table {
            let said = refusal(options);
            assert!(said.contains(expected), "{said} lacks {expected}");
        }
    }

    #[test]
    fn a_target_is_a_container_that_is_named() {
        let target = |id: &str| v1::NamespaceOption {
            pid: Mode::Target.into(),
            target_id: id.to_owned(),
            ..Default::default()
        };
        let found = of_container(target("abc")).unwrap();
        assert_eq!(found.pid_target, Some(ContainerId("abc".into())));
        assert!(!found.shared.shared_pid && !found.shared.host_pid);
        assert!(of_container(target("")).is_err());
        assert!(of_sandbox(target("abc")).is_err());
        let stray = v1::NamespaceOption {
            target_id: "abc".into(),
            ..Default::default()
        };
        assert!(of_container(stray).is_err());
    }
}
