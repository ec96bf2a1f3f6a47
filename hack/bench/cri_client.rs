//! A client of CRI for the benchmarks: does what its standard input says, a line each, and answers with a line of JSON.
//!
//! ```text
//! cri-bench SOCKET IMAGE CGROUP LOGS
//!   pod          one pod's whole life; milliseconds of each call
//!   fill N       N pods with a container each, which stay
//!   ready N      waits for a server that says that N containers run
//!   drain        removes every pod
//!   pull IMAGE   fetches an image, and removes it again
//!   log LINES COMMAND...  a pod whose container writes so many lines; milliseconds until its log has them all
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::BufRead;
use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_cri::v1::image_service_client::ImageServiceClient;
use berth_cri::v1::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

type Outcome<T> = Result<T, Box<dyn Error>>;
type Figures = BTreeMap<&'static str, f64>;

/// Commands in a pod's container, of which the median counts.
const EXECS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

struct Bench {
    socket: String,
    image: String,
    cgroup: String,
    logs: String,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    pods: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, image, cgroup, logs] = arguments.as_slice() else {
        return Err("usage: cri-bench SOCKET IMAGE CGROUP LOGS".into());
    };
    let channel = connect(socket).await?;
    let mut bench = Bench {
        socket: socket.clone(),
        image: image.clone(),
        cgroup: cgroup.clone(),
        logs: logs.clone(),
        runtime: RuntimeServiceClient::new(channel.clone()),
        images: ImageServiceClient::new(channel),
        pods: 0,
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let figures = match words.as_slice() {
            ["pod"] => bench.pod().await?,
            ["fill", count] => bench.fill(count.parse()?).await?,
            ["ready", count] => bench.ready(count.parse()?).await?,
            ["drain"] => bench.drain().await?,
            ["pull", image] => bench.pull(image).await?,
            ["log", lines, command @ ..] => bench.log(lines.parse()?, command).await?,
            _ => return Err(format!("{line:?} is not understood").into()),
        };
        println!("{}", serde_json::to_string(&figures)?);
    }
    Ok(())
}

async fn connect(socket: &str) -> Outcome<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{socket}"))?;
    let begun = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

impl Bench {
    fn sandbox(&mut self) -> v1::PodSandboxConfig {
        self.pods += 1;
        let name = format!("bench-{}-{}", std::process::id(), self.pods);
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "default".into(),
                attempt: 0,
            }),
            log_directory: format!("{}/{name}", self.logs),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn container(&self) -> v1::ContainerConfig {
        v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata {
                name: "c".into(),
                attempt: 0,
            }),
            image: Some(v1::ImageSpec {
                image: self.image.clone(),
                ..Default::default()
            }),
            command: vec!["/bin/helper".into(), "sleep".into(), "1000000".into()],
            log_path: "c.log".into(),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    namespace_options: Some(v1::NamespaceOption {
                        pid: v1::NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// Runs a pod with a container; the ids, and how long each call took.
    async fn start(&mut self, figures: &mut Figures) -> Outcome<(String, String)> {
        let pod = self.sandbox();
        let container = self.container();
        self.start_in(pod, container, figures).await
    }

    async fn start_in(
        &mut self,
        pod: v1::PodSandboxConfig,
        container: v1::ContainerConfig,
        figures: &mut Figures,
    ) -> Outcome<(String, String)> {
        // The kubelet makes it before.
        std::fs::create_dir_all(&pod.log_directory)?;
        let whole = Instant::now();
        let request = v1::RunPodSandboxRequest {
            config: Some(pod.clone()),
            runtime_handler: String::new(),
        };
        let sandbox = self
            .runtime
            .run_pod_sandbox(request)
            .await?
            .into_inner()
            .pod_sandbox_id;
        figures.insert("run_ms", since(whole));
        let begun = Instant::now();
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.clone(),
            config: Some(container),
            sandbox_config: Some(pod),
        };
        let container = self
            .runtime
            .create_container(request)
            .await?
            .into_inner()
            .container_id;
        figures.insert("create_ms", since(begun));
        let begun = Instant::now();
        let container_id = container.clone();
        self.runtime
            .start_container(v1::StartContainerRequest { container_id })
            .await?;
        figures.insert("start_ms", since(begun));
        figures.insert("up_ms", since(whole));
        Ok((sandbox, container))
    }

    async fn pod(&mut self) -> Outcome<Figures> {
        let mut figures = Figures::new();
        let (sandbox, container) = self.start(&mut figures).await?;
        let mut execs = Vec::new();
        for _ in 0..EXECS {
            let begun = Instant::now();
            let request = v1::ExecSyncRequest {
                container_id: container.clone(),
                cmd: vec!["/bin/helper".into(), "true".into()],
                timeout: 60,
            };
            let answer = self.runtime.exec_sync(request).await?.into_inner();
            if answer.exit_code != 0 {
                return Err("a command failed".into());
            }
            execs.push(since(begun));
        }
        execs.sort_by(f64::total_cmp);
        figures.insert("exec_ms", execs[EXECS / 2]);
        let begun = Instant::now();
        let request = v1::StopContainerRequest {
            container_id: container,
            timeout: 0,
        };
        self.runtime.stop_container(request).await?;
        figures.insert("stop_container_ms", since(begun));
        let begun = Instant::now();
        self.remove(sandbox).await?;
        figures.insert("down_ms", since(begun));
        Ok(figures)
    }

    async fn remove(&mut self, pod_sandbox_id: String) -> Outcome<()> {
        let stop = v1::StopPodSandboxRequest {
            pod_sandbox_id: pod_sandbox_id.clone(),
        };
        self.runtime.stop_pod_sandbox(stop).await?;
        self.runtime
            .remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id })
            .await?;
        Ok(())
    }

    async fn log(&mut self, lines: usize, command: &[&str]) -> Outcome<Figures> {
        let pod = self.sandbox();
        let container = v1::ContainerConfig {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..self.container()
        };
        let log = format!("{}/{}", pod.log_directory, container.log_path);
        let mut figures = Figures::new();
        let begun = Instant::now();
        let (sandbox, container_id) = self.start_in(pod, container, &mut figures).await?;
        let starting = figures.get("up_ms").copied().unwrap_or_default();
        let exited = i32::from(v1::ContainerState::ContainerExited);
        loop {
            let request = v1::ContainerStatusRequest {
                container_id: container_id.clone(),
                verbose: false,
            };
            let status = self.runtime.container_status(request).await?.into_inner().status;
            if status.is_some_and(|status| status.state == exited) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Err("the container goes on and on".into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let mut taken = since(begun) - starting;
        // What is there now was there when the container's end was told; otherwise the log was late.
        while std::fs::read(&log)?.iter().filter(|byte| **byte == b'\n').count() < lines {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{log} lacks lines").into());
            }
            taken = since(begun) - starting;
        }
        figures.insert("log_ms", taken);
        self.remove(sandbox).await?;
        std::fs::remove_file(&log)?;
        Ok(figures)
    }

    async fn fill(&mut self, count: u32) -> Outcome<Figures> {
        let begun = Instant::now();
        for _ in 0..count {
            self.start(&mut Figures::new()).await?;
        }
        Ok(Figures::from([("fill_ms", since(begun))]))
    }

    async fn ready(&mut self, count: usize) -> Outcome<Figures> {
        let begun = Instant::now();
        loop {
            let channel = connect(&self.socket).await?;
            let mut runtime = RuntimeServiceClient::new(channel.clone());
            let state = v1::ContainerStateValue {
                state: v1::ContainerState::ContainerRunning.into(),
            };
            let filter = v1::ContainerFilter {
                state: Some(state),
                ..Default::default()
            };
            let request = v1::ListContainersRequest { filter: Some(filter) };
            match runtime.list_containers(request).await {
                Ok(answer) if answer.get_ref().containers.len() == count => {
                    self.runtime = runtime;
                    self.images = ImageServiceClient::new(channel);
                    return Ok(Figures::from([("ready_ms", since(begun))]));
                }
                Ok(answer) if begun.elapsed() > PATIENCE => {
                    let found = answer.get_ref().containers.len();
                    return Err(format!("{found} containers run, not {count}").into());
                }
                Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    async fn drain(&mut self) -> Outcome<Figures> {
        let begun = Instant::now();
        let all = self
            .runtime
            .list_pod_sandbox(v1::ListPodSandboxRequest { filter: None })
            .await?;
        for sandbox in all.into_inner().items {
            self.remove(sandbox.id).await?;
        }
        Ok(Figures::from([("drain_ms", since(begun))]))
    }

    async fn pull(&mut self, image: &str) -> Outcome<Figures> {
        let spec = v1::ImageSpec {
            image: image.to_owned(),
            ..Default::default()
        };
        let begun = Instant::now();
        let request = v1::PullImageRequest {
            image: Some(spec.clone()),
            ..Default::default()
        };
        self.images.pull_image(request).await?;
        let figures = Figures::from([("pull_ms", since(begun))]);
        self.images
            .remove_image(v1::RemoveImageRequest { image: Some(spec) })
            .await?;
        Ok(figures)
    }
}
