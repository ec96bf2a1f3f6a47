use super::validate_pod;
use crate::defaulting::default_pod;
use crate::testing::pod;

/// The broken rules of a pod with this container and these other fields of its spec.
fn broken(container: &str, rest: &str) -> Vec<String> {
    let mut pod = pod(&format!(
        r#"{{"containers":[{{"name":"c","image":"i"{container}}}]{rest}}}"#
    ));
    default_pod(&mut pod);
    validate_pod(&pod)
        .iter()
        .map(|error| format!("{}: {error}", error.path))
        .collect()
}

#[test]
fn a_good_pod_breaks_nothing() {
    let container = r#","env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['a/b']"}}}],
        "ports":[{"name":"http","containerPort":80,"hostPort":8080},{"containerPort":80,"hostPort":8080,"protocol":"UDP"}],
        "livenessProbe":{"httpGet":{"port":"http"}},"lifecycle":{"preStop":{"sleep":{"seconds":5}}},
        "resources":{"limits":{"cpu":"1","hugepages-2Mi":"2Mi"}},"volumeMounts":[{"name":"v","mountPath":"/v","subPath":"a"}]"#;
    let rest = r#","volumes":[{"name":"v","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}},{"name":"h","hostPath":{"path":"/x"}},
        {"name":"d","downwardAPI":{"items":[{"path":"a","fieldRef":{"fieldPath":"metadata.labels"}}]}}],
        "securityContext":{"sysctls":[{"name":"net.ipv4.ip_forward","value":"1"}],"runAsUser":1000},
        "initContainers":[{"name":"s","image":"i","restartPolicy":"Always","startupProbe":{"exec":{"command":["true"]}}}]"#;
    assert_eq!(broken(container, rest), [""; 0]);
}

/// A claim's volume `v`, an emptyDir `e`.
const DEVICES: &str =
    r#","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}},{"name":"e","emptyDir":{}}]"#;

#[test]
fn rules_for_devices() {
    for (container, expected) in [
        (
            r#""volumeDevices":[{"name":"v","devicePath":"/dev/xvda"}]"#,
            &[][..],
        ),
        (
            r#""volumeDevices":[{"name":"","devicePath":""}]"#,
            &[
                "volumeDevices[0].name: Required value",
                "volumeDevices[0].devicePath: Required value",
            ],
        ),
        (
            r#""volumeDevices":[{"name":"x","devicePath":"/dev/../a"}]"#,
            &[
                r#"volumeDevices[0].name: Not found: "x""#,
                r#"volumeDevices[0].devicePath: Invalid value: "/dev/../a": can not contain backsteps ('..')"#,
            ],
        ),
        (
            r#""volumeDevices":[{"name":"e","devicePath":"/dev/a"}]"#,
            &[
                r#"volumeDevices[0].name: Invalid value: "e": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"#,
            ],
        ),
        (
            r#""volumeDevices":[{"name":"v","devicePath":"/dev/a"},{"name":"v","devicePath":"/dev/a"}]"#,
            &[
                r#"volumeDevices[1].name: Invalid value: "v": must be unique"#,
                r#"volumeDevices[1].devicePath: Invalid value: "/dev/a": must be unique"#,
            ],
        ),
        (
            r#""volumeDevices":[{"name":"v","devicePath":"/dev/a"}],
                "volumeMounts":[{"name":"v","mountPath":"/x"},{"name":"e","mountPath":"/dev/a"}]"#,
            &[
                r#"volumeDevices[0].name: Invalid value: "v": must not already exist in volumeMounts"#,
                r#"volumeDevices[0].devicePath: Invalid value: "/dev/a": must not already exist as a path in volumeMounts"#,
                r#"volumeMounts[0].name: Invalid value: "v": must not already exist in volumeDevices"#,
                r#"volumeMounts[1].mountPath: Invalid value: "/dev/a": must not already exist as a path in volumeDevices"#,
            ],
        ),
    ] {
        let expected: Vec<String> = expected
            .iter()
            .map(|rest| format!("spec.containers[0].{rest}"))
            .collect();
        assert_eq!(broken(&format!(",{container}"), DEVICES), expected);
    }
    let own_users = format!(r#","hostUsers":false{DEVICES}"#);
    assert_eq!(
        broken(
            r#","volumeDevices":[{"name":"v","devicePath":"/dev/a"}]"#,
            &own_users
        ),
        ["spec.containers[0].volumeDevices: Forbidden: when `hostUsers` is false"]
    );
}

#[test]
fn rules() {
    for (container, rest, expected) in [
        (
            "",
            r#","volumes":[{"name":"v","projected":{"sources":[{"configMap":{"name":"a","items":[{"key":"k","path":"f"}]}},
                {"secret":{"name":"b","items":[{"key":"k","path":"f"}]}}]}}]"#,
            r#"spec.volumes[0].projected: Invalid value: "b": conflicting duplicate paths"#,
        ),
        (
            "",
            r#","volumes":[{"name":"v","projected":{"sources":[{"configMap":{"name":"a"},"secret":{"name":"b"}}]}}]"#,
            "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "",
            r#","volumes":[{"name":"v","ephemeral":{"volumeClaimTemplate":{"metadata":{"name":"n"},
                "spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}}}]"#,
            "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata: Forbidden: only labels and annotations are allowed in the template",
        ),
        (
            "",
            r#","volumes":[{"name":"w","persistentVolumeClaim":{"claimName":"c"},"nfs":{"server":"s","path":"/"}}]"#,
            "spec.volumes[0].nfs: Forbidden: may not specify more than 1 volume type",
        ),
        (
            r#","resources":{"requests":{"cpu":"2"},"limits":{"memory":"2Gi"}}"#,
            r#","resources":{"requests":{"cpu":"1"}}"#,
            r#"spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2000m"#,
        ),
        (
            r#","resources":{"limits":{"memory":"2Gi"},"requests":{"memory":"1Mi"}}"#,
            r#","resources":{"limits":{"memory":"1Gi"}}"#,
            r#"spec.containers[0].resources.limits[memory]: Invalid value: "2Gi": must be less than or equal to pod limits of 1Gi"#,
        ),
        (
            "",
            r#","resources":{"limits":{"memory":"1Gi"},"requests":{"memory":"2Gi"}}"#,
            r#"spec.resources.requests[memory]: Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi"#,
        ),
        (
            "",
            r#","resources":{"limits":{"ephemeral-storage":"1Gi"}}"#,
            r#"spec.resources.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "memory""#,
        ),
        (
            "",
            r#","overhead":{"cpu":"-1"}"#,
            r#"spec.overhead[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
        ),
        (
            r#","readinessProbe":{"grpc":{"port":70000}}"#,
            "",
            "spec.containers[0].readinessProbe.grpc.port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            r#","restartPolicyRules":[{"action":"Restart","exitCodes":{"operator":"In","values":[1]}}]"#,
            "",
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            r#","restartPolicy":"Never","restartPolicyRules":[{"action":"Reboot","exitCodes":{"operator":"In"}}]"#,
            "",
            r#"spec.containers[0].restartPolicyRules[0].action: Unsupported value: "Reboot": supported values: "Restart", "RestartAllContainers""#,
        ),
        (
            r#","restartPolicy":"Never","restartPolicyRules":[{"action":"Restart"}]"#,
            "",
            "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
        ),
        (
            r#","resizePolicy":[{"resourceName":"gpu","restartPolicy":"NotRequired"}]"#,
            "",
            r#"spec.containers[0].resizePolicy[0].resourceName: Unsupported value: "gpu": supported values: "cpu", "memory""#,
        ),
        (
            r#","resizePolicy":[{"resourceName":"cpu","restartPolicy":"RestartContainer"}]"#,
            r#","restartPolicy":"Never""#,
            r#"spec.containers[0].resizePolicy[0].restartPolicy: Invalid value: "RestartContainer": must be 'NotRequired' when `restartPolicy` is 'Never'"#,
        ),
        (
            r#","resizePolicy":[{"resourceName":"cpu","restartPolicy":"NotRequired"},{"resourceName":"cpu","restartPolicy":"NotRequired"}]"#,
            "",
            r#"spec.containers[0].resizePolicy[1]: Duplicate value: "cpu""#,
        ),
        (
            r#","ports":[{"containerPort":0}]"#,
            "",
            "spec.containers[0].ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            r#","ports":[{"containerPort":80,"protocol":"tcp"}]"#,
            "",
            r#"spec.containers[0].ports[0].protocol: Unsupported value: "tcp": supported values: "SCTP", "TCP", "UDP""#,
        ),
        (
            r#","ports":[{"containerPort":1,"hostPort":2},{"containerPort":3,"hostPort":2}]"#,
            "",
            r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//2""#,
        ),
        (
            r#","ports":[{"containerPort":1,"hostPort":2}]"#,
            r#","hostNetwork":true"#,
            "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true",
        ),
        (
            r#","volumeMounts":[{"name":"v","mountPath":"/v"}]"#,
            "",
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            r#","volumeMounts":[{"name":"v","mountPath":"/v"},{"name":"v","mountPath":"/v"}]"#,
            r#","volumes":[{"name":"v"}]"#,
            r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/v": must be unique"#,
        ),
        (
            r#","volumeMounts":[{"name":"v","mountPath":"/v","subPath":"../x"}]"#,
            r#","volumes":[{"name":"v"}]"#,
            r#"spec.containers[0].volumeMounts[0].subPath: Invalid value: "../x": must not contain '..'"#,
        ),
        (
            r#","livenessProbe":{"exec":{"command":["x"]},"successThreshold":2}"#,
            "",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            r#","readinessProbe":{}"#,
            "",
            "spec.containers[0].readinessProbe: Required value: must specify a handler type",
        ),
        (
            r#","readinessProbe":{"exec":{"command":["x"]},"tcpSocket":{"port":1}}"#,
            "",
            "spec.containers[0].readinessProbe: Forbidden: may not specify more than 1 handler type",
        ),
        (
            r#","readinessProbe":{"httpGet":{"port":"http"}}"#,
            "",
            r#"spec.containers[0].readinessProbe.httpGet.port: Not found: "http""#,
        ),
        (
            r#","resources":{"requests":{"memory":"2Gi"},"limits":{"memory":"1Gi"}}"#,
            "",
            r#"spec.containers[0].resources.requests[memory]: Invalid value: "2Gi": must be less than or equal to memory limit of 1Gi"#,
        ),
        (
            r#","resources":{"limits":{"memory":"1 Gi"}}"#,
            "",
            r#"spec.containers[0].resources.limits[memory]: Invalid value: "1 Gi": quantities must match"#,
        ),
        (
            r#","resources":{"limits":{"gpu":"1"}}"#,
            "",
            r#"spec.containers[0].resources.limits[gpu]: Invalid value: "gpu": must be a standard resource"#,
        ),
        (
            r#","env":[{"name":"a=b"}]"#,
            "",
            r#"spec.containers[0].env[0].name: Invalid value: "a=b": a valid environment variable name"#,
        ),
        (
            r#","env":[{"name":"a","valueFrom":{"fieldRef":{"fieldPath":"spec.x"}}}]"#,
            "",
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "spec.x": supported values:"#,
        ),
        (
            "",
            r#","restartPolicy":"Sometimes""#,
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure""#,
        ),
        (
            "",
            r#","activeDeadlineSeconds":0"#,
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            "",
            r#","dnsPolicy":"None""#,
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None",
        ),
        (
            "",
            r#","volumes":[{"name":"v","hostPath":{"path":"/a/../b"}}]"#,
            r#"spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'"#,
        ),
        (
            "",
            r#","volumes":[{"name":"v","emptyDir":{},"hostPath":{"path":"/a"}}]"#,
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            "",
            r#","volumes":[{"name":"v","configMap":{"name":"m","items":[{"key":"a","path":"../a"}]}}]"#,
            r#"spec.volumes[0].configMap.items[0].path: Invalid value: "../a": must not contain '..'"#,
        ),
        (
            "",
            r#","volumes":[{"name":"v"},{"name":"v"}]"#,
            r#"spec.volumes[1].name: Duplicate value: "v""#,
        ),
        (
            "",
            r#","initContainers":[{"name":"c","image":"i"}]"#,
            r#"spec.containers[0].name: Duplicate value: "c""#,
        ),
        (
            "",
            r#","initContainers":[{"name":"i","image":"i","livenessProbe":{"exec":{"command":["x"]}}}]"#,
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (
            "",
            r#","securityContext":{"sysctls":[{"name":"kernel.core_pattern","value":"|/x"}]}"#,
            r#"spec.securityContext.sysctls[0].name: Invalid value: "kernel.core_pattern": is not a sysctl of the pod's own namespaces"#,
        ),
        (
            "",
            r#","securityContext":{"sysctls":[{"name":"kernel.shm_rmid_forced","value":"1+\nkernel.core_pattern=x"}]}"#,
            "spec.securityContext.sysctls[0].value: Invalid value:",
        ),
        (
            r#","env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"f","key":"A"}}}]"#,
            r#","volumes":[{"name":"v","hostPath":{"path":"/"}}]"#,
            r#"spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Invalid value: "v": referenced volume must be of type emptyDir"#,
        ),
        (
            r#","env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"w","path":"f","key":"A"}}}]"#,
            r#","volumes":[{"name":"v"}]"#,
            r#"spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "w""#,
        ),
        (
            r#","env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"../f","key":"A"}}}]"#,
            r#","volumes":[{"name":"v","emptyDir":{}}]"#,
            r#"spec.containers[0].env[0].valueFrom.fileKeyRef.path: Invalid value: "../f""#,
        ),
        (
            r#","env":[{"name":"A","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"f","key":"A=B"}}}]"#,
            r#","volumes":[{"name":"v","emptyDir":{}}]"#,
            r#"spec.containers[0].env[0].valueFrom.fileKeyRef.key: Invalid value: "A=B""#,
        ),
        (
            "",
            r#","hostUsers":false,"hostNetwork":true"#,
            "spec.hostNetwork: Forbidden: when `hostUsers` is false",
        ),
        (
            "",
            r#","hostUsers":false,"hostPID":true"#,
            "spec.hostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            "",
            r#","hostUsers":false,"hostIPC":true"#,
            "spec.hostIPC: Forbidden: when `hostUsers` is false",
        ),
        (
            "",
            r#","hostUsers":false,"securityContext":{"fsGroup":65536}"#,
            "spec.securityContext.fsGroup: Invalid value: 65536: must be between 0 and 65535, inclusive, when `hostUsers` is false",
        ),
        (
            r#","securityContext":{"runAsUser":100000}"#,
            r#","hostUsers":false"#,
            "spec.containers[0].securityContext.runAsUser: Invalid value: 100000: must be between 0 and 65535",
        ),
        (
            r#","securityContext":{"procMount":"Unmasked"}"#,
            "",
            r#"spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false"#,
        ),
        (
            "",
            r#","shareProcessNamespace":true,"hostPID":true"#,
            "spec.shareProcessNamespace: Forbidden: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            r#","securityContext":{"privileged":true,"allowPrivilegeEscalation":false}"#,
            "",
            "spec.containers[0].securityContext: Invalid value: \"\": cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            r#","lifecycle":{"preStop":{"sleep":{"seconds":31}}}"#,
            "",
            "spec.containers[0].lifecycle.preStop.sleep.seconds: Invalid value: 31: must be non-negative and less than",
        ),
    ] {
        let found = broken(container, rest);
        assert!(
            found.len() == 1 && found[0].starts_with(expected),
            "{container} {rest}: {found:#?}\n{expected}"
        );
    }
}

#[test]
fn how_labels_come_to_volumes_has_two_values() {
    let policy = |value: &str| {
        broken(
            "",
            &format!(r#","securityContext":{{"seLinuxChangePolicy":"{value}"}}"#),
        )
    };
    assert_eq!(policy("Recursive"), [""; 0]);
    assert_eq!(policy("MountOption"), [""; 0]);
    let [said] = &policy("Mount")[..] else {
        panic!("{:?}", policy("Mount"))
    };
    let expected = r#"spec.securityContext.seLinuxChangePolicy: Unsupported value: "Mount""#;
    assert!(said.starts_with(expected), "{said}");
}

#[test]
fn a_pod_needs_a_name_and_a_container() {
    let mut pod = pod(r#"{"containers":[]}"#);
    pod.metadata.name = None;
    let found: Vec<String> = validate_pod(&pod)
        .iter()
        .map(|error| error.path.clone())
        .collect();
    assert_eq!(found, ["metadata.name", "spec.containers"]);
}

/// What upstream lets pass, and a container could never start with.
#[test]
fn what_no_kernel_takes_is_refused_by_its_field() {
    let (name, path) = ("n".repeat(256), "/n".repeat(2048));
    let argument = "x".repeat(131_072);
    let nul = "must not contain a NUL, where a text ends for the kernel";
    let long_name = "must have no name of more than 255 bytes in it, as no file has a longer one";
    let long_path = "must be no more than 4095 bytes, as the kernel takes no longer path";
    let volume = r#","volumes":[{"name":"v","hostPath":{"path":"/x"}}]"#;
    for (container, rest, expected) in [
        (
            r#""command":["a","b\u0000c"],"args":["\u0000"]"#.to_owned(),
            "",
            [
                format!(r#"containers[0].args[0]: Invalid value: "\0": {nul}"#),
                format!(r#"containers[0].command[1]: Invalid value: "b\0c": {nul}"#),
            ]
            .to_vec(),
        ),
        (
            r#""env":[{"name":"A","value":"\u0000"}]"#.to_owned(),
            "",
            vec![format!(r#"containers[0].env[0].value: Invalid value: "\0": {nul}"#)],
        ),
        (
            r#""workingDir":"/\u0000","readinessProbe":{"exec":{"command":["\u0000"]}}"#.to_owned(),
            "",
            vec![
                format!(r#"containers[0].readinessProbe.exec.command[0]: Invalid value: "\0": {nul}"#),
                format!(r#"containers[0].workingDir: Invalid value: "/\0": {nul}"#),
            ],
        ),
        (
            r#""volumeMounts":[{"name":"v","mountPath":"/\u0000"}]"#.to_owned(),
            volume,
            vec![format!(r#"containers[0].volumeMounts[0].mountPath: Invalid value: "/\0": {nul}"#)],
        ),
        (
            r#""workingDir":"srv""#.to_owned(),
            "",
            vec![r#"containers[0].workingDir: Invalid value: "srv": must be an absolute path"#.to_owned()],
        ),
        (
            format!(r#""workingDir":"/{name}","terminationMessagePath":"{path}""#),
            "",
            vec![
                format!(r#"containers[0].terminationMessagePath: Invalid value: {path:?}: {long_path}"#),
                format!(r#"containers[0].workingDir: Invalid value: "/{name}": {long_name}"#),
            ],
        ),
        (
            format!(r#""volumeMounts":[{{"name":"v","mountPath":"/{name}","subPath":"{name}"}}]"#),
            volume,
            vec![
                format!(r#"containers[0].volumeMounts[0].mountPath: Invalid value: "/{name}": {long_name}"#),
                format!(r#"containers[0].volumeMounts[0].subPath: Invalid value: "{name}": {long_name}"#),
            ],
        ),
        (
            r#""volumeMounts":[{"name":"v","mountPath":"//."}],"terminationMessagePath":"/""#.to_owned(),
            volume,
            vec![
                r#"containers[0].terminationMessagePath: Invalid value: "/": must not be the root directory, which is the image's"#
                    .to_owned(),
                r#"containers[0].volumeMounts[0].mountPath: Invalid value: "//.": must not be the root directory, which is the image's"#
                    .to_owned(),
            ],
        ),
        (
            r#""ports":[]"#.to_owned(),
            r#","volumes":[{"name":"v","hostPath":{"path":"x"}}]"#,
            vec![r#"volumes[0].hostPath.path: Invalid value: "x": must be an absolute path"#.to_owned()],
        ),
        (
            r#""securityContext":{"capabilities":{"add":["CAP_NET_ADMIN","net_raw","NET_ADMINN"],"drop":["ALL","X"]}}"#
                .to_owned(),
            "",
            vec![
                r#"containers[0].securityContext.capabilities.add[2]: Invalid value: "NET_ADMINN": must be one of capabilities(7), or ALL"#
                    .to_owned(),
                r#"containers[0].securityContext.capabilities.drop[1]: Invalid value: "X": must be one of capabilities(7), or ALL"#
                    .to_owned(),
            ],
        ),
        (
            r#""command":["","a"]"#.to_owned(),
            "",
            vec![
                "containers[0].command[0]: Required value: must name a program; without `command` it is the image's"
                    .to_owned(),
            ],
        ),
        (
            format!(r#""command":["a","{argument}"],"env":[{{"name":"A","value":"{}"}}]"#, &argument[2..]),
            "",
            vec![
                "containers[0].command[1]: Invalid value: \"xxxxxxxxxxxxxxxxxxxx…\": takes 131072 bytes, and the kernel \
                 takes fewer than 131072"
                    .to_owned(),
                "containers[0].env[0].value: Invalid value: \"xxxxxxxxxxxxxxxxxxxx…\": takes 131072 bytes, and the kernel \
                 takes fewer than 131072"
                    .to_owned(),
            ],
        ),
        // The longest that it does take, and one that may become shorter.
        (
            format!(r#""command":["{}","$(A){argument}"]"#, &argument[1..]),
            "",
            Vec::new(),
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|one| format!("spec.{one}")).collect();
        let mut broken = broken(&format!(",{container}"), rest);
        broken.sort();
        assert_eq!(broken, expected, "{:.100}", container);
    }
}

#[test]
fn a_host_name_with_its_domain_is_as_short_as_any() {
    for (length, rest, fits) in [
        (63, "", true),
        (63, r#","setHostnameAsFQDN":true"#, false),
        (63, r#","setHostnameAsFQDN":true,"hostNetwork":true"#, true),
        // `.sub.default.svc` follows.
        (48, r#","setHostnameAsFQDN":true"#, true),
        (49, r#","setHostnameAsFQDN":true"#, false),
    ] {
        let name = "h".repeat(length);
        let broken = broken("", &format!(r#","hostname":"{name}","subdomain":"sub"{rest}"#));
        let expected = format!(
            "spec.setHostnameAsFQDN: Forbidden: the host name would be {name}.sub.default.svc, and may have 64 characters"
        );
        assert_eq!(broken, Vec::from_iter((!fits).then_some(expected)));
    }
}
