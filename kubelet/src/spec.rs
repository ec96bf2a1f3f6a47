//! Questions that a Pod's specification answers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, ImageVolumeSource, Pod, PodSpec, Probe, Volume,
};

use crate::defaults;

/// `restartPolicy`, of a pod or a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// If the exit code is not 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// Reads the API's word; an unknown one is `Always`, as upstream's default.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// A container that ended with this code is started again.
    pub fn restarts(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// What a rule of `restartPolicyRules` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAction {
    /// The container is started again.
    Restart,
    /// Every container of the pod is ended, and the pod starts from its beginning in the same sandbox.
    RestartAllContainers,
}

/// What part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// One of `initContainers` that runs to its end.
    Init,
    /// One of `initContainers` with `restartPolicy: Always`.
    Sidecar,
    /// One of `containers`.
    Main,
}

/// `metadata.name`.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata
        .namespace
        .as_deref()
        .unwrap_or(defaults::DEFAULT_NAMESPACE)
}

/// Which runtime handler runs the pod; empty is the default one. There is no list of RuntimeClasses: `runtimeClassName` is
/// the handler's name.
pub fn runtime_handler(pod: &Pod) -> &str {
    let name = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.runtime_class_name.as_deref());
    name.unwrap_or_default()
}

/// `spec.initContainers`.
pub fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
}

/// `spec.containers`.
pub fn containers(pod: &Pod) -> &[Container] {
    pod.spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default()
}

/// `spec.ephemeralContainers` as containers, each with the name of the container whose processes it is to see. They were
/// added to a pod that ran, run once, and nothing waits for them.
pub fn ephemeral_containers(pod: &Pod) -> Vec<(Container, Option<String>)> {
    let all = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref());
    all.unwrap_or_default()
        .iter()
        .map(|one| {
            let container = Container {
                name: one.name.clone(),
                image: one.image.clone(),
                image_pull_policy: one.image_pull_policy.clone(),
                command: one.command.clone(),
                args: one.args.clone(),
                env: one.env.clone(),
                env_from: one.env_from.clone(),
                working_dir: one.working_dir.clone(),
                volume_mounts: one.volume_mounts.clone(),
                volume_devices: one.volume_devices.clone(),
                security_context: one.security_context.clone(),
                stdin: one.stdin,
                stdin_once: one.stdin_once,
                tty: one.tty,
                termination_message_path: one.termination_message_path.clone(),
                termination_message_policy: one.termination_message_policy.clone(),
                restart_policy: Some("Never".to_owned()),
                ..Container::default()
            };
            (container, one.target_container_name.clone())
        })
        .collect()
}

/// The pod has an ephemeral container of that name.
pub fn is_ephemeral(pod: &Pod, name: &str) -> bool {
    let all = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.as_deref());
    all.unwrap_or_default().iter().any(|one| one.name == name)
}

/// A pod as a file says it, with the ephemeral containers that were added to it while it ran.
pub(crate) fn with_added(pod: Arc<Pod>, before: &Pod) -> Arc<Pod> {
    let added = before
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.clone());
    let has_none = |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.ephemeral_containers.is_none())
    };
    if added.is_none() || !has_none(&pod) {
        return pod;
    }
    let mut pod = pod.as_ref().clone();
    if let Some(spec) = &mut pod.spec {
        spec.ephemeral_containers = added;
    }
    Arc::new(pod)
}

/// Every container with its part, init containers first, in the order of the specification.
pub fn all_containers(pod: &Pod) -> impl DoubleEndedIterator<Item = (&Container, Role)> {
    let init = init_containers(pod)
        .iter()
        .map(|c| (c, if is_sidecar(c) { Role::Sidecar } else { Role::Init }));
    init.chain(containers(pod).iter().map(|c| (c, Role::Main)))
}

/// The container of that name, with its part.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<(&'a Container, Role)> {
    all_containers(pod).find(|(container, _)| container.name == name)
}

/// The images that a pod's containers run and mount, by name.
pub fn images(pod: &Pod) -> BTreeSet<String> {
    let of_container = |(container, _): (&Container, Role)| {
        let volumes = image_volumes(pod, container).filter_map(|source| source.reference.clone());
        volumes.chain(container.image.clone()).collect::<Vec<_>>()
    };
    all_containers(pod).flat_map(of_container).collect()
}

/// The images that a container mounts as volumes.
pub fn image_volumes<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> impl Iterator<Item = &'a ImageVolumeSource> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mounts = |volume: &&Volume| {
        let mut mounts = container.volume_mounts.iter().flatten();
        mounts.any(|mount| mount.name == volume.name)
    };
    volumes.filter(mounts).filter_map(|volume| volume.image.as_ref())
}

/// Of an init container: it is a sidecar.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// Whether a container is restarted: its own `restartPolicy`, or else the pod's. An init container of a pod that is
/// always restarted is restarted if it failed.
pub fn restart_policy(pod: &Pod, container: &Container, role: Role) -> RestartPolicy {
    let of_pod = || RestartPolicy::parse(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()));
    let policy = match container.restart_policy.as_deref() {
        Some(own) => RestartPolicy::parse(Some(own)),
        None => of_pod(),
    };
    match (role, policy) {
        (Role::Sidecar, _) => RestartPolicy::Always,
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    }
}

/// What the first rule of a container that fits its exit code asks for.
pub fn restart_rule(container: &Container, exit_code: i32) -> Option<RestartAction> {
    let fits = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    };
    let rule = container.restart_policy_rules.iter().flatten().find(fits)?;
    match rule.action.as_str() {
        "Restart" => Some(RestartAction::Restart),
        "RestartAllContainers" => Some(RestartAction::RestartAllContainers),
        _ => None,
    }
}

/// A rule of one of the pod's containers may restart all of them.
pub fn may_restart_all(pod: &Pod) -> bool {
    all_containers(pod).any(|(container, _)| {
        let mut rules = container.restart_policy_rules.iter().flatten();
        rules.any(|rule| rule.action == "RestartAllContainers")
    })
}

/// A container that ended with this code is started again: by the first rule that fits, or else by its policy. An init
/// container that succeeded has done its part, whatever its rules say.
pub fn restarts(pod: &Pod, container: &Container, role: Role, exit_code: i32) -> bool {
    let done = role == Role::Init && exit_code == 0;
    let rule = restart_rule(container, exit_code).filter(|_| !done);
    rule.is_some() || restart_policy(pod, container, role).restarts(exit_code)
}

/// The pod's `restartPolicy`.
pub fn pod_restart_policy(pod: &Pod) -> RestartPolicy {
    RestartPolicy::parse(pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()))
}

/// `terminationGracePeriodSeconds`.
pub fn grace_period(pod: &Pod) -> Duration {
    let seconds = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    let seconds = seconds.unwrap_or(defaults::DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The grace period of a container that its liveness or startup probe ends.
pub fn probe_grace_period(pod: &Pod, probe: Option<&Probe>) -> Duration {
    match probe.and_then(|probe| probe.termination_grace_period_seconds) {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
        None => grace_period(pod),
    }
}

/// `activeDeadlineSeconds`.
pub fn active_deadline(pod: &Pod) -> Option<Duration> {
    let seconds = pod.spec.as_ref()?.active_deadline_seconds?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// `hostNetwork`.
pub fn host_network(spec: &PodSpec) -> bool {
    spec.host_network == Some(true)
}

/// The names of the pod's `schedulingGates`.
pub(crate) fn scheduling_gates(pod: &Pod) -> impl Iterator<Item = &str> {
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.scheduling_gates.iter().flatten());
    gates.map(|gate| gate.name.as_str())
}

/// Somebody is still to say that the pod may come to a node.
pub(crate) fn is_gated(pod: &Pod) -> bool {
    scheduling_gates(pod).next().is_some()
}

/// `name_namespace(uid)`, as upstream writes a pod in messages.
pub fn describe(pod: &Pod) -> String {
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    format!("{}_{}({uid})", name(pod), namespace(pod))
}
