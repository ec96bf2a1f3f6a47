//! Ports of the host that pods ask for.

use k8s_openapi::api::core::v1::Pod;

use super::{Rejection, Share};
use crate::spec;
use crate::validation::{HostPort, ports_of_host};

/// The predicate's name, which is the reason.
const NODE_PORTS: &str = "NodePorts";

/// The ports of the host that a pod asks for.
pub(super) fn wanted(pod: &Pod) -> Vec<HostPort<'_>> {
    let all = pod.spec.as_ref().map(ports_of_host).unwrap_or_default();
    all.into_iter().map(|(_, port)| port).collect()
}

/// Another pod has a port that the pod wants.
pub(super) fn taken(wanted_ports: &[HostPort<'_>], others: &[Share]) -> Option<Rejection> {
    let holder = |port: &HostPort<'_>| {
        let has = |share: &&Share| wanted(&share.pod).iter().any(|known| known.collides(port));
        Some(others.iter().find(has)?.pod.as_ref())
    };
    let (port, pod) = wanted_ports.iter().find_map(|port| Some((port, holder(port)?)))?;
    let (namespace, name) = (spec::namespace(pod), spec::name(pod));
    let advice = format!(
        "pod {namespace}/{name} has port {}; end it, or give this one another hostPort",
        port.number()
    );
    let why = "node(s) didn't have free ports for the requested pod ports";
    Some(Rejection {
        advice: Some(advice),
        ..Rejection::predicate(NODE_PORTS, why)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::pod;

    fn with_ports(ports: &str) -> Pod {
        pod(&format!(
            r#"{{"containers":[{{"name":"c","image":"i","ports":[{ports}]}}]}}"#
        ))
    }

    #[test]
    fn a_port_is_one_pod_s_by_protocol_and_address() {
        let every = r#"{"containerPort":1,"hostPort":80}"#;
        let of = |ip: &str| format!(r#"{{"containerPort":1,"hostPort":80,"hostIP":"{ip}"}}"#);
        for (wanted_port, other, expected) in [
            (every, every.to_owned(), true),
            (every, of("0.0.0.0"), true),
            (every, of("127.0.0.1"), true),
            (&of("127.0.0.1"), every.to_owned(), true),
            (&of("127.0.0.1"), of("127.0.0.1"), true),
            (&of("127.0.0.1"), of("127.0.0.2"), false),
            (every, r#"{"containerPort":1,"hostPort":81}"#.to_owned(), false),
            (every, r#"{"containerPort":80}"#.to_owned(), false),
            (
                r#"{"containerPort":1}"#,
                r#"{"containerPort":1}"#.to_owned(),
                false,
            ),
            (
                every,
                r#"{"containerPort":1,"hostPort":80,"protocol":"UDP"}"#.to_owned(),
                false,
            ),
            (
                every,
                r#"{"containerPort":1,"hostPort":80,"protocol":"TCP"}"#.to_owned(),
                true,
            ),
        ] {
            let (wanting, other_pod) = (with_ports(wanted_port), with_ports(&other));
            let others = [
                Share::of(Arc::new(with_ports(""))),
                Share::of(Arc::new(other_pod)),
            ];
            let found = taken(&wanted(&wanting), &others);
            assert_eq!(found.is_some(), expected, "{wanted_port} {other}");
            if let Some(rejection) = found {
                assert_eq!(rejection.reason, "NodePorts");
                assert_eq!(
                    rejection.event(),
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: pod default/p \
                     has port 80; end it, or give this one another hostPort"
                );
            }
        }
    }

    #[test]
    fn sidecars_have_ports_and_other_init_containers_none() {
        let init = |policy: &str| {
            pod(&format!(
                r#"{{"containers":[],"initContainers":[{{"name":"i","image":"i"{policy},"ports":[{{"containerPort":1,"hostPort":80}}]}}]}}"#
            ))
        };
        assert_eq!(wanted(&init("")).len(), 0);
        assert_eq!(wanted(&init(r#","restartPolicy":"Always""#)).len(), 1);
    }
}
