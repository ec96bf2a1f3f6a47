use std::sync::Arc;

use super::*;
use crate::plan::{Desired, ImageState, Observed, Reason, Step, plan};

fn options(lenient: bool) -> Options<'static> {
    Options {
        lenient,
        node: "/var/lib/berth",
        ..Options::default()
    }
}

fn read(text: &str) -> Result<Manifest, ManifestErrors> {
    load(&[Source { name: "f.yaml", text }], options(false))
}

fn source(text: &str) -> Source<'_> {
    Source { name: "f", text }
}

/// The messages, without the file's name.
fn messages(text: &str) -> Vec<String> {
    let found = read(text).map(|_| ()).unwrap_err();
    found
        .0
        .iter()
        .map(|error| error.to_string().trim_start_matches("f.yaml:").to_owned())
        .collect()
}

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: c
    image: busybox
";

#[test]
fn a_pod_is_defaulted_and_has_a_uid() {
    let manifest = read(POD).unwrap();
    let (uid, pod) = &manifest.pods[0];
    assert_eq!(pod.metadata.uid.as_deref(), Some(uid.0.as_str()));
    assert_eq!(pod.metadata.namespace.as_deref(), Some("default"));
    assert_eq!(
        pod.spec.as_ref().unwrap().containers[0]
            .image_pull_policy
            .as_deref(),
        Some("Always")
    );
    assert_eq!(read(POD).unwrap().pods[0].0, *uid);
    assert_ne!(read(&POD.replace("busybox", "nginx")).unwrap().pods[0].0, *uid);
}

#[test]
fn all_mistakes_are_found_at_once() {
    let text = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  labells: {a: b}
spec:
  resourceClaims:
  - name: a
  containers:
  - name: c
    imagee: busybox
    env:
    - name: A
      value: yes
    - name: B
      value: 5
    ports: {containerPort: 80}
  - name: d
    image: x
    image: y
    livenessProbe:
      periodSeconds: soon
      exec: {command: [x]}
    resources: {claims: [{name: r}]}
";
    let found = messages(text);
    let expected = [
        "5: metadata.labells: unknown field (did you mean \"labels\"?)",
        "7: spec.resourceClaims: not supported by `berth run` (dynamic resource allocation is not done yet)",
        "11: spec.containers[0].imagee: unknown field (did you mean \"image\"?)",
        "14: spec.containers[0].env[0].value: expected a string, found the boolean yes; put it in quotes",
        "16: spec.containers[0].env[1].value: expected a string, found the number 5; put it in quotes",
        "17: spec.containers[0].ports: expected a list, found an object",
        "20: spec.containers[1].image: the field is there twice, first on line 19",
        "22: spec.containers[1].livenessProbe.periodSeconds: expected a whole number, found the string \"soon\"",
        "24: spec.containers[1].resources.claims: not supported by `berth run` (dynamic resource allocation is not done yet)",
    ];
    assert_eq!(found, expected);
}

/// A controller's pods have both when they are shown by kubectl.
#[test]
fn a_name_that_is_to_be_completed_is_no_name() {
    let both = POD.replace("  name: web\n", "  generateName: web-\n  name: web\n");
    read(&both).unwrap();
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {NAME}\nspec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}\n";
    read(&claim.replace("NAME", "generateName: a-, name: a")).unwrap();
    for text in [
        POD.replace("  name: web\n", "  generateName: web-\n"),
        claim.replace("NAME", "generateName: a-, name: "),
    ] {
        let found = messages(&text);
        assert!(
            found[0].contains("metadata.generateName: not supported"),
            "{found:?}"
        );
    }
}

#[test]
fn lenient_warns_and_leaves_out() {
    let text = format!(
        "{POD}    grpcc: 1\n    lifecycle: {{preStop: {{tcpSocket: {{port: 1}}}}}}\n  resourceClaims: [{{name: r}}]\n  volumes: [{{name: v, cephfs: {{monitors: [m]}}}}]\n"
    );
    assert_eq!(read(&text).unwrap_err().0.len(), 4);
    let manifest = load(
        &[Source {
            name: "f",
            text: &text,
        }],
        options(true),
    )
    .unwrap();
    assert_eq!(manifest.warnings.len(), 4);
    let spec = manifest.pods[0].1.spec.as_ref().unwrap();
    assert_eq!(
        (
            spec.containers[0].liveness_probe.clone(),
            spec.resource_claims.clone()
        ),
        (None, None)
    );
}

#[test]
fn values_are_as_kubectl_reads_them() {
    let text = format!(
        "{POD}    resources: {{limits: {{cpu: 1, memory: 64Mi}}, requests: {{cpu: 0.50, ephemeral-storage: 010}}}}\n    stdin: yes\n  volumes:\n  - name: m\n    configMap: {{name: m, optional: true, defaultMode: 0400}}\n"
    );
    let manifest = read(&text).unwrap();
    let spec = manifest.pods[0].1.spec.as_ref().unwrap();
    let resources = spec.containers[0].resources.as_ref().unwrap();
    assert_eq!(resources.limits.as_ref().unwrap()["cpu"].0, "1");
    assert_eq!(resources.requests.as_ref().unwrap()["cpu"].0, "0.5");
    assert_eq!(resources.requests.as_ref().unwrap()["ephemeral-storage"].0, "8");
    assert_eq!(spec.containers[0].stdin, Some(true));
    assert_eq!(
        spec.volumes.as_ref().unwrap()[0]
            .config_map
            .as_ref()
            .unwrap()
            .default_mode,
        Some(0o400)
    );
}

#[test]
fn config_maps_and_secrets() {
    let text = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: {a: \"1\"}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: other}
data:
  a: YQ==
  b: Yg==
  c: |
    bG9u
    Z2Vy
stringData: {b: text}
";
    let objects = read(text).unwrap().objects;
    assert!(
        objects
            .config_maps
            .contains_key(&("default".to_owned(), "m".to_owned()))
    );
    let secret = &objects.secrets[&("other".to_owned(), "s".to_owned())];
    let data = secret.data.as_ref().unwrap();
    assert_eq!(
        (data["a"].0.as_slice(), data["b"].0.as_slice()),
        (&b"a"[..], &b"text"[..])
    );
    assert_eq!(data["c"].0.as_slice(), b"longer");
    assert_eq!(
        (secret.type_.as_deref(), &secret.string_data),
        (Some("Opaque"), &None)
    );

    let bad = messages("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata:\n  a/b: YQ==\n  c: '%'\n");
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(
        bad[1].starts_with(
            "6: data[c]: Invalid value: Invalid symbol 37, offset 0. (the values of this field are base64"
        ),
        "{bad:?}"
    );
    assert!(
        bad[0].starts_with("5: data[a/b]: Invalid value: \"a/b\": a valid config key"),
        "{bad:?}"
    );
}

#[test]
fn lists() {
    let item = POD
        .replace('\n', "\n  ")
        .replacen("apiVersion", "- apiVersion", 1);
    let item = item.trim_end();
    let list = format!("apiVersion: v1\nkind: List\nitems:\n{item}\n");
    assert_eq!(read(&list).unwrap().pods.len(), 1);
    let typed = format!("apiVersion: v1\nkind: PodList\nitems:\n{item}\n")
        .replace("- apiVersion: v1\n  kind: Pod\n  metadata", "- metadata");
    assert_eq!(read(&typed).unwrap().pods.len(), 1);
    let wrong = list.replace("image:", "imagee:");
    assert!(
        messages(&wrong)[0].starts_with("11: items[0].spec.containers[0].imagee: unknown field"),
        "{:?}",
        messages(&wrong)
    );
}

#[test]
fn what_is_no_pod_is_named() {
    assert_eq!(
        messages("apiVersion: v1\nkind: Service\n"),
        [
            "2: kind: v1 Service can't be run (pods are reached at their own addresses here, and by hostPort; leave it out, or let `--lenient` do that)"
        ]
    );
    assert_eq!(
        messages("a: 1\n"),
        ["1: apiVersion: Required value", "1: kind: Required value"]
    );
    assert_eq!(
        messages("- 1\n"),
        ["1: expected an object with apiVersion and kind"]
    );
    assert_eq!(messages("# nothing\n"), [" there is no object in it"]);
    assert!(messages("a: [\n")[0].contains("not YAML"));
}

#[test]
fn two_objects_of_one_name_are_refused() {
    let sources = [Source { name: "a", text: POD }, Source { name: "b", text: POD }];
    let found = load(&sources, options(false)).map(|_| ()).unwrap_err();
    assert_eq!(
        found.to_string(),
        "b:4: metadata.name: Duplicate value: \"web\": Pod default/web is in a:4 already"
    );
}

#[test]
fn what_pods_refer_to_is_in_the_files() {
    let pod = format!(
        "{POD}    envFrom:\n    - configMapRef: {{name: m}}\n    env:\n    - name: A\n      valueFrom: {{secretKeyRef: {{name: s, key: k}}}}\n    - name: B\n      valueFrom: {{secretKeyRef: {{name: none, key: k, optional: true}}}}\n"
    );
    let found = messages(&pod);
    assert_eq!(
        found,
        [
            "10: spec.containers[0].envFrom[0].configMapRef.name: Not found: \"m\": ConfigMap default/m is in none of the files",
            "13: spec.containers[0].env[0].valueFrom.secretKeyRef.name: Not found: \"s\": Secret default/s is in none of the files",
        ]
    );
    let objects = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {KEY: x}\n";
    let sources = |objects| {
        [
            Source {
                name: "p",
                text: &pod,
            },
            Source {
                name: "o",
                text: objects,
            },
        ]
    };
    let error = load(&sources(objects), options(false))
        .map(|_| ())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "p:13: spec.containers[0].env[0].valueFrom.secretKeyRef.key: Not found: \"k\": Secret default/s has no such key"
    );
    let right = objects.replace("KEY", "k");
    assert!(load(&sources(&right), options(false)).is_ok());
    assert_eq!(load(&sources(objects), options(true)).unwrap().warnings.len(), 1);
}

#[test]
fn two_pods_have_no_port_of_the_host_in_common() {
    let pod = |name: &str, port: &str| {
        format!(
            "{}    ports: [{{containerPort: 80, {port}}}]\n",
            POD.replace("web", name)
        )
    };
    for (one, other, collide) in [
        ("hostPort: 80", "hostPort: 80", true),
        ("hostPort: 80", "hostPort: 80, hostIP: 127.0.0.1", true),
        (
            "hostPort: 80, hostIP: 127.0.0.2",
            "hostPort: 80, hostIP: 127.0.0.1",
            false,
        ),
        ("hostPort: 80", "hostPort: 80, protocol: UDP", false),
        ("hostPort: 80", "hostPort: 81", false),
    ] {
        let (one, other) = (pod("one", one), pod("other", other));
        let sources = [
            Source {
                name: "a",
                text: &one,
            },
            Source {
                name: "b",
                text: &other,
            },
        ];
        let found = load(&sources, options(false))
            .map(|_| ())
            .map_err(|error| error.to_string());
        assert_eq!(found.is_err(), collide, "{found:?}");
        if let Err(found) = found {
            assert!(
                found.starts_with("b:9: spec.containers[0].ports[0].hostPort: Duplicate value: \"TCP/"),
                "{found}"
            );
            assert!(found.ends_with("pod default/one asks for it, too"), "{found}");
        }
    }
}

#[test]
fn the_examples_can_be_read() {
    for text in [
        include_str!("../../../examples/hello.yaml"),
        include_str!("../../../examples/web.yaml"),
    ] {
        assert_eq!(read(text).map(|manifest| manifest.pods.len()), Ok(1));
    }
}

#[test]
fn validation_has_lines() {
    let found = messages(
        &POD.replace("name: c", "name: C_")
            .replace("  name: web", "  name: Web"),
    );
    assert_eq!(found.len(), 2);
    assert!(
        found[0].starts_with("4: metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 subdomain must"),
        "{found:?}"
    );
    assert!(
        found[1].starts_with(
            "7: spec.containers[0].name: Invalid value: \"C_\": a lowercase RFC 1123 label must"
        ),
        "{found:?}"
    );
}

proptest::proptest! {
    #[test]
    fn never_panics(text in "(apiVersion: v1\nkind: (Pod|Secret|List)\n)?[-a:&* \\[\\]{}!'\"\n<#]{0,60}") {
        let _ = read(&text);
    }
}

/// A good manifest in which some lines are gone, doubled, cut or exchanged.
fn mangled(text: &str, changes: &[(usize, usize, u8)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (at, other, kind) in changes {
        let (at, other) = (at % lines.len(), other % lines.len());
        match kind % 5 {
            0 => lines[at].clear(),
            1 => lines.insert(at, lines[other].clone()),
            2 => lines.swap(at, other),
            3 => lines[at].truncate(other % 20),
            _ => lines[at]
                .push_str([" x", ": -1", " []", ": {}", ": 99999999999999999999", ": \"..\""][other % 6]),
        }
    }
    lines.join("\n")
}

/// Plans the first steps of a pod whose images are there.
fn begin(uid: PodUid, pod: Pod, objects: Objects) {
    let image = berth_cri::Image {
        id: berth_cri::ImageId("sha256:1".into()),
        repo_tags: vec![],
        repo_digests: vec![],
        size: 1,
        user: "1".into(),
        pinned: false,
    };
    let state = ImageState {
        present: Some(image),
        pulled_at: 1,
    };
    let images =
        crate::spec::all_containers(&pod).map(|(c, _)| (c.image.clone().unwrap_or_default(), state.clone()));
    let mut observed = Observed {
        admitted_at: 1,
        volumes_ready: true,
        images: images.collect(),
        ..Observed::default()
    };
    let desired = Desired {
        uid,
        pod: pod.into(),
        objects: objects.into(),
        node: Arc::default(),
        user_ids: None,
        deletion: None,
    };
    let first = plan(&desired, &observed, 2);
    let Some(Step::RunSandbox { config, .. }) = first.steps.first() else {
        panic!("{first:#?}")
    };
    let id = berth_cri::SandboxId("s".into());
    let config = config.as_ref().clone();
    observed.sandboxes.push(berth_cri::PodSandboxStatus {
        id,
        config,
        ready: true,
        created_at: 1,
        ips: vec![],
    });
    let second = plan(&desired, &observed, 3);
    let starts = second
        .steps
        .iter()
        .any(|step| matches!(step, Step::StartContainer(_)));
    let refused = second
        .waiting
        .values()
        .any(|waiting| waiting.reason == Reason::CreateContainerConfigError);
    let never = second
        .waiting
        .values()
        .any(|waiting| waiting.reason == Reason::ErrImageNeverPull);
    assert!(starts || refused || never, "{second:#?}");
}

proptest::proptest! {
    /// Whatever can be read can be planned.
    #[test]
    fn a_mangled_manifest_is_refused_or_runs(
        changes in proptest::collection::vec((0_usize..200, 0_usize..200, 0_u8..5), 1..5),
        lenient: bool,
    ) {
        let text = mangled(include_str!("../../../examples/hello.yaml"), &changes);
        if let Ok(manifest) = load(&[Source { name: "f", text: &text }], options(lenient)) {
            for (uid, pod) in manifest.pods {
                begin(uid, pod, manifest.objects.clone());
            }
        }
    }
}

#[test]
fn what_controllers_make_pods_of_is_refused_with_the_way_on() {
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("batch/v1", "Job"),
        ("batch/v1", "CronJob"),
        ("batch/v1beta1", "CronJob"),
        ("extensions/v1beta1", "DaemonSet"),
        ("v1", "ReplicationController"),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x}}\n");
        let source = Source {
            name: "f",
            text: &text,
        };
        // A file of which nothing would be left is no less an error than before.
        let error = load(&[source], options(true)).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{version} {kind} can't be run")),
            "{error}"
        );
        assert!(error.contains("`berth up`"), "{error}");
        let template = if kind == "CronJob" {
            "spec.jobTemplate.spec.template"
        } else {
            "spec.template"
        };
        assert!(error.contains(&format!("under {template} is")), "{error}");
    }
}

#[test]
fn what_is_no_pod_is_left_out_leniently() {
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n---\n{POD}---\napiVersion: v1\nkind: ServiceAccount\n"
    );
    assert_eq!(messages(&text).len(), 2);
    let manifest = load(&[source(&text)], options(true)).unwrap();
    assert_eq!((manifest.pods.len(), manifest.warnings.len()), (1, 2));
    // What was meant to be one is not.
    for (wrong, why) in [
        ("kind: pod", "v1 pod can't be run (did you mean \"Pod\"?)"),
        ("kind: ConfigMaps", "(did you mean \"ConfigMap\"?)"),
        ("kind: PriorityClass", "(its apiVersion is scheduling.k8s.io/v1)"),
    ] {
        let text = POD.replace("kind: Pod", wrong);
        let error = load(&[source(&text)], options(true)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn empty_files_may_stand_beside_others() {
    let files = [source("# nothing\n"), source(POD), source("")];
    assert_eq!(load(&files, options(false)).unwrap().pods.len(), 1);
    let empty = [source("---\n"), source("")];
    assert_eq!(load(&empty, options(false)).unwrap_err().0.len(), 2);
}

#[test]
fn a_text_with_a_colon_is_told_from_an_object() {
    let found = messages(&format!("{POD}    args:\n    - -c\n    - echo a: b\n"));
    assert_eq!(
        found,
        [
            "11: spec.containers[0].args[1]: expected a string, found an object; put it in quotes if it is a text with a colon"
        ]
    );
}

#[test]
fn templates_are_told_from_manifests() {
    let found = messages(&POD.replace("busybox", "{{ .Values.image }}"));
    assert_eq!(
        found,
        ["8: a field's name must be a string; of a template with {{ }}, make a manifest first"]
    );
}

/// The volume by which a cluster's pods get their tokens, as kubectl shows it.
#[test]
fn the_volume_of_the_api_server_is_refused_in_one_line() {
    let text = format!(
        "{POD}    volumeMounts:\n    - {{name: kube-api-access-x7k2p, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}}\n  volumes:\n  - name: kube-api-access-x7k2p\n    projected:\n      defaultMode: 420\n      sources:\n      - serviceAccountToken: {{expirationSeconds: 3607, path: token}}\n      - configMap: {{name: kube-root-ca.crt, items: [{{key: ca.crt, path: ca.crt}}]}}\n      - downwardAPI: {{items: [{{path: namespace, fieldRef: {{apiVersion: v1, fieldPath: metadata.namespace}}}}]}}\n"
    );
    assert_eq!(
        messages(&text),
        [
            "13: spec.volumes[0].projected: not supported by `berth run` (a cluster adds this volume to its pods, and there is no API server here: take it out, with its volumeMounts)"
        ]
    );
    let source = Source {
        name: "f",
        text: &text,
    };
    let manifest = load(&[source], options(true)).unwrap();
    let volumes = manifest.pods[0].1.spec.as_ref().unwrap().volumes.as_ref();
    assert!(volumes.unwrap()[0].empty_dir.is_some());
    assert_eq!(manifest.warnings.len(), 1);
    // Another volume with a token is judged by its fields.
    let other = messages(&text.replace("kube-api-access-x7k2p", "mine"));
    assert!(
        other[0].contains("sources[0].serviceAccountToken: not supported"),
        "{other:?}"
    );
}
