//! A node with `berth cri` on it, and a client.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_cri::cgroups::Cgroup;
use berth_cri::v1;
use berth_cri::v1::image_service_client::ImageServiceClient;
use berth_cri::v1::runtime_service_client::RuntimeServiceClient;
use berth_images::build::{File, single_layer};
use berth_images::{Reference, Store};
use berth_tests::{Node, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::transport::{Channel, Endpoint};

/// The name of the image that every test's node has.
pub(crate) const IMAGE: &str = "test.local/helper:latest";
/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a daemon that lives may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);

/// A node with the daemon on it.
pub(crate) struct Daemon {
    pub(crate) node: Node,
    runtime: tokio::runtime::Runtime,
    process: Option<Program>,
}

/// The two services of the socket.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) runtime: RuntimeServiceClient<Channel>,
    pub(crate) images: ImageServiceClient<Channel>,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    /// A daemon whose first command is changed by `change`; it may put things into the node's scratch directory.
    pub(crate) fn start_with(change: impl FnOnce(&Node, &mut Command)) -> Self {
        Self::make(Node::new(), change)
    }

    /// A daemon on this node, with a configuration.
    pub(crate) fn start_on(node: Node, config: &str) -> Self {
        std::fs::create_dir_all(node.root().join("etc/berth")).unwrap();
        std::fs::write(node.root().join("etc/berth/config.toml"), config).unwrap();
        Self::make(node, |_, _| {})
    }

    fn make(node: Node, change: impl FnOnce(&Node, &mut Command)) -> Self {
        let store = Store::open(&node.root().join("var/lib/berth/images")).unwrap();
        let helper = std::fs::read(program("berth-helper")).unwrap();
        let files = [
            File::regular("bin/helper", 0o755, helper),
            File::directory("tmp", 0o1777),
        ];
        let config = serde_json::from_str(r#"{ "Entrypoint": ["/bin/helper"] }"#).unwrap();
        single_layer(&store, &IMAGE.parse::<Reference>().unwrap(), &files, &config).unwrap();
        let mut daemon = Self {
            node,
            runtime: idle_runtime(),
            process: None,
        };
        let mut command = daemon.node.berth(["cri"]);
        change(&daemon.node, &mut command);
        daemon.spawn_from(command);
        daemon
    }

    fn spawn(&mut self) {
        self.spawn_from(self.node.berth(["cri"]));
    }

    fn spawn_from(&mut self, mut command: Command) {
        command.stdin(Stdio::null());
        self.process = Some(Program(command.spawn().unwrap()));
    }

    /// The daemon's process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.as_ref().unwrap().0.id().try_into().unwrap())
    }

    /// Kills the daemon, and leaves it to others to wait for its end.
    pub(crate) fn kill(&self) {
        kill(self.pid(), Signal::SIGKILL).unwrap();
    }

    /// Ends the daemon by a signal and waits for its end.
    pub(crate) fn stop(&mut self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
        self.process.take().unwrap().0.wait().unwrap();
    }

    /// Kills the daemon and starts another one.
    pub(crate) fn restart(&mut self) {
        self.stop(Signal::SIGKILL);
        assert!(
            self.socket().exists(),
            "a killed daemon can't have removed its socket"
        );
        self.spawn();
    }

    /// Kills the daemon, whether it listens already or not, and starts another one.
    pub(crate) fn restart_any(&mut self) {
        self.stop(Signal::SIGKILL);
        self.spawn();
    }

    /// Starts another daemon after the last one was stopped.
    pub(crate) fn start_again(&mut self) {
        self.spawn();
    }

    /// Where the daemon listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.node.root().join("run/berth/cri.sock")
    }

    /// Does some work on the test's runtime.
    pub(crate) fn work<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> T {
        let runtime = std::mem::replace(&mut self.runtime, idle_runtime());
        let result = runtime.block_on(work(self));
        self.runtime = runtime;
        result
    }

    /// Does some work with a fresh client, as soon as the daemon answers.
    pub(crate) fn with<T>(&self, work: impl AsyncFnOnce(Client) -> T) -> T {
        self.runtime.block_on(async {
            let client = tokio::time::timeout(PATIENCE, connect(&self.socket())).await;
            work(client.expect("the daemon answers")).await
        })
    }

    /// A pod's sandbox, in a cgroup that a kubelet would have made.
    pub(crate) fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        self.place().sandbox(name)
    }

    /// Removes what a kubelet would: the cgroup and the logs of a pod that is gone.
    pub(crate) fn forget(&self, name: &str) {
        let _ = std::fs::remove_dir_all(self.node.root().join("logs").join(name));
        let cgroup = self.node.cgroup().join(format!("pod-{name}"));
        if let Some(cgroup) = Cgroup::open(&relative(&cgroup)).unwrap() {
            cgroup.delete().unwrap();
        }
    }

    /// Where the node's pods go.
    pub(crate) fn place(&self) -> Place {
        Place {
            root: self.node.root().to_owned(),
            cgroup: self.node.cgroup().to_owned(),
        }
    }

    /// Ends the daemon and looks for leftovers.
    pub(crate) fn finish(mut self) {
        self.stop(Signal::SIGTERM);
        assert!(!self.socket().exists(), "the socket is still there");
        let _ = std::fs::remove_dir_all(self.node.root().join("logs"));
        let _ = std::fs::remove_dir_all(self.node.root().join("etc"));
        if let Some(cgroup) = Cgroup::open(&relative(self.node.cgroup())).unwrap() {
            cgroup.delete().unwrap();
        }
        self.node.finish();
    }
}

/// Where a node's pods go.
#[derive(Clone)]
pub(crate) struct Place {
    root: PathBuf,
    cgroup: PathBuf,
}

impl Place {
    /// A pod's sandbox, in a cgroup that a kubelet would have made.
    pub(crate) fn sandbox(&self, name: &str) -> v1::PodSandboxConfig {
        let cgroup = self.cgroup.join(format!("pod-{name}"));
        Cgroup::create(&relative(&cgroup)).unwrap();
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.root.join("logs").join(name).to_string_lossy().into_owned(),
            labels: HashMap::from([("app".to_owned(), name.to_owned())]),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: cgroup.to_string_lossy().into_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

fn relative(cgroup: &Path) -> String {
    cgroup.to_string_lossy().trim_start_matches('/').to_owned()
}

/// A process that ends with its test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn idle_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A client, as soon as the daemon answers. What a killed daemon was about to start may hold its socket for a moment.
pub(crate) async fn connect(socket: &Path) -> Client {
    // As a kubelet takes them.
    const MAX_MESSAGE: usize = 16 << 20;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    loop {
        if let Ok(channel) = endpoint.connect().await {
            let mut client = Client {
                runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
                images: ImageServiceClient::new(channel),
            };
            let version = client.runtime.version(v1::VersionRequest::default());
            if let Ok(Ok(_)) = tokio::time::timeout(ANSWER, version).await {
                return client;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A container that runs a verb of the helper.
pub(crate) fn container(name: &str, arguments: &[&str]) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: name.into(),
            attempt: 0,
        }),
        image: Some(v1::ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        args: arguments.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        ..Default::default()
    }
}

impl Client {
    pub(crate) async fn run(&mut self, config: &v1::PodSandboxConfig) -> String {
        self.try_run(config).await.unwrap()
    }

    pub(crate) async fn try_run(&mut self, config: &v1::PodSandboxConfig) -> Result<String, tonic::Status> {
        let request = v1::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let made = self.runtime.run_pod_sandbox(request).await?;
        Ok(made.into_inner().pod_sandbox_id)
    }

    pub(crate) async fn create(
        &mut self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        config: v1::ContainerConfig,
    ) -> Result<String, tonic::Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod.clone()),
        };
        let made = self.runtime.create_container(request).await?;
        Ok(made.into_inner().container_id)
    }

    pub(crate) async fn start(&mut self, container: &str) -> Result<(), tonic::Status> {
        let container_id = container.to_owned();
        self.runtime
            .start_container(v1::StartContainerRequest { container_id })
            .await?;
        Ok(())
    }

    /// A running container.
    pub(crate) async fn started(
        &mut self,
        sandbox: &str,
        pod: &v1::PodSandboxConfig,
        config: v1::ContainerConfig,
    ) -> String {
        let id = self.create(sandbox, pod, config).await.unwrap();
        self.start(&id).await.unwrap();
        id
    }

    pub(crate) async fn status(&mut self, container: &str) -> Result<v1::ContainerStatus, tonic::Status> {
        let request = v1::ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let answer = self.runtime.container_status(request).await?;
        Ok(answer.into_inner().status.unwrap())
    }

    /// Runs a verb of the helper in a container, which has to succeed.
    pub(crate) async fn exec(&mut self, container: &str, arguments: &[&str]) -> String {
        let words = ["/bin/helper"].iter().chain(arguments);
        let request = v1::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: words.map(|&word| word.to_owned()).collect(),
            timeout: 30,
        };
        let output = self.runtime.exec_sync(request).await.unwrap().into_inner();
        assert_eq!(output.exit_code, 0, "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn stop(&mut self, container: &str, timeout: i64) -> Result<(), tonic::Status> {
        let container_id = container.to_owned();
        let request = v1::StopContainerRequest {
            container_id,
            timeout,
        };
        self.runtime.stop_container(request).await?;
        Ok(())
    }

    pub(crate) async fn remove(&mut self, container: &str) -> Result<(), tonic::Status> {
        let container_id = container.to_owned();
        let request = v1::RemoveContainerRequest { container_id };
        self.runtime.remove_container(request).await?;
        Ok(())
    }

    pub(crate) async fn stop_pod(&mut self, sandbox: &str) -> Result<(), tonic::Status> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id };
        self.runtime.stop_pod_sandbox(request).await?;
        Ok(())
    }

    pub(crate) async fn remove_pod(&mut self, sandbox: &str) -> Result<(), tonic::Status> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id };
        self.runtime.remove_pod_sandbox(request).await?;
        Ok(())
    }

    pub(crate) async fn remove_sandbox(&mut self, id: &str) {
        self.stop_pod(id).await.unwrap();
        self.remove_pod(id).await.unwrap();
    }
}
