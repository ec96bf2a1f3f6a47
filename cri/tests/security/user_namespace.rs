//! Pods with a user namespace of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use berth_cri::{
    AppArmorProfile, ContainerSecurity, Engine, EngineError, IdMapping, LocalEngine, NamespaceOptions,
    PodSandboxConfig, SeccompProfile, UserNamespace,
};

use crate::bench::Bench;
use crate::node::{engine_config, finish, open};

const FIRST: u32 = 200_000;

fn mapped(config: &mut PodSandboxConfig) {
    let range = vec![IdMapping {
        container: 0,
        host: FIRST,
        size: 65_536,
    }];
    config.user_namespace = Some(UserNamespace {
        uids: range.clone(),
        gids: range,
    });
}

#[test]
fn root_in_a_pod_is_nobody_on_the_node() {
    Bench::new().with(mapped, async |pod| {
        let id = pod.idle("main", ContainerSecurity::default()).await;
        let pid = pod.engine.container_status(&id).await.unwrap().pid;
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST);
        let printed = pod
            .exec(
                &id,
                "cat /proc/self/uid_map; id -u; stat -c %u:%g / /bin/busybox /etc/passwd /etc/hostname /etc/resolv.conf /dev/shm",
            )
            .await;
        let lines: Vec<String> = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines[0], format!("0 {FIRST} 65536"));
        assert_eq!(lines[1..], ["0", "0:0", "0:0", "0:0", "0:0", "0:0", "0:0"], "{printed}");
        // What it writes belongs to its ids on the disk.
        let script = "touch /tmp/mine && touch /theirs && chown 1000:1000 /theirs && stat -c %u /tmp/mine /theirs; \
                      echo x >> /etc/passwd && stat -c %u /etc/passwd";
        assert_eq!(pod.exec(&id, script).await, "0\n1000\n0\n");
        let upper = format!("/proc/{pid}/root");
        let on_host = |name: &str| fs::metadata(format!("{upper}/{name}")).unwrap().uid();
        assert_eq!(
            (on_host("tmp/mine"), on_host("theirs"), on_host("etc/passwd")),
            (FIRST, FIRST + 1000, FIRST)
        );
        pod.engine.remove_container(&id).await.unwrap();
    });
}

#[test]
fn the_pods_namespaces_belong_to_its_user_namespace() {
    Bench::new().with(
        |config| {
            mapped(config);
            config.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "80".into());
            config.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
        },
        async |pod| {
            let security = ContainerSecurity {
                add_capabilities: vec!["NET_ADMIN".into(), "SYS_ADMIN".into()],
                seccomp: SeccompProfile::RuntimeDefault,
                // The engine's own profile forbids mounts to everybody.
                apparmor: AppArmorProfile::Unconfined,
                ..Default::default()
            };
            // Rights over the network and the host name are rights over the pod's own.
            let script = "hostname renamed && hostname; helper sysctl net.ipv4.ip_unprivileged_port_start kernel.shm_rmid_forced; \
                          ls -d /sys/class/net/lo /sys/fs/cgroup /dev/null /dev/pts/ptmx; echo x > /dev/null && echo null; \
                          mount -t tmpfs none /tmp && echo mounted";
            let printed = pod.run(script, security).await;
            assert_eq!(
                printed,
                "renamed\nnet.ipv4.ip_unprivileged_port_start = 80\nkernel.shm_rmid_forced = 1\n\
                 /dev/null\n/dev/pts/ptmx\n/sys/class/net/lo\n/sys/fs/cgroup\nnull\nmounted\n"
            );
            let pause = pod.pause().await;
            let status = fs::read_to_string(format!("/proc/{pause}/status")).unwrap();
            let nobody = FIRST + 65_535;
            assert!(status.contains(&format!("Uid:\t{nobody}\t{nobody}")), "{status}");
        },
    );
}

#[test]
fn users_and_shared_processes_go_with_a_user_namespace() {
    Bench::new().with(
        |config| {
            mapped(config);
            config.namespaces = NamespaceOptions {
                shared_pid: true,
                ..Default::default()
            };
        },
        async |pod| {
            let security = ContainerSecurity {
                run_as_user: Some(1000),
                readonly_rootfs: true,
                ..Default::default()
            };
            let id = pod.idle("web", security).await;
            let printed = pod
                .exec(&id, "id -u; id -G; ps -o pid,user | grep -c .; touch /tmp/x")
                .await;
            assert!(printed.starts_with("1000\n1000 50000\n"), "{printed}");
            assert!(printed.contains("Read-only file system"), "{printed}");
            let pid = pod.engine.container_status(&id).await.unwrap().pid;
            assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), FIRST + 1000);
        },
    );
}

#[test]
fn a_container_has_the_user_namespace_of_its_pod() {
    Bench::new().with(mapped, async |pod| {
        let mut config = pod.script("other", "true", ContainerSecurity::default());
        config.user_namespace = None;
        let refused = pod.refusal(config).await;
        assert!(
            matches!(&refused, EngineError::InvalidArgument(why) if why.contains("user namespace")),
            "{refused:?}"
        );
    });
}

/// Whether each handler offers them.
async fn offered(engine: &LocalEngine) -> Vec<bool> {
    let handlers = engine.status(false).await.unwrap().handlers;
    handlers.iter().map(|handler| handler.user_namespaces).collect()
}

#[test]
fn user_namespaces_are_offered_where_trying_one_succeeds() {
    Bench::new().with(mapped, async |pod| {
        for _ in 0..2 {
            assert!(offered(pod.engine).await.iter().all(|offered| *offered));
        }
        let root = pod.config.log_directory.parent().unwrap();
        let left: Vec<_> = fs::read_dir(root.join("lib")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "the probe's files are gone: {left:?}");
    });
    let node = berth_tests::Node::new();
    let mut config = engine_config(node.root());
    config.shim_program = "/bin/false".into();
    let (runtime, engine) = open(config, node.root());
    assert!(!runtime.block_on(offered(&engine)).iter().any(|offered| *offered));
    drop(engine);
    finish(node, &[]);
}
