//! What of a Pod an ordinary user's node can't do, found in the manifest before anything is made.
//!
//! Such a node is in a user namespace, has the control groups that were given to the user, and its network is connected with
//! the machine's by a program of the user's.

use super::tree::{Node, Value};

/// What decides about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrdinaryUser {
    /// Ports of the machine below this one are root's (`net.ipv4.ip_unprivileged_port_start`).
    pub first_port: u16,
    /// There is a program that forwards ports.
    pub forwards_ports: bool,
    /// How many ids the user has.
    pub ids: u32,
    /// The control groups, or why there are none: part of a sentence.
    pub groups: Result<UserGroups, &'static str>,
}

/// The controllers of the control groups that were given to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserGroups {
    /// Processor time.
    pub cpu: bool,
    /// Memory.
    pub memory: bool,
    /// Huge pages.
    pub hugetlb: bool,
}

/// A field that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Impossible {
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) why: String,
}

const NO_CONTROLLER: &str = "the control groups that were given to you lack its controller (systemctl edit user@.service: \
                             [Service] Delegate=yes)";
const UNKNOWN_PROCESSES: &str =
    "without control groups nobody can tell which processes are a container's, so each has its own";

/// Capabilities that the kernel looks for in the machine's own user namespace only, see capabilities(7): in a user's they would
/// allow nothing.
const OF_THE_MACHINE: [&str; 11] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "BLOCK_SUSPEND",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "SYSLOG",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_TIME",
    "WAKE_ALARM",
];

/// All fields of a Pod that an ordinary user can't have.
pub(super) fn impossible(pod: &Node, user: OrdinaryUser) -> Vec<Impossible> {
    let mut finder = Finder {
        pod,
        user,
        found: Vec::new(),
    };
    let Some(spec) = pod.get("spec") else {
        return finder.found;
    };
    finder.pod_fields(spec);
    for list in ["initContainers", "containers"] {
        for (index, container) in items(spec.get(list)) {
            finder.container(&format!("spec.{list}[{index}]"), container);
        }
    }
    for (index, volume) in items(spec.get("volumes")) {
        finder.volume(&format!("spec.volumes[{index}]"), volume);
    }
    finder.found
}

struct Finder<'a> {
    pod: &'a Node,
    user: OrdinaryUser,
    found: Vec<Impossible>,
}

impl Finder<'_> {
    fn refuse(&mut self, path: &str, why: &str) {
        self.found.push(Impossible {
            line: self.pod.line_of(path),
            path: path.to_owned(),
            why: why.to_owned(),
        });
    }

    fn refuse_if(&mut self, holds: bool, path: &str, why: &str) {
        if holds {
            self.refuse(path, why);
        }
    }

    fn pod_fields(&mut self, spec: &Node) {
        let is = |name: &str| spec.get(name).is_some_and(is_true);
        self.refuse_if(
            is("hostNetwork"),
            "spec.hostNetwork",
            "your pods are in a network namespace of yours; a hostPort leads there from the machine",
        );
        self.refuse_if(
            is("hostPID"),
            "spec.hostPID",
            "your pods are in a PID namespace of yours, where the machine's processes do not show",
        );
        self.refuse_if(
            is("hostIPC"),
            "spec.hostIPC",
            "the machine's IPC namespace belongs to root",
        );
        self.refuse_if(
            is("shareProcessNamespace") && self.user.groups.is_err(),
            "spec.shareProcessNamespace",
            UNKNOWN_PROCESSES,
        );
        let own_users = spec.get("hostUsers").is_some_and(is_false);
        self.refuse_if(
            own_users,
            "spec.hostUsers",
            "the ids that you have are your node's, and there are none left for a pod's own",
        );
        self.resources("spec.resources", spec.get("resources"));
        self.quantities("spec.overhead", spec.get("overhead"), true);
        if let Some(security) = spec.get("securityContext") {
            self.ids("spec.securityContext", security);
            self.app_armor("spec.securityContext", security);
            for (index, group) in items(security.get("supplementalGroups")) {
                self.id(
                    &format!("spec.securityContext.supplementalGroups[{index}]"),
                    group,
                );
            }
        }
    }

    fn container(&mut self, path: &str, container: &Node) {
        self.resources(&format!("{path}.resources"), container.get("resources"));
        if let Some(security) = container.get("securityContext") {
            let path = format!("{path}.securityContext");
            self.refuse_if(
                security.get("privileged").is_some_and(is_true),
                &format!("{path}.privileged"),
                "its devices and the machine's kernel are root's",
            );
            self.ids(&path, security);
            self.app_armor(&path, security);
            self.capabilities(&path, security);
        }
        let devices = items(container.get("volumeDevices")).next().is_some();
        self.refuse_if(
            devices,
            &format!("{path}.volumeDevices"),
            "only root can make a device appear in a container",
        );
        for (index, port) in items(container.get("ports")) {
            self.port(&format!("{path}.ports[{index}]"), port);
        }
    }

    fn port(&mut self, path: &str, port: &Node) {
        let field = |name: &str| port.get(name).and_then(Node::text);
        let number = field("hostPort").and_then(|text| text.parse::<u32>().ok());
        let Some(number) = number.filter(|number| *number != 0) else {
            return;
        };
        let path_of = |name: &str| format!("{path}.{name}");
        let first = u32::from(self.user.first_port);
        if !self.user.forwards_ports {
            self.refuse(
                &path_of("hostPort"),
                "ports of the machine are forwarded with pasta or slirp4netns, neither of which can be used here",
            );
        } else if number < first {
            let why = format!(
                "ports below {first} are root's (sysctl net.ipv4.ip_unprivileged_port_start); take a higher one"
            );
            self.refuse(&path_of("hostPort"), &why);
        }
        self.refuse_if(
            field("protocol") == Some("SCTP"),
            &path_of("protocol"),
            "only TCP and UDP are forwarded to an ordinary user's pods",
        );
    }

    fn resources(&mut self, path: &str, resources: Option<&Node>) {
        let Some(resources) = resources else { return };
        for list in ["limits", "requests"] {
            self.quantities(&format!("{path}.{list}"), resources.get(list), list == "limits");
        }
    }

    fn quantities(&mut self, path: &str, list: Option<&Node>, are_limits: bool) {
        let Some(Value::Map(fields)) = list.map(|node| &node.value) else {
            return;
        };
        for (key, _) in fields.iter().filter(|(_, value)| !value.is_null()) {
            let needs: fn(UserGroups) -> bool = match key.name.as_str() {
                "cpu" => |groups| groups.cpu,
                // What is requested of memory weighs nothing.
                "memory" if are_limits => |groups| groups.memory,
                name if name.starts_with("hugepages-") => |groups| groups.hugetlb,
                _ => continue,
            };
            let path = format!("{path}[{}]", key.name);
            match self.user.groups {
                Err(why) => {
                    let why =
                        format!("limits and shares are set in control groups, and you have none: {why}");
                    self.refuse(&path, &why);
                }
                Ok(groups) => self.refuse_if(!needs(groups), &path, NO_CONTROLLER),
            }
        }
    }

    fn app_armor(&mut self, path: &str, security: &Node) {
        let kind = security
            .get("appArmorProfile")
            .and_then(|profile| profile.get("type"));
        self.refuse_if(
            kind.and_then(Node::text).is_some_and(|kind| kind != "Unconfined"),
            &format!("{path}.appArmorProfile"),
            "only root may load profiles, and see which ones are loaded",
        );
    }

    fn capabilities(&mut self, path: &str, security: &Node) {
        let added = security.get("capabilities").and_then(|all| all.get("add"));
        for (index, capability) in items(added) {
            let name = capability.text().unwrap_or_default();
            let of_machine = OF_THE_MACHINE.contains(&name.strip_prefix("CAP_").unwrap_or(name));
            self.refuse_if(
                of_machine,
                &format!("{path}.capabilities.add[{index}]"),
                "it is one over the whole machine, which only root can give; yours are over your own namespaces",
            );
        }
    }

    fn ids(&mut self, path: &str, security: &Node) {
        for name in ["runAsUser", "runAsGroup", "fsGroup"] {
            if let Some(id) = security.get(name) {
                self.id(&format!("{path}.{name}"), id);
            }
        }
    }

    fn id(&mut self, path: &str, id: &Node) {
        let number = id.text().and_then(|text| text.parse::<u64>().ok());
        let ids = self.user.ids;
        if number.is_some_and(|number| number >= u64::from(ids)) {
            let why = format!("you have the ids 0 to {} (/etc/subuid and /etc/subgid)", ids - 1);
            self.refuse(path, &why);
        }
    }

    fn volume(&mut self, path: &str, volume: &Node) {
        self.refuse_if(
            volume.get("nfs").is_some_and(|nfs| !nfs.is_null()),
            &format!("{path}.nfs"),
            "only root can mount it",
        );
        let medium = volume.get("emptyDir").and_then(|dir| dir.get("medium"));
        self.refuse_if(
            medium
                .and_then(Node::text)
                .is_some_and(|medium| medium.starts_with("HugePages")),
            &format!("{path}.emptyDir.medium"),
            "only root can mount them",
        );
    }
}

fn items(list: Option<&Node>) -> impl Iterator<Item = (usize, &Node)> {
    let items = match list.map(|list| &list.value) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    items.iter().enumerate()
}

fn boolean(node: &Node) -> Option<bool> {
    match &node.value {
        Value::Scalar(_, super::scalar::Meaning::Bool(value)) => Some(*value),
        _ => None,
    }
}

fn is_true(node: &Node) -> bool {
    boolean(node) == Some(true)
}

fn is_false(node: &Node) -> bool {
    boolean(node) == Some(false)
}

#[cfg(test)]
mod tests;
