//! What a pod's unset fields mean, filled in as the API server does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, HTTPGetAction, LifecycleHandler,
    ObjectFieldSelector, PersistentVolumeClaimSpec, Pod, PodSecurityContext, PodSpec, Probe,
    ProjectedVolumeSource, ResourceRequirements, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::defaults::{
    DEFAULT_NAMESPACE, DEFAULT_SCHEDULER_NAME, DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS,
    PROBE_FAILURE_THRESHOLD, PROBE_PERIOD_SECONDS, PROBE_SUCCESS_THRESHOLD, PROBE_TIMEOUT_SECONDS,
    TERMINATION_MESSAGE_PATH, VOLUME_DEFAULT_MODE,
};
use crate::quantity::{self, Form};
use crate::validation::annotated_profile;
use crate::{pod_resources, spec};

/// Fills in the unset fields of a pod.
pub fn default_pod(pod: &mut Pod) {
    text(&mut pod.metadata.namespace, DEFAULT_NAMESPACE);
    apparmor_fields(pod);
    if let Some(spec) = &mut pod.spec {
        pod_spec(spec);
    }
}

/// What an annotation says of a container's AppArmor profile is what its field says, if that says nothing.
fn apparmor_fields(pod: &mut Pod) {
    let named: Vec<String> = spec::all_containers(pod)
        .map(|(one, _)| one.name.clone())
        .collect();
    let said = named.into_iter().filter_map(|name| {
        let profile = annotated_profile(pod, &name)?;
        Some((name, profile))
    });
    let said: BTreeMap<String, AppArmorProfile> = said.collect();
    let Some(spec) = pod.spec.as_mut().filter(|_| !said.is_empty()) else {
        return;
    };
    let of_pod = spec
        .security_context
        .as_ref()
        .and_then(|security| security.app_armor_profile.clone());
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        if let Some(profile) = said
            .get(&container.name)
            .filter(|profile| Some(*profile) != of_pod.as_ref())
        {
            let security = container.security_context.get_or_insert_default();
            security.app_armor_profile.get_or_insert_with(|| profile.clone());
        }
    }
}

fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

fn pod_spec(spec: &mut PodSpec) {
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, DEFAULT_SCHEDULER_NAME);
    // One field under two names, of which the first is the newer.
    if let Some(old) = spec.service_account.clone() {
        text(&mut spec.service_account_name, &old);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    spec.termination_grace_period_seconds
        .get_or_insert(DEFAULT_TERMINATION_GRACE_PERIOD_SECONDS);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context
        .get_or_insert_with(PodSecurityContext::default);
    let host_network = spec.host_network == Some(true);
    for container in spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
    {
        default_container(container, host_network);
    }
    if let Some(own) = &mut spec.resources {
        whole_milli(own.limits.as_mut());
        whole_milli(own.requests.as_mut());
    }
    whole_milli(spec.overhead.as_mut());
    pod_resources::default_huge_pages(spec);
    pod_resources::default_requests(spec);
    spec.volumes.iter_mut().flatten().for_each(volume);
}

fn default_container(container: &mut Container, host_network: bool) {
    let policy = default_pull_policy(container.image.as_deref().unwrap_or_default());
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, TERMINATION_MESSAGE_PATH);
    text(&mut container.termination_message_policy, "File");
    container
        .ports
        .iter_mut()
        .flatten()
        .for_each(|port| container_port(port, host_network));
    container.env.iter_mut().flatten().for_each(env_var);
    resources(
        container
            .resources
            .get_or_insert_with(ResourceRequirements::default),
    );
    let probes = [
        &mut container.liveness_probe,
        &mut container.readiness_probe,
        &mut container.startup_probe,
    ];
    probes.into_iter().flatten().for_each(probe);
    if let Some(lifecycle) = &mut container.lifecycle {
        let hooks = [&mut lifecycle.post_start, &mut lifecycle.pre_stop];
        hooks.into_iter().flatten().for_each(lifecycle_handler);
    }
}

/// `Always` for `:latest`, spelled out or not, and spelled out with a digest too: the API server looks at the tag alone.
pub fn default_pull_policy(image: &str) -> &'static str {
    let (name, digest) = match image.split_once('@') {
        Some((name, _)) => (name, true),
        None => (image, false),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if !digest => "Always",
        _ => "IfNotPresent",
    }
}

fn container_port(port: &mut ContainerPort, host_network: bool) {
    text(&mut port.protocol, "TCP");
    if host_network && port.host_port.is_none_or(|number| number == 0) {
        port.host_port = Some(port.container_port);
    }
}

fn env_var(variable: &mut EnvVar) {
    if let Some(selector) = variable
        .value_from
        .as_mut()
        .and_then(|from| from.file_key_ref.as_mut())
    {
        selector.optional.get_or_insert(false);
    }
    if let Some(field) = variable
        .value_from
        .as_mut()
        .and_then(|from| from.field_ref.as_mut())
    {
        field_ref(field);
    }
}

fn field_ref(field: &mut ObjectFieldSelector) {
    text(&mut field.api_version, "v1");
}

/// What is limited and not requested is requested up to its limit.
fn resources(resources: &mut ResourceRequirements) {
    whole_milli(resources.limits.as_mut());
    whole_milli(resources.requests.as_mut());
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else {
        return;
    };
    let requests = resources.requests.get_or_insert_default();
    for (resource, limit) in limits {
        requests.entry(resource.clone()).or_insert_with(|| limit.clone());
    }
}

/// Nothing is counted in less than thousandths.
fn whole_milli(list: Option<&mut BTreeMap<String, Quantity>>) {
    for Quantity(text) in list.into_iter().flat_map(BTreeMap::values_mut) {
        if let Ok(value) = quantity::parse(text) {
            let rounded = value.up_to_milli();
            if rounded != value {
                *text = rounded.show(Form::of(text));
            }
        }
    }
}

fn probe(probe: &mut Probe) {
    let number = |field: &mut Option<i32>, default| {
        if field.is_none_or(|number| number == 0) {
            *field = Some(default);
        }
    };
    number(&mut probe.timeout_seconds, PROBE_TIMEOUT_SECONDS);
    number(&mut probe.period_seconds, PROBE_PERIOD_SECONDS);
    number(&mut probe.success_threshold, PROBE_SUCCESS_THRESHOLD);
    number(&mut probe.failure_threshold, PROBE_FAILURE_THRESHOLD);
    if let Some(get) = &mut probe.http_get {
        http_get(get);
    }
}

fn lifecycle_handler(handler: &mut LifecycleHandler) {
    if let Some(get) = &mut handler.http_get {
        http_get(get);
    }
}

fn http_get(get: &mut HTTPGetAction) {
    text(&mut get.path, "/");
    text(&mut get.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    if is_without_source(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(host_path) = &mut volume.host_path {
        host_path.type_.get_or_insert_with(String::new);
    }
    if let Some(image) = &mut volume.image {
        let policy = default_pull_policy(image.reference.as_deref().unwrap_or_default());
        text(&mut image.pull_policy, policy);
    }
    let template = volume
        .ephemeral
        .as_mut()
        .and_then(|source| source.volume_claim_template.as_mut());
    if let Some(template) = template {
        default_claim(&mut template.spec);
    }
    let modes = [
        volume.config_map.as_mut().map(|source| &mut source.default_mode),
        volume.secret.as_mut().map(|source| &mut source.default_mode),
        volume
            .downward_api
            .as_mut()
            .map(|source| &mut source.default_mode),
        volume.projected.as_mut().map(|source| &mut source.default_mode),
    ];
    for mode in modes.into_iter().flatten() {
        mode.get_or_insert(VOLUME_DEFAULT_MODE);
    }
    let files = volume
        .downward_api
        .iter_mut()
        .flat_map(|source| source.items.iter_mut().flatten());
    files
        .filter_map(|file| file.field_ref.as_mut())
        .for_each(field_ref);
    if let Some(source) = &mut volume.projected {
        projected(source);
    }
}

/// Fills in what a claim does not say.
pub fn default_claim(spec: &mut PersistentVolumeClaimSpec) {
    text(&mut spec.volume_mode, "Filesystem");
}

fn projected(source: &mut ProjectedVolumeSource) {
    let of_downward = |projection: &mut VolumeProjection| {
        let files = projection
            .downward_api
            .iter_mut()
            .flat_map(|source| source.items.iter_mut().flatten());
        files
            .filter_map(|file| file.field_ref.as_mut())
            .for_each(field_ref);
    };
    source.sources.iter_mut().flatten().for_each(of_downward);
}

/// Nothing but the name is set.
fn is_without_source(volume: &Volume) -> bool {
    *volume
        == Volume {
            name: volume.name.clone(),
            ..Volume::default()
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn pull_policies() {
        for (image, policy) in [
            ("busybox", "Always"),
            ("busybox:latest", "Always"),
            ("busybox:1.36", "IfNotPresent"),
            ("localhost:5000/busybox", "Always"),
            ("localhost:5000/busybox:1", "IfNotPresent"),
            ("busybox@sha256:00", "IfNotPresent"),
            ("busybox:latest@sha256:00", "Always"),
        ] {
            assert_eq!(default_pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn a_whole_pod() {
        let mut pod = pod(
            r#"{"hostNetwork":true,"containers":[{"name":"c","image":"i:1","ports":[{"containerPort":80}],
                "resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}},
                "livenessProbe":{"httpGet":{"port":80},"periodSeconds":0}}],
              "volumes":[{"name":"a"},{"name":"b","configMap":{"name":"m"}}]}"#,
        );
        pod.metadata.namespace = None;
        default_pod(&mut pod);
        assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
        let spec = pod.spec.unwrap();
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
        assert_eq!(spec.termination_grace_period_seconds, Some(30));
        let container = &spec.containers[0];
        assert_eq!(container.ports.as_ref().unwrap()[0].host_port, Some(80));
        let requests = container.resources.as_ref().unwrap().requests.as_ref().unwrap();
        assert_eq!(
            (requests["cpu"].0.as_str(), requests["memory"].0.as_str()),
            ("500m", "1Gi")
        );
        let probe = container.liveness_probe.as_ref().unwrap();
        assert_eq!(
            (
                probe.period_seconds,
                probe.failure_threshold,
                probe.timeout_seconds
            ),
            (Some(10), Some(3), Some(1))
        );
        assert_eq!(probe.http_get.as_ref().unwrap().path.as_deref(), Some("/"));
        let volumes = spec.volumes.unwrap();
        assert!(volumes[0].empty_dir.is_some());
        assert_eq!(volumes[1].config_map.as_ref().unwrap().default_mode, Some(0o644));
    }

    /// The values are those that the API server of Kubernetes 1.36 fills in.
    #[test]
    fn of_the_pod_s_own_resources_and_under_old_names() {
        let mut pod = pod(
            r#"{"serviceAccount":"robot","resources":{"limits":{"memory":"1Gi"}},
                "containers":[{"name":"c","image":"i","securityContext":{},
                  "env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"f","key":"k"}}}],
                  "resources":{"requests":{"cpu":"0.2501"},"limits":{"memory":"64Mi","hugepages-2Mi":"4Mi"}}}]}"#,
        );
        default_pod(&mut pod);
        let spec = pod.spec.unwrap();
        assert_eq!(spec.service_account_name.as_deref(), Some("robot"));
        assert_eq!(spec.service_account, spec.service_account_name);
        let own = spec.resources.unwrap();
        let shown = |list: Option<BTreeMap<String, Quantity>>| {
            let value = |Quantity(text): Quantity| quantity::parse(&text).unwrap().as_milli();
            let list = list.unwrap().into_iter();
            list.map(|(name, text)| (name, value(text))).collect::<Vec<_>>()
        };
        let kib = |count: i64| count * 1024 * 1000;
        let pages = ("hugepages-2Mi".to_owned(), kib(4096));
        let limits = [pages.clone(), ("memory".to_owned(), kib(1 << 20))];
        assert_eq!(shown(own.limits), limits);
        let requests = [
            ("cpu".to_owned(), 251),
            pages,
            ("memory".to_owned(), kib(64 << 10)),
        ];
        assert_eq!(shown(own.requests), requests);
        let container = &spec.containers[0];
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.proc_mount, None);
        let from = container.env.as_ref().unwrap()[0].value_from.as_ref().unwrap();
        assert_eq!(from.file_key_ref.as_ref().unwrap().optional, Some(false));
    }

    #[test]
    fn twice_is_as_once() {
        let mut once = pod(
            r#"{"containers":[{"name":"c","image":"i","lifecycle":{"preStop":{"httpGet":{"port":1}}}}]}"#,
        );
        default_pod(&mut once);
        let mut twice = once.clone();
        default_pod(&mut twice);
        assert_eq!(once, twice);
    }
}
