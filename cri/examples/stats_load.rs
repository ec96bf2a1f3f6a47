//! Makes many pods through a CRI socket and asks again and again what they use: the client of `hack/bench/stats`.
//!
//! ```text
//! stats_load image STORE                       puts an image of itself into a store
//! stats_load sleep                             what its containers do
//! stats_load run SOCKET PODS ROUNDS GROUP PID  prints the milliseconds of each call as JSON
//! ```
//!
//! `GROUP` is the cgroup for all pods, which are removed again, and `PID` the daemon's process: "cpu" is what both lists
//! of one round took of its processor time.

#![allow(clippy::print_stdout, reason = "its output is its result")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_cri::cgroups::Cgroup;
use berth_cri::v1;
use berth_cri::v1::runtime_service_client::RuntimeServiceClient;
use berth_images::build::{File, single_layer};
use berth_images::{Reference, Store};
use oci_spec::image::ConfigBuilder;
use tonic::transport::{Channel, Endpoint};

type Client = RuntimeServiceClient<Channel>;
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Messages about many pods are larger than a client takes by default; a kubelet takes this much.
const MESSAGE: usize = 16 << 20;

/// The containers' image.
const IMAGE: &str = "test.local/stats-load:latest";
const PROGRAM: &str = "bin/stats_load";
/// `USER_HZ` is 100 on every architecture that this program is built for.
const MILLISECONDS_PER_TICK: f64 = 10.0;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["image", store] => image(store),
        ["sleep"] => loop {
            std::thread::park();
        },
        ["run", socket, pods, rounds, group, daemon] => {
            run(socket, pods.parse()?, rounds.parse()?, group, daemon)
        }
        _ => Err("usage: stats_load image STORE | sleep | run SOCKET PODS ROUNDS GROUP PID".into()),
    }
}

fn image(store: &str) -> Result<()> {
    let program = std::fs::read("/proc/self/exe")?;
    let files = [
        File::directory("bin", 0o755),
        File::regular(PROGRAM, 0o755, program),
    ];
    let config = ConfigBuilder::default()
        .entrypoint(vec![format!("/{PROGRAM}"), "sleep".to_owned()])
        .build()?;
    single_layer(
        &Store::open(Path::new(store))?,
        &IMAGE.parse::<Reference>()?,
        &files,
        &config,
    )?;
    Ok(())
}

fn run(socket: &str, pods: usize, rounds: usize, group: &str, daemon: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = runtime.block_on(async {
        let mut client = connect(socket).await?;
        let made = make(&mut client, pods, group).await;
        let measured = match made {
            Ok(()) => measure(&mut client, rounds, daemon).await,
            Err(error) => Err(error),
        };
        remove(&mut client).await?;
        measured
    });
    if let Some(group) = Cgroup::open(group)? {
        group.delete()?;
    }
    println!("{}", serde_json::to_string(&measured?)?);
    Ok(())
}

async fn connect(socket: &str) -> Result<Client> {
    let endpoint = Endpoint::from_shared(format!("unix://{socket}"))?;
    for _ in 0..200 {
        if let Ok(channel) = endpoint.connect().await {
            return Ok(Client::new(channel).max_decoding_message_size(MESSAGE));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("nobody answers at {socket}").into())
}

async fn make(client: &mut Client, pods: usize, group: &str) -> Result<()> {
    for number in 0..pods {
        let cgroup_parent = format!("{group}/pod{number}");
        Cgroup::create(&cgroup_parent)?;
        let config = v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: format!("pod{number}"),
                uid: format!("uid{number}"),
                namespace: "bench".to_owned(),
                attempt: 0,
            }),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("/{cgroup_parent}"),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let sandbox = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        let container = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "main".to_owned(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: IMAGE.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox,
            config: Some(container),
            sandbox_config: Some(config),
        };
        let container_id = client.create_container(request).await?.into_inner().container_id;
        client
            .start_container(v1::StartContainerRequest { container_id })
            .await?;
    }
    Ok(())
}

/// Milliseconds of each call, and sizes of what they answer, by name.
async fn measure(
    client: &mut Client,
    rounds: usize,
    daemon: &str,
) -> Result<BTreeMap<&'static str, Vec<f64>>> {
    let mut times: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut note = |name, begin: Instant| {
        times
            .entry(name)
            .or_default()
            .push(begin.elapsed().as_secs_f64() * 1000.0);
    };
    let before = processor_time(daemon)?;
    let mut kilobytes = BTreeMap::new();
    for _ in 0..rounds {
        let begin = Instant::now();
        let of_containers = client
            .list_container_stats(v1::ListContainerStatsRequest::default())
            .await?;
        note("ListContainerStats", begin);
        let begin = Instant::now();
        let of_pods = client
            .list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default())
            .await?;
        note("ListPodSandboxStats", begin);
        kilobytes.insert("KB of ListContainerStats", size(of_containers.get_ref()));
        kilobytes.insert("KB of ListPodSandboxStats", size(of_pods.get_ref()));
    }
    let used = processor_time(daemon)? - before;
    for _ in 0..rounds.div_ceil(4) {
        let begin = Instant::now();
        let mut stream = client
            .stream_pod_sandbox_metrics(v1::StreamPodSandboxMetricsRequest {})
            .await?
            .into_inner();
        let (mut all, mut largest) = (0.0, 0.0_f64);
        while let Some(message) = stream.message().await? {
            all += size(&message);
            largest = largest.max(size(&message));
        }
        note("StreamPodSandboxMetrics", begin);
        kilobytes.insert("KB of StreamPodSandboxMetrics", all);
        kilobytes.insert("KB of its largest message", largest);
    }
    let rounds = u32::try_from(rounds)?;
    times.extend(kilobytes.into_iter().map(|(name, size)| (name, vec![size])));
    times.insert("cpu", vec![used / f64::from(rounds)]);
    Ok(times)
}

/// Thousands of bytes of a message.
fn size(message: &impl prost::Message) -> f64 {
    f64::from(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX)) / 1000.0
}

/// Milliseconds that a process has had so far, from fields 14 and 15 of `/proc/<pid>/stat`.
fn processor_time(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after) = stat.rsplit_once(')').ok_or("no such line")?;
    let ticks = after
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u32>);
    let ticks = ticks.sum::<std::result::Result<u32, _>>()?;
    Ok(f64::from(ticks) * MILLISECONDS_PER_TICK)
}

async fn remove(client: &mut Client) -> Result<()> {
    let all = client
        .list_pod_sandbox(v1::ListPodSandboxRequest::default())
        .await?
        .into_inner();
    for sandbox in all.items {
        let pod_sandbox_id = sandbox.id;
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        client.stop_pod_sandbox(stop).await?;
        client
            .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id })
            .await?;
    }
    Ok(())
}
