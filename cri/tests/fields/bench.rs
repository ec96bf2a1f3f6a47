//! A node with an engine and busybox containers on it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::cgroups::Cgroup;
use berth_cri::{
    ContainerConfig, ContainerId, Engine, EngineConfig, LocalEngine, PodSandboxConfig, SandboxId,
};
use berth_images::build::{File, single_layer};
use berth_images::{Reference, Store};
use berth_tests::Node;
use oci_spec::image::ConfigBuilder;
use tokio::runtime::Runtime;

const IMAGE: &str = "test.local/busybox:latest";
const APPLETS: [&str; 14] = [
    "sh", "cat", "echo", "sleep", "ls", "mount", "umount", "touch", "mkdir", "stat", "true", "dd", "grep",
    "nc",
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
        let busybox = std::fs::read("/bin/busybox").unwrap();
        let mut files = vec![
            File::regular("bin/busybox", 0o755, busybox),
            File::directory("tmp", 0o1777),
            File::directory("etc", 0o755),
        ];
        files.extend(APPLETS.map(|applet| File::symlink(&format!("bin/{applet}"), "busybox")));
        add_image(&node, IMAGE, &files);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let root = node.root();
        let config = EngineConfig::new(
            root.join("lib"),
            root.join("run"),
            berth_tests::program("berth-oci"),
            berth_cni::CniConfig::new(root.join("net.d"), Vec::new(), root.join("cni")),
        );
        let cdi_spec_dirs = vec![node.scratch().join("cdi")];
        let config = EngineConfig {
            cdi_spec_dirs,
            ..config
        };
        let images = Store::open(&root.join("images")).unwrap();
        let engine = runtime
            .block_on(async { LocalEngine::open(config, images) })
            .unwrap();
        Self {
            node,
            runtime,
            engine,
        }
    }

    /// One more image.
    pub(crate) fn image(&self, name: &str, files: &[File]) {
        add_image(&self.node, name, files);
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
        let cgroup_parent = relative(self.node.cgroup()).join("pod");
        Cgroup::create(&cgroup_parent.to_string_lossy()).unwrap();
        PodSandboxConfig {
            name: "test".into(),
            namespace: "default".into(),
            uid: "uid".into(),
            hostname: "test".into(),
            log_directory: self.node.root().join("logs"),
            cgroup_parent,
            privileged: true,
            ..Default::default()
        }
    }

    /// A running container.
    pub(crate) async fn started(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.engine.create_container(sandbox, config).await.unwrap();
        self.engine.start_container(&id).await.unwrap();
        id
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
        if let Some(cgroup) = Cgroup::open(&relative(self.node.cgroup()).to_string_lossy()).unwrap() {
            cgroup.delete().unwrap();
        }
        for kept in ["lib", "run", "logs", "images", "cni"] {
            let _ = std::fs::remove_dir_all(self.node.root().join(kept));
        }
        self.node.finish();
    }
}

fn add_image(node: &Node, name: &str, files: &[File]) {
    let store = Store::open(&node.root().join("images")).unwrap();
    let config = ConfigBuilder::default().build().unwrap();
    single_layer(&store, &name.parse::<Reference>().unwrap(), files, &config).unwrap();
}

pub(crate) fn relative(cgroup: &Path) -> PathBuf {
    cgroup.strip_prefix("/").unwrap().to_owned()
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
