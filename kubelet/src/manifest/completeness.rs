//! Every field that Kubernetes has is acted on, refused, or without effect for a reason: a new version of the API must
//! not bring a field that is silently ignored.

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor, value::Error};
use serde::forward_to_deserialize_any;

use super::support::{is_refused, without_effect};

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

fn fields<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut fields: &'static [&'static str] = &[];
    assert!(T::deserialize(Lister(&mut fields)).is_err());
    assert!(!fields.is_empty());
    fields
}

/// Fields of a type at a path that are neither acted on (`done`) nor in a table; and those that are both or no more.
fn check<T: for<'de> Deserialize<'de>>(path: &str, done: &str) {
    let done: Vec<&str> = done.split_whitespace().collect();
    for field in fields::<T>() {
        let path = format!("{path}.{field}");
        let path = path.trim_start_matches('.');
        let in_table = is_refused(path) || without_effect(path).is_some();
        assert!(
            done.contains(field) != in_table || is_refused(path),
            "{path}: done or in a table?"
        );
        assert!(done.contains(field) || in_table, "{path} is ignored");
    }
    for field in done {
        assert!(fields::<T>().contains(&field), "{path}.{field} is no field");
    }
}

#[test]
fn no_field_is_ignored() {
    check::<api::Pod>("", "apiVersion kind metadata spec");
    check::<ObjectMeta>("metadata", "annotations labels name namespace uid");
    check::<api::PodSpec>(
        "spec",
        "activeDeadlineSeconds containers dnsConfig dnsPolicy hostAliases hostIPC hostNetwork hostPID hostname \
         hostnameOverride initContainers priority restartPolicy securityContext setHostnameAsFQDN \
         shareProcessNamespace subdomain terminationGracePeriodSeconds volumes",
    );
    check::<api::PodSecurityContext>(
        "spec.securityContext",
        "appArmorProfile fsGroup fsGroupChangePolicy runAsGroup runAsNonRoot runAsUser seLinuxChangePolicy seLinuxOptions \
         seccompProfile supplementalGroups supplementalGroupsPolicy sysctls",
    );
    check::<api::Container>(
        "spec.containers[]",
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resources \
         restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath terminationMessagePolicy tty \
         volumeMounts workingDir",
    );
    check::<api::ContainerRestartRule>("spec.containers[].restartPolicyRules[]", "action exitCodes");
    check::<api::ContainerRestartRuleOnExitCodes>(
        "spec.containers[].restartPolicyRules[].exitCodes",
        "operator values",
    );
    check::<api::ContainerPort>(
        "spec.containers[].ports[]",
        "containerPort hostIP hostPort name protocol",
    );
    check::<api::EnvVar>("spec.containers[].env[]", "name value valueFrom");
    check::<api::EnvVarSource>(
        "spec.containers[].env[].valueFrom",
        "configMapKeyRef fieldRef resourceFieldRef secretKeyRef",
    );
    check::<api::EnvFromSource>("spec.containers[].envFrom[]", "configMapRef prefix secretRef");
    check::<api::ResourceRequirements>("spec.containers[].resources", "limits requests");
    check::<api::SecurityContext>(
        "spec.containers[].securityContext",
        "allowPrivilegeEscalation appArmorProfile capabilities privileged procMount readOnlyRootFilesystem runAsGroup \
         runAsNonRoot runAsUser seLinuxOptions seccompProfile",
    );
    check::<api::VolumeMount>(
        "spec.containers[].volumeMounts[]",
        "mountPath mountPropagation name readOnly recursiveReadOnly subPath subPathExpr",
    );
    check::<api::Probe>(
        "spec.containers[].livenessProbe",
        "exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket \
         terminationGracePeriodSeconds timeoutSeconds",
    );
    check::<api::HTTPGetAction>(
        "spec.containers[].livenessProbe.httpGet",
        "host httpHeaders path port scheme",
    );
    check::<api::GRPCAction>("spec.containers[].livenessProbe.grpc", "port service");
    check::<api::TCPSocketAction>("spec.containers[].livenessProbe.tcpSocket", "host port");
    check::<api::Lifecycle>("spec.containers[].lifecycle", "postStart preStop stopSignal");
    check::<api::LifecycleHandler>("spec.containers[].lifecycle.preStop", "exec httpGet sleep");
    check::<api::PodDNSConfig>("spec.dnsConfig", "nameservers options searches");
}

#[test]
fn no_volume_is_ignored() {
    check::<api::Volume>(
        "spec.volumes[]",
        "configMap downwardAPI emptyDir hostPath name projected secret",
    );
    check::<api::ConfigMapVolumeSource>("spec.volumes[].configMap", "defaultMode items name optional");
    check::<api::SecretVolumeSource>("spec.volumes[].secret", "defaultMode items optional secretName");
    check::<api::DownwardAPIVolumeSource>("spec.volumes[].downwardAPI", "defaultMode items");
    check::<api::EmptyDirVolumeSource>("spec.volumes[].emptyDir", "medium sizeLimit");
    check::<api::HostPathVolumeSource>("spec.volumes[].hostPath", "path type");
    check::<api::ProjectedVolumeSource>("spec.volumes[].projected", "defaultMode sources");
    check::<api::VolumeProjection>(
        "spec.volumes[].projected.sources[]",
        "configMap downwardAPI secret",
    );
}
