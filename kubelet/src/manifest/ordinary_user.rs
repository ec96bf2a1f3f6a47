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
        self.refuse_if(
            field("hostIP").is_some_and(|address| address.contains(':')),
            &path_of("hostIP"),
            "only addresses of IPv4 are forwarded to an ordinary user's pods",
        );
    }

    fn resources(&mut self, path: &str, resources: Option<&Node>) {
        let Some(resources) = resources else { return };
        for list in ["limits", "requests"] {
            let Some(Value::Map(fields)) = resources.get(list).map(|node| &node.value) else {
                continue;
            };
            for (key, _) in fields.iter().filter(|(_, value)| !value.is_null()) {
                // What is requested of memory weighs nothing.
                let needs: fn(UserGroups) -> bool = match (list, key.name.as_str()) {
                    (_, "cpu") => |groups| groups.cpu,
                    ("limits", "memory") => |groups| groups.memory,
                    (_, name) if name.starts_with("hugepages-") => |groups| groups.hugetlb,
                    _ => continue,
                };
                let path = format!("{path}.{list}[{}]", key.name);
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
mod tests {
    use super::*;
    use crate::manifest::tree::parse;

    const USER: OrdinaryUser = OrdinaryUser {
        first_port: 1024,
        forwards_ports: true,
        ids: 65537,
        groups: Err("none were given to you"),
    };

    fn paths(spec: &str, user: OrdinaryUser) -> Vec<String> {
        let pod = &parse(&format!("spec: {spec}")).unwrap()[0];
        let found = impossible(pod, user);
        found.into_iter().map(|one| one.path).collect()
    }

    #[test]
    fn what_needs_no_privilege_is_left_alone() {
        for spec in [
            "{}",
            "{hostPID: false, hostUsers: true, hostNetwork: false}",
            "{containers: [{resources: {requests: {memory: 1Mi}, limits: {ephemeral-storage: 1Gi}}}]}",
            "{containers: [{ports: [{containerPort: 80}, {containerPort: 80, hostPort: 8080}]}]}",
            "{containers: [{securityContext: {runAsUser: 65536, privileged: false, appArmorProfile: {type: Unconfined}}}]}",
            "{volumes: [{name: a, emptyDir: {medium: Memory}}, {name: b, hostPath: {path: /}}]}",
        ] {
            assert_eq!(paths(spec, USER), [""; 0], "{spec}");
        }
    }

    #[test]
    fn the_rest_is_refused_by_name() {
        for (spec, path) in [
            ("{hostNetwork: true}", "spec.hostNetwork"),
            ("{hostPID: true}", "spec.hostPID"),
            ("{hostIPC: true}", "spec.hostIPC"),
            ("{shareProcessNamespace: true}", "spec.shareProcessNamespace"),
            ("{hostUsers: false}", "spec.hostUsers"),
            ("{resources: {limits: {cpu: 1}}}", "spec.resources.limits[cpu]"),
            (
                "{securityContext: {fsGroup: 70000}}",
                "spec.securityContext.fsGroup",
            ),
            (
                "{securityContext: {supplementalGroups: [1, 70000]}}",
                "spec.securityContext.supplementalGroups[1]",
            ),
            (
                "{containers: [{resources: {limits: {memory: 1Mi}}}]}",
                "spec.containers[0].resources.limits[memory]",
            ),
            (
                "{containers: [{resources: {requests: {cpu: 1}}}]}",
                "spec.containers[0].resources.requests[cpu]",
            ),
            (
                "{initContainers: [{resources: {limits: {hugepages-2Mi: 2Mi}}}]}",
                "spec.initContainers[0].resources.limits[hugepages-2Mi]",
            ),
            (
                "{containers: [{securityContext: {privileged: true}}]}",
                "spec.containers[0].securityContext.privileged",
            ),
            (
                "{containers: [{volumeDevices: [{name: a}]}]}",
                "spec.containers[0].volumeDevices",
            ),
            (
                "{containers: [{ports: [{containerPort: 8080, hostPort: 80}]}]}",
                "spec.containers[0].ports[0].hostPort",
            ),
            (
                "{containers: [{ports: [{hostPort: 8080, protocol: SCTP}]}]}",
                "spec.containers[0].ports[0].protocol",
            ),
            (
                "{containers: [{ports: [{hostPort: 8080, hostIP: '::1'}]}]}",
                "spec.containers[0].ports[0].hostIP",
            ),
            (
                "{securityContext: {appArmorProfile: {type: RuntimeDefault}}}",
                "spec.securityContext.appArmorProfile",
            ),
            (
                "{containers: [{securityContext: {appArmorProfile: {type: Localhost, localhostProfile: a}}}]}",
                "spec.containers[0].securityContext.appArmorProfile",
            ),
            ("{volumes: [{nfs: {path: /}}]}", "spec.volumes[0].nfs"),
            (
                "{volumes: [{emptyDir: {medium: HugePages}}]}",
                "spec.volumes[0].emptyDir.medium",
            ),
        ] {
            assert_eq!(paths(spec, USER), [path], "{spec}");
        }
    }

    #[test]
    fn limits_need_their_controllers() {
        let spec = "{shareProcessNamespace: true, containers: [{resources: {requests: {cpu: 1}, limits: {memory: 1Mi, \
                    hugepages-2Mi: 2Mi}}}]}";
        let all = UserGroups {
            cpu: true,
            memory: true,
            hugetlb: true,
        };
        let with = |groups| OrdinaryUser {
            groups: Ok(groups),
            ..USER
        };
        assert_eq!(paths(spec, with(all)), [""; 0]);
        let memory_only = UserGroups {
            cpu: false,
            hugetlb: false,
            ..all
        };
        assert_eq!(
            paths(spec, with(memory_only)),
            [
                "spec.containers[0].resources.limits[hugepages-2Mi]",
                "spec.containers[0].resources.requests[cpu]",
            ]
        );
    }

    #[test]
    fn ports_need_a_program_that_forwards_them() {
        let alone = OrdinaryUser {
            forwards_ports: false,
            ..USER
        };
        let spec = "{containers: [{ports: [{hostPort: 8080}, {containerPort: 80}]}]}";
        assert_eq!(paths(spec, alone), ["spec.containers[0].ports[0].hostPort"]);
    }
}
