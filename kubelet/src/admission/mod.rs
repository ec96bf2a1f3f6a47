//! What a node does not take on, though a Pod may say it: such a pod has failed before anything of it is made.

mod extended;
mod host_ports;
mod labels;
mod node_affinity;
mod preemption;
mod room;
mod share;
mod sysctls;

use k8s_openapi::api::core::v1::Pod;

pub use extended::{ExtendedResourceError, ExtendedResources};
pub use labels::{NodeLabelError, NodeLabels};
pub(crate) use node_affinity::unmet_terms;
pub(crate) use room::not_enough;
pub(crate) use share::Share;
pub use sysctls::{AllowedSysctls, SysctlPatternError};

use crate::identity::PodUid;
use crate::plan::{NodeFacts, PodFailure};
use crate::requests::Requests;
use crate::spec;

/// `status.reason` of a pod that wants kernel parameters which are not allowed.
const SYSCTL_FORBIDDEN: &str = "SysctlForbidden";
/// `status.reason` of a pod that wants AppArmor on a node without it.
const APP_ARMOR: &str = "AppArmor";

/// The node does not take a pod on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// `status.reason`, and the reason of the event.
    pub(crate) reason: String,
    /// A sentence for people.
    pub(crate) message: String,
    /// What exactly is wrong and what there is to do about it, where upstream's sentence does not tell.
    pub(crate) advice: Option<String>,
}

impl Rejection {
    fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            advice: None,
        }
    }

    /// The rejection by one of upstream's predicates.
    fn predicate(name: &str, why: &str) -> Self {
        Self::new(name, format!("Predicate {name} failed: {why}"))
    }

    /// What is said of it when it happens.
    pub(crate) fn event(&self) -> String {
        match &self.advice {
            Some(advice) => format!("{}: {advice}", self.message),
            None => self.message.clone(),
        }
    }

    /// How the pod has failed.
    pub(crate) fn failure(&self) -> PodFailure {
        PodFailure {
            reason: self.reason.clone(),
            message: format!("Pod was rejected: {}", self.message),
            grace: None,
        }
    }
}

/// What the node says to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It takes the pod on, when these others have ended.
    Admitted { after: Vec<PodUid> },
    /// It does not.
    Rejected(Rejection),
}

/// What the node says to the pod, by upstream's checks in upstream's order. `others` is what the node's other pods have; it is asked for only
/// where that matters.
pub(crate) fn verdict(pod: &Pod, node: &NodeFacts, others: impl FnOnce() -> Vec<Share>) -> Verdict {
    if let Some(why) = sysctls(pod, node) {
        let message = format!("forbidden sysctl: {why}");
        return Verdict::Rejected(Rejection::new(SYSCTL_FORBIDDEN, message));
    }
    let no_profiles = || {
        let missing = !node.has_app_armor && wants_app_armor(pod);
        missing.then(|| {
            let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
            Rejection::new(APP_ARMOR, why)
        })
    };
    let (requests, ports) = (Requests::of(pod), host_ports::wanted(pod));
    let matter = node.max_pods.is_some() || !requests.is_empty() || !ports.is_empty();
    let others = if matter { others() } else { Vec::new() };
    let lacks = room::lacking(&requests, node, &others);
    let critical = preemption::is_critical(pod);
    let by_room = lacks.first().filter(|_| !critical).map(room::Lack::rejection);
    // Nobody ends for a critical pod that does not come anyway.
    let rejection = by_room
        .or_else(|| node_affinity::mismatch(pod, node))
        .or_else(|| host_ports::taken(&ports, &others))
        .or_else(no_profiles);
    if let Some(rejection) = rejection {
        return Verdict::Rejected(rejection);
    }
    let missing: Vec<_> = lacks.iter().map(room::Lack::missing).collect();
    match preemption::victims(pod, &missing, &others) {
        Ok(after) => Verdict::Admitted { after },
        Err(left) => Verdict::Rejected(not_enough_victims(&left)),
    }
}

/// Not even the end of all pods that may be ended would make room for a critical one.
fn not_enough_victims(left: &[preemption::Missing]) -> Rejection {
    let left: String = left
        .iter()
        .map(|one| format!("(res: {}, q: {}), ", one.resource, one.amount))
        .collect();
    let message = format!(
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to \
         preempt: no set of running pods found to reclaim resources: [{left}]"
    );
    let advice =
        "a critical pod has room made for it by the end of pods of lower priority that the same program runs";
    Rejection {
        advice: Some(advice.to_owned()),
        ..Rejection::new("UnexpectedAdmissionError", message)
    }
}

fn sysctls(pod: &Pod, node: &NodeFacts) -> Option<String> {
    let security = pod.spec.as_ref()?.security_context.as_ref()?;
    let mut names = security.sysctls.iter().flatten().map(|sysctl| &sysctl.name);
    let forbidden = names.find(|name| !node.allowed_sysctls.allow(name))?;
    Some(format!("{:?} not allowlisted", sysctls::dotted(forbidden)))
}

/// A container of the pod, or the pod for all of them, names a profile. As upstream, that of a privileged container counts.
fn wants_app_armor(pod: &Pod) -> bool {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref()?.app_armor_profile.as_ref());
    spec::all_containers(pod)
        .map(|(container, _)| container.security_context.as_ref())
        .filter_map(|own| own.and_then(|own| own.app_armor_profile.as_ref()).or(of_pod))
        .any(|profile| profile.type_ != "Unconfined")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn rejection(pod: &Pod, node: &NodeFacts, others: impl FnOnce() -> Vec<Share>) -> Option<Rejection> {
        match verdict(pod, node, others) {
            Verdict::Rejected(rejection) => Some(rejection),
            Verdict::Admitted { after } => {
                assert!(after.is_empty(), "{after:?}");
                None
            }
        }
    }

    #[test]
    fn a_critical_pod_comes_after_others_if_nothing_but_room_is_missing() {
        let spec = r#"{"priority":2000000000,"nodeSelector":{"a":"b"},"containers":[{"name":"c","image":"i",
            "resources":{"requests":{"cpu":"2"}}}]}"#;
        let critical = pod(spec);
        let mut other =
            pod(r#"{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"}}}]}"#);
        other.metadata.uid = Some("other".to_owned());
        let share = Share::of(std::sync::Arc::new(other));
        let node = NodeFacts {
            cpu_capacity: 2000,
            labels: "a=b".parse().unwrap(),
            ..NodeFacts::default()
        };
        let others = || vec![share.clone()];
        let after = vec![PodUid("other".to_owned())];
        assert_eq!(verdict(&critical, &node, others), Verdict::Admitted { after });
        let elsewhere = NodeFacts {
            labels: Default::default(),
            ..node.clone()
        };
        let found = rejection(&critical, &elsewhere, others).unwrap();
        assert_eq!(found.reason, "NodeAffinity");
        let small = NodeFacts {
            cpu_capacity: 1500,
            ..node
        };
        let found = rejection(&critical, &small, others).unwrap();
        assert_eq!(found.reason, "UnexpectedAdmissionError");
        let ends = "no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]";
        assert!(found.message.ends_with(ends), "{}", found.message);
    }

    fn reason(spec: &str, node: &NodeFacts) -> Option<(String, String)> {
        let rejection = rejection(&pod(spec), node, Vec::new)?;
        let failure = rejection.failure();
        Some((failure.reason, failure.message))
    }

    fn with_sysctl(name: &str) -> String {
        format!(
            r#"{{"containers":[],"securityContext":{{"sysctls":[{{"name":"net.ipv4.tcp_syncookies","value":"1"}},{{"name":"{name}","value":"1"}}]}}}}"#
        )
    }

    #[test]
    fn unsafe_sysctls_are_forbidden_unless_the_node_allows_them() {
        let node = NodeFacts::default();
        for name in [
            "kernel.shm_rmid_forced",
            "net.ipv4.tcp_rmem",
            "net/ipv4/ip_local_port_range",
        ] {
            assert_eq!(reason(&with_sysctl(name), &node), None, "{name}");
        }
        let found = reason(&with_sysctl("net/core/somaxconn"), &node).unwrap();
        let message = r#"Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted"#;
        assert_eq!(found, ("SysctlForbidden".to_owned(), message.to_owned()));
        let node = NodeFacts {
            allowed_sysctls: "net.core.*,kernel.msgmax".parse().unwrap(),
            ..NodeFacts::default()
        };
        for (name, allowed) in [
            ("net.core.somaxconn", true),
            ("net/core/somaxconn", true),
            ("kernel.msgmax", true),
            ("kernel.msgmni", false),
            ("net.corex", false),
            ("net.ipv4.ip_forward", false),
        ] {
            assert_eq!(reason(&with_sysctl(name), &node).is_none(), allowed, "{name}");
        }
    }

    #[test]
    fn others_do_not_matter_to_who_wants_nothing_that_they_have() {
        let node = NodeFacts::default();
        let pod = pod(r#"{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]}"#);
        assert_eq!(rejection(&pod, &node, || panic!("nobody asks")), None);
    }

    /// Whether all of it is wrong or only a part, the first of upstream's checks has the word.
    #[test]
    fn the_first_check_names_the_reason() {
        let spec = r#"{"nodeSelector":{"a":"b"},"containers":[{"name":"c","image":"i","ports":[{"containerPort":1,"hostPort":80}],
            "resources":{"requests":{"cpu":"2"}}}]}"#;
        let own = pod(spec);
        let mut node = NodeFacts {
            max_pods: Some(1),
            cpu_capacity: 1000,
            ..NodeFacts::default()
        };
        let others = || vec![Share::of(std::sync::Arc::new(own.clone()))];
        let reason = |node: &NodeFacts| rejection(&own, node, others).map(|found| found.reason);
        assert_eq!(reason(&node).as_deref(), Some("OutOfpods"));
        node.max_pods = Some(2);
        assert_eq!(reason(&node).as_deref(), Some("OutOfcpu"));
        node.cpu_capacity = 4000;
        assert_eq!(reason(&node).as_deref(), Some("NodeAffinity"));
        node.labels = "a=b".parse().unwrap();
        assert_eq!(reason(&node).as_deref(), Some("NodePorts"));
        assert_eq!(rejection(&own, &node, Vec::new), None);
    }

    #[test]
    fn a_profile_needs_app_armor() {
        let profile = |kind: &str| format!(r#""securityContext":{{"appArmorProfile":{{"type":"{kind}"}}}}"#);
        let node = NodeFacts::default();
        let able = NodeFacts {
            has_app_armor: true,
            ..NodeFacts::default()
        };
        for (of_pod, own, expected) in [
            (None, None, false),
            (Some("RuntimeDefault"), None, true),
            (None, Some("RuntimeDefault"), true),
            (Some("RuntimeDefault"), Some("Unconfined"), false),
            (Some("Unconfined"), Some("RuntimeDefault"), true),
            (Some("Unconfined"), None, false),
        ] {
            let field =
                |kind: Option<&str>| kind.map_or_else(String::new, |kind| format!(",{}", profile(kind)));
            let spec = format!(
                r#"{{"containers":[{{"name":"c","image":"i"{}}}]{}}}"#,
                field(own),
                field(of_pod)
            );
            let found = reason(&spec, &node);
            assert_eq!(found.is_some(), expected, "{spec}");
            assert!(found.is_none_or(|(reason, message)| {
                reason == "AppArmor"
                    && message
                        == "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
            }));
            assert_eq!(reason(&spec, &able), None, "{spec}");
        }
    }
}
