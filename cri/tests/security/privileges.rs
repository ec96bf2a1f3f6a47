//! What a container's processes may do.

use berth_cri::{ContainerSecurity, EngineError};

use crate::bench::Bench;

fn capabilities(add: &[&str], drop: &[&str], ambient: &[&str]) -> ContainerSecurity {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ContainerSecurity {
        add_capabilities: owned(add),
        drop_capabilities: owned(drop),
        add_ambient_capabilities: owned(ambient),
        ..Default::default()
    }
}

/// The numbers in the lines that the helper's `caps` prints.
fn set(printed: &str, name: &str) -> u64 {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    u64::from_str_radix(line.unwrap(), 16).unwrap()
}

#[test]
fn capabilities_are_added_dropped_and_kept_over_the_change_of_user() {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const NET_ADMIN: u64 = 1 << 12;
    Bench::new().with(
        |_| (),
        async |pod| {
            let caps = "helper caps";
            let none = pod.run(caps, capabilities(&[], &["ALL"], &[])).await;
            assert_eq!((set(&none, "CapEff"), set(&none, "CapBnd")), (0, 0), "{none}");
            let one = pod.run(caps, capabilities(&["NET_ADMIN"], &["ALL"], &[])).await;
            assert_eq!(set(&one, "CapEff"), NET_ADMIN, "{one}");
            let all = pod.run(caps, capabilities(&["ALL"], &[], &[])).await;
            let own = std::fs::read_to_string("/proc/self/status").unwrap();
            let own = own
                .lines()
                .find_map(|line| line.strip_prefix("CapBnd:\t"))
                .unwrap();
            assert_eq!(
                set(&all, "CapBnd"),
                u64::from_str_radix(own, 16).unwrap(),
                "{all}"
            );
            let user = ContainerSecurity {
                run_as_user: Some(1000),
                no_new_privs: true,
                ..capabilities(&[], &["ALL"], &["NET_BIND_SERVICE"])
            };
            let ambient = pod.run(caps, user).await;
            for name in ["CapEff", "CapPrm", "CapInh", "CapAmb", "CapBnd"] {
                assert_eq!(set(&ambient, name), NET_BIND_SERVICE, "{name} in {ambient}");
            }
            assert!(ambient.contains("NoNewPrivs: 1"), "{ambient}");
        },
    );
}

#[test]
fn paths_are_hidden_as_they_are_given() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let script = "ls /proc/irq | grep -c .; touch /proc/sys/kernel/hostname && echo writable || echo read-only";
            let bare = pod.run(script, ContainerSecurity::default()).await;
            assert!(!bare.starts_with("0\n") && bare.ends_with("writable\n"), "{bare}");
            let hidden = ContainerSecurity {
                masked_paths: vec!["/proc/irq".into(), "/no/such/path".into(), "/etc/passwd".into()],
                readonly_paths: vec!["/proc/sys".into()],
                ..Default::default()
            };
            let script = script.to_owned() + "; cat /etc/passwd | grep -c .";
            let printed = pod.run(&script, hidden).await;
            assert!(
                printed.starts_with("0\n") && printed.contains("read-only\n"),
                "{printed}"
            );
            assert!(printed.ends_with("\n0\n"), "{printed}");
        },
    );
}

#[test]
fn a_read_only_root_is_not_written() {
    Bench::new().with(
        |_| (),
        async |pod| {
            let security = ContainerSecurity {
                readonly_rootfs: true,
                ..Default::default()
            };
            let script = "touch /file && echo written; touch /dev/shm/file && echo shared";
            let printed = pod.run(script, security).await;
            assert!(
                printed.contains("Read-only file system") && printed.ends_with("shared\n"),
                "{printed}"
            );
            assert!(
                pod.run(script, ContainerSecurity::default())
                    .await
                    .starts_with("written\n")
            );
        },
    );
}

#[test]
fn a_privileged_container_needs_a_pod_that_may_have_some() {
    let privileged = || ContainerSecurity {
        privileged: true,
        masked_paths: vec!["/proc/scsi".into()],
        ..Default::default()
    };
    Bench::new().with(
        |_| (),
        async |pod| {
            let refused = pod.refusal(pod.script("privileged", "true", privileged())).await;
            assert!(
                matches!(&refused, EngineError::InvalidArgument(why) if why.contains("no privileged container")),
                "{refused:?}"
            );
        },
    );
    Bench::new().with(
        |config| config.privileged = true,
        async |pod| {
            let script =
                "helper caps; touch /sys/kernel/mm && echo sysfs; mount -t tmpfs none /tmp && echo mounted";
            let printed = pod.run(script, privileged()).await;
            assert!(printed.contains("Seccomp: 0"), "{printed}");
            assert!(printed.ends_with("sysfs\nmounted\n"), "{printed}");
            let printed = pod.run(script, ContainerSecurity::default()).await;
            assert!(
                !printed.contains("sysfs\n") && !printed.contains("mounted"),
                "{printed}"
            );
        },
    );
}

#[test]
fn sysctls_need_a_namespace_of_the_pods_own() {
    let sysctl = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Bench::new().with(
        |config| {
            config.sysctls.extend([
                sysctl("net.ipv4.ip_unprivileged_port_start", "80"),
                sysctl("kernel.shm_rmid_forced", "1"),
            ]);
        },
        async |pod| {
            let script = "helper sysctl net.ipv4.ip_unprivileged_port_start kernel.shm_rmid_forced";
            let printed = pod.run(script, ContainerSecurity::default()).await;
            assert_eq!(
                printed,
                "net.ipv4.ip_unprivileged_port_start = 80\nkernel.shm_rmid_forced = 1\n"
            );
        },
    );
    for (name, network, ipc) in [
        ("net.ipv4.tcp_syncookies", true, false),
        ("kernel.msgmax", false, true),
    ] {
        let refused = Bench::new().refusal(|config| {
            config.sysctls.extend([sysctl(name, "1")]);
            config.namespaces.host_network = network;
            config.namespaces.host_ipc = ipc;
        });
        assert!(refused.to_string().contains(name), "{refused}");
    }
}
