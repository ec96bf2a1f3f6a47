//! Every field that Kubernetes has is acted on, refused, or without effect for a reason: a new version of the API must
//! not bring a field that is silently ignored.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor, value::Error};
use serde::forward_to_deserialize_any;

use super::support::{is_refused, refusal, without_effect};

/// Writes down the fields that a type asks for.
struct Lister<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Lister<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only listed"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

pub(super) fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    assert!(T::deserialize(Lister(&mut fields)).is_err());
    assert!(!fields.is_empty());
    fields
}

const REQUIRED_AFFINITY: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";

/// Is told of each type: where it is in a Pod, its fields, and those of them that are acted on.
struct Walk<'a>(&'a mut dyn FnMut(&str, &'static [&'static str], &str));

impl Walk<'_> {
    fn of<T: for<'de> Deserialize<'de>>(&mut self, path: &str, done: &str) {
        (self.0)(path, fields::<T>(), done);
    }
}

/// Every type that a Pod is made of. What stands for several (a liveness probe for all probes) is there once.
fn walk(visit: &mut dyn FnMut(&str, &'static [&'static str], &str)) {
    let mut to = Walk(visit);
    containers_and_pod(&mut to);
    volumes(&mut to);
}

fn containers_and_pod(to: &mut Walk<'_>) {
    to.of::<api::Pod>("", "apiVersion kind metadata spec");
    to.of::<ObjectMeta>("metadata", "annotations labels name namespace uid");
    to.of::<api::PodSpec>(
        "spec",
        "activeDeadlineSeconds affinity containers dnsConfig dnsPolicy hostAliases hostIPC hostNetwork hostPID hostUsers \
         hostname hostnameOverride imagePullSecrets initContainers nodeSelector overhead priority priorityClassName readinessGates resources restartPolicy runtimeClassName \
         schedulingGates securityContext setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds volumes",
    );
    to.of::<api::Affinity>("spec.affinity", "nodeAffinity");
    to.of::<api::NodeAffinity>(
        "spec.affinity.nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
    );
    to.of::<api::NodeSelector>(REQUIRED_AFFINITY, "nodeSelectorTerms");
    let terms = format!("{REQUIRED_AFFINITY}.nodeSelectorTerms[]");
    to.of::<api::NodeSelectorTerm>(&terms, "matchExpressions matchFields");
    to.of::<api::NodeSelectorRequirement>(&format!("{terms}.matchExpressions[]"), "key operator values");
    to.of::<api::NodeSelectorRequirement>(&format!("{terms}.matchFields[]"), "key operator values");
    to.of::<api::PodSecurityContext>(
        "spec.securityContext",
        "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seLinuxChangePolicy seLinuxOptions \
         seccompProfile supplementalGroups supplementalGroupsPolicy sysctls",
    );
    to.of::<api::Container>(
        "spec.containers[]",
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe \
         resizePolicy resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty \
         volumeDevices volumeMounts workingDir",
    );
    to.of::<api::ContainerResizePolicy>("spec.containers[].resizePolicy[]", "resourceName restartPolicy");
    to.of::<api::ContainerRestartRule>("spec.containers[].restartPolicyRules[]", "action exitCodes");
    to.of::<api::ContainerRestartRuleOnExitCodes>(
        "spec.containers[].restartPolicyRules[].exitCodes",
        "operator values",
    );
    to.of::<api::ContainerPort>(
        "spec.containers[].ports[]",
        "containerPort hostIP hostPort name protocol",
    );
    to.of::<api::EnvVar>("spec.containers[].env[]", "name value valueFrom");
    to.of::<api::EnvVarSource>(
        "spec.containers[].env[].valueFrom",
        "configMapKeyRef fieldRef fileKeyRef resourceFieldRef secretKeyRef",
    );
    to.of::<api::FileKeySelector>(
        "spec.containers[].env[].valueFrom.fileKeyRef",
        "key optional path volumeName",
    );
    to.of::<api::EnvFromSource>("spec.containers[].envFrom[]", "configMapRef prefix secretRef");
    to.of::<api::ResourceRequirements>("spec.containers[].resources", "limits requests");
    to.of::<api::ResourceRequirements>("spec.resources", "limits requests");
    to.of::<api::PodReadinessGate>("spec.readinessGates[]", "conditionType");
    to.of::<api::PodSchedulingGate>("spec.schedulingGates[]", "name");
    to.of::<api::SecurityContext>(
        "spec.containers[].securityContext",
        "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount readOnlyRootFilesystem runAsGroup \
         runAsNonRoot runAsUser seLinuxOptions seccompProfile",
    );
    to.of::<api::VolumeMount>(
        "spec.containers[].volumeMounts[]",
        "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    );
    to.of::<api::VolumeDevice>("spec.containers[].volumeDevices[]", "devicePath name");
    to.of::<api::Probe>(
        "spec.containers[].livenessProbe",
        "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket \
         terminationGracePeriodSeconds timeoutSeconds",
    );
    to.of::<api::HTTPGetAction>(
        "spec.containers[].livenessProbe.httpGet",
        "host httpHeaders path port scheme",
    );
    to.of::<api::GRPCAction>("spec.containers[].livenessProbe.grpc", "port service");
    to.of::<api::TCPSocketAction>("spec.containers[].livenessProbe.tcpSocket", "host port");
    to.of::<api::Lifecycle>("spec.containers[].lifecycle", "postStart preStop stopSignal");
    to.of::<api::LifecycleHandler>("spec.containers[].lifecycle.preStop", "exec httpGet sleep");
    to.of::<api::PodDNSConfig>("spec.dnsConfig", "nameservers options searches");
    to.of::<api::LocalObjectReference>("spec.imagePullSecrets[]", "name");
    to.of::<api::PodOS>("spec.os", "name");
    to.of::<api::HostAlias>("spec.hostAliases[]", "hostnames ip");
    to.of::<api::PodDNSConfigOption>("spec.dnsConfig.options[]", "name value");
    to.of::<api::Sysctl>("spec.securityContext.sysctls[]", "name value");
    to.of::<api::SeccompProfile>(
        "spec.containers[].securityContext.seccompProfile",
        "localhostProfile type",
    );
    to.of::<api::AppArmorProfile>(
        "spec.containers[].securityContext.appArmorProfile",
        "localhostProfile type",
    );
    to.of::<api::SELinuxOptions>(
        "spec.containers[].securityContext.seLinuxOptions",
        "level role type user",
    );
    to.of::<api::Capabilities>("spec.containers[].securityContext.capabilities", "add drop");
    to.of::<api::ExecAction>("spec.containers[].livenessProbe.exec", "command");
    to.of::<api::HTTPHeader>(
        "spec.containers[].livenessProbe.httpGet.httpHeaders[]",
        "name value",
    );
    to.of::<api::SleepAction>("spec.containers[].lifecycle.preStop.sleep", "seconds");
    to.of::<api::ConfigMapEnvSource>("spec.containers[].envFrom[].configMapRef", "name optional");
    to.of::<api::SecretEnvSource>("spec.containers[].envFrom[].secretRef", "name optional");
    to.of::<api::ConfigMapKeySelector>(
        "spec.containers[].env[].valueFrom.configMapKeyRef",
        "key name optional",
    );
    to.of::<api::SecretKeySelector>(
        "spec.containers[].env[].valueFrom.secretKeyRef",
        "key name optional",
    );
    to.of::<api::ObjectFieldSelector>(
        "spec.containers[].env[].valueFrom.fieldRef",
        "apiVersion fieldPath",
    );
    to.of::<api::ResourceFieldSelector>(
        "spec.containers[].env[].valueFrom.resourceFieldRef",
        "containerName divisor resource",
    );
}

fn volumes(to: &mut Walk<'_>) {
    to.of::<api::Volume>(
        "spec.volumes[]",
        "configMap downwardAPI emptyDir ephemeral hostPath image name nfs persistentVolumeClaim projected secret",
    );
    to.of::<api::PersistentVolumeClaimVolumeSource>(
        "spec.volumes[].persistentVolumeClaim",
        "claimName readOnly",
    );
    to.of::<api::NFSVolumeSource>("spec.volumes[].nfs", "path readOnly server");
    to.of::<api::EphemeralVolumeSource>("spec.volumes[].ephemeral", "volumeClaimTemplate");
    to.of::<api::PersistentVolumeClaimTemplate>(
        "spec.volumes[].ephemeral.volumeClaimTemplate",
        "metadata spec",
    );
    to.of::<api::PersistentVolumeClaimSpec>(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec",
        "accessModes resources storageClassName volumeMode",
    );
    to.of::<api::VolumeResourceRequirements>(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.resources",
        "requests",
    );
    to.of::<api::ConfigMapVolumeSource>("spec.volumes[].configMap", "defaultMode items name optional");
    to.of::<api::SecretVolumeSource>("spec.volumes[].secret", "defaultMode items optional secretName");
    to.of::<api::DownwardAPIVolumeSource>("spec.volumes[].downwardAPI", "defaultMode items");
    to.of::<api::EmptyDirVolumeSource>("spec.volumes[].emptyDir", "medium sizeLimit");
    to.of::<api::ImageVolumeSource>("spec.volumes[].image", "pullPolicy reference");
    to.of::<api::HostPathVolumeSource>("spec.volumes[].hostPath", "path type");
    to.of::<api::ProjectedVolumeSource>("spec.volumes[].projected", "defaultMode sources");
    to.of::<api::VolumeProjection>(
        "spec.volumes[].projected.sources[]",
        "configMap downwardAPI secret",
    );
    to.of::<api::KeyToPath>("spec.volumes[].configMap.items[]", "key mode path");
    to.of::<api::DownwardAPIVolumeFile>(
        "spec.volumes[].downwardAPI.items[]",
        "fieldRef mode path resourceFieldRef",
    );
    to.of::<api::ConfigMapProjection>(
        "spec.volumes[].projected.sources[].configMap",
        "items name optional",
    );
    to.of::<api::SecretProjection>("spec.volumes[].projected.sources[].secret", "items name optional");
    to.of::<api::DownwardAPIProjection>("spec.volumes[].projected.sources[].downwardAPI", "items");
}

/// The full path of a field.
fn path_of(parent: &str, field: &str) -> String {
    if parent.is_empty() {
        field.to_owned()
    } else {
        format!("{parent}.{field}")
    }
}

/// A field is acted on, refused, or without effect, and no two of them.
#[test]
fn no_field_is_ignored() {
    walk(&mut |parent, fields, done| {
        let done: Vec<&str> = done.split_whitespace().collect();
        for field in fields {
            let path = path_of(parent, field);
            let in_table = is_refused(&path) || without_effect(&path).is_some();
            assert!(
                done.contains(field) != in_table || is_refused(&path),
                "{path}: done or in a table?"
            );
            assert!(done.contains(field) || in_table, "{path} is ignored");
        }
        for field in done {
            assert!(fields.contains(&field), "{parent}.{field} is no field");
        }
    });
}

/// The rows of docs/pod-spec.md: path, what berth does with it, and the rest.
fn rows() -> Vec<[String; 3]> {
    let manual = include_str!("../../../docs/pod-spec.md");
    let row = |line: &str| {
        let cells = line.strip_prefix("| `")?.strip_suffix(" |")?;
        let (path, rest) = cells.split_once("` | ")?;
        let (what, rest) = rest.split_once(" | ")?;
        Some([path, what, rest].map(str::to_owned))
    };
    manual.lines().filter_map(row).collect()
}

/// Fields that nothing in the kernel shows, or that need what a test of this machine has not got: tests of what is made of them
/// have to do.
const SEEN_BY_READERS_ONLY: [&str; 9] = [
    // What the whole is made of.
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    // A server with TLS: the helper is none, and the prober's own tests have one.
    "spec.containers[].livenessProbe.httpGet.scheme",
    // A policy.
    "spec.securityContext.seLinux",
    "spec.containers[].securityContext.seLinux",
    // Said of a directory, which has neither size nor class.
    "spec.volumes[].ephemeral.volumeClaimTemplate.spec.resources",
    "spec.volumes[].ephemeral.volumeClaimTemplate.spec.storageClassName",
];

fn is_crate(directory: &std::path::Path) -> bool {
    directory.join("Cargo.toml").exists()
}

/// The tests of the repository by name, and whether they see what comes of it: in the kernel, or by the programs.
fn tests_of_the_repository() -> std::collections::BTreeMap<String, bool> {
    fn read(
        directory: &std::path::Path,
        outside: bool,
        found: &mut std::collections::BTreeMap<String, bool>,
    ) {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                let outside = outside || path.ends_with("tests") && path.parent().is_some_and(is_crate);
                read(&path, outside, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut is_test = false;
                for line in text.lines().map(str::trim) {
                    let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                    if let Some(name) = name.filter(|_| is_test).and_then(|rest| rest.split('(').next()) {
                        *found.entry(name.to_owned()).or_default() |= outside;
                    }
                    is_test = (is_test && line.starts_with('#'))
                        || line == "#[test]"
                        || line.starts_with("#[tokio::test");
                }
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = std::collections::BTreeMap::new();
    for part in ["cri", "kubelet", "runtime", "shim", "tests"] {
        read(&root.join(part), part == "tests", &mut found);
    }
    found
}

/// docs/pod-spec.md has one row for each field, and says what is so: the reason of a refusal is the one that people are
/// shown, and what works has a test that there is, and that sees more than how it is read.
#[test]
fn the_manual_has_a_row_for_every_field() {
    let tests = tests_of_the_repository();
    let rows = rows();
    let mut wrong = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    walk(&mut |parent, fields, done| {
        for field in fields {
            let path = path_of(parent, field);
            known.insert(path.clone());
            let own: Vec<&[String; 3]> = rows.iter().filter(|row| row[0] == path).collect();
            let [[_, what, rest]] = own[..] else {
                wrong.push(format!("{path}: {} rows", own.len()));
                continue;
            };
            let refused = refusal(&path);
            let effect = without_effect(&path);
            let works = done.split_whitespace().any(|done| done == *field);
            let fits = match (works, &refused, effect) {
                (false, Some((when, why)), None) => *what == format!("refused{when}") && rest == why,
                (false, Some((when, why)), Some(effect)) => {
                    *what == format!("refused{when}")
                        && *rest == format!("{why}; else without effect: {effect}")
                }
                (true, Some((when, why)), _) => {
                    *what == format!("works, refused{when}") && rest.contains(why)
                }
                (_, None, Some(effect)) => what == "without effect" && rest == effect,
                _ => what == "works",
            };
            if !fits {
                wrong.push(format!("{path}: {what} | {rest}; but {refused:?} {effect:?}"));
            }
            let mut named = rest.split('`').skip(1).step_by(2).peekable();
            if what.starts_with("works") && named.peek().is_none() {
                wrong.push(format!("{path}: no test is named"));
            }
            if what.starts_with("works") {
                let named: Vec<&str> = named.collect();
                let absent = named.iter().filter(|name| !tests.contains_key(**name));
                wrong.extend(absent.map(|name| format!("{path}: no test {name}")));
                // What is below one of them is meant, too, but for those that are the whole.
                let excused = SEEN_BY_READERS_ONLY
                    .iter()
                    .any(|known| path == *known || known.contains('.') && path.starts_with(known));
                if !excused && !named.iter().any(|name| tests.get(*name) == Some(&true)) {
                    wrong.push(format!("{path}: no test sees it in effect"));
                }
            }
        }
    });
    let unknown = rows.iter().filter(|row| !known.contains(&row[0]));
    wrong.extend(unknown.map(|row| format!("{}: no field", row[0])));
    assert!(wrong.is_empty(), "docs/pod-spec.md:\n{}", wrong.join("\n"));
}
