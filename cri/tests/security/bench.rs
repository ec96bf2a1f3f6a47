//! A node with an engine, and an image that has a shell, users and groups.

use std::sync::Arc;
use std::time::Duration;

use berth_cri::{
    ContainerConfig, ContainerId, ContainerSecurity, ContainerState, Engine, EngineError, LocalEngine,
    NamespaceOptions, PodSandboxConfig, SandboxId,
};
use berth_images::build::File;
use berth_tests::Node;
use tokio::runtime::Runtime;

use crate::busybox;
use crate::node::{self, add_image, engine_config, open};

const IMAGE: &str = "test.local/busybox:latest";
const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "sleep", "ls", "id", "touch", "stat", "readlink", "true", "ps", "mount", "hostname",
    "chown", "kill", "grep",
];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/srv:\n";
const GROUP: &str = "root:x:0:\nweb:x:1000:\nof-the-image:x:50000:web\n";

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    node: Node,
    runtime: Runtime,
    pub(crate) engine: Arc<LocalEngine>,
}

/// A pod's sandbox that a test works with.
pub(crate) struct Pod<'a> {
    pub(crate) engine: &'a LocalEngine,
    pub(crate) sandbox: SandboxId,
    pub(crate) config: PodSandboxConfig,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
        let mut files = busybox::files(&APPLETS);
        files.extend([
            File::regular("bin/helper", 0o755, helper),
            File::regular("etc/passwd", 0o644, PASSWD),
            File::regular("etc/group", 0o644, GROUP),
        ]);
        add_image(&node, IMAGE, &files, None);
        let (runtime, engine) = open(engine_config(node.root()), node.root());
        Self {
            node,
            runtime,
            engine: Arc::new(engine),
        }
    }

    /// Runs `work` with a pod, and looks for leftovers.
    pub(crate) fn with(self, change: impl FnOnce(&mut PodSandboxConfig), work: impl AsyncFnOnce(Pod<'_>)) {
        let mut config = self.pod();
        change(&mut config);
        self.runtime.block_on(async {
            let sandbox = self.engine.run_pod_sandbox(config.clone()).await.unwrap();
            let pod = Pod {
                engine: &self.engine,
                sandbox: sandbox.clone(),
                config,
            };
            tokio::time::timeout(PATIENCE, work(pod))
                .await
                .expect("the test takes too long");
            self.engine.remove_pod_sandbox(&sandbox).await.unwrap();
        });
        self.finish();
    }

    /// Why a pod is refused.
    pub(crate) fn refusal(self, change: impl FnOnce(&mut PodSandboxConfig)) -> EngineError {
        let mut config = self.pod();
        change(&mut config);
        let error = self.runtime.block_on(async {
            let error = self.engine.run_pod_sandbox(config).await.unwrap_err();
            assert!(self.engine.list_pod_sandboxes(None).await.unwrap().is_empty());
            error
        });
        self.finish();
        error
    }

    fn pod(&self) -> PodSandboxConfig {
        node::pod(&self.node, "uid")
    }

    fn finish(self) {
        drop(self.engine);
        self.runtime.shutdown_timeout(PATIENCE);
        node::finish(self.node, &[]);
    }
}

impl Pod<'_> {
    /// A container with a shell script, as its pod has the namespaces.
    pub(crate) fn script(&self, name: &str, script: &str, security: ContainerSecurity) -> ContainerConfig {
        ContainerConfig {
            name: name.into(),
            image: IMAGE.into(),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log").into(),
            namespaces: self.config.namespaces,
            user_namespace: self.config.user_namespace.clone(),
            security,
            ..Default::default()
        }
    }

    /// Starts a container.
    pub(crate) async fn start(&self, config: ContainerConfig) -> ContainerId {
        node::started(self.engine, &self.sandbox, config).await
    }

    /// Starts one that only waits.
    pub(crate) async fn idle(&self, name: &str, security: ContainerSecurity) -> ContainerId {
        self.start(self.script(name, "sleep 1000", security)).await
    }

    /// What a container prints until it has ended.
    pub(crate) async fn output(&self, config: ContainerConfig) -> String {
        let mut events = self.engine.events();
        let id = self.start(config).await;
        loop {
            let status = self.engine.container_status(&id).await.unwrap();
            if status.state == ContainerState::Exited {
                let log = std::fs::read_to_string(&status.log_path).unwrap();
                // The next script's is another.
                std::fs::remove_file(&status.log_path).unwrap();
                self.engine.remove_container(&id).await.unwrap();
                return log.lines().map(text_of).collect();
            }
            events.recv().await.unwrap();
        }
    }

    /// What a script prints.
    pub(crate) async fn run(&self, script: &str, security: ContainerSecurity) -> String {
        self.output(self.script("script", script, security)).await
    }

    /// What a script prints in a running container.
    pub(crate) async fn exec(&self, id: &ContainerId, script: &str) -> String {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let output = self
            .engine
            .exec_sync(id, command, PATIENCE, 1 << 20)
            .await
            .unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    /// Why a container is refused.
    pub(crate) async fn refusal(&self, config: ContainerConfig) -> EngineError {
        let refused = self.engine.create_container(&self.sandbox, config).await;
        refused.unwrap_err()
    }

    /// The pause's process.
    pub(crate) async fn pause(&self) -> i32 {
        let info = self.engine.sandbox_info(&self.sandbox).await.unwrap();
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        i32::try_from(info["pid"].as_i64().unwrap()).unwrap()
    }
}

/// A line of a log without its time, stream and tag.
fn text_of(line: &str) -> String {
    line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n"
}

/// The pod has one PID namespace.
pub(crate) fn shared_pid(config: &mut PodSandboxConfig) {
    config.namespaces = NamespaceOptions {
        shared_pid: true,
        ..Default::default()
    };
}
