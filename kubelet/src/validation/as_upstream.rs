//! Pods that Kubernetes 1.36's own validation was asked about, with the fields that it named. Where it names a list, we name the
//! item.

use super::validate_pod;
use crate::defaulting::default_pod;
use crate::testing::pod;

/// Fields of the container, other fields of the spec, and the fields that are wrong.
const CASES: &[(&str, &str, &[&str])] = &[
    (
        r#""env":[{"name":"A","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"2Mi"}}}]"#,
        "",
        &["spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor"],
    ),
    (
        r#""env":[{"name":"A","valueFrom":{"resourceFieldRef":{"resource":"limits.cpu","divisor":"1m"}}}]"#,
        "",
        &[],
    ),
    (
        r#""env":[{"name":"A","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"1024Ki"}}}]"#,
        "",
        &[],
    ),
    (
        r#""env":[{"name":"A","valueFrom":{"fieldRef":{"apiVersion":"v2","fieldPath":"metadata.name"}}}]"#,
        "",
        &["spec.containers[0].env[0].valueFrom.fieldRef.fieldPath"],
    ),
    (
        r#""env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"A_b","key":"k","optional":true}}}]"#,
        "",
        &["spec.containers[0].env[0].valueFrom.configMapKeyRef.name"],
    ),
    (
        r#""envFrom":[{"secretRef":{"name":"A_b","optional":true}}]"#,
        "",
        &["spec.containers[0].envFrom[0].secretRef.name"],
    ),
    (
        r#""lifecycle":{"stopSignal":"SIGFOO"}"#,
        r#""os":{"name":"linux"}"#,
        &["spec.containers[0].lifecycle.stopSignal"],
    ),
    (
        r#""lifecycle":{"stopSignal":"SIGRTMIN+15"}"#,
        r#""os":{"name":"linux"}"#,
        &[],
    ),
    (
        r#""lifecycle":{"stopSignal":"SIGRTMIN+16"}"#,
        r#""os":{"name":"linux"}"#,
        &["spec.containers[0].lifecycle.stopSignal"],
    ),
    (
        r#""lifecycle":{"stopSignal":"TERM"}"#,
        r#""os":{"name":"linux"}"#,
        &["spec.containers[0].lifecycle.stopSignal"],
    ),
    (r#""resources":{"limits":{"memory":"0.1Gi"}}"#, "", &[]),
    (r#""resources":{"limits":{"memory":"100m"}}"#, "", &[]),
    (r#""resources":{"limits":{"cpu":"0"}}"#, "", &[]),
    (r#""resources":{"limits":{"example.com/dongle":"2"}}"#, "", &[]),
    (
        r#""resources":{"requests":{"example.com/dongle":"2"}}"#,
        "",
        &["spec.containers[0].resources.limits"],
    ),
    (
        r#""resources":{"limits":{"example.com/dongle":"500m"}}"#,
        "",
        &["spec.containers[0].resources.limits[example.com/dongle]"],
    ),
    (
        r#""resources":{"limits":{"hugepages-2Mi":"3Mi","cpu":"1"}}"#,
        "",
        &["spec.containers[0].resources.limits[hugepages-2Mi]"],
    ),
    (
        r#""resources":{"limits":{"hugepages-2Mi":"4Mi"}}"#,
        "",
        &["spec.containers[0].resources"],
    ),
    (
        r#""resources":{"limits":{"hugepages-2Mi":"4Mi","memory":"1Mi"}}"#,
        "",
        &[],
    ),
    (
        r#""securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"add":["CAP_SYS_ADMIN"]}}"#,
        "",
        &["spec.containers[0].securityContext"],
    ),
    (
        r#""securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"add":["SYS_ADMIN"]}}"#,
        "",
        &[],
    ),
    (
        r#""securityContext":{"seccompProfile":{"type":"RuntimeDefault","localhostProfile":""}}"#,
        "",
        &["spec.containers[0].securityContext.seccompProfile.localhostProfile"],
    ),
    (
        r#""securityContext":{"appArmorProfile":{"type":"Unconfined","localhostProfile":""}}"#,
        "",
        &["spec.containers[0].securityContext.appArmorProfile.localhostProfile"],
    ),
    (r#""terminationMessagePath":"log""#, "", &[]),
    (r#""livenessProbe":{"tcpSocket":{"port":80}}"#, "", &[]),
    ("", r#""os":{}"#, &["spec.os.name"]),
    (
        "",
        r#""hostNetwork":true,"initContainers":[{"name":"i","image":"i","ports":[{"containerPort":80,"hostPort":81}]}]"#,
        &[],
    ),
    (
        r#""ports":[{"containerPort":80,"hostPort":81}]"#,
        r#""hostNetwork":true"#,
        &["spec.containers[0].ports[0].hostPort"],
    ),
    (
        "",
        r#""initContainers":[{"name":"i","image":"i","ports":[{"containerPort":80,"hostPort":81},{"containerPort":82,"hostPort":81}]}]"#,
        &["spec.initContainers[0].ports[1].hostPort"],
    ),
    (
        r#""ports":[{"containerPort":80,"hostPort":81}]"#,
        r#""initContainers":[{"name":"i","image":"i","ports":[{"containerPort":80,"hostPort":81}]}]"#,
        &[],
    ),
    (
        "",
        r#""initContainers":[{"name":"i","image":"i","resizePolicy":[{"resourceName":"cpu","restartPolicy":"RestartContainer"}]}]"#,
        &["spec.initContainers[0].resizePolicy[0].restartPolicy"],
    ),
    (
        "",
        r#""resources":{"limits":{"cpu":"1"}},"initContainers":[{"name":"i","image":"i","resources":{"requests":{"cpu":"1"},"limits":{"cpu":"2"}}}]"#,
        &[],
    ),
    (
        "",
        r#""resources":{"limits":{"hugepages-2Mi":"2Mi"}}"#,
        &["spec.resources"],
    ),
    (
        "",
        r#""resources":{"limits":{"hugepages-2Mi":"2Mi","cpu":"1"},"requests":{"hugepages-2Mi":"4Mi"}}"#,
        &["spec.resources.requests[hugepages-2Mi]"],
    ),
    (
        "",
        r#""volumes":[{"name":"v","projected":{"sources":[{"secret":{"name":"s","items":[{"key":"a","path":"f"}]}},{"configMap":{"name":"m","items":[{"key":"a","path":"f"}]}}]}}]"#,
        &["spec.volumes[0].projected"],
    ),
    (
        "",
        r#""volumes":[{"name":"v","projected":{"sources":[{"secret":{"name":"s"},"configMap":{"name":"m"}}]}}]"#,
        &["spec.volumes[0].projected.sources[0]"],
    ),
    (
        "",
        r#""volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"metadata":{"labels":{"a":"b c"}},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1"}}}}}}]"#,
        &["spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.labels"],
    ),
    (
        "",
        r#""volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"spec":{"accessModes":["ReadWriteOncePod","ReadWriteOncePod"],"resources":{"requests":{"storage":"1"}}}}}},{"name":"w","persistentVolumeClaim":{"claimName":"p-v"}}]"#,
        &["spec.volumes[1].persistentVolumeClaim.claimName"],
    ),
    (
        "",
        r#""tolerations":[{"operator":"Exists","effect":"NoExecute","tolerationSeconds":-5}]"#,
        &[],
    ),
    (
        "",
        r#""tolerations":[{"key":"k","operator":"Gt","value":"1"}]"#,
        &["spec.tolerations[0].operator"],
    ),
    (
        "",
        r#""tolerations":[{"value":"v"}]"#,
        &["spec.tolerations[0].operator"],
    ),
    (
        "",
        r#""tolerations":[{"key":"k","operator":"Exists","value":"v"}]"#,
        &["spec.tolerations[0].operator"],
    ),
    (
        "",
        r#""tolerations":[{"key":"k","value":"a b"}]"#,
        &["spec.tolerations[0].operator"],
    ),
    (
        "",
        r#""tolerations":[{"key":"k","effect":"NoRun"}]"#,
        &["spec.tolerations[0].effect"],
    ),
    (
        "",
        r#""tolerations":[{"key":"k","tolerationSeconds":1}]"#,
        &["spec.tolerations[0].effect"],
    ),
    ("", r#""nodeSelector":{"a b":"c"}"#, &["spec.nodeSelector"]),
    ("", r#""nodeName":"A""#, &["spec.nodeName"]),
    ("", r#""serviceAccountName":"A""#, &["spec.serviceAccountName"]),
    ("", r#""serviceAccount":"A""#, &["spec.serviceAccountName"]),
    ("", r#""priorityClassName":"A""#, &["spec.priorityClassName"]),
    (
        "",
        r#""preemptionPolicy":"Sometimes""#,
        &["spec.preemptionPolicy"],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}}"#,
        &["spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"In"}]}]}}}"#,
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values",
        ],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"In","values":["a b"]}]}]}}}"#,
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]",
        ],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchExpressions":[{"key":"k","operator":"In","values":["a b"]}]}}]}}"#,
        &[],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":101,"preference":{"matchFields":[{"key":"metadata.name","operator":"In","values":["A"]}]}}]}}"#,
        &[
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].values[0]",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight",
        ],
    ),
    (
        "",
        r#""affinity":{"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"preference":{"matchFields":[{"key":"metadata.uid","operator":"Exists"}]}}]}}"#,
        &[
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].key",
            "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchFields[0].operator",
        ],
    ),
    (
        "",
        r#""affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"z","namespaces":["A"]}]}}"#,
        &["spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaces[0]"],
    ),
    (
        "",
        r#""affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"z","matchLabelKeys":["a"]}]}}"#,
        &["spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys"],
    ),
    (
        "",
        r#""affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":0,"podAffinityTerm":{"topologyKey":"","labelSelector":{"matchLabels":{"a":"b c"}}}}]}}"#,
        &[
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector.matchLabels",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.topologyKey",
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight",
        ],
    ),
    (
        "",
        r#""affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"z","labelSelector":{},"matchLabelKeys":["a"],"mismatchLabelKeys":["a"]}]}}"#,
        &["spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys[0]"],
    ),
];

#[test]
fn fields_that_upstream_names() {
    for (container, rest, expected) in CASES {
        let comma = |text: &str| if text.is_empty() { "" } else { "," };
        let mut pod = pod(&format!(
            r#"{{"containers":[{{"name":"c","image":"i"{}{container}}}]{}{rest}}}"#,
            comma(container),
            comma(rest),
        ));
        pod.metadata.name = Some("p".to_owned());
        default_pod(&mut pod);
        let mut paths: Vec<String> = validate_pod(&pod).into_iter().map(|error| error.path).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths, *expected, "{container} {rest}");
    }
}

#[test]
fn annotations_of_seccomp_say_nothing_any_more() {
    for name in [
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.seccomp.security.alpha.kubernetes.io/c",
    ] {
        let mut pod = pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let annotation = (name.to_owned(), "runtime/default".to_owned());
        pod.metadata
            .annotations
            .get_or_insert_default()
            .extend([annotation]);
        default_pod(&mut pod);
        let errors = validate_pod(&pod);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].to_string().contains("seccompProfile"), "{errors:?}");
    }
}

#[test]
fn annotations_of_apparmor_are_as_good_as_fields() {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    for (name, text, field, expected) in [
        ("c", "localhost/x", "", ""),
        ("c", "runtime/default", "", ""),
        ("c", "other", "", "metadata.annotations"),
        ("d", "unconfined", "", "metadata.annotations"),
        (
            "c",
            "unconfined",
            r#"{"type":"RuntimeDefault"}"#,
            ".appArmorProfile.type",
        ),
        (
            "c",
            "localhost/x",
            r#"{"type":"Localhost","localhostProfile":"y"}"#,
            ".appArmorProfile.localhostProfile",
        ),
        (
            "c",
            "localhost/x",
            r#"{"type":"Localhost","localhostProfile":"x"}"#,
            "",
        ),
    ] {
        let security = match field {
            "" => String::new(),
            field => format!(r#","securityContext":{{"appArmorProfile":{field}}}"#),
        };
        let mut pod = pod(&format!(
            r#"{{"containers":[{{"name":"c","image":"i"{security}}}]}}"#
        ));
        let annotation = (format!("{PREFIX}{name}"), text.to_owned());
        pod.metadata
            .annotations
            .get_or_insert_default()
            .extend([annotation]);
        default_pod(&mut pod);
        let errors = validate_pod(&pod);
        if expected.is_empty() {
            assert_eq!(errors, [], "{name} {text} {field}");
            let spec = pod.spec.unwrap();
            let security = spec.containers[0].security_context.as_ref().unwrap();
            let profile = security.app_armor_profile.as_ref().unwrap();
            assert_eq!(
                profile.localhost_profile.as_deref(),
                text.strip_prefix("localhost/")
            );
        } else {
            assert!(
                errors.iter().all(|error| error.path.contains(expected)),
                "{errors:?}"
            );
            assert!(!errors.is_empty(), "{name} {text} {field}");
        }
    }
}
