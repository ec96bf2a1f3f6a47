//! The process that keeps a pod's namespaces: whoever gets hold of it has nothing.

use std::fs;

use berth_cri::{AppArmorProfile, ContainerSecurity};

use crate::bench::{Bench, shared_pid};

fn field(pid: i32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().replace('\t', " ")
}

#[test]
fn a_pause_has_no_privilege_and_is_who_the_pod_says() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let pause = pod.pause().await;
            assert_eq!(field(pause, "Uid"), "65535 65535 65535 65535");
            assert_eq!(field(pause, "Groups"), "");
            for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
                assert_eq!(field(pause, set), "0000000000000000", "{set}");
            }
            assert_eq!(field(pause, "NoNewPrivs"), "1");
            assert_eq!(field(pause, "Seccomp"), "2");
        },
    );
    Bench::new().with(
        |config| {
            config.security.run_as_user = Some(1001);
            config.security.run_as_group = Some(1002);
            config.security.supplemental_groups = vec![7, 8];
        },
        async |pod| {
            let pause = pod.pause().await;
            assert_eq!(field(pause, "Uid"), "1001 1001 1001 1001");
            assert_eq!(field(pause, "Gid"), "1002 1002 1002 1002");
            assert_eq!(field(pause, "Groups"), "7 8");
        },
    );
}

/// With one PID namespace for the pod, the pause is in everybody's /proc. A container that may trace everything finds
/// nothing of the host there.
#[test]
fn a_pause_shows_a_container_nothing_of_the_host() {
    Bench::new().with(shared_pid, async |pod| {
        let security = ContainerSecurity {
            add_capabilities: ["SYS_PTRACE", "SYS_ADMIN", "SYS_CHROOT"]
                .map(str::to_owned)
                .to_vec(),
            // The engine's own profile lets nobody trace the pause.
            apparmor: AppArmorProfile::Unconfined,
            ..Default::default()
        };
        let id = pod.idle("tracer", security).await;
        let host = fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        let printed = pod
            .exec(
                &id,
                "ls -A /proc/1/root /proc/1/cwd | grep -v '^/proc' | grep .; readlink /proc/1/ns/mnt; \
                 cat /proc/1/mountinfo | grep -c .; readlink /proc/1/fd/0",
            )
            .await;
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 3, "{printed}");
        assert_ne!(lines[0], host.to_string_lossy());
        assert_eq!(lines[1], "1", "only its empty root is mounted: {printed}");
        let pause = pod.pause().await;
        let shim: i32 = field(pause, "PPid").parse().unwrap();
        let of_shim = fs::read_link(format!("/proc/{shim}/ns/mnt")).unwrap();
        assert_ne!(lines[0], of_shim.to_string_lossy());
    });
}
