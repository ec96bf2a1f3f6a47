use super::*;
use crate::manifest::tree::parse;

const USER: OrdinaryUser = OrdinaryUser {
    first_port: 1024,
    forwards_ports: true,
    ids: 65537,
    groups: Err("none were given to you"),
};

fn paths(spec: &str, user: OrdinaryUser) -> Vec<String> {
    let pod = &parse(&format!("spec: {spec}")).unwrap()[0];
    let found = impossible(pod, user);
    found.into_iter().map(|one| one.path).collect()
}

#[test]
fn what_needs_no_privilege_is_left_alone() {
    for spec in [
        "{}",
        "{hostPID: false, hostUsers: true, hostNetwork: false}",
        "{containers: [{resources: {requests: {memory: 1Mi}, limits: {ephemeral-storage: 1Gi}}}]}",
        "{containers: [{ports: [{containerPort: 80}, {containerPort: 80, hostPort: 8080}]}]}",
        "{containers: [{ports: [{containerPort: 80, hostPort: 8080, hostIP: '::1'}]}]}",
        "{containers: [{securityContext: {runAsUser: 65536, privileged: false, appArmorProfile: {type: Unconfined}}}]}",
        "{containers: [{securityContext: {capabilities: {add: [ALL], drop: [SYS_TIME]}}}]}",
        "{volumes: [{name: a, emptyDir: {medium: Memory}}, {name: b, hostPath: {path: /}}]}",
    ] {
        assert_eq!(paths(spec, USER), [""; 0], "{spec}");
    }
}

#[test]
fn the_rest_is_refused_by_name() {
    for (spec, path) in [
        ("{hostNetwork: true}", "spec.hostNetwork"),
        ("{hostPID: true}", "spec.hostPID"),
        ("{hostIPC: true}", "spec.hostIPC"),
        ("{shareProcessNamespace: true}", "spec.shareProcessNamespace"),
        ("{hostUsers: false}", "spec.hostUsers"),
        ("{resources: {limits: {cpu: 1}}}", "spec.resources.limits[cpu]"),
        ("{overhead: {memory: 1Mi}}", "spec.overhead[memory]"),
        (
            "{securityContext: {fsGroup: 70000}}",
            "spec.securityContext.fsGroup",
        ),
        (
            "{securityContext: {supplementalGroups: [1, 70000]}}",
            "spec.securityContext.supplementalGroups[1]",
        ),
        (
            "{containers: [{resources: {limits: {memory: 1Mi}}}]}",
            "spec.containers[0].resources.limits[memory]",
        ),
        (
            "{containers: [{resources: {requests: {cpu: 1}}}]}",
            "spec.containers[0].resources.requests[cpu]",
        ),
        (
            "{initContainers: [{resources: {limits: {hugepages-2Mi: 2Mi}}}]}",
            "spec.initContainers[0].resources.limits[hugepages-2Mi]",
        ),
        (
            "{containers: [{securityContext: {privileged: true}}]}",
            "spec.containers[0].securityContext.privileged",
        ),
        (
            "{containers: [{securityContext: {capabilities: {add: [NET_ADMIN, CAP_SYS_TIME]}}}]}",
            "spec.containers[0].securityContext.capabilities.add[1]",
        ),
        (
            "{containers: [{volumeDevices: [{name: a}]}]}",
            "spec.containers[0].volumeDevices",
        ),
        (
            "{containers: [{ports: [{containerPort: 8080, hostPort: 80}]}]}",
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            "{containers: [{ports: [{hostPort: 8080, protocol: SCTP}]}]}",
            "spec.containers[0].ports[0].protocol",
        ),
        (
            "{securityContext: {appArmorProfile: {type: RuntimeDefault}}}",
            "spec.securityContext.appArmorProfile",
        ),
        (
            "{containers: [{securityContext: {appArmorProfile: {type: Localhost, localhostProfile: a}}}]}",
            "spec.containers[0].securityContext.appArmorProfile",
        ),
        ("{volumes: [{nfs: {path: /}}]}", "spec.volumes[0].nfs"),
        (
            "{volumes: [{emptyDir: {medium: HugePages}}]}",
            "spec.volumes[0].emptyDir.medium",
        ),
    ] {
        assert_eq!(paths(spec, USER), [path], "{spec}");
    }
}

#[test]
fn limits_need_their_controllers() {
    let spec = "{shareProcessNamespace: true, containers: [{resources: {requests: {cpu: 1}, limits: {memory: 1Mi, \
                hugepages-2Mi: 2Mi}}}]}";
    let all = UserGroups {
        cpu: true,
        memory: true,
        hugetlb: true,
    };
    let with = |groups| OrdinaryUser {
        groups: Ok(groups),
        ..USER
    };
    assert_eq!(paths(spec, with(all)), [""; 0]);
    let memory_only = UserGroups {
        cpu: false,
        hugetlb: false,
        ..all
    };
    assert_eq!(
        paths(spec, with(memory_only)),
        [
            "spec.containers[0].resources.limits[hugepages-2Mi]",
            "spec.containers[0].resources.requests[cpu]",
        ]
    );
}

#[test]
fn ports_need_a_program_that_forwards_them() {
    let alone = OrdinaryUser {
        forwards_ports: false,
        ..USER
    };
    let spec = "{containers: [{ports: [{hostPort: 8080}, {containerPort: 80}]}]}";
    assert_eq!(paths(spec, alone), ["spec.containers[0].ports[0].hostPort"]);
}
