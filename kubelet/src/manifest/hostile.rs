//! Manifests that are wrong in every way there is: each is refused with errors that a person can act on.

use proptest::prelude::*;

use super::{Options, Source, load};

/// A pod with a line for its container, one for its specification and one for its metadata. The whole is right as long as the
/// lines are empty.
fn pod(metadata: &str, spec: &str, container: &str) -> String {
    let line = |indent: &str, text: &str| match text {
        "" => String::new(),
        text => format!("{indent}{text}\n"),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n{}spec:\n{}  containers:\n  - name: c\n    image: i\n{}",
        line("  ", metadata),
        line("  ", spec),
        line("    ", container),
    )
}

fn errors(text: &str) -> Vec<String> {
    let options = Options {
        node: "/n",
        ..Options::default()
    };
    match load(&[Source { name: "f", text }], options) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

/// Says where and what: the file and, below the object, a line and a path; no more than a screen, and nothing that moves a
/// terminal's cursor.
fn is_clear(error: &str) -> bool {
    let short = error.chars().count() < 700;
    let printable = error.chars().all(|c| !c.is_control() && c != '\u{202e}');
    short && printable && error.starts_with('f') && error.contains(": ") && error.len() > 12
}

/// Lines of a container, of a specification and of the metadata that make a pod wrong, with a word of what is said.
const CONTAINER: &[(&str, &str)] = &[
    ("name: C", "there twice"),
    ("imagee: x", "did you mean \"image\"?"),
    ("command: ls", "expected a list"),
    ("command: [1]", "expected a string"),
    ("args: {a: b}", "expected a list"),
    ("workingDir: 7", "expected a string"),
    ("ports: 80", "expected a list"),
    ("ports: [80]", "expected an object"),
    ("ports: [{containerPort: 0}]", "between 1 and 65535"),
    ("ports: [{containerPort: 65536}]", "between 1 and 65535"),
    ("ports: [{containerPort: 99999999999}]", "whole number"),
    ("ports: [{containerPort: 80.5}]", "whole number"),
    (
        "ports: [{containerPort: 80, protocol: ICMP}]",
        "Unsupported value",
    ),
    (
        "ports: [{containerPort: 80, hostIP: localhost}]",
        "valid IP address",
    ),
    ("ports: [{containerPort: 80, name: WEB}]", "Invalid value"),
    (
        "ports: [{containerPort: 80, name: a}, {containerPort: 81, name: a}]",
        "Duplicate value",
    ),
    (
        "ports: [{containerPort: 80, hostPort: 1}, {containerPort: 81, hostPort: 1}]",
        "Duplicate value",
    ),
    ("env: [{value: x}]", "Required value"),
    ("env: [{name: \"a=b\", value: x}]", "Invalid value"),
    ("env: [{name: A, value: 1}]", "put it in quotes"),
    (
        "env: [{name: A, value: x, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]",
        "may not be specified",
    ),
    ("env: [{name: A, valueFrom: {}}]", "must specify one of"),
    (
        "env: [{name: A, valueFrom: {fieldRef: {fieldPath: spec.secrets}}}]",
        "Unsupported value",
    ),
    (
        "env: [{name: A, valueFrom: {fieldRef: {fieldPath: \"metadata.name['x']\"}}}]",
        "subscript",
    ),
    (
        "env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}]",
        "Unsupported value",
    ),
    (
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: k}}}]",
        "in none of the files",
    ),
    (
        "env: [{name: A, valueFrom: {secretKeyRef: {name: none, key: k}}}]",
        "in none of the files",
    ),
    (
        "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: ../k}}}]",
        "Invalid value",
    ),
    ("envFrom: [{}]", "must specify one of"),
    (
        "envFrom: [{prefix: \"=\", configMapRef: {name: m, optional: true}}]",
        "Invalid value",
    ),
    ("imagePullPolicy: Sometimes", "Unsupported value"),
    ("restartPolicy: Maybe", "Unsupported value"),
    ("restartPolicyRules: [{action: Restart}]", "Required value"),
    ("resources: {limits: {cpu: lots}}", "Invalid value"),
    ("resources: {limits: {cpu: -1}}", "greater than or equal to 0"),
    (
        "resources: {limits: {memory: 1Gi, hugepages-2Mi: 3Mi}}",
        "integer multiple",
    ),
    ("resources: {limits: {memory: 1Gx}}", "Invalid value"),
    ("resources: {limits: {nvidia.com/gpu: 1.5}}", "must be an integer"),
    ("resources: {limits: {nvidia.com/: 1}}", "Invalid value"),
    (
        "resources: {limits: {nvidia.com/gpu: 2}, requests: {nvidia.com/gpu: 1}}",
        "must be equal to nvidia.com/gpu limit",
    ),
    (
        "resources: {limits: {memory: 1Mi}, requests: {memory: 2Mi}}",
        "must be less than or equal",
    ),
    (
        "resources: {limits: {hugepages-2Mi: 2Mi}}",
        "HugePages require cpu or memory",
    ),
    (
        "resources: {requests: {hugepages-2Mi: 2Mi, cpu: 1}}",
        "Limit must be set",
    ),
    ("resources: {claims: [{name: g}]}", "not supported"),
    (
        "resizePolicy: [{resourceName: cpu, restartPolicy: Nope}]",
        "Unsupported value",
    ),
    ("volumeMounts: [{name: none, mountPath: /x}]", "Not found"),
    ("volumeMounts: [{name: none}]", "Required value"),
    ("volumeMounts: [{name: none, mountPath: /a/../b}]", "'..'"),
    (
        "volumeMounts: [{name: none, mountPath: /x, subPath: ../..}]",
        "'..'",
    ),
    (
        "volumeMounts: [{name: none, mountPath: /x, subPath: /etc}]",
        "relative",
    ),
    (
        "volumeMounts: [{name: none, mountPath: /x, mountPropagation: Bidirectional}]",
        "privileged",
    ),
    (
        "volumeMounts: [{name: none, mountPath: /x, mountPropagation: Sideways}]",
        "Unsupported value",
    ),
    (
        "volumeDevices: [{name: v, devicePath: /dev/x}]",
        "Not found: \"v\"",
    ),
    ("livenessProbe: {}", "must specify a handler type"),
    ("livenessProbe: {exec: {command: []}}", "Required value"),
    (
        "livenessProbe: {exec: {command: [x]}, tcpSocket: {port: 1}}",
        "more than 1 handler",
    ),
    (
        "livenessProbe: {exec: {command: [x]}, successThreshold: 2}",
        "must be 1",
    ),
    (
        "livenessProbe: {exec: {command: [x]}, periodSeconds: -1}",
        "greater than or equal to 0",
    ),
    (
        "livenessProbe: {exec: {command: [x]}, periodSeconds: soon}",
        "whole number",
    ),
    ("livenessProbe: {httpGet: {port: web}}", "Not found"),
    ("livenessProbe: {httpGet: {port: 0}}", "between 1 and 65535"),
    (
        "livenessProbe: {httpGet: {port: 80, scheme: FTP}}",
        "Unsupported value",
    ),
    (
        "livenessProbe: {httpGet: {port: 80, httpHeaders: [{name: \"a b\", value: x}]}}",
        "Invalid value",
    ),
    ("livenessProbe: {grpc: {port: 0}}", "between 1 and 65535"),
    (
        "readinessProbe: {exec: {command: [x]}, terminationGracePeriodSeconds: 1}",
        "must not be set",
    ),
    (
        "lifecycle: {preStop: {sleep: {seconds: 3600}}}",
        "terminationGracePeriodSeconds",
    ),
    ("lifecycle: {preStop: {tcpSocket: {port: 1}}}", "not supported"),
    ("lifecycle: {stopSignal: SIGTERM}", "spec.os.name"),
    ("lifecycle: {stopSignal: TERM}", "the name of a Linux signal"),
    ("terminationMessagePolicy: Shout", "Unsupported value"),
    ("securityContext: {runAsUser: -1}", "Invalid value"),
    ("securityContext: {runAsUser: root}", "whole number"),
    ("securityContext: {privileged: 'yes'}", "true or false"),
    (
        "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
        "cannot set",
    ),
    ("securityContext: {procMount: Naked}", "Unsupported value"),
    (
        "securityContext: {seccompProfile: {type: Localhost}}",
        "Required value",
    ),
    ("securityContext: {windowsOptions: {}}", "not supported"),
    ("stdin: 1", "true or false"),
];

const SPEC: &[(&str, &str)] = &[
    ("contaners: []", "unknown field"),
    ("restartPolicy: Sometimes", "Unsupported value"),
    ("terminationGracePeriodSeconds: -1", "greater than or equal to 0"),
    ("activeDeadlineSeconds: 0", "between 1 and 2147483647"),
    ("hostname: Web_1", "Invalid value"),
    ("subdomain: a.b", "Invalid value"),
    ("hostnameOverride: -x", "Invalid value"),
    ("hostAliases: [{ip: nowhere, hostnames: [a]}]", "valid IP address"),
    (
        "hostAliases: [{ip: 10.0.0.1, hostnames: ['a b']}]",
        "Invalid value",
    ),
    ("dnsPolicy: None", "at least one DNS nameserver"),
    ("dnsPolicy: Maybe", "Unsupported value"),
    ("dnsConfig: {nameservers: [a]}", "valid IP address"),
    (
        "dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}",
        "more than 3",
    ),
    (
        "dnsConfig: {options: [{name: \"a\\nnameserver\"}]}",
        "spaces or control characters",
    ),
    ("volumes: [{name: V}]", "Invalid value"),
    ("volumes: [{name: v}, {name: v}]", "Duplicate value"),
    (
        "volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}]",
        "more than",
    ),
    (
        "volumes: [{name: v, emptyDir: {sizeLimit: big}}]",
        "Invalid value",
    ),
    ("volumes: [{name: v, hostPath: {path: /a/../etc}}]", "'..'"),
    (
        "volumes: [{name: v, hostPath: {path: /x, type: Pipe}}]",
        "Unsupported value",
    ),
    (
        "volumes: [{name: v, configMap: {name: none}}]",
        "in none of the files",
    ),
    (
        "volumes: [{name: v, configMap: {name: m, optional: true, items: [{key: k, path: ../x}]}}]",
        "'..'",
    ),
    (
        "volumes: [{name: v, configMap: {name: m, optional: true, defaultMode: 0o7777}}]",
        "Invalid value",
    ),
    ("volumes: [{name: v, cephfs: {monitors: [m]}}]", "not supported"),
    (
        "securityContext: {sysctls: [{name: \"../kernel\", value: x}]}",
        "Invalid value",
    ),
    (
        "securityContext: {sysctls: [{name: kernel.shm_rmid_forced, value: '1'}, {name: kernel.shm_rmid_forced, value: '0'}]}",
        "Duplicate value",
    ),
    ("readinessGates: [{conditionType: 'a b'}]", "Invalid value"),
    ("runtimeClassName: A_B", "Invalid value"),
    ("resources: {requests: {disk: 1}}", "must be a standard resource"),
    (
        "resources: {requests: {kubernetes.io/disk: 1}}",
        "extended resource name standard",
    ),
    ("overhead: {cpu: -1}", "greater than or equal to 0"),
    ("schedulingGates: [{name: 'a b'}]", "Invalid value"),
    ("schedulingGates: [{name: g}, {name: g}]", "Duplicate value"),
    (
        "schedulingGates: [{name: g}]\n  nodeName: node-1",
        "until all schedulingGates have been cleared",
    ),
    (
        "topologySpreadConstraints: [{maxSkew: -1}]",
        "must be greater than zero",
    ),
    ("shareProcessNamespace: 'no'", "true or false"),
    ("initContainers: {name: i}", "expected a list"),
    ("initContainers: [{name: c, image: i}]", "Duplicate value"),
    (
        "initContainers: [{name: i, image: i, readinessProbe: {exec: {command: [x]}}}]",
        "may not be set for init containers",
    ),
];

const METADATA: &[(&str, &str)] = &[
    ("namespace: A", "Invalid value"),
    ("labels: {a: 1}", "expected a string"),
    ("labels: {'a b': x}", "Invalid value"),
    ("labels: {a: 'x y'}", "Invalid value"),
    (
        "annotations: {berth.dev/unheard: x}",
        "there is no such annotation",
    ),
    ("annotations: {berth.dev/probe-period: 1ns}", "50ms"),
    (
        "annotations: {berth.dev/restart-backoff: 'factor=0'}",
        "between 1 and 100",
    ),
    ("finalizers: [x]", "not supported"),
    ("ownerReferences: {}", "expected a list"),
    ("uid: 7", "expected a string"),
];

#[test]
fn a_hundred_wrong_manifests_are_refused_in_words() {
    assert_eq!(errors(&pod("", "", "")), [""; 0]);
    let metadata = METADATA.iter().map(|(line, why)| (pod(line, "", ""), line, why));
    let spec = SPEC.iter().map(|(line, why)| (pod("", line, ""), line, why));
    let container = CONTAINER.iter().map(|(line, why)| (pod("", "", line), line, why));
    let all: Vec<_> = metadata.chain(spec).chain(container).collect();
    assert!(all.len() >= 100, "{}", all.len());
    let mut wrong = Vec::new();
    for (text, line, why) in all {
        let found = errors(&text);
        if !found.iter().any(|error| error.contains(why)) || !found.iter().all(|error| is_clear(error)) {
            wrong.push(format!("{line}\n  wanted {why:?}, found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What breaks a text in one place.
#[derive(Clone, Debug)]
enum Damage {
    Cut(usize),
    Drop(usize),
    Twice(usize),
    Put(usize, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    let pieces = prop::sample::select(vec![
        ":",
        "-",
        "{",
        "}",
        "[",
        "]",
        "'",
        "\"",
        "\n",
        "  ",
        "\t",
        "#",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "!!binary ",
        "|\n",
        "null",
        "~",
        "\u{0}",
        "\u{1b}[2J",
        "\u{202e}",
        "é",
        "9e999",
        "0x",
        "-0",
        "../..",
        "$(A)",
        "$$",
        "%00",
        "true",
        "[[[[[[",
        "? ",
    ]);
    prop_oneof![
        any::<usize>().prop_map(Damage::Cut),
        any::<usize>().prop_map(Damage::Drop),
        any::<usize>().prop_map(Damage::Twice),
        (any::<usize>(), pieces).prop_map(|(at, piece)| Damage::Put(at, piece)),
    ]
}

fn damaged(text: &str, damages: &[Damage]) -> String {
    let mut text: Vec<char> = text.chars().collect();
    for damage in damages {
        let length = text.len().max(1);
        match damage {
            Damage::Cut(at) => text.truncate(at % length),
            Damage::Drop(at) => {
                text.drain((at % length).min(text.len())..(at % length + 1).min(text.len()));
            }
            Damage::Twice(at) => {
                let part: Vec<char> = text.iter().skip(at % length).take(20).copied().collect();
                text.splice(at % length..at % length, part);
            }
            Damage::Put(at, piece) => {
                let at = (at % length).min(text.len());
                text.splice(at..at, piece.chars());
            }
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is done to a manifest, it is read or refused in words.
    #[test]
    fn a_damaged_manifest_is_read_or_refused_in_words(
        container in 0..CONTAINER.len(),
        spec in 0..SPEC.len(),
        damages in prop::collection::vec(damage(), 1..6),
    ) {
        let text = damaged(&pod("", SPEC[spec].0, CONTAINER[container].0), &damages);
        for error in errors(&text) {
            prop_assert!(is_clear(&error), "{error:?}\nof\n{text}");
        }
    }
}
