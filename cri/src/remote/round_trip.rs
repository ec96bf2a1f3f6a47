//! Nothing is lost on the way to another runtime and back: whatever is asked for arrives as it was meant, and whatever is
//! told arrives as it is. The other end is our own server's conversions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use super::{notes, request, view};
use crate::local::signals;
use crate::server;
use crate::types::*;
use crate::v1;

fn word() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.-]{0,12}"
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(word(), "[ -~]{0,20}", 0..4)
}

fn path() -> impl Strategy<Value = PathBuf> {
    "(/[a-z0-9._-]{1,8}){1,3}".prop_map(PathBuf::from)
}

fn relative() -> impl Strategy<Value = PathBuf> {
    "[a-z][a-z0-9]{0,5}(/[a-z0-9]{1,8}){0,2}".prop_map(PathBuf::from)
}

fn mappings() -> impl Strategy<Value = Vec<IdMapping>> {
    // Ranges that don't overlap and begin with root.
    vec(1_u32..1000, 1..4).prop_map(|sizes| {
        let (mut container, mut host) = (0, 100_000);
        let mut ranges = Vec::new();
        for size in sizes {
            ranges.push(IdMapping {
                container,
                host,
                size,
            });
            container += size + 5;
            host += size + 7;
        }
        ranges
    })
}

fn user_namespace() -> impl Strategy<Value = Option<UserNamespace>> {
    option::of((mappings(), mappings()).prop_map(|(uids, gids)| UserNamespace { uids, gids }))
}

fn namespaces() -> impl Strategy<Value = NamespaceOptions> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(network, pid, ipc, shared)| {
        NamespaceOptions {
            host_network: network,
            host_pid: pid,
            host_ipc: ipc,
            shared_pid: shared && !pid,
        }
    })
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    option::of(1..=u64::try_from(i64::MAX).unwrap())
}

fn signed() -> impl Strategy<Value = Option<i64>> {
    option::of(prop_oneof![Just(-1), 1..=i64::MAX])
}

fn resources() -> impl Strategy<Value = LinuxContainerResources> {
    let cpu = (
        limit(),
        signed(),
        limit(),
        option::of("[0-9]{1,3}"),
        option::of("[0-9]-[0-9]"),
    );
    let memory = (
        signed(),
        signed(),
        -1000..=1000,
        btree_map("[1-9][0-9]?MB", any::<u64>(), 0..3),
    );
    (cpu, memory, map()).prop_map(|(cpu, memory, unified)| LinuxContainerResources {
        cpu_shares: cpu.0,
        cpu_quota: cpu.1,
        cpu_period: cpu.2,
        cpuset_cpus: cpu.3,
        cpuset_mems: cpu.4,
        memory_limit: memory.0,
        memory_swap_limit: memory.1,
        oom_score_adj: memory.2,
        hugepage_limits: memory.3,
        pids_limit: None,
        unified,
    })
}

fn seccomp() -> impl Strategy<Value = SeccompProfile> {
    prop_oneof![
        Just(SeccompProfile::Unconfined),
        Just(SeccompProfile::RuntimeDefault),
        path().prop_map(SeccompProfile::Localhost),
    ]
}

fn apparmor() -> impl Strategy<Value = AppArmorProfile> {
    prop_oneof![
        Just(AppArmorProfile::Unset),
        Just(AppArmorProfile::RuntimeDefault),
        Just(AppArmorProfile::Unconfined),
        word().prop_map(AppArmorProfile::Localhost),
    ]
}

fn selinux() -> impl Strategy<Value = Option<SelinuxOptions>> {
    let label = (word(), word(), word(), word()).prop_map(|(user, role, kind, level)| SelinuxOptions {
        user,
        role,
        kind,
        level,
    });
    option::of(label)
}

fn user_and_group() -> impl Strategy<Value = (Option<i64>, Option<i64>)> {
    option::of((any::<i64>(), option::of(any::<i64>())))
        .prop_map(|both| both.map_or((None, None), |(user, group)| (Some(user), group)))
}

fn sandbox_security() -> impl Strategy<Value = SandboxSecurity> {
    let ids = (user_and_group(), vec(any::<i64>(), 0..3));
    (ids, seccomp(), apparmor(), selinux()).prop_map(|((ids, groups), seccomp, apparmor, selinux)| {
        SandboxSecurity {
            run_as_user: ids.0,
            run_as_group: ids.1,
            supplemental_groups: groups,
            seccomp,
            apparmor,
            selinux,
        }
    })
}

fn port() -> impl Strategy<Value = PortMapping> {
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp), Just(Protocol::Sctp)];
    (protocol, 1_u16.., 1_u16.., option::of(any::<IpAddr>())).prop_map(
        |(protocol, container, host, host_ip)| PortMapping {
            protocol,
            container_port: container,
            host_port: host,
            host_ip,
        },
    )
}

fn dns() -> impl Strategy<Value = Option<DnsConfig>> {
    let words = || vec(word(), 1..3);
    option::of(
        (words(), words(), words()).prop_map(|(servers, searches, options)| DnsConfig {
            servers,
            searches,
            options,
        }),
    )
}

prop_compose! {
    fn sandbox()(
        names in (word(), word(), word(), any::<u32>(), word(), word()),
        places in (path(), relative()),
        network in (dns(), vec(port(), 0..3)),
        maps in (map(), map(), map()),
        namespaces in namespaces(),
        user_namespace in user_namespace(),
        privileged in any::<bool>(),
        limits in (option::of(resources()), option::of(resources())),
        security in sandbox_security(),
    ) -> PodSandboxConfig {
        PodSandboxConfig {
            name: names.0,
            namespace: names.1,
            uid: names.2,
            attempt: names.3,
            hostname: names.4,
            runtime_handler: names.5,
            log_directory: places.0,
            cgroup_parent: places.1,
            dns: network.0,
            port_mappings: network.1,
            labels: maps.0,
            annotations: maps.1,
            sysctls: maps.2,
            namespaces,
            user_namespace,
            privileged,
            overhead: limits.0,
            resources: limits.1,
            security,
        }
    }
}

fn propagation() -> impl Strategy<Value = MountPropagation> {
    prop_oneof![
        Just(MountPropagation::None),
        Just(MountPropagation::HostToContainer),
        Just(MountPropagation::Bidirectional),
    ]
}

prop_compose! {
    /// As a request has them: which image it is, only the engine says.
    fn mount()(
        paths in (path(), path()),
        flags in (any::<bool>(), any::<bool>(), any::<bool>()),
        propagation in propagation(),
        ids in (mappings(), mappings()),
        image in option::of((word(), word(), relative())),
    ) -> Mount {
        Mount {
            container_path: paths.0,
            host_path: paths.1,
            readonly: flags.0,
            recursive_read_only: flags.1,
            selinux_relabel: flags.2,
            propagation,
            uid_mappings: ids.0,
            gid_mappings: ids.1,
            image: image.map(|(image, user_specified_image, sub_path)| ImageMount {
                image,
                user_specified_image,
                image_ref: String::new(),
                sub_path,
            }),
        }
    }
}

prop_compose! {
    fn container_security()(
        capabilities in (vec(word(), 0..3), vec(word(), 0..3), vec(word(), 0..3)),
        flags in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        ids in (user_and_group(), vec(any::<i64>(), 0..3)),
        name in option::of(word()),
        profiles in (seccomp(), apparmor(), selinux()),
        paths in (vec(path(), 0..3), vec(path(), 0..3)),
    ) -> ContainerSecurity {
        ContainerSecurity {
            privileged: flags.0,
            readonly_rootfs: flags.1,
            no_new_privs: flags.2,
            supplemental_groups_policy: match flags.3 {
                true => SupplementalGroupsPolicy::Strict,
                false => SupplementalGroupsPolicy::Merge,
            },
            add_capabilities: capabilities.0,
            drop_capabilities: capabilities.1,
            add_ambient_capabilities: capabilities.2,
            run_as_user: ids.0.0,
            run_as_group: ids.0.1,
            supplemental_groups: ids.1,
            run_as_username: name.unwrap_or_default(),
            seccomp: profiles.0,
            apparmor: profiles.1,
            selinux: profiles.2,
            masked_paths: paths.0,
            readonly_paths: paths.1,
        }
    }
}

/// By their names as CRI has them; two names of one signal are one.
fn signal() -> impl Strategy<Value = Option<String>> {
    option::of((1..=64_i32).prop_filter_map("libc's own", |number| {
        let message = server::view::stop_signal(number);
        let name = message
            .as_str_name()
            .replace("PLUS", "+")
            .replace("RTMAXMINUS", "RTMAX-");
        (message != v1::Signal::RuntimeDefault).then_some(name)
    }))
}

prop_compose! {
    fn container()(
        names in (word(), any::<u32>(), word(), word(), "[ -~]{0,10}"),
        lines in (vec("[ -~]{0,10}", 0..3), vec("[ -~]{0,10}", 0..3), vec((word(), "[ -~]{0,10}"), 0..3)),
        mounts in vec(mount(), 0..3),
        devices in vec((path(), path(), "[rwm]{0,3}"), 0..2),
        cdi_devices in vec(word(), 0..2),
        maps in (map(), map()),
        log_path in relative(),
        flags in (any::<bool>(), any::<bool>(), any::<bool>()),
        resources in resources(),
        security in container_security(),
        namespaces in (namespaces(), option::of(word()), user_namespace()),
        stop_signal in signal(),
    ) -> ContainerConfig {
        let pid_target = namespaces.1.map(ContainerId);
        let mut shared = namespaces.0;
        if pid_target.is_some() {
            (shared.host_pid, shared.shared_pid) = (false, false);
        }
        ContainerConfig {
            name: names.0,
            attempt: names.1,
            image: names.2,
            user_specified_image: names.3,
            working_dir: names.4,
            command: lines.0,
            args: lines.1,
            envs: lines.2,
            mounts,
            devices: devices
                .into_iter()
                .map(|(container_path, host_path, permissions)| Device { container_path, host_path, permissions })
                .collect(),
            cdi_devices,
            labels: maps.0,
            annotations: maps.1,
            log_path,
            stdin: flags.0,
            stdin_once: flags.1,
            tty: flags.2,
            resources,
            security,
            namespaces: shared,
            pid_target,
            user_namespace: namespaces.2,
            stop_signal,
        }
    }
}

fn id() -> impl Strategy<Value = String> {
    "[0-9a-f]{64}"
}

fn time() -> impl Strategy<Value = UnixNanos> {
    0..=u64::try_from(i64::MAX).unwrap()
}

prop_compose! {
    fn sandbox_status()(
        id in id(),
        config in sandbox(),
        ready in any::<bool>(),
        created_at in time(),
        ips in vec(any::<IpAddr>(), 0..3),
    ) -> PodSandboxStatus {
        PodSandboxStatus { id: SandboxId(id), config, ready, created_at, ips }
    }
}

prop_compose! {
    fn container_status()(
        ids in (id(), id(), word(), id()),
        config in container(),
        state in prop_oneof![
            Just(ContainerState::Created),
            Just(ContainerState::Running),
            Just(ContainerState::Exited),
            Just(ContainerState::Unknown),
        ],
        times in (time(), time(), time()),
        end in (any::<i32>(), word(), word()),
        log_path in path(),
        user in option::of((any::<u32>(), any::<u32>(), vec(any::<u32>(), 0..3))),
        stop_signal in signal(),
    ) -> ContainerStatus {
        ContainerStatus {
            id: ContainerId(ids.0),
            sandbox: SandboxId(ids.1),
            pod_uid: ids.2,
            image_id: ImageId(ids.3),
            config,
            state,
            created_at: times.0,
            started_at: times.1,
            finished_at: times.2,
            exit_code: end.0,
            reason: end.1,
            message: end.2,
            log_path,
            // CRI tells none.
            pid: 0,
            user: user.map(|(uid, gid, supplemental_groups)| ContainerUser { uid, gid, supplemental_groups }),
            stop_signal: stop_signal.map_or(0, |name| signals::parse(&name).unwrap()),
        }
    }
}

prop_compose! {
    fn image()(
        id in id(),
        names in (vec(word(), 0..3), vec(word(), 0..3)),
        size in any::<u64>(),
        user in prop_oneof!["", "[a-z]{1,8}", "[1-9][0-9]{0,4}"],
        pinned in any::<bool>(),
    ) -> Image {
        Image { id: ImageId(id), repo_tags: names.0, repo_digests: names.1, size, user, pinned }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_sandbox_arrives_as_it_is_asked_for(config in sandbox()) {
        let message = request::sandbox(&config).unwrap();
        let arrived = server::request::sandbox(Some(message), config.runtime_handler.clone()).unwrap();
        prop_assert_eq!(arrived, config);
    }

    #[test]
    fn a_container_arrives_as_it_is_asked_for(config in container()) {
        let message = request::container(&config).unwrap();
        let arrived = server::request::container(Some(message)).unwrap();
        prop_assert_eq!(arrived, config);
    }

    #[test]
    fn limits_arrive_as_they_are_asked_for(limits in resources()) {
        let arrived = server::request::resources(request::resources(&limits).unwrap()).unwrap();
        prop_assert_eq!(arrived, limits);
    }

    #[test]
    fn credentials_arrive_as_they_are(words in vec("[ -~]{1,9}", 6)) {
        let words = <[String; 6]>::try_from(words).unwrap();
        let [username, password, auth, server_address, identity_token, registry_token] = words;
        let auth = AuthConfig { username, password, auth, server_address, identity_token, registry_token };
        prop_assert!(server::request::auth(Some(request::auth(auth.clone()))) == Some(auth));
    }

    /// With its note a sandbox's status tells all that was asked for; the message alone, what CRI has of it.
    #[test]
    fn a_sandboxs_status_tells_all(status in sandbox_status()) {
        let told = view::sandbox_status(server::view::sandbox_status(&status));
        let message = server::view::sandbox_status(&told);
        prop_assert_eq!(&message, &server::view::sandbox_status(&status));
        let noted = PodSandboxStatus { config: notes::on_sandbox(status.config.clone()).unwrap(), ..status.clone() };
        let told = view::sandbox_status(server::view::sandbox_status(&noted));
        prop_assert_eq!(notes::read_sandbox(told), status);
    }

    /// With its note a container's status tells all but its environment.
    #[test]
    fn a_containers_status_tells_all_but_its_environment(status in container_status()) {
        let back = |status: &ContainerStatus| {
            let message = server::view::container_status(status, None);
            let owner = (status.sandbox.clone(), status.pod_uid.clone(), status.image_id.clone());
            view::container_status(message, owner.0, owner.1, owner.2).unwrap()
        };
        let told = server::view::container_status(&back(&status), None);
        prop_assert_eq!(told, server::view::container_status(&status, None));
        let config = notes::on_container(status.config.clone(), &status.sandbox, &status.pod_uid).unwrap();
        let noted = ContainerStatus { config, ..status.clone() };
        let mut expected = status;
        expected.config.envs.clear();
        let message = server::view::container_status(&noted, None);
        prop_assert_eq!(
            notes::owner(&message.annotations),
            Some((expected.sandbox.clone(), expected.pod_uid.clone()))
        );
        prop_assert_eq!(notes::read_container(back(&noted)), expected);
    }

    #[test]
    fn an_image_is_told_as_it_is(image in image()) {
        prop_assert_eq!(view::image(server::view::image(&image)), image);
    }

    #[test]
    fn the_runtimes_status_is_told_as_it_is(
        conditions in vec((word(), any::<bool>(), word(), word()), 0..3),
        handlers in vec((word(), any::<bool>(), any::<bool>()), 0..3),
        policy in any::<bool>(),
        info in map(),
    ) {
        let condition = |(kind, status, reason, message)| RuntimeCondition { kind, status, reason, message };
        let handler = |(name, recursive_read_only_mounts, user_namespaces)| RuntimeHandler {
            name,
            recursive_read_only_mounts,
            user_namespaces,
        };
        let status = RuntimeStatus {
            conditions: conditions.into_iter().map(condition).collect(),
            handlers: handlers.into_iter().map(handler).collect(),
            supplemental_groups_policy: policy,
            info,
        };
        prop_assert_eq!(view::status(server::view::status(status.clone())), status);
    }
}

#[test]
fn file_systems_and_drivers_are_told_as_they_are() {
    let usage = |number| FilesystemUsage {
        timestamp: number,
        mountpoint: "/a".into(),
        used_bytes: number + 1,
        inodes_used: number + 2,
    };
    let info = ImageFsInfo {
        images: usage(1),
        containers: usage(5),
    };
    let message = v1::ImageFsInfoResponse {
        image_filesystems: vec![server::view::filesystem(&info.images)],
        container_filesystems: vec![server::view::filesystem(&info.containers)],
    };
    assert_eq!(view::image_fs_info(message), info);
    for driver in [CgroupDriver::Cgroupfs, CgroupDriver::Systemd] {
        assert_eq!(view::cgroup_driver(server::view::cgroup_driver(driver)), driver);
    }
}

#[test]
fn what_cri_has_no_field_for_is_refused_by_name() {
    let limits = LinuxContainerResources {
        pids_limit: Some(10),
        ..Default::default()
    };
    let error = request::resources(&limits).unwrap_err().to_string();
    assert!(error.contains("pids_limit"), "{error}");
    let container = ContainerConfig {
        stop_signal: Some("SIGNOTHING".into()),
        ..Default::default()
    };
    assert!(request::container(&container).is_err());
    let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/\xff");
    let sandbox = PodSandboxConfig {
        log_directory: path.into(),
        ..Default::default()
    };
    let error = request::sandbox(&sandbox).unwrap_err().to_string();
    assert!(error.contains("log_directory"), "{error}");
}
