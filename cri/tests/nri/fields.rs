//! Every field of an adjustment, one after the other: it reaches the container, or is refused by its name.

use std::fs;
use std::path::Path;

use berth_cri::Engine;
use berth_cri::nri::api;

use super::adjustments::variable;
use super::bench::{Bench, idle, shell};
use super::plugin::PluginConfig;

/// What is to come of an adjustment.
enum Outcome {
    /// The container is made, and a shell in it prints this.
    Seen(&'static str, String),
    /// The error contains this.
    Refused(&'static str),
    /// Whichever the machine's hardware and kernel allow: made, or refused with an error that contains this.
    ByMachine(&'static str),
}
use Outcome::{ByMachine, Refused, Seen};

fn seen(script: &'static str, output: &str) -> Outcome {
    Seen(script, format!("{output}\n"))
}

fn linux(linux: api::LinuxContainerAdjustment) -> api::ContainerAdjustment {
    api::ContainerAdjustment {
        linux: Some(linux),
        ..Default::default()
    }
}

fn resources(resources: api::LinuxResources) -> api::ContainerAdjustment {
    linux(api::LinuxContainerAdjustment {
        resources: Some(resources),
        ..Default::default()
    })
}

fn memory(memory: api::LinuxMemory) -> api::ContainerAdjustment {
    resources(api::LinuxResources {
        memory: Some(memory),
        ..Default::default()
    })
}

fn cpu(cpu: api::LinuxCpu) -> api::ContainerAdjustment {
    resources(api::LinuxResources {
        cpu: Some(cpu),
        ..Default::default()
    })
}

type Row = (&'static str, api::ContainerAdjustment, Outcome);

fn try_all(bench: Bench, table: Vec<Row>) {
    try_all_then(bench, table, |_| {});
}

/// Makes a container for each adjustment and looks what became of it, then at the node's directory.
fn try_all_then(bench: Bench, table: Vec<Row>, look: impl FnOnce(&Path)) {
    let wanted = table.iter().map(|(_, adjust, _)| adjust.clone()).collect();
    bench.plugin(PluginConfig::adjusting_each("00", "adjuster", wanted));
    let pod = bench.pod("fields");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        for (name, _, outcome) in table {
            let made = async {
                let id = engine.create_container(&sandbox, idle("main")).await?;
                engine.start_container(&id).await.map(|()| id)
            };
            match (made.await, outcome) {
                (Ok(id), Seen(script, expected)) => {
                    assert_eq!(shell(engine, &id, script).await, expected, "{name}");
                }
                (Ok(_), ByMachine(_)) => {}
                (Err(error), Refused(part) | ByMachine(part)) => {
                    assert!(error.to_string().contains(part), "{name}: {error}");
                }
                (Ok(_), Refused(_)) => panic!("{name} is not refused"),
                (Err(error), Seen(..)) => panic!("{name}: {error}"),
            }
            for left in engine.list_containers(None).await.unwrap() {
                engine.remove_container(&left.id).await.unwrap();
            }
        }
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    look(bench.root());
    bench.finish();
}

#[test]
fn of_a_container() {
    let bench = Bench::new();
    let root = bench.root().to_owned();
    let hook = |name: &str| api::Hook {
        path: "/bin/sh".into(),
        args: vec![
            "sh".into(),
            "-c".into(),
            format!("echo {name} $HOOKED >> {}/plugins/hooks", root.display()),
        ],
        env: vec!["HOOKED=yes".into()],
        timeout: Some(api::OptionalInt { value: 20 }),
    };
    let hooks = |hooks| api::ContainerAdjustment {
        hooks: Some(hooks),
        ..Default::default()
    };
    fs::create_dir(root.join("plugins")).unwrap();
    fs::create_dir(root.join("cdi")).unwrap();
    fs::write(
        root.join("cdi/v.yaml"),
        "cdiVersion: \"0.6.0\"\nkind: v.com/fuse\ndevices:\n- name: one\n  containerEdits:\n    env: [CDI=yes, BOTH=cdi]\n    \
         deviceNodes: [{path: /dev/fuse-by-cdi, hostPath: /dev/fuse}]\n",
    )
    .unwrap();
    let cdi = |name: &str| api::ContainerAdjustment {
        cdi_devices: vec![api::CdiDevice { name: name.into() }],
        ..Default::default()
    };
    let table = vec![
        (
            "CDI_devices",
            cdi("v.com/fuse=one"),
            seen(
                "echo $CDI; : < /dev/fuse-by-cdi && busybox stat -c %t:%T /dev/fuse-by-cdi",
                "yes\na:e5",
            ),
        ),
        (
            "CDI_devices of which there is none",
            cdi("v.com/fuse=two"),
            Refused("v.com/fuse=two"),
        ),
        ("CDI_devices that are no name", cdi("fuse"), Refused("\"fuse\"")),
        (
            "mounts that are taken away",
            api::ContainerAdjustment {
                mounts: vec![api::Mount {
                    destination: "-/dev/mqueue".into(),
                    ..Default::default()
                }],
                ..Default::default()
            },
            seen("busybox grep -c ' /dev/mqueue ' /proc/self/mounts || true", "0"),
        ),
        (
            "hooks",
            hooks(api::Hooks {
                prestart: vec![hook("prestart")],
                create_runtime: vec![hook("createRuntime")],
                create_container: vec![hook("createContainer")],
                ..Default::default()
            }),
            seen("echo made", "made"),
        ),
        (
            "hooks.start_container",
            hooks(api::Hooks {
                start_container: vec![api::Hook {
                    path: "/bin/sh".into(),
                    args: vec!["sh".into(), "-c".into(), "echo started > /tmp/hooked".into()],
                    ..Default::default()
                }],
                ..Default::default()
            }),
            seen("cat /tmp/hooked", "started"),
        ),
        (
            "hooks.poststart",
            hooks(api::Hooks {
                poststart: vec![hook("x")],
                ..Default::default()
            }),
            Refused("poststart"),
        ),
        (
            "hooks.poststop",
            hooks(api::Hooks {
                poststop: vec![hook("x")],
                ..Default::default()
            }),
            Refused("poststop"),
        ),
        (
            "rlimits",
            api::ContainerAdjustment {
                rlimits: vec![api::PosixRlimit {
                    r#type: "RLIMIT_CORE".into(),
                    hard: 4096,
                    soft: 1024,
                }],
                ..Default::default()
            },
            seen(
                "busybox awk '/Max core/ { print $5, $6 }' /proc/1/limits",
                "1024 4096",
            ),
        ),
        (
            "rlimits that there are not",
            api::ContainerAdjustment {
                rlimits: vec![api::PosixRlimit {
                    r#type: "RLIMIT_NONE".into(),
                    hard: 1,
                    soft: 1,
                }],
                ..Default::default()
            },
            Refused("RLIMIT_NONE"),
        ),
        (
            "env that is there",
            api::ContainerAdjustment {
                env: vec![variable("PATH", "/bin"), variable("-HOSTNAME", "")],
                ..Default::default()
            },
            seen(
                "busybox tr '\\0' '\\n' < /proc/1/environ | busybox grep -E '^(PATH|HOSTNAME)='",
                "PATH=/bin",
            ),
        ),
    ];
    try_all_then(bench, table, |root| {
        let hooks = fs::read_to_string(root.join("plugins/hooks")).unwrap();
        assert_eq!(hooks, "prestart yes\ncreateRuntime yes\ncreateContainer yes\n");
    });
}

#[test]
fn of_its_linux_part() {
    let namespace = |kind: &str, path: &str| api::LinuxNamespace {
        r#type: kind.into(),
        path: path.into(),
    };
    let namespaces = |namespaces| {
        linux(api::LinuxContainerAdjustment {
            namespaces,
            ..Default::default()
        })
    };
    let sysctl = |name: &str, value: &str| {
        linux(api::LinuxContainerAdjustment {
            sysctl: [(name.to_owned(), value.to_owned())].into(),
            ..Default::default()
        })
    };
    let deny = api::LinuxSeccomp {
        default_action: "SCMP_ACT_ALLOW".into(),
        syscalls: vec![api::LinuxSyscall {
            names: vec!["mkdir".into(), "mkdirat".into()],
            action: "SCMP_ACT_ERRNO".into(),
            errno_ret: Some(api::OptionalUInt32 { value: 28 }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let device = |path: &str| api::LinuxDevice {
        path: path.into(),
        r#type: "c".into(),
        major: 1,
        minor: 3,
        ..Default::default()
    };
    let devices = |devices| {
        linux(api::LinuxContainerAdjustment {
            devices,
            ..Default::default()
        })
    };
    let table = vec![
        (
            "devices",
            devices(vec![
                device("/dev/null-too"),
                device("/dev/gone"),
                device("-/dev/gone"),
            ]),
            seen("echo x > /dev/null-too; test ! -e /dev/gone && echo ok", "ok"),
        ),
        (
            "cgroups_path",
            linux(api::LinuxContainerAdjustment {
                cgroups_path: "/elsewhere".into(),
                ..Default::default()
            }),
            Refused("/elsewhere"),
        ),
        (
            "seccomp_policy",
            linux(api::LinuxContainerAdjustment {
                seccomp_policy: Some(deny),
                ..Default::default()
            }),
            seen("busybox mkdir /tmp/x 2>&1 | busybox grep -c 'No space'", "1"),
        ),
        (
            "namespaces of the pod",
            namespaces(vec![namespace("network", "/proc/1/ns/net")]),
            Refused("network namespace"),
        ),
        (
            "namespaces of the pod, taken away",
            namespaces(vec![namespace("-ipc", "")]),
            Refused("ipc namespace"),
        ),
        (
            "namespaces that are taken away",
            namespaces(vec![namespace("-cgroup", "")]),
            seen(
                "busybox grep -q /podfields/ /proc/self/cgroup && echo host",
                "host",
            ),
        ),
        (
            "namespaces that are joined",
            namespaces(vec![namespace("pid", "/proc/self/ns/pid")]),
            seen(
                "busybox test $(busybox cat /proc/1/comm) != sleep && echo host",
                "host",
            ),
        ),
        (
            "sysctl",
            sysctl("net.ipv4.ip_unprivileged_port_start", "77"),
            seen("cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "77"),
        ),
        (
            "sysctl of the host",
            sysctl("vm.swappiness", "1"),
            Refused("vm.swappiness"),
        ),
        (
            "net_devices that are not there",
            linux(api::LinuxContainerAdjustment {
                net_devices: [(
                    "nosuchlink0".to_owned(),
                    api::LinuxNetDevice { name: "x0".into() },
                )]
                .into(),
                ..Default::default()
            }),
            Refused("nosuchlink0"),
        ),
        (
            "scheduler",
            linux(api::LinuxContainerAdjustment {
                scheduler: Some(api::LinuxScheduler {
                    policy: api::LinuxSchedulerPolicy::SchedIdle.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            seen("busybox awk '{ print $41 }' /proc/1/stat", "5"),
        ),
        (
            "io_priority of no class",
            linux(api::LinuxContainerAdjustment {
                io_priority: Some(api::LinuxIoPriority {
                    class: 9,
                    priority: 1,
                }),
                ..Default::default()
            }),
            Refused("I/O priority class 9"),
        ),
        (
            "memory_policy",
            linux(api::LinuxContainerAdjustment {
                memory_policy: Some(api::LinuxMemoryPolicy {
                    mode: api::MpolMode::MpolBind.into(),
                    nodes: "0".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ByMachine("memoryPolicy"),
        ),
        (
            "rdt",
            linux(api::LinuxContainerAdjustment {
                rdt: Some(api::LinuxRdt {
                    clos_id: Some(api::OptionalString { value: "gold".into() }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ByMachine("intelRdt"),
        ),
        (
            "rdt that is taken away",
            linux(api::LinuxContainerAdjustment {
                rdt: Some(api::LinuxRdt {
                    remove: true,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            seen("echo made", "made"),
        ),
    ];
    try_all(Bench::new(), table);
}

/// A control file, wherever the machine has it.
macro_rules! file {
    ($v1:literal, $v2:literal) => {
        concat!(
            "cat /sys/fs/cgroup/",
            $v2,
            " 2>/dev/null || cat /sys/fs/cgroup/",
            $v1
        )
    };
}

#[test]
fn of_its_limits() {
    let int = |value| Some(api::OptionalInt64 { value });
    let uint = |value| Some(api::OptionalUInt64 { value });
    let class = |value: &str| Some(api::OptionalString { value: value.into() });
    let all = api::LinuxResources::default;
    let table = vec![
        (
            "memory.limit",
            memory(api::LinuxMemory {
                limit: int(32 << 20),
                ..Default::default()
            }),
            seen(file!("memory/memory.limit_in_bytes", "memory.max"), "33554432"),
        ),
        (
            "memory.reservation",
            memory(api::LinuxMemory {
                reservation: int(16 << 20),
                ..Default::default()
            }),
            seen(
                file!("memory/memory.soft_limit_in_bytes", "memory.low"),
                "16777216",
            ),
        ),
        (
            "memory.swap",
            memory(api::LinuxMemory {
                limit: int(32 << 20),
                swap: int(48 << 20),
                ..Default::default()
            }),
            ByMachine("swap"),
        ),
        (
            "memory.kernel",
            memory(api::LinuxMemory {
                kernel: int(1 << 20),
                ..Default::default()
            }),
            ByMachine("kernel"),
        ),
        (
            "memory.kernel_tcp",
            memory(api::LinuxMemory {
                kernel_tcp: int(1 << 20),
                ..Default::default()
            }),
            ByMachine("kernelTCP"),
        ),
        (
            "memory.swappiness",
            memory(api::LinuxMemory {
                swappiness: uint(10),
                ..Default::default()
            }),
            ByMachine("swappiness"),
        ),
        (
            "memory.disable_oom_killer",
            memory(api::LinuxMemory {
                disable_oom_killer: Some(api::OptionalBool { value: true }),
                ..Default::default()
            }),
            ByMachine("disableOOMKiller"),
        ),
        (
            "memory.use_hierarchy",
            memory(api::LinuxMemory {
                use_hierarchy: Some(api::OptionalBool { value: true }),
                ..Default::default()
            }),
            ByMachine("useHierarchy"),
        ),
        (
            "cpu.quota and cpu.period",
            cpu(api::LinuxCpu {
                quota: int(20_000),
                period: uint(50_000),
                ..Default::default()
            }),
            seen(
                "busybox cat /sys/fs/cgroup/cpu.max 2>/dev/null || echo $(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us)",
                "20000 50000",
            ),
        ),
        (
            "cpu.shares",
            cpu(api::LinuxCpu {
                shares: uint(1024),
                ..Default::default()
            }),
            seen(
                "if test -e /sys/fs/cgroup/cpu.weight; then busybox sed s/100/1024/ /sys/fs/cgroup/cpu.weight; else cat /sys/fs/cgroup/cpu/cpu.shares; fi",
                "1024",
            ),
        ),
        (
            "cpu.cpus and cpu.mems",
            cpu(api::LinuxCpu {
                cpus: "0".into(),
                mems: "0".into(),
                ..Default::default()
            }),
            seen(
                "echo $(busybox awk '/_allowed_list/ { print $2 }' /proc/1/status)",
                "0 0",
            ),
        ),
        (
            "cpu.realtime_runtime and realtime_period",
            cpu(api::LinuxCpu {
                realtime_runtime: int(1000),
                realtime_period: uint(100_000),
                ..Default::default()
            }),
            ByMachine("rt_runtime"),
        ),
        (
            "pids",
            resources(api::LinuxResources {
                pids: Some(api::LinuxPids { limit: 77 }),
                ..all()
            }),
            seen(file!("pids/pids.max", "pids.max"), "77"),
        ),
        (
            "hugepage_limits",
            resources(api::LinuxResources {
                hugepage_limits: vec![api::HugepageLimit {
                    page_size: "2MB".into(),
                    limit: 4 << 20,
                }],
                ..all()
            }),
            ByMachine("hugepageLimits"),
        ),
        (
            "unified",
            resources(api::LinuxResources {
                unified: [("memory.high".to_owned(), "30000000".to_owned())].into(),
                ..all()
            }),
            ByMachine("unified"),
        ),
        (
            "devices",
            resources(api::LinuxResources {
                devices: vec![api::LinuxDeviceCgroup {
                    allow: true,
                    r#type: "c".into(),
                    major: int(10),
                    minor: int(229),
                    access: "rwm".into(),
                }],
                ..all()
            }),
            seen(
                "busybox mknod /tmp/fuse c 10 229 && : < /tmp/fuse && echo allowed",
                "allowed",
            ),
        ),
        (
            "blockio_class",
            resources(api::LinuxResources {
                blockio_class: class("fast"),
                ..all()
            }),
            Refused("block I/O class fast"),
        ),
        (
            "blockio_class that is none",
            resources(api::LinuxResources {
                blockio_class: class(""),
                ..all()
            }),
            seen("echo made", "made"),
        ),
        (
            "rdt_class",
            resources(api::LinuxResources {
                rdt_class: class("gold"),
                ..all()
            }),
            ByMachine("intelRdt"),
        ),
        (
            "rdt_class that is none",
            resources(api::LinuxResources {
                rdt_class: class(""),
                ..all()
            }),
            seen("echo made", "made"),
        ),
    ];
    try_all(Bench::new(), table);
}
