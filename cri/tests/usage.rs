//! What containers and sandboxes use, as the engine tells it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "its other half is for streams")]
#[path = "streaming/bench.rs"]
mod bench;
#[path = "support/busybox.rs"]
mod busybox;
#[path = "support/node.rs"]
mod node;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bench::{Bench, container, idle, words};
use berth_cri::{
    ContainerConfig, ContainerId, Engine, LinuxContainerResources, LocalEngine, PodSandboxConfig, SandboxId,
    v1,
};
use node::started;

const LIMIT: u64 = 256 << 20;
const HELD: u64 = 32 << 20;

/// Has written a file, holds memory, and keeps a processor busy. In that order: beside a loop that takes all that the quota
/// allows, the rest would hardly get on where another machine's processor is emulated.
fn busy() -> ContainerConfig {
    let script = format!(
        "dd if=/dev/zero of=/tmp/file bs=1M count=4; helper allocate {HELD} --hold | {{ read allocated; helper spin; }}"
    );
    ContainerConfig {
        command: words(&["sh", "-c", &script]),
        envs: vec![("PATH".into(), "/bin".into())],
        labels: [("app".to_owned(), "busy".to_owned())].into(),
        resources: LinuxContainerResources {
            memory_limit: Some(i64::try_from(LIMIT).unwrap()),
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            ..Default::default()
        },
        ..container(&[])
    }
}

async fn of_container(engine: &LocalEngine, id: &ContainerId) -> Option<v1::ContainerStats> {
    let stats = engine.container_stats(std::slice::from_ref(id)).await.unwrap();
    stats.into_iter().next()
}

async fn of_pod(engine: &LocalEngine, id: &SandboxId) -> Option<v1::LinuxPodSandboxStats> {
    let stats = engine.pod_sandbox_stats(std::slice::from_ref(id)).await.unwrap();
    stats.into_iter().next().map(|stats| stats.linux.unwrap())
}

/// Asks again until the answer is as it should be; the caller's time limit ends it.
async fn until<T: std::fmt::Debug>(ask: impl AsyncFn() -> Option<T>, enough: impl Fn(&T) -> bool) -> T {
    loop {
        if let Some(answer) = ask().await.filter(|answer| enough(answer)) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn value(number: Option<v1::UInt64Value>) -> u64 {
    number.map(|number| number.value).unwrap()
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

#[test]
fn a_containers_use_is_what_it_does() {
    Bench::new().with_pod(async |engine, sandbox| {
        let begin = now();
        let id = started(engine, sandbox, busy()).await;
        let stats = until(
            async || of_container(engine, &id).await,
            |stats| {
                let (Some(cpu), Some(memory), Some(layer)) =
                    (&stats.cpu, &stats.memory, &stats.writable_layer)
                else {
                    return false;
                };
                value(cpu.usage_core_nano_seconds) > 500_000_000
                    && cpu.usage_nano_cores.is_some_and(|cores| cores.value > 50_000_000)
                    && value(memory.rss_bytes) > HELD
                    && value(layer.used_bytes) >= 4 << 20
            },
        )
        .await;
        let attributes = stats.attributes.unwrap();
        assert_eq!(
            (attributes.id, attributes.metadata.unwrap().name),
            (id.0.clone(), "main".into())
        );
        assert_eq!(attributes.labels["app"], "busy");
        let cpu = stats.cpu.unwrap();
        assert!((begin..=now()).contains(&cpu.timestamp));
        let cores = value(cpu.usage_nano_cores);
        assert!(cores < 1_500_000_000, "it has half a processor, and uses {cores}");
        let memory = stats.memory.unwrap();
        let (usage, working_set) = (value(memory.usage_bytes), value(memory.working_set_bytes));
        assert!(working_set <= usage && usage <= LIMIT, "{memory:?}");
        assert_eq!(value(memory.available_bytes), LIMIT - working_set);
        assert!(value(memory.page_faults) >= HELD / 4096, "{memory:?}");
        assert!(value(memory.page_faults) >= value(memory.major_page_faults));
        assert_eq!(stats.swap.map_or(0, |swap| value(swap.swap_usage_bytes)), 0);
        let layer = stats.writable_layer.unwrap();
        assert!((3..20).contains(&value(layer.inodes_used)), "{layer:?}");
        assert!(std::path::Path::new(&layer.fs_id.unwrap().mountpoint).is_dir());
    });
}

#[test]
fn a_pods_use_is_that_of_its_containers_and_its_interface() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = started(engine, sandbox, busy()).await;
        let address = engine.pod_sandbox_status(sandbox).await.unwrap().ips[0];
        let before = of_pod(engine, sandbox).await.unwrap().network.unwrap();
        let before = value(before.default_interface.unwrap().rx_bytes);
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let sent = 50 * 1000;
        for _ in 0..50 {
            // Nobody listens there, of which the kernel tells the sender.
            let _ = socket.send_to(&[7; 1000], SocketAddr::new(address, 9));
        }
        let pod = until(
            async || of_pod(engine, sandbox).await,
            |pod| {
                let network = pod.network.as_ref().unwrap();
                let link = network.default_interface.as_ref().unwrap();
                value(link.rx_bytes) >= before + sent
                    && value(link.tx_bytes) > 0
                    && pod
                        .memory
                        .as_ref()
                        .is_some_and(|memory| value(memory.rss_bytes) > HELD)
                    && pod.cpu.as_ref().is_some_and(|cpu| cpu.usage_nano_cores.is_some())
            },
        )
        .await;
        let network = pod.network.unwrap();
        let link = network.default_interface.unwrap();
        assert_eq!(
            (&*link.name, value(link.rx_errors), network.interfaces.len()),
            ("eth0", 0, 0)
        );
        let [of_container] = &*pod.containers else {
            panic!("one container, not {:?}", pod.containers);
        };
        assert_eq!(of_container.attributes.as_ref().unwrap().id, id.0);
        let total = |cpu: &v1::CpuUsage| value(cpu.usage_core_nano_seconds);
        assert!(total(pod.cpu.as_ref().unwrap()) >= total(of_container.cpu.as_ref().unwrap()));
        let processes = value(pod.process.unwrap().process_count);
        assert!(
            (5..10).contains(&processes),
            "{processes} processes: shim, pause, sh, its two children and one of theirs"
        );
    });
}

#[test]
fn pods_that_share_a_group_are_told_apart() {
    Bench::new().with_pod(async |engine, sandbox| {
        started(engine, sandbox, busy()).await;
        let config = engine.pod_sandbox_status(sandbox).await.unwrap().config;
        let other = PodSandboxConfig {
            uid: "other".into(),
            name: "other".into(),
            ..config
        };
        let other = engine.run_pod_sandbox(other).await.unwrap();
        idle(engine, &other).await;
        let rss = |pod: &v1::LinuxPodSandboxStats| value(pod.memory.as_ref().unwrap().rss_bytes);
        let this = until(async || of_pod(engine, sandbox).await, |pod| rss(pod) > HELD).await;
        let that = of_pod(engine, &other).await.unwrap();
        assert!(rss(&that) < HELD / 2 && rss(&that) > 0, "{that:?}");
        assert_eq!((this.containers.len(), that.containers.len()), (1, 1));
        engine.remove_pod_sandbox(&other).await.unwrap();
    });
}

#[test]
fn what_has_ended_uses_nothing() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = started(engine, sandbox, busy()).await;
        let written = |stats: &v1::ContainerStats| {
            let layer = stats.writable_layer.as_ref();
            layer.is_some_and(|layer| value(layer.used_bytes) >= 4 << 20)
        };
        until(async || of_container(engine, &id).await, written).await;
        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        let ended = of_container(engine, &id).await.unwrap();
        assert_eq!(
            (&ended.cpu, &ended.memory, &ended.swap, &ended.io),
            (&None, &None, &None, &None)
        );
        assert!(written(&ended), "its layer is still there: {ended:?}");
        let pod = of_pod(engine, sandbox).await.unwrap();
        assert!(value(pod.memory.unwrap().rss_bytes) < HELD);
        engine.remove_container(&id).await.unwrap();
        assert_eq!(of_container(engine, &id).await, None);
        engine.stop_pod_sandbox(sandbox).await.unwrap();
        assert_eq!(of_pod(engine, sandbox).await, None);
    });
}

/// Containers come and go while they are listed: no call fails, and what is there all the time is in every answer.
#[test]
fn a_list_never_fails_because_of_one_container() {
    Bench::new().with_pod(async |engine, sandbox| {
        let stays = idle(engine, sandbox).await;
        let churn = async {
            for attempt in 0..12 {
                let config = ContainerConfig {
                    name: "goes".into(),
                    attempt,
                    log_path: format!("goes/{attempt}.log").into(),
                    ..container(&["sleep", "1000"])
                };
                let id = started(engine, sandbox, config).await;
                engine.remove_container(&id).await.unwrap();
            }
        };
        let list = async {
            let mut seen = HashSet::new();
            loop {
                let all = engine.list_containers(None).await.unwrap();
                let ids: Vec<_> = all.into_iter().map(|container| container.id).collect();
                let stats = engine.container_stats(&ids).await.unwrap();
                let told: Vec<_> = stats
                    .iter()
                    .map(|stats| stats.attributes.as_ref().unwrap().id.clone())
                    .collect();
                assert!(told.contains(&stays.0), "{told:?}");
                let pod = of_pod(engine, sandbox).await.unwrap();
                assert!(!pod.containers.is_empty());
                seen.extend(told);
                tokio::task::yield_now().await;
                if seen.len() > 200 {
                    return;
                }
            }
        };
        tokio::select! {
            () = churn => {}
            () = list => panic!("more containers than there were"),
        }
    });
}

/// What this kernel need not count: PSI, huge pages, and devices that the container does not use.
fn may_be_missing(name: &str) -> bool {
    [
        "container_pressure_",
        "container_hugetlb_",
        "container_blkio_",
        "container_fs_reads_",
        "container_fs_writes_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
}

#[test]
fn every_metric_has_a_value_with_all_its_labels() {
    Bench::new().with_pod(async |engine, sandbox| {
        let id = started(engine, sandbox, busy()).await;
        let holds = |stats: &v1::ContainerStats| {
            let memory = stats.memory.as_ref();
            stats.writable_layer.is_some() && memory.is_some_and(|memory| value(memory.rss_bytes) > HELD)
        };
        until(async || of_container(engine, &id).await, holds).await;
        let descriptors = engine.metric_descriptors().await.unwrap();
        let shapes: BTreeMap<_, _> = descriptors
            .iter()
            .map(|descriptor| (&*descriptor.name, &descriptor.label_keys))
            .collect();
        assert_eq!(shapes.len(), descriptors.len());
        let begin = now();
        let all = engine.pod_sandbox_metrics().await.unwrap();
        let [pod] = &*all else {
            panic!("one pod, not {}", all.len());
        };
        assert_eq!(
            (&pod.pod_sandbox_id, &pod.container_metrics[0].container_id),
            (&sandbox.0, &id.0)
        );
        let of_container = &pod.container_metrics[0].metrics;
        let mut missing: BTreeSet<_> = shapes
            .keys()
            .copied()
            .filter(|name| !may_be_missing(name))
            .collect();
        let mut series = HashSet::new();
        for metric in pod.metrics.iter().chain(of_container) {
            let keys = shapes[&*metric.name];
            assert_eq!(metric.label_values.len(), keys.len(), "{metric:?}");
            assert!((begin..=now()).contains(&metric.timestamp), "{metric:?}");
            assert!(
                series.insert((&metric.name, &metric.label_values)),
                "twice: {metric:?}"
            );
            missing.remove(&*metric.name);
        }
        assert_eq!(missing, BTreeSet::new(), "not told");

        let metric = |name: &str| {
            let found = pod
                .metrics
                .iter()
                .chain(of_container)
                .find(|metric| metric.name == name);
            found.unwrap()
        };
        let of = |name: &str| value(metric(name).value);
        let label = |name: &str, key: &str| {
            let place = shapes[name].iter().position(|known| known == key).unwrap();
            metric(name).label_values[place].as_str()
        };
        for (key, expected) in [
            ("container", "main"),
            ("name", &*id.0),
            ("namespace", "default"),
            ("pod", "test"),
        ] {
            assert_eq!(label("container_memory_rss", key), expected);
        }
        assert!(label("container_memory_rss", "id").ends_with(&id.0));
        assert_eq!(
            label("container_network_receive_bytes_total", "interface"),
            "eth0"
        );
        assert_eq!(label("container_network_receive_bytes_total", "name"), sandbox.0);
        assert_eq!(label("container_ulimits_soft", "ulimit"), "max_open_files");
        assert!(label("container_fs_limit_bytes", "device").len() > 1);
        assert_eq!(
            metric("container_memory_rss").metric_type(),
            v1::MetricType::Gauge
        );
        assert_eq!(
            metric("container_cpu_usage_seconds_total").metric_type(),
            v1::MetricType::Counter
        );

        assert_eq!(of("container_spec_memory_limit_bytes"), LIMIT);
        assert_eq!(
            (of("container_spec_cpu_quota"), of("container_spec_cpu_period")),
            (50_000, 100_000)
        );
        assert_eq!(of("container_spec_cpu_shares"), 512);
        let second = |nanos: i64| u64::try_from(nanos).unwrap() / 1_000_000_000;
        assert!((second(begin)..=second(now())).contains(&of("container_last_seen")));
        assert!(of("container_last_seen") - of("container_start_time_seconds") < 60);
        assert!(of("container_memory_max_usage_bytes") >= of("container_memory_working_set_bytes"));
        assert!(
            (3..5).contains(&of("container_processes")),
            "sh, its two children, and soon one of theirs"
        );
        assert!(of("container_threads") >= of("container_processes"));
        assert!(of("container_file_descriptors") >= 6);
        assert!(of("container_fs_inodes_free") < of("container_fs_inodes_total"));
        assert!(of("container_fs_usage_bytes") < of("container_fs_limit_bytes"));

        engine.stop_container(&id, Duration::ZERO).await.unwrap();
        let after = engine.pod_sandbox_metrics().await.unwrap();
        assert_eq!(after[0].container_metrics, [], "what has ended uses nothing");
        engine.stop_pod_sandbox(sandbox).await.unwrap();
        assert_eq!(engine.pod_sandbox_metrics().await.unwrap(), []);
    });
}
