//! A node with an engine and busybox containers on it.

use std::path::PathBuf;
use std::time::Duration;

use berth_cri::{
    ContainerConfig, ContainerId, Engine, EngineConfig, LocalEngine, PodSandboxConfig, SandboxId,
};
use berth_images::build::{File, layered};
use berth_images::{Reference, Store};
use berth_tests::Node;
use oci_spec::image::ConfigBuilder;
use tokio::runtime::Runtime;

use crate::busybox;
use crate::node::{self, add_image, engine_config, open};

const IMAGE: &str = "test.local/busybox:latest";
const APPLETS: [&str; 16] = [
    "sh", "cat", "echo", "sleep", "ls", "mount", "umount", "touch", "mkdir", "stat", "true", "dd", "grep",
    "nc", "find", "sort",
];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node, and an engine on it.
pub(crate) struct Bench {
    pub(crate) node: Node,
    runtime: Runtime,
    pub(crate) engine: LocalEngine,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        let mut files = busybox::files(&APPLETS);
        files.push(File::directory("etc", 0o755));
        add_image(&node, IMAGE, &files, None);
        let cdi_spec_dirs = vec![node.scratch().join("cdi")];
        let config = EngineConfig {
            cdi_spec_dirs,
            ..engine_config(node.root())
        };
        let (runtime, engine) = open(config, node.root());
        Self {
            node,
            runtime,
            engine,
        }
    }

    /// One more image.
    pub(crate) fn image(&self, name: &str, files: &[File]) {
        add_image(&self.node, name, files, None);
    }

    /// One more image, the lowest layer first.
    pub(crate) fn layered_image(&self, name: &str, layers: &[&[File]]) {
        let store = Store::open(&self.node.root().join("images")).unwrap();
        let name = name.parse::<Reference>().unwrap();
        layered(&store, &name, layers, &ConfigBuilder::default().build().unwrap()).unwrap();
    }

    /// A directory of the test's own.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.node.scratch().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Runs `work` with a pod's sandbox, removes that, and looks for leftovers.
    pub(crate) fn with_pod(self, work: impl AsyncFnOnce(&Self, &SandboxId)) {
        let config = self.pod();
        self.with(config, work);
    }

    /// The same with a pod of the test's own making.
    pub(crate) fn with(self, config: PodSandboxConfig, work: impl AsyncFnOnce(&Self, &SandboxId)) {
        self.runtime.block_on(async {
            let sandbox = self.engine.run_pod_sandbox(config).await.unwrap();
            tokio::time::timeout(PATIENCE, work(&self, &sandbox))
                .await
                .expect("the test takes too long");
            self.engine.remove_pod_sandbox(&sandbox).await.unwrap();
        });
        self.finish();
    }

    /// A pod, in a cgroup that a kubelet would have made for it.
    pub(crate) fn pod(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            privileged: true,
            ..node::pod(&self.node, "uid")
        }
    }

    /// A running container.
    pub(crate) async fn started(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        node::started(&self.engine, sandbox, config).await
    }

    /// Why a container can't be made.
    pub(crate) async fn refused(&self, sandbox: &SandboxId, config: ContainerConfig) -> String {
        match self.engine.create_container(sandbox, config).await {
            Ok(_) => panic!("it was made"),
            Err(error) => error.to_string(),
        }
    }

    /// What a script prints in a container, to both streams, without white space around it.
    pub(crate) async fn sh(&self, id: &ContainerId, script: &str) -> String {
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let output = self
            .engine
            .exec_sync(id, command, PATIENCE, 1 << 20)
            .await
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    fn finish(self) {
        drop(self.engine);
        self.runtime.shutdown_timeout(PATIENCE);
        node::finish(self.node, &[]);
    }
}

/// A container that does nothing until it is told to.
pub(crate) fn idle() -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image: IMAGE.into(),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        log_path: "main/0.log".into(),
        ..Default::default()
    }
}
